"""What each kind of long-running operation does, once its handler has answered.

Each function moves a cluster towards what its document says, and can be begun anew after a kill. The states that it
leaves behind are the operation's business (:mod:`aksgpu.local.arm.async_operations`), which also writes them down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aksgpu.local.arm import pool_nodes
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import Context, cluster_id

CONTROL_PLANE_SHARE = 0.3
"""The part of a cluster operation that passes before its nodes appear."""


async def bring_up(context: Context, operation: Document) -> None:
    """Bring up the control plane, then the nodes of the pool, or of every pool, one after another."""
    cluster, pools = _about(context, operation)
    cluster["power"] = "Running"
    await context.objects(cluster)
    await asyncio.sleep(operation["seconds"] * CONTROL_PLANE_SHARE)
    for pool in pools:
        context.faults.check_machines(pool["properties"])
    for pool in pools:
        await settle(context, cluster, pool, operation["seconds"] * (1 - CONTROL_PLANE_SHARE) / len(pools))


async def delete_machines(context: Context, operation: Document) -> None:
    """Take the named nodes away; the pool's count has been lowered already."""
    cluster, (pool,) = _about(context, operation)
    objects = await context.objects(cluster)
    async with context.nodes_lock[cluster["id"]]:
        await pool_nodes.cordon(objects, operation["machines"])
        for name in operation["machines"]:
            await pool_nodes.leave(objects, name)
    await settle(context, cluster, pool, operation["seconds"])


async def upgrade_pool(context: Context, operation: Document) -> None:
    """Give the pool's nodes the newest image, one after another."""
    cluster, (pool,) = _about(context, operation)
    objects = await context.objects(cluster)
    context.faults.check_machines(pool["properties"])
    async with context.nodes_lock[cluster["id"]]:
        await pool_nodes.replace(objects, cluster, pool, operation["surge"], operation["seconds"])


async def delete_pool(context: Context, operation: Document) -> None:
    """Drain the pool's nodes away, then forget the pool."""
    cluster, (pool,) = _about(context, operation)
    pool["properties"]["count"] = 0
    if cluster["power"] == "Running":
        await settle(context, cluster, pool, operation["seconds"])
    del cluster["pools"][operation["pool"]]


async def stop_cluster(context: Context, operation: Document) -> None:
    """Release the nodes, then stop the control plane; what is in its store stays."""
    cluster, pools = _about(context, operation)
    cluster["power"] = "Stopped"
    objects = await context.objects(cluster)
    going = [node["metadata"]["name"] for pool in pools for node in await pool_nodes.of_pool(objects, pool)]
    await pool_nodes.cordon(objects, going)
    for pool in pools:
        await settle(context, cluster, pool, operation["seconds"] / len(pools))
    await context.clusters.close(cluster["id"])


async def delete_cluster(context: Context, operation: Document) -> None:
    """Take the cluster away with its nodes, its pods and its node resource group."""
    await asyncio.sleep(operation["seconds"])
    cluster = context.state.clusters.get(operation["cluster"])
    if cluster is None:
        return  # a process that was killed had gone as far
    await context.clusters.delete(cluster["id"])
    identity = cluster_id(cluster)
    groups = context.state.groups
    managed = [name for name, group in groups.items() if group.get("managedBy") == identity]
    for name in managed:
        del groups[name]
    del context.state.clusters[operation["cluster"]]
    context.state.save(("clusters", operation["cluster"]), *(("groups", name) for name in managed))


async def delete_group(context: Context, operation: Document) -> None:
    """Delete the clusters of a resource group, then the group."""
    await asyncio.sleep(operation["seconds"])
    for key, cluster in list(context.state.clusters.items()):
        if cluster["group"].lower() == operation["group"]:
            running = context.operations.running(cluster)
            if running is not None:
                await context.operations.cancel(running)
            await delete_cluster(context, operation | {"cluster": key, "seconds": 0})
    context.state.groups.pop(operation["group"], None)


async def nothing(context: Context, operation: Document) -> None:
    """Only take time."""
    await asyncio.sleep(operation["seconds"])


@dataclass(frozen=True)
class Kind:
    """A kind of operation."""

    work: Callable[[Context, Document], Awaitable[None]]
    seconds: float
    """How long it takes, before the laptop's time scale."""
    state: str = "Updating"
    """The provisioning state of its cluster meanwhile."""


KINDS = {
    "put-cluster": Kind(bring_up, 3.0, "Creating"),
    "update-cluster": Kind(bring_up, 1.5),
    "start-cluster": Kind(bring_up, 3.0, "Starting"),
    "stop-cluster": Kind(stop_cluster, 1.5, "Stopping"),
    "delete-cluster": Kind(delete_cluster, 1.5, "Deleting"),
    "put-pool": Kind(bring_up, 2.0),
    "upgrade-pool": Kind(upgrade_pool, 2.0),
    "delete-machines": Kind(delete_machines, 1.5),
    "delete-pool": Kind(delete_pool, 1.5),
    "delete-group": Kind(delete_group, 1.5),
    "abort": Kind(nothing, 0.2),
}


async def settle(context: Context, cluster: Document, pool: Document, seconds: float) -> None:
    """Make the pool's nodes be what its document says, while nobody else makes or removes nodes of the cluster."""
    async with context.nodes_lock[cluster["id"]]:
        await pool_nodes.settle(await context.objects(cluster), cluster, pool, seconds)


def _about(context: Context, operation: Document) -> tuple[Document, list[Document]]:
    """The cluster and the pools that an operation is about: one, or all."""
    cluster = context.state.clusters[operation["cluster"]]
    return cluster, [pool for name, pool in cluster["pools"].items() if operation["pool"] in ("", name)]
