"""The state of a Job as one word and a reason, from the objects of the Job and its pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from aksgpu.kube import job_facts, pod_facts
from aksgpu.kube.client import Object

__all__ = ["JobStatus"]

_DEFAULT_BACKOFF_LIMIT = 6
"""Pods that may fail before the Job does, if the manifest does not set ``backoffLimit``."""


class _Phase(NamedTuple):
    """A Job's phase, with Kubernetes' reason and message."""

    phase: str
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class JobStatus:
    """The state of a Job.

    Attributes:
        phase: ``Pending`` (no pod runs yet, or a further attempt has not begun), ``Running``, ``Complete``,
            ``Failed``, ``Suspended`` or ``Deleting``.
        reason: Kubernetes' reason, such as ``Unschedulable`` or ``BackoffLimitExceeded``; may be empty. While the phase
            is ``Running``: ``Completing`` or ``Failing`` after the Job's pods have ended, until the Job controller has
            recorded the result. That takes some seconds.
        message: Kubernetes' message; may be empty.
        active: pods that have not ended.
        ready: pods that run and are ready.
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

    @classmethod
    def from_objects(cls, job: Object, pods: Sequence[Object] | None) -> JobStatus:
        """Return the status of a Job.

        Args:
            job: the Job object.
            pods: its Pod objects, oldest first; None if they were not read.
        """
        status = job.get("status") or {}
        spec = job["spec"]
        phase = _phase(job, status, pods)
        return cls(
            phase=phase.phase,
            reason=phase.reason,
            message=phase.message,
            active=int(status.get("active") or 0),
            ready=int(status.get("ready") or 0),
            succeeded=int(status.get("succeeded") or 0),
            failed=int(status.get("failed") or 0),
            completions=spec.get("completions") or spec.get("parallelism") or 1,
        )

    @property
    def ended(self) -> bool:
        """Whether the Job is complete or has failed."""
        return self.phase in ("Complete", "Failed")

    def __str__(self) -> str:
        text = self.phase
        if self.completions > 1:
            text += f" {self.succeeded}/{self.completions}"
        if self.reason:
            text += f": {self.reason}"
        if self.message:
            text += f": {self.message}"
        return text


def _phase(job: Object, status: Mapping[str, Any], pods: Sequence[Object] | None) -> _Phase:
    conditions = job_facts.true_conditions(job)
    if "Complete" in conditions:
        return _Phase("Complete")
    if "Failed" in conditions:
        failed = conditions["Failed"]
        return _Phase("Failed", failed.get("reason") or "", failed.get("message") or "")
    if job["metadata"].get("deletionTimestamp"):
        return _Phase("Deleting")
    if job["spec"].get("suspend"):
        return _Phase("Suspended")
    states = [pod_facts.state(pod) for pod in pods or () if not pod_facts.ended(pod)]
    if any(state.word == "Running" for state in states):
        return _Phase("Running")
    if states:
        newest = states[-1]
        reason = "" if newest.word == "Pending" else newest.word
        return _Phase("Pending", reason, newest.message)
    if status.get("ready") and not pods:
        return _Phase("Running")
    if not pods and status.get("active"):
        return _Phase("Pending")
    return _after_the_pods(job, status, conditions, pods or ())


def _after_the_pods(
    job: Object, status: Mapping[str, Any], conditions: Mapping[str, Any], pods: Sequence[Object]
) -> _Phase:
    """Return the phase of a Job that has not ended, when all of its pods have."""
    if "SuccessCriteriaMet" in conditions:
        return _Phase("Running", "Completing")
    if "FailureTarget" in conditions:
        return _Phase("Running", "Failing", conditions["FailureTarget"].get("message") or "")
    succeeded = _count_ended(pods, status, "succeeded")
    failed = _count_ended(pods, status, "failed")
    spec = job["spec"]
    if succeeded and succeeded >= (spec.get("completions") or 1):
        message = "its pods have succeeded; the Job controller has not recorded it yet"
        return _Phase("Running", "Completing", message)
    if failed and failed > _backoff_limit(spec):
        message = "its last pod has failed; the Job controller has not recorded it yet"
        return _Phase("Running", "Failing", message)
    if failed:
        message = f"{failed} of its pods failed; another attempt begins after a pause"
        return _Phase("Pending", "BackOff", message)
    return _Phase("Pending")


def _count_ended(pods: Sequence[Object], status: Mapping[str, Any], result: str) -> int:
    """Return how many pods ended with a result, ``succeeded`` or ``failed``.

    The Job's own counts are used if no pod with this result is left. Pods that it has not counted yet are added.
    """
    phase = result.capitalize()
    left = [pod for pod in pods if (pod.get("status") or {}).get("phase") == phase]
    if left:
        return len(left)
    uncounted = (status.get("uncountedTerminatedPods") or {}).get(result) or ()
    return int(status.get(result) or 0) + len(uncounted)


def _backoff_limit(spec: Mapping[str, Any]) -> int:
    """Return how many pods may fail before the Job does."""
    limit = spec.get("backoffLimit")
    return _DEFAULT_BACKOFF_LIMIT if limit is None else int(limit)
