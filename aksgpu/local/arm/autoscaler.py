"""The cluster autoscaler: pools that grow when pods wait for a node, and shrink when nodes stay empty.

AKS runs the Kubernetes cluster autoscaler. This is a smaller version of it. It is not an operation of Resource Manager,
and does nothing to a cluster while an operation is in progress. It is simpler in three ways. It removes only empty
nodes, not nodes with low utilization. If several pools could grow, it chooses the one that helps the most pods, while
AKS chooses at random. It ignores the pods that DaemonSets will place on a new node.
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
from aksgpu.local.arm.resource_ids import cluster_key
from aksgpu.local.control import event_recorder, filters
from aksgpu.local.control.controller_runtime import get_condition, is_finished, is_ready
from aksgpu.local.control.informer import object_key
from aksgpu.local.objects import Object, Objects
from aksgpu.local.status_error import StatusError

log = logging.getLogger(__name__)

COMPONENT = "cluster-autoscaler"
SCAN_SECONDS = 10.0
"""Time between two scans."""
BACKOFF_SECONDS = 300.0
"""Time for which a pool does not grow after a scale-up has failed."""
RECONCILE_SECONDS = 2.0
"""Time in which the nodes of a scale-up are created."""
UNNEEDED = ("scale-down-unneeded-time", 600.0)
"""Profile option and default: seconds after which an empty node is removed."""
UNREADY = ("scale-down-unready-time", 1200.0)
"""Profile option and default: seconds after which an empty node that is not ready is removed."""
MAX_SIZE_REACHED = "max node group size reached"
IN_BACKOFF = "in backoff after failed scale-up"

PendingPod = tuple[Object, filters.PodRequirements]


class Pool:
    """An autoscaled pool and its nodes.

    Attributes:
        document: the pool's document.
        properties: the document's properties.
        nodes: its nodes.
        group: the name of its scale set.
        template: the Node object of a new node.
        room: number of nodes that it can grow by.
        blocked: the reason why it cannot grow; empty if it can.
    """

    def __init__(self, cluster: Document, pool: Document, nodes: list[Object], backoff: bool) -> None:
        self.document = pool
        self.properties = pool["properties"]
        self.nodes = nodes
        self.group = pool_nodes.scale_set(cluster, pool)
        self.template = pool_nodes.build_node(cluster, pool, pool.get("next", 0), "")
        found = [devices for devices in map(_devices, nodes) if devices]
        self.template["status"]["allocatable"] |= found[0] if found else pool_nodes.gpu_resources(pool)
        self.template["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
        self.room = self.properties["maxCount"] - self.properties["count"]
        self.blocked = ""
        if backoff:
            self.blocked = IN_BACKOFF
        elif self.room <= 0:
            self.blocked = MAX_SIZE_REACHED

    def new_view(self) -> filters.NodeInfo:
        """Return the scheduler's view of a new node of the pool."""
        view = filters.NodeInfo(self.template["metadata"]["name"])
        view.set_node(self.template)
        return view

    def is_ready(self, node: Object) -> bool:
        """Return whether the node is ready and has all devices of the template. Other nodes are still starting."""
        ready = not pool_nodes.is_deallocated(node) and is_ready(node)
        return ready and _devices(node).keys() >= _devices(self.template).keys()

    def pack(self, pods: list[PendingPod], starting: int, additional: int) -> tuple[list[Object], int]:
        """Place pods on empty nodes of the pool, one after another.

        Args:
            pods: the pods.
            starting: number of nodes that are starting.
            additional: number of nodes that could be added.

        Returns:
            The pods that fit, and the number of nodes that must be added for them.
        """
        placed = []
        views = [self.new_view() for _ in range(starting)]
        first_candidate = Counter[bytes]()
        for pod, requirements in pods:
            # A node without room for a pod has no room for later pods with the same requirements.
            index = first_candidate[requirements.key]
            while index < len(views) and filters.filter_node(requirements, views[index]).reasons:
                index += 1
            first_candidate[requirements.key] = index
            if index == len(views):
                view = self.new_view()
                if index >= starting + additional or filters.filter_node(requirements, view).reasons:
                    continue
                views.append(view)
            uid = pod["metadata"]["uid"]
            assigned = filters.AssignedPod(uid, object_key(pod), requirements.priority, requirements.requests)
            views[index].add_pod(assigned)
            placed.append(pod)
        return placed, len(views) - starting


