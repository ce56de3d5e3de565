"""A node pool's fields: the arguments of ``add_gpu_pool`` in Azure's names, and in what an existing pool differs.

Which fields can change is AKS' rule: the number of nodes and the autoscaler's limits can, here; for the others a pool
has to be made anew. Nothing is sent from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from aksgpu.azure import resource_names
from aksgpu.azure.resources import power_of
from aksgpu.common.arguments import integer
from aksgpu.errors import InvalidInput

SPOT_TAINT = "kubernetes.azure.com/scalesetpriority=spot:NoSchedule"
"""What AKS adds to spot pools by itself."""

_PLAIN = {
    "vmSize": "vm_size",
    "count": "count",
    "minCount": "min_count",
    "maxCount": "max_count",
    "scaleSetEvictionPolicy": "eviction_policy",
    "spotMaxPrice": "spot_max_price",
    "gpuInstanceProfile": "gpu_instance_profile",
    "osSKU": "os_sku",
    "osDiskType": "os_disk_type",
    "osDiskSizeGB": "os_disk_size_gb",
    "scaleDownMode": "scale_down_mode",
    "capacityReservationGroupID": "capacity_reservation_group",
}
"""Fields that are one value, with their arguments."""

_OF_SPOT = {"scaleSetEvictionPolicy": "Delete", "spotMaxPrice": -1}
"""Fields of spot pools alone, with what AKS takes where nothing is said."""

_WORDS = {
    "eviction_policy": ("Delete", "Deallocate"),
    "gpu_driver": ("install", "none"),
    "management_mode": ("Managed", "Unmanaged"),
    "os_disk_type": ("Managed", "Ephemeral"),
    "scale_down_mode": ("Delete", "Deallocate"),
}
"""Arguments that are one of a few words."""

_TEXTS = {
    "gpu_instance_profile": "MIG1g",
    "os_sku": "Ubuntu",
    "capacity_reservation_group": "/subscriptions/.../capacityReservationGroups/mine",
}
"""Arguments that are a text, with an example each."""

MOST_NODES = 1000
"""Nodes that AKS takes in a pool at most."""

_LIMITS = {"min_count", "max_count"}

Differences = dict[str, tuple[object, object]]


def wish(**arguments: Any) -> dict[str, Any]:
    """A pool's properties, as Azure calls them; arguments as for :func:`aksgpu.cluster.add_gpu_pool`.

    Raises:
        InvalidInput: numbers that do not go together, or a word that is none of the possible ones.
    """
    check_counts(arguments["count"], arguments["min_count"], arguments["max_count"])
    resource_names.check(resource_names.SIZE, arguments["vm_size"], "vm_size")
    for name, words in _WORDS.items():
        if arguments[name] is not None and arguments[name] not in words:
            raise InvalidInput(
                f"`{name}` must be {' or '.join(map(repr, words))}, got {resource_names.shown(arguments[name])}",
                hint=f"For example: {name}={words[0]!r}.",
            )
    if arguments["os_disk_size_gb"] is not None:
        integer("os_disk_size_gb", arguments["os_disk_size_gb"], 30, 2048)
    for name, example in _TEXTS.items():
        _text(name, arguments[name], example)
    spot = arguments["spot"]
    fields = {
        field: arguments[name]
        for field, name in _PLAIN.items()
        if arguments[name] is not None and field not in _OF_SPOT
    }
    lists: dict[str, Any] = {
        "nodeTaints": _list("node_taints", arguments["node_taints"]),
        "nodeLabels": texts("node_labels", arguments["node_labels"]),
        "tags": texts("tags", arguments["tags"]),
        "availabilityZones": _list("zones", arguments["zones"]),
    }
    return {
        "mode": "User",
        "osType": "Linux",
        **fields,
        **{field: value for field, value in lists.items() if value},
        **({"enableAutoScaling": True} if arguments["max_count"] is not None else {}),
        **(_spot(arguments["eviction_policy"], arguments["spot_max_price"]) if spot else {}),
        **_gpu_profile(arguments["gpu_driver"], arguments["management_mode"]),
    }


def _text(name: str, value: object, example: str) -> None:
    if value is not None and (not isinstance(value, str) or not value.strip() or not value.isprintable()):
        raise InvalidInput(
            f"`{name}` must be a text, got {resource_names.shown(value)}", hint=f"For example: {name}={example!r}."
        )


def _list(name: str, value: Iterable[str] | str | None) -> list[str]:
    if isinstance(value, str):
        value = [value]
    if value is not None and (isinstance(value, Mapping) or not isinstance(value, Iterable)):
        raise InvalidInput(
            f"`{name}` must be a list of texts, got {resource_names.shown(value)}", hint=f'For example: {name}=["1"].'
        )
    listed: list[Any] = list(value or ())
    for each in listed:
        if isinstance(each, bool) or not isinstance(each, str | int) or not str(each).isprintable() or each == "":
            raise InvalidInput(
                f"`{name}` must be a list of texts, got one with {resource_names.shown(each)}",
                hint=f'For example: {name}=["1"].',
            )
    return [str(each) for each in listed]


def texts(name: str, value: Mapping[str, str] | None) -> dict[str, str]:
    """The argument as a dict of texts by name; empty for None."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(_is_text(each) for pair in value.items() for each in pair):
        raise InvalidInput(
            f"`{name}` must be texts by name, got {resource_names.shown(value)}",
            hint=f'For example: {name}={{"who": "me"}}.',
        )
    return dict(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def check_size(vm_size: str | None, argument: str = "vm_size") -> None:
    """A VM size has to be a name, where one is given; whether there is such a size is Azure's to say."""
    if vm_size is None:
        return
    try:
        resource_names.check(resource_names.SIZE, vm_size, argument)
    except InvalidInput as error:
        error.hint += " sizes.gpu_sizes(azure, location) lists them."
        raise


def check_counts(count: object, least: object, most: object) -> None:
    """AKS' rule for numbers of nodes."""
    nodes = integer("count", count, 0, MOST_NODES)
    if (least is None) != (most is None):
        raise InvalidInput("`min_count` and `max_count` must be given together", hint="Give both, or neither.")
    if least is None:
        return
    lowest = integer("min_count", least, 0, MOST_NODES)
    highest = integer("max_count", most, 0, MOST_NODES)
    if not lowest <= nodes <= highest:
        raise InvalidInput(
            f"`count` must be between `min_count` and `max_count`, got {nodes}, {lowest} and {highest}",
            hint="0 <= min_count <= count <= max_count <= 1000.",
        )


def _spot(eviction_policy: str, max_price: float | None) -> dict[str, Any]:
    if max_price is not None and not (_number(max_price) and (max_price == -1 or 0 < max_price < math.inf)):
        raise InvalidInput(
            "`spot_max_price` must be a number of US dollars per node hour above 0, "
            f"got {resource_names.shown(max_price)}",
            hint="None or -1 pays up to the price of other VMs.",
        )
    return {
        "scaleSetPriority": "Spot",
        "scaleSetEvictionPolicy": eviction_policy,
        "spotMaxPrice": -1 if max_price is None else max_price,
    }


def _gpu_profile(driver: str | None, management_mode: str | None) -> dict[str, Any]:
    profile: dict[str, Any] = {}
    if driver is not None:
        profile["driver"] = driver.capitalize()
    if management_mode is not None:
        profile["nvidia"] = {"managementMode": management_mode}
    return {"gpuProfile": profile} if profile else {}


def differences(have: Mapping[str, Any], wished: Mapping[str, Any]) -> Differences:
    """Where an existing pool's properties are not as wished: argument -> (what exists, what was asked for)."""
    found: Differences = {}
    for field, argument in _PLAIN.items():
        if field == "count" and (have.get("enableAutoScaling") or wished.get("enableAutoScaling")):
            continue  # the autoscaler chooses it
        if field in _OF_SPOT and have.get("scaleSetPriority") != "Spot":
            continue  # told by "spot" already
        if field not in wished and field != "gpuInstanceProfile":
            continue  # as it is will do; but a GPU that is split is another one
        exists = have.get(field, _OF_SPOT.get(field))
        wanted = wished.get(field)
        if not _same(exists, wanted):
            found[argument] = (exists, wanted)
    is_spot, wants_spot = (each.get("scaleSetPriority") == "Spot" for each in (have, wished))
    if is_spot != wants_spot:
        found["spot"] = (is_spot, wants_spot)
    if bool(have.get("enableAutoScaling")) and not wished.get("enableAutoScaling"):
        found["max_count"] = (have.get("maxCount"), None)
    if (has := _taints(have)) != (wanted := _taints(wished)):
        found["node_taints"] = (has, wanted)
    if "availabilityZones" in wished and set(wished["availabilityZones"]) != set(have.get("availabilityZones") or ()):
        found["zones"] = (tuple(have.get("availabilityZones") or ()), tuple(wished["availabilityZones"]))
    for field, argument in (("nodeLabels", "label"), ("tags", "tag")):
        for name, value in wished.get(field, {}).items():
            if (exists := (have.get(field) or {}).get(name)) != value:
                found[f"{argument} {name}"] = (exists, value)
    if power_of({"properties": have}) == "Stopped":
        found["power"] = ("Stopped", "Running")
    return found | _gpu_differences(have.get("gpuProfile") or {}, wished.get("gpuProfile") or {})


def _gpu_differences(have: Mapping[str, Any], wished: Mapping[str, Any]) -> Differences:
    found: Differences = {}
    # Install and Unmanaged are what AKS does where nothing is said.
    drivers = [str(each.get("driver") or "Install").lower() for each in (have, wished)]
    if drivers[0] != drivers[1]:
        found["gpu_driver"] = (drivers[0], drivers[1])
    modes = [str((each.get("nvidia") or {}).get("managementMode") or "Unmanaged") for each in (have, wished)]
    if modes[0].lower() != modes[1].lower():
        found["management_mode"] = (modes[0], modes[1])
    return found


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(have: object, wanted: object) -> bool:
    if _number(have) and _number(wanted):
        return have == wanted
    return str(have).lower() == str(wanted).lower()


def _taints(properties: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(t for t in properties.get("nodeTaints") or () if t != SPOT_TAINT))


def remedy(found: Differences, pool: str) -> str:
    """What to do about differences, as an action."""
    if found.keys() == {"power"}:
        return f"cluster.start_pool(aks, {pool!r}) starts it; cluster.start(aks), where the whole cluster is stopped."
    if found.keys() <= {"count"}:
        return f"cluster.scale(aks, {pool!r}, count) changes the number of nodes."
    if found.keys() <= _LIMITS and None not in found.get("max_count", ()):
        return f"cluster.scale(aks, {pool!r}, min_count=..., max_count=...) changes the autoscaler's limits."
    return (
        f"A pool's {', '.join(sorted(found.keys() - _LIMITS - {'count', 'power'}) or found)} cannot be changed: "
        f"cluster.delete_pool(aks, {pool!r}) and add it again, or take another name."
    )
