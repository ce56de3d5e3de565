"""The rules of a Job: how its pods are counted, and what follows for the Job. These are pure functions.

A pod that has ended is counted in three steps, so that it is counted exactly once even if the process is killed in
between. First its uid is added to ``status.uncountedTerminatedPods``. Then its finalizer is removed. Then the count
goes up and the uid is removed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aksgpu.common import times
from aksgpu.local.control.controller_runtime import get_condition, is_finished
from aksgpu.local.objects import Object

TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"
"""The finalizer that keeps a pod until its Job has counted it."""
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"

BACKOFF = 10.0
"""Seconds before the first replacement of a failed pod."""
MAX_BACKOFF = 600.0
"""Seconds before a later replacement, at most."""


class JobResult(NamedTuple):
    """How a Job ends: the condition that announces the end, the final condition, and the reason."""

    target: str
    final: str
    reason: str
    message: str


_FAILED = ("FailureTarget", "Failed")
_COMPLETE = ("SuccessCriteriaMet", "Complete")


def is_indexed(job: Object) -> bool:
    """Return whether the Job is an Indexed one: each completion has an index."""
    return bool(job["spec"].get("completionMode") == "Indexed")


def completion_index(pod: Object) -> int:
    """Return the completion index of a pod of an Indexed Job, or -1 if it has none."""
    return int((pod["metadata"].get("annotations") or {}).get(INDEX_LABEL, -1))


def replaces_only_failed(job: Object) -> bool:
    """Return whether a pod that is being deleted counts as failed and is replaced only once it has ended."""
    return bool(job["spec"].get("podReplacementPolicy") == "Failed")


def end_condition(job: Object) -> dict[str, Any]:
    """Return the condition Complete or Failed of a Job; empty if it has not ended."""
    return get_condition(job, "Complete") or get_condition(job, "Failed")


def parse_indexes(text: str | None) -> set[int]:
    """Parse ``1,3-5``."""
    numbers: set[int] = set()
    for part in filter(None, (text or "").split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def format_indexes(numbers: Iterable[int]) -> str:
    """Format indexes as ``1,3-5``. Three or more in a row are written as a range."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts: list[str] = []
    for run in runs:
        if len(run) > 2:
            parts.append(f"{run[0]}-{run[-1]}")
        else:
            parts += map(str, run)
    return ",".join(parts)


# Pods that have ended


