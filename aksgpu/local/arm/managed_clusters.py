"""Request handlers for managed clusters."""

from __future__ import annotations

from collections.abc import Callable

from aksgpu.local.arm import representations, rules, vcpu_quota
from aksgpu.local.arm.arm_errors import refusal, refuse_if
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import Answer, Call, Context
from aksgpu.local.arm.kubeconfigs import kubeconfig, uses_entra
from aksgpu.local.arm.resource_groups import check_not_deleting
from aksgpu.local.arm.resource_ids import cluster_id, cluster_key


def put(context: Context, call: Call) -> Answer:
    """Create or change a cluster. Pools that the request does not name are kept."""
    group = context.get_group(call)
    name = call.path["cluster"]
    body = call.body or {}
    check_not_deleting(group)
    location = rules.check_location(body.get("location"))
    old = context.find_cluster(call)
    check_etag(call, representations.show_cluster(old) if old else None)
    if old is None:
        rules.check_new_cluster(name, body)
    elif location != old["location"]:
        raise refusal("cluster_elsewhere", name=name, there=old["location"], group=group["name"], location=location)
    else:
        rules.check_fixed("cluster", old["properties"], body.get("properties") or {})
    rules.check_cluster(name, body.get("properties") or {})
    if old:
        rules.check_same_version(old["properties"], body.get("properties") or {}, name)
    old_pools: dict[str, Document] = old["pools"] if old else {}
    pools = _build_pools(context, old_pools, body, location)
    if old:
        check_ready(context, old)
    vcpu_quota.check(context, location, pools.values(), instead_of=old_pools.values())

    cluster = old or representations.new_cluster(group["name"], name, location)
    representations.change_cluster(cluster, body)
    cluster["pools"] = pools
    if old is not None:
        operation = context.operations.start("update-cluster", location, cluster)
        return context.accept(call, operation, status=200, body=representations.show_cluster(cluster))
    node_group = _create_node_group(context, group, cluster)
    context.state.clusters[cluster_key(group["name"], name)] = cluster
    operation = context.operations.start("put-cluster", location, cluster, group=node_group)
    return context.accept(call, operation, status=201, body=representations.show_cluster(cluster))


def _build_pools(
    context: Context, old_pools: dict[str, Document], body: Document, location: str
) -> dict[str, Document]:
    """Return the existing pools with a request's changes, and its new pools."""
    pools = dict(old_pools)
    for profile in (body.get("properties") or {}).get("agentPoolProfiles") or []:
        pool = build_pool(context, old_pools.get(profile.get("name")), profile.get("name") or "", profile, location)
        pools[pool["name"]] = pool
    rules.check_system_pool(pools)
    return pools


def _create_node_group(context: Context, group: Document, cluster: Document) -> str:
    """Create the resource group of a new cluster's nodes, and return its key."""
    name = cluster["properties"]["nodeResourceGroup"]
    key = str(name.lower())
    refuse_if(rules.GROUP_NAME.fullmatch(name) is None, "bad_group_name", name=name)
    refuse_if(key == group["name"].lower(), "node_group_same", name=name)
    refuse_if(key in context.state.groups, "node_group_exists", name=name)
    context.state.groups[key] = {
        "name": name,
        "location": cluster["location"],
        "state": "Succeeded",
        "managedBy": cluster_id(cluster),
        "tags": {"aks-managed-cluster-name": cluster["name"], "aks-managed-cluster-rg": group["name"]},
    }
    return key


def build_pool(context: Context, old: Document | None, name: str, given: Document, location: str) -> Document:
    """Return a pool with the changes in a request. The existing document is not modified."""
    if old is None:
        if not given.get("vmSize") and given.get("type") in (None, "VirtualMachineScaleSets"):
            given = {**given, "vmSize": vcpu_quota.default_size(context, location, given)}
        pool = representations.new_pool(name, given)
    else:
        rules.check_fixed("pool", old["properties"], given)
        pool = {**old, "properties": dict(old["properties"]), "state": "Updating"}
        representations.change_pool(pool, given)
    rules.check_pool(name, pool["properties"], location)
    return pool


