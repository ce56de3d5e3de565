"""When and how a Job ended, as text for a warning or an error."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aksgpu.common import times
from aksgpu.errors import KubernetesError
from aksgpu.kube import job_facts, pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.logs.job_logs import job_pods
from aksgpu.waiting import deadline

__all__ = ["describe_ending"]

_READ_TIMEOUT = 5.0
"""Seconds that reading the exit code may take."""
_UNITS = {
    "day": 86400,
    "hour": 3600,
    "minute": 60,
}
"""Seconds of each unit, the largest first."""


def describe_ending(aks: HasKube, job: Object) -> str:
    """Return when and how a Job ended, such as ``ended 3 minutes ago with exit code 1``.

    Args:
        aks: the cluster. The exit code of a failed Job is read from its pods, for at most five seconds.
        job: the Job object.

    Returns:
        A clause without a subject; empty if the Job has not ended.
    """
    condition = job_facts.end_condition(job)
    if condition is None:
        return ""
    ended = f"ended {_time_ago(condition.get('lastTransitionTime'))}"
    if condition["type"] == "Complete":
        return f"{ended} and is complete"
    return f"{ended} {_failure(aks, job, condition)}"


def _failure(aks: HasKube, job: Object, condition: Mapping[str, Any]) -> str:
    """Return how a failed Job ended, such as ``with exit code 1 (BackoffLimitExceeded)``."""
    reason = condition.get("reason") or "Failed"
    try:
        with deadline(_READ_TIMEOUT):
            pods = job_pods(aks.kube, job)
    except KubernetesError:
        return f"and failed ({reason}; its exit code could not be read)"
    for pod in reversed(pods):
        failure = pod_facts.last_failure(pod)
        if failure:
            return f"with exit code {failure['exitCode']} ({reason})"
    return f"and failed ({reason})"


def _time_ago(timestamp: object) -> str:
    """Return a timestamp of the API server's as a time span, such as ``3 minutes ago``."""
    then = times.parse(timestamp)
    if then is None:
        return "at an unknown time"
    elapsed = datetime.now(UTC) - then
    return f"{_duration(elapsed.total_seconds())} ago"


def _duration(seconds: float) -> str:
    """Return a time span in the largest unit of which it has at least one, such as ``3 minutes``."""
    whole_seconds = max(0, int(seconds))
    for unit, size in _UNITS.items():
        if whole_seconds >= size:
            return _counted(whole_seconds // size, unit)
    return _counted(whole_seconds, "second")


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
