"""Agent pools: create, change, show, delete; and their machines."""

from __future__ import annotations

from typing import Any

from aksgpu.local.arm import errors, nodes, quota, rules, shapes
from aksgpu.local.arm.clusters import ABORT_SECONDS, changed_pool, check_preconditions, check_ready
from aksgpu.local.arm.context import (
    CLUSTER_TYPE,
    Answer,
    Call,
    Context,
    accepted,
    cluster_id,
    cluster_key,
    find_cluster,
    find_pool,
    group_id,
)
from aksgpu.local.arm.state import Document
from aksgpu.local.objects import Object

POOL_SECONDS = 2.0
DELETE_SECONDS = 1.5


def put(context: Context, call: Call) -> Answer:
    """Create an agent pool, or change it: its count, labels, taints, tags, autoscaler or power."""
    cluster = find_cluster(context, call)
    given = (call.body or {}).get("properties") or {}
    name = call.path["pool"]
    old = cluster["pools"].get(name)
    check_preconditions(call, shapes.show_pool(cluster, old) if old else None)
    check_ready(context, cluster)
    if old is not None:
        rules.check_fixed(old["properties"], given, rules.FIXED_POOL_FIELDS)
    pool = changed_pool(old, name, given)
    rules.check_pool(name, pool["properties"], cluster["location"])
    rules.check_system_pool({**cluster["pools"], name: pool})
    quota.check(context, cluster["location"], [pool], instead_of=[old] if old else [])

    pool["state"] = _state(old, pool)
    cluster["pools"][name], cluster["state"] = pool, "Updating"
    operation = _begin(context, cluster, "put-pool", POOL_SECONDS, name)
    return accepted(context, call, operation, status=200 if old else 201, body=shapes.show_pool(cluster, pool))


def _state(old: Document | None, new: Document) -> str:
    """What AKS calls the change."""
    if old is None:
        return "Creating"
    if old["power"] != new["power"]:
        return "Stopping" if new["power"] == "Stopped" else "Starting"
    return "Scaling" if old["properties"]["count"] != new["properties"]["count"] else "Updating"


def get(context: Context, call: Call) -> Answer:
    """One agent pool."""
    return Answer(200, shapes.show_pool(*find_pool(context, call)))


def listed(context: Context, call: Call) -> Answer:
    """The agent pools of a cluster."""
    cluster = find_cluster(context, call)
    return Answer(200, {"value": [shapes.show_pool(cluster, pool) for pool in cluster["pools"].values()]})


def delete(context: Context, call: Call) -> Answer:
    """Delete an agent pool; the last system pool stays."""
    cluster = find_cluster(context, call)
    name = call.path["pool"].lower()
    if name not in cluster["pools"]:
        return Answer(204)
    running = context.operations.running(cluster)
    if running is not None and running["kind"] == "delete-pool" and running["pool"] == name:
        return accepted(context, call, running)
    check_ready(context, cluster)
    rules.check_system_pool({key: pool for key, pool in cluster["pools"].items() if key != name})
    cluster["pools"][name]["state"] = "Deleting"
    cluster["state"] = "Updating"
    return accepted(context, call, _begin(context, cluster, "delete-pool", DELETE_SECONDS, name))


async def delete_machines(context: Context, call: Call) -> Answer:
    """Delete the machines that the body names; the pool's count falls by as many."""
    cluster, pool = find_pool(context, call)
    names = sorted({str(name) for name in (call.body or {}).get("machineNames") or []})
    if not names:
        raise errors.missing("machineNames")
    there = {node["metadata"]["name"] for node in await _nodes(context, cluster, pool)}
    if unknown := [name for name in names if name not in there]:
        raise errors.invalid("machineNames", f"agent pool {pool['name']} has no machine {', '.join(unknown)}.")
    check_ready(context, cluster)
    left = {**pool["properties"], "count": pool["properties"]["count"] - len(names)}
    rules.check_pool(pool["name"], left, cluster["location"])
    pool["properties"], pool["state"], cluster["state"] = left, "Deleting machines", "Updating"
    operation = _begin(context, cluster, "delete-machines", DELETE_SECONDS, pool["name"], machines=names)
    return accepted(context, call, operation)


def upgrade(context: Context, call: Call) -> Answer:
    """Give the pool's nodes the newest image; the nodes that stand in meanwhile need quota."""
    cluster, pool = find_pool(context, call)
    check_ready(context, cluster)
    surge = rules.surge(pool["properties"])
    quota.check(context, cluster["location"], [pool], instead_of=[pool], surge=surge)
    pool["state"], cluster["state"] = "UpgradingNodeImageVersion", "Updating"
    operation = _begin(context, cluster, "upgrade-pool", POOL_SECONDS, pool["name"], surge=surge)
    return accepted(context, call, operation, body=shapes.show_pool(cluster, pool))


async def abort(context: Context, call: Call) -> Answer:
    """Cancel the operation that runs on the pool."""
    cluster, pool = find_pool(context, call)
    running = context.operations.running(cluster)
    if running is None or running["pool"] != pool["name"]:
        return Answer(204)
    await context.operations.cancel(running)
    return accepted(
        context, call, context.operations.begin("abort", location=cluster["location"], seconds=ABORT_SECONDS)
    )


async def machines(context: Context, call: Call) -> Answer:
    """The machines of a pool."""
    cluster, pool = find_pool(context, call)
    return Answer(200, {"value": [_machine(cluster, pool, node) for node in await _nodes(context, cluster, pool)]})


async def machine(context: Context, call: Call) -> Answer:
    """One machine of a pool."""
    cluster, pool = find_pool(context, call)
    for node in await _nodes(context, cluster, pool):
        if node["metadata"]["name"] == call.path["machine"]:
            return Answer(200, _machine(cluster, pool, node))
    raise errors.rejected("NotFound", f"Could not find the machine {call.path['machine']}.", status=404)


async def _nodes(context: Context, cluster: Document, pool: Document) -> list[Object]:
    if cluster["power"] == "Stopped":
        return []
    return await nodes.of_pool(await context.clusters.open(cluster["id"], cluster["token"]), pool)


def _machine(cluster: Document, pool: Document, node: Object) -> Document:
    name, zone = node["metadata"]["name"], node["metadata"]["labels"]["topology.kubernetes.io/zone"]
    address = next(entry["address"] for entry in node["status"]["addresses"] if entry["type"] == "InternalIP")
    group = group_id(cluster["properties"]["nodeResourceGroup"])
    number = nodes.node_index(name)
    scale_set = f"{group}/providers/Microsoft.Compute/virtualMachineScaleSets/{nodes.scale_set(cluster, pool)}"
    return {
        "id": f"{cluster_id(cluster)}/agentPools/{pool['name']}/machines/{name}",
        "name": name,
        "type": f"{CLUSTER_TYPE}/agentPools/machines",
        **({"zones": [zone.rpartition("-")[2]]} if zone != "0" else {}),
        "properties": {
            "network": {"ipAddresses": [{"family": "IPv4", "ip": address}]},
            "resourceId": f"{scale_set}/virtualMachines/{number}",
        },
    }


def _begin(context: Context, cluster: Document, kind: str, seconds: float, pool: str, **details: Any) -> Document:
    key = cluster_key(cluster["group"], cluster["name"])
    return context.operations.begin(
        kind, location=cluster["location"], seconds=seconds, cluster=key, pool=pool, **details
    )
