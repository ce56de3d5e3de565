"""The live view of a Job: a thread that polls the Job, and what the view shows."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import escape
from typing import TYPE_CHECKING, Any

from aksgpu import curves, notebook
from aksgpu.errors import AksGpuError, Forbidden, NotFound, Unauthorized, Unreachable
from aksgpu.jobs.state_explanation import StateExplanation
from aksgpu.jobs.watchers import watchers
from aksgpu.kube import job_facts
from aksgpu.views import logtext, markup
from aksgpu.views.observation import Observation
from aksgpu.views.static_twin import Static, TwinDisplay
from aksgpu.views.widgets import LiveWidgets
from aksgpu.waiting import deadline

if TYPE_CHECKING:
    from aksgpu.jobs.job import Job

__all__ = ["JobView", "job_view"]

_GPU_SECONDS = 10.0
"""Seconds between two reads of the GPUs' use."""
_KEPT_LINES = 8
"""Lines of the log in the static copy."""
_POLL_SECONDS = 5.0
"""Seconds for which displaying a view waits for a poll of the Job."""
_REQUEST_TIMEOUT = 5.0
"""Seconds that one request may take before the view shows a problem."""
_GIVE_UP_AFTER = 900.0
"""Seconds without a response after which the view ends."""
_FINAL_READ = 60.0
"""Seconds for which reading the log of a Job that has ended is retried."""
_CLOSE_TIMEOUT = 2.0
"""Seconds for which closing a view waits for a running poll."""
_COPY_EVERY = timedelta(seconds=10)
"""How often the static copy is updated while a Job runs."""
_MAX_INTERVAL_FACTOR = 10
"""Longest interval between two polls, as a multiple of the first interval."""
_STALE_AFTER = 45.0
"""Seconds without a poll after which the page calls the view stale. With long intervals, it is three intervals."""


def job_view(job: Job) -> JobView:
    """Return the live view of a Job. A notebook shows it if it is the last line of a cell.

    Args:
        job: the Job to watch.

    Returns:
        The view that already watches this Job object, or otherwise a new one.
    """
    view = watchers.get(id(job))
    return view if isinstance(view, JobView) else JobView(job)


