"""The work of each kind of long-running operation.

Each function moves a cluster towards the state that its document describes, and can be started again after the process
was killed. :mod:`aksgpu.local.arm.async_operations` saves the outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from aksgpu.local.arm import pool_nodes
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.async_operations import OperationKind
from aksgpu.local.arm.context import Context
from aksgpu.local.arm.resource_ids import cluster_id

CONTROL_PLANE_SHARE = 0.3
"""The fraction of an operation's time before its first node is created."""


def operation_kinds(context: Context) -> dict[str, OperationKind]:
    """Return every kind of operation by name."""

    def kind(
        work: Callable[[Context, Document], Awaitable[None]], seconds: float, state: str = "Updating"
    ) -> OperationKind:
        return OperationKind(partial(work, context), seconds, state)

    return {
        "put-cluster": kind(provision, 3.0, "Creating"),
        "update-cluster": kind(provision, 1.5),
        "start-cluster": kind(provision, 3.0, "Starting"),
        "stop-cluster": kind(stop_cluster, 1.5, "Stopping"),
        "delete-cluster": kind(delete_cluster, 1.5, "Deleting"),
        "put-pool": kind(provision, 2.0),
        "upgrade-pool": kind(upgrade_pool, 2.0),
        "delete-machines": kind(delete_machines, 1.5),
        "delete-pool": kind(delete_pool, 1.5),
        "delete-group": kind(delete_group, 1.5),
        "abort": kind(only_wait, 0.2),
    }


async def provision(context: Context, operation: Document) -> None:
    """Start the control plane, then provision the nodes of the operation's pools, one pool after another."""
    cluster, pools = _get_targets(context, operation)
    cluster["power"] = "Running"
    await context.get_objects(cluster)
    await asyncio.sleep(operation["seconds"] * CONTROL_PLANE_SHARE)
    for pool in pools:
        context.faults.check_machines(pool["properties"])
    for pool in pools:
        await reconcile_pool(context, cluster, pool, operation["seconds"] * (1 - CONTROL_PLANE_SHARE) / len(pools))


async def delete_machines(context: Context, operation: Document) -> None:
    """Remove the named nodes. The request handler has already lowered the pool's count."""
    cluster, (pool,) = _get_targets(context, operation)
    objects = await context.get_objects(cluster)
    async with context.node_locks[cluster["id"]]:
        await pool_nodes.cordon(objects, operation["machines"])
        for name in operation["machines"]:
            await pool_nodes.remove_node(objects, name)
    await reconcile_pool(context, cluster, pool, operation["seconds"])


async def upgrade_pool(context: Context, operation: Document) -> None:
    """Replace the pool's nodes with nodes of the newest image, one after another."""
    cluster, (pool,) = _get_targets(context, operation)
    objects = await context.get_objects(cluster)
    context.faults.check_machines(pool["properties"])
    async with context.node_locks[cluster["id"]]:
        await pool_nodes.replace_nodes(objects, cluster, pool, operation["surge"], operation["seconds"])


async def delete_pool(context: Context, operation: Document) -> None:
    """Drain and remove the pool's nodes, then delete the pool."""
    cluster, (pool,) = _get_targets(context, operation)
    pool["properties"]["count"] = 0
    if cluster["power"] == "Running":
        await reconcile_pool(context, cluster, pool, operation["seconds"])
    del cluster["pools"][operation["pool"]]


async def stop_cluster(context: Context, operation: Document) -> None:
    """Remove the nodes, then stop the control plane. The cluster's objects are kept."""
    cluster, pools = _get_targets(context, operation)
    cluster["power"] = "Stopped"
    objects = await context.get_objects(cluster)
    names = [node["metadata"]["name"] for pool in pools for node in await pool_nodes.list_nodes(objects, pool)]
    await pool_nodes.cordon(objects, names)
    for pool in pools:
        await reconcile_pool(context, cluster, pool, operation["seconds"] / len(pools))
    await context.clusters.close(cluster["id"])


async def delete_cluster(context: Context, operation: Document) -> None:
    """Delete the cluster with its nodes, its pods and its node resource group."""
    await asyncio.sleep(operation["seconds"])
    cluster = context.state.clusters.get(operation["cluster"])
    if cluster is None:
        return  # deleted before the process was killed
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
            running = context.operations.get_running(cluster)
            if running is not None:
                await context.operations.cancel(running)
            await delete_cluster(context, operation | {"cluster": key, "seconds": 0})
    context.state.groups.pop(operation["group"], None)


async def only_wait(context: Context, operation: Document) -> None:
    """Wait for the duration of the operation, and change nothing."""
    await asyncio.sleep(operation["seconds"])


async def reconcile_pool(context: Context, cluster: Document, pool: Document, seconds: float) -> None:
    """Create, update and remove nodes until they match the pool's document, while holding the cluster's node lock."""
    async with context.node_locks[cluster["id"]]:
        await pool_nodes.reconcile(await context.get_objects(cluster), cluster, pool, seconds)


def _get_targets(context: Context, operation: Document) -> tuple[Document, list[Document]]:
    """Return the cluster that an operation changes, and its pool or, without one, all pools."""
    cluster = context.state.clusters[operation["cluster"]]
    return cluster, [pool for name, pool in cluster["pools"].items() if operation["pool"] in ("", name)]
