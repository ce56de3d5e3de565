"""Agent pools: create, change, show, delete; and their machines."""

from __future__ import annotations

from aksgpu.local.arm import pool_nodes, representations, rules, vcpu_quota
from aksgpu.local.arm.arm_errors import refusal, refuse_if
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import CLUSTER_TYPE, Answer, Call, Context, cluster_id
from aksgpu.local.arm.managed_clusters import check_etag, check_ready, wanted_pool
from aksgpu.local.objects import Object


def put(context: Context, call: Call) -> Answer:
    """Create an agent pool, or change it: its count, labels, taints, tags, autoscaler or power."""
    cluster = context.cluster(call)
    name = call.path["pool"]
    old = cluster["pools"].get(name)
    location = cluster["location"]
    check_etag(call, representations.show_pool(cluster, old) if old else None)
    pool = wanted_pool(old, name, (call.body or {}).get("properties") or {}, location)
    rules.check_system_pool({**cluster["pools"], name: pool})
    check_ready(context, cluster)
    vcpu_quota.check(context, location, [pool], instead_of=[old] if old else [])

    if old is not None and old["power"] != pool["power"]:
        pool["state"] = "Stopping" if pool["power"] == "Stopped" else "Starting"
    elif old is not None and old["properties"]["count"] != pool["properties"]["count"]:
        pool["state"] = "Scaling"
    cluster["pools"][name] = pool
    operation = context.operations.begin("put-pool", location, cluster, pool=name)
    return context.accepted(call, operation, status=200 if old else 201, body=representations.show_pool(cluster, pool))


def get(context: Context, call: Call) -> Answer:
    """One agent pool."""
    return Answer(200, representations.show_pool(*context.pool(call)))


def listed(context: Context, call: Call) -> Answer:
    """The agent pools of a cluster."""
    cluster = context.cluster(call)
    return Answer(200, {"value": [representations.show_pool(cluster, pool) for pool in cluster["pools"].values()]})


def delete(context: Context, call: Call) -> Answer:
    """Delete an agent pool; the last system pool stays."""
    cluster = context.cluster(call)
    name = call.path["pool"].lower()
    if name not in cluster["pools"]:
        return Answer(204)
    check_etag(call, representations.show_pool(cluster, cluster["pools"][name]))
    running = context.operations.running(cluster)
    if running is not None and running["kind"] == "delete-pool" and running["pool"] == name:
        return context.accepted(call, running)
    check_ready(context, cluster)
    rules.check_system_pool({key: pool for key, pool in cluster["pools"].items() if key != name})
    cluster["pools"][name]["state"] = "Deleting"
    operation = context.operations.begin("delete-pool", cluster["location"], cluster, pool=name)
    return context.accepted(call, operation)


async def delete_machines(context: Context, call: Call) -> Answer:
    """Delete the machines that the body names; the pool's count falls by as many."""
    cluster, pool = context.pool(call)
    wanted = sorted({str(name) for name in (call.body or {}).get("machineNames") or []})
    refuse_if(not wanted, "missing", field="machineNames")
    there = {node["metadata"]["name"] for node in await _nodes(context, cluster, pool)}
    unknown = ", ".join(name for name in wanted if name not in there)
    refuse_if(unknown, "machines", pool=pool["name"], names=unknown)
    check_ready(context, cluster)
    left = {**pool["properties"], "count": pool["properties"]["count"] - len(wanted)}
    rules.check_pool(pool["name"], left, cluster["location"])
    pool["properties"] = left
    pool["state"] = "Deleting machines"
    operation = context.operations.begin(
        "delete-machines", cluster["location"], cluster, pool=pool["name"], machines=wanted
    )
    return context.accepted(call, operation)


def upgrade(context: Context, call: Call) -> Answer:
    """Give the pool's nodes the newest image; the nodes that stand in meanwhile need quota."""
    cluster, pool = context.pool(call)
    check_ready(context, cluster)
    surge = rules.surge(pool["properties"])
    vcpu_quota.check(context, cluster["location"], [pool], instead_of=[pool], surge=surge)
    pool["state"] = "UpgradingNodeImageVersion"
    operation = context.operations.begin("upgrade-pool", cluster["location"], cluster, pool=pool["name"], surge=surge)
    return context.accepted(call, operation, body=representations.show_pool(cluster, pool))


async def machines(context: Context, call: Call) -> Answer:
    """The machines of a pool."""
    cluster, pool = context.pool(call)
    return Answer(200, {"value": [_machine(cluster, pool, node) for node in await _nodes(context, cluster, pool)]})


async def machine(context: Context, call: Call) -> Answer:
    """One machine of a pool."""
    cluster, pool = context.pool(call)
    for node in await _nodes(context, cluster, pool):
        if node["metadata"]["name"] == call.path["machine"]:
            return Answer(200, _machine(cluster, pool, node))
    raise refusal("no_machine", name=call.path["machine"])


async def _nodes(context: Context, cluster: Document, pool: Document) -> list[Object]:
    return [] if cluster["power"] == "Stopped" else await pool_nodes.of_pool(await context.objects(cluster), pool)


def _machine(cluster: Document, pool: Document, node: Object) -> Document:
    name = node["metadata"]["name"]
    labels = node["metadata"].get("labels") or {}
    zone = labels.get("topology.kubernetes.io/zone", "0")
    return {
        "id": f"{cluster_id(cluster)}/agentPools/{pool['name']}/machines/{name}",
        "name": name,
        "type": f"{CLUSTER_TYPE}/agentPools/machines",
        **({"zones": [zone.rpartition("-")[2]]} if zone != "0" else {}),
        "properties": {
            "network": {"ipAddresses": [{"family": "IPv4", "ip": pool_nodes.address(node)}]},
            "resourceId": node["spec"]["providerID"].removeprefix("azure://"),
        },
    }
