"""Figures of metrics, GPUs and cost: what is drawn, and the texts for unknown values."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from aksgpu import metrics, plots
from aksgpu.errors import InvalidInput
from aksgpu.jobs.gpu_sample_table import gpu_table
from aksgpu.payload.gpu_sampler import Samples, row_of

START = pd.Timestamp("2026-11-28T12:00:00Z")
FACTS = {
    "ended": "2026-11-28T12:40:00Z",
    "spans": [
        {"pod": "p", "started": "2026-11-28T12:00:00Z", "ended": "2026-11-28T12:10:00Z", "usd_per_hour": 0.6},
        {"pod": "q", "started": "2026-11-28T12:20:00Z", "ended": "2026-11-28T12:40:00Z", "usd_per_hour": 0.6},
    ],
}


@pytest.fixture
def table() -> pd.DataFrame:
    lines = [f"2026-11-28T12:{10 + n}:00.5Z epoch {n} loss={1 / n} accuracy={1 - 1 / n}" for n in range(1, 20)]
    return metrics.parse("\n".join(lines))


def gpu(minutes: int, *utilizations: float | None, thinned: bool = False) -> pd.DataFrame:
    """Return samples of several GPUs every five seconds."""
    samples = Samples()
    for number in range(12 * minutes + 1):
        now = START.timestamp() + 5 * number
        samples.add([row_of(now, g, value, 12e9, 16e9, 70, 50) for g, value in enumerate(utilizations)])
    samples.close()
    rows = [{**row, "pod": "p", "index": 0, "attempt": 0} for row in samples.rows]
    return gpu_table(rows, {"p": "NVML in the pod"})


def texts(ax: Axes) -> str:
    return " ".join(" ".join(text.get_text().split()) for text in ax.texts)


def test_three_axes_share_the_time(table: pd.DataFrame) -> None:
    figure = plots.with_gpu(table, gpu(40, 80), FACTS, "loss", title="train")
    top, middle, bottom = figure.axes
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss", "GPU (%)", "Cost (USD)"]
    assert bottom.get_xlabel() == "Time since the start (min)"
    assert top.get_title(loc="left") == "train"
    assert top.get_xlim() == middle.get_xlim() == bottom.get_xlim() == (0, 40)
    at = np.asarray(top.lines[0].get_xdata(), dtype=float)
    assert at[0] == pytest.approx(11 + 0.5 / 60), "the first value is where it was logged"


def test_the_cost_so_far_is_constant_while_no_pod_runs(table: pd.DataFrame) -> None:
    bottom = plots.with_gpu(table, gpu(1, 80), FACTS).axes[2]
    (line,) = bottom.lines
    assert np.asarray(line.get_xdata(), dtype=float).tolist() == [0, 10, 20, 40]
    assert np.asarray(line.get_ydata(), dtype=float).tolist() == pytest.approx([0, 0.1, 0.1, 0.3])
    assert texts(bottom) == "0.30 USD so far"


def test_the_cost_of_a_run_that_has_not_ended_is_drawn_until_its_facts_were_read(table: pd.DataFrame) -> None:
    spans = [{"pod": "p", "started": "2026-11-28T12:00:00Z", "ended": None, "usd_per_hour": 0.6}]
    facts = {"started": "2026-11-28T12:00:00Z", "ended": None, "seconds": 1800.0, "spans": spans}
    assert texts(plots.with_gpu(table, gpu(1, 80), facts).axes[2]) == "0.30 USD so far"


@pytest.mark.parametrize(
    ("ended", "cost"),
    [
        ("2026-11-28T12:00:00Z", "less than 0.00017 USD"),
        ("2026-11-28T12:00:03Z", "about 0.0005 USD"),
    ],
)
def test_a_run_of_a_few_seconds_has_no_axis_of_time(ended: str, cost: str) -> None:
    lines = [f"2026-11-28T12:00:00.9{n}Z epoch {n} loss={1 / n}" for n in range(1, 6)]
    span = {"pod": "p", "started": "2026-11-28T12:00:00Z", "ended": ended, "usd_per_hour": 0.6}
    figure = plots.with_gpu(metrics.parse("\n".join(lines)), gpu(0, 30.0), {"ended": ended, "spans": [span]})
    top, middle, bottom = figure.axes
    assert list(top.lines[0].get_xdata()) == [1, 2, 3, 4, 5]
    assert top.get_xlabel() == "Epoch"
    assert texts(middle) == "mean 30 % of 1 sample"
    assert texts(bottom) == cost
    assert "shorter than 5 s" in bottom.get_xlabel()


@pytest.mark.parametrize(
    "facts",
    [{}, {"spans": None}, {"spans": [{**FACTS["spans"][0], "usd_per_hour": None}]}],
)
def test_an_unknown_price_is_said_and_not_drawn(table: pd.DataFrame, facts: dict[str, Any]) -> None:
    bottom = plots.with_gpu(table, gpu(1, 80), facts).axes[2]
    assert not bottom.lines
    assert texts(bottom) == "cost unknown: no price is known for the node"


def test_each_gpu_has_a_thin_line_and_their_mean_a_thick_one(table: pd.DataFrame) -> None:
    middle = plots.with_gpu(table, gpu(20, 40, 80), FACTS).axes[1]
    widths = [line.get_linewidth() for line in middle.lines]
    assert widths == [0.8, 0.8, 2.2]
    assert set(np.asarray(middle.lines[2].get_ydata(), dtype=float)) == {60}
    assert texts(middle) == "mean 60 % of 2 GPUs"


def test_the_mean_is_that_of_time_and_not_of_rows(table: pd.DataFrame) -> None:
    samples = gpu(40, 0.0)
    late = samples["time"] > START + pd.Timedelta(minutes=20)
    for column in ("utilization", "utilization_min", "utilization_max"):
        samples.loc[late, column] = 100.0
    assert texts(plots.with_gpu(table, samples, FACTS).axes[1]) in ("mean 49 %", "mean 50 %", "mean 51 %")


def test_missing_samples_are_a_gap(table: pd.DataFrame) -> None:
    samples = gpu(9, 80)
    minute = (samples["time"] - START).dt.total_seconds() / 60
    kept = samples[(minute < 2) | (minute > 7)]
    line = plots.with_gpu(table, kept, FACTS).axes[1].lines[0]
    values = np.asarray(line.get_ydata(), dtype=float)
    assert np.isnan(values).sum() == 1


@pytest.mark.parametrize(
    ("samples", "note"),
    [
        (
            gpu_table([], {"p": "none: the container has no nvidia-smi"}),
            "no GPU samples: the container has no nvidia-smi",
        ),
        (gpu_table([], {}), "no GPU samples: none were taken"),
        (gpu(1, None), "the GPU does not report its utilization"),
    ],
)
def test_why_there_is_no_utilization(table: pd.DataFrame, samples: pd.DataFrame, note: str) -> None:
    middle = plots.with_gpu(table, samples, FACTS).axes[1]
    assert not middle.lines
    assert texts(middle) == note


def test_a_run_without_anything_is_a_figure_that_says_so() -> None:
    figure = plots.with_gpu(metrics.parse(""), gpu_table([], {}), {})
    assert "no metrics logged yet" in texts(figure.axes[0])
    figure.canvas.draw()


def test_a_pdf_embeds_truetype_fonts(table: pd.DataFrame) -> None:
    file = io.BytesIO()
    plots.with_gpu(table, gpu(1, 80), FACTS).savefig(file, format="pdf")
    assert b"/FontFile2" in file.getvalue()
    assert b"/Type3" not in file.getvalue()


def test_a_dark_style_is_followed(table: pd.DataFrame) -> None:
    with mpl.style.context("dark_background"):
        figure = plots.with_gpu(table, gpu(1, 80), FACTS)
        figure.canvas.draw()
    for ax in figure.axes:
        assert ax.get_facecolor()[:3] == (0, 0, 0)
        assert ax.yaxis.label.get_color() == "#EEEEEE"


def test_wrong_arguments(table: pd.DataFrame) -> None:
    with pytest.raises(InvalidInput, match="`smooth` must be"):
        plots.with_gpu(table, gpu(1, 80), FACTS, smooth=2)
    with pytest.raises(InvalidInput, match="no metric 'nope'"):
        plots.with_gpu(table, gpu(1, 80), FACTS, "nope")
