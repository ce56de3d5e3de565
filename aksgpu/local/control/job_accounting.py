"""The rules of a Job: they count its pods and decide how the Job continues. These are pure functions.

A pod that has ended is counted in three steps, so that it is counted exactly once even if the process is killed in
between. First its uid is added to ``status.uncountedTerminatedPods``. Then its finalizer is removed. Then the count
goes up and the uid is removed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aksgpu.common import times
from aksgpu.local.control.controller_runtime import get_condition, is_finished, is_ready
from aksgpu.local.control.job_backoff import ended_at
from aksgpu.local.control.job_indexes import (
    completion_index,
    format_indexes,
    has_limit_per_index,
    index_failures,
    is_index_failed,
    is_indexed,
    matched_success_rule,
    parse_indexes,
)
from aksgpu.local.control.pod_failure_policy import match_failure_policy
from aksgpu.local.objects import Object

TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"
"""The finalizer that keeps a pod until its Job has counted it."""


class JobResult(NamedTuple):
    """How a Job ends: the condition that announces the end, the final condition, and the reason."""

    target: str
    final: str
    reason: str
    message: str


_FAILED = ("FailureTarget", "Failed")
_COMPLETE = ("SuccessCriteriaMet", "Complete")


def replaces_only_failed(job: Object) -> bool:
    """Return whether a pod that is being deleted counts as failed and is replaced only once it has ended."""
    return bool(job["spec"].get("podReplacementPolicy") == "Failed")


def is_tracked(pod: Object) -> bool:
    """Return whether a pod has the finalizer of its Job, so that it has not been counted yet."""
    return TRACKING_FINALIZER in (pod["metadata"].get("finalizers") or ())


def _counts_as_ended(job: Object, pod: Object) -> bool:
    """Return whether a pod has ended, or is being deleted and counts as failed already.

    No kubelet ends a pod that was not scheduled. Kubernetes' garbage collector of pods ends it.
    """
    if is_finished(pod):
        return True
    is_scheduled = bool(pod["spec"].get("nodeName"))
    return bool(pod["metadata"].get("deletionTimestamp")) and not (replaces_only_failed(job) and is_scheduled)


def end_condition(job: Object) -> dict[str, Any]:
    """Return the condition Complete or Failed of a Job; empty if it has not ended."""
    return get_condition(job, "Complete") or get_condition(job, "Failed")


def containers(pod: Object) -> list[dict[str, Any]]:
    """Return the statuses of all containers of a pod, init containers first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


# All pods of a Job


@dataclass
class PodCounts:
    """The pods of a Job, counted."""

    completed: set[int]
    active: list[Object] = field(default_factory=list)
    terminating: list[Object] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    """The numbers for the status: pods that have ended and lost their finalizer, by ``succeeded`` and ``failed``."""
    uncounted: dict[str, list[str]] = field(default_factory=dict)
    """Uids of the other pods that have ended, by ``succeeded`` and ``failed``."""
    ended: list[Object] = field(default_factory=list)
    """Pods with their finalizer that have ended, or are being deleted and count as failed."""
    to_release: list[Object] = field(default_factory=list)
    """Pods whose finalizer is removed once the status has their uid."""
    has_unsaved: bool = False
    """Whether there are uids or indexes that the status does not have yet."""
    fail_job: str = ""
    """The reason why the pod failure policy fails the Job; empty if it does not."""
    failed_indexes: set[int] | None = None
    """The indexes that have failed permanently; None if the Job does not limit the failures of each index."""
    delayed: dict[int, Object] = field(default_factory=dict)
    """By index, failed pods that keep their finalizer until they are replaced."""
    delayed_failures: int = 0
    """Number of these pods that count as failed."""

    def total(self, kind: str) -> int:
        """Return the number of pods that ended in this way, including those that the status does not count yet."""
        return self.recorded(kind) + (self.delayed_failures if kind == "failed" else 0)

    def recorded(self, kind: str) -> int:
        """Return the number of pods that ended in this way, without those that keep their finalizer."""
        return self.counted[kind] + len(self.uncounted[kind])


