"""The scheduler: binds each pending pod to a node, or reports why no node can run it.

The filters are in :mod:`aksgpu.local.control.filters`, the cached state of the cluster is in
:mod:`aksgpu.local.control.scheduler_queue`, and this module reads and writes the API. A pod counts as assigned at once
and is bound in the background, so that a slow write does not delay other pods. The same applies to a pod that waits
until others have been preempted.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from aksgpu.common import times
from aksgpu.local.control.claim_topology import (
    SELECTED_NODE,
    ZONE_CONFLICT,
    ZONE_LABEL,
    claim_keys,
    is_bound,
    volume_requirements,
    waits_for_pod,
)
from aksgpu.local.control.controller_runtime import Cluster, Tasks, get_condition, is_finished, run_all
from aksgpu.local.control.filters import AssignedPod
from aksgpu.local.control.informer import object_key
from aksgpu.local.control.scheduler_queue import REPORT_INTERVAL, SCHEDULER, Placement, SchedulerQueue
from aksgpu.local.objects import Object
from aksgpu.local.status_error import StatusError, ignoring

log = logging.getLogger(__name__)

_MAX_WRITES = 64
"""Maximum number of bindings that are written at the same time."""
_MAX_REPORTS = 16
"""Maximum number of pending pods whose status is written at the same time."""
_BIND_SECONDS = 600.0
"""Timeout for the creation of a pod's volumes, before the time scale."""
_RETRY_DELAY = 1.0
"""Seconds before another attempt to bind a pod."""


class _VolumeError(Exception):
    """The volumes of a pod cannot be used on the node that was chosen."""