async def run(context: Context) -> None:
    """Scan every cluster periodically until cancelled."""
    scalers: dict[str, Scaler] = {}
    while True:
        await asyncio.sleep(SCAN_SECONDS * context.settings.time_scale)
        clusters = list(context.state.clusters.values())
        scalers = {cluster["id"]: scalers.get(cluster["id"]) or Scaler(context, cluster) for cluster in clusters}
        for cluster in clusters:
            try:
                await scalers[cluster["id"]].scan()
            except (StatusError, LaptopError) as error:  # for example, the cluster is being deleted
                log.info("autoscaler of %s: %s", cluster["name"], error)
            except Exception:
                log.exception("autoscaler of %s", cluster["name"])


class Scaler:
    """Scales the pools of one cluster.

    Args:
        context: the subscription.
        cluster: the cluster.
    """

    def __init__(self, context: Context, cluster: Document) -> None:
        self._context = context
        self._cluster = cluster
        self._scale = context.settings.time_scale
        self._messages: dict[str, str] = {}  # by pod uid: the last NotTriggerScaleUp message
        self._empty_since: dict[tuple[str, bool], float] = {}  # by node name and whether the node is ready
        self._backoff_until: dict[str, float] = {}  # by pool name

    async def scan(self) -> None:
        """Grow one pool. If no pod needs a new node, remove empty nodes.

        Do nothing if the cluster is stopped, no longer exists, or an operation is in progress on it.
        """
        if not self._is_open():
            return
        documents = [
            pool
            for pool in self._cluster["pools"].values()
            if pool["properties"].get("enableAutoScaling") and pool["power"] == "Running"
        ]
        if not documents:
            return
        objects = await self._context.get_objects(self._cluster)
        now = time.monotonic()
        pools = []
        pods, _ = await objects.list("pods")
        for document in documents:
            backoff = self._backoff_until.get(document["name"], 0) > now
            pools.append(Pool(self._cluster, document, await pool_nodes.list_nodes(objects, document), backoff))
        for each in pools:
            running = sum(not pool_nodes.is_deallocated(node) for node in each.nodes)
            # Replace nodes that a user has deleted.
            if running < each.properties["count"] and each.document["state"] == "Succeeded":
                await self._reconcile(each)
        pool, placed, added = await self._choose(objects, pools, [pod for pod in pods if _is_unschedulable(pod)])
        if pool is not None and await self._grow(objects, pool, placed, added):
            await self._reconcile(pool)
        else:
            busy = {pod["spec"].get("nodeName") for pod in pods if _blocks_removal(pod)}
            await self._shrink(objects, pools, busy)

    async def _reconcile(self, pool: Pool) -> None:
        """Create the pool's missing nodes, unless an operation has started in the meantime."""
        async with self._context.node_locks[self._cluster["id"]]:
            # The operation may have deleted or stopped the cluster. `get_objects` would start it again.
            if self._is_unchanged(pool.document):
                objects = await self._context.get_objects(self._cluster)
                seconds = RECONCILE_SECONDS * self._scale
                await pool_nodes.reconcile(objects, self._cluster, pool.document, seconds)

    async def _choose(
        self, objects: Objects, pools: list[Pool], waiting: list[Object]
    ) -> tuple[Pool | None, list[Object], int]:
        """Choose the pool that helps the most pods, and record an event for the pods that no pool helps.

        Returns:
            The pool or None, the pods that it helps, and the number of nodes to add.
        """
        pending = [(pod, filters.PodRequirements(pod["spec"])) for pod in waiting]
        for pool in pools:  # a pod that fits on a node that is starting needs no new node
            starting = pool.properties["count"] - sum(map(pool.is_ready, pool.nodes))
            settled = _uids(pool.pack(pending, starting, 0)[0])
            pending = [each for each in pending if each[0]["metadata"]["uid"] not in settled]
        options = [(pool, *pool.pack(pending, 0, pool.room)) for pool in pools if not pool.blocked]
        helped = {uid for _, placed, _ in options for uid in _uids(placed)}
        last_messages = self._messages
        self._messages = {}
        for pod, requirements in pending:
            uid = pod["metadata"]["uid"]
            if uid in helped:
                continue
            message = f"pod didn't trigger scale-up: {_reasons(requirements, pools)}"
            self._messages[uid] = message
            if last_messages.get(uid) != message:
                await event_recorder.write_event(objects, COMPONENT, pod, "Normal", "NotTriggerScaleUp", message)
        return max(options, key=lambda option: len(option[1])) if helped else (None, [], 0)

    async def _grow(self, objects: Objects, pool: Pool, placed: list[Object], added: int) -> bool:
        """Raise the pool's count and record events for the pods. Return whether Azure allowed it."""
        document = pool.document
        properties = pool.properties
        before = properties["count"]
        after = properties["count"] + added
        if not self._is_unchanged(document):
            return False
        try:
            self._context.faults.check_machines(properties)
            grown = {**document, "properties": {**properties, "count": after}}
            vcpu_quota.check(self._context, self._cluster["location"], [grown], instead_of=[document])
        except ArmError as error:
            self._backoff_until[document["name"]] = time.monotonic() + BACKOFF_SECONDS * self._scale
            involved = {"kind": "ConfigMap", "metadata": {"name": f"{COMPONENT}-status", "namespace": "kube-system"}}
            message = f"Scale-up failed for group {pool.group}: {error.code}: {error.message}"
            await event_recorder.write_event(objects, COMPONENT, involved, "Warning", "FailedToScaleUpGroup", message)
            return False
        properties["count"] = after
        self._context.save(self._cluster)
        message = f"pod triggered scale-up: [{{{pool.group} {before}->{after} (max: {properties['maxCount']})}}]"
        for pod in placed:
            await event_recorder.write_event(objects, COMPONENT, pod, "Normal", "TriggeredScaleUp", message)
        return True

    async def _shrink(self, objects: Objects, pools: list[Pool], busy: set[str]) -> None:
        """Remove nodes that have been empty for a while.

        Args:
            objects: the cluster's objects.
            pools: the autoscaled pools.
            busy: the names of nodes that are not empty.
        """
        now = time.monotonic()
        profile = self._cluster["properties"].get("autoScalerProfile") or {}
        empty = []
        for pool in pools:
            for node in reversed(pool.nodes):
                name = str(node["metadata"]["name"])
                if name not in busy and not pool_nodes.is_deallocated(node):
                    empty.append((pool, node, (name, pool.is_ready(node))))
        self._empty_since = {key: self._empty_since.get(key, now) for _, _, key in empty}
        for pool, node, (name, ready) in empty:
            option, default = UNNEEDED if ready else UNREADY
            limit = _parse_duration(profile.get(option), default) * self._scale
            if now - self._empty_since[name, ready] >= limit:
                await self._remove_if_empty(objects, pool, node)

    async def _remove_if_empty(self, objects: Objects, pool: Pool, node: Object) -> None:
        name = node["metadata"]["name"]
        async with self._context.node_locks[self._cluster["id"]]:
            # Pods may have been placed on the node since all pods were listed.
            pods, _ = await objects.list("pods", field_selector=f"spec.nodeName={name}")
            at_minimum = pool.properties["count"] <= pool.properties["minCount"]
            if at_minimum or any(map(_blocks_removal, pods)) or not self._is_unchanged(pool.document):
                return
            pool.properties["count"] -= 1
            self._context.save(self._cluster)
            message = "marked the node as toBeDeleted/unschedulable"
            await event_recorder.write_event(
                objects, COMPONENT, {**node, "kind": "Node"}, "Normal", "ScaleDown", message
            )
            await pool_nodes.remove_node(objects, name, deallocate=pool.properties["scaleDownMode"] == "Deallocate")

    def _is_open(self) -> bool:
        """Return whether the cluster exists, is not stopped, and no operation is in progress on it."""
        cluster = self._cluster
        known = self._context.state.clusters.get(cluster_key(cluster["group"], cluster["name"]))
        idle = self._context.operations.get_running(cluster) is None
        return known is cluster and cluster["power"] == "Running" and idle

    def _is_unchanged(self, pool: Document) -> bool:
        """Return whether the pool is still the one that was scanned, and no operation has started since."""
        return self._is_open() and self._cluster["pools"].get(pool["name"]) is pool


