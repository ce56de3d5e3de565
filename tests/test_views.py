"""Live views: what they show, when their thread ends, and that no text of a pod becomes HTML."""

from __future__ import annotations

import re
import threading
import time
from base64 import b64decode
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.polling import wait_for

from aksgpu import metrics, views
from aksgpu.curves import Curve
from aksgpu.diagnose import Diagnosis
from aksgpu.errors import Forbidden, KubernetesError, NotFound, Unreachable
from aksgpu.jobs import JobStatus, state_explanation, watchers
from aksgpu.jobs.gpu_notes import GpuNotes
from aksgpu.jobs.watchers import notifies_watcher
from aksgpu.views import curve, live_view, logtext, markup
from aksgpu.views.observation import Observation
from aksgpu.views.widgets import LiveWidgets

PATIENCE = 60.0
"""Seconds."""
LOG = "starting <script>alert(1)</script>\nAccuracy at step 0: 0.1\nAccuracy at step 10: 0.75\n"
TIMES = {"startTime": "2026-11-28T12:00:00Z", "completionTime": "2026-11-28T12:01:05Z"}


class ScriptedFeed:
    """What reads a scripted Job's log. Each read takes the next log; the last one stays."""

    def __init__(self, job: ScriptedJob) -> None:
        self._job = job
        self._text = ""

    def read(self) -> None:
        self._job.reads += 1
        self._text = str(taken(self._job.log))

    def text(self) -> str:
        return self._text

    def table(self) -> pd.DataFrame:
        return metrics.parse(self._text)


class ScriptedJob:
    """A Job as views see it. Each read takes the next state and the next log. The last ones are repeated."""

    name = "mnist<1>"
    namespace = "default"

    def __init__(self, *states: Any, log: Any = "", args: tuple[str, ...] = ("--max_steps", "30")) -> None:
        self.states = list(states)
        self.log = log if isinstance(log, list) else [log]
        self.reads = 0
        self.notes: list[Any] = [GpuNotes()]
        container = {"args": list(args)}
        job = {"spec": {"template": {"spec": {"containers": [container]}}}, "status": TIMES}
        self.cluster = SimpleNamespace(kube=SimpleNamespace(get=lambda *_: job))

    def status(self) -> JobStatus:
        state = taken(self.states)
        phase, *words = state if isinstance(state, tuple) else (state,)
        reason, message = [*words, "", ""][:2]
        return JobStatus(phase, reason, message)

    def _feed(self) -> ScriptedFeed:
        return ScriptedFeed(self)

    def _notes(self, feed: ScriptedFeed) -> GpuNotes:
        found: GpuNotes = taken(self.notes)
        return found

    def why(self) -> Diagnosis:
        return Diagnosis("The GPU is taken.", "Wait.")

    @notifies_watcher
    def wait(self, ends_in: BaseException | None = None) -> ScriptedJob:
        if ends_in is not None:
            raise ends_in
        return self


