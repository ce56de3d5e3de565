"""The scheduler: gives each waiting pod a node, or says why there is none.

What fits where is in :mod:`aksgpu.local.control.fit`, the picture of the cluster in
:mod:`aksgpu.local.control.board`; here are the reads and writes. A pod is counted on its node at once and bound in the
background, so that one slow write delays nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aksgpu.local.control import times
from aksgpu.local.control.board import RETELL, SCHEDULER, Board, Preemption
from aksgpu.local.control.events import Recorder
from aksgpu.local.control.informer import key_of
from aksgpu.local.control.runtime import Cluster, Tasks, all_of, condition, finished, suppress_gone
from aksgpu.local.objects import Object
from aksgpu.local.status import StatusError

log = logging.getLogger(__name__)

_WRITES = 64
"""Writes on their way at the same time."""
_HEARSAY = 0.2
"""Seconds before a pod is told that its claim is not there."""
_AGAIN = 1.0
"""Seconds before a pod is tried again that could not be bound."""


class Scheduler:
    """Binds pods of ``default-scheduler`` to nodes."""

    def __init__(self, cluster: Cluster, events: Recorder) -> None:
        self._cluster, self._events = cluster, events
        self._board = Board()
        self._wake, self._news = asyncio.Event(), asyncio.Event()
        self._slots = asyncio.Semaphore(_WRITES)
        self._tasks = Tasks()
        self._retell: asyncio.TimerHandle | None = None
        self._pods = cluster.informer("pods")
        cluster.informer("nodes").on_change(self._node_changed)
        self._pods.on_change(self._pod_changed)
        self._claims = cluster.informer("persistentvolumeclaims")
        self._claims.on_change(self._claim_changed)
        self._lacking: dict[str, tuple[Object, str]] = {}

    async def start(self) -> None:
        """Begin to schedule; the informers have listed."""
        self._tasks.spawn(self._run())
        self._tasks.spawn(self._inform())

    async def stop(self) -> None:
        """Stop; bindings that are not acknowledged are made by the next start."""
        if self._retell:
            self._retell.cancel()
        await self._tasks.cancel()

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if some := new or old:
            self._board.node_changed(some["metadata"]["name"], new)
            self._wake.set()

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old and (new is None or old["metadata"]["uid"] != new["metadata"]["uid"]):
            self._board.pod_changed(old["metadata"]["uid"], None)
            self._lacking.pop(old["metadata"]["uid"], None)
        if new:
            self._see(new)
        self._wake.set()

    def _see(self, pod: Object) -> None:
        """Let a pod wait for a node, or before that for a claim that is not there."""
        uid, missing = pod["metadata"]["uid"], self._missing_claim(pod)
        self._board.pod_changed(uid, None if missing else pod)
        if not missing:
            self._lacking.pop(uid, None)
        elif uid not in self._lacking:
            # Pods and claims are heard of one by one: what seems missing may be there in a moment.
            asyncio.get_running_loop().call_later(_HEARSAY, self._complain, uid)
        if missing:
            self._lacking[uid] = pod, missing

    def _missing_claim(self, pod: Object) -> str:
        namespace, spec = pod["metadata"].get("namespace", ""), pod["spec"]
        if spec.get("nodeName") or finished(pod):
            return ""
        claims = (volume.get("persistentVolumeClaim") for volume in spec.get("volumes") or ())
        names = (claim["claimName"] for claim in claims if claim)
        return next((name for name in names if self._claims.get(f"{namespace}/{name}") is None), "")

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        if old is None:
            for pod, _ in list(self._lacking.values()):
                self._see(pod)
            self._wake.set()

    def _complain(self, uid: str) -> None:
        if uid in self._lacking:
            pod, claim = self._lacking[uid]
            self._tasks.spawn(self._tell(pod, self._board.unmet(f'persistentvolumeclaim "{claim}" not found')))

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._round()
            except Exception:
                log.exception("scheduling")
                await asyncio.sleep(_AGAIN)
                self._wake.set()
            self._news.set()

    async def _round(self) -> None:
        """Place what can be placed, then make room for what is more important than others."""
        while choice := self._board.next():
            self._board.assume(choice.pod, choice.node)
            await self._spawn(self._bind, choice.pod, choice.node)
            await asyncio.sleep(0)
        for preemption in self._board.preemptions():
            self._board.nominate(preemption.pod, preemption.node)
            await self._spawn(self._preempt, preemption)
            self._wake.set()

    async def _inform(self) -> None:
        """Tell pods why they wait. Beside the scheduling, which is never to wait for it."""
        loop = asyncio.get_running_loop()
        while True:
            await self._news.wait()
            self._news.clear()
            await all_of((self._tell(pod, message) for pod, message in self._board.untold(loop.time())), limit=16)
            if self._board.silent and not self._retell:
                self._retell = loop.call_later(RETELL, self._look_again)

    async def _spawn(self, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Do it in the background, once few enough are on their way."""
        await self._slots.acquire()

        async def run() -> None:
            try:
                await work(*args)
            finally:
                self._slots.release()

        self._tasks.spawn(run())

    async def _bind(self, pod: Object, node: str) -> None:
        meta = pod["metadata"]
        name, namespace = meta["name"], meta["namespace"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": meta["uid"]},
            "target": {"kind": "Node", "name": node},
        }
        try:
            await self._cluster.objects.create("pods", binding, namespace, name=name, subresource="binding")
        except StatusError as error:
            if error.code != 404:
                log.warning("binding %s/%s to %s: %s", namespace, name, node, error)
            asyncio.get_running_loop().call_later(_AGAIN, self._withdraw, pod)
            return
        message = f"Successfully assigned {namespace}/{name} to {node}"
        self._events.tell(SCHEDULER, pod, "Normal", "Scheduled", message, action="Binding")

    def _withdraw(self, pod: Object) -> None:
        current = self._pods.get(key_of(pod))
        if current and current["metadata"]["uid"] == pod["metadata"]["uid"]:
            self._board.withdraw(current)
        self._wake.set()

    def _look_again(self) -> None:
        self._retell = None
        self._news.set()

    async def _preempt(self, preemption: Preemption) -> None:
        try:
            await self._make_room(preemption)
        finally:
            self._board.made(preemption.pod)
            self._wake.set()

    async def _make_room(self, preemption: Preemption) -> None:
        pod, uid = preemption.pod, preemption.pod["metadata"]["uid"]
        with suppress_gone():
            nominated = {"status": {"nominatedNodeName": preemption.node}}
            await self._cluster.patch("pods", key_of(pod), nominated, subresource="status")
        for held in preemption.victims:
            victim = self._pods.get(held.key)
            if victim is None or victim["metadata"]["uid"] != held.uid:
                continue
            why = f"{SCHEDULER}: preempting to accommodate a higher priority pod"
            await self._cluster.disrupt(victim, "PreemptionByScheduler", why)
            await self._cluster.delete("pods", victim)
            message = f"Preempted by pod {uid} on node {preemption.node}"
            self._events.tell(SCHEDULER, victim, "Normal", "Preempted", message, action="Preempting")

    async def _tell(self, pod: Object, message: str) -> None:
        before = condition(pod, "PodScheduled")
        if before.get("message") == message or not (
            self._board.waits(pod["metadata"]["uid"]) or pod["metadata"]["uid"] in self._lacking
        ):
            return
        since = before.get("lastTransitionTime") if before.get("status") == "False" else None
        why = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": since or times.now(),
        }
        self._events.tell(SCHEDULER, pod, "Warning", "FailedScheduling", message, action="Scheduling")
        try:
            await self._cluster.set_condition(pod, why)
        except StatusError as error:
            log.warning("telling %s why it waits: %s", key_of(pod), error)
