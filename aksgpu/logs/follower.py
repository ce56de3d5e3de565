"""Follow one container of one pod through all its runs.

The end of a log stream means nothing, and the log end point belongs to the container's newest run even while the pod's
status still describes the one before. So three things are kept apart here:

- which run the status speaks of (:mod:`aksgpu.logs.container_runs`);
- which run an answer belongs to: one that begins with a line that was given belongs to the run of that line;
- whether a run is read: its status is final or a newer run exists, and after that an answer held the last line that
  was given and nothing new.

What cannot be read any more is given as a marker (:class:`~aksgpu.logs.deduplication.LogGap`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from aksgpu.errors import KubernetesError, LogUnavailable, NotFound, StreamLost, Unreachable
from aksgpu.logs import container_runs
from aksgpu.logs.container_runs import Run, Seen
from aksgpu.logs.deduplication import LogGap, LogLine, Reading, Window, marker, parse, seconds_of, since_text, stamped
from aksgpu.logs.patience import SILENT, Limits, Patience, retryable

if TYPE_CHECKING:
    from aksgpu.kube.client import Kube, Object

_log = logging.getLogger(__name__)

T = TypeVar("T")

LIMITS = Limits(silent=900.0, refused=120.0, denied=60.0)
"""Seconds of failures in a row after which following gives up."""
POLL = 0.5
"""Seconds between two looks at a pod that has no log yet."""
STATUS_LAG = 2.0
"""Seconds by which a pod's status may be behind its log end point."""
DOUBT = 10.0
"""Seconds for which a newer run is expected, after an answer did not hold a line that was given before."""
MISSING_LOG = 45.0
"""Seconds for which the log of a pod that exists may be missing, or short of lines that were given."""
EMPTY_ANSWERS = 3
"""Answers in a row without a line after which a container that has ended counts as one that has printed none."""
LAST_LINES = 2
"""Lines from the end that are compared with what was given: the last whole one, and one without a newline."""
WORDS_NOTICE = 30.0
"""Seconds of the kubelet's own words in place of a running container's log after which a marker says so."""
UNSEEN = 5.0
"""Seconds without a look at a pod in which a container may have run again before the pod was removed."""
WHOLE_AT_END = 8 << 20
"""Bytes up to which the whole log is read again at a run's end: nothing but that shows lines that a clock hid."""
CLOCK_SLACK = 1.5
"""Seconds by which a line's stamp may be beyond the end of its run, which is truncated to seconds."""


class _Foreign(Exception):  # control flow of this module
    """The answer belongs to another run than the one that is read."""


class _Ahead(Exception):  # control flow of this module
    """What was given as the run that is read is the newest run's: the status was further behind than expected."""


class _Known(Exception):  # control flow of this module
    """The answer holds the lines that were given as those of the run before."""


