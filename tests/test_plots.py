"""Figures: their content, pyplot's unchanged state, and invalid tables."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
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


def test_no_line_joins_the_runs_of_a_restarted_job(run: pd.DataFrame) -> None:
    figure = plots.curve(pd.concat([run, run, run.iloc[5:]]))
    steps = figure.axes[0].lines[0].get_xdata()
    assert [i for i, step in enumerate(steps) if step != step] == [50, 101]
    assert len(steps) == 50 + 1 + 50 + 1 + 45
    assert texts(figure)[0] == "94.94 % at step 490"


def test_it_draws_on_the_given_axes(run: pd.DataFrame) -> None:
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


STEPS = 40


def table(**metrics_by_name: object) -> pd.DataFrame:
    steps = pd.array(np.arange(STEPS) * 10, dtype="Int64")
    return pd.DataFrame({"step": steps, "epoch": pd.array([None] * STEPS, dtype="Float64"), **metrics_by_name})


def falling(factor: float = 1.0) -> np.ndarray:
    return factor * np.exp(-np.arange(STEPS) / 15)


def contrast(one: object, other: object) -> float:
    """Return the contrast of two colours, as the WCAG defines it."""

    def luminance(colour: object) -> float:
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def legible(figure: Figure, axes: int = 0) -> None:
    """Check that every text and curve of the axes contrasts with its background."""
    figure.canvas.draw()
    ax = figure.axes[axes]
    ground = ax.get_facecolor()
    texts = [*ax.texts, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels()]
    if ax.get_legend():
        texts += ax.get_legend().get_texts()
    for text in texts:
        if text.get_text():
            of_a_curve = text.get_color() in [line.get_color() for line in ax.lines]
            assert contrast(text.get_color(), ground) >= (2 if of_a_curve else 4.5), text
    for line in ax.lines:
        assert contrast(line.get_color(), ground) >= 2, line.get_color()


def inside(figure: Figure) -> None:
    """Check that no part of the figure is cut at its edges."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    whole = figure.bbox
    for ax in figure.axes:
        parts = [ax, ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        if ax.get_legend():
            parts.append(ax.get_legend())
        for part in parts:
            if getattr(part, "get_text", lambda: "axes")() == "":
                continue
            box = part.get_window_extent(renderer)
            assert box.x0 >= whole.x0 - 1, part
            assert box.y0 >= whole.y0 - 1, part
            assert box.x1 <= whole.x1 + 1, part
            assert box.y1 <= whole.y1 + 1, part


@pytest.mark.parametrize("count", [1, 2, 7, 16, 40, 60])
def test_any_number_of_curves_with_a_complete_legend(count: int) -> None:
    runs = {f"run with a rather long name {number}": table(loss=falling(1 + number)) for number in range(count)}
    figure = plots.curve(runs, "loss", title="A long title of a figure with many curves " * 4)
    inside(figure)
    (ax,) = figure.axes
    styles = {(line.get_color(), str(line.get_linestyle()), str(line._unscaled_dash_pattern)) for line in ax.lines}
    assert len(styles) >= min(count, 24)
    if count > 1:
        legend = ax.get_legend()
        assert len(legend.get_texts()) == count
        box = legend.get_window_extent()
        if count > 6:
            assert box.x0 >= ax.get_window_extent().x1 - 1, "it covers no curve"
        assert ax.get_window_extent().width > 250, "the curves keep their room"


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_light_and_dark_backgrounds(style: str) -> None:
    with mpl.rc_context(dict(mpl.style.library.get(style, {}))):
        several = plots.curve(table(loss=falling(), val_loss=falling(1.1), accuracy=1 - falling()), best=True)
        one = plots.curve(table(loss=falling()), "loss")
        legible(several)
        legible(one)
    assert to_rgb(one.get_facecolor()) == (0, 0, 0) if style == "dark_background" else (1, 1, 1)


@pytest.mark.parametrize("ground", ["black", "#111133", "white", "#f4f1e8"])
def test_text_on_given_axes_contrasts_with_their_background(ground: str) -> None:
    figure = Figure(facecolor=ground)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.set_facecolor(ground)
    right.set_facecolor("none")
    plots.curve(table(loss=falling()), "loss", ax=left)
    plots.curve(table(loss=falling(), val_loss=falling(1.1)), "loss", "val_loss", ax=right)
    legible(figure, 0)
    for line in right.lines:
        assert contrast(line.get_color(), ground) >= 2


def test_a_narrow_range_is_not_a_flat_line() -> None:
    figure = plots.curve(table(accuracy=0.985 + np.arange(STEPS) / 4000), "accuracy")
    low, high = figure.axes[0].get_ylim()
    assert high - low < 0.02
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(set(labels)) == len(labels)
    assert all(label.endswith(" %") for label in labels)


def test_shares_that_are_given_as_percentages() -> None:
    figure = plots.curve(table(**{"Acc@1": 100 * (1 - falling())}), "Acc@1")
    ax = figure.axes[0]
    assert ax.get_ylim() == (0, 102)
    figure.canvas.draw()
    assert "50 %" in [label.get_text() for label in ax.get_yticklabels()]
    assert texts(figure)[0] == f"{100 * (1 - falling()[-1]):.2f} % at step 390"
    assert ax.get_ylabel() == "Acc@1"


@pytest.mark.parametrize(
    "values",
    [
        [2.3, 1.5, 1.1, 0.8, 0.6185],
        [0.7, 0.66, 0.64, 0.63, 0.6185],
        [0.3, 0.5, 0.58, 0.61, 0.6185],
        [0.6, 0.9, 0.3, 0.9, 0.6185],
        [0.1, 0.2, 0.4, 0.7, 1.1],
        [0.8, 0.6185],
        [0.6185, 0.8],
        [0.6185] * 5,
    ],
)
@pytest.mark.parametrize("log", [False, True])
def test_the_last_value_does_not_cover_the_curve(values: list[float], log: bool) -> None:
    figure = plots.curve(
        metrics.parse("\n".join(f"epoch {n} loss={value}" for n, value in enumerate(values, 1))), log=log
    )
    figure.canvas.draw()
    (ax,) = figure.axes
    (note,) = ax.texts
    box = note.get_window_extent()
    points = ax.transData.transform(ax.lines[0].get_xydata())
    along = np.linspace(points[0, 0], points[-1, 0], 2000)
    heights = np.interp(along, *points.T)
    covered = (along > box.x0) & (along < box.x1) & (heights > box.y0) & (heights < box.y1)
    assert not covered.any()
    assert ax.bbox.y0 < box.y0
    assert box.y1 < ax.bbox.y1


@pytest.mark.filterwarnings("error")
def test_a_last_value_of_zero_is_named_at_the_lower_end_of_a_logarithmic_scale() -> None:
    figure = plots.curve(metrics.parse("epoch 1 loss=0.5\nepoch 2 loss=0.2\nepoch 3 loss=0"), log=True)
    inside(figure)
    (ax,) = figure.axes
    (note,) = ax.texts
    assert ax.bbox.y0 < note.get_window_extent().y0 < ax.bbox.y0 + 0.5 * ax.bbox.height


def test_the_axis_of_a_single_epoch_names_it_once() -> None:
    figure = plots.curve(metrics.parse("epoch 1 loss=0.5"))
    figure.canvas.draw()
    low, high = figure.axes[0].get_xlim()
    assert [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high] == [1]


def test_a_nan_is_a_gap_and_a_single_point_is_visible() -> None:
    values = falling()
    values[[10, 12]] = np.nan
    figure = plots.curve(table(loss=values, val_loss=falling()), "loss")
    line, points = figure.axes[0].lines[:2]
    assert np.isnan(line.get_ydata()).sum() == 2
    assert list(points.get_ydata()) == [values[11]]
    assert points.get_marker() == "o"


def test_rows_of_other_metrics_are_not_gaps() -> None:
    log = "".join(f"step {n}: train loss {1 / (1 + n)}, val loss 0.5\niter {n}: loss {1 / (1 + n)}\n" for n in range(5))
    figure = plots.curve(metrics.parse(log), "loss")
    assert not np.isnan(figure.axes[0].lines[0].get_ydata()).any()


def test_an_empty_figure_says_what_the_table_contained() -> None:
    assert texts(plots.curve(metrics.parse("")))[0] == "no metrics logged yet"
    figure = plots.curve(metrics.parse("processed 5 files of $x$\n" + "took 3 s and a word " * 20 + "\n"))
    shown = texts(figure)[0].splitlines()
    assert shown[:3] == [
        "no metrics read",
        "2 lines with numbers have an unknown format, such as",
        "processed 5 files of $x$",
    ]
    inside(figure)


def test_a_logarithmic_scale_smoothing_and_the_best_value() -> None:
    noisy = falling() + np.where(np.arange(STEPS) % 2, 0.02, 0.0)
    frame = table(loss=noisy)
    figure = plots.curve(frame, "loss", log=True, smooth=0.9, best=True)
    ax = figure.axes[0]
    assert ax.get_yscale() == "log"
    raw, smoothed = ax.lines[:2]
    assert list(raw.get_ydata()) == list(noisy)
    assert raw.get_alpha() < 1
    assert np.abs(np.diff(smoothed.get_ydata(), 2)).mean() < np.abs(np.diff(noisy, 2)).mean() / 2
    assert texts(figure) == [f"best {noisy.min():.4g}"]
    high = plots.curve(table(accuracy=1 - noisy), "accuracy", best=True)
    assert texts(high) == [f"best {100 * (1 - noisy).max():.2f} %"]


def test_any_metric_by_its_printed_or_general_name() -> None:
    frame = metrics.parse("Epoch[1] Train-accuracy=0.9\nEpoch[1] Validation-accuracy=0.8\n")
    assert plots.curve(frame, "Validation-accuracy").axes[0].get_ylabel() == "Validation-accuracy"
    assert plots.curve(frame, "val_accuracy").axes[0].get_ylabel() == "Validation-accuracy"
    assert plots.curve(frame, "val_accuracy").axes[0].get_xlabel() == "Epoch"


def test_a_pdf_embeds_true_type_fonts(tmp_path: Path) -> None:
    figure = plots.curve(table(loss=falling(), val_loss=falling(1.2)), "loss", "val_loss", title="Größe")
    kept = mpl.rcParams["pdf.fonttype"]
    figure.savefig(tmp_path / "figure.pdf")
    content = (tmp_path / "figure.pdf").read_bytes()
    assert b"/Type3" not in content
    assert b"/FontFile2" in content
    other = io.BytesIO()
    figure.savefig(other, format="pdf")
    assert b"/Type3" not in other.getvalue()
    assert mpl.rcParams["pdf.fonttype"] == kept


def test_names_with_tex_characters_are_shown_unchanged() -> None:
    runs = {"_hidden": table(loss=falling()), "a $x^2$ b": table(loss=falling(2))}
    figure = plots.curve(runs, "loss", title="costs $5 and $6")
    figure.canvas.draw()
    labels = [text.get_text().strip() for text in figure.axes[0].get_legend().get_texts()]
    assert [label.partition(",")[0] for label in labels] == ["_hidden", "a $x^2$ b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smooth": 1}, "`smooth` must be a number from 0 up to, but not including, 1, got 1"),
        ({"smooth": -0.1}, "`smooth` must be"),
        ({"x": "steps"}, "`x` must be 'step', 'epoch', 'time' or None, got 'steps'"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        plots.curve(table(loss=falling()), **options)  # type: ignore[arg-type] - the wrong types are what is tested


def test_steps_that_a_later_attempt_repeats_are_drawn_once() -> None:
    reader = metrics.MetricsReader()
    reader.feed("step=1 loss=5\nstep=2 loss=4\nstep=3 loss=3\n", attempt=0)
    reader.feed("step=2 loss=4.5\nstep=3 loss=2\nstep=4 loss=1\n", attempt=1)
    line = plots.curve(reader.frame(), "loss").axes[0].lines[0]
    assert list(line.get_xdata()) == [1, 2, 3, 4]
    assert list(line.get_ydata()) == [5, 4.5, 2, 1]


def test_attempts_are_those_of_one_index() -> None:
    reader = metrics.MetricsReader()
    reader.feed("step=1 loss=5\nstep=2 loss=4\n", index=0, attempt=0)
    reader.feed("step=2 loss=3\n", index=0, attempt=1)
    reader.feed("step=1 loss=7\nstep=2 loss=6\n", index=1, attempt=0)
    lines = plots.curve(reader.frame(), "loss").axes[0].lines
    first, second = (line for line in lines if len(line.get_xdata()) > 1)
    assert list(first.get_ydata()) == [5, 3]
    assert list(second.get_ydata()) == [7, 6]
