"""The cluster autoscaler: pools that grow when pods wait for a node, and shrink when nodes stay empty.

AKS runs the Kubernetes cluster autoscaler; this is its behaviour at the laptop's size. It works beside the operations
of Resource Manager, not as one of them, and leaves a cluster alone while an operation runs there. What is simpler: only
empty nodes go, not those that are little used; of several pools that could grow the one that helps most pods does,
where AKS picks one at random; and DaemonSets' pods take no room on a node that does not exist yet.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter

from aksgpu.errors import LaptopError
from aksgpu.local.arm import pool_nodes, vcpu_quota
from aksgpu.local.arm.arm_errors import ArmError
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import Context
from aksgpu.local.arm.operation_steps import settle
from aksgpu.local.control import event_recorder, filters
from aksgpu.local.control.controller_runtime import get_condition, is_finished
from aksgpu.local.control.informer import object_key
from aksgpu.local.objects import Object, Objects
from aksgpu.local.status_error import StatusError

log = logging.getLogger(__name__)

COMPONENT = "cluster-autoscaler"
SCAN_SECONDS = 10.0
BACKOFF_SECONDS = 300.0
SETTLE_SECONDS = 2.0
PATIENCE = {True: ("scale-down-unneeded-time", 600.0), False: ("scale-down-unready-time", 1200.0)}
"""By whether an empty node serves: what a cluster's profile calls the time after which it goes, and the default."""
FULL = "max node group size reached"
BACKOFF = "in backoff after failed scale-up"

Want = tuple[Object, filters.PodRequirements]


