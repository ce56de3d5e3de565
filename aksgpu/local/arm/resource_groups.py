"""Subscriptions, resource groups, and what is in a resource group."""

from __future__ import annotations

from aksgpu.local.arm import reference_data
from aksgpu.local.arm.arm_errors import refuse_if
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import Answer, Call, Context, cluster_id, filtered, group_id
from aksgpu.local.arm.pool_nodes import scale_set_id
from aksgpu.local.arm.representations import show_cluster
from aksgpu.local.arm.rules import GROUP_NAME, check_location


def show(group: Document) -> Document:
    """A resource group, as Azure shows it."""
    return {
        "id": group_id(group["name"]),
        "name": group["name"],
        "type": "Microsoft.Resources/resourceGroups",
        "location": group["location"],
        **({"tags": group["tags"]} if group.get("tags") is not None else {}),
        **({"managedBy": group["managedBy"]} if group.get("managedBy") else {}),
        "properties": {"provisioningState": group["state"]},
    }


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
    return Answer(200 if old else 201, show(group))


def get(context: Context, call: Call) -> Answer:
    """One resource group."""
    return Answer(200, show(context.group(call)))


def head(context: Context, call: Call) -> Answer:
    """Whether there is such a resource group."""
    return Answer(204 if call.path["group"].lower() in context.state.groups else 404)


def patch(context: Context, call: Call) -> Answer:
    """Change a resource group's tags."""
    group = context.group(call)
    group |= {key: value for key, value in (call.body or {}).items() if key == "tags"}
    context.state.save(("groups", group["name"].lower()))
    return Answer(200, show(group))


def listed(context: Context, call: Call) -> Answer:
    """All resource groups, those that AKS made for its nodes included; a filter picks by one tag."""
    return Answer(200, {"value": _picked(call, [show(group) for group in context.state.groups.values()])})


def _picked(call: Call, found: list[Document], *fields: str) -> list[Document]:
    """What a filter picks of all that is found: by one tag, by the resource group, or by these fields."""
    rows = [
        {field: shown[field] for field in ("id", *fields)}
        | {"resourceGroup": shown["id"].split("/")[4], "tagName": name, "tagValue": text}
        for shown in found
        for name, text in (shown.get("tags") or {"": ""}).items()
    ]
    ids = {row["id"] for row in filtered(call, rows)}
    return [shown for shown in found if shown["id"] in ids]


def delete(context: Context, call: Call) -> Answer:
    """Delete a resource group with all that is in it."""
    group = context.group(call)
    refuse_if(group.get("managedBy"), "group_managed", name=group["name"], by=group.get("managedBy"))
    running = context.state.operations.get(group.get("operation", ""))
    if running is None or running["status"] != "InProgress":
        running = context.operations.begin("delete-group", group["location"], group=group["name"].lower())
        group["operation"] = running["id"]
        group["state"] = "Deleting"
        context.state.save(("groups", group["name"].lower()))
    return context.accepted(call, running)


def check_not_deleting(group: Document) -> None:
    """Refuse to put anything into a resource group that is going away."""
    refuse_if(group["state"] == "Deleting", "group_going", name=group["name"])


def resources(context: Context, call: Call) -> Answer:
    """What is in a resource group: clusters, or the scale sets of a cluster's pools."""
    wanted = context.group(call)["name"].lower()
    found: list[Document] = []
    for cluster in context.state.clusters.values():
        if wanted == cluster["group"].lower():
            shown = show_cluster(cluster)
            fields = ("id", "name", "type", "location", "tags", "sku", "identity")
            found.append({key: shown[key] for key in fields if key in shown})
        if wanted == cluster["properties"]["nodeResourceGroup"].lower():
            found += [_scale_set(cluster, pool) for pool in cluster["pools"].values()]
    return Answer(200, {"value": _picked(call, found, "name", "type", "location")})


def _scale_set(cluster: Document, pool: Document) -> Document:
    place = scale_set_id(cluster, pool)
    return {
        "id": place,
        "name": place.rpartition("/")[2],
        "type": "Microsoft.Compute/virtualMachineScaleSets",
        "location": cluster["location"],
        "managedBy": cluster_id(cluster),
        "sku": {"name": pool["properties"]["vmSize"], "tier": "Standard", "capacity": pool["properties"]["count"]},
        "tags": {"aks-managed-poolName": pool["name"]},
    }


def subscription(context: Context, call: Call) -> Answer:
    """The one subscription of the laptop."""
    return Answer(200, reference_data.table("offer")["subscription"])


def subscriptions(context: Context, call: Call) -> Answer:
    """All subscriptions: one."""
    return Answer(
        200, {"value": [reference_data.table("offer")["subscription"]], "count": {"type": "Total", "value": 1}}
    )
