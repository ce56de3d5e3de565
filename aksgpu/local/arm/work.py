"""What each kind of long-running operation does, once its handler has answered.

Each function moves a cluster towards what its document says, and can be begun anew after a kill. The states that it
leaves behind are the operation's business (:mod:`aksgpu.local.arm.operations`), which also writes them down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aksgpu.local.arm import nodes
from aksgpu.local.arm.context import Context, cluster_id
from aksgpu.local.arm.state import Document

CONTROL_PLANE_SHARE = 0.3
"""The part of a cluster operation that passes before its nodes appear."""


async def put_cluster(context: Context, operation: Document) -> None:
    """Bring up the control plane, then the nodes of every pool, one after another."""
    cluster = context.state.clusters[operation["cluster"]]
    await context.objects(cluster)
    await asyncio.sleep(operation["seconds"] * CONTROL_PLANE_SHARE)
    for pool in cluster["pools"].values():
        context.faults.check_machines(pool["properties"])
    await _settle_all(context, cluster, operation["seconds"] * (1 - CONTROL_PLANE_SHARE))


async def put_pool(context: Context, operation: Document) -> None:
    """Bring a pool's nodes to what the pool says now."""
    cluster, pool = _about(context, operation)
    await context.objects(cluster)
    context.faults.check_machines(pool["properties"])
    await settle(context, cluster, pool, operation["seconds"])


async def delete_machines(context: Context, operation: Document) -> None:
    """Take the named nodes away; the pool's count has been lowered already."""
    cluster, pool = _about(context, operation)
    async with context.nodes_lock[cluster["id"]]:
        for name in operation["machines"]:
            await nodes.remove(await context.objects(cluster), name)
    await settle(context, cluster, pool, operation["seconds"])


async def upgrade_pool(context: Context, operation: Document) -> None:
    """Give the pool's nodes the newest image, one after another."""
    cluster, pool = _about(context, operation)
    objects = await context.objects(cluster)
    context.faults.check_machines(pool["properties"])
    async with context.nodes_lock[cluster["id"]]:
        await nodes.replace(objects, cluster, pool, operation["surge"], operation["seconds"])


async def delete_pool(context: Context, operation: Document) -> None:
    """Drain the pool's nodes away, then forget the pool."""
    cluster, pool = _about(context, operation)
    pool["properties"]["count"] = 0
    if cluster["power"] == "Running":
        await settle(context, cluster, pool, operation["seconds"])
    del cluster["pools"][operation["pool"]]


async def delete_cluster(context: Context, operation: Document) -> None:
    """Take the cluster away with its nodes, its pods and its node resource group."""
    await asyncio.sleep(operation["seconds"])
    await _forget_cluster(context, operation["cluster"])


async def stop_cluster(context: Context, operation: Document) -> None:
    """Release the nodes, then stop the control plane; what is in its store stays."""
    cluster = context.state.clusters[operation["cluster"]]
    cluster["power"] = "Stopped"
    await _settle_all(context, cluster, operation["seconds"])
    await context.clusters.close(cluster["id"])


async def start_cluster(context: Context, operation: Document) -> None:
    """Start the control plane and give every pool its nodes back."""
    context.state.clusters[operation["cluster"]]["power"] = "Running"
    await put_cluster(context, operation)


async def delete_group(context: Context, operation: Document) -> None:
    """Delete the clusters of a resource group, then the group."""
    await asyncio.sleep(operation["seconds"])
    group = operation["group"]
    for key in [key for key, found in context.state.clusters.items() if found["group"].lower() == group]:
        running = context.operations.running(context.state.clusters[key])
        if running is not None:
            await context.operations.cancel(running)
        await _forget_cluster(context, key)
    context.state.groups.pop(group, None)


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
    "put-cluster": Kind(put_cluster, 3.0, "Creating"),
    "update-cluster": Kind(put_cluster, 1.5),
    "start-cluster": Kind(start_cluster, 3.0, "Starting"),
    "stop-cluster": Kind(stop_cluster, 1.5, "Stopping"),
    "delete-cluster": Kind(delete_cluster, 1.5, "Deleting"),
    "put-pool": Kind(put_pool, 2.0),
    "upgrade-pool": Kind(upgrade_pool, 2.0),
    "delete-machines": Kind(delete_machines, 1.5),
    "delete-pool": Kind(delete_pool, 1.5),
    "delete-group": Kind(delete_group, 1.5),
    "abort": Kind(nothing, 0.2),
}


async def settle(context: Context, cluster: Document, pool: Document, seconds: float) -> None:
    """Make the pool's nodes be what its document says, while nobody else makes or removes nodes of the cluster."""
    async with context.nodes_lock[cluster["id"]]:
        await nodes.settle(await context.objects(cluster), cluster, pool, seconds)


async def _settle_all(context: Context, cluster: Document, seconds: float) -> None:
    for pool in list(cluster["pools"].values()):
        await settle(context, cluster, pool, seconds / len(cluster["pools"]))


def _about(context: Context, operation: Document) -> tuple[Document, Document]:
    cluster = context.state.clusters[operation["cluster"]]
    return cluster, cluster["pools"][operation["pool"]]


async def _forget_cluster(context: Context, key: str) -> None:
    """Delete a cluster and its node resource group; both leave the file in one transaction."""
    cluster = context.state.clusters.get(key)
    if cluster is None:
        return
    await context.clusters.delete(cluster["id"])
    identity, groups = cluster_id(cluster), context.state.groups
    managed = [name for name, group in groups.items() if group.get("managedBy") == identity]
    for name in managed:
        del groups[name]
    del context.state.clusters[key]
    context.state.save(("clusters", key), *(("groups", name) for name in managed))
