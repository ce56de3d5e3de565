"""Which curves a table of metrics has: for figures and for the live view, so that both show the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from aksgpu.errors import InvalidInput
from aksgpu.metrics import canonical
from aksgpu.metrics.table import POSITION_COLUMNS

__all__ = ["Curve", "hundred_percent", "last_value", "metric_columns", "select", "tables_by_run"]

_COMPANION_SHARE = 0.95
"""Fraction of a metric's rows that must have another metric, so that both count as printed in one line."""
_POSITIONS = frozenset({*POSITION_COLUMNS, "run"})


@dataclass(frozen=True)
class Curve:
    """One line of a figure.

    Attributes:
        label: its name; empty for the only curve.
        metric: the metric's printed name.
        axis: ``step``, ``epoch``, ``time`` or ``row``.
        x: positions on that axis; those of ``time`` are seconds.
        y: values; NaN where the value is not finite.
    """

    label: str
    metric: str
    axis: str
    x: np.ndarray[Any, Any]
    y: np.ndarray[Any, Any]


def tables_by_run(data: Any) -> dict[str, pd.DataFrame]:
    """Return the tables by the runs' names."""
    if isinstance(data, Mapping):
        if not data:
            raise InvalidInput("`data` must have at least one run, got an empty dict")
        return {str(name): _table(run, f"run {name!r}") for name, run in data.items()}
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        if not data:
            raise InvalidInput("`data` must have at least one run, got an empty list")
        names = [str(getattr(run, "name", f"run {number}")) for number, run in enumerate(data, 1)]
        unique = names if len(set(names)) == len(names) else [f"{name} ({n})" for n, name in enumerate(names, 1)]
        return {name: _table(run, f"run {name!r}") for name, run in zip(unique, data, strict=True)}
    table = _table(data, "`data`")
    if "run" in table and len(table):
        parts = {}
        for name, part in table.groupby("run", sort=False):
            part.attrs.update(table.attrs)
            parts[str(name)] = part
        return parts
    return {"": table}


def _table(data: Any, what: str) -> pd.DataFrame:
    if not isinstance(data, pd.DataFrame) and callable(getattr(data, "metrics", None)):
        data = data.metrics()
    if not isinstance(data, pd.DataFrame):
        raise InvalidInput(
            f"{what} must be a DataFrame of metrics or a Job, got {type(data).__name__}",
            hint="job.metrics() returns such a table.",
        )
    return data


def select(
    runs: Mapping[str, pd.DataFrame],
    metrics: Sequence[str] = (),
    x: str | None = None,
    begin: pd.Timestamp | None = None,
) -> list[Curve]:
    """Return the curves of metrics.

    Args:
        runs: tables of metrics by the runs' names.
        metrics: names of metrics, as printed or in general. None given takes the accuracies; where there are none, the
            losses; else the first metric.
        x: ``step``, ``epoch`` or ``time``; None takes the steps, or the epochs where a metric has no steps.
        begin: where the axis of time has its zero; None is the first value of each curve.

    Raises:
        InvalidInput: the metric does not exist.
    """
    wanted = list(metrics) or _usual_metrics(runs)
    curves = []
    for run, table in runs.items():
        for metric in wanted:
            column = _column(table, metric)
            if column is None:
                if metrics and len(runs) == 1 and len(table):
                    raise InvalidInput(
                        f"the run has no metric {metric!r}",
                        hint=f"It has {', '.join(metric_columns(table)) or 'none'}.",
                    )
                continue
            for part, rows in _parts(table, column):
                label = ", ".join(filter(None, (run, column if len(wanted) > 1 else "", part)))
                curves.append(_line(label, column, rows, x, begin))
    if metrics and not curves and any(len(table) for table in runs.values()):
        names = sorted({name for table in runs.values() for name in metric_columns(table)})
        raise InvalidInput(f"no run has a metric {metrics[0]!r}", hint=f"They have {', '.join(names)}.")
    return curves


def metric_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns of a table that are metrics."""
    return [name for name in table.columns if name not in _POSITIONS and pd.api.types.is_numeric_dtype(table[name])]


def _usual_metrics(runs: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return the metrics that are drawn by default."""
    columns = list(dict.fromkeys(name for table in runs.values() for name in metric_columns(table)))
    for word in ("accuracy", "loss"):
        found = [name for name in columns if word in canonical(name).split("_")]
        if found:
            return found[:4]
    return columns[:1]


