"""Request handlers for subscriptions and resource groups."""

from __future__ import annotations

from aksgpu.local.arm import reference_data
from aksgpu.local.arm.arm_errors import refuse_if
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import Answer, Call, Context
from aksgpu.local.arm.odata import filter_rows
from aksgpu.local.arm.pool_nodes import scale_set_id
from aksgpu.local.arm.representations import show_cluster
from aksgpu.local.arm.resource_ids import cluster_id, group_id
from aksgpu.local.arm.rules import GROUP_NAME, check_location


def show_group(group: Document) -> Document:
    """Return the representation of a resource group."""
    shown: Document = {
        "id": group_id(group["name"]),
        "name": group["name"],
        "type": "Microsoft.Resources/resourceGroups",
        "location": group["location"],
        "properties": {"provisioningState": group["state"]},
    }
    if group.get("tags") is not None:
        shown["tags"] = group["tags"]
    if group.get("managedBy"):
        shown["managedBy"] = group["managedBy"]
    return shown


def put(context: Context, call: Call) -> Answer:
    """Create a resource group, or change its tags."""
    name = call.path["group"]
    body = call.body or {}
    refuse_if(GROUP_NAME.fullmatch(name) is None, "bad_group_name", name=name)
    location = check_location(body.get("location"), None)
    old = context.state.groups.get(name.lower())
    if old is not None:
        refuse_if(old["location"] != location, "group_elsewhere", location=location, there=old["location"])
        check_not_deleting(old)
    group: Document = old or {"name": name, "location": location, "state": "Succeeded"}
    if "tags" in body:
        group["tags"] = body["tags"]
    context.state.groups[name.lower()] = group
    context.state.save(("groups", name.lower()))
    return Answer(200 if old else 201, show_group(group))


def get(context: Context, call: Call) -> Answer:
    """Return a resource group."""
    return Answer(200, show_group(context.get_group(call)))


def head(context: Context, call: Call) -> Answer:
    """Check whether a resource group exists."""
    return Answer(204 if call.path["group"].lower() in context.state.groups else 404)


def patch(context: Context, call: Call) -> Answer:
    """Change a resource group's tags."""
    group = context.get_group(call)
    group |= {key: value for key, value in (call.body or {}).items() if key == "tags"}
    context.state.save(("groups", group["name"].lower()))
    return Answer(200, show_group(group))


def list_all(context: Context, call: Call) -> Answer:
    """Return all resource groups, including the node resource groups. They can be filtered by tag."""
    return Answer(200, {"value": _filter(call, [show_group(group) for group in context.state.groups.values()])})


def _filter(call: Call, resources: list[Document], *fields: str) -> list[Document]:
    """Apply the request's ``$filter``, by one tag, by resource group, or by one of these fields."""
    rows = []
    for resource in resources:
        row = {field: resource[field] for field in ("id", *fields)}
        row["resourceGroup"] = resource["id"].split("/")[4]
        for name, value in (resource.get("tags") or {"": ""}).items():
            rows.append(row | {"tagName": name, "tagValue": value})
    ids = {row["id"] for row in filter_rows(rows, call.query.get("$filter", ""))}
    return [resource for resource in resources if resource["id"] in ids]


def delete(context: Context, call: Call) -> Answer:
    """Delete a resource group and everything in it."""
    group = context.get_group(call)
    refuse_if(group.get("managedBy"), "group_managed", name=group["name"], by=group.get("managedBy"))
    running = context.state.operations.get(group.get("operation", ""))
    if running is None or running["status"] != "InProgress":
        running = context.operations.start("delete-group", group["location"], group=group["name"].lower())
        group["operation"] = running["id"]
        group["state"] = "Deleting"
        context.state.save(("groups", group["name"].lower()))
    return context.accept(call, running)


def check_not_deleting(group: Document) -> None:
    """Raise ArmError if the resource group is being deleted."""
    refuse_if(group["state"] == "Deleting", "group_deleting", name=group["name"])


def list_resources(context: Context, call: Call) -> Answer:
    """Return the resources in a group: clusters, or the scale sets of a cluster's pools."""
    group = context.get_group(call)["name"].lower()
    resources: list[Document] = []
    for cluster in context.state.clusters.values():
        if group == cluster["group"].lower():
            shown = show_cluster(cluster)
            fields = ("id", "name", "type", "location", "tags", "sku", "identity")
            resources.append({key: shown[key] for key in fields if key in shown})
        if group == cluster["properties"]["nodeResourceGroup"].lower():
            resources += [_show_scale_set(cluster, pool) for pool in cluster["pools"].values()]
    return Answer(200, {"value": _filter(call, resources, "name", "type", "location")})


def _show_scale_set(cluster: Document, pool: Document) -> Document:
    identity = scale_set_id(cluster, pool)
    return {
        "id": identity,
        "name": identity.rpartition("/")[2],
        "type": "Microsoft.Compute/virtualMachineScaleSets",
        "location": cluster["location"],
        "managedBy": cluster_id(cluster),
        "sku": {"name": pool["properties"]["vmSize"], "tier": "Standard", "capacity": pool["properties"]["count"]},
        "tags": {"aks-managed-poolName": pool["name"]},
    }


def get_subscription(context: Context, call: Call) -> Answer:
    """Return the laptop's only subscription."""
    return Answer(200, reference_data.table("offer")["subscription"])


def list_subscriptions(context: Context, call: Call) -> Answer:
    """Return a list with the laptop's only subscription."""
    subscriptions = [reference_data.table("offer")["subscription"]]
    return Answer(200, {"value": subscriptions, "count": {"type": "Total", "value": 1}})
