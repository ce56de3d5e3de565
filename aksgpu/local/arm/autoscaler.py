"""The cluster autoscaler: pools that grow when pods wait for a node, and shrink when nodes stay empty.

AKS runs the Kubernetes cluster autoscaler; this is its behaviour at the laptop's size. It works beside the operations
of Resource Manager, not as one of them, and leaves a cluster alone while an operation runs there. What is simpler: only
empty nodes go, not those that are little used; of several pools that could grow the one that helps most pods does,
where AKS picks one at random; and DaemonSets' pods take no room on a node that does not exist yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aksgpu.errors import LaptopError
from aksgpu.local.arm import nodes, quota
from aksgpu.local.arm.context import Context
from aksgpu.local.arm.errors import ArmError
from aksgpu.local.arm.state import Document
from aksgpu.local.arm.work import open_cluster, settle
from aksgpu.local.control import events, fit
from aksgpu.local.control.informer import key_of
from aksgpu.local.control.runtime import condition, finished
from aksgpu.local.objects import Object, Objects
from aksgpu.local.status import StatusError

log = logging.getLogger(__name__)

COMPONENT = "cluster-autoscaler"
SCAN_SECONDS, UNNEEDED_SECONDS, UNREADY_SECONDS, BACKOFF_SECONDS, SETTLE_SECONDS = 10.0, 600.0, 1200.0, 300.0, 2.0
KEEP = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
FULL, BACKOFF = "max node group size reached", "in backoff after failed scale-up"


@dataclass
class Memory:
    """What is remembered of a cluster from one look to the next."""

    told: dict[str, str] = field(default_factory=dict)
    empty_since: dict[tuple[str, bool], float] = field(default_factory=dict)
    backoff_until: dict[str, float] = field(default_factory=dict)


@dataclass
class Growth:
    """What a pool could do for the pods that wait."""

    pool: Document
    existing: list[Object]
    template: Object
    refusal: str
    """Why it cannot grow at all, or empty."""
    placed: list[Object] = field(default_factory=list)
    added: int = 0

    def view(self) -> fit.NodeView:
        """A node that the pool does not have yet."""
        view = fit.NodeView(self.template["metadata"]["name"])
        view.describe(self.template)
        return view


class Autoscaler:
    """Looks after the autoscaled pools of all clusters.

    Args:
        context: the subscription.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._scale = context, context.settings.time_scale
        self._memories: defaultdict[str, Memory] = defaultdict(Memory)

    async def run(self) -> None:
        """Look at every cluster again and again, for ever."""
        while True:
            await asyncio.sleep(SCAN_SECONDS * self._scale)
            for key, cluster in list(self._context.state.clusters.items()):
                pools = [pool for pool in cluster["pools"].values() if pool["properties"].get("enableAutoScaling")]
                if not pools or cluster["power"] != "Running" or self._context.operations.running(cluster):
                    continue
                try:
                    await self._look(key, cluster, [pool for pool in pools if pool["power"] == "Running"])
                except (StatusError, LaptopError) as error:  # such as a cluster that is being deleted
                    log.info("autoscaler of %s: %s", key, error)
                except Exception:
                    log.exception("autoscaler of %s", key)

    async def _look(self, key: str, cluster: Document, pools: list[Document]) -> None:
        objects, memory = await open_cluster(self._context, cluster), self._memories[cluster["id"]]
        pods, _ = await objects.list("pods")
        found, _ = await objects.list("nodes")
        by_pool: defaultdict[str, list[Object]] = defaultdict(list)
        for node in found:
            by_pool[node["metadata"]["labels"].get("agentpool", "")].append(node)
        options = [self._option(cluster, pool, by_pool[pool["name"]], memory) for pool in pools]
        if await self._grow(objects, key, cluster, options, list(filter(_waits, pods)), memory):
            return
        busy = {pod["spec"].get("nodeName") for pod in pods if _stays(pod)}
        for option in options:
            empty = [node for node in option.existing if _may_go(node, busy)]
            await self._shrink(objects, key, cluster, option, empty, memory)

    # Growing

    async def _grow(
        self,
        objects: Objects,
        key: str,
        cluster: Document,
        options: list[Growth],
        waiting: list[Object],
        memory: Memory,
    ) -> bool:
        """Make the pool grow that helps most pods, and tell the pods; whether there is one."""
        wants = [(pod, fit.Shape(pod["spec"])) for pod in waiting]
        for option in options:  # nodes that are on their way take their share first
            coming = option.pool["properties"]["count"] - sum(_serves(node, option) for node in option.existing)
            there = pack(wants, [option.view() for _ in range(coming)], option, 0)[0]
            settled = {pod["metadata"]["uid"] for pod in there}
            wants = [want for want in wants if want[0]["metadata"]["uid"] not in settled]
        for option in options:
            if not option.refusal:
                room = option.pool["properties"]["maxCount"] - option.pool["properties"]["count"]
                option.placed, option.added = pack(wants, [], option, room)
        helped = {pod["metadata"]["uid"] for option in options for pod in option.placed}
        best = max(options, key=lambda option: len(option.placed), default=None)
        messages: dict[str, str] = {}
        for pod, shape in wants:
            if (uid := pod["metadata"]["uid"]) not in helped:
                messages[uid] = f"pod didn't trigger scale-up: {_why(shape, options)}"
                if memory.told.get(uid) != messages[uid]:
                    await events.write(objects, COMPONENT, pod, "Normal", "NotTriggerScaleUp", messages[uid])
        memory.told = messages
        if best is None or not best.placed or not await self._raise(objects, key, cluster, best, memory):
            return False
        await settle(self._context, cluster, best.pool, SETTLE_SECONDS * self._scale)
        return True

    def _option(self, cluster: Document, pool: Document, existing: list[Object], memory: Memory) -> Growth:
        properties = pool["properties"]
        template = nodes.build(cluster, pool, pool.get("next", 0), 0)
        resources = next((extra for node in existing if (extra := _devices(node))), nodes.gpu_resources(pool))
        template["status"]["allocatable"] |= resources
        template["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
        refusal = FULL if properties["count"] >= properties["maxCount"] else ""
        if memory.backoff_until.get(pool["name"], 0.0) > time.monotonic():
            refusal = BACKOFF
        return Growth(pool, existing, template, refusal)

    async def _raise(self, objects: Objects, key: str, cluster: Document, option: Growth, memory: Memory) -> bool:
        """Raise the pool's count and tell the pods; whether Azure lets us."""
        pool, properties = option.pool, option.pool["properties"]
        before, after = properties["count"], properties["count"] + option.added
        if not self._free(cluster, pool):
            return False
        group = nodes.scale_set(cluster, pool)
        try:
            self._context.faults.check_machines(properties)
            wanted = {**pool, "properties": {**properties, "count": after}}
            quota.check(self._context, cluster["location"], [wanted], instead_of=[pool])
        except ArmError as error:
            memory.backoff_until[pool["name"]] = time.monotonic() + BACKOFF_SECONDS * self._scale
            where = {"kind": "ConfigMap", "metadata": {"name": f"{COMPONENT}-status", "namespace": "kube-system"}}
            text = f"Scale-up failed for group {group}: {error.code}: {error.message}"
            await events.write(objects, COMPONENT, where, "Warning", "FailedToScaleUpGroup", text)
            return False
        properties["count"] = after
        self._context.state.save(("clusters", key))
        text = f"pod triggered scale-up: [{{{group} {before}->{after} (max: {properties['maxCount']})}}]"
        for pod in option.placed:
            await events.write(objects, COMPONENT, pod, "Normal", "TriggeredScaleUp", text)
        return True

    # Shrinking

    async def _shrink(
        self, objects: Objects, key: str, cluster: Document, option: Growth, empty: list[Object], memory: Memory
    ) -> None:
        """Take nodes away that have been empty for long, or empty and not of use for twice as long."""
        now, pool, profile = time.monotonic(), option.pool, cluster["properties"].get("autoScalerProfile") or {}
        group = nodes.scale_set(cluster, pool)
        marks = {node["metadata"]["name"]: _serves(node, option) for node in empty}
        stale = [(name, ok) for name, ok in memory.empty_since if name.startswith(group) and marks.get(name) != ok]
        for mark in stale:
            del memory.empty_since[mark]
        for node in reversed(empty):
            name, properties = node["metadata"]["name"], pool["properties"]
            mark = name, marks[name]
            patience = (
                _seconds(profile.get("scale-down-unneeded-time"), UNNEEDED_SECONDS)
                if marks[name]
                else _seconds(profile.get("scale-down-unready-time"), UNREADY_SECONDS)
            )
            if now - memory.empty_since.setdefault(mark, now) < patience * self._scale:
                continue
            if properties["count"] <= properties["minCount"] or not self._free(cluster, pool):
                return
            async with self._context.nodes_lock[cluster["id"]]:
                if not await _still_empty(objects, name) or not self._free(cluster, pool):
                    continue
                properties["count"] -= 1
                self._context.state.save(("clusters", key))
                text = "marked the node as toBeDeleted/unschedulable"
                await events.write(objects, COMPONENT, {**node, "kind": "Node"}, "Normal", "ScaleDown", text)
                await nodes.leave(objects, pool, name)
            memory.empty_since.pop(mark, None)

    def _free(self, cluster: Document, pool: Document) -> bool:
        """Whether nothing has happened to the pool since it was looked at."""
        return cluster["pools"].get(pool["name"]) is pool and self._context.operations.running(cluster) is None


def pack(
    wants: Iterable[tuple[Object, fit.Shape]], views: list[fit.NodeView], option: Growth, more: int
) -> tuple[list[Object], int]:
    """Put pods onto nodes one after another.

    Args:
        wants: the pods.
        views: nodes that are there; they are filled.
        option: where more nodes come from.
        more: how many of them.

    Returns:
        The pods that found room, and how many more nodes that took.
    """
    placed: list[Object] = []
    there, begin = len(views), Counter[bytes]()
    for pod, shape in wants:
        # What was too full for a pod of this shape does not get emptier.
        at = begin[shape.key]
        while at < len(views) and fit.judge(shape, views[at]).reasons:
            at += 1
        begin[shape.key] = at
        if at == len(views):
            if at >= there + more or fit.judge(shape, fresh := option.view()).reasons:
                continue
            views.append(fresh)
        meta = pod["metadata"]
        views[at].hold(fit.Held(meta["uid"], key_of(pod), shape.priority, shape.requests))
        placed.append(pod)
    return placed, len(views) - there


def _why(shape: fit.Shape, options: list[Growth]) -> str:
    reasons: Counter[str] = Counter()
    for option in options:
        reasons.update([option.refusal] if option.refusal else fit.judge(shape, option.view()).reasons or [FULL])
    return ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))


