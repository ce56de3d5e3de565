"""The arithmetic of a Job: which pods count as what, and what follows for the Job. Pure functions.

A pod that ended is counted in three steps, so that it is counted once whatever happens in between: its uid goes into
``status.uncountedTerminatedPods``; its finalizer goes; the number goes up and the uid out.
"""

from __future__ import annotations

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
MAX_BACKOFF = 600.0
"""Seconds before the first and before every later replacement of a failed pod, at most."""


class JobResult(NamedTuple):
    """How a Job ends: the condition that announces it, the one that says that it has come, and why."""

    target: str
    final: str
    reason: str
    message: str


_FAILED = "FailureTarget", "Failed"
_COMPLETE = "SuccessCriteriaMet", "Complete"


def is_indexed(job: Object) -> bool:
    """Whether each completion has a number of its own."""
    return bool(job["spec"].get("completionMode") == "Indexed")


def completion_index(pod: Object) -> int:
    """The completion index of a pod of an Indexed Job."""
    return int((pod["metadata"].get("annotations") or {}).get(INDEX_LABEL, -1))


def replaces_only_failed(job: Object) -> bool:
    """Whether a pod that is being deleted counts as failed, and is replaced, only once it has ended."""
    return bool(job["spec"].get("podReplacementPolicy") == "Failed")


def end_condition(job: Object) -> dict[str, Any]:
    """The condition that says that the Job is complete or failed; empty while it is not."""
    return get_condition(job, "Complete") or get_condition(job, "Failed")


def parse_indexes(text: str | None) -> set[int]:
    """``1,3-5`` as a set."""
    numbers: set[int] = set()
    for part in filter(None, (text or "").split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def format_indexes(numbers: Iterable[int]) -> str:
    """``1,3-5``: three and more in a row are written as a range."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


# What a pod that ended means


def containers(pod: Object) -> list[dict[str, Any]]:
    """The statuses of all containers of a pod, init containers first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _terminated_state(container: Mapping[str, Any]) -> Mapping[str, Any]:
    return (container.get("state") or {}).get("terminated") or {}


def ended_at(pod: Object) -> float:
    """When the pod ended, in seconds since the epoch."""
    ends = [times.seconds(_terminated_state(container).get("finishedAt")) for container in containers(pod)]
    meta = pod["metadata"]
    return max(ends, default=0.0) or times.seconds(meta.get("deletionTimestamp") or meta.get("creationTimestamp"))


def backoff_left(pods: Iterable[Object], now: float, scale: float) -> float:
    """Seconds until a failed pod may be replaced: 10 after the first failure, then doubled, 600 at most.

    Counted are the failures since the last success. Times in Kubernetes have whole seconds.
    """
    failures = 0
    last = 0.0
    for when, phase in sorted((ended_at(pod), pod["status"]["phase"]) for pod in pods if is_finished(pod)):
        failures = 0 if phase == "Succeeded" else failures + 1
        last = when
    return last + scale * min(BACKOFF * 2.0 ** min(failures - 1, 10), MAX_BACKOFF) - now if failures else 0.0


def failure_policy_action(job: Object, pod: Object) -> tuple[str, str]:
    """What the Job's pod failure policy says to a failed pod: an action, ``Count`` when no rule matches, and why."""
    for number, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or ()):
        if why := _matches(rule, pod):
            return rule["action"], f"{why} matching {rule['action']} rule at index {number}"
    return "Count", ""


def _matches(rule: Mapping[str, Any], pod: Object) -> str:
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    if codes := rule.get("onExitCodes"):
        for container in containers(pod):
            code = _terminated_state(container).get("exitCode", 0)
            named = codes.get("containerName") in (None, container["name"])
            if code and named and (code in codes["values"]) == (codes["operator"] == "In"):
                return f"Container {container['name']} for pod {name} failed with exit code {code}"
    for wanted in rule.get("onPodConditions") or ():
        if get_condition(pod, wanted["type"]).get("status") == wanted.get("status", "True"):
            return f"Pod {name} has condition {wanted['type']}"
    return ""


# What the pods mean together


@dataclass
class PodCounts:
    """A Job's pods, counted."""

    completed: set[int]
    active: list[Object] = field(default_factory=list)
    terminating: list[Object] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    """What the status may say of ``succeeded`` and ``failed``: pods that ended and have lost their finalizer."""
    uncounted: dict[str, list[str]] = field(default_factory=dict)
    """Uids of the other pods that ended."""
    to_release: list[Object] = field(default_factory=list)
    """Pods whose finalizer goes once the status has their uid."""
    has_unsaved: bool = False
    """Whether there are uids or indexes that the status does not have yet."""
    fail_job: str = ""
    """Why the pod failure policy ends the Job; empty when it does not."""

    def total(self, kind: str) -> int:
        """Pods that ended in this way, whether the status has them already or not."""
        return self.counted[kind] + len(self.uncounted[kind])


