"""Managed clusters: create, change, show, stop, start, delete, and hand out credentials."""

from __future__ import annotations

from collections.abc import Callable

from aksgpu.local.arm import errors, quota, rules, shapes
from aksgpu.local.arm.context import (
    Answer,
    Call,
    Context,
    accepted,
    cluster_id,
    cluster_key,
    find_cluster,
    find_group,
)
from aksgpu.local.arm.credentials import kubeconfig, uses_entra
from aksgpu.local.arm.groups import check_not_deleting
from aksgpu.local.arm.state import Document

CLUSTER_SECONDS = 3.0
DELETE_SECONDS = 1.5
ABORT_SECONDS = 0.2


def put(context: Context, call: Call) -> Answer:
    """Create a cluster, or change it."""
    group, body = find_group(context, call), call.body or {}
    check_not_deleting(group)
    location = rules.check_location(body.get("location"))
    old = context.state.clusters.get(cluster_key(group["name"], call.path["cluster"]))
    check_preconditions(call, shapes.show_cluster(old) if old else None)
    return _create(context, call, group, location) if old is None else _change(context, call, old, location)


def check_preconditions(call: Call, existing: Document | None) -> None:
    """Honour ``If-Match`` and ``If-None-Match``."""
    etag = (existing or {}).get("eTag") or (existing or {}).get("properties", {}).get("eTag")
    match, none_match = call.headers.get("If-Match"), call.headers.get("If-None-Match")
    stale = match is not None and match.strip('"') not in ("*", etag)
    if stale or (none_match is not None and existing is not None and none_match.strip('"') in ("*", etag)):
        message = "The etag of the request does not match that of the resource; it was created or changed in between."
        raise errors.rejected("PreconditionFailed", message, status=412)


def _create(context: Context, call: Call, group: Document, location: str) -> Answer:
    name, body = call.path["cluster"], call.body
    properties = body.get("properties") or {}
    rules.check_cluster_name(name)
    _check_required(body, properties)
    rules.check_version(properties.get("kubernetesVersion"), name)
    pools: dict[str, Document] = {}
    for profile in properties["agentPoolProfiles"]:
        pool = shapes.new_pool(str(profile.get("name") or ""), profile)
        rules.check_pool(pool["name"], pool["properties"], location)
        pools[pool["name"]] = pool
    rules.check_system_pool(pools)
    quota.check(context, location, list(pools.values()), instead_of=[])

    cluster = shapes.new_cluster(group["name"], name, location, body)
    cluster["pools"] = pools
    key = cluster_key(group["name"], name)
    context.state.clusters[key] = cluster
    machines = cluster["properties"]["nodeResourceGroup"]
    context.state.groups[machines.lower()] = {
        "name": machines,
        "location": location,
        "state": "Succeeded",
        "managedBy": cluster_id(cluster),
        "tags": {"aks-managed-cluster-name": name, "aks-managed-cluster-rg": group["name"]},
    }
    operation = context.operations.begin(
        "put-cluster", location=location, seconds=CLUSTER_SECONDS, cluster=key, group=machines.lower()
    )
    return accepted(context, call, operation, status=201, body=shapes.show_cluster(cluster))


def _check_required(body: Document, properties: Document) -> None:
    if not properties.get("dnsPrefix") and not properties.get("fqdnSubdomain"):
        raise errors.missing("dnsPrefix")
    if not properties.get("agentPoolProfiles"):
        raise errors.missing("agentPoolProfiles")
    identity = (body.get("identity") or {}).get("type")
    if identity in (None, "None") and not properties.get("servicePrincipalProfile"):
        raise errors.missing("servicePrincipalProfile")


def _change(context: Context, call: Call, cluster: Document, location: str) -> Answer:
    body = call.body
    properties = body.get("properties") or {}
    if location != cluster["location"]:
        message = (
            f"The resource '{cluster['name']}' already exists in location '{cluster['location']}' in resource group "
            f"'{cluster['group']}'. A resource with the same name cannot be created in location '{location}'. Please "
            "select a new resource name."
        )
        raise errors.ArmError(409, "InvalidResourceLocation", message)
    check_ready(context, cluster)
    rules.check_fixed(cluster["properties"], properties, rules.FIXED_CLUSTER_FIELDS)
    rules.check_version(properties.get("kubernetesVersion"), cluster["name"])
    pools = _changed_pools(cluster, properties.get("agentPoolProfiles") or [])
    rules.check_system_pool(pools)
    quota.check(context, location, list(pools.values()), instead_of=list(cluster["pools"].values()))

    shapes.change_cluster(cluster, body)
    cluster["pools"], cluster["state"] = pools, "Updating"
    operation = context.operations.begin(
        "put-cluster",
        location=location,
        seconds=CLUSTER_SECONDS / 2,
        cluster=cluster_key(cluster["group"], cluster["name"]),
    )
    return accepted(context, call, operation, status=200, body=shapes.show_cluster(cluster))


