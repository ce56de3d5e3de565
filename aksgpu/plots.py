"""Figures of training metrics and of a cluster's GPUs, ready for publication.

Figures are drawn through matplotlib's objects, without pyplot: no global state changes, no window opens, and they can
be drawn in any thread. The colours are those of Okabe and Ito, which colour-blind people can distinguish. The colours
of text and grid follow the style in use, so that a figure is also readable in a dark notebook.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
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

from aksgpu.curves import Curve, hundred_percent, last_value, select, tables_by_run
from aksgpu.errors import InvalidInput
from aksgpu.metrics.values import better_value

__all__ = ["curve", "gpus", "with_gpu"]

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
_STACKED_SIZE = (7.2, 6.4)
"""Width and height of a new figure with three axes in inches."""
_GAP_SECONDS = 200.0
"""Time between two samples of a GPU. Its line has a gap where more time passes."""
_SPAN_FROM_ZERO = 0.4
"""Smallest span of values, as a fraction of 1, with which the axis begins at zero. A smaller span is enlarged."""


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
    runs = tables_by_run(data)
    curves = select(runs, metrics, x)
    if ax is None:
        more_columns = max(0, len(curves) - 1) // _LEGEND_ROWS
        size = (_SIZE[0] + more_columns * _LEGEND_COLUMN, _SIZE[1])
        figure = NotebookFigure(figsize=size, dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.add_subplot()
    theme = _theme(ax)
    _draw_metrics(ax, theme, runs, curves, log=log, smooth=smooth, best=best, title=title)
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


def with_gpu(
    table: pd.DataFrame,
    gpu: pd.DataFrame,
    facts: Mapping[str, Any],
    *metrics: str,
    log: bool = False,
    smooth: float = 0.0,
    best: bool = False,
    title: str | None = None,
) -> Figure:
    """Draw metrics, the utilization of the GPUs and the cost so far, above each other on one axis of time.

    ``job.plot(gpu=True)`` and ``runs.get("NAME").plot(gpu=True)`` call this function.

    Args:
        table: metrics with their times, from ``job.metrics()``.
        gpu: samples from ``job.gpu()``.
        facts: from ``job.facts()``.
        metrics: as for :func:`curve`.
        log: as for :func:`curve`.
        smooth: as for :func:`curve`.
        best: as for :func:`curve`.
        title: as for :func:`curve`.

    Returns:
        The figure. Each GPU has a thin line, and their mean has a thick one. What is not known is written into its
        axes, and nothing is drawn for it. For a run shorter than five seconds, the metrics are drawn over the steps or
        epochs, and the rest is written: GPUs are sampled every five seconds, and prices are exact to one second.

    Raises:
        InvalidInput: as for :func:`curve`.
    """
    if not 0 <= smooth < 1:
        raise InvalidInput(f"`smooth` must be a number from 0 up to, but not including, 1, got {smooth!r}")
    spans = _spans(facts)
    begin = _begin(table, gpu, spans)
    seconds = _seconds(begin, table, gpu, spans)
    is_short = seconds < _SHORTEST_AXIS
    figure = NotebookFigure(figsize=_STACKED_SIZE, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, 1, sharex=not is_short, height_ratios=(3, 1.6, 1.4))
    theme = _theme(top)
    runs = tables_by_run(table)
    if is_short:
        curves = select(runs, metrics)
        _draw_metrics(top, theme, runs, curves, log=log, smooth=smooth, best=best, title=title)
        _write_totals(middle, bottom, theme, gpu, spans)
    else:
        unit, name = _time_unit(seconds)
        bottom.set_xlim(0, seconds / unit)
        curves = [replace(each, x=each.x / unit) for each in select(runs, metrics, "time", begin)]
        _draw_metrics(top, theme, runs, curves, log=log, smooth=smooth, best=best, title=title)
        _draw_utilization(middle, theme, gpu, begin, unit)
        _draw_cost(bottom, theme, spans, begin, unit)
        top.set_xlabel("")
        bottom.set_xlabel(f"Time since the start ({name})", color=theme.text, fontsize=11)
        bottom.xaxis.set_major_locator(MaxNLocator(6))
        bottom.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    figure.align_ylabels()
    return figure


# The GPU and the cost

_SHORTEST_AXIS = 5.0
"""Seconds of the shortest run that has an axis of time: the interval of the GPU samples."""
_NO_PRICE = "cost unknown: no price is known for the node"


@dataclass(frozen=True)
class _Span:
    """The time of one pod, and what it costs in US dollars per hour."""

    started: pd.Timestamp
    ended: pd.Timestamp
    usd_per_hour: float


def _spans(facts: Mapping[str, Any]) -> list[_Span]:
    """Return the times of a run's pods with their prices; an empty list if a price is not known."""
    found = facts.get("spans") or []
    if any(each["usd_per_hour"] is None for each in found):
        return []
    last = _last_known(facts)
    spans = []
    for each in found:
        started = pd.Timestamp(each["started"])
        ended = pd.Timestamp(each["ended"]) if each["ended"] else last
        spans.append(_Span(started, max(started, ended or started), float(each["usd_per_hour"])))
    return spans


