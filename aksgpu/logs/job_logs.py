"""Read and follow the logs of pods and Jobs without losing a line or giving one twice.

The end of a log stream means nothing: load balancers drop idle streams, servers cut long ones, and either looks like
the end of the program. "Finished" comes from the pod's status only. Every line is asked for with its time in
nanoseconds, which identifies it together with its text. After a break, the stream is taken up again and what was given
is dropped. A container's restarts are followed, and a Job's later pods.

A log that cannot be read raises an error; it never looks like an empty one. Lines that are lost for good, such as
those of a pod that was removed, are given as a marker: a :class:`LogLine` with ``gap``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from aksgpu.errors import LogsGone, NotFound
from aksgpu.kube.client import Kube, Object
from aksgpu.logs.container_runs import chosen_container
from aksgpu.logs.deduplication import LogGap, LogLine, marker
from aksgpu.logs.follower import LIMITS, POLL, Follower, with_patience
from aksgpu.logs.log_request import PATIENCE, LogIncomplete, Request, read_text
from aksgpu.logs.patience import SILENT, Limits, Patience

__all__ = ["LogGap", "LogIncomplete", "LogLine", "follow", "follow_job", "job_pods", "read", "read_job"]

READ_TIMEOUT = 45.0
"""Seconds of silence before a stream is renewed: below the four minutes after which AKS drops it without a sign."""
_INDEX = "batch.kubernetes.io/job-completion-index"


def read(
    kube: Kube,
    pod: str,
    namespace: str | None = None,
    container: str | None = None,
    *,
    tail: int | None = None,
    previous: bool = False,
    patience: float = PATIENCE,
) -> str:
    """Return what a container has logged until now.

    Args:
        kube: the cluster's API.
        pod: name.
        namespace: of the pod.
        container: None for the pod's only or default one.
        tail: only so many of the last lines.
        previous: of the run before the last restart.
        patience: seconds for which a server or a node that does not serve the log is asked again; 0 for one attempt.

    Returns:
        The text. It is empty only where the container has not started or has printed nothing. Where an earlier read
        or follow in this process saw lines that the node has rotated away since, the text begins with a line
        ``[aksgpu: ...]`` that says so.

    Raises:
        NotFound: there is no such pod.
        LogUnavailable: the node's kubelet did not serve the log for ``patience`` seconds; the message holds its last
            answer.
        Unreachable: the API server did not answer for ``patience`` seconds.

    Warns:
        LogIncomplete: the log begins long after its container, so that the node may have rotated its beginning away.
            That is a guess.
    """
    return read_text(Request(kube, pod, namespace, container, tail, previous), patience)


def read_job(
    kube: Kube, job: str, namespace: str | None = None, *, tail: int | None = None, patience: float = PATIENCE
) -> str:
    """Return what a Job has logged until now.

    Of a Job with one pod at a time, the newest attempt's log; of one with many pods, all of theirs, by index or else
    by age. A table, a curve and a live view of a Job read its log through this function.

    Args:
        kube: the cluster's API.
        job: name.
        namespace: of the Job.
        tail: only so many of the last lines (of each pod).
        patience: as for :func:`read`.

    Returns:
        The text; empty only where the Job has not started or has printed nothing.

    Raises:
        NotFound: there is no such Job.
        LogsGone: the Job has run, and its pods are gone.
        LogUnavailable: as for :func:`read`.
        Unreachable: as for :func:`read`.
    """
    waiting = Patience(Limits(patience, patience, patience))
    removed = Patience(Limits(patience, patience, patience))
    while True:
        found = with_patience(lambda: kube.get("Job", job, namespace), waiting, f"job {job}", answered=False)
        pods = _pods_with_patience(kube, found, waiting)
        chosen = _logged(found, pods)
        if not chosen and _has_run(found):
            raise _logs_gone(job)
        try:
            texts = [_whole_lines(kube, pod, tail, patience) for pod in chosen]
        except NotFound:  # removed since they were listed: the next list decides
            if removed.spent(SILENT):
                raise _logs_gone(job) from None
            removed.sleep()
            continue
        lost = int((found.get("status") or {}).get("succeeded") or 0) - _succeeded(pods)
        if len(chosen) > 1 and lost > 0:
            texts.insert(0, f"[aksgpu: {lost} of the pods of job {job} are gone, and their logs with them]\n")
        return "".join(texts)


def _whole_lines(kube: Kube, pod: Object, tail: int | None, patience: float) -> str:
    metadata = pod["metadata"]
    text = read(kube, metadata["name"], metadata["namespace"], tail=tail, patience=patience)
    return text if not text or text.endswith("\n") else text + "\n"


def _logged(job: Object, pods: list[Object]) -> list[Object]:
    """The pods whose logs are the Job's: the newest attempt of each part of it."""
    spec = job["spec"]
    newest: dict[str, Object] = {}
    for pod in pods:
        index = (pod["metadata"].get("annotations") or {}).get(_INDEX)
        if index is not None:
            newest[index] = pod
    if newest:
        return [newest[index] for index in sorted(newest, key=int)]
    if (spec.get("completions") or 1) > 1 or (spec.get("parallelism") or 1) > 1:
        return pods
    started = [pod for pod in pods if pod["spec"].get("nodeName")]
    return (started or pods)[-1:]


def _has_run(job: Object) -> bool:
    """Whether the Job has, or had, pods."""
    status = job.get("status") or {}
    return bool(_ended_pods(job) or status.get("active") or _has_ended(job))


