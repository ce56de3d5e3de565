"""How a Job stands, in one word and a reason, from the Job's and its pods' objects. Asks nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aksgpu._kube import pods as _pods

Object = Mapping[str, Any]


@dataclass(frozen=True)
class JobStatus:
    """How a Job stands.

    Attributes:
        phase: ``Pending`` (no pod runs yet), ``Running``, ``Complete``, ``Failed``, ``Suspended`` or ``Deleting``.
        reason: one word of Kubernetes', such as ``Unschedulable`` or ``BackoffLimitExceeded``; may be empty.
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


def of(job: Object, pods: Sequence[Object]) -> JobStatus:
    """The status of a Job.

    Args:
        job: the Job object.
        pods: its pods, oldest first; may be left out (empty) for Jobs that have ended.
    """
    status = job.get("status") or {}
    counts = {name: int(status.get(name) or 0) for name in ("active", "ready", "succeeded", "failed")}
    completions = job["spec"].get("completions") or job["spec"].get("parallelism") or 1
    phase, reason, message = _phase(job, status, pods)
    return JobStatus(phase, reason, message, **counts, completions=completions)


def _phase(job: Object, status: Object, pods: Sequence[Object]) -> tuple[str, str, str]:
    true = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    if "Complete" in true:
        return "Complete", "", ""
    if failed := true.get("Failed"):
        return "Failed", failed.get("reason") or "", failed.get("message") or ""
    if job["metadata"].get("deletionTimestamp"):
        return "Deleting", "", ""
    if job["spec"].get("suspend"):
        return "Suspended", "", ""
    states = [_pods.state(pod) for pod in pods if not _pods.ended(pod)]
    if any(state.word == "Running" for state in states):
        return "Running", "", ""
    if states:
        return "Pending", states[-1].word if states[-1].word != "Pending" else "", states[-1].message
    return ("Running" if status.get("ready") else "Pending"), "", ""
