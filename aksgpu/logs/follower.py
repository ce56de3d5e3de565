"""Follow one container of one pod through all its runs.

The end of a log stream does not mean that the run has ended, and the log endpoint serves the container's newest run
even while the pod's status still describes the run before it. The follower therefore answers three questions
separately:

- Which run does the status describe? (:mod:`aksgpu.logs.container_runs`)
- Which run does a response belong to? One that begins with a line that was seen belongs to the run of that line.
- Has a run been read to its end? It has if its status is final or a newer run exists, and a later response has the last
  line that was seen and no new one.

For lines that can no longer be read, it yields a marker (:class:`~aksgpu.logs.deduplication.LogGap`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from aksgpu.errors import KubernetesError, LogUnavailable, NotFound
from aksgpu.kube import retry_policy
from aksgpu.logs import container_runs, retrying
from aksgpu.logs.container_runs import Observation, Run, State
from aksgpu.logs.deduplication import (
    LogGap,
    LogLine,
    Response,
    SeenLines,
    format_since,
    has_timestamp,
    marker,
    parse,
    seconds_of,
)
from aksgpu.logs.retrying import Failure, Limits, RetryTimer

if TYPE_CHECKING:
    from aksgpu.kube.client import Kube, Object
    from aksgpu.kube.transport import Stream

__all__ = ["Follower", "is_missing_log", "log_unavailable"]

_log = logging.getLogger(__name__)

LIMITS = Limits(silent=900.0, refused=120.0, denied=60.0)
"""Seconds of failures in a row after which following gives up."""
POLL_SECONDS = 0.5
"""Seconds between two requests for a pod that has no log yet."""
STATUS_LAG_SECONDS = 2.0
"""Seconds by which a pod's status may be behind its log endpoint."""
NEWER_RUN_SECONDS = 10.0
"""Seconds for which a newer run is expected after a response lacks a line that was seen before."""
MISSING_LOG_SECONDS = 45.0
"""Seconds for which the log of a pod that exists may be missing, or lack lines that were seen before."""
EMPTY_RESPONSES = 3
"""Empty responses in a row after which the log of an ended container counts as empty."""
LAST_LINES = 2
"""Number of last lines that are compared with those seen: the last complete one, and one without a newline."""
NOTICE_SECONDS = 30.0
"""Seconds for which the kubelet may return a message instead of the log before a marker shows it."""
UNSEEN_SECONDS = 5.0
"""Seconds without an observation in which a container may have run again before its pod was deleted."""
REREAD_BYTES = 8 << 20
"""Size up to which the whole log is read again at a run's end. This finds lines that a clock set back has hidden."""
CLOCK_SLACK_SECONDS = 1.5
"""Seconds by which a line's timestamp may exceed the end of its run, which is truncated to seconds."""


class _OtherRun(Exception):  # control flow within this module
    """The response belongs to a different run than the one that is being read."""


class _LinesOfNewestRun(Exception):  # control flow within this module
    """The lines yielded so far are the newest run's: the status was further behind than expected."""


class _LinesOfRunBefore(Exception):  # control flow within this module
    """The response has the lines that were yielded as those of the run before."""