def _succeeded(pods: list[Object]) -> int:
    return sum((pod.get("status") or {}).get("phase") == "Succeeded" for pod in pods)


def follow(
    kube: Kube,
    pod: str,
    namespace: str | None = None,
    container: str | None = None,
    *,
    read_timeout: float = READ_TIMEOUT,
) -> Iterator[LogLine]:
    """Give every line of a container, from its first until it has ended for good, its restarts included.

    Args:
        kube: the cluster's API.
        pod: name. A pod that has not started is waited for.
        namespace: of the pod.
        container: None for the pod's only or default one.
        read_timeout: seconds of silence after which the connection is renewed.

    Yields:
        :class:`LogLine`: the node's time of the line (RFC 3339, nanoseconds) and its text without the newline. Where
        lines are lost for good (the pod was removed, the node has rotated the log or no longer has a run), a line
        with ``gap`` says what is missing.

    Raises:
        NotFound: there is no such pod. A pod that is removed later ends the iteration, with a marker if its log was
            not read to the end.
        StreamLost: the API server, or the node's kubelet, did not serve the log for a quarter of an hour; or the API
            server refused connections for two minutes.
    """
    found = _first_answer(kube, "Pod", pod, namespace)
    return Follower(kube, found, chosen_container(found, container), read_timeout).lines()


def follow_job(
    kube: Kube,
    job: str,
    namespace: str | None = None,
    container: str | None = None,
    *,
    read_timeout: float = READ_TIMEOUT,
) -> Iterator[tuple[str, LogLine]]:
    """Give every line of a Job's pods until the Job has ended: one pod after the other, oldest first.

    Args:
        kube: the cluster's API.
        job: name.
        namespace: of the Job.
        container: as for :func:`follow`.
        read_timeout: as for :func:`follow`.

    Yields:
        The pod's name and the line. Pods that were removed before they were read are told by a marker (a line with
        ``gap``) with an empty pod name.

    Raises:
        NotFound: there is no such Job.
        LogsGone: the Job has ended, and all its pods are gone.
        StreamLost: as for :func:`follow`.
    """
    return _job_lines(kube, _first_answer(kube, "Job", job, namespace), container, read_timeout)


def _first_answer(kube: Kube, kind: str, name: str, namespace: str | None) -> Object:
    patience = Patience(Limits(PATIENCE, PATIENCE, PATIENCE))
    return with_patience(lambda: kube.get(kind, name, namespace), patience, f"{kind} {name}", answered=False)


def _job_lines(kube: Kube, owner: Object, container: str | None, read_timeout: float) -> Iterator[tuple[str, LogLine]]:
    followed: set[str] = set()
    patience = Patience(LIMITS)
    name = owner["metadata"]["name"]
    while True:
        # Asked before the pods are listed: when it has ended by then, the list holds all the pods there will be.
        now = with_patience(lambda: _same_job(kube, owner), patience, f"job {name}")
        pods = _pods_with_patience(kube, owner, patience)
        ended = now is None or _has_ended(now)
        left = [pod for pod in pods if pod["metadata"]["uid"] not in followed]
        # One that waits for a GPU must not hold up one that runs. Listed anew after each, for what came meanwhile.
        chosen = next((pod for pod in left if ended or pod["spec"].get("nodeName")), None)
        if chosen is not None:
            followed.add(chosen["metadata"]["uid"])
            follower = Follower(kube, chosen, chosen_container(chosen, container), read_timeout)
            for line in follower.lines():
                yield chosen["metadata"]["name"], line
        elif ended:
            yield from _never_seen(now, name, len(followed))
            return
        else:
            time.sleep(POLL)


def _never_seen(job: Object | None, name: str, followed: int) -> Iterator[tuple[str, LogLine]]:
    """Say that pods of a Job were removed before they were followed."""
    if job is None:
        if not followed:
            yield "", marker(LogGap(f"job {name} was deleted before a pod of it could be read"))
        return
    missing_pods = _ended_pods(job) - followed
    if missing_pods <= 0:
        return
    if not followed:
        raise _logs_gone(name)
    pods = "1 pod" if missing_pods == 1 else f"{missing_pods} pods"
    yield "", marker(LogGap(f"{pods} of job {name} could not be read: removed before their logs were followed"))


def _logs_gone(name: str) -> LogsGone:
    return LogsGone(
        f"the pods of job {name} are gone, and their logs with them",
        hint="Follow the next run while it goes on: for line in job.follow(): print(line). "
        "A Job with restart policy OnFailure loses its pod with its last failure.",
    )


def job_pods(kube: Kube, job: Object) -> list[Object]:
    """A Job's pods, oldest first."""
    labels = job["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    pods = kube.list("Pod", job["metadata"]["namespace"], label_selector=selector)
    return sorted(pods, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def _pods_with_patience(kube: Kube, job: Object, patience: Patience) -> list[Object]:
    return with_patience(lambda: job_pods(kube, job), patience, f"pods of job {job['metadata']['name']}")


def _same_job(kube: Kube, job: Object) -> Object | None:
    """The Job as it is now; None where it was deleted, or deleted and made again."""
    now = kube.find("Job", job["metadata"]["name"], job["metadata"]["namespace"])
    return now if now is not None and now["metadata"]["uid"] == job["metadata"]["uid"] else None


def _has_ended(job: Object) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)


def _ended_pods(job: Object) -> int:
    status = job.get("status") or {}
    return int(status.get("succeeded") or 0) + int(status.get("failed") or 0)
