"""Managed clusters: create, change, show, stop, start, delete, and hand out credentials."""

from __future__ import annotations

from collections.abc import Callable

from aksgpu.local.arm import representations, rules, vcpu_quota
from aksgpu.local.arm.arm_errors import refusal, refuse_if
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import Answer, Call, Context, cluster_id, cluster_key
from aksgpu.local.arm.kubeconfigs import kubeconfig, uses_entra
from aksgpu.local.arm.resource_groups import check_not_deleting


def put(context: Context, call: Call) -> Answer:
    """Create a cluster, or change it; of its pools, those that the request does not name stay."""
    group = context.group(call)
    name = call.path["cluster"]
    body = call.body or {}
    check_not_deleting(group)
    location = rules.check_location(body.get("location"))
    properties = body.get("properties") or {}
    old = context.known_cluster(call)
    check_etag(call, representations.show_cluster(old) if old else None)
    if old is None:
        rules.check_new_cluster(name, body)
    elif location != old["location"]:
        raise refusal("cluster_elsewhere", name=name, there=old["location"], group=group["name"], location=location)
    else:
        rules.check_fixed("cluster", old["properties"], properties)
    rules.check_cluster(name, properties)
    before: dict[str, Document] = old["pools"] if old else {}
    pools = dict(before)
    for profile in properties.get("agentPoolProfiles") or []:
        pool = wanted_pool(before.get(profile.get("name")), profile.get("name") or "", profile, location)
        pools[pool["name"]] = pool
    rules.check_system_pool(pools)
    if old:
        check_ready(context, old)
    vcpu_quota.check(context, location, pools.values(), instead_of=before.values())

    cluster = old or representations.new_cluster(group["name"], name, location)
    representations.change_cluster(cluster, body)
    cluster["pools"] = pools
    if old is not None:
        operation = context.operations.begin("update-cluster", location, cluster)
        return context.accepted(call, operation, status=200, body=representations.show_cluster(cluster))
    machines = cluster["properties"]["nodeResourceGroup"]
    refuse_if(rules.GROUP_NAME.fullmatch(machines) is None, "bad_group_name", name=machines)
    refuse_if(machines.lower() == group["name"].lower(), "node_group_same", name=machines)
    refuse_if(machines.lower() in context.state.groups, "node_group_there", name=machines)
    context.state.clusters[cluster_key(group["name"], name)] = cluster
    context.state.groups[machines.lower()] = {
        "name": machines,
        "location": location,
        "state": "Succeeded",
        "managedBy": cluster_id(cluster),
        "tags": {"aks-managed-cluster-name": name, "aks-managed-cluster-rg": group["name"]},
    }
    operation = context.operations.begin("put-cluster", location, cluster, group=machines.lower())
    return context.accepted(call, operation, status=201, body=representations.show_cluster(cluster))


def wanted_pool(old: Document | None, name: str, given: Document, location: str) -> Document:
    """A pool as a request wants it; the pool that exists is left alone until everything is checked."""
    if old is None:
        pool = representations.new_pool(name, given)
    else:
        rules.check_fixed("pool", old["properties"], given)
        pool = {**old, "properties": dict(old["properties"]), "state": "Updating"}
        representations.change_pool(pool, given)
    rules.check_pool(name, pool["properties"], location)
    return pool


def check_etag(call: Call, shown: Document | None) -> None:
    """Honour ``If-Match`` and ``If-None-Match``."""
    etag = (shown or {}).get("eTag") or (shown or {}).get("properties", {}).get("eTag")
    match, none_match = (call.headers.get(name, "").strip('"') for name in ("If-Match", "If-None-Match"))
    refuse_if(match not in ("", "*", etag) or (shown and none_match in ("*", etag)), "etag")


def check_free(context: Context, cluster: Document) -> None:
    """Refuse while an operation runs."""
    refuse_if(context.operations.running(cluster), "busy", state=cluster["state"])


def check_ready(context: Context, cluster: Document) -> None:
    """Refuse while an operation runs, and on a cluster that is stopped."""
    check_free(context, cluster)
    refuse_if(cluster["power"] == "Stopped", "stopped")


def get(context: Context, call: Call) -> Answer:
    """One cluster."""
    return Answer(200, representations.show_cluster(context.cluster(call)))


def listed(context: Context, call: Call) -> Answer:
    """The clusters of a resource group, or of the subscription."""
    wanted = context.group(call)["name"] if "group" in call.path else None
    found = [item for item in context.state.clusters.values() if wanted in (None, item["group"])]
    return Answer(200, {"value": [representations.show_cluster(cluster) for cluster in found]})


def patch(context: Context, call: Call) -> Answer:
    """Change a cluster's tags."""
    cluster = context.cluster(call)
    check_etag(call, representations.show_cluster(cluster))
    check_free(context, cluster)
    cluster |= {key: value for key, value in (call.body or {}).items() if key == "tags"}
    context.save(cluster)
    return Answer(200, representations.show_cluster(cluster))


async def delete(context: Context, call: Call) -> Answer:
    """Delete a cluster; an operation that runs on it is cancelled."""
    cluster = context.known_cluster(call)
    if cluster is None:
        return Answer(204)
    check_etag(call, representations.show_cluster(cluster))
    running = context.operations.running(cluster)
    if running is not None and running["kind"] == "delete-cluster":
        return context.accepted(call, running)
    if running is not None:
        await context.operations.cancel(running)
    return context.accepted(call, context.operations.begin("delete-cluster", cluster["location"], cluster))


def stop(context: Context, call: Call) -> Answer:
    """Stop a cluster: its nodes go, its objects stay."""
    cluster = context.cluster(call)
    check_ready(context, cluster)
    return context.accepted(call, context.operations.begin("stop-cluster", cluster["location"], cluster))


def start(context: Context, call: Call) -> Answer:
    """Start a stopped cluster."""
    cluster = context.cluster(call)
    check_free(context, cluster)
    refuse_if(cluster["power"] == "Running", "running")
    vcpu_quota.check(context, cluster["location"], cluster["pools"].values())
    return context.accepted(call, context.operations.begin("start-cluster", cluster["location"], cluster))


async def abort(context: Context, call: Call) -> Answer:
    """Cancel the operation that runs on the cluster, or on the pool that the path names."""
    cluster = context.pool(call)[0] if "pool" in call.path else context.cluster(call)
    running = context.operations.running(cluster)
    if running is None or call.path.get("pool", running["pool"]).lower() != running["pool"]:
        return Answer(204)
    await context.operations.cancel(running)
    return context.accepted(call, context.operations.begin("abort", cluster["location"]))


def credential(name: str) -> Callable[[Context, Call], Answer]:
    """The handler that gives out a kubeconfig called ``name``."""

    def handler(context: Context, call: Call) -> Answer:
        """Without Entra ID, the user's credential is the administrator's, as in AKS."""
        cluster = context.cluster(call)
        static = name == "clusterAdmin" or not uses_entra(cluster)
        refuse_if(static and cluster["properties"].get("disableLocalAccounts"), "no_local_accounts")
        value = kubeconfig(context, call.base_url, cluster, name, call.query.get("format") or "exec")
        return Answer(200, {"kubeconfigs": [{"name": name, "value": value}]})

    return handler
