"""Finished Jobs with ``ttlSecondsAfterFinished``: deleted when their time is over."""

from __future__ import annotations

from aksgpu.local.control import times
from aksgpu.local.control.jobstatus import ended
from aksgpu.local.control.runtime import Controller, condition


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
