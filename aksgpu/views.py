"""Live views in notebooks: a Job's state, its last log lines and its accuracy curve, as they come.

The pattern is dask's: one mime bundle holds a constant line of text, a piece of HTML and a widget; a thread sets the
widget's traits. So nothing flickers. The HTML is for readers without a kernel: a snapshot that tells two things only,
that the Job had not ended, or how it ended and with which curve; so what a notebook stores does not depend on the
second in which it ran. Only core ipywidgets are used, as hosted notebooks have no others; no ``Output``,
``clear_output`` or ``display_id``, which lose text, flicker, or write into another cell.

The curve here is a small SVG that takes its colours from the page. The figure to keep is :mod:`aksgpu.plots`'.
"""

from __future__ import annotations

import math
import re
import threading
import time
from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets

from aksgpu import metrics
from aksgpu.errors import AksGpuError, NotFound

if TYPE_CHECKING:
    from aksgpu.jobs import Job

__all__ = ["JobView", "job_view"]

_LINES = 8  # of the log that are shown
_WINDOW = 2000  # lines of the log that are asked for at each look, so that a long log costs no more than a short one
_LOOK = 5.0  # seconds that showing a view waits for what its snapshot is to tell
_PATIENCE = 900.0  # seconds without an answer before the view gives up
_ESCAPES = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")  # colours and cursor movements
_FONT, _CODE_FONT = "var(--jp-ui-font-family,sans-serif)", "var(--jp-code-font-family,monospace)"
_COLOURS = {"Complete": "#009E73", "Failed": "#D55E00", "Running": "#0072B2"}
_ENDED = ("Complete", "Failed")
_STANDINGS = {
    "Submitted": "it had not ended when this was shown.",
    "Deleted": "it was not there when this was shown.",
    "Unknown": "its cluster had not answered when this was shown.",
}
_MORE = (
    "As it stood when the cell was run. Where a kernel runs, <code>job</code> shows it live; "
    "<code>job.status()</code>, <code>job.logs()</code> and <code>job.plot()</code> tell more."
)

_views: dict[int, JobView] = {}  # those that still watch, by their job's id: showing a job twice starts one thread


def job_view(job: Job) -> JobView:
    """The live view of a Job; as a cell's last line, a notebook shows it.

    Args:
        job: what to watch.

    Returns:
        The same view while the Job is watched.
    """
    view = _views.get(id(job))
    return view if view is not None else JobView(job)


class JobView:
    """A view that watches from the moment at which it is first shown until the Job ends, or :meth:`close`.

    Args:
        job: what to watch.
        interval: seconds between two looks; grows tenfold while a Job runs for long.
    """

    def __init__(self, job: Job, *, interval: float = 0.5) -> None:
        self._job, self._interval = job, interval
        self._status, self._curve, self._log = (ipywidgets.HTML() for _ in range(3))
        self._box = ipywidgets.VBox([self._status, self._curve, self._log])
        self._points: dict[int, float] = {}
        self._max_steps: int | None = None
        self._standing = "Unknown"  # what the snapshot says, while the widget's status says more
        self._closed = threading.Event()
        self._turn = threading.Condition()  # guards the two counts of looks, wanted and done
        self._asked, self._answered = 0, 0.0
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<live view of Job {self._job.name} in {self._job.namespace}>"

    def _repr_html_(self) -> str:
        ended = self._standing in _ENDED
        shown = self._status.value + self._curve.value if ended else self._standing_html()
        return f'<div>{shown}<div style="font-size:85%;opacity:.75">{_MORE}</div></div>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        self._start()
        self._ask()
        widget = self._box._repr_mimebundle_()
        return {**widget, "text/plain": repr(self), "text/html": self._repr_html_()}

    def _standing_html(self) -> str:
        words = _STANDINGS[self._standing]
        return _status_html(self._job.name, self._standing, f"in {self._job.namespace}: {words}")

    def close(self) -> None:
        """Stop watching. What is shown stays."""
        self._closed.set()
        with self._turn:
            self._turn.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=30)

    def _start(self) -> None:
        if self._thread is not None:
            return
        self._status.value = _status_html(self._job.name, "…", "")
        self._thread = threading.Thread(target=self._watch, name=f"aksgpu-view-{self._job.name}", daemon=True)
        _views[id(self._job)] = self
        self._thread.start()

    def _ask(self) -> None:
        """Have the thread look at once, and wait for that: an earlier look may not know yet that the Job has ended."""
        with self._turn:
            self._asked += 1
            asked = self._asked
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._answered >= asked, _LOOK)

    def _answer(self, asked: float, pause: float = 0) -> None:
        """Say that a look is done, and pause, unless another one is wanted meanwhile."""
        with self._turn:
            self._answered = asked
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._closed.is_set() or self._asked > asked, pause)

    def _watch(self) -> None:
        try:
            pause, answered = self._interval, time.monotonic()
            while not self._closed.is_set():
                asked = self._asked
                try:
                    if self._look():
                        return
                    answered = time.monotonic()
                except NotFound:
                    self._standing = "Deleted"
                    self._status.value = _status_html(self._job.name, "Deleted", "")
                    return
                except AksGpuError as error:  # a server that is away for a while is no reason to stop
                    self._status.value = _status_html(self._job.name, "No answer", error.message)
                    if time.monotonic() - answered > _PATIENCE:
                        return
                self._answer(asked, pause)
                pause = min(pause * 1.02, 10 * self._interval)
        except Exception as error:
            self._status.value = _status_html(self._job.name, "View stopped", f"{type(error).__name__}: {error}")
            raise
        finally:
            _views.pop(id(self._job), None)
            self._answer(math.inf)

    def _look(self) -> bool:
        """Bring the view up to date; True when the Job has ended."""
        status = self._job.status()
        text = self._job.logs() if status.ended else self._job.logs(tail=_WINDOW)
        table = metrics.parse(text)
        if "accuracy" in table:
            # A row in which every value is NaN is a NaN that the program printed. Others are rows of other metrics.
            is_nan = table[list(table.attrs["canonical"])].isna().all(axis="columns")
            table = table[table["step"].notna() & (table["accuracy"].notna() | is_nan)]
            points = dict(zip(table["step"].tolist(), table["accuracy"].tolist(), strict=True))
        else:
            points = {}
        points = points if status.ended else {**self._points, **points}
        self._set(self._log, _log_html(text))
        if points != self._points:
            self._points = points
            self._set(self._curve, _curve_html(points))
        self._set(self._status, _status_html(self._job.name, status.phase, self._words(status)))
        self._standing = status.phase if status.ended else "Submitted"
        return bool(status.ended)

    def _words(self, status: Any) -> str:
        if status.phase == "Running" and self._points:
            return self._progress(max(self._points))
        return ": ".join(word for word in (status.reason, status.message) if word)

    def _progress(self, step: int) -> str:
        if self._max_steps is None:
            self._max_steps = _max_steps(self._job)
        return f"step {step} of {self._max_steps}" if self._max_steps else f"step {step}"

    @staticmethod
    def _set(widget: Any, value: str) -> None:
        if widget.value != value:  # each change is a message to every front-end
            widget.value = value


