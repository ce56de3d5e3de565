"""Figures of training metrics and of a cluster's GPUs, ready for publication.

Figures are drawn through matplotlib's objects, without pyplot: no global state changes, no window opens, and they can
be drawn in any thread. The colours are those of Okabe and Ito, which colour-blind people can distinguish. The colours
of text and grid follow the style in use, so that a figure is also readable in a dark notebook.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from aksgpu.errors import InvalidInput
from aksgpu.metrics import canonical
from aksgpu.metrics.table import POSITION_COLUMNS
from aksgpu.metrics.values import better_value

__all__ = ["curve", "gpus"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_COLOURS_ON_DARK = ("#56B4E9", "#FF9E4A", "#2FD6A5", "#F0A6CE", "#A6DCFF", "#F5D04C")
"""The same colours, lighter, with at least 7:1 contrast on black."""
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
_LEGEND_INSIDE = 6
"""Largest number of curves with the legend inside the axes. With more, it is beside them."""
_LEGEND_ROWS = 20
"""Curves in one column of the legend beside the axes."""
_LEGEND_COLUMN = 2.2
"""Width in inches of each further column of the legend. A new figure is wider by it."""
_LONGEST_LINE = 60
"""Characters of an unread line that an empty figure shows."""
_LONGEST_LABEL = 32
"""Characters of a curve's name in the legend."""
_SIZE = (7.2, 4.2)
"""Width and height of a new figure in inches."""
_SPAN_FROM_ZERO = 0.4
"""Smallest span of values, as a fraction of 1, with which the axis begins at zero. A smaller span is enlarged."""
_COMPANION_SHARE = 0.95
"""Fraction of a metric's rows that must have another metric, so that both count as printed in one line."""
_POSITIONS = frozenset({*POSITION_COLUMNS, "run"})


class NotebookFigure(Figure):
    """A figure that a notebook shows without pyplot. A PDF of it embeds TrueType fonts, as publishers require."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()

    def savefig(self, fname: Any, **options: Any) -> None:
        """Save the figure, as ``matplotlib.figure.Figure.savefig`` does."""
        with mpl.rc_context({"pdf.fonttype": 42, "ps.fonttype": 42}):
            super().savefig(fname, **options)


@dataclass(frozen=True)
class _Curve:
    """One line of a figure."""

    label: str
    metric: str
    axis: str
    x: np.ndarray[Any, Any]
    y: np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Theme:
    """Colours that are readable on the figure's background."""

    text: str
    grey: str
    grid: str
    colours: tuple[str, ...]
    background: tuple[float, float, float]


