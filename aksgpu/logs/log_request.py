"""Read the log of one container once, and check that it is complete.

A response of the log endpoint can be truncated without an error, can be empty although the log has lines, or can be a
message of the kubelet with status 200. Each response is therefore checked.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aksgpu.errors import Forbidden, KubernetesError, LogUnavailable, NotFound, Unauthorized, Unreachable
from aksgpu.kube import retry_policy
from aksgpu.logs import container_runs, retrying
from aksgpu.logs.container_runs import Observation, State, choose_container
from aksgpu.logs.deduplication import Response, SeenLines, has_timestamp, parse, seconds_of
from aksgpu.logs.follower import EMPTY_RESPONSES, LAST_LINES, is_missing_log, log_unavailable
from aksgpu.logs.retrying import Failure, Limits, RetryTimer

if TYPE_CHECKING:
    from aksgpu.kube.client import Kube, Object

__all__ = ["LogIncomplete", "LogRequest", "read_text"]

DEFAULT_TIMEOUT = 60.0
"""Seconds for which a read is repeated while the API server or the node's kubelet does not serve the log."""
LATE_START_SECONDS = 60.0
"""Seconds between a container's start and the first line of its log from which the log may have been rotated."""
LATE_START_FACTOR = 10
"""How many times longer than the average time between two lines that time must also be."""
MAX_RESPONSES = 12
"""Number of contradictory responses after which a log counts as unreadable."""
PAUSE_SECONDS = 0.1
"""Seconds between two requests after contradictory responses."""


class LogIncomplete(UserWarning):
    """A log begins long after its container started, so the node may have rotated its beginning away."""


@dataclass(frozen=True)
class LogRequest:
    """Which log to read, and which part of it."""

    kube: Kube
    pod: str
    namespace: str | None
    container: str | None
    tail_lines: int | None
    previous: bool
    timestamps: bool = False
    """Whether each line begins with the time at which the node stored it, and a space."""

    def get_pod(self) -> Object:
        """Return the Pod object."""
        return self.kube.get("Pod", self.pod, self.namespace)


def read_text(request: LogRequest, timeout: float) -> str:
    """Return the text of a log; see :func:`aksgpu.logs.read`."""
    limits = Limits.same(timeout)
    log_retries = RetryTimer(limits)
    pod_retries = RetryTimer(limits)
    what = f"the log of pod {request.pod}"
    pod = retrying.call(request.get_pod, pod_retries, what, succeeded_before=False)
    container = choose_container(pod, request.container)
    log_retries.reset()
    while True:
        observed = container_runs.observe(pod, container)
        try:
            lines = _read_lines(request, container, observed)
        except KubernetesError as failed:
            if _has_not_started(failed, request):
                return ""
            kind = Failure.SILENT if isinstance(failed, NotFound) else retrying.kind_of_failure(failed)
            if kind is None:
                raise
            if log_retries.is_over(kind):
                raise _unreadable(what, failed) from None
            retry_after = failed.retry_after
        else:
            kept = lines if request.timestamps else [line.partition(b" ")[2] for line in lines]
            text = b"".join(kept).decode("utf-8", "replace")
            return _note_missing_beginning(request, observed, lines) + text
        log_retries.sleep(retry_after)
        pod = retrying.call(request.get_pod, pod_retries, what)


def _read_lines(request: LogRequest, container: str, observed: Observation) -> list[bytes]:
    """Return the lines with their timestamps and newlines; the last one may have no newline.

    The log of a running container is read once. The log of a container that has ended is read until its last lines,
    requested separately, are the last ones that were read, because a response can be truncated without an error.
    """
    has_ended = request.previous or observed.state is State.ENDED
    empty_responses = 0
    for _ in range(MAX_RESPONSES):
        seen = SeenLines()
        lines: list[bytes] = []
        unfinished = _read_response(request, container, seen, request.tail_lines, lines).unfinished
        if request.tail_lines == 0:
            return []
        if not lines and not unfinished:
            empty_responses += 1
            if empty_responses >= EMPTY_RESPONSES:
                return []
        elif not has_ended or _ends_there(request, container, seen, unfinished):
            rest = [unfinished] if has_timestamp(unfinished) else []
            return [*(line + b"\n" for line in lines), *rest]
        time.sleep(PAUSE_SECONDS)
    raise LogUnavailable("each response ended at a different line", hint="Read the log again.")


def _ends_there(request: LogRequest, container: str, seen: SeenLines, unfinished: bytes) -> bool:
    """Return whether the log's last lines, requested separately, are those that were read."""
    response = _read_response(request, container, seen, LAST_LINES, None)
    ends_with_last = response.ends_with_last or not seen.lines
    return not response.new and ends_with_last and response.unfinished == unfinished


def _read_response(
    request: LogRequest, container: str, seen: SeenLines, tail_lines: int | None, lines: list[bytes] | None
) -> Response:
    """Read one response and append its new lines to ``lines``. If that is None, stop at the first new line."""
    response = Response(seen, None)
    with retry_policy.single_attempt():
        stream = request.kube.log(
            request.pod,
            request.namespace,
            container=container,
            previous=request.previous,
            tail_lines=tail_lines,
            timestamps=True,
        )
    with stream:
        for raw, digest in response.new_lines(stream.lines()):
            if lines is None:
                break
            seen.add(raw, digest)
            lines.append(raw)
    if response.kubelet_message:
        raise log_unavailable(response.kubelet_message)
    return response


def _has_not_started(failed: KubernetesError, request: LogRequest) -> bool:
    """Return whether the container has not started, so that it has no log. A run that no longer exists is an error."""
    return is_missing_log(failed) and not isinstance(failed, NotFound) and not request.previous


def _unreadable(what: str, failed: KubernetesError) -> KubernetesError:
    """Return the error for a log that could not be read for too long."""
    if isinstance(failed, Unreachable) and not isinstance(failed, LogUnavailable):
        return failed
    if isinstance(failed, Unauthorized | Forbidden):
        return failed
    hint = "The node, its kubelet or the connection to it does not work at present. Read the log again."
    return LogUnavailable(
        f"{what} could not be read: {failed.message}",
        status=failed.status,
        hint=failed.hint or hint,
        original=failed,
    )


def _note_missing_beginning(request: LogRequest, observed: Observation, lines: list[bytes]) -> str:
    """Return a line that says that the beginning of the log is missing, or warn if that is only a guess."""
    run = observed.run
    if run is None or request.previous or request.tail_lines is not None or not lines:
        return ""
    first = parse(lines[0]).timestamp
    known = container_runs.first_line(run.id)
    if known is not None and seconds_of(known) < seconds_of(first):
        return f"[aksgpu: lines from {known} to {first} are missing: the node has rotated the log]\n"
    container_runs.remember_first_line(run.id, first)
    if run.started is None:
        return ""
    late = seconds_of(first) - run.started
    last = parse(lines[-1]).timestamp
    average = (seconds_of(last) - seconds_of(first)) / max(len(lines) - 1, 1)
    if late > LATE_START_SECONDS and late > LATE_START_FACTOR * average:
        warnings.warn(
            f"the log of pod {request.pod} begins {late:.0f} s after its container started. If the program printed "
            "earlier lines, the node has rotated them away. This is a guess, because the node does not report it",
            LogIncomplete,
            stacklevel=5,
        )
    return ""