def _max_steps(job: Job) -> int:
    """How many steps the Job's program was told to train; 0 when its arguments do not say."""
    (container, *_) = job.cluster.kube.get("Job", job.name, job.namespace)["spec"]["template"]["spec"]["containers"]
    arguments = [str(argument) for argument in container.get("args") or ()]
    if "--max_steps" not in arguments[:-1]:
        return 0
    value = arguments[arguments.index("--max_steps") + 1]
    return int(value) if value.isdecimal() else 0


def _status_html(name: str, phase: str, words: str) -> str:
    colour = _COLOURS.get(phase, "#777777")
    pill = f'<span style="background:{colour};color:white;border-radius:9px;padding:1px 9px">{escape(phase)}</span>'
    return f'<div style="line-height:1.9;font-family:{_FONT}"><b>{escape(name)}</b> {pill} {escape(words)}</div>'


def _log_html(text: str) -> str:
    # As on a terminal, what follows a carriage return replaces what was before it on the line.
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.rstrip("\r\n").split("\n")[-_LINES:]]
    shown = "\n".join(escape(_ESCAPES.sub("", line)[:300]) for line in lines)
    if not shown:
        return ""
    return f'<pre style="margin:4px 0;font:12px/1.35 {_CODE_FONT};white-space:pre;overflow-x:auto">{shown}</pre>'


def _curve_html(points: dict[int, float]) -> str:
    """The accuracy over the steps as SVG; text and lines have the page's own colour."""
    finite = [(step, value) for step, value in sorted(points.items()) if 0 <= value <= 1]
    if not finite:
        return ""
    last_step, last = finite[-1]

    def x(step: int) -> float:
        return 45 + 360 * step / max(last_step, 10)

    def y(value: float) -> float:
        return 130 - 120 * value

    grid = "".join(
        f'<path d="M45 {y(value):g}H405" stroke="currentColor" stroke-opacity=".25"/>'
        f'<text x="39" y="{y(value) + 4:g}" text-anchor="end" font-size="11">{100 * value:.0f} %</text>'
        for value in (0.0, 0.5, 1.0)
    )
    words = f"accuracy {100 * last:.2f} % at step {last_step}"
    return (
        f'<svg width="420" height="140" role="img" aria-label="{words}" '
        f'style="fill:currentColor;font-family:{_FONT};color:var(--jp-content-font-color1,inherit)">'
        f'{grid}<polyline points="{" ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in finite)}" '
        'style="fill:none;stroke:#3391CE;stroke-width:2"/>'
        f'<circle cx="{x(last_step):.1f}" cy="{y(last):.1f}" r="3.5" style="fill:#3391CE"/>'
        f'<text x="405" y="122" text-anchor="end" font-size="12">{words}</text></svg>'
    )