def curve(
    data: Any,
    *metrics: str,
    x: str | None = None,
    log: bool = False,
    smooth: float = 0.0,
    best: bool = False,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw metrics over the training.

    Args:
        data: a DataFrame of :func:`aksgpu.metrics.parse`, a Job, or a list or dict of them. The runs' names are
            the keys of the dict, or the values of a column ``run``.
        metrics: names of the metrics, as printed (``Acc@1``) or general (``accuracy``, ``val_loss``). By default the
            accuracies, or the losses if there are no accuracies, or otherwise the first metric.
        x: ``step``, ``epoch`` or ``time``; None uses the steps, or the epochs if a metric has no steps.
        log: draw the values on a logarithmic scale.
        smooth: 0 draws the values. A number between 0 and 1 draws an exponential moving average in which earlier values
            have this weight, and the values in the background.
        best: mark each curve's best value: the highest of an accuracy, the lowest of a loss.
        title: title above the figure; None for no title.
        ax: axes to draw in; None makes a new figure.

    Returns:
        The figure. A notebook shows it if it is the last line of a cell.

    Raises:
        InvalidInput: ``data`` is not a table of metrics, a metric does not exist, or an argument is out of its range.

    Example:
        >>> plots.curve(job, "loss", "val_loss", log=True)              # doctest: +SKIP
        >>> plots.curve({"lr 0.1": first, "lr 0.01": second}, "accuracy")  # doctest: +SKIP
    """
    if not 0 <= smooth < 1:
        raise InvalidInput(f"`smooth` must be a number from 0 up to, but not including, 1, got {smooth!r}")
    if x not in (None, "step", "epoch", "time"):
        raise InvalidInput(f"`x` must be 'step', 'epoch', 'time' or None, got {x!r}")
    runs = _runs(data)
    curves = _curves(runs, metrics, x)
    if ax is None:
        more_columns = max(0, len(curves) - 1) // _LEGEND_ROWS
        size = (_SIZE[0] + more_columns * _LEGEND_COLUMN, _SIZE[1])
        figure = NotebookFigure(figsize=size, dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.add_subplot()
    theme = _theme(ax)
    _prepare(ax, theme, curves, log, title)
    if not any(np.isfinite(each.y).any() for each in curves):
        _explain_empty(ax, theme, runs)
    for number, each in enumerate(curves):
        colour = theme.colours[number % len(theme.colours)]
        _draw(ax, each, number, colour, smooth, labelled=len(curves) > 1)
        if best:
            _mark_best(ax, each, colour, theme)
    if len(curves) > 1:
        _legend(ax, theme, len(curves))
    elif not best:
        _name_last_value(ax, curves, theme)
    _name_gpu(ax, theme, runs)
    found = ax.get_figure(root=True)
    if found is None:
        raise InvalidInput("`ax` must belong to a figure")
    return found


_GPU_PARTS = ("used", "free", "not available")
"""The parts of a bar: GPUs that pods use, GPUs that are free, and those that are unhealthy or on a node in need."""
_BAR_INCHES = 0.42
"""Height that a bar adds to a new figure."""
_KEYS = ("pool", "gpu_model", "namespace")
"""Columns whose values name the bars, in the order in which they are looked for in a grouped table."""


def gpus(table: pd.DataFrame, *, by: str = "pool", title: str | None = None, ax: Axes | None = None) -> Figure:
    """Draw the GPUs of a cluster as bars: used, free, and not available.

    Args:
        table: a DataFrame of :func:`aksgpu.capacity.gpus`, by node, pool, model or namespace.
        by: column that names the bars, for a table by node: ``pool``, ``gpu_model`` or ``node``. Other tables have
            one already.
        title: above the figure; None for none.
        ax: draw here, and not into a new figure.

    Returns:
        The figure. As a cell's last line, a notebook shows it.

    Raises:
        InvalidInput: ``table`` is not a table of GPUs, or has no such column.

    Example:
        >>> plots.gpus(capacity.gpus(aks))  # doctest: +SKIP
    """
    counts = _gpu_counts(table, by)
    if ax is None:
        height = 1.6 + _BAR_INCHES * max(1, len(counts))
        figure = NotebookFigure(figsize=(_SIZE[0], height), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.add_subplot()
    theme = _theme(ax)
    _draw_bars(ax, theme, counts)
    if title:
        ax.set_title(title, loc="left", color=theme.text, fontsize=12.5, fontweight="bold").set_parse_math(False)
    found = ax.get_figure(root=True)
    if found is None:
        raise InvalidInput("`ax` must belong to a figure")
    return found


def _gpu_counts(table: Any, by: str) -> pd.DataFrame:
    """Return the numbers of GPUs by bar and part. GPUs whose use is unknown count as not available."""
    if not isinstance(table, pd.DataFrame) or "used" not in table or "resource" not in table:
        raise InvalidInput("`table` must be a DataFrame of capacity.gpus", hint="plots.gpus(capacity.gpus(aks))")
    key = by if "node" in table else next((name for name in _KEYS if name in table), by)
    if key not in table:
        raise InvalidInput(f"`by` must be a column of the table, got {by!r}", hint='For example by="pool".')
    plain = pd.DataFrame(table)
    used = plain["used"].fillna(0).astype(int)
    total = plain["capacity"].fillna(0).astype(int) if "capacity" in plain else used
    free = plain["free"].fillna(0).astype(int) if "free" in plain else total - used
    if "schedulable" in plain:
        free = free.where(plain["schedulable"].fillna(False).astype(bool), 0)
    parts = pd.DataFrame({"used": used, "free": free, "not available": (total - used - free).clip(lower=0)})
    names = plain[key].fillna("unknown").astype(str)
    resources = plain["resource"].astype(str)
    if resources.nunique() > 1:
        names = names + " (" + resources + ")"
    return parts.groupby(names, sort=True).sum()


def _draw_bars(ax: Axes, theme: _Theme, counts: pd.DataFrame) -> None:
    colours = (theme.colours[0], theme.colours[2], theme.grid)
    left = np.zeros(len(counts))
    for part, colour in zip(_GPU_PARTS, colours, strict=True):
        values = counts[part].to_numpy(float)
        bars = ax.barh(counts.index, values, left=left, color=colour, height=0.62, label=f"{part} ({values.sum():.0f})")
        labels = ax.bar_label(bars, [f"{value:.0f}" if value else "" for value in values], label_type="center")
        for label in labels:
            label.set_color(theme.text if part == "not available" else theme.background)
        left = left + values
    ax.invert_yaxis()
    ax.set_xlabel("GPUs", color=theme.text, fontsize=11)
    ax.set_xlim(0, max(1.0, float(left.max()) if len(left) else 1.0))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.tick_params(colors=theme.grey, labelcolor=theme.text, labelsize=10, length=0)
    for side in ("top", "right", "left", "bottom"):
        ax.spines[side].set_visible(False)
    legend = ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(_GPU_PARTS), frameon=False)
    for text in legend.get_texts():
        text.set_color(theme.text)


# Select the data


def _runs(data: Any) -> dict[str, pd.DataFrame]:
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


def _curves(runs: Mapping[str, pd.DataFrame], metrics: Sequence[str], x: str | None) -> list[_Curve]:
    wanted = list(metrics) or _usual_metrics(runs)
    curves = []
    for run, table in runs.items():
        for metric in wanted:
            column = _column(table, metric)
            if column is None:
                if metrics and len(runs) == 1 and len(table):
                    raise InvalidInput(
                        f"the run has no metric {metric!r}",
                        hint=f"It has {', '.join(_metric_columns(table)) or 'none'}.",
                    )
                continue
            for part, rows in _parts(table, column):
                label = ", ".join(filter(None, (run, column if len(wanted) > 1 else "", part)))
                curves.append(_line(label, column, rows, x))
    if metrics and not curves and any(len(table) for table in runs.values()):
        names = sorted({name for table in runs.values() for name in _metric_columns(table)})
        raise InvalidInput(f"no run has a metric {metrics[0]!r}", hint=f"They have {', '.join(names)}.")
    return curves


def _metric_columns(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if name not in _POSITIONS and pd.api.types.is_numeric_dtype(table[name])]


def _usual_metrics(runs: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return the metrics that are drawn by default."""
    columns = list(dict.fromkeys(name for table in runs.values() for name in _metric_columns(table)))
    for word in ("accuracy", "loss"):
        found = [name for name in columns if word in canonical(name).split("_")]
        if found:
            return found[:4]
    return columns[:1]


def _column(table: pd.DataFrame, metric: str) -> str | None:
    """Return the column of a metric: by its printed name, or otherwise by its general name."""
    if metric in table.columns:
        return metric
    for name in _metric_columns(table):
        if canonical(name) == metric:
            return name
    return None


def _parts(table: pd.DataFrame, column: str) -> Iterable[tuple[str, pd.DataFrame]]:
    """Split a table by index and rank, if several of them have values."""
    keys = [key for key in ("index", "rank") if key in table and table.loc[table[column].notna(), key].nunique() > 1]
    if not keys:
        yield "", table
        return
    for values, rows in table.groupby(keys, sort=True, dropna=True):
        yield " ".join(f"{key} {value}" for key, value in zip(keys, values, strict=True)), rows


def _line(label: str, column: str, rows: pd.DataFrame, x: str | None) -> _Curve:
    rows = rows[rows[column].notna() | _is_printed_nan(rows, column)]
    axis = x or _axis(rows, column)
    if axis in ("step", "epoch"):
        rows = _without_repeated(rows, axis)
    if axis == "time":
        at = (rows["time"] - rows["time"].min()).dt.total_seconds().to_numpy(dtype=float, na_value=np.nan)
    elif axis == "row":
        at = np.arange(len(rows), dtype=float)
    else:
        at = rows[axis].to_numpy(dtype=float, na_value=np.nan)
    values = rows[column].to_numpy(dtype=float, na_value=np.nan).copy()
    values[~np.isfinite(values)] = np.nan
    known = np.isfinite(at)
    return _Curve(label, column, axis, at[known], values[known])


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
    others = [name for name in _metric_columns(rows) if name != column]
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


# Draw


def _theme(ax: Axes) -> _Theme:
    figure = ax.get_figure(root=True)
    background = ax.get_facecolor()
    if background[3] == 0 and figure is not None:
        background = figure.get_facecolor()
    is_transparent = background[3] == 0
    red, green, blue = to_rgb(background)
    if is_transparent:
        return _Theme("#222222", "#666666", "#E4E4E4", _COLOURS, (1, 1, 1))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    if luminance > 0.5:
        return _Theme("#222222", "#666666", "#E4E4E4", _COLOURS, (red, green, blue))
    return _Theme("#EEEEEE", "#AAAAAA", "#444444", _COLOURS_ON_DARK, (red, green, blue))


def _prepare(ax: Axes, theme: _Theme, curves: list[_Curve], log: bool, title: str | None) -> None:
    if log:
        ax.set_yscale("log")
    else:
        _set_value_axis(ax, curves)
    ax.set_xlabel(_x_label(curves), color=theme.text, fontsize=11)
    ax.set_ylabel(_y_label(curves), color=theme.text, fontsize=11)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.grid(axis="y", color=theme.grid, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(colors=theme.grey, labelcolor=theme.text, labelsize=10, length=3, which="both")
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(theme.grey)
    if title:
        wrapped = textwrap.fill(title, 68, break_long_words=True)
        heading = ax.set_title(wrapped, loc="left", color=theme.text, fontsize=12.5, fontweight="bold", pad=12)
        heading.set_parse_math(False)


def _set_value_axis(ax: Axes, curves: list[_Curve]) -> None:
    """Set the limits of the values. An axis of accuracies begins at zero, unless the curve would then be flat."""
    values = np.concatenate([each.y[np.isfinite(each.y)] for each in curves]) if curves else np.empty(0)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    whole = _whole(curves, values)
    if whole is None:
        return
    low = float(values.min()) / whole
    high = float(values.max()) / whole
    span = high - low
    if span >= _SPAN_FROM_ZERO or len(values) == 1:
        ax.set_ylim(0, max(1.02, high) * whole)
    else:
        margin = max(span * 0.08, 0.002)
        ax.set_ylim(max(0.0, low - margin) * whole, (high + margin) * whole)
    digits = 2
    if span >= 0.1 or len(values) == 1:
        digits = 0
    elif span >= 0.01:
        digits = 1
    ax.yaxis.set_major_formatter(PercentFormatter(xmax=whole, decimals=digits, symbol=" %"))


def _whole(curves: list[_Curve], values: np.ndarray[Any, Any]) -> float | None:
    """Return what 100 % is where all curves are accuracies: 1, or 100; None if they are something else."""
    if not len(values) or values.min() < 0 or values.max() > 100:
        return None
    if not all("accuracy" in canonical(each.metric) for each in curves):
        return None
    return 1.0 if values.max() <= 1 else 100.0


def _x_label(curves: list[_Curve]) -> str:
    axes = {each.axis for each in curves}
    names = {"step": "Training step", "epoch": "Epoch", "time": "Time since the first value (s)", "row": "Value"}
    return " / ".join(names[axis] for axis in ("step", "epoch", "time", "row") if axis in axes) or "Training step"


def _y_label(curves: list[_Curve]) -> str:
    names = list(dict.fromkeys(each.metric for each in curves))
    if len(names) > 3:
        return ", ".join(names[:3]) + ", ..."
    return ", ".join(names)


def _draw(ax: Axes, each: _Curve, number: int, colour: str, smooth: float, *, labelled: bool) -> None:
    restarts = np.flatnonzero(np.diff(each.x) < 0) + 1
    at = np.insert(each.x, restarts, np.nan)
    values = np.insert(each.y, restarts, np.nan)
    shown = values
    if smooth:
        ax.plot(at, values, color=colour, linewidth=1, alpha=0.3)
        shown = _smoothed(values, smooth)
    name = textwrap.shorten(each.label, _LONGEST_LABEL, placeholder="...") or each.label[:_LONGEST_LABEL]
    # Matplotlib omits names that begin with an underscore from a legend.
    shown_name = f" {name}" if name.startswith("_") else name
    label = f"{shown_name}, {_text(each, _last(each.y))}" if labelled else None
    dashes = _DASHES[(number // len(_COLOURS)) % len(_DASHES)]
    ax.plot(at, shown, color=colour, linestyle=dashes, linewidth=2, solid_joinstyle="round", label=label)
    alone = _isolated(shown)
    if alone.any():
        ax.plot(at[alone], shown[alone], color=colour, linestyle="none", marker="o", markersize=4)


def _isolated(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return which values have no neighbour. A line does not show them."""
    there = np.isfinite(values)
    before = np.concatenate([[False], there[:-1]])
    after = np.concatenate([there[1:], [False]])
    alone: np.ndarray[Any, Any] = there & ~before & ~after
    return alone


def _smoothed(values: np.ndarray[Any, Any], weight: float) -> np.ndarray[Any, Any]:
    """Return the exponential moving average, restarted after each gap and corrected for its beginning."""
    smoothed = np.full(len(values), np.nan)
    average = 0.0
    count = 0
    for place, value in enumerate(values):
        if not np.isfinite(value):
            average = 0.0
            count = 0
            continue
        average = weight * average + (1 - weight) * value
        count += 1
        smoothed[place] = average / (1 - weight**count)
    return smoothed


def _last(values: np.ndarray[Any, Any]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else float("nan")


def _text(each: _Curve, value: float) -> str:
    if not np.isfinite(value):
        return "none yet"
    whole = _whole([each], each.y[np.isfinite(each.y)])
    if whole is None:
        return f"{value:.4g}"
    return f"{100 * value / whole:.2f} %"


def _mark_best(ax: Axes, each: _Curve, colour: str, theme: _Theme) -> None:
    finite = np.flatnonzero(np.isfinite(each.y))
    better = better_value(each.metric)
    if not len(finite) or better is None:
        return
    values = each.y[finite]
    place = finite[int(values.argmax() if better == "max" else values.argmin())]
    _point(ax, each, int(place), colour, f"best {_text(each, each.y[place])}", theme, above=better == "min")


def _name_last_value(ax: Axes, curves: list[_Curve], theme: _Theme) -> None:
    """Write the last value next to its point."""
    for each in curves:
        finite = np.flatnonzero(np.isfinite(each.y))
        if len(finite):
            place = int(finite[-1])
            where = {"step": "at step", "epoch": "in epoch"}.get(each.axis, "at")
            text = f"{_text(each, each.y[place])} {where} {each.x[place]:,.10g}"
            low, high = ax.get_ylim()
            _point(ax, each, place, theme.colours[0], text, theme, above=each.y[place] < (low + high) / 2)


def _point(ax: Axes, each: _Curve, place: int, colour: str, text: str, theme: _Theme, *, above: bool) -> None:
    late = each.x[place] > (np.nanmin(each.x) + np.nanmax(each.x)) / 2
    ax.plot([each.x[place]], [each.y[place]], marker="o", markersize=6, color=colour, clip_on=False)
    ax.annotate(
        text,
        (each.x[place], each.y[place]),
        xytext=(0 if late else 8, 10 if above else -12),
        textcoords="offset points",
        ha="right" if late else "left",
        va="bottom" if above else "top",
        color=colour,
        fontsize=11,
        fontweight="bold",
        path_effects=[withStroke(linewidth=3, foreground=theme.background)],
    )


def _legend(ax: Axes, theme: _Theme, count: int) -> None:
    options: dict[str, Any] = {"labelcolor": theme.text, "fontsize": 10, "frameon": False, "title": "Last value"}
    if count <= _LEGEND_INSIDE:
        legend = ax.legend(loc="best", **options)
    else:
        options["fontsize"] = 9 if count <= _LEGEND_ROWS // 2 else 7
        options["ncols"] = -(-count // _LEGEND_ROWS)
        options["labelspacing"] = 0.35
        legend = ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, **options)
    for text in legend.get_texts():
        text.set_parse_math(False)
    legend.set_alignment("left")
    legend.get_title().set_color(theme.grey)
    legend.get_title().set_fontsize(options["fontsize"])


def _explain_empty(ax: Axes, theme: _Theme, runs: Mapping[str, pd.DataFrame]) -> None:
    """Write into an empty figure which lines the log has instead of metrics."""
    lines = ["no metrics logged yet"]
    for table in runs.values():
        unread = table.attrs.get("unread") or {}
        if unread.get("lines"):
            lines = ["no metrics read", f"{unread['lines']:,} lines with numbers have an unknown format, such as"]
            lines += [textwrap.shorten(line, _LONGEST_LINE, placeholder=" ...") for line in unread["first"][:2]]
    text = ax.text(0.5, 0.5, "\n".join(lines), transform=ax.transAxes, ha="center", va="center", color=theme.grey)
    text.set_parse_math(False)
    text.set_in_layout(False)
    ax.set_yticks([])
    ax.set_xticks([])


def _name_gpu(ax: Axes, theme: _Theme, runs: Mapping[str, pd.DataFrame]) -> None:
    if len(runs) != 1:
        return
    (table,) = runs.values()
    facts = table.attrs.get("facts") or {}
    model = facts.get("gpu_model")
    if model:
        text = f"GPU: {model} (simulated)" if facts.get("simulated") else f"GPU: {model}"
        ax.text(1, 0.03, text, transform=ax.transAxes, ha="right", va="bottom", color=theme.grey, fontsize=9.5)


def __dir__() -> list[str]:
    return __all__
