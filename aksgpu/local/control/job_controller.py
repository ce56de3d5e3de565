"""The Job controller: makes a Job's pods, replaces failed ones after a pause, counts them, and ends the Job.

What the numbers mean is in :mod:`aksgpu.local.control.job_accounting`; here are the reads and writes, in the order that
survives being killed in between. A finished Job goes when its ``ttlSecondsAfterFinished`` are over.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable
from typing import Any

from aksgpu.common import times
from aksgpu.local.control import job_accounting
from aksgpu.local.control.controller_runtime import get_condition, run_all
from aksgpu.local.control.informer import object_key
from aksgpu.local.control.job_accounting import INDEX_LABEL, TRACKING_FINALIZER, JobResult, PodCounts
from aksgpu.local.control.pod_control import PodController, controller_of, from_template
from aksgpu.local.objects import Object

_MAX_CREATES_PER_SYNC = 500
"""Pods made before the status is written; the next look at the Job makes more."""


def new_pod(job: Object, index: int | None = None) -> Object:
    """The next pod of a Job, with its completion index if it is an Indexed one."""
    pod = from_template(job)
    meta = pod["metadata"]
    spec = pod["spec"]
    meta["finalizers"] = [*meta.get("finalizers", ()), TRACKING_FINALIZER]
    if index is None:
        return pod
    for each in ("labels", "annotations"):
        meta.setdefault(each, {})[INDEX_LABEL] = str(index)
    meta["generateName"] = f"{meta['generateName'][:55]}{index}-"
    spec.setdefault("hostname", f"{job['metadata']['name']}-{index}"[:63])
    variable = {"name": "JOB_COMPLETION_INDEX"}
    source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX_LABEL}']"}}
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        variables = container.setdefault("env", [])
        if all(each["name"] != variable["name"] for each in variables):
            variables.append({**variable, "valueFrom": source})
    return pod


class JobController(PodController):
    """Runs Jobs to their end."""

    resource = "jobs"
    kind = "Job"
    component = "job-controller"

    def owner_key(self, pod: Object) -> str:
        """The key of the Job that a pod belongs to, or belonged to before it was deleted with Orphan."""
        meta = pod["metadata"]
        if not controller_of(pod) and TRACKING_FINALIZER in (meta.get("finalizers") or ()):
            return f"{meta['namespace']}/{(meta.get('labels') or {}).get('batch.kubernetes.io/job-name', '')}"
        return super().owner_key(pod)

    async def sync(self, key: str) -> float | None:
        """Bring one Job further."""
        job = self.informer.get(key)
        mine: list[Object] = []
        strays: list[Object] = []
        for pod in self.pods[key]:
            (mine if job and controller_of(pod).get("uid") == job["metadata"]["uid"] else strays).append(pod)
        await self._remove_finalizers(strays)
        if job is None:
            return None
        if not job_accounting.end_condition(job):
            return await self._sync_running(job, mine)
        await self._remove_finalizers(mine)
        limit = job["spec"].get("ttlSecondsAfterFinished")
        if limit is None or job["metadata"].get("deletionTimestamp"):
            return None
        left = float(limit - times.age(job_accounting.end_condition(job)["lastTransitionTime"]))
        if left <= 0:
            await self.cluster.delete("jobs", job, propagation_policy="Foreground")
        return max(left, 0.0) or None

    async def _sync_running(self, job: Object, pods: list[Object]) -> float:
        counts = job_accounting.count_pods(job, pods)
        end = job_accounting.job_result(job, counts)
        start, conditions = self._suspension(job, end)
        delay = math.inf
        try:
            if end:
                await self._delete_active(job, counts, counts.active)
            elif job["spec"].get("suspend"):
                await self._remove_finalizers(counts.active)  # pods without their finalizer do not count as failed
                await self._delete_active(job, counts, counts.active)
            elif not job["metadata"].get("deletionTimestamp"):
                delay = await self._scale(job, pods, counts)
        finally:  # the status tells of the pods there are, whatever was refused
            job = await self._count(job, counts, conditions, start, end)
        return min(delay, math.inf if end else job_accounting.deadline_left(job) + 0.05)

    def _suspension(self, job: Object, end: JobResult | None) -> tuple[str | None, list[dict[str, Any]]]:
        """The start time and conditions, after the Job was suspended or resumed if it was."""
        status = job.get("status") or {}
        suspend = bool(job["spec"].get("suspend"))
        start = status.get("startTime")
        conditions = list(status.get("conditions") or ())
        if not end and suspend != (get_condition(job, "Suspended").get("status") == "True"):
            done = "Suspended" if suspend else "Resumed"
            self.record_event(job, "Normal", done, f"Job {done.lower()}")
            conditions = [each for each in conditions if each["type"] != "Suspended"]
            conditions.append(
                job_accounting.new_condition("Suspended", f"Job{done}", f"Job {done.lower()}", str(suspend))
            )
            start = start if suspend else None  # it begins anew when it is resumed
        return start if suspend else start or times.now(), conditions

    # Pods come and go

    async def _scale(self, job: Object, pods: list[Object], counts: PodCounts) -> float:
        """Make or delete pods; the seconds until a failed one may be replaced."""
        wanted = job_accounting.wanted_active(job, counts)
        if surplus := job_accounting.surplus(job, counts.active, wanted):
            await self._remove_finalizers(surplus)
            await self._delete_active(job, counts, surplus)
        missing = wanted - len(counts.active)
        if job_accounting.replaces_only_failed(job):
            missing -= len(counts.terminating)
        if missing <= 0:
            return math.inf
        if (wait := job_accounting.backoff_left(pods, time.time(), self.cluster.settings.time_scale)) > 0:
            return wait
        indexes: Iterable[int | None] = itertools.repeat(None)
        if job_accounting.is_indexed(job):
            leaving = counts.terminating if job_accounting.replaces_only_failed(job) else []
            taken = {job_accounting.completion_index(pod) for pod in [*counts.active, *leaving]} | counts.completed
            indexes = (index for index in range(job["spec"]["completions"]) if index not in taken)

        async def make(index: int | None) -> None:
            if self._is_unchanged(job):
                counts.active.append(await self.make(job, new_pod(job, index)))

        await run_all(map(make, itertools.islice(indexes, min(missing, _MAX_CREATES_PER_SYNC))), slowly=True)
        return 0.0 if missing > _MAX_CREATES_PER_SYNC else math.inf

    def _is_unchanged(self, job: Object) -> bool:
        """Whether the Job is still there and wants the same; its status may have changed."""
        now = (self.informer.get(object_key(job)) or {}).get("metadata") or {}
        return all(now.get(each) == job["metadata"].get(each) for each in ("uid", "generation", "deletionTimestamp"))

    async def _delete_active(self, job: Object, counts: PodCounts, pods: list[Object]) -> None:
        """Delete pods that are active."""
        await self.remove(job, pods)
        counts.terminating += pods
        gone = {pod["metadata"]["uid"] for pod in pods}
        counts.active = [pod for pod in counts.active if pod["metadata"]["uid"] not in gone]

    # What the status says

    async def _count(
        self, job: Object, counts: PodCounts, conditions: list[dict[str, Any]], start: str | None, end: JobResult | None
    ) -> Object:
        """Write the status; pods that ended lose their finalizer between its two versions."""
        if end and not get_condition(job, end.target):
            conditions = [*conditions, job_accounting.new_condition(end.target, end.reason, end.message)]
            counts.has_unsaved = True
        if counts.has_unsaved:
            job = await self.cluster.update_status("jobs", job, job_accounting.build_status(counts, conditions, start))
        await self._remove_finalizers(counts.to_release)
        if counts.to_release:
            counts.counted = {kind: counts.total(kind) for kind in counts.counted}
            counts.uncounted = {}
        over = end is not None and not counts.active and not counts.terminating
        if end and over:
            conditions = [*conditions, job_accounting.new_condition(end.final, end.reason, end.message)]
        job = await self.cluster.update_status("jobs", job, job_accounting.build_status(counts, conditions, start))
        if end and over and end.final == "Complete":
            self.record_event(job, "Normal", "Completed", "Job completed")
        elif end and over:
            self.record_event(job, "Warning", end.reason, end.message)
        return job

    async def _remove_finalizers(self, pods: Iterable[Object]) -> None:
        """Take the finalizer off pods; a conflict is tried again with the next look."""
        held = [pod for pod in pods if TRACKING_FINALIZER in (pod["metadata"].get("finalizers") or ())]
        await run_all(self.cluster.remove_finalizer("pods", pod, TRACKING_FINALIZER) for pod in held)
