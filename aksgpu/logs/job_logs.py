"""Read and follow the logs of pods and Jobs without losing or repeating a line.

The end of a log stream does not mean that the program has ended: load balancers drop idle streams, and servers close
long ones. Only the pod's status says that a container has ended. Every line is requested with its timestamp in
nanoseconds, which identifies it together with its text. After an interruption, the stream is resumed, and lines that
were yielded before are dropped. Restarts of a container and later pods of a Job are followed too.

A log that cannot be read raises an error; it never looks like an empty one. For lines that are permanently lost, such
as those of a deleted pod, a marker is yielded: a :class:`LogLine` with ``gap``.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from aksgpu.common.arguments import integer
from aksgpu.errors import InvalidInput, KubernetesError, LogsGone, NotFound
from aksgpu.kube import job_facts, pod_facts
from aksgpu.kube.client import HasKube, Kube, Object
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.kube.label_names import COMPLETION_INDEX, FAILURE_COUNT, IGNORED_FAILURE_COUNT
from aksgpu.logs import retrying
from aksgpu.logs.container_runs import choose_container, observe
from aksgpu.logs.deduplication import LogGap, LogLine, marker
from aksgpu.logs.follower import LIMITS, POLL_SECONDS, Follower, is_missing_log
from aksgpu.logs.log_request import DEFAULT_TIMEOUT, LogRequest, read_text
from aksgpu.logs.retrying import Failure, Limits, RetryTimer
from aksgpu.waiting import Interrupted, Timeout, check_timeout

__all__ = [
    "AttemptLog",
    "AttemptLogs",
    "attempts_of",
    "choose_pods",
    "count_ended",
    "find_same_job",
    "first_attempts",
    "follow",
    "follow_job",
    "has_run",
    "job_pods",
    "logs_gone",
    "read",
    "read_attempts",
    "read_job",
]

T = TypeVar("T")

READ_TIMEOUT = 45.0
"""Seconds without a byte after which a stream is opened again. AKS silently drops idle streams after four minutes."""
_FAILURE_COUNTS = (FAILURE_COUNT, IGNORED_FAILURE_COUNT)
"""Annotations of a pod that count the pods of its index that failed before it."""


@dataclass(frozen=True)
class AttemptLog:
    """The log of one run of a Job's program in one pod."""

    pod: str
    """Name of the pod."""
    index: int | None
    """Completion index of the pod; None if the Job has no indexes."""
    attempt: int
    """Number of runs of the same part of the Job before it, restarts in place included."""
    text: str
    """The log. Each line begins with the time at which the node stored it (RFC 3339) and a space."""


@dataclass(frozen=True)
class AttemptLogs:
    """The logs of a Job's runs."""

    logs: list[AttemptLog]
    """The logs that can be read, by index and attempt."""
    pods_gone: int
    """Number of pods that ran and were removed with their logs."""