def check_etag(call: Call, shown: Document | None) -> None:
    """Raise ArmError if ``If-Match`` or ``If-None-Match`` forbids a change.

    ``shown`` is the representation of the resource, or None if the request creates it.
    """
    etag = (shown or {}).get("eTag") or (shown or {}).get("properties", {}).get("eTag")
    match = call.headers.get("If-Match", "").strip('"')
    none_match = call.headers.get("If-None-Match", "").strip('"')
    refuse_if(match not in ("", "*", etag) or (shown and none_match in ("*", etag)), "etag")


def check_idle(context: Context, cluster: Document) -> None:
    """Raise ArmError if an operation is in progress on the cluster."""
    refuse_if(context.operations.get_running(cluster), "busy", state=cluster["state"])


def check_ready(context: Context, cluster: Document) -> None:
    """Raise ArmError if an operation is in progress on the cluster, or if it is stopped."""
    check_idle(context, cluster)
    refuse_if(cluster["power"] == "Stopped", "stopped")


def get(context: Context, call: Call) -> Answer:
    """Return a cluster."""
    return Answer(200, representations.show_cluster(context.get_cluster(call)))


def list_all(context: Context, call: Call) -> Answer:
    """Return the clusters of a resource group, or of the subscription."""
    group = context.get_group(call)["name"] if "group" in call.path else None
    clusters = [cluster for cluster in context.state.clusters.values() if group in (None, cluster["group"])]
    return Answer(200, {"value": [representations.show_cluster(cluster) for cluster in clusters]})


def patch(context: Context, call: Call) -> Answer:
    """Change a cluster's tags."""
    cluster = context.get_cluster(call)
    check_etag(call, representations.show_cluster(cluster))
    check_idle(context, cluster)
    cluster |= {key: value for key, value in (call.body or {}).items() if key == "tags"}
    context.save(cluster)
    return Answer(200, representations.show_cluster(cluster))


async def delete(context: Context, call: Call) -> Answer:
    """Delete a cluster. An operation in progress on it is cancelled."""
    cluster = context.find_cluster(call)
    if cluster is None:
        return Answer(204)
    check_etag(call, representations.show_cluster(cluster))
    running = context.operations.get_running(cluster)
    if running is not None and running["kind"] == "delete-cluster":
        return context.accept(call, running)
    if running is not None:
        await context.operations.cancel(running)
    return context.accept(call, context.operations.start("delete-cluster", cluster["location"], cluster))


def stop(context: Context, call: Call) -> Answer:
    """Stop a cluster. Its nodes are removed and its objects are kept."""
    cluster = context.get_cluster(call)
    check_ready(context, cluster)
    return context.accept(call, context.operations.start("stop-cluster", cluster["location"], cluster))


def start(context: Context, call: Call) -> Answer:
    """Start a stopped cluster."""
    cluster = context.get_cluster(call)
    check_idle(context, cluster)
    refuse_if(cluster["power"] == "Running", "running")
    vcpu_quota.check(context, cluster["location"], cluster["pools"].values())
    return context.accept(call, context.operations.start("start-cluster", cluster["location"], cluster))


async def abort(context: Context, call: Call) -> Answer:
    """Cancel the operation in progress on the cluster, or on the pool in the path."""
    cluster = context.get_pool(call)[0] if "pool" in call.path else context.get_cluster(call)
    running = context.operations.get_running(cluster)
    if running is None or call.path.get("pool", running["pool"]).lower() != running["pool"]:
        return Answer(204)
    await context.operations.cancel(running)
    return context.accept(call, context.operations.start("abort", cluster["location"]))


def credential(name: str) -> Callable[[Context, Call], Answer]:
    """Return the handler that responds with the kubeconfig of this name."""

    def handler(context: Context, call: Call) -> Answer:
        cluster = context.get_cluster(call)
        # Without Entra ID, the user credential is the administrator's, as on AKS.
        static = name == "clusterAdmin" or not uses_entra(cluster)
        refuse_if(static and cluster["properties"].get("disableLocalAccounts"), "no_local_accounts")
        value = kubeconfig(context, call.base_url, cluster, name, call.query.get("format") or "exec")
        return Answer(200, {"kubeconfigs": [{"name": name, "value": value}]})

    return handler