class JobView:
    """A view that watches a Job from the moment it is first displayed until the Job ends or :meth:`close` is called.

    Args:
        job: the Job to watch.
        interval: seconds between two polls. It grows up to tenfold while the Job runs.
    """

    def __init__(self, job: Job, *, interval: float = 0.5) -> None:
        self._job = job
        self._interval = interval
        self._seen = Observation(job.name, job.namespace)
        self._problem_since: datetime | None = None
        self._log_problem_since: datetime | None = None
        self._ended_at: float | None = None
        self._log = ""
        self._feed = job._feed()
        self._next_gpu = 0.0
        self._lock = threading.Lock()
        """Guards the note, the thread and the widgets."""
        self._note: str | None = None
        """How the view ended; None if it has not ended."""
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._poll_counts = threading.Condition()
        """Guards the two counts of polls."""
        self._requested = 0
        self._finished_polls = 0.0
        self._widgets: LiveWidgets | None = None
        self._display: TwinDisplay | None = None
        self._copied: tuple[str, bool, bool] | None = None
        self._copied_at: datetime | None = None
        self._explanation = StateExplanation(job.why)

    def __repr__(self) -> str:
        return f"<live view of Job {self._job.name} in {self._job.namespace}>"

    def _repr_html_(self) -> str:
        """Return the current state, for front ends without widgets."""
        self._start()
        self.refresh()
        return self._static().html

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if not notebook.can_display():
            raise NotImplementedError("IPython falls back to the other representations")
        self._start()
        self.refresh()
        live = self._live()
        if live is None or not live.show(self._static()):
            display(self._static().bundle(), raw=True)

    def refresh(self, timeout: float | None = None) -> None:
        """Poll the Job now, and wait for the result.

        Args:
            timeout: the longest wait in seconds. None means a few seconds.
        """
        limit = _POLL_SECONDS if timeout is None else timeout
        with self._poll_counts:
            self._requested += 1
            requested = self._requested
            self._poll_counts.notify_all()
            self._poll_counts.wait_for(lambda: self._finished_polls >= requested, limit)

    def close(self) -> None:
        """Stop watching. The display becomes static and shows the time of its state."""
        self._close("This view was closed.")

    def interrupted(self) -> None:
        """Stop watching because the user interrupted a wait for the Job."""
        self._close("The wait was interrupted, which also ended this view. The Job continues.")

    def _close(self, note: str) -> None:
        self._closed.set()
        with self._poll_counts:
            self._poll_counts.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=_CLOSE_TIMEOUT)
        self._end(note)

    def _static(self) -> Static:
        seen = self._seen
        return Static(markup.static(seen, "" if seen.ended else self._how_it_ended()), markup.plain(seen))

    def _how_it_ended(self) -> str:
        note = self._note
        if note is None:
            note = "This is a copy of a live view, made while the Job was watched."
        if self._seen.phase != "Deleted":
            note = f"{note} {self._reopen_hint()}"
        return note

    def _reopen_hint(self) -> str:
        attach = f"job = aksgpu.jobs.get(aks, {self._job.name!r}, namespace={self._job.namespace!r})"
        return f"To see the Job now: {markup.code(attach)}, then {markup.code('job')} as the last line of a cell."

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._watch, name=f"aksgpu-view-{self._job.name}", daemon=True)
            watchers[id(self._job)] = self
            self._thread.start()

    def _live(self) -> TwinDisplay | None:
        """Return the display of the live widget, or None if the view has ended."""
        with self._lock:
            if self._note is None and self._display is None:
                self._widgets = LiveWidgets(max(_STALE_AFTER, 3 * _MAX_INTERVAL_FACTOR * self._interval))
                self._widgets.show(self._seen, self._log)
                if self._finished_polls:
                    self._widgets.stamp(datetime.now(UTC))
                self._display = TwinDisplay(self._widgets.box)
            return self._display

    def _end(self, note: str) -> None:
        """End the view. The first call decides how it ended.

        Args:
            note: why it ended before the Job; empty if the Job has ended.
        """
        with self._lock:
            if self._note is not None:
                return
            self._note = note
            final = self._static()
            if self._widgets is not None:
                self._widgets.end(final.html)
        self._closed.set()
        if watchers.get(id(self._job)) is self:
            del watchers[id(self._job)]
        if self._display is not None:
            self._display.end(final)

    def _watch(self) -> None:
        note = ""
        try:
            note = self._poll_until_the_end()
        except Exception as error:
            note = escape(f"This view stopped because of an error in aksgpu: {type(error).__name__}: {error}.")
            raise
        finally:
            if not self._closed.is_set():
                self._end(note)
            self._finish_poll(math.inf)

    def _poll_until_the_end(self) -> str:
        """Poll until the Job or the view ends. Return why the view ends before the Job; empty if the Job has ended."""
        pause = self._interval
        last_response = time.monotonic()
        while not self._closed.is_set():
            requested = self._requested
            try:
                if self._poll():
                    return ""
                last_response = time.monotonic()
            except NotFound:
                self._seen = replace(self._seen, phase="Deleted", detail="", problem="")
                return "This view ended when the Job was deleted."
            except AksGpuError as error:
                self._problem_since = self._problem_since or datetime.now(UTC)
                self._seen = replace(self._seen, problem=_problem(error, self._problem_since))
                if time.monotonic() - last_response > _GIVE_UP_AFTER:
                    return f"This view ended at {markup.date(datetime.now(UTC))}, because the cluster did not respond."
            self._show()
            self._finish_poll(requested, pause)
            pause = min(pause * 1.02, _MAX_INTERVAL_FACTOR * self._interval)
        return ""

    def _finish_poll(self, requested: float, pause: float = 0) -> None:
        """Report that a poll is done, and wait until the next one is due or requested."""
        with self._poll_counts:
            self._finished_polls = requested
            self._poll_counts.notify_all()
            self._poll_counts.wait_for(lambda: self._closed.is_set() or self._requested > requested, pause)

    def _poll(self) -> bool:
        """Read the state and the log. Return whether everything was read after the Job's end."""
        with deadline(_REQUEST_TIMEOUT):
            status = self._job.status()
        detail = ": ".join(part for part in (status.reason, status.message) if part)
        if status.phase != self._seen.phase:
            self._seen = replace(self._seen, verdict="", fix="")
        self._seen = replace(
            self._seen, phase=status.phase, detail=detail, ended=status.ended, observed_at=datetime.now(UTC), problem=""
        )
        self._problem_since = None
        final = self._read_log()
        self._read_object()
        self._read_gpu()
        self._read_verdict()
        if not status.ended:
            self._ended_at = None
            return False
        if self._ended_at is None:
            self._ended_at = time.monotonic()
        return final or time.monotonic() - self._ended_at > _FINAL_READ

    def _read_log(self) -> bool:
        """Read what is new in the log. Return whether another read after the Job's end would return nothing new."""
        try:
            with deadline(_FINAL_READ if self._seen.ended else _REQUEST_TIMEOUT):
                self._feed.read()
        except AksGpuError as error:
            self._log_problem_since = self._log_problem_since or datetime.now(UTC)
            self._seen = replace(self._seen, log_problem=_problem(error, self._log_problem_since))
            self._take_log()
            return isinstance(error, NotFound)
        self._log_problem_since = None
        self._seen = replace(self._seen, log_problem="")
        self._take_log()
        return True

    def _take_log(self) -> None:
        """Take over what was read of the log."""
        text = self._feed.text()
        last = tuple(logtext.clean(line) for line in logtext.split(text)[-_KEPT_LINES:])
        self._seen = replace(self._seen, curves=tuple(curves.select({"": self._feed.table()})), lines=last)
        self._log = text

    def _read_gpu(self) -> None:
        """Read the use of the GPUs. Most polls do not, because it runs a program in the pods."""
        if self._seen.ended:
            self._seen = replace(self._seen, gpu="", warnings=())
            return
        if self._seen.phase != "Running" or time.monotonic() < self._next_gpu:
            return
        try:
            with deadline(_REQUEST_TIMEOUT):
                notes = self._job._notes(self._feed)
        except AksGpuError:
            return  # the state was read; only the use of the GPUs is missing
        finally:
            self._next_gpu = time.monotonic() + _GPU_SECONDS
        self._seen = replace(self._seen, gpu=notes.line, warnings=notes.warnings)

    def _read_object(self) -> None:
        """Read the facts that only the Job object has: its number of steps, its start and its end."""
        running = self._seen.phase == "Running" and self._seen.curves and not self._seen.started
        if not running and not self._seen.ended:
            return
        try:
            with deadline(_REQUEST_TIMEOUT):
                job = self._job.cluster.kube.get("Job", self._job.name, self._job.namespace)
        except AksGpuError:
            return  # the state was read; only the times are missing
        self._seen = replace(
            self._seen,
            max_steps=_max_steps(job),
            started=_time((job.get("status") or {}).get("startTime")),
            finished=_time(_end_time(job)) if self._seen.ended else None,
        )

    def _read_verdict(self) -> None:
        """Show what keeps the Job from running, or why it failed. Most polls do not ask for it."""
        found = self._explanation.read(self._seen.phase)
        verdict = "" if found is None else found.verdict
        fix = "" if found is None else found.fix
        self._seen = replace(self._seen, verdict=verdict, fix=fix)

    def _show(self) -> None:
        """Update the widget, and less often the static copy."""
        now = datetime.now(UTC)
        with self._lock:
            if self._note is not None or self._widgets is None or self._display is None:
                return
            self._widgets.show(self._seen, self._log)
            self._widgets.stamp(now)
        shown = self._seen.phase, bool(self._seen.problem), bool(self._seen.curves or self._seen.verdict)
        if shown != self._copied or self._copied_at is None or now - self._copied_at > _COPY_EVERY:
            self._copied = shown
            self._copied_at = now
            self._display.update(self._static())


def _problem(error: AksGpuError, since: datetime) -> str:
    if isinstance(error, Forbidden | Unauthorized):
        what = "not permitted to read it"
    elif isinstance(error, Unreachable):
        what = "cluster not reachable"
    else:
        what = "could not be read"
    return f"{what} since {markup.date(since)}: {error.message}"


def _max_steps(job: Any) -> int:
    """Return the number of steps from the arguments of the Job's program; 0 if they have none."""
    container = job["spec"]["template"]["spec"]["containers"][0]
    arguments = [str(argument) for argument in container.get("args") or ()]
    if "--max_steps" not in arguments[:-1]:
        return 0
    value = arguments[arguments.index("--max_steps") + 1]
    return int(value) if value.isdecimal() else 0


def _end_time(job: Any) -> str | None:
    """Return when a Job ended; None if it has not."""
    condition = job_facts.end_condition(job) or {}
    return (job.get("status") or {}).get("completionTime") or condition.get("lastTransitionTime")


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