class Follower:
    """Yields every complete line of one container.

    Args:
        kube: the cluster's API.
        pod: the Pod object.
        container: name of the container.
        read_timeout: seconds without a byte after which a stream is opened again.
    """

    def __init__(self, kube: Kube, pod: Object, container: str, read_timeout: float) -> None:
        metadata = pod["metadata"]
        self._kube = kube
        self._name: str = metadata["name"]
        self._namespace: str = metadata["namespace"]
        self._uid = metadata["uid"]
        self._container = container
        self._read_timeout = read_timeout
        self._log_retries = RetryTimer(LIMITS)
        self._pod_retries = RetryTimer(LIMITS)
        self._had_started = container_runs.observe(pod, container).run is not None
        self._last_observation = time.monotonic()
        self._unseen = 0.0
        self._has_succeeded = False
        self._before: SeenLines | None = None
        self._seen = SeenLines()
        self._begin(None)

    def _begin(self, run: Run | None, seen: SeenLines | None = None) -> None:
        """Switch to a run. ``seen`` has the lines of it that were seen before."""
        self._run = run
        if self._seen.lines:
            self._before = self._seen
        self._seen = seen or SeenLines()
        self._seen_of_newest: SeenLines | None = None
        self._is_complete = False
        self._mismatch_since: float | None = None
        self._unavailable_since: float | None = None
        self._has_noticed = False
        self._response = Response(self._seen, None)
        self._failure: KubernetesError | None = None
        self._new_lines = 0
        self._ended_cleanly = False

    def lines(self) -> Iterator[LogLine]:
        """Yield the lines; see :func:`aksgpu.logs.follow`."""
        while True:
            observed = self._observe()
            if observed.state is State.GONE:
                yield from self._report_removed_pod()
                return
            if observed.state is State.NEVER_STARTED:
                if self._run is None:
                    return
                observed = Observation(State.ENDED, self._run, final=True)
            if observed.run is not None and (self._run is None or not observed.run.is_same(self._run)):
                yield from self._switch_to_newest_run(observed)
            if observed.state is State.WAITING:
                time.sleep(POLL_SECONDS)
            elif observed.state is State.RUNNING:
                yield from self._stream(observed)
            else:
                if not self._is_complete:
                    self._is_complete = yield from self._read_to_end(observed)
                if self._is_complete and observed.final:
                    return
                time.sleep(POLL_SECONDS if self._is_complete else POLL_SECONDS / 5)

    # Observe the pod

    def _observe(self) -> Observation:
        """Return the container's state; repeat the request after failures."""
        pod = retrying.call(
            lambda: self._kube.find("Pod", self._name, self._namespace), self._pod_retries, f"pod {self._name}"
        )
        now = time.monotonic()
        if pod is None or pod["metadata"]["uid"] != self._uid:
            self._unseen = now - self._last_observation
            return Observation(State.GONE, final=True)
        self._last_observation = now
        observed = container_runs.observe(pod, self._container)
        self._had_started = self._had_started or observed.run is not None
        return observed

    def _observe_change(self, observed: Observation) -> Observation | None:
        """Return a new observation if it shows another newest run, or if the pod is gone."""
        now = self._observe()
        if now.state is State.GONE or _shows_other_run(now, observed):
            return now
        return None

    def _await_change(self, seconds: float, observed: Observation, timestamp: str = "") -> Observation | None:
        """Wait for the status to show another run, or to prove that the line with this timestamp is of this run.

        Returns:
            The new observation; None if it shows the same run.
        """
        deadline = time.monotonic() + seconds
        while True:
            now = self._observe()
            if now.state is State.GONE or _shows_other_run(now, observed):
                return now
            if now.final or (timestamp and now.run is not None and _is_before_end(timestamp, now.run)):
                return None
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(POLL_SECONDS / 2, left))

    # Read the log

    def _stream(self, observed: Observation) -> Iterator[LogLine]:
        """Yield what the newest run logs, until the stream ends for any reason."""
        began = time.monotonic()
        if self._seen.lines or not observed.restarts_possible:
            yield from self._read(observed, follow=True)
        else:
            # The first lines of a run are requested without `follow`. They are not yielded until their run is certain,
            # and with `follow` everything after them would be delayed too.
            yield from self._read(observed)
            if self._ended_cleanly and not self._seen.lines:
                self._await_line()
        yield from self._notice_unavailable_log()
        # After a stream that ended at once and had no new line, wait longer, but do not give up.
        if not self._new_lines and time.monotonic() - began < 1.0:
            time.sleep(POLL_SECONDS)

    def _await_line(self) -> None:
        """Wait until the run logs its first line. The next request reads it."""
        try:
            with self._open(None, follow=True) as stream:
                next(stream.lines(), None)
        except KubernetesError as failed:
            self._record_failure(failed)

    def _notice_unavailable_log(self) -> Iterator[LogLine]:
        """Yield a marker if the kubelet has returned a message instead of the log for a while."""
        if not isinstance(self._failure, LogUnavailable):
            self._unavailable_since = None
            return
        if self._unavailable_since is None:
            self._unavailable_since = time.monotonic()
        if not self._has_noticed and time.monotonic() - self._unavailable_since > NOTICE_SECONDS:
            self._has_noticed = True
            yield self._marker(f"the log of container {self._container} cannot be read now: {self._failure.message}")

    def _read(
        self,
        observed: Observation,
        *,
        follow: bool = False,
        previous: bool = False,
        since: datetime | str | None = "resume",
    ) -> Iterator[LogLine]:
        """Yield the new lines of one response.

        Sets ``_new_lines``, ``_ended_cleanly``, ``_failure`` and ``_response``. Temporary failures are recorded
        there, and the caller reads again.
        """
        self._new_lines = 0
        self._ended_cleanly = False
        self._failure = None
        requested = self._seen.resume_time if isinstance(since, str) else since
        self._response = Response(self._seen, requested)
        try:
            with self._open(requested, follow=follow, previous=previous) as stream:
                yield from self._new_lines_of(stream, observed, previous)
        except _OtherRun:
            return
        except _LinesOfNewestRun:
            # The lines of this run are delayed, but none is lost.
            self._seen_of_newest = self._seen
            self._seen = SeenLines()
            return
        except _LinesOfRunBefore:
            yield from self._relabel()
            return
        except KubernetesError as failed:
            self._record_failure(failed)
            return
        if self._response.kubelet_message:
            self._record_failure(log_unavailable(self._response.kubelet_message))
            return
        self._ended_cleanly = True
        self._has_succeeded = True
        self._log_retries.reset()

    def _new_lines_of(self, stream: Stream, observed: Observation, previous: bool) -> Iterator[LogLine]:
        response = self._response
        for raw, digest in response.new_lines(stream.lines()):
            if response.new == 1 and not response.matched:
                yield from self._check_run(raw, digest, observed, previous)
            self._new_lines += 1
            line = self._seen.add(raw, digest)
            if self._seen.lines == 1 and self._run is not None:
                container_runs.remember_first_line(self._run.id, line.timestamp)
            yield line

    def _record_failure(self, failed: KubernetesError) -> None:
        """Record a failure and pause. Raise it if another attempt cannot succeed, or failures have lasted too long."""
        _log.debug("log of pod %s: %s", self._name, failed.message)
        self._failure = failed
        if self._new_lines:
            self._has_succeeded = True
            self._log_retries.reset()
        missing = is_missing_log(failed)
        kind = Failure.SILENT if missing else retrying.kind_of_failure(failed, succeeded_before=self._has_succeeded)
        if kind is None:
            raise failed
        if self._log_retries.is_over(kind):
            raise retrying.gave_up(f"following pod {self._name}", failed) from None
        if not missing:
            self._log_retries.sleep(failed.retry_after)

    def _open(
        self, since: datetime | None, *, follow: bool = False, previous: bool = False, tail_lines: int | None = None
    ) -> Stream:
        with retry_policy.single_attempt():
            return self._kube.log(
                self._name,
                self._namespace,
                container=self._container,
                follow=follow,
                previous=previous,
                since_time=format_since(since),
                tail_lines=tail_lines,
                timestamps=True,
                read_timeout=self._read_timeout,
            )

    # Decide which run a response belongs to

    def _check_run(self, raw: bytes, digest: int, observed: Observation, previous: bool) -> Iterator[LogLine]:
        """Decide whether a response that begins with an unknown line belongs to the run that is being read.

        Raises:
            _OtherRun: it does not.
            _LinesOfNewestRun: the lines that were yielded are the newest run's.
            _LinesOfRunBefore: its lines were yielded as those of the run before.

        Yields:
            A marker if lines before this one are missing.
        """
        timestamp = parse(raw).timestamp
        if not self._seen.lines:
            if self._before is not None and digest in self._before:
                # Either the endpoint does not serve the new run yet, or the status was behind before.
                raise _LinesOfRunBefore if self._has_mismatched_for(STATUS_LAG_SECONDS) else _OtherRun
            if not self._is_first_line(timestamp, observed, previous):
                raise _OtherRun
            return
        if previous or not observed.final:
            now = None
            if previous or observed.restarts_possible:
                now = self._await_change(NEWER_RUN_SECONDS, observed)
            if now is not None and now.state is not State.GONE:
                raise _OtherRun
        if previous and self._is_newest():
            raise _LinesOfNewestRun
        yield self._marker(
            f"lines of container {self._container} after {self._seen.last} may be missing: the log that the node "
            "serves begins later; the node has rotated it, or the container was started again",
            until=timestamp,
        )

    def _is_first_line(self, timestamp: str, observed: Observation, previous: bool) -> bool:
        """Return whether a line is the first one of the run that is being read, of which no line was seen yet."""
        run = observed.previous if previous else observed.run
        if run is not None and _is_before_end(timestamp, run):
            return True
        may_be_newer = run is not None and _is_after_end(timestamp, run) and (previous or not observed.final)
        if may_be_newer and not self._has_mismatched_for(NEWER_RUN_SECONDS):
            self._await_change(STATUS_LAG_SECONDS, observed)
            return False
        if previous:
            now = self._observe_change(observed)
        elif observed.final or not observed.restarts_possible or self._is_confirmed(observed):
            return True
        else:
            now = self._await_change(STATUS_LAG_SECONDS, observed, timestamp)
        # If the pod no longer exists, this cannot be decided. Its lines are yielded.
        return now is None or now.state is State.GONE

    def _is_confirmed(self, observed: Observation) -> bool:
        """Return whether the log of the previous run, as the node serves it, proves that the newest run is this one.

        The kubelet chooses both logs by its own, current status. If the log of the previous run begins before this
        run's start, then the newest run was this one when its first line was read. The same is true if this is run 0,
        and there is no previous run. False means that it is not certain.
        """
        run = observed.run
        if run is None or observed.state is not State.RUNNING:
            return False
        try:
            with self._open(None, previous=True) as stream:
                raw = next(stream.lines(), b"")
        except KubernetesError as failed:
            return run.number == 0 and _has_no_previous_run(failed)
        if not has_timestamp(raw):
            return False
        if self._before is not None and hash(raw.removesuffix(b"\n")) in self._before:
            return True
        return run.started is not None and seconds_of(parse(raw).timestamp) < run.started

    def _is_newest(self) -> bool:
        """Return whether the newest run's log begins with a line that was seen."""
        response = Response(self._seen, None)
        if not self._seen.remembers_all:
            return False
        try:
            with self._open(None) as stream:
                next(response.new_lines(stream.lines()), None)
        except KubernetesError as failed:
            self._record_failure(failed)
        return response.matched > 0

    def _has_mismatched_for(self, seconds: float) -> bool:
        """Return whether responses have appeared to belong to another run for this long."""
        now = time.monotonic()
        if self._mismatch_since is None:
            self._mismatch_since = now
        return now - self._mismatch_since > seconds

    def _relabel(self) -> Iterator[LogLine]:
        """Count the lines of the run before as this run's: the endpoint was one run ahead of the status."""
        assert self._before is not None
        missed = self._run.number - 1 if self._run is not None else 0
        self._seen = self._before
        self._before = None
        yield self._missing_runs((missed,))

    # Read a run to its end

    def _read_to_end(self, observed: Observation, *, previous: bool = False) -> Generator[LogLine, None, bool]:
        """Yield the rest of a run that has ended.

        A response can be truncated without an error. The run is therefore complete when a response has the last line
        that was seen and no new one, and a second, short response ends with the same line.

        Returns:
            Whether the run is finished: False if the responses are another run's, or if the pod is gone.
        """
        missing = RetryTimer(Limits.same(MISSING_LOG_SECONDS))
        empty_responses = 0
        while True:
            yield from self._read(observed, previous=previous, since=self._since_at_end(observed))
            unfinished = self._response.unfinished
            if self._failure is not None and _has_not_started(self._failure):
                return True  # the container could not be started, so there is no log
            if not self._ended_cleanly and self._failure is None:
                return False  # the response is another run's: the next observation decides
            if self._new_lines:
                missing.reset()
            if self._ended_cleanly and (self._new_lines or self._response.has_last):
                if self._ends_there(unfinished, previous):
                    break
            elif self._ended_cleanly and not self._seen.lines:
                empty_responses += 1
                if empty_responses >= EMPTY_RESPONSES and self._ends_there(unfinished, previous):
                    break
            if self._observe_change(observed):
                return False
            if self._is_log_missing():
                if missing.is_over(Failure.SILENT):
                    yield self._marker(self._explain_incomplete())
                    return True
                missing.sleep()
            else:
                missing.reset()
        if has_timestamp(unfinished):
            yield self._seen.add(unfinished, hash(unfinished))
        return True

    def _is_log_missing(self) -> bool:
        """Return whether the log does not exist or lacks lines, according to the last response."""
        if self._failure is None or isinstance(self._failure, LogUnavailable):
            return True
        return is_missing_log(self._failure)

    def _ends_there(self, unfinished: bytes, previous: bool) -> bool:
        """Return whether the log's last lines, requested separately, are the last ones seen and the unfinished one."""
        response = Response(self._seen, None)
        try:
            with self._open(None, previous=previous, tail_lines=LAST_LINES) as stream:
                for _ in response.new_lines(stream.lines()):
                    return False
        except KubernetesError as failed:
            self._record_failure(failed)
            return False
        if response.kubelet_message:
            self._record_failure(log_unavailable(response.kubelet_message))
            return False
        ends_with_last = response.ends_with_last or not self._seen.lines
        return ends_with_last and response.unfinished == unfinished

    def _since_at_end(self, observed: Observation) -> datetime | None:
        """Return the time from which to read at a run's end; None for a small log, or if a clock may hide lines."""
        seen = self._seen
        if not seen.lines or not seen.remembers_all:
            return seen.resume_time
        finished = observed.run.finished if observed.run is not None else None
        clock_set_back = finished is not None and finished + CLOCK_SLACK_SECONDS < seconds_of(seen.last)
        return None if clock_set_back or seen.size <= REREAD_BYTES else seen.resume_time

    def _explain_incomplete(self) -> str:
        what = self._what_is_missing()
        if self._failure is not None:
            return f"{what} could not be read: {self._failure.message}"
        return f"{what} may be missing: the log that the node serves ends before it. The node may have rotated it"

    def _what_is_missing(self) -> str:
        run = "the log" if self._run is None else f"run {self._run.number}"
        if self._seen.lines:
            return f"the rest of {run} of container {self._container} after {self._seen.last}"
        return f"{run} of container {self._container}"

    # Switch between runs

    def _switch_to_newest_run(self, observed: Observation) -> Iterator[LogLine]:
        """Finish the run that was followed, with the lines that the node still has, and switch to the newest run."""
        assert observed.run is not None
        newest = observed.run
        if observed.awaits_restart:
            yield from self._skip_to(newest)
            return
        if self._run is None and newest.number == 0:
            self._begin(newest)
            return
        following = 0 if self._run is None else self._run.number
        before_newest = observed.previous or Run(newest.number - 1)
        if newest.number > following + 1:
            yield from self._skip_to(before_newest)
        elif self._run is None:
            self._begin(before_newest)
        if not self._is_complete:
            yield from self._read_previous(observed)
        if self._run is None or not newest.is_same(self._run):
            self._begin(newest, self._seen_of_newest)

    def _skip_to(self, run: Run) -> Iterator[LogLine]:
        """Switch to a later run. Yield markers for the runs before it that can no longer be read."""
        first = 0
        if self._run is not None:
            first = self._run.number + 1
            if not self._is_complete:
                yield self._lost_rest()
        if run.number > first:
            yield self._missing_runs(tuple(range(first, run.number)))
        self._begin(run)

    def _lost_rest(self) -> LogLine:
        verdict = "may be missing" if self._seen.lines else "could not be read"
        return self._marker(f"{self._what_is_missing()} {verdict}: the node keeps one previous run")

    def _missing_runs(self, runs: tuple[int, ...]) -> LogLine:
        which = f"run {runs[0]}" if len(runs) == 1 else f"runs {runs[0]} to {runs[-1]}"
        count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
        reason = f"{count} of container {self._container} could not be read ({which}): the node keeps one previous run"
        return marker(LogGap(reason, self._container, runs, self._seen.last))

    def _read_previous(self, observed: Observation) -> Iterator[LogLine]:
        """Read the run before the newest to its end."""
        deadline = time.monotonic() + NEWER_RUN_SECONDS
        while not (yield from self._read_to_end(observed, previous=True)):
            if self._observe_change(observed) or time.monotonic() > deadline:
                yield self._lost_rest()
                break
            time.sleep(POLL_SECONDS / 2)
        self._is_complete = True

    def _report_removed_pod(self) -> Iterator[LogLine]:
        """Yield a marker for lines of a deleted pod that may not have been read."""
        if not self._is_complete and (self._run is not None or self._had_started):
            yield self._marker(
                f"pod {self._name} was removed before its log was read to the end: "
                f"{self._what_is_missing()} may be missing"
            )
        elif self._run is not None and self._unseen > UNSEEN_SECONDS:
            yield self._marker(
                f"pod {self._name} was removed: container {self._container} may have run again "
                f"in its last {self._unseen:.0f} s, without being observed"
            )

    def _marker(self, reason: str, until: str = "") -> LogLine:
        runs = () if self._run is None else (self._run.number,)
        return marker(LogGap(reason, self._container, runs, self._seen.last, until))


