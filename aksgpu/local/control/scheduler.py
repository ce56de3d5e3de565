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
from aksgpu.local.control.controller_runtime import Cluster, Tasks, all_of, condition, finished
from aksgpu.local.control.informer import key_of
from aksgpu.local.control.scheduler_queue import RETELL, SCHEDULER, Board, Choice
from aksgpu.local.objects import Object
from aksgpu.local.status_error import StatusError, ignoring

log = logging.getLogger(__name__)

_WRITES = 64
"""Writes on their way at the same time."""
_AGAIN = 1.0
"""Seconds before a pod is tried again that could not be bound."""


class Scheduler:
    """Binds pods of ``default-scheduler`` to nodes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._board = Board()
        self._wake, self._news = asyncio.Event(), asyncio.Event()
        self._slots = asyncio.Semaphore(_WRITES)
        self._tasks = Tasks()
        # Pods that others wait for to be gone.
        self._victims: dict[str, asyncio.Event] = {}
        self._pods = cluster.informer("pods")
        cluster.informer("nodes").on_change(self._node_changed)
        self._pods.on_change(self._pod_changed)

    async def start(self) -> None:
        """Begin to schedule; the informers have listed."""
        self._tasks.spawn(self._run())
        self._tasks.spawn(self._inform())

    async def stop(self) -> None:
        """Stop; bindings that are not acknowledged are made by the next start."""
        await self._tasks.cancel()

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if some := new or old:
            self._board.node_changed(some["metadata"]["name"], new)
            self._wake.set()

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        uid = (new or old or {})["metadata"]["uid"]
        self._board.pod_changed(uid, new)
        if (new is None or finished(new)) and (gone := self._victims.pop(uid, None)):
            gone.set()
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while choice := self._board.next():
                    self._board.assume(choice.pod, choice.node)
                    self._tasks.spawn(self._place(choice))
                    await asyncio.sleep(0)
            except Exception:
                log.exception("scheduling")
                await asyncio.sleep(_AGAIN)
                self._wake.set()
            self._news.set()

    async def _place(self, choice: Choice) -> None:
        """Bind a pod, once others have left if they must; when that fails, the pod waits again."""
        pod = choice.pod
        uid = choice.pod["metadata"]["uid"]
        try:
            if choice.victims:
                await self._make_room(choice)
            if self._board.assumed.get(uid) == choice.node:  # no more important pod took that room
                async with self._slots:
                    await self._bind(pod, choice.node)
        except Exception as error:
            if not (isinstance(error, StatusError) and error.code == 404):
                log.warning("placing %s on %s: %s", key_of(pod), choice.node, error)
            asyncio.get_running_loop().call_later(_AGAIN, self._withdraw, pod)

    def _withdraw(self, pod: Object) -> None:
        current = self._pods.get(key_of(pod))
        if current and current["metadata"]["uid"] == pod["metadata"]["uid"]:
            self._board.withdraw(current)
        self._wake.set()

    async def _bind(self, pod: Object, node: str) -> None:
        name = pod["metadata"]["name"]
        namespace = pod["metadata"]["namespace"]
        head = {"name": name, "namespace": namespace, "uid": pod["metadata"]["uid"]}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": head, "target": {"kind": "Node", "name": node}}
        await self._cluster.objects.create("pods", binding, namespace, name=name, subresource="binding")
        self._event(pod, "Normal", "Scheduled", f"Successfully assigned {namespace}/{name} to {node}", "Binding")

    async def _make_room(self, choice: Choice) -> None:
        """Have the pods leave that stand in the way, and wait until they are gone."""
        await self._tell(choice.pod, choice.reason)
        with ignoring(404, 409):
            nominated = {"status": {"nominatedNodeName": choice.node}}
            await self._cluster.patch("pods", choice.pod, nominated, subresource="status")
        departures: list[asyncio.Event] = []
        for held in choice.victims:
            victim = self._pods.get(held.key)
            if victim is None or victim["metadata"]["uid"] != held.uid or finished(victim):
                continue
            if not victim["spec"].get("nodeName"):  # it was about to come
                self._board.withdraw(victim)
                continue
            departures.append(self._victims.setdefault(held.uid, asyncio.Event()))
            if not victim["metadata"].get("deletionTimestamp"):
                why = f"{SCHEDULER}: preempting to accommodate a higher priority pod"
                await self._cluster.disrupt(victim, "PreemptionByScheduler", why)
                await self._cluster.delete("pods", victim)
                text = f"Preempted by pod {choice.pod['metadata']['uid']} on node {choice.node}"
                self._event(victim, "Normal", "Preempted", text, "Preempting")
        for departure in departures:
            await departure.wait()

    # Why pods wait

    async def _inform(self) -> None:
        """Tell pods why they wait. Beside the scheduling, which is never to wait for it."""
        more = False
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), RETELL if more else None)
            self._news.clear()
            news, more = self._board.untold(asyncio.get_running_loop().time())
            await all_of((self._tell(pod, text) for pod, text in news if self._board.waits(pod)), limit=16)

    async def _tell(self, pod: Object, message: str) -> None:
        before = condition(pod, "PodScheduled")
        if before.get("message") == message:
            return
        since = before.get("lastTransitionTime") if before.get("status") == "False" else None
        state = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        self._event(pod, "Warning", "FailedScheduling", message, "Scheduling")
        try:
            await self._cluster.set_condition(pod, {**state, "lastTransitionTime": since or times.now()})
        except StatusError as error:
            log.warning("telling %s why it waits: %s", key_of(pod), error)

    def _event(self, pod: Object, kind: str, reason: str, message: str, action: str) -> None:
        self._cluster.events.tell(SCHEDULER, pod, kind, reason, message, action=action)