class Follower:
    """Gives every line of one container, whole lines only.

    Args:
        kube: the cluster's API.
        pod: the Pod object.
        container: name of the container.
        read_timeout: seconds of silence after which a stream is renewed.
    """

    def __init__(self, kube: Kube, pod: Object, container: str, read_timeout: float) -> None:
        metadata = pod["metadata"]
        self._kube = kube
        self._name: str = metadata["name"]
        self._namespace: str = metadata["namespace"]
        self._uid = metadata["uid"]
        self._container = container
        self._read_timeout = read_timeout
        self._patience = Patience(LIMITS)
        self._looks = Patience(LIMITS)
        self._last_look = time.monotonic()
        self._unseen = 0.0
        self._answered = False
        self._before: Window | None = None
        self._window = Window()
        self._begin(None)

    def _begin(self, run: Run | None, window: Window | None = None) -> None:
        """Turn to a run."""
        self._run = run
        if self._window.lines:
            self._before = self._window
        self._window = window or Window()
        self._newest: Window | None = None
        self._drained = False
        self._doubted_since: float | None = None
        self._words_since: float | None = None
        self._noticed = False
        self._reading = Reading(self._window, None)
        self._failure: KubernetesError | None = None
        self._given = 0
        self._complete = False

    def lines(self) -> Iterator[LogLine]:
        """See :func:`aksgpu.logs.follow`."""
        while True:
            seen = self._look()
            if seen.state == container_runs.GONE:
                yield from self._pod_is_gone()
                return
            if seen.state == container_runs.NEVER:
                if self._run is None:
                    return
                seen = Seen(container_runs.ENDED, self._run, final=True)
            if seen.run is not None and (self._run is None or not seen.run.same(self._run)):
                yield from self._catch_up(seen)
            if seen.state == container_runs.WAITING:
                time.sleep(POLL)
            elif seen.state == container_runs.RUNNING:
                yield from self._stream(seen)
            else:
                if not self._drained:
                    self._drained = yield from self._rest(seen)
                if self._drained and seen.final:
                    return
                time.sleep(POLL if self._drained else POLL / 5)

    # Looking

    def _look(self) -> Seen:
        """The container's state; failures are retried."""
        pod = with_patience(
            lambda: self._kube.find("Pod", self._name, self._namespace), self._looks, f"pod {self._name}"
        )
        now = time.monotonic()
        if pod is None or pod["metadata"]["uid"] != self._uid:
            self._unseen = now - self._last_look
            return Seen(container_runs.GONE, final=True)
        self._last_look = now
        return container_runs.seen(pod, self._container)

    def _changed(self, seen: Seen) -> Seen | None:
        """What is seen now if the newest run is another one than before, or the pod is gone."""
        now = self._look()
        if now.state == container_runs.GONE:
            return now
        if now.run is not None and (seen.run is None or not now.run.same(seen.run)):
            return now
        return None

    # Reading

    def _stream(self, seen: Seen) -> Iterator[LogLine]:
        """What the newest run logs, until the stream ends for whatever reason."""
        began = time.monotonic()
        if self._window.lines or not seen.restarts_possible:
            yield from self._answer(seen, follow=True)
        else:
            # The first lines of a run come by a request that does not stay: they are held back until it is certain
            # whose they are, and a stream that stays would hold back all that follow.
            yield from self._answer(seen)
            if self._complete and not self._window.lines:
                self._wait_for_a_line()
        yield from self._notice()
        # A stream that ended at once and brought nothing: ask more slowly, but never give up for that.
        if not self._given and time.monotonic() - began < 1.0:
            time.sleep(POLL)

    def _wait_for_a_line(self) -> None:
        """Stay until the run logs its first line, which another request then reads."""
        try:
            with self._open(None, follow=True) as stream:
                next(stream.lines(), None)
        except KubernetesError as failed:
            self._failed(failed)

    def _notice(self) -> Iterator[LogLine]:
        """Say that the kubelet has answered in place of the log for a while."""
        if not isinstance(self._failure, LogUnavailable):
            self._words_since = None
            return
        if self._words_since is None:
            self._words_since = time.monotonic()
        if not self._noticed and time.monotonic() - self._words_since > WORDS_NOTICE:
            self._noticed = True
            yield self._marker(f"the log of container {self._container} cannot be read now: {self._failure.message}")

    def _answer(
        self, seen: Seen, *, follow: bool = False, previous: bool = False, since: datetime | str | None = "resume"
    ) -> Iterator[LogLine]:
        """The new lines of one answer.

        Sets ``_given``, ``_complete`` (the answer came to a clean end), ``_failure`` and ``_reading``. Failures that
        may pass are noted there, and the caller asks again.
        """
        self._given = 0
        self._complete = False
        self._failure = None
        asked = self._window.since if isinstance(since, str) else since
        self._reading = reading = Reading(self._window, asked)
        try:
            with self._open(asked, follow=follow, previous=previous) as stream:
                for raw, digest in reading.fresh(stream.lines()):
                    if reading.new == 1 and not reading.matched:
                        yield from self._whose(raw, digest, seen, previous)
                    self._given += 1
                    line = self._window.add(raw, digest)
                    if self._window.lines == 1 and self._run is not None:
                        container_runs.remember_first(self._run.id, line.timestamp)
                    yield line
        except _Foreign:
            return
        except _Ahead:
            # Its lines come late, but none is lost.
            self._newest = self._window
            self._window = Window()
            return
        except _Known:
            yield from self._relabel()
            return
        except KubernetesError as failed:
            self._failed(failed)
            return
        if reading.words:
            self._failed(words(reading.words))
            return
        self._complete = True
        self._answered = True
        self._patience.renew()

    def _failed(self, failed: KubernetesError) -> None:
        """Note a failure and pause; raise it when another attempt is of no use, or failures have lasted too long."""
        _log.debug("log of pod %s: %s", self._name, failed.message)
        self._failure = failed
        if self._given:
            self._answered = True
            self._patience.renew()
        absent = missing(failed)
        kind = SILENT if absent else retryable(failed, answered=self._answered)
        if not kind:
            raise failed
        if self._patience.spent(kind):
            raise lost(f"following pod {self._name}", failed) from None
        if not absent:
            self._patience.sleep()

    def _open(
        self, since: datetime | None, *, follow: bool = False, previous: bool = False, tail: int | None = None
    ) -> Any:
        return self._kube.log(
            self._name,
            self._namespace,
            container=self._container,
            follow=follow,
            previous=previous,
            since_time=since_text(since),
            tail_lines=tail,
            timestamps=True,
            read_timeout=self._read_timeout,
        )

    # Whose lines are these?

    def _relabel(self) -> Iterator[LogLine]:
        """What was given as the run before is this run's: the log end point was a run further than the status."""
        assert self._before is not None
        run = self._run.restarts - 1 if self._run is not None else 0
        self._window = self._before
        self._before = None
        reason = f"run {run} of container {self._container} could not be read: the node keeps one previous run"
        yield marker(LogGap(reason, self._container, (run,)))

    def _whose(self, raw: bytes, digest: int, seen: Seen, previous: bool) -> Iterator[LogLine]:
        """Decide whether an answer that begins with an unknown line is the run's.

        Raises:
            _Foreign: it is not.
            _Ahead: what was given before is the newest run's.
            _Known: its lines were given already, as those of the run before.

        Yields:
            A marker where lines before this one are missing.
        """
        stamp = parse(raw).timestamp
        if not self._window.lines:
            if self._before is not None and self._before.holds(digest):
                # Either the end point does not serve the new run yet, or the status was behind before.
                raise _Known if self._doubted_for(STATUS_LAG) else _Foreign
            if not self._is_first_line(stamp, seen, previous):
                raise _Foreign
            return
        if previous or not seen.final:
            now = self._changed_within(DOUBT, seen) if previous or seen.restarts_possible else None
            if now is not None and now.state != container_runs.GONE:
                raise _Foreign
        if previous and self._is_newest():
            raise _Ahead
        yield self._marker(
            f"lines of container {self._container} after {self._window.last} may be missing: the log that the node "
            "serves begins later; the node has rotated it, or the container was started again",
            until=stamp,
        )

    def _is_first_line(self, stamp: str, seen: Seen, previous: bool) -> bool:
        """Whether a line is the first of the run that is read, of which nothing was given yet."""
        run = seen.previous if previous else seen.run
        if run is not None and self._is_before_end(stamp, run):
            return True
        newer = run is not None and self._is_after_end(stamp, run) and (previous or not seen.final)
        if newer and not self._doubted_for(DOUBT):
            self._changed_within(STATUS_LAG, seen)
            return False
        if previous:
            now = self._changed(seen)
        elif seen.final or not seen.restarts_possible:
            return True
        else:
            now = self._changed_within(STATUS_LAG, seen, stamp)
        # Of a pod that is gone, nothing can tell any more: what is there is given.
        return now is None or now.state == container_runs.GONE

    @staticmethod
    def _is_before_end(stamp: str, run: Run) -> bool:
        """Whether a line was logged before its run ended, so that it cannot be a later run's."""
        if run.finished is None or run.started is None:
            return False
        return run.started - CLOCK_SLACK <= seconds_of(stamp) < run.finished

    @staticmethod
    def _is_after_end(stamp: str, run: Run) -> bool:
        return run.finished is not None and seconds_of(stamp) > run.finished + CLOCK_SLACK

    def _doubted_for(self, seconds: float) -> bool:
        """Whether answers have been taken for another run's for so long."""
        now = time.monotonic()
        if self._doubted_since is None:
            self._doubted_since = now
        return now - self._doubted_since > seconds

    def _changed_within(self, seconds: float, seen: Seen, stamp: str = "") -> Seen | None:
        """Wait for the status to name another run, or for one that proves the line with this stamp to be of this run.

        Returns:
            What was seen; None where the run is the same.
        """
        deadline = time.monotonic() + seconds
        while True:
            now = self._look()
            if now.state == container_runs.GONE:
                return now
            if now.run is not None and (seen.run is None or not now.run.same(seen.run)):
                return now
            if now.final or (stamp and now.run is not None and self._is_before_end(stamp, now.run)):
                return None
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(POLL / 2, left))

    # The end of a run

    def _rest(self, seen: Seen, *, previous: bool = False) -> Generator[LogLine, None, bool]:
        """What is left of a run that has ended.

        An answer can be cut off without a sign. So the run is read when an answer holds the last line that was given
        and nothing new, and a second, short answer ends with the same line.

        Returns:
            Whether the run is done with: False where the answers are another run's, or the pod is gone.
        """
        trouble = Patience(Limits(MISSING_LOG, MISSING_LOG, MISSING_LOG))
        empty = 0
        while True:
            yield from self._answer(seen, previous=previous, since=self._long_since(seen))
            unfinished = self._reading.unfinished
            if self._failure is not None and _not_started(self._failure):
                return True  # the container could not be started: there is no log
            if not self._complete and self._failure is None:
                return False  # another run's answer: the next look decides
            if self._given:
                trouble.renew()
            if self._complete and (self._given or self._reading.has_last):
                if self._ends_there(unfinished, previous):
                    break
            elif self._complete and not self._window.lines:
                empty += 1
                if empty >= EMPTY_ANSWERS and self._ends_there(unfinished, previous):
                    break
            if self._changed(seen):
                return False
            if self._failure is None or missing(self._failure) or isinstance(self._failure, LogUnavailable):
                if trouble.spent(SILENT):
                    yield self._marker(self._why_incomplete())
                    return True
                trouble.sleep()
            else:
                trouble.renew()
        if stamped(unfinished):
            yield self._window.add(unfinished, hash(unfinished))
        return True

    def _ends_there(self, unfinished: bytes, previous: bool) -> bool:
        """Whether the log's last lines, asked for alone, are the last that were given and the unfinished one."""
        reading = Reading(self._window, None)
        try:
            with self._open(None, previous=previous, tail=LAST_LINES) as stream:
                for _ in reading.fresh(stream.lines()):
                    return False
        except KubernetesError as failed:
            self._failed(failed)
            return False
        if reading.words:
            self._failed(words(reading.words))
            return False
        return (reading.ends_with_last or not self._window.lines) and reading.unfinished == unfinished

    def _long_since(self, seen: Seen) -> datetime | None:
        """From when to read at a run's end: all of a log that is not large, or that a clock may hide."""
        window = self._window
        if not window.lines or not window.remembers_all:
            return window.since
        ended = seen.run.finished if seen.run is not None else None
        set_back = ended is not None and ended + CLOCK_SLACK < seconds_of(window.last)
        return None if set_back or window.size <= WHOLE_AT_END else window.since

    def _why_incomplete(self) -> str:
        what = self._what_is_missing()
        if self._failure is not None:
            return f"{what} could not be read: {self._failure.message}"
        return f"{what} may be missing: the log that the node serves ends before it. The node may have rotated it"

    def _what_is_missing(self) -> str:
        run = f"run {self._run.restarts}" if self._run is not None else "the log"
        if self._window.lines:
            return f"the rest of {run} of container {self._container} after {self._window.last}"
        return f"{run} of container {self._container}"

    # From run to run

    def _catch_up(self, seen: Seen) -> Iterator[LogLine]:
        """Finish the run that was followed, by way of what the node still has, and turn to the newest."""
        assert seen.run is not None
        run = seen.run
        newest = run.restarts
        if seen.between:
            following = -1 if self._run is None else self._run.restarts
            number = max(newest - 1, following + 1)
            yield from self._skip_to(number)
            self._run = replace(seen.run, restarts=number)
            return
        yield from self._renumber(seen)
        if self._run is None and newest == 0:
            self._begin(seen.run)
            return
        following = self._run.restarts if self._run is not None else 0
        if newest > following + 1:
            yield from self._skip_to(newest - 1)
        elif self._run is None:
            self._begin(Run(0))
        if not self._drained:
            yield from self._previous(seen)
        self._begin_unless_same(run)

    def _renumber(self, seen: Seen) -> Iterator[LogLine]:
        """Correct the number of a run that was first seen between two runs."""
        if self._run is None or seen.run is None or seen.previous is None or not self._run.id:
            return
        number = seen.run.restarts - 1
        if seen.previous.id == self._run.id and number > self._run.restarts:
            missed = tuple(range(self._run.restarts, number))
            self._run = replace(self._run, restarts=number)
            yield self._missing_runs(missed)

    def _missing_runs(self, runs: tuple[int, ...]) -> LogLine:
        which = f"run {runs[0]}" if len(runs) == 1 else f"runs {runs[0]} to {runs[-1]}"
        count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
        reason = f"{count} of container {self._container} could not be read ({which}): the node keeps one previous run"
        return marker(LogGap(reason, self._container, runs, self._window.last))

    def _begin_unless_same(self, run: Run) -> None:
        if self._run is None or not run.same(self._run):
            self._begin(run, self._newest)

    def _skip_to(self, run: int) -> Iterator[LogLine]:
        """Say which runs were never read, and turn to a later one."""
        first = 0
        if self._run is not None:
            first = self._run.restarts + 1
            if not self._drained:
                yield self._marker(f"{self._what_is_missing()} could not be read: the node keeps one previous run")
        if run > first:
            yield self._missing_runs(tuple(range(first, run)))
        self._begin(Run(run))

    def _previous(self, seen: Seen) -> Iterator[LogLine]:
        """Read the run before the newest to its end."""
        deadline = time.monotonic() + DOUBT
        while not (yield from self._rest(seen, previous=True)):
            if self._changed(seen) or time.monotonic() > deadline:
                may = "may be missing" if self._window.lines else "could not be read"
                yield self._marker(f"{self._what_is_missing()} {may}: the node keeps one previous run")
                break
            time.sleep(POLL / 2)
        self._drained = True

    def _is_newest(self) -> bool:
        """Whether the newest run's log begins with a line that was given."""
        reading = Reading(self._window, None)
        if not self._window.remembers_all:
            return False
        try:
            with self._open(None) as stream:
                next(reading.fresh(stream.lines()), None)
        except KubernetesError as failed:
            self._failed(failed)
        return reading.matched > 0

    def _pod_is_gone(self) -> Iterator[LogLine]:
        """The pod was removed: say what of its log is not known to be read."""
        if self._run is None:
            return
        if not self._drained:
            yield self._marker(
                f"pod {self._name} was removed before its log was read to the end: "
                f"{self._what_is_missing()} may be missing"
            )
        elif self._unseen > UNSEEN:
            yield self._marker(
                f"pod {self._name} was removed: container {self._container} may have run again, unseen, "
                f"in its last {self._unseen:.0f} s"
            )

    def _marker(self, reason: str, until: str = "") -> LogLine:
        runs = () if self._run is None else (self._run.restarts,)
        return marker(LogGap(reason, self._container, runs, self._window.last, until))