def _last_known(facts: Mapping[str, Any]) -> pd.Timestamp | None:
    """Return when the run had ended, or when its facts were read."""
    if facts.get("ended"):
        return pd.Timestamp(facts["ended"])
    if facts.get("started") and facts.get("seconds") is not None:
        return pd.Timestamp(facts["started"]) + pd.Timedelta(seconds=float(facts["seconds"]))
    return None


def _begin(table: pd.DataFrame, gpu: pd.DataFrame, spans: list[_Span]) -> pd.Timestamp:
    times = [each.started for each in spans]
    times += [each["time"].min() for each in (table, gpu) if each["time"].notna().any()]
    return min(times, default=pd.Timestamp(0, tz="UTC"))


def _seconds(begin: pd.Timestamp, table: pd.DataFrame, gpu: pd.DataFrame, spans: list[_Span]) -> float:
    """Return the length of the axis of time in seconds."""
    times = [each.ended for each in spans]
    times += [each["time"].max() for each in (table, gpu) if each["time"].notna().any()]
    return max(((time - begin).total_seconds() for time in times), default=1.0)


def _time_unit(seconds: float) -> tuple[float, str]:
    """Return the unit of an axis of time in seconds, and its name."""
    for unit, name in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * unit:
            return unit, name
    return 1.0, "s"


def _draw_utilization(ax: Axes, theme: _Theme, gpu: pd.DataFrame, begin: pd.Timestamp, unit: float) -> None:
    _dress(ax, theme)
    ax.set_ylabel("GPU (%)", color=theme.text, fontsize=11)
    known = gpu[gpu["utilization"].notna()]
    if known.empty:
        _say(ax, theme, _why_no_utilization(gpu))
        return
    ax.set_ylim(-2, 104)
    ax.set_yticks([0, 50, 100])
    colour = theme.colours[2]
    parts = [rows for _, rows in known.groupby(["pod", "attempt", "gpu"], dropna=False, sort=False)]
    lines = [_utilization_line(rows, begin, unit) for rows in parts]
    longest = _GAP_SECONDS / unit
    mean = _mean_line(lines, longest)
    if len(lines) > 1:
        for at, values in lines:
            ax.plot(*_broken(at, values, longest), color=colour, linewidth=0.8, alpha=0.5)
    else:
        low, high = (parts[0][name].to_numpy(dtype=float) for name in ("utilization_min", "utilization_max"))
        if (high > low).any():
            ax.fill_between(lines[0][0], low, high, color=colour, alpha=0.2, linewidth=0)
    ax.plot(*mean, color=colour, linewidth=2.2)
    alone = _isolated(mean[1])
    if alone.any():
        ax.plot(mean[0][alone], mean[1][alone], color=colour, linestyle="none", marker="o", markersize=4)
    of_several = f" of {len(lines)} GPUs" if len(lines) > 1 else ""
    _corner(ax, theme, f"mean {_mean_over_time(*mean):.0f} %{of_several}")