def _shows_other_run(now: Observation, before: Observation) -> bool:
    """Return whether the newest run is a different one than before."""
    return now.run is not None and (before.run is None or not now.run.is_same(before.run))


def _is_before_end(timestamp: str, run: Run) -> bool:
    """Return whether a line was logged before its run ended, so that it cannot be a later run's."""
    if run.finished is None or run.started is None:
        return False
    return run.started - CLOCK_SLACK_SECONDS <= seconds_of(timestamp) < run.finished


def _is_after_end(timestamp: str, run: Run) -> bool:
    return run.finished is not None and seconds_of(timestamp) > run.finished + CLOCK_SLACK_SECONDS


def log_unavailable(message: str) -> LogUnavailable:
    """Return the error for a response that is the kubelet's own message."""
    return LogUnavailable(
        f"the kubelet returned a message instead of the log: {message}",
        hint="The node may have removed the container, or lack resources. job.why() explains more.",
    )


def is_missing_log(failed: KubernetesError) -> bool:
    """Return whether the server says that the log does not exist."""
    return isinstance(failed, NotFound) or _has_not_started(failed) or _has_no_previous_run(failed)


def _has_not_started(failed: KubernetesError) -> bool:
    """Return whether the server says that the container has no log, rather than that the request is wrong."""
    is_bad_request = failed.status.get("code") == 400
    return is_bad_request and ("waiting to start" in failed.message or failed.message.endswith("is terminated"))


def _has_no_previous_run(failed: KubernetesError) -> bool:
    return failed.status.get("code") == 400 and "previous terminated container" in failed.message
