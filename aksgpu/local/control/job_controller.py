"""The Job controller: creates a Job's pods, replaces failed ones after a pause, counts them and ends the Job.

The rules are in :mod:`aksgpu.local.control.job_accounting`. This module reads and writes the API, in an order that is
safe if the process is killed at any point. A finished Job is deleted after its ``ttlSecondsAfterFinished``.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable
from typing import Any

from aksgpu.common import times
from aksgpu.local.control import job_accounting
from aksgpu.local.control.controller_runtime import Cluster, get_condition, run_all
from aksgpu.local.control.informer import object_key
from aksgpu.local.control.job_accounting import TRACKING_FINALIZER, JobResult, PodCounts
from aksgpu.local.control.job_backoff import PodEndings, seconds_left_for_index
from aksgpu.local.control.job_indexes import (
    INDEX_LABEL,
    completion_index,
    failure_annotations,
    has_limit_per_index,
    is_indexed,
)
from aksgpu.local.control.pod_control import PodController, controller_of, from_template
from aksgpu.local.objects import Object

_DEADLINE_MARGIN = 0.05
"""Seconds between a Job's deadline and its sync, so that the deadline has passed by then."""
_GENERATED_NAME_BYTES = 58
"""Bytes of a generated name without its five random characters."""
_INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
_MAX_CREATES_PER_SYNC = 500
"""Pods that are created before the status is written. The next sync creates more."""
_BATCH_DELAY = 1.0
"""Seconds, before the time scale, for which changes of a Job's pods and status are collected until the Job is synced.

A Job that is new or has a new spec is synced at once.
"""
_MANAGER = "kubernetes.io/job-controller"
"""The value of ``managedBy`` of the Jobs that this controller runs, besides those without one."""


def new_pod(job: Object, index: int | None = None, replaced: Object | None = None) -> Object:
    """Return a new pod of a Job.

    Args:
        job: the Job.
        index: the completion index, if the Job is an Indexed one.
        replaced: the failed pod of the index that the new one replaces.
    """
    pod = from_template(job)
    meta = pod["metadata"]
    spec = pod["spec"]
    meta["finalizers"] = [*meta.get("finalizers", ()), TRACKING_FINALIZER]
    if index is None:
        return pod
    for each in ("labels", "annotations"):
        meta.setdefault(each, {})[INDEX_LABEL] = str(index)
    if has_limit_per_index(job):
        meta["annotations"] |= failure_annotations(job, replaced)
    name = job["metadata"]["name"]
    suffix = f"-{index}-"
    meta["generateName"] = f"{name[: _GENERATED_NAME_BYTES - len(suffix)]}{suffix}"
    spec["hostname"] = f"{name}-{index}"
    source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX_LABEL}']"}}
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        variables = container.setdefault("env", [])
        if all(each["name"] != _INDEX_VARIABLE for each in variables):
            variables.append({"name": _INDEX_VARIABLE, "valueFrom": source})
    return pod