def _utilization_line(rows: pd.DataFrame, begin: pd.Timestamp, unit: float) -> tuple[Any, Any]:
    """Return the times and the utilization of one GPU."""
    at = (rows["time"] - begin).dt.total_seconds().to_numpy(dtype=float) / unit
    return at, rows["utilization"].to_numpy(dtype=float)


def _mean_over_time(at: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> float:
    """Return the mean of a line, weighted by time. Gaps do not count."""
    widths = np.diff(at)
    middles = (values[1:] + values[:-1]) / 2
    there = np.isfinite(middles) & np.isfinite(widths)
    total = widths[there].sum()
    if not total:
        return float(np.nanmean(values))
    return float((middles[there] * widths[there]).sum() / total)


def _why_no_utilization(gpu: pd.DataFrame) -> str:
    """Return why there is no utilization to draw."""
    if len(gpu):
        return "the GPU does not report its utilization"
    reasons = sorted({str(text).removeprefix("none: ") for text in gpu.attrs.get("sources", {}).values()})
    return "no GPU samples: " + ("; ".join(reasons) if reasons else "none were taken")


def _broken(at: np.ndarray[Any, Any], values: np.ndarray[Any, Any], longest: float) -> tuple[Any, Any]:
    """Return a line with gaps where samples are missing."""
    gaps = np.flatnonzero(np.diff(at) > longest) + 1
    return np.insert(at, gaps, np.nan), np.insert(values, gaps, np.nan)


def _mean_line(lines: list[tuple[Any, Any]], longest: float) -> tuple[Any, Any]:
    """Return the mean of several GPUs at the times of all samples, of those that have samples around that time."""
    times = np.unique(np.concatenate([at for at, _ in lines]))
    values = [np.interp(times, at, value, left=np.nan, right=np.nan) for at, value in lines]
    count = np.sum(~np.isnan(values), axis=0)
    mean = np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)
    return _broken(times, mean, longest)


def _draw_cost(ax: Axes, theme: _Theme, spans: list[_Span], begin: pd.Timestamp, unit: float) -> None:
    _dress(ax, theme)
    ax.set_ylabel("Cost (USD)", color=theme.text, fontsize=11)
    if not spans:
        _say(ax, theme, _NO_PRICE)
        return
    moments = sorted({moment for each in spans for moment in (each.started, each.ended)})
    cost = [
        sum(
            each.usd_per_hour * max((min(moment, each.ended) - each.started).total_seconds(), 0) / 3600
            for each in spans
        )
        for moment in moments
    ]
    at = [(moment - begin).total_seconds() / unit for moment in moments]
    colour = theme.colours[1]
    ax.plot(at, cost, color=colour, linewidth=2)
    ax.fill_between(at, 0, cost, color=colour, alpha=0.15, linewidth=0)
    ax.set_ylim(0, max(max(cost) * 1.1, 1e-6))
    ax.yaxis.set_major_locator(MaxNLocator(3))
    _corner(ax, theme, f"{cost[-1]:.2g} USD so far" if cost[-1] < 0.01 else f"{cost[-1]:.2f} USD so far")


def _write_totals(middle: Axes, bottom: Axes, theme: _Theme, gpu: pd.DataFrame, spans: list[_Span]) -> None:
    """Write the utilization and the cost of a run that is too short for an axis of time."""
    for ax, name in ((middle, "GPU (%)"), (bottom, "Cost (USD)")):
        _dress(ax, theme)
        ax.set_ylabel(name, color=theme.text, fontsize=11)
        ax.set_xticks([])
    known = gpu[gpu["utilization"].notna()]
    samples = f"{len(known)} sample" + ("" if len(known) == 1 else "s")
    mean = _why_no_utilization(gpu) if known.empty else f"mean {known['utilization'].mean():.0f} % of {samples}"
    _say(middle, theme, mean)
    _say(bottom, theme, _total_cost(spans))
    text = f"The run is shorter than {_SHORTEST_AXIS:g} s, so its time has no axis."
    bottom.set_xlabel(text, color=theme.text, fontsize=11)