def read(
    aks: HasKube,
    pod: str,
    *,
    namespace: str | None = None,
    container: str | None = None,
    tail_lines: int | None = None,
    previous: bool = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> str:
    """Return the log of a container so far.

    Args:
        aks: the cluster.
        pod: name of the pod.
        namespace: the pod's namespace; None uses the context's namespace.
        container: name of the container; None uses the pod's default or first one.
        tail_lines: number of last lines to return; None means all.
        previous: read the log of the run before the last restart.
        timeout: seconds, or text such as ``"2m"``, for which the request is repeated while the API server or the node
            does not serve the log; None means no limit. With 0, the first failure is raised.

    Returns:
        The log as one string. It is empty only if the container has not started or has not printed anything. If the
        node has rotated away lines that this process has read or followed before, the log begins with a line
        ``[aksgpu: ...]`` that says so.

    Raises:
        InvalidInput: an argument is not valid, or the pod does not have the container.
        NotFound: the pod does not exist.
        LogUnavailable: the node's kubelet did not serve the log within the timeout; the message has its last
            response.
        Unreachable: the API server did not respond within the timeout.

    Warns:
        LogIncomplete: the log begins long after its container started, so the node may have rotated its beginning
            away. This is a guess.

    Example:
        >>> text = logs.read(aks, "samples-tf-mnist-demo-k2x5b", tail_lines=100)
    """
    check_cluster(aks)
    lines = _check_tail_lines(tail_lines)
    seconds = check_timeout(timeout)
    request = LogRequest(aks.kube, pod, namespace, container, lines, previous)
    with _interruptible(f"reading the log of pod {pod} was interrupted"):
        return read_text(request, seconds)


def read_job(
    aks: HasKube,
    job: str,
    *,
    namespace: str | None = None,
    tail_lines: int | None = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> str:
    """Return the log of a Job so far.

    If the Job runs one pod at a time, this is the log of the newest pod. If it runs several pods, this is the log of
    each pod, ordered by completion index, or by age if the Job is not Indexed. ``job.logs()``, ``job.metrics()``,
    ``job.plot()`` and the live view read a Job's log with this function.

    Args:
        aks: the cluster.
        job: name of the Job.
        namespace: the Job's namespace; None uses the context's namespace.
        tail_lines: number of last lines to return, for each pod; None means all.
        timeout: as for :func:`read`.

    Returns:
        The log as one string. It is empty only if the Job has not started or has not printed anything.

    Raises:
        InvalidInput: an argument is not valid; nothing was sent.
        NotFound: the Job does not exist.
        LogsGone: the Job has run, and its pods were deleted with their logs.
        LogUnavailable: as for :func:`read`.
        Unreachable: as for :func:`read`.
    """
    check_cluster(aks)
    lines = _check_tail_lines(tail_lines)
    limits = Limits.same(check_timeout(timeout))
    with _interruptible(f"reading the log of job {job} was interrupted"):
        return _read_pods(aks.kube, job, namespace, lines, limits)


def _read_pods(kube: Kube, job: str, namespace: str | None, tail_lines: int | None, limits: Limits) -> str:
    retries = RetryTimer(limits)
    removed = RetryTimer(limits)
    while True:
        found = retrying.call(lambda: kube.get("Job", job, namespace), retries, f"job {job}", succeeded_before=False)
        pods = _list_pods(kube, found, retries)
        chosen = choose_pods(found, pods)
        if not chosen and has_run(found):
            raise logs_gone(job)
        try:
            texts = [_read_whole_lines(kube, pod, tail_lines, limits.silent) for pod in chosen]
        except NotFound:  # deleted since they were listed: the next list decides
            if removed.is_over(Failure.SILENT):
                raise logs_gone(job) from None
            removed.sleep()
            continue
        lost = int((found.get("status") or {}).get("succeeded") or 0) - _count_succeeded(pods)
        if len(chosen) > 1 and lost > 0:
            texts.insert(0, f"[aksgpu: {lost} of the pods of job {job} were deleted with their logs]\n")
        return "".join(texts)


def read_attempts(
    aks: HasKube, job: str, *, namespace: str | None = None, timeout: float = DEFAULT_TIMEOUT
) -> AttemptLogs:
    """Return the logs of all runs of a Job's program that the cluster still has.

    :func:`read_job` returns the newest run of each part of the Job. This function returns the earlier ones as well:
    those of pods that failed, and the run before the last restart of a container.

    Args:
        aks: the cluster.
        job: name of the Job.
        namespace: of the Job; None is the context's.
        timeout: as for :func:`read`.

    Returns:
        The logs, and the number of pods whose logs are gone.

    Raises:
        InvalidInput: an argument is wrong; nothing was sent.
        NotFound: the Job does not exist.
        LogsGone: the Job has run, and its pods are gone.
        LogUnavailable: as for :func:`read`.
        Unreachable: as for :func:`read`.
    """
    check_cluster(aks)
    limits = Limits.same(check_timeout(timeout))
    with _interruptible(f"reading the log of job {job} was interrupted"):
        return _read_attempts(aks.kube, job, namespace, limits)


def _read_attempts(kube: Kube, job: str, namespace: str | None, limits: Limits) -> AttemptLogs:
    retries = RetryTimer(limits)
    found = retrying.call(lambda: kube.get("Job", job, namespace), retries, f"job {job}", succeeded_before=False)
    pods = _list_pods(kube, found, retries)
    return attempts_of(kube, found, pods, timeout=limits.silent)


def attempts_of(kube: Kube, job: Object, pods: list[Object], *, timeout: float = DEFAULT_TIMEOUT) -> AttemptLogs:
    """Return the logs of all runs of a Job that was read already, as :func:`read_attempts` does.

    Args:
        kube: the cluster's API.
        job: the Job object.
        pods: its Pod objects, oldest first.
        timeout: seconds for which the request of each log is repeated.
    """
    name = job["metadata"]["name"]
    started = [pod for pod in pods if pod["spec"].get("nodeName")]
    if not started and has_run(job) and count_ended(job):
        raise logs_gone(name)
    logs: list[AttemptLog] = []
    gone = max(count_ended(job) - sum(pod_facts.ended(pod) for pod in pods), 0)
    for pod, index, first in first_attempts(job, started):
        try:
            logs.extend(_read_runs(kube, pod, index, first, timeout))
        except NotFound:  # removed since the pods were listed
            gone += 1
    if gone and not logs:
        raise logs_gone(name)
    logs.sort(key=lambda log: (-1 if log.index is None else log.index, log.attempt))
    return AttemptLogs(logs, gone)


def first_attempts(job: Object, pods: list[Object]) -> Iterator[tuple[Object, int | None, int]]:
    """Yield each pod with its completion index and the number of its first run among those of its index."""
    seen: Counter[int | None] = Counter()
    spec = job["spec"]
    side_by_side = (spec.get("completions") or 1) > 1 or (spec.get("parallelism") or 1) > 1
    for pod in pods:
        annotations = pod["metadata"].get("annotations") or {}
        text = annotations.get(COMPLETION_INDEX)
        index = None if text is None else int(text)
        failures = _failures_before(pod)
        if failures is not None:
            first = failures
        elif index is None and side_by_side:
            first = 0  # nothing says which pod a pod replaces
        else:
            first = seen[index]
        seen[index] = max(first, seen[index]) + 1 + pod_facts.restarts(pod)
        yield pod, index, first


def _failures_before(pod: Object) -> int | None:
    """Return how many pods of a pod's index failed before it; None if the Job does not count them."""
    annotations = pod["metadata"].get("annotations") or {}
    counts = [int(annotations[name]) for name in _FAILURE_COUNTS if name in annotations]
    return sum(counts) if counts else None


def _order(pod: Object) -> tuple[str, int, str, str]:
    """Return a key that sorts pods by their age.

    Of two of the same second, the one with fewer failures before it is older, then the one that ended first.
    """
    metadata = pod["metadata"]
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    ends = [((entry.get("state") or {}).get("terminated") or {}).get("finishedAt") for entry in statuses]
    has_failed = (pod.get("status") or {}).get("phase") == "Failed"
    end = max((end for end in ends if end), default="")
    return metadata["creationTimestamp"], _failures_before(pod) or 0, f"{not has_failed:d}{end}", metadata["name"]


def _read_runs(kube: Kube, pod: Object, index: int | None, first: int, timeout: float) -> list[AttemptLog]:
    """Read the run of a container before its last restart, if the node still has it, and its newest run."""
    metadata = pod["metadata"]
    container = choose_container(pod, None)
    number = observe(pod, container).run
    newest = first if number is None else first + number.number
    request = LogRequest(kube, metadata["name"], metadata["namespace"], container, None, False, timestamps=True)
    logs = []
    if newest > first:
        text = _read_previous(replace(request, previous=True), timeout)
        if text is not None:
            logs.append(AttemptLog(metadata["name"], index, newest - 1, text))
    logs.append(AttemptLog(metadata["name"], index, newest, read_text(request, timeout)))
    return logs


def _read_previous(request: LogRequest, timeout: float) -> str | None:
    """Return the log of the run before a restart; None if the node has removed it."""
    try:
        return read_text(request, 0)
    except KubernetesError as failed:
        if is_missing_log(failed):
            return None
    return read_text(request, timeout)


def follow(
    aks: HasKube,
    pod: str,
    *,
    namespace: str | None = None,
    container: str | None = None,
    read_timeout: float = READ_TIMEOUT,
) -> Iterator[LogLine]:
    """Yield every line of a container, from the first line until the container ends and will not be restarted.

    Args:
        aks: the cluster.
        pod: name of the pod. If it has not started, the iteration waits for it.
        namespace: the pod's namespace; None uses the context's namespace.
        container: name of the container; None uses the pod's default or first one.
        read_timeout: seconds without a byte after which the stream is opened again.

    Yields:
        Complete lines. A line with ``gap`` marks lines that can no longer be read.

    Raises:
        InvalidInput: an argument is not valid, or the pod does not have the container.
        NotFound: the pod does not exist.
        StreamLost: the log was not served for 15 minutes, or the server refused connections for two minutes.

    Example:
        >>> for line in logs.follow(aks, "samples-tf-mnist-demo-k2x5b"):
        ...     print(line.timestamp, line.text)
    """
    check_cluster(aks)
    seconds = _check_read_timeout(read_timeout)
    found = _get_first(aks.kube, "Pod", pod, namespace)
    follower = Follower(aks.kube, found, choose_container(found, container), seconds)
    return _interruptible_lines(follower.lines(), f"pod {pod}")


def follow_job(
    aks: HasKube,
    job: str,
    *,
    namespace: str | None = None,
    container: str | None = None,
    read_timeout: float = READ_TIMEOUT,
) -> Iterator[tuple[str, LogLine]]:
    """Yield every line of a Job's pods until the Job ends: one pod after the other, oldest first.

    Args:
        aks: the cluster.
        job: name of the Job.
        namespace: the Job's namespace; None uses the context's namespace.
        container: as for :func:`follow`.
        read_timeout: as for :func:`follow`.

    Yields:
        The pod's name and the line. If pods were deleted before their logs were read, a marker (a line with ``gap``)
        with an empty pod name says so.

    Raises:
        InvalidInput: as for :func:`follow`.
        NotFound: the Job does not exist.
        LogsGone: the Job has ended, and all its pods were deleted with their logs.
        StreamLost: as for :func:`follow`.
    """
    check_cluster(aks)
    seconds = _check_read_timeout(read_timeout)
    found = _get_first(aks.kube, "Job", job, namespace)
    return _interruptible_lines(_follow_pods(aks.kube, found, container, seconds), f"job {job}")


@contextlib.contextmanager
def _interruptible(message: str) -> Iterator[None]:
    """Show the message alone when the user interrupts, instead of the frames of the HTTP library."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(message) from None


def _interruptible_lines(lines: Iterator[T], what: str) -> Iterator[T]:
    with _interruptible(f"following {what} was interrupted; following it again starts from the first line"):
        yield from lines


def _check_tail_lines(tail_lines: int | None) -> int | None:
    return None if tail_lines is None else integer("tail_lines", tail_lines, 0)


def _check_read_timeout(read_timeout: float) -> float:
    seconds = check_timeout(read_timeout, "read_timeout")
    if not 0 < seconds < math.inf:
        raise InvalidInput(
            f"`read_timeout` must be a number of seconds above 0, got {read_timeout!r}",
            hint=f"The default is read_timeout={READ_TIMEOUT:g}.",
        )
    return seconds


def _get_first(kube: Kube, kind: str, name: str, namespace: str | None) -> Object:
    """Get an object for the first time. A missing permission is raised at once."""
    retries = RetryTimer(Limits.same(DEFAULT_TIMEOUT))
    return retrying.call(lambda: kube.get(kind, name, namespace), retries, f"{kind} {name}", succeeded_before=False)


def _read_whole_lines(kube: Kube, pod: Object, tail_lines: int | None, timeout: float) -> str:
    """Read the log of a pod, and end it with a newline unless it is empty."""
    metadata = pod["metadata"]
    request = LogRequest(kube, metadata["name"], metadata["namespace"], None, tail_lines, False)
    text = read_text(request, timeout)
    return text if not text or text.endswith("\n") else text + "\n"


def choose_pods(job: Object, pods: list[Object]) -> list[Object]:
    """Return the pods whose logs are the Job's log, as :func:`read_job` describes. Of each index, it is the newest."""
    newest: dict[str, Object] = {}
    for pod in pods:
        index = (pod["metadata"].get("annotations") or {}).get(COMPLETION_INDEX)
        if index is not None:
            newest[index] = pod
    if newest:
        return [newest[index] for index in sorted(newest, key=int)]
    spec = job["spec"]
    if (spec.get("completions") or 1) > 1 or (spec.get("parallelism") or 1) > 1:
        return pods
    started = [pod for pod in pods if pod["spec"].get("nodeName")]
    return (started or pods)[-1:]


def has_run(job: Object) -> bool:
    """Return whether the Job has, or had, pods."""
    status = job.get("status") or {}
    return bool(count_ended(job) or status.get("active") or job_facts.end_condition(job))


def _count_succeeded(pods: list[Object]) -> int:
    return sum((pod.get("status") or {}).get("phase") == "Succeeded" for pod in pods)


def _follow_pods(
    kube: Kube, owner: Object, container: str | None, read_timeout: float
) -> Iterator[tuple[str, LogLine]]:
    followed: set[str] = set()
    retries = RetryTimer(LIMITS)
    name = owner["metadata"]["name"]
    while True:
        # The Job is read before its pods are listed. If it has ended, the list has all its pods.
        now = retrying.call(lambda: find_same_job(kube, owner), retries, f"job {name}")
        pods = _list_pods(kube, owner, retries)
        has_ended = now is None or job_facts.end_condition(now) is not None
        left = [pod for pod in pods if pod["metadata"]["uid"] not in followed]
        # A pod that waits for a GPU does not block one that runs. The list is read again after each pod.
        chosen = next((pod for pod in left if has_ended or pod["spec"].get("nodeName")), None)
        if chosen is not None:
            followed.add(chosen["metadata"]["uid"])
            follower = Follower(kube, chosen, choose_container(chosen, container), read_timeout)
            for line in follower.lines():
                yield chosen["metadata"]["name"], line
        elif has_ended:
            yield from _report_unseen_pods(now, name, len(followed))
            return
        else:
            time.sleep(POLL_SECONDS)


def _report_unseen_pods(job: Object | None, name: str, followed: int) -> Iterator[tuple[str, LogLine]]:
    """Yield a marker if pods of a Job were removed before they were followed."""
    if job is None:
        if not followed:
            yield "", marker(LogGap(f"job {name} was deleted before the log of a pod could be read"))
        return
    missing = count_ended(job) - followed
    if missing <= 0:
        return
    if not followed:
        raise logs_gone(name)
    pods = "1 pod" if missing == 1 else f"{missing} pods"
    yield "", marker(LogGap(f"{pods} of job {name} could not be read: removed before their logs were followed"))


def logs_gone(name: str) -> LogsGone:
    """Return the error of a Job whose pods are gone."""
    return LogsGone(
        f"the pods of job {name} were deleted with their logs",
        hint="Follow the next run while it is running: for line in job.follow(): print(line). "
        "A Job with the restart policy OnFailure loses its pod at its last failure.",
    )


def job_pods(kube: Kube, job: Object) -> list[Object]:
    """Return a Job's pods, oldest first."""
    labels = job["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    pods = kube.list("Pod", job["metadata"]["namespace"], label_selector=selector)
    return sorted(pods, key=_order)


def _list_pods(kube: Kube, job: Object, retries: RetryTimer) -> list[Object]:
    return retrying.call(lambda: job_pods(kube, job), retries, f"pods of job {job['metadata']['name']}")


def find_same_job(kube: Kube, job: Object) -> Object | None:
    """Return the current state of the Job; None if it was deleted, even if there is a new one with its name."""
    now = kube.find("Job", job["metadata"]["name"], job["metadata"]["namespace"])
    return now if now is not None and now["metadata"]["uid"] == job["metadata"]["uid"] else None


def count_ended(job: Object) -> int:
    """Return the number of a Job's pods that have ended, those that are gone included."""
    status = job.get("status") or {}
    return int(status.get("succeeded") or 0) + int(status.get("failed") or 0)