def taken(script: list[Any]) -> Any:
    found = script.pop(0) if len(script) > 1 else script[0]
    if isinstance(found, Exception):
        raise found
    return found


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for the thread of a view, which a busy machine may run late."""
    monkeypatch.setattr(live_view, "_POLL_SECONDS", PATIENCE)
    monkeypatch.setattr(live_view, "_CLOSE_TIMEOUT", PATIENCE)
    monkeypatch.setattr(watchers, "_FINAL_REFRESH", PATIENCE)


def view_of(job: Any, interval: float = 0.01) -> views.JobView:
    return views.JobView(job, interval=interval)


def shown(view: views.JobView) -> str:
    """Return the current text of the static HTML, without reading the Job."""
    return text(view._static().html)


def text(html: str) -> str:
    return re.sub(r"<[^>]*>", " ", html).replace("&nbsp;", " ")


def drawn(html: str) -> str:
    found = re.search(r"data:image/svg\+xml;base64,([^\"]+)", html)
    return b64decode(found[1]).decode() if found else ""


def watch(job: Any) -> views.JobView:
    view = view_of(job)
    view._repr_html_()
    return view


def ended(view: views.JobView) -> bool:
    return view._thread is not None and not view._thread.is_alive()


def test_a_complete_job_shows_verdict_numbers_and_curve() -> None:
    view = view_of(ScriptedJob("Complete", log=LOG))
    html = view._repr_html_()
    words = " ".join(text(html).split())
    assert "mnist&lt;1&gt; &#9679; Complete namespace default accuracy 75.00 % at step 10 ran for 1 min 5 s" in words
    assert "ended 2026-11-28 12:01:05 UTC" in words
    assert 'alt="accuracy 75.00 % at step 10"' in html
    assert "<polyline" in drawn(html)
    assert "<script" not in html
    assert view._static().text == "Job mnist<1> in default: Complete, accuracy 75.00 % at step 10"
    assert "&lt;script&gt;alert(1)" in html


def test_a_failed_job_shows_its_reason_and_the_end_of_its_log() -> None:
    failed = ("Failed", "BackoffLimitExceeded", "Job has reached the <specified> backoff limit")
    words = text(view_of(ScriptedJob(failed, log="CUDA out of memory\n"))._repr_html_())
    assert "BackoffLimitExceeded: Job has reached the &lt;specified&gt; backoff limit" in words
    assert "CUDA out of memory" in words


def test_a_job_that_waits_shows_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_explanation, "_AFTER", 0.0)
    view = watch(ScriptedJob("Pending"))
    wait_for(lambda: "why The GPU is taken. fix Wait." in " ".join(shown(view).split()), timeout=60)
    view.close()
    assert "why" not in markup.numbers(Observation("mnist", "default", phase="Running"))
    long = markup.numbers(Observation("mnist", "default", verdict="word " * 1000))
    assert "job.why() has all of it" in long
    assert len(long) < 2000


def test_from_pending_to_complete() -> None:
    pending = ("Pending", "Unschedulable", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    job = ScriptedJob(pending, log=LOG)
    view = watch(job)
    wait_for(lambda: "Unschedulable: 0/1 nodes are available" in shown(view))
    job.states = ["Running"]
    wait_for(lambda: "step 10 of 30" in shown(view))
    job.states = ["Complete"]
    wait_for(lambda: ended(view))
    assert "Complete" in shown(view)


def test_progress_without_max_steps() -> None:
    for args in ((), ("--max_steps",), ("--max_steps", "many")):
        view = watch(ScriptedJob("Running", log=LOG, args=args))
        wait_for(lambda view=view: "step 10" in shown(view))
        assert "step 10 of" not in shown(view)
        view.close()


def test_showing_a_view_again_reads_the_job_again() -> None:
    job = ScriptedJob("Running", log=LOG)
    view = view_of(job, interval=60)
    assert "Running" in text(view._repr_html_())
    job.states = ["Complete"]
    assert "Complete" in text(view._repr_html_()), "though its thread pauses"
    wait_for(lambda: ended(view))


def test_a_view_starts_no_thread_before_it_is_shown() -> None:
    before = set(threading.enumerate())
    view = views.job_view(ScriptedJob("Running"))  # type: ignore[arg-type]
    assert repr(view) == "<live view of Job mnist<1> in default>"
    assert set(threading.enumerate()) <= before


def test_showing_a_job_twice_starts_one_thread() -> None:
    job: Any = ScriptedJob("Running")
    view = views.job_view(job)
    view._repr_html_()
    assert views.job_view(job) is view
    view.close()
    assert ended(view)
    assert views.job_view(job) is not view, "a new one watches again"


def test_any_metric_is_shown() -> None:
    log = "epoch 1 loss=0.9 val_loss=1.1\nepoch 2 loss=0.4 val_loss=0.6\n"
    view = watch(ScriptedJob("Running", log=log))
    wait_for(lambda: "epoch 2" in shown(view))
    words = " ".join(shown(view).split())
    assert "loss 0.4 at epoch 2 val_loss 0.6 at epoch 2" in words
    html = view._static().html
    assert 'alt="loss 0.4 at epoch 2; val_loss 0.6 at epoch 2"' in html
    assert drawn(html).count("<polyline") == 2
    assert ">val_loss</text>" in drawn(html)
    view.close()


def test_the_use_of_the_gpu_and_its_waste_are_shown_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_view, "_GPU_SECONDS", 0.0)
    job = ScriptedJob("Running", log=LOG)
    warning = 'Training on the CPU although a GPU is paid for: the log says "<cpu>"'
    job.notes = [Forbidden("no right"), GpuNotes("GPU 87 %, 12.1 of 16.0 GB", (warning,))]
    view = watch(job)
    wait_for(lambda: "12.1 of 16.0 GB" in shown(view))
    words = " ".join(shown(view).split())
    assert "GPU Training on the CPU although a GPU is paid for: the log says &quot;&lt;cpu&gt;&quot;" in words
    assert "now GPU 87 %, 12.1 of 16.0 GB" in words
    job.states = ["Complete"]
    wait_for(lambda: ended(view))
    assert "GPU 87 %" not in shown(view), "a Job that has ended uses no GPU"


# What cannot be read


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Unreachable("nobody <listens> there"), "cluster not reachable since"),
        (Forbidden("pods is forbidden"), "not permitted to read it since"),
        (KubernetesError("etcd is slow"), "could not be read since"),
    ],
)
def test_a_state_that_cannot_be_read_is_not_shown_as_current(error: KubernetesError, words: str) -> None:
    job = ScriptedJob("Running", error, log=LOG)
    view = watch(job)
    wait_for(lambda: "State" in shown(view))
    now = shown(view)
    assert re.search(rf"State\s+{words} \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC: ", now)
    assert error.message.replace("<", "&lt;").replace(">", "&gt;") in now
    assert "step 10 of 30" in now, "the last known state stays"
    assert "75.00 % at step 10" in now
    assert "as of" in now
    job.states = ["Complete"]
    wait_for(lambda: ended(view))
    assert "State" not in shown(view)


@pytest.mark.parametrize(
    ("error", "words"),
    [(Forbidden("no right"), "not permitted to read it"), (KubernetesError("500"), "could not be read")],
)
def test_a_log_that_cannot_be_read_is_not_an_empty_log(error: KubernetesError, words: str) -> None:
    job = ScriptedJob("Running", log=[LOG, error])
    view = watch(job)
    wait_for(lambda: "Log" in shown(view))
    assert re.search(rf"Log\s+{words} since .* UTC: {error.message}", shown(view))
    assert "Running" in shown(view)
    assert "75.00 % at step 10" in shown(view), "what was read stays"
    job.log = [LOG]
    wait_for(lambda: "Log" not in shown(view))
    view.close()


def test_the_last_read_of_the_log_is_retried() -> None:
    job = ScriptedJob("Complete", log=[KubernetesError("the node is away")] * 5 + [LOG])
    view = watch(job)
    wait_for(lambda: ended(view))
    assert "75.00 % at step 10" in shown(view)
    assert "Log" not in shown(view)
    assert job.reads == 6


def test_a_log_that_stays_unreadable_is_reported_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_view, "_FINAL_READ", 0.05)
    view = watch(ScriptedJob("Complete", log=KubernetesError("the node is away")))
    wait_for(lambda: ended(view))
    assert "Complete" in shown(view)
    assert "could not be read since" in shown(view)


def test_a_log_whose_pod_is_gone_ends_the_view() -> None:
    job = ScriptedJob("Failed", log=NotFound("its pods are gone"))
    words = text(view_of(job)._repr_html_())
    assert "its pods are gone" in words
    assert job.reads == 1


def test_a_view_of_a_server_that_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_view, "_GIVE_UP_AFTER", 0.05)
    view = watch(ScriptedJob(Unreachable("gone")))
    wait_for(lambda: ended(view))
    assert "Unknown" in shown(view)
    assert "cluster not reachable since" in shown(view)
    assert "because the cluster did not respond." in shown(view)


def test_a_server_that_hangs_does_not_block_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    silent: Any = ScriptedJob("Running")
    answer = threading.Event()
    monkeypatch.setattr(silent, "status", lambda: answer.wait(PATIENCE) and JobStatus("Running"))
    monkeypatch.setattr(live_view, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(live_view, "_CLOSE_TIMEOUT", 0.05)
    view = view_of(silent)
    assert "Unknown   the cluster has not responded yet" in text(view._repr_html_())
    view.close()
    assert "This view was closed." in shown(view)
    answer.set()
    wait_for(lambda: ended(view))
    assert "This view was closed." in shown(view)


def test_a_deleted_job_ends_the_view() -> None:
    view = watch(ScriptedJob("Running", NotFound('jobs.batch "mnist" not found'), log=LOG))
    wait_for(lambda: ended(view))
    assert "Deleted" in shown(view)
    assert "75.00 % at step 10" in shown(view), "the last known state stays"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_unexpected_exception_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    job = ScriptedJob("Running")
    monkeypatch.setattr(job, "status", lambda: 1 / 0)
    view = watch(job)
    wait_for(lambda: ended(view))
    assert "ZeroDivisionError: division by zero" in shown(view)


# Ends


def test_a_closed_view_shows_the_time_of_its_state() -> None:
    view = watch(ScriptedJob("Running", log=LOG))
    view.close()
    assert ended(view)
    assert re.search(r"as of\s+\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", shown(view))
    assert "This view was closed. To see the Job now:" in shown(view)
    assert "jobs.get(aks, 'mnist&lt;1&gt;', namespace='default')" in shown(view)


def test_an_interrupted_wait_ends_the_view() -> None:
    job = ScriptedJob("Running", log=LOG)
    view: views.JobView = views.job_view(job)  # type: ignore[arg-type]
    view._repr_html_()
    with pytest.raises(KeyboardInterrupt):
        job.wait(KeyboardInterrupt())
    assert ended(view)
    assert "The wait was interrupted, which also ended this view. The Job continues." in shown(view)


def test_a_wait_returns_after_a_slow_view_has_shown_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    job = ScriptedJob("Running", log=LOG)
    view: views.JobView = views.job_view(job)  # type: ignore[arg-type]
    view._repr_html_()
    monkeypatch.setattr(live_view, "_POLL_SECONDS", 0.01)

    def slow_status() -> JobStatus:
        time.sleep(0.3)
        return JobStatus("Complete")

    monkeypatch.setattr(job, "status", slow_status)
    job.wait()
    assert "Complete" in shown(view)


@pytest.mark.parametrize("error", [None, KubernetesError("failed")])
def test_when_a_wait_returns_the_view_shows_the_final_state(error: Exception | None) -> None:
    job = ScriptedJob("Running", log=LOG)
    view: views.JobView = views.job_view(job)  # type: ignore[arg-type]
    view._interval = 60
    view._repr_html_()
    job.states = ["Complete"]
    try:
        job.wait(error)
    except KubernetesError:
        assert error is not None
    assert view._note == "", "it has ended, and replaced what it had displayed"
    assert "Complete" in shown(view)


# The widgets


def changes(widgets: LiveWidgets) -> list[Any]:
    found: list[Any] = []
    pending = [widgets.box]
    while pending:
        widget = pending.pop()
        widget.observe(found.append, names=["value", "children"])
        pending += getattr(widget, "children", ())
    return found


def test_nothing_is_sent_when_nothing_has_changed() -> None:
    widgets = LiveWidgets(45)
    seen = Observation("mnist", "default", phase="Running", detail="", curves=accuracy({0: 0.5}))
    widgets.show(seen, LOG)
    sent = changes(widgets)
    widgets.show(seen, LOG)
    assert sent == []


def test_lines_are_appended_and_never_sent_again() -> None:
    widgets = LiveWidgets(45)
    seen = Observation("mnist", "default")
    widgets.show(seen, "alpha\ntwo\n")
    chunks = widgets._log._chunks
    (first,) = chunks.children
    sent = changes(widgets)
    widgets.show(seen, "alpha\ntwo\nthree\n")
    assert chunks.children[0] is first, "the page keeps the lines that it has"
    assert not any("alpha" in str(change["new"]) for change in sent if change["name"] == "value")
    assert [text(chunk.value) for chunk in chunks.children] == [" alpha ", " two "]
    assert text(widgets._log._last.value) == " three "


def test_a_long_log_does_not_become_many_widgets() -> None:
    widgets = LiveWidgets(45)
    for count in range(1, 350):
        widgets.show(Observation("mnist", "default"), "".join(f"{line}\n" for line in range(count)))
    chunks = widgets._log._chunks.children
    assert len(chunks) <= 100
    assert "".join(text(chunk.value) for chunk in chunks).split() == [str(line) for line in range(348)]


def test_a_log_that_starts_again_replaces_the_old_one() -> None:
    widgets = LiveWidgets(45)
    seen = Observation("mnist", "default")
    widgets.show(seen, "alpha\ntwo\nthree\n")
    widgets.show(seen, "four\nfive\nsix\n")
    (chunk,) = widgets._log._chunks.children
    assert text(chunk.value) == " four\nfive "


def test_a_progress_bar_is_shown_as_a_terminal_would_show_it() -> None:
    bars = "".join(f"\r\x1b[32mepoch {percent} %\x1b[0m" for percent in range(10, 101, 10))
    view = watch(ScriptedJob("Complete", log=f"begin\r\n{bars}\r\nend\n"))
    wait_for(lambda: ended(view))
    assert ">begin\nepoch 100 %\nend</pre>" in view._static().html


def test_a_truncated_line_is_marked() -> None:
    assert logtext.clean("x" * 400) == "x" * 300 + "…"
    assert logtext.clean("bell\x07 and null\x00") == "bell and null"


@given(st.lists(st.text("ab", max_size=2)), st.integers(0, 30), st.integers(0, 30))
def test_new_lines_follow_the_known_ones(lines: list[str], read: int, left: int) -> None:
    before = lines[:read]
    now = lines[min(left, len(lines)) :]
    new = logtext.added(before, now)
    if new is None:
        assert before
        assert now[:1] != before[-1:]
    else:
        common = now[: len(now) - len(new)]
        assert common + new == now
        assert not common or before[len(before) - len(common) :] == common


# The curve


def accuracy(points: dict[int, float], label: str = "") -> tuple[Curve, ...]:
    x = np.array(list(points), dtype=float)
    y = np.array(list(points.values()), dtype=float)
    return (Curve(label, "accuracy", "step", x, y),)


def test_a_long_curve_is_downsampled_and_keeps_its_end() -> None:
    points = dict.fromkeys(range(100000), 0.5) | {99_999: 0.75}
    drawing = curve.svg(accuracy(points))
    found = re.search(r'<polyline points="([^"]*)"', drawing)
    assert found
    assert len(found[1].split()) <= 401
    assert found[1].split()[-1] == "508.0,43.0"
    assert "accuracy 75.00 % at step 99,999" in drawing


def test_values_that_are_not_finite_are_counted_and_interrupt_the_line() -> None:
    nan = float("nan")
    seen = Observation("mnist", "default", curves=accuracy({0: 0.5, 1: 0.6, 2: nan, 3: 0.7, 4: 0.8}))
    html = markup.static(seen)
    assert "1 not finite" in html
    assert drawn(html).count("<polyline") == 2
    assert curve.svg(accuracy({1: nan})) == curve.image(()) == curve.summary(()) == ""


def test_a_constant_curve_and_one_that_begins_again() -> None:
    x = np.array([0.0, 10.0, 0.0, 10.0])
    again = Curve("", "loss", "step", x, np.full(4, 3.0))
    drawing = curve.svg([again])
    assert drawing.count("<polyline") == 2
    assert "nan" not in drawing
    assert ">2.7</text>" in drawing


def test_durations() -> None:
    assert [markup.duration(seconds) for seconds in (0.4, 59.6, 3599, 3600, 90_000)] == [
        "0 s",
        "1 min 0 s",
        "59 min 59 s",
        "1 h 0 min",
        "25 h 0 min",
    ]