def with_patience(ask: Callable[[], T], patience: Patience, what: str, *, answered: bool = True) -> T:
    """Ask until there is an answer.

    Args:
        ask: sends the request.
        patience: limits the failures in a row.
        what: names what is asked for, for the error.
        answered: whether the same was answered before.

    Raises:
        StreamLost: the failures lasted too long.
        KubernetesError: another attempt is of no use.
    """
    patience.renew()
    while True:
        try:
            return ask()
        except KubernetesError as failed:
            kind = retryable(failed, answered=answered)
            if not kind:
                raise
            if patience.spent(kind):
                raise lost(what, failed) from None
        patience.sleep()


def lost(what: str, failed: KubernetesError) -> KubernetesError:
    """The error for failures that lasted too long."""
    if not isinstance(failed, Unreachable) and failed.code in (401, 403):
        return failed
    return StreamLost(
        f"{what}: no log for too long; the last answer was: {failed.message}",
        status=failed.status,
        hint=f"Nothing is lost: the log can be followed again. {failed.hint}".strip(),
        refused=isinstance(failed, Unreachable) and failed.refused,
        original=failed.original or failed,
    )


def words(text: str) -> LogUnavailable:
    """The error for an answer that is the kubelet's own."""
    return LogUnavailable(
        f"the kubelet answered in place of the log: {text}",
        hint="The node may have removed the container, or be short of resources: job.why() looks into it.",
    )


def missing(failed: KubernetesError) -> bool:
    """Whether the server says that there is no such log."""
    return isinstance(failed, NotFound) or _not_started(failed) or _no_previous(failed)


def _not_started(failed: KubernetesError) -> bool:
    """Whether the server says that the container has no log, rather than that the question is wrong."""
    return failed.code == 400 and ("waiting to start" in failed.message or failed.message.endswith("is terminated"))


def _no_previous(failed: KubernetesError) -> bool:
    return failed.code == 400 and "previous terminated container" in failed.message