class JobController(PodController):
    """Runs Jobs to completion."""

    resource = "jobs"
    kind = "Job"
    component = "job-controller"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._endings: dict[str, PodEndings] = {}
        """When the pods of running Jobs ended, by the Job's key."""

    def change_delay(self, old: Object | None, new: Object | None) -> float:
        """Return the seconds to wait after a change: none if a Job is created or deleted or has a new spec."""
        if old is None or new is None:
            is_urgent = (old or new or {}).get("kind") == "Job"
        else:
            is_urgent = old["metadata"].get("generation") != new["metadata"].get("generation")
        return 0.0 if is_urgent else _BATCH_DELAY * self.cluster.settings.time_scale

    def owner_key(self, pod: Object) -> str:
        """Return the key of the Job that a pod belongs to, even if the Job was deleted with Orphan."""
        meta = pod["metadata"]
        if not controller_of(pod) and TRACKING_FINALIZER in (meta.get("finalizers") or ()):
            return f"{meta['namespace']}/{(meta.get('labels') or {}).get('batch.kubernetes.io/job-name', '')}"
        return super().owner_key(pod)

    async def sync(self, key: str) -> float | None:
        """Create, delete and count the pods of one Job, or delete the Job after its time to live."""
        job = self.informer.get(key)
        uid = job["metadata"]["uid"] if job else None
        pods = [pod for pod in self.pods[key] if job and controller_of(pod).get("uid") == uid]
        others = [pod for pod in self.pods[key] if not job or controller_of(pod).get("uid") != uid]
        await self._remove_finalizers(others)
        if job is None or job_accounting.end_condition(job):
            self._endings.pop(key, None)
        if job is None:
            return None
        if not job_accounting.end_condition(job):
            is_own = job["spec"].get("managedBy", _MANAGER) == _MANAGER
            return await self._sync_running(job, pods) if is_own else None
        await self._remove_finalizers(pods)
        time_to_live = job["spec"].get("ttlSecondsAfterFinished")
        if time_to_live is None or job["metadata"].get("deletionTimestamp"):
            return None
        remaining = float(time_to_live - times.age(job_accounting.end_condition(job)["lastTransitionTime"]))
        if remaining <= 0:
            await self.cluster.delete("jobs", job, propagation_policy="Foreground")
            return None
        return remaining

    async def _sync_running(self, job: Object, pods: list[Object]) -> float:
        counts = job_accounting.count_pods(job, pods)
        self._pod_endings(job).observe(counts.ended)
        end = job_accounting.job_result(job, counts)
        if end or job["metadata"].get("deletionTimestamp"):
            job_accounting.count_delayed(job, counts)
        start, conditions = self._suspension(job, end)
        delay = math.inf
        try:
            if end:
                if end.final == "Complete":
                    # Pods that are no longer needed do not count as failed.
                    await self._remove_finalizers(counts.active)
                else:
                    job_accounting.count_unfinished(job, counts)
                await self._delete_active(job, counts, counts.active)
            elif job["spec"].get("suspend"):
                # Pods without their finalizer do not count as failed.
                await self._remove_finalizers(counts.active)
                await self._delete_active(job, counts, counts.active)
            elif not job["metadata"].get("deletionTimestamp"):
                delay = await self._scale(job, counts)
        finally:  # The status counts the pods that exist, even if the server refused a write.
            job = await self._write_status(job, counts, conditions, start, end)
        if end:
            return delay
        return min(delay, job_accounting.deadline_left(job) + _DEADLINE_MARGIN)

    def _suspension(self, job: Object, end: JobResult | None) -> tuple[str | None, list[dict[str, Any]]]:
        """Return the Job's start time and conditions, updated if it has just been suspended or resumed."""
        status = job.get("status") or {}
        suspend = bool(job["spec"].get("suspend"))
        start = status.get("startTime")
        conditions = list(status.get("conditions") or ())
        was_suspended = get_condition(job, "Suspended").get("status") == "True"
        if not end and suspend != was_suspended:
            reason = "Suspended" if suspend else "Resumed"
            message = f"Job {reason.lower()}"
            self.record_event(job, "Normal", reason, message)
            condition = job_accounting.new_condition("Suspended", f"Job{reason}", message, str(suspend))
            conditions = job_accounting.with_condition(conditions, condition)
            start = None  # A resumed Job gets a new start time.
        if not suspend and not start:
            start = times.now()
        return start, conditions

    # Pods

    def _pod_endings(self, job: Object) -> PodEndings:
        """Return the times at which this controller saw pods of a Job end."""
        key = object_key(job)
        uid = job["metadata"]["uid"]
        if key not in self._endings or self._endings[key].job_uid != uid:
            self._endings[key] = PodEndings(uid)
        return self._endings[key]

    async def _scale(self, job: Object, counts: PodCounts) -> float:
        """Create or delete pods. Returns the seconds until a failed pod may be replaced."""
        wanted = job_accounting.wanted_active(job, counts)
        surplus = job_accounting.surplus(job, counts.active, wanted)
        if surplus:
            await self._remove_finalizers(surplus)
            await self._delete_active(job, counts, surplus)
        missing = wanted - len(counts.active)
        if job_accounting.replaces_only_failed(job):
            missing -= len(counts.terminating)
        if missing <= 0:
            return math.inf
        has_more = missing > _MAX_CREATES_PER_SYNC
        missing = min(missing, _MAX_CREATES_PER_SYNC)
        if is_indexed(job):
            indexes, delay = self._indexes_to_create(job, counts, missing)
        else:
            delay = self._pod_endings(job).seconds_left(time.time(), self.cluster.settings.time_scale)
            indexes = [] if delay > 0 else [None] * missing

        async def create(index: int | None) -> None:
            if self._is_unchanged(job):
                replaced = None if index is None else counts.delayed.get(index)
                counts.active.append(await self.create_pod(job, new_pod(job, index, replaced)))

        await run_all(map(create, indexes), slow_start=True)
        if delay > 0:
            return delay
        return 0.0 if has_more else math.inf

    def _indexes_to_create(self, job: Object, counts: PodCounts, missing: int) -> tuple[list[int | None], float]:
        """Return the indexes that get a pod now, and the seconds until others may get a pod.

        The seconds are 0 if no other index waits.
        """
        terminating = counts.terminating if job_accounting.replaces_only_failed(job) else []
        taken = {completion_index(pod) for pod in [*counts.active, *terminating]}
        taken |= counts.completed | (counts.failed_indexes or set())
        untaken = (index for index in range(job["spec"]["completions"]) if index not in taken)
        pending = list(itertools.islice(untaken, missing))
        now = time.time()
        scale = self.cluster.settings.time_scale
        if not has_limit_per_index(job):
            delay = self._pod_endings(job).seconds_left(now, scale)
            return [*pending] if delay <= 0 else [], max(0.0, delay)
        delays = {index: seconds_left_for_index(counts.delayed.get(index), now, scale) for index in pending}
        due = [index for index in pending if delays[index] <= 0]
        return [*due], min((delay for delay in delays.values() if delay > 0), default=0.0)

    def _is_unchanged(self, job: Object) -> bool:
        """Return whether the Job still exists with the same spec. Its status may have changed."""
        current = (self.informer.get(object_key(job)) or {}).get("metadata") or {}
        fields = ("uid", "generation", "deletionTimestamp")
        return all(current.get(field) == job["metadata"].get(field) for field in fields)

    async def _delete_active(self, job: Object, counts: PodCounts, pods: list[Object]) -> None:
        """Delete active pods."""
        await self.delete_pods(job, pods)
        counts.terminating += pods
        gone = {pod["metadata"]["uid"] for pod in pods}
        counts.active = [pod for pod in counts.active if pod["metadata"]["uid"] not in gone]

    # Status

    async def _write_status(
        self, job: Object, counts: PodCounts, conditions: list[dict[str, Any]], start: str | None, end: JobResult | None
    ) -> Object:
        """Write the status twice. In between, the finalizers of pods that have ended are removed."""
        if end and not get_condition(job, end.target):
            conditions = [*conditions, job_accounting.new_condition(end.target, end.reason, end.message)]
            counts.has_unsaved = True
        if counts.has_unsaved:
            job = await self.cluster.update_status("jobs", job, job_accounting.build_status(counts, conditions, start))
        await self._remove_finalizers(counts.to_release)
        if counts.to_release:
            counts.counted = {kind: counts.recorded(kind) for kind in counts.counted}
            counts.uncounted = {}
        is_final = end is not None and not counts.active and not counts.terminating
        if end and is_final:
            conditions = [*conditions, job_accounting.new_condition(end.final, end.reason, end.message)]
        job = await self.cluster.update_status("jobs", job, job_accounting.build_status(counts, conditions, start))
        if end and is_final and end.final == "Complete":
            self.record_event(job, "Normal", "Completed", "Job completed")
        elif end and is_final:
            self.record_event(job, "Warning", end.reason, end.message)
        return job

    async def _remove_finalizers(self, pods: Iterable[Object]) -> None:
        """Remove the tracking finalizer from pods. After a conflict, the next sync tries again."""
        informer = self.cluster.informer("pods")
        # A pod may have been deleted since it was counted. The patch needs its current version.
        current = [informer.get(object_key(pod)) or pod for pod in pods]
        held = [pod for pod in current if job_accounting.is_tracked(pod)]
        await run_all(self.cluster.remove_finalizer("pods", pod, TRACKING_FINALIZER) for pod in held)
