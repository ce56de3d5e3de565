"""What goes by itself after a while: finished Jobs with ``ttlSecondsAfterFinished``, and events."""

from __future__ import annotations

from aksgpu.local.control import times
from aksgpu.local.control.jobstatus import ended
from aksgpu.local.control.runtime import Cluster, Controller, Worker, condition
from aksgpu.local.objects import Object

EVENT_SECONDS = 3600.0
"""Events are kept for an hour, as a real API server does."""
_ROUND = 60.0


class FinishedJobs(Controller):
    """Deletes finished Jobs when their time is over."""

    resource = "jobs"

    async def sync(self, key: str) -> float | None:
        """Delete one Job, or say when to look again."""
        job = self.informer.get(key)
        limit = job["spec"].get("ttlSecondsAfterFinished") if job else None
        if job is None or limit is None or not ended(job) or job["metadata"].get("deletionTimestamp"):
            return None
        end = condition(job, "Complete") or condition(job, "Failed")
        left = float(limit) - times.age(end.get("lastTransitionTime"))
        if left > 0:
            return left
        await self.cluster.delete("jobs", job, propagation_policy="Foreground")
        return None


class OldEvents(Worker):
    """Deletes events that are an hour old. Its one key is the empty one."""

    workers = 1

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.queue.add("")

    async def sync(self, key: str) -> float | None:
        """Look through all events."""
        found, _ = await self.cluster.objects.list("events")
        for event in found:
            if times.age(_last(event)) > EVENT_SECONDS:
                await self.cluster.delete("events", event)
        return _ROUND


def _last(event: Object) -> str:
    series = event.get("series") or {}
    last = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return str(last or event["metadata"]["creationTimestamp"])