class Scheduler:
    """Binds pods of ``default-scheduler`` to nodes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._claims = cluster.informer("persistentvolumeclaims")
        self._classes = cluster.informer("storageclasses")
        self._queue = SchedulerQueue(lambda pod: volume_requirements(pod, self._claims, self._classes))
        self._binding_events = asyncio.Event()
        """Set when a claim changes or a pod ends or is requeued, and then replaced with a new event."""
        self._wake = asyncio.Event()
        self._report_due = asyncio.Event()
        self._slots = asyncio.Semaphore(_MAX_WRITES)
        self._tasks = Tasks()
        # By uid of a preempted pod, an event that is set when the pod has ended.
        self._departures: dict[str, asyncio.Event] = {}
        self._pods = cluster.informer("pods")
        cluster.informer("nodes").on_change(self._node_changed)
        self._pods.on_change(self._pod_changed)
        self._claims.on_change(self._claim_changed)
        self._classes.on_change(self._class_changed)

    async def start(self) -> None:
        """Start scheduling. The informers must have listed their objects."""
        self._tasks.spawn(self._run())
        self._tasks.spawn(self._report_reasons())

    async def stop(self) -> None:
        """Stop. Bindings that the server has not confirmed are repeated by the next start."""
        await self._tasks.cancel()

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        node = new or old
        if node is not None:
            self._queue.node_changed(node["metadata"]["name"], new)
            self._wake.set()

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        uid = (new or old or {})["metadata"]["uid"]
        self._queue.pod_changed(uid, new)
        if old is None and new is not None:
            self._report_other_scheduler(new)
        if new is None or is_finished(new):
            departure = self._departures.pop(uid, None)
            if departure is not None:
                departure.set()
            self._notify_bindings()
        self._wake.set()

    def _report_other_scheduler(self, pod: Object) -> None:
        """Record an event about a pod that waits for a scheduler which does not run."""
        name = pod["spec"].get("schedulerName", SCHEDULER)
        if name != SCHEDULER and not pod["spec"].get("nodeName"):
            text = f"the laptop AKS runs no scheduler {name!r}, so the pod stays pending. Leave out schedulerName"
            self._record_event(pod, "Warning", "NoScheduler", text, "Scheduling")

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        self._queue.claim_changed(object_key(new or old or {}))
        self._notify_bindings()
        self._wake.set()

    def _notify_bindings(self) -> None:
        """Wake the pods that wait for their volumes."""
        self._binding_events.set()
        self._binding_events = asyncio.Event()

    def _class_changed(self, old: Object | None, new: Object | None) -> None:
        for claim in self._claims:
            self._claim_changed(claim, claim)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while placement := self._queue.next():
                    self._queue.assume(placement.pod, placement.node)
                    self._tasks.spawn(self._bind_when_free(placement))
                    await asyncio.sleep(0)
            except Exception:
                log.exception("scheduling failed")
                await asyncio.sleep(_RETRY_DELAY)
                self._wake.set()
            self._report_due.set()

    async def _bind_when_free(self, placement: Placement) -> None:
        """Bind a pod after its victims, if any, have ended. If that fails, requeue the pod."""
        pod = placement.pod
        try:
            if placement.victims:
                await self._preempt(placement)
            if self._is_assumed(pod, placement.node):
                await self._bind_claims(pod, placement.node)
            async with self._slots:
                # A pod of higher priority may have been assigned to the node in the meantime.
                if self._is_assumed(pod, placement.node):
                    await self._bind(pod, placement.node)
        except _VolumeError as error:
            self._record_event(pod, "Warning", "FailedScheduling", str(error), "Scheduling")
            asyncio.get_running_loop().call_later(_RETRY_DELAY, self._requeue, pod)
        except Exception as error:
            if not (isinstance(error, StatusError) and error.code == 404):
                log.warning("binding %s to %s: %s", object_key(pod), placement.node, error)
            asyncio.get_running_loop().call_later(_RETRY_DELAY, self._requeue, pod)

    def _is_assumed(self, pod: Object, node: str) -> bool:
        """Return whether a pod counts as assigned to a node and is not bound yet."""
        return self._queue.assumed.get(pod["metadata"]["uid"]) == node

    def _requeue(self, pod: Object) -> None:
        current = self._pods.get(object_key(pod))
        if current and current["metadata"]["uid"] == pod["metadata"]["uid"]:
            self._queue.requeue(current)
        self._notify_bindings()  # An earlier attempt to bind the pod ends.
        self._wake.set()

    async def _bind_claims(self, pod: Object, node: str) -> None:
        """Request the volumes that wait for the pod's node, and wait until they exist.

        Raises:
            _VolumeError: a volume was not created in time, or was created in another zone for another pod.
        """
        keys = claim_keys(pod)
        for key in keys:
            claim = self._claims.get(key)
            if claim and not is_bound(claim) and waits_for_pod(claim, self._classes):
                selected = {"metadata": {"annotations": {SELECTED_NODE: node}}}
                await self._cluster.patch("persistentvolumeclaims", claim, selected)
        prefix = 'running PreBind plugin "VolumeBinding": '
        try:
            async with asyncio.timeout(_BIND_SECONDS * self._cluster.settings.time_scale):
                while not all(is_bound(self._claims.get(key) or {}) for key in keys):
                    if not self._is_assumed(pod, node):
                        return  # The pod has been deleted or preempted.
                    await self._binding_events.wait()
        except TimeoutError:
            raise _VolumeError(f"{prefix}binding volumes: context deadline exceeded") from None
        info = self._queue.nodes.get(node)
        zone = info.labels.get(ZONE_LABEL, "") if info else ""
        if not volume_requirements(pod, self._claims, self._classes).allow(zone):
            raise _VolumeError(f"{prefix}binding volumes: {ZONE_CONFLICT}")

    async def _bind(self, pod: Object, node: str) -> None:
        name = pod["metadata"]["name"]
        namespace = pod["metadata"]["namespace"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": pod["metadata"]["uid"]},
            "target": {"kind": "Node", "name": node},
        }
        await self._cluster.objects.create("pods", binding, namespace, name=name, subresource="binding")
        self._record_event(pod, "Normal", "Scheduled", f"Successfully assigned {namespace}/{name} to {node}", "Binding")

    async def _preempt(self, placement: Placement) -> None:
        """Delete the victims of a placement and wait until they have ended."""
        await self._set_unschedulable(placement.pod, placement.reason)
        with ignoring(404, 409):
            nominated = {"status": {"nominatedNodeName": placement.node}}
            await self._cluster.patch("pods", placement.pod, nominated, subresource="status")
        departures: list[asyncio.Event] = []
        for assigned in placement.victims:
            victim = await self._bound_victim(assigned)
            if victim is None:
                continue
            departures.append(self._departures.setdefault(assigned.uid, asyncio.Event()))
            if not victim["metadata"].get("deletionTimestamp"):
                await self._delete_victim(victim, placement)
        for departure in departures:
            await departure.wait()

    async def _bound_victim(self, assigned: AssignedPod) -> Object | None:
        """Return a pod that must be deleted, or None if it has ended or is not bound.

        A pod that is assumed but not bound becomes pending again.
        """
        victim = self._unfinished(assigned)
        if victim is not None and not victim["spec"].get("nodeName"):
            self._requeue(victim)
            # From now on it will not be bound to the node. It may have been bound a moment ago.
            with ignoring(404):
                meta = victim["metadata"]
                await self._cluster.read("pods", meta["name"], meta["namespace"])
            victim = self._unfinished(assigned)
        return victim if victim is not None and victim["spec"].get("nodeName") else None

    def _unfinished(self, assigned: AssignedPod) -> Object | None:
        """Return an assigned pod from the cache, or None if it has ended."""
        pod = self._pods.get(assigned.key)
        if pod is None or pod["metadata"]["uid"] != assigned.uid or is_finished(pod):
            return None
        return pod

    async def _delete_victim(self, victim: Object, placement: Placement) -> None:
        message = f"{SCHEDULER}: preempting to accommodate a higher priority pod"
        await self._cluster.disrupt(victim, "PreemptionByScheduler", message)
        await self._cluster.delete("pods", victim)
        message = f"Preempted by pod {placement.pod['metadata']['uid']} on node {placement.node}"
        self._record_event(victim, "Normal", "Preempted", message, "Preempting")

    # Reports about pending pods

    async def _report_reasons(self) -> None:
        """Write the reasons into the status of pending pods.

        This is a separate task, so that it never delays scheduling.
        """
        held_back = False
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._report_due.wait(), REPORT_INTERVAL if held_back else None)
            self._report_due.clear()
            reports, held_back = self._queue.unreported(asyncio.get_running_loop().time())
            updates = (self._set_unschedulable(pod, text) for pod, text in reports if self._queue.is_pending(pod))
            await run_all(updates, limit=_MAX_REPORTS)

    async def _set_unschedulable(self, pod: Object, message: str) -> None:
        old = get_condition(pod, "PodScheduled")
        if old.get("message") == message:
            return
        since = old.get("lastTransitionTime") if old.get("status") == "False" else None
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": since or times.now(),
        }
        self._record_event(pod, "Warning", "FailedScheduling", message, "Scheduling")
        try:
            await self._cluster.set_condition(pod, condition)
        except StatusError as error:
            log.warning("setting the condition PodScheduled of %s: %s", object_key(pod), error)

    def _record_event(self, pod: Object, kind: str, reason: str, message: str, action: str) -> None:
        self._cluster.events.record_event(SCHEDULER, pod, kind, reason, message, action=action)
