"""The pause before a failed pod of a Job is replaced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from aksgpu.common import times
from aksgpu.local.control.controller_runtime import get_condition, is_finished
from aksgpu.local.control.job_indexes import index_failures
from aksgpu.local.objects import Object

_FIRST_DELAY = 10.0
"""Seconds before the first replacement of a failed pod. Each further failure doubles the delay."""
_MAX_DELAY = 600.0
"""Longest delay, in seconds."""


def terminated_state(container: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return how a container ended; empty if it has not."""
    return (container.get("state") or {}).get("terminated") or {}


def ended_at(pod: Object) -> float:
    """Return when a pod ended or was deleted, in seconds since the epoch."""
    status = pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    ends = [times.seconds(terminated_state(container).get("finishedAt")) for container in containers]
    if any(ends):
        return max(ends)
    ready = get_condition(pod, "Ready")
    if ready.get("status") == "False" and ready.get("lastTransitionTime"):
        return times.seconds(ready["lastTransitionTime"])
    meta = pod["metadata"]
    if meta.get("deletionTimestamp"):
        return times.seconds(meta["deletionTimestamp"]) - float(meta.get("deletionGracePeriodSeconds") or 0)
    return times.seconds(meta.get("creationTimestamp"))


def _seconds(failures: int) -> float:
    """Return the delay after a number of consecutive failures."""
    return min(_FIRST_DELAY * 2.0 ** min(failures - 1, 10), _MAX_DELAY)


def seconds_left_for_index(failed: Object | None, now: float, scale: float) -> float:
    """Return the seconds until an index of a Job with limits per index may get a new pod.

    Args:
        failed: the last failed pod of the index, or None.
        now: the current time in seconds since the epoch.
        scale: the factor for simulated durations.
    """
    if failed is None:
        return 0.0
    return ended_at(failed) + scale * _seconds(index_failures(failed) + 1) - now


class _Ending(NamedTuple):
    when: float
    succeeded: bool


class PodEndings:
    """The times at which the pods of one Job ended. Pods that no longer exist are included.

    Args:
        job_uid: the Job's uid.
    """

    def __init__(self, job_uid: str) -> None:
        self.job_uid = job_uid
        self._endings: dict[str, _Ending] = {}

    def observe(self, pods: Iterable[Object]) -> None:
        """Remember the pods that have ended or are being deleted."""
        for pod in pods:
            if is_finished(pod) or pod["metadata"].get("deletionTimestamp"):
                succeeded = (pod.get("status") or {}).get("phase") == "Succeeded"
                self._endings.setdefault(pod["metadata"]["uid"], _Ending(ended_at(pod), succeeded))

    def seconds_left(self, now: float, scale: float) -> float:
        """Return the seconds until a failed pod may be replaced. Only failures since the last success count.

        Args:
            now: the current time in seconds since the epoch.
            scale: the factor for simulated durations.
        """
        failures = 0
        last = 0.0
        for ending in sorted(self._endings.values()):
            failures = 0 if ending.succeeded else failures + 1
            last = ending.when
        return last + scale * _seconds(failures) - now if failures else 0.0