def _changed_pools(cluster: Document, profiles: list[Document]) -> dict[str, Document]:
    """The cluster's pools as a PUT wants them; those that it does not name stay."""
    pools = dict(cluster["pools"])
    for profile in profiles:
        name = str(profile.get("name") or "")
        old = pools.get(name)
        if old is not None:
            rules.check_fixed(old["properties"], profile, rules.FIXED_POOL_FIELDS)
        pools[name] = changed_pool(old, name, profile)
        rules.check_pool(name, pools[name]["properties"], cluster["location"])
    return pools


def changed_pool(old: Document | None, name: str, given: Document) -> Document:
    """A pool as a request wants it; the pool that exists is left alone until everything is checked."""
    if old is None:
        return shapes.new_pool(name, given)
    pool = {**old, "properties": dict(old["properties"]), "state": "Updating"}
    shapes.change_pool(pool, given)
    return pool


def check_ready(context: Context, cluster: Document) -> None:
    """Refuse while an operation runs, and on a cluster that is stopped."""
    running = context.operations.running(cluster)
    if running is not None:
        raise errors.operation_in_progress(cluster["state"])
    if cluster["power"] == "Stopped":
        message = (
            "Operation is not allowed because the cluster is stopped. A stopped cluster can only be started or deleted."
        )
        raise errors.not_allowed(message)


def get(context: Context, call: Call) -> Answer:
    """One cluster."""
    return Answer(200, shapes.show_cluster(find_cluster(context, call)))


def listed(context: Context, call: Call) -> Answer:
    """The clusters of a resource group, or of the subscription."""
    wanted = find_group(context, call)["name"] if "group" in call.path else None
    found = [item for item in context.state.clusters.values() if wanted in (None, item["group"])]
    return Answer(200, {"value": [shapes.show_cluster(cluster) for cluster in found]})


def patch(context: Context, call: Call) -> Answer:
    """Change a cluster's tags."""
    cluster = find_cluster(context, call)
    if context.operations.running(cluster) is not None:
        raise errors.operation_in_progress(cluster["state"])
    if "tags" in (call.body or {}):
        cluster["tags"] = call.body["tags"]
    context.state.save(("clusters", cluster_key(cluster["group"], cluster["name"])))
    return Answer(200, shapes.show_cluster(cluster))


async def delete(context: Context, call: Call) -> Answer:
    """Delete a cluster; an operation that runs on it is cancelled."""
    group = find_group(context, call)
    cluster = context.state.clusters.get(cluster_key(group["name"], call.path["cluster"]))
    if cluster is None:
        return Answer(204)
    running = context.operations.running(cluster)
    if running is not None and running["kind"] == "delete-cluster":
        return accepted(context, call, running)
    if running is not None:
        await context.operations.cancel(running)
    return _begin(context, call, cluster, "delete-cluster", "Deleting", DELETE_SECONDS)


def stop(context: Context, call: Call) -> Answer:
    """Stop a cluster: its nodes go, its objects stay."""
    cluster = find_cluster(context, call)
    check_ready(context, cluster)
    return _begin(context, call, cluster, "stop-cluster", "Stopping", DELETE_SECONDS)


def start(context: Context, call: Call) -> Answer:
    """Start a stopped cluster."""
    cluster = find_cluster(context, call)
    if context.operations.running(cluster) is not None:
        raise errors.operation_in_progress(cluster["state"])
    if cluster["power"] == "Running":
        raise errors.not_allowed("Operation is not allowed because the cluster is already running.")
    quota.check(context, cluster["location"], list(cluster["pools"].values()), instead_of=[])
    return _begin(context, call, cluster, "start-cluster", "Starting", CLUSTER_SECONDS)


async def abort(context: Context, call: Call) -> Answer:
    """Cancel the operation that runs on the cluster."""
    cluster = find_cluster(context, call)
    running = context.operations.running(cluster)
    if running is None:
        return Answer(204)
    await context.operations.cancel(running)
    operation = context.operations.begin("abort", location=cluster["location"], seconds=ABORT_SECONDS)
    return accepted(context, call, operation)


def credential(name: str) -> Callable[[Context, Call], Answer]:
    """The handler that gives out a kubeconfig called ``name``."""

    def handler(context: Context, call: Call) -> Answer:
        """Without Entra ID, the user's credential is the administrator's, as in AKS."""
        cluster = find_cluster(context, call)
        static = name == "clusterAdmin" or not uses_entra(cluster)
        if static and cluster["properties"].get("disableLocalAccounts"):
            message = "Getting static credential is not allowed because this cluster is set to disable local accounts."
            raise errors.rejected("BadRequest", message)
        value = kubeconfig(context, call.base_url, cluster, name, call.query.get("format") or "exec")
        return Answer(200, {"kubeconfigs": [{"name": name, "value": value}]})

    return handler


def _begin(context: Context, call: Call, cluster: Document, kind: str, state: str, seconds: float) -> Answer:
    cluster["state"] = state
    key = cluster_key(cluster["group"], cluster["name"])
    operation = context.operations.begin(kind, location=cluster["location"], seconds=seconds, cluster=key)
    return accepted(context, call, operation)