def _column(table: pd.DataFrame, metric: str) -> str | None:
    """Return the column of a metric: by its printed name, or otherwise by its general name."""
    if metric in table.columns:
        return metric
    for name in metric_columns(table):
        if canonical(name) == metric:
            return name
    return None


def _parts(table: pd.DataFrame, column: str) -> Iterable[tuple[str, pd.DataFrame]]:
    """Split a table by index and rank, if several of them have values."""
    measured = table[table[column].notna()]
    keys = [key for key in ("index", "rank") if key in table and measured[key].nunique() > 1]
    if "index" not in keys and _run_side_by_side(measured):
        keys.insert(0, "pod")
    if not keys:
        yield "", table
        return
    for values, rows in table.groupby(keys, sort=True, dropna=True):
        yield " ".join(f"{key} {value}" for key, value in zip(keys, values, strict=True)), rows


def _run_side_by_side(rows: pd.DataFrame) -> bool:
    """Return whether several pods without indexes have the same number of attempt, so that none replaces another."""
    if "pod" not in rows or "attempt" not in rows:
        return False
    return bool((rows.groupby("attempt")["pod"].nunique() > 1).any())


def _line(label: str, column: str, rows: pd.DataFrame, x: str | None, begin: pd.Timestamp | None) -> Curve:
    rows = rows[rows[column].notna() | _is_printed_nan(rows, column)]
    axis = x or _axis(rows, column)
    if axis in ("step", "epoch"):
        rows = _without_repeated(rows, axis)
    if axis == "time":
        at = (
            (rows["time"] - (rows["time"].min() if begin is None else begin))
            .dt.total_seconds()
            .to_numpy(dtype=float, na_value=np.nan)
        )
    elif axis == "row":
        at = np.arange(len(rows), dtype=float)
    else:
        at = rows[axis].to_numpy(dtype=float, na_value=np.nan)
    values = rows[column].to_numpy(dtype=float, na_value=np.nan).copy()
    values[~np.isfinite(values)] = np.nan
    known = np.isfinite(at)
    return Curve(label, column, axis, at[known], values[known])


def _without_repeated(rows: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Return the rows without those that a later attempt has done again, such as the steps after a checkpoint."""
    if "attempt" not in rows or rows["attempt"].nunique() < 2:
        return rows
    kept: list[pd.DataFrame] = []
    for _, later in rows.groupby("attempt", sort=True):
        begin = later[axis].min()
        kept = [part[~(part[axis] >= begin).fillna(False)] for part in kept]
        kept.append(later)
    return pd.concat(kept)


def _is_printed_nan(rows: pd.DataFrame, column: str) -> Any:
    """Return in which rows a metric is NaN because the program printed NaN, and not because the row has other metrics.

    These are the rows with the metrics that otherwise always come with this one, and the rows without any metric.
    """
    others = [name for name in metric_columns(rows) if name != column]
    if not others:
        return rows[column].isna()
    there = rows[others].notna()
    measured = there[rows[column].notna()]
    companions = [name for name in others if len(measured) and measured[name].mean() >= _COMPANION_SHARE]
    alone = ~there.any(axis="columns")
    return alone | there[companions].all(axis="columns") if companions else alone


def _axis(rows: pd.DataFrame, column: str) -> str:
    """Return the axis of a metric: steps, or else epochs, or else the row number."""
    measured = rows[rows[column].notna()]
    for name in ("step", "epoch"):
        if name in measured and len(measured) and measured[name].notna().all():
            return name
    return "row"


def hundred_percent(curves: list[Curve], values: np.ndarray[Any, Any]) -> float | None:
    """Return what 100 % is where all curves are accuracies: 1, or 100; None if they are something else."""
    if not len(values) or values.min() < 0 or values.max() > 100:
        return None
    if not all("accuracy" in canonical(each.metric) for each in curves):
        return None
    return 1.0 if values.max() <= 1 else 100.0


def last_value(values: np.ndarray[Any, Any]) -> float:
    """Return the last finite value; NaN if there is none."""
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else float("nan")
