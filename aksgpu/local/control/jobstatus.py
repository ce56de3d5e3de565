"""The arithmetic of a Job: which pods count as what, and what follows for the Job. Pure functions.

A pod that ended is counted in three steps, so that it is counted once whatever happens in between: its uid goes into
``status.uncountedTerminatedPods``; its finalizer goes; the number goes up and the uid out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aksgpu.local.control import times
from aksgpu.local.control.jobpods import TRACKING, index_failures, index_of, restarts, ruling
from aksgpu.local.control.runtime import condition, finished
from aksgpu.local.objects import Object


class Verdict(NamedTuple):
    """How a Job ends."""

    failed: bool
    reason: str
    message: str

    @property
    def target(self) -> str:
        """The condition that announces the end."""
        return "FailureTarget" if self.failed else "SuccessCriteriaMet"

    @property
    def final(self) -> str:
        """The condition that says that it has come."""
        return "Failed" if self.failed else "Complete"


SUCCESS = Verdict(False, "CompletionsReached", "Reached expected number of succeeded pods")


def indexed(job: Object) -> bool:
    """Whether each completion has a number of its own."""
    return bool(job["spec"].get("completionMode") == "Indexed")


def replaces_only_failed(job: Object) -> bool:
    """Whether a pod that is being deleted is replaced only once it has ended."""
    return bool(job["spec"].get("podReplacementPolicy") == "Failed" or job["spec"].get("podFailurePolicy"))


def ended(job: Object) -> bool:
    """Whether the Job is complete or failed."""
    return any(condition(job, kind).get("status") == "True" for kind in ("Complete", "Failed"))


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


@dataclass
class Tally:
    """A Job's pods, counted."""

    active: list[Object] = field(default_factory=list)
    terminating: list[Object] = field(default_factory=list)
    succeeded: int = 0
    failed: int = 0
    """Pods that ended, whether the status has them already or not."""
    uncounted: dict[str, list[str]] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    """What the status may say: pods that ended and have lost their finalizer."""
    to_release: list[Object] = field(default_factory=list)
    """Pods whose finalizer goes once the status has their uid."""
    fresh: bool = False
    """Whether there are uids that the status does not have yet."""
    completed: set[int] = field(default_factory=set)
    failed_indexes: set[int] = field(default_factory=set)
    fail_job: str = ""
    """Why the pod failure policy ends the Job; empty when it does not."""

    @property
    def ready(self) -> int:
        """Active pods that are ready."""
        return sum(condition(pod, "Ready").get("status") == "True" for pod in self.active)


def failed_pod(job: Object, pod: Object) -> bool:
    """Whether a pod counts as failed; one that is being deleted does, unless the Job waits for its end."""
    phase = (pod.get("status") or {}).get("phase")
    if phase == "Failed":
        return True
    leaving = bool(pod["metadata"].get("deletionTimestamp")) and phase != "Succeeded"
    return leaving and not replaces_only_failed(job)


def tally(job: Object, pods: list[Object]) -> Tally:
    """Count a Job's pods."""
    status, spec = job.get("status") or {}, job["spec"]
    held = {pod["metadata"]["uid"]: pod for pod in pods if TRACKING in (pod["metadata"].get("finalizers") or ())}
    known = status.get("uncountedTerminatedPods") or {}
    sums = Tally(completed=parse_indexes(status.get("completedIndexes")))
    sums.failed_indexes = parse_indexes(status.get("failedIndexes"))
    for kind in ("succeeded", "failed"):
        uids = known.get(kind) or []
        sums.uncounted[kind] = [uid for uid in uids if uid in held]
        sums.counted[kind] = int(status.get(kind) or 0) + len(uids) - len(sums.uncounted[kind])
    for pod in pods:
        _count(job, pod, held, sums)
    sums.to_release = [pod for uid, pod in held.items() if _is_over(job, pod)]
    if indexed(job):
        sums.succeeded = len(sums.completed)
        sums.counted["succeeded"], sums.uncounted["succeeded"] = sums.succeeded, []
    else:
        sums.succeeded = sums.counted["succeeded"] + len(sums.uncounted["succeeded"])
    sums.failed = sums.counted["failed"] + len(sums.uncounted["failed"])
    sums.failed_indexes -= sums.completed
    sums.completed = {number for number in sums.completed if number < int(spec.get("completions") or 0)}
    return sums


def _is_over(job: Object, pod: Object) -> bool:
    return finished(pod) or failed_pod(job, pod)