def count_pods(job: Object, pods: list[Object]) -> PodCounts:
    """Count the pods of a Job."""
    status = job.get("status") or {}
    tracked = {pod["metadata"]["uid"] for pod in pods if is_tracked(pod)}
    completions = job["spec"].get("completions") or 0
    counts = PodCounts(parse_indexes(status.get("completedIndexes"), completions))
    for kind in ("succeeded", "failed"):
        known = (status.get("uncountedTerminatedPods") or {}).get(kind) or []
        counts.uncounted[kind] = [uid for uid in known if uid in tracked]
        counts.counted[kind] = int(status.get(kind) or 0) + len(known) - len(counts.uncounted[kind])
    ended = counts.ended
    for pod in pods:
        is_deleted = bool(pod["metadata"].get("deletionTimestamp"))
        if not is_finished(pod):
            group = counts.terminating if is_deleted else counts.active
            group.append(pod)
        if _counts_as_ended(job, pod) and pod["metadata"]["uid"] in tracked:
            ended.append(pod)
    for pod in ended:
        if _phase(pod) == "Succeeded":
            _count_success(job, pod, counts)
    if is_indexed(job):  # The number of completions may have been reduced.
        counts.completed = {index for index in counts.completed if index < job["spec"]["completions"]}
        counts.counted["succeeded"] = len(counts.completed)
    failed = [pod for pod in ended if _phase(pod) != "Succeeded"]
    if has_limit_per_index(job):
        _count_indexes(job, failed, counts)
    for pod in failed:
        match = match_failure_policy(job, pod)
        if match.action == "FailJob":
            counts.fail_job = counts.fail_job or match.message
        if counts.delayed.get(completion_index(pod)) is pod:
            if match.action != "Ignore":
                counts.delayed_failures += 1
        else:
            _count_failure(job, pod, counts)
    return counts


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase", ""))


def _count_success(job: Object, pod: Object, counts: PodCounts) -> None:
    counts.to_release.append(pod)
    if is_indexed(job):
        counts.has_unsaved |= completion_index(pod) not in counts.completed
        counts.completed.add(completion_index(pod))
    else:
        _count(pod, counts, "succeeded")


def _count_failure(job: Object, pod: Object, counts: PodCounts) -> None:
    counts.to_release.append(pod)
    if match_failure_policy(job, pod).action != "Ignore":
        _count(pod, counts, "failed")


def _count(pod: Object, counts: PodCounts, kind: str) -> None:
    uids = counts.uncounted[kind]
    if pod["metadata"]["uid"] not in uids:
        uids.append(pod["metadata"]["uid"])
        counts.has_unsaved = True


def _count_indexes(job: Object, failed: list[Object], counts: PodCounts) -> None:
    """Find the indexes that have failed permanently, and the failed pods that are kept until they are replaced."""
    before = parse_indexes((job.get("status") or {}).get("failedIndexes"), job["spec"]["completions"])
    indexes = set(before)
    if not get_condition(job, "FailureTarget"):  # Later failures are caused by the controller, which ends the pods.
        indexes |= {completion_index(pod) for pod in failed if is_index_failed(job, pod)}
    counts.failed_indexes = {index for index in indexes if 0 <= index < job["spec"]["completions"]}
    counts.has_unsaved |= counts.failed_indexes != before
    settled = counts.completed | counts.failed_indexes | {completion_index(pod) for pod in counts.active}
    for pod in failed:
        index = completion_index(pod)
        if index in settled or not 0 <= index < job["spec"]["completions"]:
            continue
        other = counts.delayed.get(index)
        if other is None or _failure_order(other) <= _failure_order(pod):
            counts.delayed[index] = pod


def _failure_order(pod: Object) -> tuple[int, float]:
    return index_failures(pod), ended_at(pod)


def count_delayed(job: Object, counts: PodCounts) -> None:
    """Count the failed pods that were kept for their replacement, because they will not be replaced."""
    for pod in counts.delayed.values():
        _count_failure(job, pod, counts)
    counts.delayed.clear()
    counts.delayed_failures = 0


def count_unfinished(job: Object, counts: PodCounts) -> None:
    """Count running pods as failed, because the Job has failed and ends them."""
    released = {pod["metadata"]["uid"] for pod in counts.to_release}
    for pod in (*counts.active, *counts.terminating):
        if is_tracked(pod) and pod["metadata"]["uid"] not in released:
            _count_failure(job, pod, counts)