class Pool:
    """An autoscaled pool with its nodes, and what it could do for the pods that wait."""

    def __init__(self, cluster: Document, pool: Document, existing: list[Object], backoff: bool) -> None:
        self.document = pool
        self.properties = pool["properties"]
        self.existing = existing
        self.group = pool_nodes.scale_set(cluster, pool)
        self.template = pool_nodes.build(cluster, pool, pool.get("next", 0), "")
        devices = next((found for node in existing if (found := _devices(node))), pool_nodes.gpu_resources(pool))
        self.template["status"]["allocatable"] |= devices
        self.template["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
        self.room = self.properties["maxCount"] - self.properties["count"]
        self.refusal = BACKOFF if backoff else FULL if self.room <= 0 else ""
        """Why it cannot grow at all, or empty."""

    def view(self) -> filters.NodeInfo:
        """A node that the pool does not have yet."""
        view = filters.NodeInfo(self.template["metadata"]["name"])
        view.set_node(self.template)
        return view

    def serves(self, node: Object) -> bool:
        """Whether the node runs, and offers all that a node of the pool should; others are on their way."""
        ready = not pool_nodes.is_off(node) and get_condition(node, "Ready").get("status") == "True"
        return ready and _devices(node).keys() >= _devices(self.template).keys()

    def pack(self, wants: list[Want], there: int, more: int) -> tuple[list[Object], int]:
        """Put pods onto nodes of the pool one after another.

        Args:
            wants: the pods.
            there: how many empty nodes are on their way.
            more: how many more there could be.

        Returns:
            The pods that found room, and how many more nodes that took.
        """
        placed = []
        views = [self.view() for _ in range(there)]
        begin = Counter[bytes]()
        for pod, shape in wants:
            # What was too full for a pod of this shape does not get emptier.
            at = begin[shape.key]
            while at < len(views) and filters.filter_node(shape, views[at]).reasons:
                at += 1
            begin[shape.key] = at
            if at == len(views):
                if at >= there + more or filters.filter_node(shape, fresh := self.view()).reasons:
                    continue
                views.append(fresh)
            views[at].add_pod(
                filters.AssignedPod(pod["metadata"]["uid"], object_key(pod), shape.priority, shape.requests)
            )
            placed.append(pod)
        return placed, len(views) - there


async def run(context: Context) -> None:
    """Look at every cluster again and again, for ever."""
    scalers: dict[str, Scaler] = {}
    while True:
        await asyncio.sleep(SCAN_SECONDS * context.settings.time_scale)
        clusters = list(context.state.clusters.values())
        scalers = {cluster["id"]: scalers.get(cluster["id"]) or Scaler(context, cluster) for cluster in clusters}
        for cluster in clusters:
            if cluster["power"] == "Running" and not context.operations.running(cluster):
                try:
                    await scalers[cluster["id"]].look()
                except (StatusError, LaptopError) as error:  # such as a cluster that is being deleted
                    log.info("autoscaler of %s: %s", cluster["name"], error)
                except Exception:
                    log.exception("autoscaler of %s", cluster["name"])


class Scaler:
    """Looks after the autoscaled pools of one cluster, and remembers what it saw.

    Args:
        context: the subscription.
        cluster: the cluster.
    """

    def __init__(self, context: Context, cluster: Document) -> None:
        self._context = context
        self._cluster = cluster
        self._scale = context.settings.time_scale
        self._told: dict[str, str] = {}  # by pod: why nothing grew for it
        self._empty_since: dict[tuple[str, bool], float] = {}  # by node, and whether it serves
        self._backoff_until: dict[str, float] = {}  # by pool

    async def look(self) -> None:
        """Let one pool grow, or where no pod waits for that, empty nodes go."""
        documents = [
            pool
            for pool in self._cluster["pools"].values()
            if pool["properties"].get("enableAutoScaling") and pool["power"] == "Running"
        ]
        if not documents:
            return
        objects = await self._context.objects(self._cluster)
        now = time.monotonic()
        pools = []
        pods, _ = await objects.list("pods")
        for document in documents:
            backoff = self._backoff_until.get(document["name"], 0) > now
            pools.append(Pool(self._cluster, document, await pool_nodes.of_pool(objects, document), backoff))
        for each in pools:  # where somebody deleted a node, another takes its place
            there = sum(not pool_nodes.is_off(node) for node in each.existing)
            if there < each.properties["count"] and each.document["state"] == "Succeeded":
                await settle(self._context, self._cluster, each.document, SETTLE_SECONDS * self._scale)
        pool, placed, added = await self._choose(objects, pools, [pod for pod in pods if _waits(pod)])
        if pool is not None and await self._grow(objects, pool, placed, added):
            await settle(self._context, self._cluster, pool.document, SETTLE_SECONDS * self._scale)
        else:
            await self._shrink(objects, pools, {pod["spec"].get("nodeName") for pod in pods if _stays(pod)})

    async def _choose(
        self, objects: Objects, pools: list[Pool], waiting: list[Object]
    ) -> tuple[Pool | None, list[Object], int]:
        """The pool that helps most pods, those pods, and how many nodes it takes; tells the others why not."""
        wants = [(pod, filters.PodRequirements(pod["spec"])) for pod in waiting]
        for pool in pools:  # nodes that are on their way take their share first
            coming = pool.properties["count"] - sum(map(pool.serves, pool.existing))
            settled = _uids(pool.pack(wants, coming, 0)[0])
            wants = [want for want in wants if want[0]["metadata"]["uid"] not in settled]
        options = [(pool, *pool.pack(wants, 0, pool.room)) for pool in pools if not pool.refusal]
        helped = {uid for _, placed, _ in options for uid in _uids(placed)}
        before = self._told
        self._told = {}
        for pod, shape in wants:
            if (uid := pod["metadata"]["uid"]) not in helped:
                self._told[uid] = text = f"pod didn't trigger scale-up: {_why(shape, pools)}"
                if before.get(uid) != text:
                    await event_recorder.write_event(objects, COMPONENT, pod, "Normal", "NotTriggerScaleUp", text)
        return max(options, key=lambda option: len(option[1])) if helped else (None, [], 0)

    async def _grow(self, objects: Objects, pool: Pool, placed: list[Object], added: int) -> bool:
        """Raise the pool's count and tell the pods; whether Azure lets us."""
        document = pool.document
        properties = pool.properties
        before = properties["count"]
        after = properties["count"] + added
        if not self._free(document):
            return False
        try:
            self._context.faults.check_machines(properties)
            wanted = {**document, "properties": {**properties, "count": after}}
            vcpu_quota.check(self._context, self._cluster["location"], [wanted], instead_of=[document])
        except ArmError as error:
            self._backoff_until[document["name"]] = time.monotonic() + BACKOFF_SECONDS * self._scale
            where = {"kind": "ConfigMap", "metadata": {"name": f"{COMPONENT}-status", "namespace": "kube-system"}}
            text = f"Scale-up failed for group {pool.group}: {error.code}: {error.message}"
            await event_recorder.write_event(objects, COMPONENT, where, "Warning", "FailedToScaleUpGroup", text)
            return False
        properties["count"] = after
        self._context.save(self._cluster)
        text = f"pod triggered scale-up: [{{{pool.group} {before}->{after} (max: {properties['maxCount']})}}]"
        for pod in placed:
            await event_recorder.write_event(objects, COMPONENT, pod, "Normal", "TriggeredScaleUp", text)
        return True

    async def _shrink(self, objects: Objects, pools: list[Pool], busy: set[str]) -> None:
        """Take nodes away that have been empty for long, or empty and not of use for twice as long."""
        now = time.monotonic()
        profile = self._cluster["properties"].get("autoScalerProfile") or {}
        empty = [
            (pool, node, (str(node["metadata"]["name"]), pool.serves(node)))
            for pool in pools
            for node in reversed(pool.existing)
            if node["metadata"]["name"] not in busy and not pool_nodes.is_off(node)
        ]
        self._empty_since = {mark: self._empty_since.get(mark, now) for _, _, mark in empty}
        for pool, node, (name, serves) in empty:
            option, default = PATIENCE[serves]
            if now - self._empty_since[name, serves] < _seconds(profile.get(option), default) * self._scale:
                continue
            async with self._context.nodes_lock[self._cluster["id"]]:
                # Some may have come since all pods were listed.
                pods, _ = await objects.list("pods", field_selector=f"spec.nodeName={name}")
                least = pool.properties["count"] <= pool.properties["minCount"]
                if least or any(map(_stays, pods)) or not self._free(pool.document):
                    continue
                pool.properties["count"] -= 1
                self._context.save(self._cluster)
                text = "marked the node as toBeDeleted/unschedulable"
                await event_recorder.write_event(
                    objects, COMPONENT, {**node, "kind": "Node"}, "Normal", "ScaleDown", text
                )
                await pool_nodes.leave(objects, name, deallocate=pool.properties["scaleDownMode"] == "Deallocate")

    def _free(self, pool: Document) -> bool:
        """Whether nothing has happened to the pool since it was looked at."""
        there = self._cluster["pools"].get(pool["name"]) is pool
        return there and self._context.operations.running(self._cluster) is None


def _why(shape: filters.PodRequirements, pools: list[Pool]) -> str:
    reasons: Counter[str] = Counter()
    for pool in pools:
        reasons.update([pool.refusal] if pool.refusal else filters.filter_node(shape, pool.view()).reasons or [FULL])
    return ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))


def _uids(pods: list[Object]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def _waits(pod: Object) -> bool:
    """Whether the scheduler has found no node for the pod."""
    settled = pod["spec"].get("nodeName") or (pod.get("status") or {}).get("nominatedNodeName")
    going = pod["metadata"].get("deletionTimestamp")
    return not settled and not going and get_condition(pod, "PodScheduled").get("reason") == "Unschedulable"


def _stays(pod: Object) -> bool:
    """Whether the pod keeps its node from being empty."""
    return not is_finished(pod) and not pool_nodes.owned_by_daemon_set(pod)


def _devices(node: Object) -> dict[str, str]:
    """What device plugins offer on a node."""
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    return {name: value for name, value in allocatable.items() if "/" in name and value != "0"}


def _seconds(text: str | None, default: float) -> float:
    """A duration such as ``10m`` or ``20s``."""
    match = re.fullmatch(r"(\d+)([smh])", text or "")
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else default