def count_pods(job: Object, pods: list[Object]) -> PodCounts:
    """Count a Job's pods."""
    status = job.get("status") or {}
    held = {pod["metadata"]["uid"] for pod in pods if TRACKING_FINALIZER in (pod["metadata"].get("finalizers") or ())}
    counts = PodCounts(parse_indexes(status.get("completedIndexes")))
    for kind in ("succeeded", "failed"):
        known = (status.get("uncountedTerminatedPods") or {}).get(kind) or []
        counts.uncounted[kind] = [uid for uid in known if uid in held]
        counts.counted[kind] = int(status.get(kind) or 0) + len(known) - len(counts.uncounted[kind])
    for pod in pods:
        phase = (pod.get("status") or {}).get("phase", "")
        leaving = bool(pod["metadata"].get("deletionTimestamp"))
        if not is_finished(pod):
            (counts.terminating if leaving else counts.active).append(pod)
        over = is_finished(pod) or (leaving and not replaces_only_failed(job))
        if over and pod["metadata"]["uid"] in held:
            counts.to_release.append(pod)
            _count(job, pod, phase, counts)
    if is_indexed(job):  # of indexes that the Job no longer has, none counts
        counts.completed = {index for index in counts.completed if index < job["spec"]["completions"]}
        counts.counted["succeeded"] = len(counts.completed)
    return counts


def _count(job: Object, pod: Object, phase: str, counts: PodCounts) -> None:
    """Count one pod that ended, or is given up."""
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
    """How the Job ends, or None while it goes on."""
    spec = job["spec"]
    for ends in (_FAILED, _COMPLETE):
        if announced := get_condition(job, ends[0]):
            return JobResult(*ends, announced["reason"], announced["message"])
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
    """Whether more pods, or containers within pods, have failed than the Job's limit allows."""
    limit = spec.get("backoffLimit", 6)
    if counts.total("failed") > limit:
        return True
    restarts = sum(int(each.get("restartCount") or 0) for pod in counts.active for each in containers(pod))
    return bool(spec["template"]["spec"].get("restartPolicy") == "OnFailure" and restarts >= max(limit, 1))


def deadline_left(job: Object) -> float:
    """Seconds until activeDeadlineSeconds is over; infinite when there is none, or the Job has not started."""
    limit = job["spec"].get("activeDeadlineSeconds")
    start = (job.get("status") or {}).get("startTime")
    return limit - times.age(start) if limit is not None and start and not job["spec"].get("suspend") else float("inf")


def wanted_active(job: Object, counts: PodCounts) -> int:
    """How many pods should run."""
    parallelism = job["spec"].get("parallelism", 1)
    completions = job["spec"].get("completions")
    if completions is None:
        return len(counts.active) if counts.total("succeeded") else int(parallelism)
    return max(0, min(int(completions) - counts.total("succeeded"), int(parallelism)))


def surplus(job: Object, active: list[Object], wanted: int) -> list[Object]:
    """The active pods that are too many: indexes that the Job no longer has, then those that have done least."""
    beyond = [pod for pod in active if is_indexed(job) and completion_index(pod) >= job["spec"]["completions"]]

    def done(pod: Object) -> tuple[Any, ...]:
        phase = (pod.get("status") or {}).get("phase")
        ready = get_condition(pod, "Ready").get("status") == "True"
        made = times.seconds(pod["metadata"]["creationTimestamp"])
        return pod not in beyond, "nodeName" in pod["spec"], phase == "Running", ready, -made

    return sorted(active, key=done)[: max(len(active) - wanted, len(beyond))]


def build_status(counts: PodCounts, conditions: list[dict[str, Any]], start: str | None) -> dict[str, Any]:
    """The Job's status, with the fields that Kubernetes leaves out when they are zero left out."""
    status: dict[str, Any] = {"conditions": conditions} if conditions else {}
    if start:
        status["startTime"] = start
    if done := next((each for each in conditions if each["type"] == "Complete"), None):
        status["completionTime"] = done["lastTransitionTime"]
    numbers = {"active": len(counts.active), **counts.counted}
    status |= {name: number for name, number in numbers.items() if number}
    status["terminating"] = len(counts.terminating)
    if counts.completed:
        status["completedIndexes"] = format_indexes(counts.completed)
    status["uncountedTerminatedPods"] = {kind: uids for kind, uids in counts.uncounted.items() if uids}
    status["ready"] = sum(get_condition(pod, "Ready").get("status") == "True" for pod in counts.active)
    return status


def new_condition(kind: str, reason: str, message: str, status: str = "True") -> dict[str, Any]:
    """A condition that came to be now."""
    moments = dict.fromkeys(("lastProbeTime", "lastTransitionTime"), times.now())
    return {"type": kind, "status": status, "reason": reason, "message": message, **moments}