def _count(job: Object, pod: Object, held: dict[str, Object], sums: Tally) -> None:
    meta, phase = pod["metadata"], (pod.get("status") or {}).get("phase")
    uid, leaving = meta["uid"], bool(meta.get("deletionTimestamp"))
    if not finished(pod):
        (sums.terminating if leaving else sums.active).append(pod)
    if not _is_over(job, pod) or uid not in held:
        return
    index = index_of(pod)
    if phase == "Succeeded":
        if index is not None:
            sums.completed.add(index)
        _announce(sums, "succeeded", uid)
        return
    ruled = ruling(job, pod) if phase == "Failed" else None
    action = ruled.action if ruled else "Count"
    if ruled and action == "FailJob":
        sums.fail_job = sums.fail_job or ruled.message
    if action == "Ignore":
        return
    limit = job["spec"].get("backoffLimitPerIndex")
    if index is not None and limit is not None and (action == "FailIndex" or index_failures(pod) >= limit):
        sums.failed_indexes.add(index)
    _announce(sums, "failed", uid)


def _announce(sums: Tally, kind: str, uid: str) -> None:
    if uid not in sums.uncounted[kind]:
        sums.uncounted[kind].append(uid)
        sums.fresh = True


def verdict(job: Object, sums: Tally) -> Verdict | None:
    """How the Job ends, or None while it goes on. Deadlines are judged by :func:`deadline_left`."""
    spec = job["spec"]
    for failed, kind in ((True, "FailureTarget"), (False, "SuccessCriteriaMet")):
        if (announced := condition(job, kind)).get("status") == "True":
            return Verdict(failed, announced.get("reason", ""), announced.get("message", ""))
    if sums.fail_job:
        return Verdict(True, "PodFailurePolicy", sums.fail_job)
    if _exhausted(spec, sums):
        return Verdict(True, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    left = deadline_left(job)
    if left is not None and left <= 0:
        return Verdict(True, "DeadlineExceeded", "Job was active longer than specified deadline")
    return _completion(spec, sums)


def _exhausted(spec: dict[str, Any], sums: Tally) -> bool:
    limit = spec.get("backoffLimit")
    limit = 6 if limit is None else int(limit)
    if sums.failed > limit:
        return True
    if spec["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    again = sum(restarts(pod) for pod in sums.active)
    return again > 0 if limit == 0 else again >= limit


def _completion(spec: dict[str, Any], sums: Tally) -> Verdict | None:
    most = spec.get("maxFailedIndexes")
    if most is not None and len(sums.failed_indexes) > most:
        text = "Job has exceeded the specified maximal number of failed indexes"
        return Verdict(True, "MaxFailedIndexesExceeded", text)
    wanted = spec.get("completions")
    if sums.active:
        return None
    if wanted is None:
        return SUCCESS if sums.succeeded > 0 else None
    if sums.succeeded >= wanted:
        return SUCCESS
    if sums.failed_indexes and sums.succeeded + len(sums.failed_indexes) >= wanted:
        return Verdict(True, "FailedIndexes", "Job has failed indexes")
    return None


def deadline_left(job: Object) -> float | None:
    """Seconds until activeDeadlineSeconds is over; None when there is none, or the Job has not started."""
    limit, start = job["spec"].get("activeDeadlineSeconds"), (job.get("status") or {}).get("startTime")
    if limit is None or not start or job["spec"].get("suspend"):
        return None
    return float(limit) - times.age(start)


def wanted_active(job: Object, sums: Tally) -> int:
    """How many pods should run."""
    spec = job["spec"]
    parallelism = spec.get("parallelism")
    parallelism = 1 if parallelism is None else int(parallelism)
    if spec.get("completions") is None:
        return len(sums.active) if sums.succeeded else parallelism
    done = sums.succeeded + len(sums.failed_indexes)
    return max(0, min(int(spec["completions"]) - done, parallelism))


def status_of(job: Object, sums: Tally, conditions: list[dict[str, Any]], start: str | None) -> dict[str, Any]:
    """The Job's status, with the fields that Kubernetes leaves out when they are zero left out."""
    status: dict[str, Any] = {"conditions": conditions} if conditions else {}
    if start:
        status["startTime"] = start
    if done := next((each for each in conditions if each["type"] == "Complete"), None):
        status["completionTime"] = done["lastTransitionTime"]
    numbers = {"active": len(sums.active), **sums.counted}
    status |= {name: number for name, number in numbers.items() if number}
    status["terminating"] = len(sums.terminating)
    if indexed(job):
        status |= {"completedIndexes": format_indexes(sums.completed)} if sums.completed else {}
        if job["spec"].get("backoffLimitPerIndex") is not None:
            status["failedIndexes"] = format_indexes(sums.failed_indexes)
    status["uncountedTerminatedPods"] = {kind: uids for kind, uids in sums.uncounted.items() if uids}
    status["ready"] = sums.ready
    return status


def new_condition(kind: str, reason: str, message: str, status: str = "True") -> dict[str, Any]:
    """A condition that came to be now."""
    now = times.now()
    return {
        "type": kind,
        "status": status,
        "lastProbeTime": now,
        "lastTransitionTime": now,
        "reason": reason,
        "message": message,
    }