def _reasons(requirements: filters.PodRequirements, pools: list[Pool]) -> str:
    """Return the reasons why no pool helps pods with these requirements, with the number of pools for each."""
    counts: Counter[str] = Counter()
    for pool in pools:
        if pool.blocked:
            counts[pool.blocked] += 1
        else:
            counts.update(filters.filter_node(requirements, pool.new_view()).reasons or [MAX_SIZE_REACHED])
    return ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))


def _uids(pods: list[Object]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def _is_unschedulable(pod: Object) -> bool:
    """Return whether the scheduler has found no node for the pod."""
    placed = pod["spec"].get("nodeName") or (pod.get("status") or {}).get("nominatedNodeName")
    deleted = pod["metadata"].get("deletionTimestamp")
    return not placed and not deleted and get_condition(pod, "PodScheduled").get("reason") == "Unschedulable"


def _blocks_removal(pod: Object) -> bool:
    """Return whether the pod's node counts as in use."""
    return not is_finished(pod) and not pool_nodes.owned_by_daemon_set(pod)


def _devices(node: Object) -> dict[str, str]:
    """Return the allocatable devices of a node, by resource name."""
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    return {name: value for name, value in allocatable.items() if "/" in name and value != "0"}


def _parse_duration(text: str | None, default: float) -> float:
    """Return the seconds of a duration such as ``10m`` or ``20s``."""
    match = re.fullmatch(r"(\d+)([smh])", text or "")
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else default
