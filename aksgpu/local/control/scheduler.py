"""The scheduler: gives each waiting pod a node, or says why there is none.

What fits where is in :mod:`aksgpu.local.control.filters`, the picture of the cluster in
:mod:`aksgpu.local.control.scheduler_queue`; here are the reads and writes. A pod is counted on its node at once and
bound in the
background, so that one slow write delays nobody; a pod for which others must leave is counted there until they have.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from aksgpu.common import times
from aksgpu.local.control.controller_runtime import Cluster, Tasks, get_condition, is_finished, run_all
from aksgpu.local.control.informer import object_key
from aksgpu.local.control.scheduler_queue import REPORT_INTERVAL, SCHEDULER, Placement, SchedulerQueue
from aksgpu.local.objects import Object
from aksgpu.local.status_error import StatusError, ignoring

log = logging.getLogger(__name__)

_MAX_WRITES = 64
"""Writes on their way at the same time."""
_RETRY_DELAY = 1.0
"""Seconds before a pod is tried again that could not be bound."""


class Scheduler:
    """Binds pods of ``default-scheduler`` to nodes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._queue = SchedulerQueue()
        self._wake, self._report_due = asyncio.Event(), asyncio.Event()
        self._slots = asyncio.Semaphore(_MAX_WRITES)
        self._tasks = Tasks()
        # Pods that others wait for to be gone.
        self._departures: dict[str, asyncio.Event] = {}
        self._pods = cluster.informer("pods")
        cluster.informer("nodes").on_change(self._node_changed)
        self._pods.on_change(self._pod_changed)

    async def start(self) -> None:
        """Begin to schedule; the informers have listed."""
        self._tasks.spawn(self._run())
        self._tasks.spawn(self._report_reasons())

    async def stop(self) -> None:
        """Stop; bindings that are not acknowledged are made by the next start."""
        await self._tasks.cancel()

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if some := new or old:
            self._queue.node_changed(some["metadata"]["name"], new)
            self._wake.set()

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        uid = (new or old or {})["metadata"]["uid"]
        self._queue.pod_changed(uid, new)
        if (new is None or is_finished(new)) and (gone := self._departures.pop(uid, None)):
            gone.set()
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while choice := self._queue.next():
                    self._queue.assume(choice.pod, choice.node)
                    self._tasks.spawn(self._bind_when_free(choice))
                    await asyncio.sleep(0)
            except Exception:
                log.exception("scheduling")
                await asyncio.sleep(_RETRY_DELAY)
                self._wake.set()
            self._report_due.set()

    async def _bind_when_free(self, choice: Placement) -> None:
        """Bind a pod, once others have left if they must; when that fails, the pod waits again."""
        pod = choice.pod
        uid = choice.pod["metadata"]["uid"]
        try:
            if choice.victims:
                await self._preempt(choice)
            if self._queue.assumed.get(uid) == choice.node:  # no more important pod took that room
                async with self._slots:
                    await self._bind(pod, choice.node)
        except Exception as error:
            if not (isinstance(error, StatusError) and error.code == 404):
                log.warning("placing %s on %s: %s", object_key(pod), choice.node, error)
            asyncio.get_running_loop().call_later(_RETRY_DELAY, self._requeue, pod)

    def _requeue(self, pod: Object) -> None:
        current = self._pods.get(object_key(pod))
        if current and current["metadata"]["uid"] == pod["metadata"]["uid"]:
            self._queue.requeue(current)
        self._wake.set()

    async def _bind(self, pod: Object, node: str) -> None:
        name = pod["metadata"]["name"]
        namespace = pod["metadata"]["namespace"]
        head = {"name": name, "namespace": namespace, "uid": pod["metadata"]["uid"]}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": head, "target": {"kind": "Node", "name": node}}
        await self._cluster.objects.create("pods", binding, namespace, name=name, subresource="binding")
        self._record_event(pod, "Normal", "Scheduled", f"Successfully assigned {namespace}/{name} to {node}", "Binding")

    async def _preempt(self, choice: Placement) -> None:
        """Have the pods leave that stand in the way, and wait until they are gone."""
        await self._set_unschedulable(choice.pod, choice.reason)
        with ignoring(404, 409):
            nominated = {"status": {"nominatedNodeName": choice.node}}
            await self._cluster.patch("pods", choice.pod, nominated, subresource="status")
        departures: list[asyncio.Event] = []
        for held in choice.victims:
            victim = self._pods.get(held.key)
            if victim is None or victim["metadata"]["uid"] != held.uid or is_finished(victim):
                continue
            if not victim["spec"].get("nodeName"):  # it was about to come
                self._queue.requeue(victim)
                continue
            departures.append(self._departures.setdefault(held.uid, asyncio.Event()))
            if not victim["metadata"].get("deletionTimestamp"):
                why = f"{SCHEDULER}: preempting to accommodate a higher priority pod"
                await self._cluster.disrupt(victim, "PreemptionByScheduler", why)
                await self._cluster.delete("pods", victim)
                text = f"Preempted by pod {choice.pod['metadata']['uid']} on node {choice.node}"
                self._record_event(victim, "Normal", "Preempted", text, "Preempting")
        for departure in departures:
            await departure.wait()

    # Why pods wait

    async def _report_reasons(self) -> None:
        """Tell pods why they wait. Beside the scheduling, which is never to wait for it."""
        more = False
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._report_due.wait(), REPORT_INTERVAL if more else None)
            self._report_due.clear()
            news, more = self._queue.unreported(asyncio.get_running_loop().time())
            await run_all(
                (self._set_unschedulable(pod, text) for pod, text in news if self._queue.is_pending(pod)), limit=16
            )

    async def _set_unschedulable(self, pod: Object, message: str) -> None:
        before = get_condition(pod, "PodScheduled")
        if before.get("message") == message:
            return
        since = before.get("lastTransitionTime") if before.get("status") == "False" else None
        state = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        self._record_event(pod, "Warning", "FailedScheduling", message, "Scheduling")
        try:
            await self._cluster.set_condition(pod, {**state, "lastTransitionTime": since or times.now()})
        except StatusError as error:
            log.warning("telling %s why it waits: %s", object_key(pod), error)

    def _record_event(self, pod: Object, kind: str, reason: str, message: str, action: str) -> None:
        self._cluster.events.record_event(SCHEDULER, pod, kind, reason, message, action=action)