def containers(pod: Object) -> list[dict[str, Any]]:
    """Return the statuses of all containers of a pod, init containers first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _terminated_state(container: Mapping[str, Any]) -> Mapping[str, Any]:
    return (container.get("state") or {}).get("terminated") or {}


def ended_at(pod: Object) -> float:
    """Return when a pod ended, in seconds since the epoch."""
    ends = [times.seconds(_terminated_state(container).get("finishedAt")) for container in containers(pod)]
    meta = pod["metadata"]
    return max(ends, default=0.0) or times.seconds(meta.get("deletionTimestamp") or meta.get("creationTimestamp"))


def backoff_left(pods: Iterable[Object], now: float, scale: float) -> float:
    """Return the seconds until a failed pod may be replaced: 10 after the first failure, then doubling up to 600.

    Only failures since the last success count. Timestamps in Kubernetes are in whole seconds.
    """
    failures = 0
    last = 0.0
    for when, phase in sorted((ended_at(pod), pod["status"]["phase"]) for pod in pods if is_finished(pod)):
        failures = 0 if phase == "Succeeded" else failures + 1
        last = when
    if not failures:
        return 0.0
    backoff = min(BACKOFF * 2.0 ** min(failures - 1, 10), MAX_BACKOFF)
    return last + scale * backoff - now


def failure_policy_action(job: Object, pod: Object) -> tuple[str, str]:
    """Return the action of the Job's pod failure policy for a failed pod, and the reason.

    The action is ``Count`` if no rule matches.
    """
    for number, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or ()):
        reason = _matches(rule, pod)
        if reason:
            return rule["action"], f"{reason} matching {rule['action']} rule at index {number}"
    return "Count", ""


def _matches(rule: Mapping[str, Any], pod: Object) -> str:
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    codes = rule.get("onExitCodes")
    if codes:
        for container in containers(pod):
            code = _terminated_state(container).get("exitCode", 0)
            is_named = codes.get("containerName") in (None, container["name"])
            if code and is_named and (code in codes["values"]) == (codes["operator"] == "In"):
                return f"Container {container['name']} for pod {name} failed with exit code {code}"
    for pattern in rule.get("onPodConditions") or ():
        if get_condition(pod, pattern["type"]).get("status") == pattern.get("status", "True"):
            return f"Pod {name} has condition {pattern['type']}"
    return ""


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
    to_release: list[Object] = field(default_factory=list)
    """Pods whose finalizer is removed once the status has their uid."""
    has_unsaved: bool = False
    """Whether there are uids or indexes that the status does not have yet."""
    fail_job: str = ""
    """Why the pod failure policy fails the Job; empty if it does not."""

    def total(self, kind: str) -> int:
        """Return how many pods ended in this way, whether the status counts them already or not."""
        return self.counted[kind] + len(self.uncounted[kind])


def count_pods(job: Object, pods: list[Object]) -> PodCounts:
    """Count the pods of a Job."""
    status = job.get("status") or {}
    tracked = {
        pod["metadata"]["uid"] for pod in pods if TRACKING_FINALIZER in (pod["metadata"].get("finalizers") or ())
    }
    counts = PodCounts(parse_indexes(status.get("completedIndexes")))
    for kind in ("succeeded", "failed"):
        known = (status.get("uncountedTerminatedPods") or {}).get(kind) or []
        counts.uncounted[kind] = [uid for uid in known if uid in tracked]
        counts.counted[kind] = int(status.get(kind) or 0) + len(known) - len(counts.uncounted[kind])
    for pod in pods:
        phase = (pod.get("status") or {}).get("phase", "")
        is_deleted = bool(pod["metadata"].get("deletionTimestamp"))
        if not is_finished(pod):
            (counts.terminating if is_deleted else counts.active).append(pod)
        has_ended = is_finished(pod) or (is_deleted and not replaces_only_failed(job))
        if has_ended and pod["metadata"]["uid"] in tracked:
            counts.to_release.append(pod)
            _count(job, pod, phase, counts)
    if is_indexed(job):  # The number of completions may have been reduced.
        counts.completed = {index for index in counts.completed if index < job["spec"]["completions"]}
        counts.counted["succeeded"] = len(counts.completed)
    return counts


def _count(job: Object, pod: Object, phase: str, counts: PodCounts) -> None:
    """Count one pod that has ended or is being deleted."""
    if phase == "Succeeded" and is_indexed(job):
        counts.has_unsaved |= completion_index(pod) not in counts.completed
        counts.completed.add(completion_index(pod))
        return
    action, why = failure_policy_action(job, pod) if phase == "Failed" else ("Count", "")
    if action == "FailJob":
        counts.fail_job = counts.fail_job or why
    uids = counts.uncounted["succeeded" if phase == "Succeeded" else "failed"]
    if action != "Ignore" and pod["metadata"]["uid"] not in uids:
        uids.append(pod["metadata"]["uid"])
        counts.has_unsaved = True


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
    if counts.active or counts.total("succeeded") < spec.get("completions", 1):
        return None
    return JobResult(*_COMPLETE, "CompletionsReached", "Reached expected number of succeeded pods")


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
    """Return how many pods should run."""
    parallelism = job["spec"].get("parallelism", 1)
    completions = job["spec"].get("completions")
    if completions is None:
        # Without completions, no pod is created once one has succeeded.
        return len(counts.active) if counts.total("succeeded") else int(parallelism)
    return max(0, min(int(completions) - counts.total("succeeded"), int(parallelism)))


def surplus(job: Object, active: list[Object], wanted: int) -> list[Object]:
    """Return the active pods to delete.

    Those whose index no longer exists come first, then those that have made the least progress.
    """
    removed = [pod for pod in active if is_indexed(job) and completion_index(pod) >= job["spec"]["completions"]]

    def progress(pod: Object) -> tuple[Any, ...]:
        phase = (pod.get("status") or {}).get("phase")
        is_ready = get_condition(pod, "Ready").get("status") == "True"
        created = times.seconds(pod["metadata"]["creationTimestamp"])
        return pod not in removed, "nodeName" in pod["spec"], phase == "Running", is_ready, -created

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
    status["uncountedTerminatedPods"] = {kind: uids for kind, uids in counts.uncounted.items() if uids}
    status["ready"] = sum(get_condition(pod, "Ready").get("status") == "True" for pod in counts.active)
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
