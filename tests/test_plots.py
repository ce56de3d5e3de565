"""Figures: what is on them, without pyplot's state, and bad tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from aksgpu import metrics, plots
from aksgpu.errors import InvalidInput

TRANSCRIPT = (Path(__file__).parent / "data" / "mnist-log-2019.txt").read_text()


@pytest.fixture
def run() -> pd.DataFrame:
    return metrics.parse(TRANSCRIPT)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_one_run(run: pd.DataFrame) -> None:
    figure = plots.curve(run, title="MNIST")
    (ax,) = figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left")) == ("Training step", "accuracy", "MNIST")
    assert list(ax.lines[0].get_xdata()) == list(run["step"])
    assert list(ax.lines[0].get_ydata()) == list(run["accuracy"])
    assert texts(figure) == ["94.94 % at step 490", "GPU: Tesla K80"]
    assert ax.get_ylim()[0] == 0, "the axis does not exaggerate"
    figure.canvas.draw()
    assert "50 %" in [label.get_text() for label in ax.get_yticklabels()]


def test_a_simulated_gpu_is_called_so(run: pd.DataFrame) -> None:
    run.attrs["facts"]["simulated"] = True
    assert "GPU: Tesla K80 (simulated)" in texts(plots.curve(run))


@pytest.mark.parametrize("form", ["dict", "column"])
def test_several_runs(run: pd.DataFrame, form: str) -> None:
    runs = {"slow": run, "fast": run.iloc[:20]}
    column = pd.concat([table.assign(run=name) for name, table in runs.items()])
    figure = plots.curve(runs if form == "dict" else column)
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["slow, 94.94 %", "fast, 92.58 %"]
    styles = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(styles) == len(legend)


def test_no_line_leads_back_to_where_steps_begin_again(run: pd.DataFrame) -> None:
    figure = plots.curve(pd.concat([run, run, run.iloc[5:]]))
    steps = figure.axes[0].lines[0].get_xdata()
    assert [i for i, step in enumerate(steps) if step != step] == [50, 101]
    assert len(steps) == 50 + 1 + 50 + 1 + 45
    assert texts(figure)[0] == "94.94 % at step 490"


def test_it_draws_into_given_axes(run: pd.DataFrame) -> None:
    mine = Figure()
    left, right = mine.subplots(1, 2)
    assert plots.curve(run, ax=right) is mine
    assert (len(left.lines), len(right.lines)) == (0, 2)


def test_a_notebook_shows_it_without_pyplot() -> None:
    program = (
        "import sys; from aksgpu import metrics, plots; figure = plots.curve(metrics.parse(''));"
        "assert figure._repr_png_().startswith(bytes([137]) + b'PNG'); assert 'matplotlib.pyplot' not in sys.modules;"
        "print(repr(figure))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "<NotebookFigure size 792x462 with 1 Axes>\n", "no address, no time"


def test_bad_tables(run: pd.DataFrame) -> None:
    with pytest.raises(InvalidInput, match="the run has no metric 'loss'"):
        plots.curve(run, "loss")
    with pytest.raises(InvalidInput, match="run 'b' must be a DataFrame of metrics or a Job, got int"):
        plots.curve({"a": run, "b": 1})
    with pytest.raises(InvalidInput, match="`data` must have at least one run"):
        plots.curve({})