def job_result(job: Object, counts: PodCounts) -> JobResult | None:
    """Return how the Job ends, or None if it continues."""
    spec = job["spec"]
    for target, final in (_FAILED, _COMPLETE):
        announced = get_condition(job, target)
        if announced:
            return JobResult(target, final, announced["reason"], announced["message"])
    if counts.fail_job:
        return JobResult(*_FAILED, "PodFailurePolicy", counts.fail_job)
    if _exhausted(spec, counts):
        return JobResult(*_FAILED, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    if deadline_left(job) <= 0:
        return JobResult(*_FAILED, "DeadlineExceeded", "Job was active longer than specified deadline")
    early_end = _result_by_index(job, counts)
    if early_end:
        return early_end
    if counts.active or counts.total("succeeded") < spec.get("completions", 1):
        return None
    return JobResult(*_COMPLETE, "CompletionsReached", "Reached expected number of succeeded pods")


def _result_by_index(job: Object, counts: PodCounts) -> JobResult | None:
    """Return how an Indexed Job ends because of the indexes that have failed or succeeded, or None."""
    spec = job["spec"]
    if counts.failed_indexes:
        failed = len(counts.failed_indexes)
        if failed > spec.get("maxFailedIndexes", math.inf):
            message = "Job has exceeded the specified maximal number of failed indexes"
            return JobResult(*_FAILED, "MaxFailedIndexesExceeded", message)
        if failed + len(counts.completed) >= spec["completions"]:
            return JobResult(*_FAILED, "FailedIndexes", "Job has failed indexes")
    rule = matched_success_rule(job, counts.completed)
    if rule is None:
        return None
    return JobResult(*_COMPLETE, "SuccessPolicy", f"Matched rules at index {rule}")


def _exhausted(spec: dict[str, Any], counts: PodCounts) -> bool:
    """Return whether more pods, or containers in pods, have failed than ``backoffLimit`` allows."""
    limit = spec.get("backoffLimit", 6)
    if counts.total("failed") > limit:
        return True
    restarts = sum(int(each.get("restartCount") or 0) for pod in counts.active for each in containers(pod))
    return bool(spec["template"]["spec"].get("restartPolicy") == "OnFailure" and restarts >= max(limit, 1))


def deadline_left(job: Object) -> float:
    """Return the seconds until activeDeadlineSeconds is over; infinite if there is no deadline or start time."""
    limit = job["spec"].get("activeDeadlineSeconds")
    start = (job.get("status") or {}).get("startTime")
    if limit is None or not start or job["spec"].get("suspend"):
        return math.inf
    return float(limit - times.age(start))


def wanted_active(job: Object, counts: PodCounts) -> int:
    """Return the number of pods that should be running."""
    parallelism = job["spec"].get("parallelism", 1)
    completions = job["spec"].get("completions")
    if completions is None:
        # Without completions, no pod is created once one has succeeded.
        return len(counts.active) if counts.total("succeeded") else int(parallelism)
    return max(0, min(int(completions) - counts.total("succeeded"), int(parallelism)))


def surplus(job: Object, active: list[Object], wanted: int) -> list[Object]:
    """Return the active pods to delete.

    Pods whose index no longer exists come first, then pods with the least progress.
    """
    removed = [pod for pod in active if is_indexed(job) and completion_index(pod) >= job["spec"]["completions"]]

    def progress(pod: Object) -> tuple[Any, ...]:
        phase = (pod.get("status") or {}).get("phase")
        created = times.seconds(pod["metadata"]["creationTimestamp"])
        return pod not in removed, "nodeName" in pod["spec"], phase == "Running", is_ready(pod), -created

    return sorted(active, key=progress)[: max(len(active) - wanted, len(removed))]


def build_status(counts: PodCounts, conditions: list[dict[str, Any]], start: str | None) -> dict[str, Any]:
    """Return the Job's status. Fields that Kubernetes omits when they are zero are omitted."""
    status: dict[str, Any] = {"conditions": conditions} if conditions else {}
    if start:
        status["startTime"] = start
    for condition in conditions:
        if condition["type"] == "Complete":
            status["completionTime"] = condition["lastTransitionTime"]
    numbers = {"active": len(counts.active), **counts.counted}
    status |= {name: number for name, number in numbers.items() if number}
    status["terminating"] = len(counts.terminating)
    if counts.completed:
        status["completedIndexes"] = format_indexes(counts.completed)
    if counts.failed_indexes is not None:
        status["failedIndexes"] = format_indexes(counts.failed_indexes)
    status["uncountedTerminatedPods"] = {kind: uids for kind, uids in counts.uncounted.items() if uids}
    status["ready"] = sum(map(is_ready, counts.active))
    return status


def new_condition(kind: str, reason: str, message: str, status: str = "True") -> dict[str, Any]:
    """Return a condition with the current time."""
    now = times.now()
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastProbeTime": now,
        "lastTransitionTime": now,
    }


def with_condition(conditions: list[dict[str, Any]], condition: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the conditions with one added. It replaces a condition of the same type."""
    if all(each["type"] != condition["type"] for each in conditions):
        return [*conditions, condition]
    return [condition if each["type"] == condition["type"] else each for each in conditions]
