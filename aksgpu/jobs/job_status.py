"""The state of a Job in one word and a reason, from the objects of the Job and its pods. Sends nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aksgpu.common.kubernetes_objects import Object
from aksgpu.kube import pod_facts as _pods


@dataclass(frozen=True)
class JobStatus:
    """The state of a Job.

    Attributes:
        phase: ``Pending`` (no pod runs yet, or a further attempt has not begun), ``Running``, ``Complete``,
            ``Failed``, ``Suspended`` or ``Deleting``.
        reason: one word of Kubernetes', such as ``Unschedulable`` or ``BackoffLimitExceeded``; may be empty. While the
            Job is ``Running``: ``Completing`` or ``Failing`` after its pods have ended, until the Job controller has
            recorded the result; that takes some seconds.
        message: the cluster's own words; may be empty.
        active: pods that have not ended.
        ready: pods that run.
        succeeded: pods that succeeded.
        failed: pods that failed.
        completions: pods that must succeed.
    """

    phase: str
    reason: str = ""
    message: str = ""
    active: int = 0
    ready: int = 0
    succeeded: int = 0
    failed: int = 0
    completions: int = 1

    @property
    def ended(self) -> bool:
        """Whether it is complete or has failed."""
        return self.phase in ("Complete", "Failed")

    def __str__(self) -> str:
        done = f" {self.succeeded}/{self.completions}" if self.completions > 1 else ""
        why = ": ".join(filter(None, (self.reason, self.message)))
        return f"{self.phase}{done}" + (f": {why}" if why else "")


def of(job: Object, pods: Sequence[Object] | None) -> JobStatus:
    """Return the status of a Job.

    Args:
        job: the Job object.
        pods: its pods, oldest first; None if they were not read.
    """
    status = job.get("status") or {}
    counts = {name: int(status.get(name) or 0) for name in ("active", "ready", "succeeded", "failed")}
    completions = job["spec"].get("completions") or job["spec"].get("parallelism") or 1
    phase, reason, message = _phase(job, status, pods)
    return JobStatus(phase, reason, message, **counts, completions=completions)


def _phase(job: Object, status: Object, pods: Sequence[Object] | None) -> tuple[str, str, str]:
    true = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    if "Complete" in true:
        return "Complete", "", ""
    if failed := true.get("Failed"):
        return "Failed", failed.get("reason") or "", failed.get("message") or ""
    if job["metadata"].get("deletionTimestamp"):
        return "Deleting", "", ""
    if job["spec"].get("suspend"):
        return "Suspended", "", ""
    states = [_pods.state(pod) for pod in pods or () if not _pods.ended(pod)]
    if any(state.word == "Running" for state in states):
        return "Running", "", ""
    if states:
        return "Pending", states[-1].word if states[-1].word != "Pending" else "", states[-1].message
    if status.get("ready"):
        return "Running", "", ""
    if not pods and status.get("active"):
        return "Pending", "", ""
    return _after_the_pods(job, status, true, pods or ())


def _after_the_pods(
    job: Object, status: Object, true: Mapping[str, Any], pods: Sequence[Object]
) -> tuple[str, str, str]:
    """The phase of a Job that has not ended, when no pod of it is left that has not ended."""
    if "SuccessCriteriaMet" in true:
        return "Running", "Completing", ""
    if target := true.get("FailureTarget"):
        return "Running", "Failing", target.get("message") or ""
    uncounted = status.get("uncountedTerminatedPods") or {}
    succeeded = _ended_pods(pods, "Succeeded") or int(status.get("succeeded") or 0) + len(
        uncounted.get("succeeded") or ()
    )
    failed = _ended_pods(pods, "Failed") or int(status.get("failed") or 0) + len(uncounted.get("failed") or ())
    spec = job["spec"]
    if succeeded and succeeded >= (spec.get("completions") or 1):
        return "Running", "Completing", "its pods have succeeded; the Job controller has not recorded it yet"
    if failed and failed > _backoff_limit(spec):
        return "Running", "Failing", "its last pod has failed; the Job controller has not recorded it yet"
    if failed:
        return "Pending", "BackOff", f"{failed} of its pods failed; another attempt begins after a pause"
    return "Pending", "", ""


def _ended_pods(pods: Sequence[Object], phase: str) -> int:
    return sum((pod.get("status") or {}).get("phase") == phase for pod in pods)


def _backoff_limit(spec: Object) -> int:
    """How many pods may fail before the Job does; Kubernetes' default is 6."""
    limit = spec.get("backoffLimit")
    return 6 if limit is None else int(limit)
