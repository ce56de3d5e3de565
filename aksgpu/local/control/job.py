"""The Job controller: makes a Job's pods, replaces failed ones after a pause, counts them, and ends the Job.

What the numbers mean is in :mod:`aksgpu.local.control.jobstatus`, what pods look like in
:mod:`aksgpu.local.control.jobpods`; here are the reads and writes, in the order that survives being killed in between.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

from aksgpu.local.control import times
from aksgpu.local.control.events import Recorder
from aksgpu.local.control.informer import key_of
from aksgpu.local.control.jobpods import TRACKING, backoff_left, index_failures, index_of, new_pod
from aksgpu.local.control.jobstatus import (
    Tally,
    Verdict,
    deadline_left,
    ended,
    indexed,
    new_condition,
    replaces_only_failed,
    status_of,
    tally,
    verdict,
    wanted_active,
)
from aksgpu.local.control.runtime import Cluster, Controller, all_of, condition, controller_of
from aksgpu.local.objects import Object
from aksgpu.local.status import StatusError

COMPONENT = "job-controller"
_US = "kubernetes.io/job-controller"
_MOST_A_SYNC = 500
"""Pods made before the status is written; the next look at the Job makes more."""
_MOST_AT_ONCE = 32
"""Pods made before the Job is asked for again: it may have been deleted."""


def _job_key(pod: Object) -> str:
    """The key of the Job that a pod belongs, or belonged, to."""
    meta = pod["metadata"]
    owner = controller_of(pod)
    if owner.get("kind") == "Job":
        return f"{meta['namespace']}/{owner['name']}"
    if not owner and TRACKING in (meta.get("finalizers") or ()):  # left behind by a Job deleted with Orphan
        return f"{meta['namespace']}/{(meta.get('labels') or {}).get('batch.kubernetes.io/job-name', '')}"
    return ""


class JobController(Controller):
    """Runs Jobs to their end."""

    resource = "jobs"

    def __init__(self, cluster: Cluster, events: Recorder) -> None:
        super().__init__(cluster)
        self._events = events
        pods = cluster.informer("pods")
        self._pods = pods.index("job", _job_key)
        pods.on_change(self._pod_changed)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        for pod in (old, new):
            if pod and (key := _job_key(pod)):
                self.queue.add(key)

    async def sync(self, key: str) -> float | None:
        """Bring one Job further."""
        job = self.informer.get(key)
        uid = job["metadata"]["uid"] if job else None
        mine: list[Object] = []
        strays: list[Object] = []
        for pod in self._pods[key]:
            (mine if uid and controller_of(pod).get("uid") == uid else strays).append(pod)
        await self._release(strays)
        if job is None or job["spec"].get("managedBy", _US) != _US:
            return None
        if ended(job):
            await self._release(mine)
            return None
        return await self._advance(job, mine)

    async def _advance(self, job: Object, pods: list[Object]) -> float | None:
        sums = tally(job, pods)
        end = verdict(job, sums)
        start, conditions = self._suspension(job, end)
        delay, trouble = math.inf, None
        if end:
            await self._delete(job, sums, sums.active)
        elif job["spec"].get("suspend"):
            await self._dismiss(job, sums, sums.active)
        elif not job["metadata"].get("deletionTimestamp"):
            delay, trouble = await self._scale(job, pods, sums)
        job = await self._count(job, sums, conditions, start, end)
        if trouble:
            raise trouble
        left = None if end else deadline_left(job)
        return delay if left is None else min(delay, left + 0.05)

    def _suspension(self, job: Object, end: Verdict | None) -> tuple[str | None, list[dict[str, Any]]]:
        """The start time and conditions, after the Job was suspended or resumed if it was."""
        status = job.get("status") or {}
        start, conditions = status.get("startTime"), list(status.get("conditions") or ())
        before = condition(job, "Suspended").get("status")
        if end:
            return start or (None if job["spec"].get("suspend") else times.now()), conditions
        rest = [each for each in conditions if each["type"] != "Suspended"]
        if job["spec"].get("suspend"):
            if before != "True":
                self._events.tell(COMPONENT, job, "Normal", "Suspended", "Job suspended")
                conditions = [*rest, new_condition("Suspended", "JobSuspended", "Job suspended")]
            return None, conditions
        if before == "True":
            self._events.tell(COMPONENT, job, "Normal", "Resumed", "Job resumed")
            conditions = [*rest, new_condition("Suspended", "JobResumed", "Job resumed", "False")]
            return times.now(), conditions
        return start or times.now(), conditions

    # Pods come and go

    async def _scale(self, job: Object, pods: list[Object], sums: Tally) -> tuple[float, StatusError | None]:
        """Make or delete pods; the seconds until a failed one may be replaced, and what went wrong."""
        surplus = len(sums.active) - wanted_active(job, sums)
        if surplus > 0:
            await self._dismiss(job, sums, sorted(sums.active, key=_worth)[:surplus])
            return math.inf, None
        missing = -surplus - (len(sums.terminating) if replaces_only_failed(job) else 0)
        if missing <= 0:
            return math.inf, None
        wanted, delay = self._next(job, pods, sums, min(missing, _MOST_A_SYNC))
        results = await self._create_some(job, wanted)
        sums.active += [pod for pod in results if isinstance(pod, dict)]
        error = next((error for error in results if isinstance(error, StatusError)), None)
        return 0.0 if missing > len(results) == _MOST_A_SYNC else delay, error

    async def _create_some(
        self, job: Object, wanted: list[tuple[int | None, int | None]]
    ) -> list[Object | StatusError]:
        """Make pods: one, then two, then four; no more after an error, or when the Job is not as it was."""
        results: list[Object | StatusError] = []
        size = 1
        while len(results) < len(wanted) and self._stands(job):
            batch = wanted[len(results) : len(results) + size]
            results += await all_of(self._create(job, new_pod(job, *each)) for each in batch)
            if any(isinstance(each, StatusError) for each in results):
                break
            size = min(2 * size, _MOST_AT_ONCE)
        return results

    def _stands(self, job: Object) -> bool:
        """Whether the Job is still there and wants the same; its status may have changed."""
        now = self.informer.get(key_of(job))
        if now is None or now["metadata"]["uid"] != job["metadata"]["uid"]:
            return False
        return now["spec"] == job["spec"] and not now["metadata"].get("deletionTimestamp")

    def _next(
        self, job: Object, pods: list[Object], sums: Tally, missing: int
    ) -> tuple[list[tuple[int | None, int | None]], float]:
        """The next pods, each with its index and that index's failures so far; seconds until there may be more."""
        per_index = job["spec"].get("backoffLimitPerIndex") is not None
        if not per_index and (wait := self._backoff(pods)) > 0:
            return [], wait
        if not indexed(job):
            return [(None, None)] * missing, math.inf
        taken = {index_of(pod) for pod in sums.active} | sums.completed | sums.failed_indexes
        if replaces_only_failed(job):
            taken |= {index_of(pod) for pod in sums.terminating}
        free = (index for index in range(int(job["spec"]["completions"])) if index not in taken)
        if not per_index:
            return [(index, None) for index in itertools.islice(free, missing)], math.inf
        before: dict[int | None, list[Object]] = {}
        for pod in pods:
            before.setdefault(index_of(pod), []).append(pod)
        waits = {index: self._backoff(before.get(index, [])) for index in free}
        ready = [index for index, wait in waits.items() if wait <= 0][:missing]
        failures = {
            index: max((index_failures(pod) + 1 for pod in before.get(index, ())), default=0) for index in ready
        }
        return list(failures.items()), min((wait for wait in waits.values() if wait > 0), default=math.inf)

    def _backoff(self, pods: list[Object]) -> float:
        return backoff_left(pods, time.time(), self.cluster.settings.time_scale)

    async def _create(self, job: Object, pod: Object) -> Object | StatusError:
        try:
            made = await self.cluster.create("pods", pod, pod["metadata"]["namespace"])
        except StatusError as error:
            self._events.tell(COMPONENT, job, "Warning", "FailedCreate", f"Error creating: {error}")
            return error
        self._events.tell(COMPONENT, job, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        return made

    async def _dismiss(self, job: Object, sums: Tally, pods: list[Object]) -> None:
        """Delete pods that are not needed: without their finalizer they do not count as failed."""
        await self._release(pods)
        await self._delete(job, sums, pods)

    async def _delete(self, job: Object, sums: Tally, pods: list[Object]) -> None:
        if not pods:
            return
        await all_of(self.cluster.delete("pods", pod) for pod in pods)
        for pod in pods:
            name = pod["metadata"]["name"]
            self._events.tell(COMPONENT, job, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")
        gone = {pod["metadata"]["uid"] for pod in pods}
        sums.active = [pod for pod in sums.active if pod["metadata"]["uid"] not in gone]
        sums.terminating += pods

    # What the status says

    async def _count(
        self, job: Object, sums: Tally, conditions: list[dict[str, Any]], start: str | None, end: Verdict | None
    ) -> Object:
        """Write the status; pods that ended lose their finalizer between its two versions."""
        if end and not any(each["type"] == end.target for each in conditions):
            conditions = [*conditions, new_condition(end.target, end.reason, end.message)]
            sums.fresh = True
        if sums.fresh:
            job = await self._write(job, status_of(job, sums, conditions, start))
        if sums.to_release:
            await self._release(sums.to_release)
            for kind, uids in sums.uncounted.items():
                sums.counted[kind] += len(uids)
                sums.uncounted[kind] = []
        over = end is not None and not sums.active and not sums.terminating
        if end and over:
            conditions = [*conditions, new_condition(end.final, end.reason, end.message)]
        job = await self._write(job, status_of(job, sums, conditions, start))
        if end and over:
            news = ("Warning", end.reason, end.message) if end.failed else ("Normal", "Completed", "Job completed")
            self._events.tell(COMPONENT, job, *news)
        return job

    async def _write(self, job: Object, status: dict[str, Any]) -> Object:
        if status == job.get("status"):
            return job
        return await self.cluster.update("jobs", {**job, "status": status}, subresource="status")

    async def _release(self, pods: list[Object]) -> None:
        """Take the finalizer off pods; a conflict is tried again with the next look."""
        held = [pod for pod in pods if TRACKING in (pod["metadata"].get("finalizers") or ())]
        await all_of(self.cluster.remove_finalizer("pods", pod, TRACKING) for pod in held)


def _worth(pod: Object) -> tuple[bool, bool, str, str]:
    """Sorts pods: first those whose loss costs least, that is not placed, not ready, young."""
    placed = bool(pod["spec"].get("nodeName"))
    ready = condition(pod, "Ready").get("status") == "True"
    # Later times sort first when their characters are inverted.
    created = pod["metadata"].get("creationTimestamp") or ""
    return placed, ready, "".join(chr(255 - ord(each)) for each in created), key_of(pod)
