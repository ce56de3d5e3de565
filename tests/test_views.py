"""Live views: what is shown, when the thread ends, and that no text of a pod becomes HTML."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from aksgpu import views
from aksgpu.errors import KubernetesError, NotFound
from aksgpu.jobs import JobStatus


class ScriptedJob:
    """A Job as views see one: each look at its status moves it on."""

    name, namespace = "mnist<1>", "default"

    def __init__(self, *states: Any, log: str = "", args: tuple[str, ...] = ("--max_steps", "30")) -> None:
        self.states, self.log, self.tails = list(states), log, []
        job = {"spec": {"template": {"spec": {"containers": [{"args": list(args)}]}}}}
        self.cluster = SimpleNamespace(kube=SimpleNamespace(get=lambda *_: job))

    def status(self) -> Any:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        phase, *words = state if isinstance(state, tuple) else (state,)
        reason, message = [*words, "", ""][:2]
        return JobStatus(phase, reason, message)

    def logs(self, tail: int | None = None) -> str:
        self.tails.append(tail)
        return self.log


LOG = "starting <script>alert(1)</script>\nAccuracy at step 0: 0.1\nAccuracy at step 10: 0.75\n"


def shown(view: views.JobView) -> str:
    return "\n".join(widget.value for widget in view._box.children)


def watch(job: ScriptedJob) -> views.JobView:
    view = views.JobView(job, interval=0.01)  # type: ignore[arg-type]
    view._repr_mimebundle_()
    return view


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(view: views.JobView) -> bool:
    return view._thread is not None and not view._thread.is_alive()


def test_the_bundle_is_the_same_whenever_it_is_made() -> None:
    view = watch(ScriptedJob("Pending"))
    first = view._repr_mimebundle_()
    until(lambda: "Pending" in shown(view))
    assert view._repr_mimebundle_() == first
    assert set(first) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert first["text/plain"] == "<live view of Job mnist<1> in default>"
    assert "mnist&lt;1&gt;" in first["text/html"]
    view.close()
    assert ended(view)


def html(view: views.JobView) -> str:
    return str(view._repr_mimebundle_()["text/html"])


def test_the_snapshot_does_not_tell_pending_from_running() -> None:
    shots = set()
    for job in (ScriptedJob("Pending"), ScriptedJob("Running", log=LOG), ScriptedJob(*["Pending"] * 2, "Running")):
        view = views.JobView(job, interval=0.01)  # type: ignore[arg-type]
        shots |= {html(view), html(view)}
        view.close()
    (shot,) = shots
    assert "<b>mnist&lt;1&gt;</b>" in shot
    assert ">Submitted</span> in default: it had not ended when this was shown." in shot
    assert "<code>job.status()</code>" in shot


def test_the_snapshot_of_a_job_that_has_ended_holds_the_curve() -> None:
    shot = html(views.JobView(ScriptedJob("Complete", log=LOG)))  # type: ignore[arg-type]
    assert ">Complete</span>" in shot
    assert "accuracy 75.00 % at step 10" in shot
    assert "script" not in shot, "nor lines of the log, which tell times"
    failed = ("Failed", "BackoffLimitExceeded", "Job has reached the <specified> backoff limit")
    shot = html(views.JobView(ScriptedJob(failed)))  # type: ignore[arg-type]
    assert ">Failed</span> BackoffLimitExceeded: Job has reached the &lt;specified&gt; backoff limit" in shot


def test_shown_again_it_looks_again() -> None:
    job = ScriptedJob("Running", log=LOG)
    view = views.JobView(job, interval=60)  # type: ignore[arg-type]
    assert ">Submitted<" in html(view)
    job.states = ["Complete"]
    assert ">Complete<" in html(view), "though its thread pauses"
    until(lambda: ended(view))


def test_the_snapshot_of_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Deleted</span> in default: it was not there" in html(views.JobView(ScriptedJob(NotFound("gone"))))  # type: ignore[arg-type]
    view = views.JobView(ScriptedJob(KubernetesError("away")))  # type: ignore[arg-type]
    assert "Unknown</span> in default: its cluster had not answered" in html(view)
    view.close()
    silent: Any = ScriptedJob("Running")
    answer = threading.Event()
    monkeypatch.setattr(silent, "status", lambda: answer.wait(20) and JobStatus("Running"))
    monkeypatch.setattr(views, "_LOOK", 0.05)
    view = views.JobView(silent)
    assert ">Unknown<" in html(view), "a server that hangs does not hold up the notebook"
    answer.set()
    view.close()


def test_it_starts_nothing_before_it_is_shown() -> None:
    before = threading.active_count()
    view = views.job_view(ScriptedJob("Running"))  # type: ignore[arg-type]
    assert repr(view)
    assert threading.active_count() == before


def test_from_pending_to_complete() -> None:
    pending = ("Pending", "Unschedulable", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    job = ScriptedJob(*[pending] * 20, *["Running"] * 20, "Complete", log=LOG)
    view = watch(job)
    until(lambda: "Unschedulable: 0/1 nodes are available" in shown(view))
    until(lambda: "step 10 of 30" in shown(view))
    until(lambda: ended(view))
    text = shown(view)
    assert ">Complete<" in text
    assert "accuracy 75.00 % at step 10" in text
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert job.tails[0] == views._WINDOW, "a long log costs no more than a short one"
    assert job.tails[-1] is None, "in the end, all of it"


def test_progress_without_max_steps() -> None:
    for args in ((), ("--max_steps",), ("--max_steps", "many")):
        view = watch(ScriptedJob("Running", log=LOG, args=args))
        until(lambda view=view: "step 10" in shown(view))
        assert "step 10 of" not in shown(view)
        view.close()


def test_points_seen_stay_when_their_lines_scroll_away() -> None:
    job = ScriptedJob("Running", log="Accuracy at step 0: 0.1\n")
    view = watch(job)
    until(lambda: "accuracy 10.00 % at step 0" in shown(view))
    job.log = "Accuracy at step 10: nan\nAccuracy at step 20: 0.8\n"
    until(lambda: "accuracy 80.00 % at step 20" in shown(view))
    view.close()
    assert view._points.keys() == {0, 10, 20}


def test_a_server_that_is_away_for_a_while() -> None:
    away = KubernetesError("connection <refused>")
    view = watch(ScriptedJob("Running", *[away] * 10, "Complete"))
    until(lambda: "No answer" in shown(view))
    assert "connection &lt;refused&gt;" in shown(view)
    until(lambda: ended(view))
    assert "Complete" in shown(view)


def test_a_server_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_PATIENCE", 0.05)
    view = watch(ScriptedJob(KubernetesError("gone")))
    until(lambda: ended(view))
    assert "No answer" in shown(view)


def test_a_deleted_job_ends_the_view() -> None:
    view = watch(ScriptedJob("Running", NotFound('jobs.batch "mnist" not found')))
    until(lambda: ended(view))
    assert "Deleted" in shown(view)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_is_shown_not_hidden() -> None:
    view = watch(ScriptedJob(ZeroDivisionError("oops")))
    until(lambda: ended(view))
    assert "ZeroDivisionError: oops" in shown(view)


def test_showing_a_job_twice_starts_one_thread() -> None:
    job: Any = ScriptedJob("Running")
    view = views.job_view(job)
    view._repr_mimebundle_()
    assert views.job_view(job) is view
    view.close()
    assert views.job_view(job) is not view, "a new one watches again"


def test_a_restart_begins_the_curve_again_in_the_end() -> None:
    view = watch(ScriptedJob("Complete", log="Accuracy at step 0: 0.1\nAccuracy at step 0: 0.2\n"))
    until(lambda: ended(view))
    assert "accuracy 20.00 % at step 0" in shown(view)


def test_a_progress_bar_is_shown_as_a_terminal_would_show_it() -> None:
    bars = "".join(f"\r\x1b[32mepoch {percent} %\x1b[0m" for percent in range(10, 101, 10))
    view = watch(ScriptedJob("Complete", log=f"begin\r\n{bars}\r\nend\n"))
    until(lambda: ended(view))
    assert ">begin\nepoch 100 %\nend</pre>" in shown(view)


def test_nothing_logged() -> None:
    view = watch(ScriptedJob("Failed", log=""))
    until(lambda: ended(view))
    assert [bool(widget.value) for widget in view._box.children] == [True, False, False]
