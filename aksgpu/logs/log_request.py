"""Read the log of one container once, and be certain that it is all of it.

An answer of the log end point can be cut off without a sign, be empty although there are lines, or be the kubelet's
own words with status 200. So an answer is checked.
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, NamedTuple

from aksgpu.errors import KubernetesError, LogUnavailable, NotFound, Unreachable
from aksgpu.logs import container_runs
from aksgpu.logs.container_runs import Seen, chosen_container
from aksgpu.logs.deduplication import Reading, Window, parse, seconds_of, stamped
from aksgpu.logs.follower import EMPTY_ANSWERS, LAST_LINES, missing, with_patience, words
from aksgpu.logs.patience import SILENT, Limits, Patience, retryable

if TYPE_CHECKING:
    from aksgpu.kube.client import Kube, Object

PATIENCE = 60.0
"""Seconds for which a read goes on asking a server, or a node's kubelet, that does not serve the log."""
LATE_START = 60.0
"""Seconds between a container's start and the first line of its log after which the log may have been rotated."""
STEADY = 10
"""How many times longer that must be than the usual time between two lines."""
ANSWERS = 12
"""Answers after which a log that always ends before its last line counts as unreadable."""
PAUSE = 0.1
"""Seconds between two answers that contradict each other."""


class LogIncomplete(UserWarning):
    """A log begins long after its container: the node may have rotated its beginning away."""


class Request(NamedTuple):
    """Whose log is read, and which part of it."""

    kube: Kube
    pod: str
    namespace: str | None
    container: str | None
    tail: int | None
    previous: bool

    def look(self) -> Object:
        """The Pod object."""
        return self.kube.get("Pod", self.pod, self.namespace)


def read_text(request: Request, patience: float) -> str:
    """See :func:`aksgpu.logs.read`."""
    limits = Limits(patience, patience, patience)
    waiting = Patience(limits)
    looking = Patience(limits)
    what = f"the log of pod {request.pod}"
    pod = with_patience(request.look, looking, what, answered=False)
    name = chosen_container(pod, request.container)
    waiting.renew()
    while True:
        seen = container_runs.seen(pod, name)
        try:
            lines = _all_lines(request, name, seen)
        except KubernetesError as failed:
            if _not_started(failed, request):
                return ""
            kind = SILENT if isinstance(failed, NotFound) else retryable(failed)
            if not kind:
                raise
            if waiting.spent(kind):
                raise _unreadable(what, failed) from None
            waiting.sleep()
            pod = with_patience(request.look, looking, what)
        else:
            text = b"".join(line.partition(b" ")[2] for line in lines).decode("utf-8", "replace")
            return _note(request, seen, lines) + text


def _all_lines(request: Request, container: str, seen: Seen) -> list[bytes]:
    """The lines with their stamps and newlines; a last one may be without a newline.

    A container that runs is read once. The log of one that has ended is read until its last lines, asked for alone,
    are the last that were read: an answer can be cut off without a sign.
    """
    ended = request.previous or seen.state == container_runs.ENDED
    empty = 0
    for _ in range(ANSWERS):
        window = Window()
        lines: list[bytes] = []
        unfinished = _answer(request, container, window, request.tail, lines).unfinished
        if request.tail == 0:
            return []
        if not lines and not unfinished:
            empty += 1
            if empty >= EMPTY_ANSWERS:
                return []
        elif not ended or _ends_there(request, container, window, unfinished):
            rest = [unfinished] if stamped(unfinished) else []
            return [*(line + b"\n" for line in lines), *rest]
        time.sleep(PAUSE)
    raise LogUnavailable("its answers end at another line each time", hint="Read the log again.")


def _ends_there(request: Request, container: str, window: Window, unfinished: bytes) -> bool:
    """Whether the log's last lines, asked for alone, are those that were read."""
    reading = _answer(request, container, window, LAST_LINES, None)
    return not reading.new and (reading.ends_with_last or not window.lines) and reading.unfinished == unfinished


def _answer(request: Request, container: str, window: Window, tail: int | None, found: list[bytes] | None) -> Reading:
    """One answer, whose lines go to ``found``; without it, the first unknown line ends the reading."""
    reading = Reading(window, None)
    with request.kube.log(
        request.pod,
        request.namespace,
        container=container,
        previous=request.previous,
        tail_lines=tail,
        timestamps=True,
    ) as stream:
        for raw, digest in reading.fresh(stream.lines()):
            if found is None:
                break
            window.add(raw, digest)
            found.append(raw)
    if reading.words:
        raise words(reading.words)
    return reading


def _not_started(failed: KubernetesError, request: Request) -> bool:
    """Whether the container has not started, so that there is no log. A run that is gone is an error."""
    return missing(failed) and not isinstance(failed, NotFound) and not request.previous


def _unreadable(what: str, failed: KubernetesError) -> KubernetesError:
    if isinstance(failed, Unreachable) and not isinstance(failed, LogUnavailable):
        return failed
    if failed.code in (401, 403):
        return failed
    return LogUnavailable(
        f"{what} could not be read: {failed.message}",
        status=failed.status,
        hint=failed.hint or "The node, its kubelet or the way to it does not work at present: read the log again.",
        original=failed,
    )


def _note(request: Request, seen: Seen, lines: list[bytes]) -> str:
    """Say that the beginning of a log is missing: as a line where that is certain, as a warning where it is a guess."""
    run = seen.run
    if run is None or request.previous or request.tail is not None or not lines:
        return ""
    first = parse(lines[0]).timestamp
    known = container_runs.first_line(run.id)
    if known is not None and seconds_of(known) < seconds_of(first):
        return f"[aksgpu: lines from {known} to {first} are missing: the node has rotated the log]\n"
    container_runs.remember_first(run.id, first)
    if run.started is None:
        return ""
    late = seconds_of(first) - run.started
    usual = (seconds_of(parse(lines[-1]).timestamp) - seconds_of(first)) / max(len(lines) - 1, 1)
    if late > LATE_START and late > STEADY * usual:
        warnings.warn(
            f"the log of pod {request.pod} begins {late:.0f} s after its container started. If the program printed "
            "before that, the node has rotated those lines away (a guess: the node does not say)",
            LogIncomplete,
            stacklevel=5,
        )
    return ""
