"""Request handlers for agent pools and their machines."""

from __future__ import annotations

from aksgpu.local.arm import pool_nodes, representations, rules, vcpu_quota
from aksgpu.local.arm.arm_errors import refusal, refuse_if
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import Answer, Call, Context
from aksgpu.local.arm.managed_clusters import build_pool, check_etag, check_ready
from aksgpu.local.arm.resource_ids import CLUSTER_TYPE, cluster_id
from aksgpu.local.objects import Object


def put(context: Context, call: Call) -> Answer:
    """Create or change an agent pool: its count, labels, taints, tags, autoscaler or power state."""
    cluster = context.get_cluster(call)
    name = call.path["pool"]
    old = cluster["pools"].get(name)
    location = cluster["location"]
    check_etag(call, representations.show_pool(cluster, old) if old else None)
    pool = build_pool(context, old, name, (call.body or {}).get("properties") or {}, location)
    if old is None:
        rules.check_subnet(cluster["pools"], pool["properties"])
    rules.check_system_pool({**cluster["pools"], name: pool})
    check_ready(context, cluster)
    vcpu_quota.check(context, location, [pool], instead_of=[old] if old else [])

    if old is not None and old["power"] != pool["power"]:
        pool["state"] = "Stopping" if pool["power"] == "Stopped" else "Starting"
    elif old is not None and old["properties"]["count"] != pool["properties"]["count"]:
        pool["state"] = "Scaling"
    cluster["pools"][name] = pool
    operation = context.operations.start("put-pool", location, cluster, pool=name)
    return context.accept(call, operation, status=200 if old else 201, body=representations.show_pool(cluster, pool))


def get(context: Context, call: Call) -> Answer:
    """Return an agent pool."""
    return Answer(200, representations.show_pool(*context.get_pool(call)))


def list_all(context: Context, call: Call) -> Answer:
    """Return the agent pools of a cluster."""
    cluster = context.get_cluster(call)
    return Answer(200, {"value": [representations.show_pool(cluster, pool) for pool in cluster["pools"].values()]})


def delete(context: Context, call: Call) -> Answer:
    """Delete an agent pool. The last system pool cannot be deleted."""
    cluster = context.get_cluster(call)
    name = call.path["pool"].lower()
    if name not in cluster["pools"]:
        return Answer(204)
    check_etag(call, representations.show_pool(cluster, cluster["pools"][name]))
    running = context.operations.get_running(cluster)
    if running is not None and running["kind"] == "delete-pool" and running["pool"] == name:
        return context.accept(call, running)
    check_ready(context, cluster)
    rules.check_system_pool({key: pool for key, pool in cluster["pools"].items() if key != name})
    cluster["pools"][name]["state"] = "Deleting"
    operation = context.operations.start("delete-pool", cluster["location"], cluster, pool=name)
    return context.accept(call, operation)


async def delete_machines(context: Context, call: Call) -> Answer:
    """Delete the machines in the request's body, and lower the pool's count accordingly."""
    cluster, pool = context.get_pool(call)
    names = sorted({str(name) for name in (call.body or {}).get("machineNames") or []})
    refuse_if(not names, "missing", field="machineNames")
    existing = {node["metadata"]["name"] for node in await _list_nodes(context, cluster, pool)}
    unknown = ", ".join(name for name in names if name not in existing)
    refuse_if(unknown, "machines", pool=pool["name"], names=unknown)
    check_ready(context, cluster)
    properties = {**pool["properties"], "count": pool["properties"]["count"] - len(names)}
    rules.check_pool(pool["name"], properties, cluster["location"])
    pool["properties"] = properties
    pool["state"] = "Deleting machines"
    operation = context.operations.start(
        "delete-machines", cluster["location"], cluster, pool=pool["name"], machines=names
    )
    return context.accept(call, operation)


def upgrade(context: Context, call: Call) -> Answer:
    """Upgrade the node image of a pool. The surge nodes need quota."""
    cluster, pool = context.get_pool(call)
    check_ready(context, cluster)
    surge = rules.surge_count(pool["properties"])
    vcpu_quota.check(context, cluster["location"], [pool], instead_of=[pool], surge=surge)
    pool["state"] = "UpgradingNodeImageVersion"
    operation = context.operations.start("upgrade-pool", cluster["location"], cluster, pool=pool["name"], surge=surge)
    return context.accept(call, operation, body=representations.show_pool(cluster, pool))


async def list_machines(context: Context, call: Call) -> Answer:
    """Return the machines of a pool."""
    cluster, pool = context.get_pool(call)
    nodes = await _list_nodes(context, cluster, pool)
    return Answer(200, {"value": [_show_machine(cluster, pool, node) for node in nodes]})


async def get_machine(context: Context, call: Call) -> Answer:
    """Return one machine of a pool."""
    cluster, pool = context.get_pool(call)
    for node in await _list_nodes(context, cluster, pool):
        if node["metadata"]["name"] == call.path["machine"]:
            return Answer(200, _show_machine(cluster, pool, node))
    raise refusal("no_machine", name=call.path["machine"])


async def _list_nodes(context: Context, cluster: Document, pool: Document) -> list[Object]:
    if cluster["power"] == "Stopped":
        return []
    return await pool_nodes.list_nodes(await context.get_objects(cluster), pool)


def _show_machine(cluster: Document, pool: Document, node: Object) -> Document:
    name = node["metadata"]["name"]
    labels = node["metadata"].get("labels") or {}
    zone = labels.get("topology.kubernetes.io/zone", "0")
    return {
        "id": f"{cluster_id(cluster)}/agentPools/{pool['name']}/machines/{name}",
        "name": name,
        "type": f"{CLUSTER_TYPE}/agentPools/machines",
        **({"zones": [zone.rpartition("-")[2]]} if zone != "0" else {}),
        "properties": {
            "network": {"ipAddresses": [{"family": "IPv4", "ip": pool_nodes.internal_ip(node)}]},
            "resourceId": node["spec"]["providerID"].removeprefix("azure://"),
        },
    }
