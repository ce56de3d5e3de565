"""Faults on demand, for tests and notebooks: quota, capacity, throttling, broken drivers, lost nodes, spot evictions.

Most faults are kept in :class:`~aksgpu.local.arm.faults.Faults` until a request or an operation triggers them. Faults
of nodes and API servers happen at once.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from aksgpu.errors import LaptopError
from aksgpu.local.arm import pool_nodes
from aksgpu.local.arm.arm_errors import refusal
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import Context
from aksgpu.local.arm.json_schema import InvalidField, require
from aksgpu.local.arm.reference_data import table
from aksgpu.local.control import event_recorder
from aksgpu.local.node_annotations import GPU_DRIVER_ERROR, KUBELET_AWAY
from aksgpu.local.objects import Object, Objects

DRIVER_ERROR = "Driver/library version mismatch"

ROLES_LOAD_SECONDS = 5.0
"""Default time for which an API server has no roles."""

NOTICE_SECONDS = 1.0
"""Time between the notice of an eviction and the eviction, before the time scale. Azure waits at most 30 seconds."""


async def inject(context: Context, kind: str, details: dict[str, Any]) -> str:
    """Add a fault to those that have not happened yet, or cause it at once.

    Args:
        context: the subscription.
        kind: a key of ``faults`` in ``fields.yaml``, or ``none`` to remove all faults.
        details: the fault's details; None means the default.

    Returns:
        A sentence that says what was done.

    Raises:
        ArmError: the kind or the details are not valid, or there is no node for the fault.
    """
    given = {name: value for name, value in details.items() if value is not None}
    if kind != "none":
        _check(kind, given)
    match kind:
        case "none":
            context.faults.clear()
            context.clusters.unload_roles(0)
            await _set_driver_error(context, "", None)
            await _set_annotation(context, "", KUBELET_AWAY, None)
        case "eviction":
            return f"evicted {await evict_spot_node(context, given)}"
        case "kubelet-away":
            node = given.get("node", "")
            if not await _set_annotation(context, node, KUBELET_AWAY, given.get("cause", "kubelet")):
                raise refusal("no_node", name=node)
            return f"cut the connection to {node or 'all kubelets'}"
        case "node-gone":
            return f"removed {await remove_node_at_once(context, given.get('node', ''))}"
        case "gpu-driver" if "node" in given:
            if not await _set_driver_error(context, given["node"], given.get("message", DRIVER_ERROR)):
                raise refusal("no_gpu_node", name=given["node"])
            return f"broke the driver of {given['node']}"
        case "rbac-not-loaded":
            seconds = given.get("seconds", ROLES_LOAD_SECONDS)
            context.clusters.unload_roles(seconds)
            return f"unloaded the roles of all API servers for {seconds:g} seconds"
        case "quota":
            context.faults.quota[given.get("family", "cores").lower()] = given.get("limit", 0)
        case _:
            context.faults.add(kind, given)
    return "injected"


def _check(kind: str, details: dict[str, Any]) -> None:
    schemas = table("fields")["faults"]
    fields = schemas.get(kind, {}).get("properties", {})
    if kind not in schemas or not details.keys() <= fields.keys():
        known = ", ".join(f"{name}({', '.join(schema['properties'])})" for name, schema in schemas.items())
        raise refusal("no_fault", fault=kind, fields=sorted(details.keys() - fields) or "nothing", known=known)
    try:
        require(schemas[kind], details)
    except InvalidField as error:
        raise refusal("bad_fault", fault=kind, why=error) from None


async def _running_nodes(context: Context) -> AsyncIterator[tuple[Document, Document, Objects, Object]]:
    """Yield cluster, pool, objects and node for every running machine, the newest of a pool first.

    Clusters that are being deleted, or whose store cannot be read, have none.
    """
    for cluster in list(context.state.clusters.values()):
        if cluster["power"] != "Running":
            continue
        try:
            objects = await context.get_objects(cluster)
        except LaptopError:
            continue
        for pool in list(cluster["pools"].values()):
            for node in reversed(await pool_nodes.list_nodes(objects, pool)):
                if not pool_nodes.is_deallocated(node):
                    yield cluster, pool, objects, node


async def _set_driver_error(context: Context, name: str, message: str | None) -> bool:
    """Break or repair the NVIDIA driver of one node, or of all. Return whether a node with a driver was found.

    Args:
        context: the subscription.
        name: the node; empty for all nodes.
        message: NVML's error message; None repairs the driver.
    """
    return await _set_annotation(context, name, GPU_DRIVER_ERROR, message, with_driver=True)


async def _set_annotation(
    context: Context, name: str, key: str, value: str | None, *, with_driver: bool = False
) -> bool:
    """Set or remove an annotation of one node, or of all. Return whether a node was found.

    Args:
        context: the subscription.
        name: the node; empty for all nodes.
        key: the annotation.
        value: its value; None removes it.
        with_driver: whether to skip nodes without an NVIDIA driver.
    """
    found = False
    async for _, pool, objects, node in _running_nodes(context):
        metadata = node["metadata"]
        if name in ("", metadata["name"]) and (pool_nodes.gpu_annotations(pool) or not with_driver):
            found = True
            if metadata.get("annotations", {}).get(key) != value:
                await objects.patch("nodes", metadata["name"], {"metadata": {"annotations": {key: value}}})
    return found


async def remove_node_at_once(context: Context, name: str) -> str:
    """Remove a machine with its pods and their logs without notice, as when Azure loses it.

    Args:
        context: the subscription.
        name: the node; empty for the newest one.

    Returns:
        The node's name.

    Raises:
        ArmError: no cluster has such a node.
    """
    candidates = [found async for found in _running_nodes(context) if name in ("", found[3]["metadata"]["name"])]
    if not candidates:
        raise refusal("no_node", name=name)
    cluster, pool, objects, node = max(candidates, key=lambda found: str(found[3]["metadata"]["creationTimestamp"]))
    async with context.node_locks[cluster["id"]]:
        properties = pool["properties"]
        properties["count"] = max(0, properties["count"] - 1)
        context.save(cluster)
        await pool_nodes.delete_node(objects, node["metadata"]["name"])
    return str(node["metadata"]["name"])


async def evict_spot_node(context: Context, details: dict[str, Any]) -> str:
    """Evict one node of a spot pool, as Azure does when it needs the capacity.

    The node announces the eviction as AKS' node problem detector does. Then the machine is deleted or deallocated,
    depending on the pool's eviction policy.

    Returns:
        The node's name.

    Raises:
        ArmError: no cluster has such a node.
    """
    async for cluster, pool, objects, node in _running_nodes(context):
        properties = pool["properties"]
        name = str(node["metadata"]["name"])
        if properties["scaleSetPriority"] != "Spot" or pool["name"] != details.get("pool", pool["name"]):
            continue
        deallocate = properties.get("scaleSetEvictionPolicy") == "Deallocate"
        async with context.node_locks[cluster["id"]]:
            await _announce_eviction(objects, node)
            await asyncio.sleep(NOTICE_SECONDS * context.settings.time_scale)
            properties["count"] = max(0, properties["count"] - 1)
            context.save(cluster)
            await pool_nodes.remove_node(objects, name, deallocate=deallocate)
        return name
    raise refusal("no_spot_node")


async def _announce_eviction(objects: Objects, node: Object) -> None:
    """Set the condition and record the event that announce an eviction."""
    now = datetime.now(UTC)
    timestamp = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    message = (
        f"Preempt Scheduled: {now:%a, %d %b %Y %H:%M:%S} GMT. For more information, see "
        f"https://aka.ms/aks/scheduled-events. EventId: {str(uuid.uuid4()).upper()}"
    )
    condition = {
        "type": "PreemptionScheduled",
        "status": "True",
        "reason": "SpotEvictionIncoming",
        "message": message,
        "lastHeartbeatTime": timestamp,
        "lastTransitionTime": timestamp,
    }
    conditions = [*node["status"].get("conditions", []), condition]
    await objects.patch("nodes", node["metadata"]["name"], {"status": {"conditions": conditions}}, subresource="status")
    await event_recorder.write_event(
        objects, "node-problem-detector", {**node, "kind": "Node"}, "Warning", "PreemptScheduled", message
    )
