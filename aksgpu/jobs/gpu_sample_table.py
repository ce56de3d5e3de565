"""The DataFrame of GPU samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from aksgpu.common.frames import frame

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["gpu_table", "joined_tables"]

_COLUMNS = {
    "time": "datetime64[ns, UTC]",
    "pod": "string",
    "index": "Int64",
    "attempt": "Int64",
    "gpu": "Int64",
    "utilization": "Float64",
    "utilization_min": "Float64",
    "utilization_max": "Float64",
    "memory_used_gb": "Float64",
    "memory_total_gb": "Float64",
    "power_w": "Float64",
    "temperature_c": "Float64",
}
_GB = 1e9


def gpu_table(rows: Iterable[Mapping[str, Any]], sources: Mapping[str, str]) -> pd.DataFrame:
    """Return the table of :meth:`aksgpu.jobs.Job.gpu`.

    Args:
        rows: those of :mod:`aksgpu.payload.gpu_sampler`, each with ``pod``, ``index`` and ``attempt``.
        sources: for each pod, where its samples are from, or why there are none.
    """
    import pandas as pd

    found = [
        {
            **row,
            "time": pd.Timestamp(row["time"], unit="s", tz="UTC"),
            "memory_used_gb": _gb(row["memory_used"]),
            "memory_total_gb": _gb(row["memory_total"]),
            "power_w": row["power"],
            "temperature_c": row["temperature"],
        }
        for row in rows
    ]
    table = frame(found, _COLUMNS)
    table.attrs["sources"] = dict(sources)
    return _sorted(table)


def joined_tables(table: pd.DataFrame, saved: pd.DataFrame | None) -> pd.DataFrame:
    """Return a table with the saved rows of the pods of which it has none."""
    import pandas as pd

    if saved is None or saved.empty:
        return table
    missing = saved[~saved["pod"].isin(table["pod"])]
    if missing.empty:
        return table
    sources = {**table.attrs["sources"]}
    for pod in missing["pod"].unique():
        sources[str(pod)] = str(saved.attrs.get("sources", {}).get(pod, "saved earlier"))
    both = pd.concat([missing, table], ignore_index=True).astype(_COLUMNS) if len(table) else missing.copy()
    both.attrs["sources"] = sources
    return _sorted(both)


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    ordered: pd.DataFrame = table.sort_values(["time", "pod", "gpu"], kind="stable", ignore_index=True)
    ordered.attrs.update(table.attrs)
    return ordered


def _gb(size: float | None) -> float | None:
    return None if size is None else size / _GB