def _waits(pod: Object) -> bool:
    """Whether the scheduler has found no node for the pod."""
    if pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp"):
        return False
    nominated = (pod.get("status") or {}).get("nominatedNodeName")
    return not nominated and condition(pod, "PodScheduled").get("reason") == "Unschedulable"


def _stays(pod: Object) -> bool:
    """Whether the pod keeps its node from being empty."""
    return not finished(pod) and not nodes.owned_by_daemon_set(pod)


def _devices(node: Object) -> dict[str, str]:
    """What device plugins offer on a node."""
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    return {name: value for name, value in allocatable.items() if "/" in name and value != "0"}


def _serves(node: Object, option: Growth) -> bool:
    """Whether the node runs, and offers all that a node of its pool should; others are on their way."""
    ready = not nodes.is_off(node) and condition(node, "Ready").get("status") == "True"
    offered = (node.get("status") or {}).get("allocatable") or {}
    return ready and offered.keys() >= _devices(option.template).keys()


def _may_go(node: Object, busy: set[Any]) -> bool:
    notes = node["metadata"].get("annotations") or {}
    return node["metadata"]["name"] not in busy and not nodes.is_off(node) and notes.get(KEEP) != "true"


async def _still_empty(objects: Objects, name: str) -> bool:
    """Let no more pods onto a node, and make sure that none came in the last moment."""
    try:
        await objects.patch("nodes", name, {"spec": {"unschedulable": True}})
    except StatusError:
        return False
    pods, _ = await objects.list("pods", field_selector=f"spec.nodeName={name}")
    if not any(_stays(pod) for pod in pods):
        return True
    with contextlib.suppress(StatusError):
        await objects.patch("nodes", name, {"spec": {"unschedulable": None}})
    return False


def _seconds(text: Any, default: float) -> float:
    """A duration such as ``10m`` or ``20s``."""
    match = re.fullmatch(r"(\d+)([smh])", str(text or ""))
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else default
