"""Figures of the tables that :mod:`aksgpu.metrics` gives: made to be published as they are.

They are drawn through matplotlib's objects, without pyplot: no global state changes, no window opens, no style leaks,
and they can be drawn in any thread. Colours are Okabe and Ito's, which colour-blind people tell apart, and runs differ
in their dashes as well. The ground is white, so that a figure reads on a dark page too.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from aksgpu.common.arguments import shown
from aksgpu.errors import InvalidInput

__all__ = ["accuracy"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
_INK = "#222222"
_GREY = "#666666"
_FAINT = "#E4E4E4"


class NotebookFigure(Figure):
    """A figure that notebooks show although pyplot, which usually sees to that, does not know it."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


def accuracy(
    metrics: pd.DataFrame | Mapping[str, pd.DataFrame], *, title: str | None = None, ax: Axes | None = None
) -> Figure:
    """The accuracy over the training steps.

    Args:
        metrics: a table with ``step`` and ``accuracy`` (0 to 1) from :func:`aksgpu.metrics.parse`; or several runs: a
            dict from their names to such tables, or one table with a column ``run``. Where steps begin anew (after a
            restart, or with a Job's next pod), so does the line. Values outside 0 to 1 are counted, not drawn.
        title: above the figure; None for none.
        ax: draw here, rather than into a new figure.

    Returns:
        The figure; as a cell's last line, a notebook shows it.

    Raises:
        InvalidInput: an argument is wrong, or a table lacks a column or has one without numbers.
    """
    if title is not None and not isinstance(title, str):
        raise InvalidInput(f"`title` must be str or None, got {shown(title)}", hint='For example: title="MNIST".')
    if ax is not None and not isinstance(ax, Axes):
        raise InvalidInput(f"`ax` must be matplotlib Axes or None, got {shown(ax)}", hint="For example: ax=plt.gca().")
    runs = {}
    hidden = 0
    for name, run in _runs(metrics).items():
        shares = run["accuracy"].where(run["accuracy"].between(0, 1))
        hidden += int((run["accuracy"].notna() & shares.isna()).sum())
        runs[name] = run.assign(accuracy=shares)
    if ax is None:
        figure = NotebookFigure(figsize=(7.2, 4.2), dpi=110, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        ax = figure.add_subplot()
    _prepare(ax, title, last_step=max((run["step"].max() for run in runs.values() if len(run)), default=0))
    for number, (name, run) in enumerate(runs.items()):
        _draw(ax, run, number, name if len(runs) > 1 else None)
    if len(runs) > 1:
        legend = ax.legend(
            loc="lower right", labelcolor=_INK, title="Run, last accuracy", fontsize=10, edgecolor="none"
        )
        legend.set_alignment("left")
    else:
        (run,) = runs.values()
        _annotate(ax, run)
        _note(ax, run.attrs.get("facts") or {})
    if hidden:
        text = f"not shown: {hidden} outside 0 to 1"
        ax.text(0.01, 0.03, text, transform=ax.transAxes, va="bottom", color=_GREY, fontsize=9.5)
    found = ax.get_figure(root=True)
    assert found is not None, "an Axes belongs to a figure"
    return found


def _runs(metrics: pd.DataFrame | Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    if isinstance(metrics, pd.DataFrame):
        _check(metrics, "`metrics`")
        if "run" not in metrics or metrics.empty:
            return {"": metrics}
        return {str(name): run for name, run in metrics.groupby("run", sort=False)}
    if not isinstance(metrics, Mapping):
        raise InvalidInput(
            f"`metrics` must be a DataFrame, or a dict of names and DataFrames, got {shown(metrics)}", hint=_GIVE
        )
    if not metrics:
        raise InvalidInput("`metrics` must have at least one run, got an empty dict", hint=_GIVE)
    for name, run in metrics.items():
        _check(run, f"`metrics[{name!r}]`")
    return {str(name): run for name, run in metrics.items()}


_GIVE = "For example: plots.accuracy(job.metrics())."


def _check(table: Any, what: str) -> None:
    if not isinstance(table, pd.DataFrame):
        raise InvalidInput(f"{what} must be a DataFrame, got {shown(table)}", hint=_GIVE)
    for column in ("accuracy", "step"):
        if column not in table.columns:
            raise InvalidInput(f"{what} must have a column {column}", hint=_GIVE)
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise InvalidInput(
                f"{what} must have numbers in its column {column}, got {table[column].dtype}", hint=_GIVE
            )


def _prepare(ax: Axes, title: str | None, last_step: int) -> None:
    ax.set_xlim(0, max(last_step, 10) * 1.02)
    ax.set_xlabel("Training step", color=_INK, fontsize=11)
    ax.set_ylabel("Test accuracy", color=_INK, fontsize=11)
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0, symbol=" %"))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.grid(axis="y", color=_FAINT, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(colors=_GREY, labelcolor=_INK, labelsize=10, length=3)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(_GREY)
    if title:
        ax.set_title(title, loc="left", color=_INK, fontsize=12.5, fontweight="bold", pad=12)


def _draw(ax: Axes, run: pd.DataFrame, number: int, name: str | None) -> None:
    values = run["accuracy"].dropna()
    label = None if name is None else f"{name}, {_percent(values.iloc[-1])}" if len(values) else f"{name}, none yet"
    steps = run["step"].to_numpy(float)
    anew = np.flatnonzero(np.diff(steps) < 0) + 1  # a restarted container, or the next pod: no line leads there
    ax.plot(
        np.insert(steps, anew, np.nan),
        np.insert(run["accuracy"].to_numpy(float), anew, np.nan),
        color=_COLOURS[number % len(_COLOURS)],
        linestyle=_DASHES[number % len(_DASHES)],
        linewidth=2,
        solid_joinstyle="round",
        marker="o" if len(run) == 1 else None,
        label=label,
    )


def _annotate(ax: Axes, run: pd.DataFrame) -> None:
    """The last value, in words beside its point."""
    measured = run.dropna(subset=["accuracy"])
    if measured.empty:
        ax.text(
            0.5,
            0.5,
            "no accuracy between 0 and 1 logged yet",
            transform=ax.transAxes,
            ha="center",
            color=_GREY,
            fontsize=11,
        )
        return
    step, value = measured["step"].iloc[-1], measured["accuracy"].iloc[-1]
    ax.plot([step], [value], marker="o", markersize=6, color=_COLOURS[0], markeredgecolor="white", clip_on=False)
    high, late = value > 0.5, step > ax.get_xlim()[1] / 2
    ax.annotate(
        f"{_percent(value)} at step {step:,}",
        (step, value),
        xytext=(0 if late else 8, -12 if high else 10),
        textcoords="offset points",
        ha="right" if late else "left",
        va="top" if high else "bottom",
        color=_COLOURS[0],
        fontsize=11,
        fontweight="bold",
    )


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _note(ax: Axes, facts: Mapping[str, Any]) -> None:
    if model := facts.get("gpu_model"):
        text = f"GPU: {model} (simulated)" if facts.get("simulated") else f"GPU: {model}"
        ax.text(1, 0.03, text, transform=ax.transAxes, ha="right", va="bottom", color=_GREY, fontsize=9.5)