def _total_cost(spans: list[_Span]) -> str:
    """Return the cost of a short run as text. The times of its pods are exact to one second."""
    if not spans:
        return _NO_PRICE
    usd = sum(each.usd_per_hour * (each.ended - each.started).total_seconds() / 3600 for each in spans)
    if usd:
        return f"about {usd:.2g} USD"
    return f"less than {sum(each.usd_per_hour for each in spans) / 3600:.2g} USD"


def _say(ax: Axes, theme: _Theme, text: str) -> None:
    """Write into axes why they are empty."""
    wrapped = textwrap.fill(text, _LONGEST_LINE)
    note = ax.text(0.5, 0.5, wrapped, transform=ax.transAxes, ha="center", va="center", color=theme.grey)
    note.set_parse_math(False)
    ax.set_yticks([])


def _corner(ax: Axes, theme: _Theme, text: str) -> None:
    """Write a number above the right corner of axes."""
    ax.annotate(
        text,
        (1, 1),
        xycoords="axes fraction",
        xytext=(0, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=theme.text,
        fontsize=10,
    )


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


def _draw_metrics(
    ax: Axes,
    theme: _Theme,
    runs: Mapping[str, pd.DataFrame],
    curves: list[Curve],
    *,
    log: bool,
    smooth: float,
    best: bool,
    title: str | None,
) -> None:
    """Draw the curves of the runs with their axes, labels and legend. The options are those of :func:`curve`."""
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


def _prepare(ax: Axes, theme: _Theme, curves: list[Curve], log: bool, title: str | None) -> None:
    if log:
        ax.set_yscale("log")
    else:
        _set_value_axis(ax, curves)
    ax.set_xlabel(_x_label(curves), color=theme.text, fontsize=11)
    ax.set_ylabel(_y_label(curves), color=theme.text, fontsize=11)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    _dress(ax, theme)
    if title:
        _set_title(ax, theme, title)


def _dress(ax: Axes, theme: _Theme) -> None:
    """Draw the grid and the axes in the colours of the theme."""
    ax.grid(axis="y", color=theme.grid, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(colors=theme.grey, labelcolor=theme.text, labelsize=10, length=3, which="both")
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(theme.grey)


def _set_title(ax: Axes, theme: _Theme, title: str) -> None:
    wrapped = textwrap.fill(title, 68, break_long_words=True)
    heading = ax.set_title(wrapped, loc="left", color=theme.text, fontsize=12.5, fontweight="bold", pad=12)
    heading.set_parse_math(False)


def _set_value_axis(ax: Axes, curves: list[Curve]) -> None:
    """Set the limits of the values. An axis of accuracies begins at zero, unless the curve would then be flat."""
    values = np.concatenate([each.y[np.isfinite(each.y)] for each in curves]) if curves else np.empty(0)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    whole = hundred_percent(curves, values)
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


def _x_label(curves: list[Curve]) -> str:
    axes = {each.axis for each in curves}
    names = {"step": "Training step", "epoch": "Epoch", "time": "Time since the first value (s)", "row": "Value"}
    return " / ".join(names[axis] for axis in ("step", "epoch", "time", "row") if axis in axes) or "Training step"


def _y_label(curves: list[Curve]) -> str:
    names = list(dict.fromkeys(each.metric for each in curves))
    if len(names) > 3:
        return ", ".join(names[:3]) + ", ..."
    return ", ".join(names)


def _draw(ax: Axes, each: Curve, number: int, colour: str, smooth: float, *, labelled: bool) -> None:
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
    label = f"{shown_name}, {_text(each, last_value(each.y))}" if labelled else None
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


def _text(each: Curve, value: float) -> str:
    if not np.isfinite(value):
        return "none yet"
    whole = hundred_percent([each], each.y[np.isfinite(each.y)])
    if whole is None:
        return f"{value:.4g}"
    return f"{100 * value / whole:.2f} %"


def _mark_best(ax: Axes, each: Curve, colour: str, theme: _Theme) -> None:
    finite = np.flatnonzero(np.isfinite(each.y))
    better = better_value(each.metric)
    if not len(finite) or better is None:
        return
    values = each.y[finite]
    place = finite[int(values.argmax() if better == "max" else values.argmin())]
    _point(ax, each, int(place), colour, f"best {_text(each, each.y[place])}", theme, above=better == "min")


def _name_last_value(ax: Axes, curves: list[Curve], theme: _Theme) -> None:
    """Write the last value next to its point."""
    for each in curves:
        finite = np.flatnonzero(np.isfinite(each.y))
        if len(finite):
            place = int(finite[-1])
            where = {"step": "at step", "epoch": "in epoch", "row": "at"}.get(each.axis)
            value = _text(each, each.y[place])
            text = f"{value} {where} {each.x[place]:,.10g}" if where else value
            low, high = ax.get_ylim()
            _point(ax, each, place, theme.colours[0], text, theme, above=each.y[place] < (low + high) / 2)


def _point(ax: Axes, each: Curve, place: int, colour: str, text: str, theme: _Theme, *, above: bool) -> None:
    """Mark a point of a curve, and write a text above or below the curve there.

    Args:
        ax: the axes.
        each: the curve.
        place: number of the point.
        colour: colour of the point and the text.
        text: the text.
        theme: colours of the background.
        above: where the text is if there is as much room above the curve as below it.
    """
    late = each.x[place] > (np.nanmin(each.x) + np.nanmax(each.x)) / 2
    (mark,) = ax.plot([each.x[place]], [each.y[place]], marker="o", markersize=6, color=colour, clip_on=False)
    mark.set_in_layout(False)  # zero is far below a logarithmic scale
    note = ax.annotate(
        text,
        (each.x[place], each.y[place]),
        xytext=(0 if late else 8, 0),
        textcoords="offset points",
        ha="right" if late else "left",
        color=colour,
        fontsize=11,
        fontweight="bold",
        path_effects=[withStroke(linewidth=3, foreground=theme.background)],
    )
    ax.autoscale_view()  # the positions below depend on the limits
    box = note.get_window_extent()
    whole = ax.get_window_extent()
    at, height = ax.transData.transform((each.x[place], each.y[place]))
    height = min(max(height, whole.y0), whole.y1)
    heights = np.append(_heights_between(ax, box.x0, box.x1).clip(whole.y0, whole.y1), height)
    is_above = _is_better_above(ax, heights, height, box.height, above=above)
    beside = heights.max() if is_above else heights.min()
    note.xy = tuple(ax.transData.inverted().transform((at, beside)))
    note.xyann = (0 if late else 8, 10 if is_above else -12)
    note.set_verticalalignment("bottom" if is_above else "top")


def _heights_between(ax: Axes, left: float, right: float) -> np.ndarray[Any, Any]:
    """Return the heights of the lines of axes between two positions: at their points, and where they cross the edges.

    Args:
        ax: the axes.
        left: position in pixels.
        right: position in pixels.
    """
    found = []
    for line in ax.lines:
        x, y = ax.transData.transform(line.get_xydata()).T
        found.append(y[(x >= left) & (x <= right)])
        for edge in (left, right):
            crossed = np.flatnonzero((x[:-1] - edge) * (x[1:] - edge) < 0)
            share = (edge - x[crossed]) / (x[crossed + 1] - x[crossed])
            found.append(y[crossed] + share * (y[crossed + 1] - y[crossed]))
    heights: np.ndarray[Any, Any] = np.concatenate(found)
    finite: np.ndarray[Any, Any] = heights[np.isfinite(heights)]
    return finite


def _is_better_above(
    ax: Axes, heights: np.ndarray[Any, Any], height: float, text_height: float, *, above: bool
) -> bool:
    """Return whether a text must be above the lines to be near its point. Below them, it may have no room.

    Args:
        ax: the axes.
        heights: heights of the lines where the text is, in pixels.
        height: height of the point in pixels.
        text_height: height of the text in pixels.
        above: the result if both places are equally good.
    """
    box = ax.get_window_extent()
    needed = 2 * text_height
    has_room_above = heights.max() + needed <= box.y1
    has_room_below = heights.min() - needed >= box.y0
    if has_room_above != has_room_below:
        return bool(has_room_above)
    distance_above = round(heights.max() - height)
    distance_below = round(height - heights.min())
    return above if distance_above == distance_below else distance_above < distance_below


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
