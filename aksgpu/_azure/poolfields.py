"""A node pool's fields: the arguments of ``add_gpu_pool`` in Azure's names, and in what an existing pool differs.

Which fields can change is AKS' rule: the number of nodes and the autoscaler's limits can, here; for the others a pool
has to be made anew. Nothing is sent from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from aksgpu._azure.resources import power_of
from aksgpu._numbers import whole
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

_LIMITS = {"min_count", "max_count"}

Differences = dict[str, tuple[object, object]]


def wish(**arguments: Any) -> dict[str, Any]:
    """A pool's properties, as Azure calls them; arguments as for :func:`aksgpu.cluster.add_gpu_pool`.

    Raises:
        InvalidInput: numbers that do not go together, or a word that is none of the possible ones.
    """
    check_counts(arguments["count"], arguments["min_count"], arguments["max_count"])
    check_size(arguments["vm_size"])
    for name, words in _WORDS.items():
        if arguments[name] is not None and arguments[name] not in words:
            raise InvalidInput(f"{name} is {arguments[name]!r}", hint=f"It is {' or '.join(map(repr, words))}.")
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


def _list(name: str, value: Iterable[str] | str | None) -> list[str]:
    if isinstance(value, str):
        return [value]
    if value is not None and (isinstance(value, Mapping) or not isinstance(value, Iterable)):
        raise InvalidInput(f"{name} is {value!r}", hint=f'Give a list of texts, such as {name}=["1"].')
    return [str(each) for each in value or ()]


def texts(name: str, value: Mapping[str, str] | None) -> dict[str, str]:
    """The argument as a dict of texts by name; empty for None."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for pair in value.items() for each in pair):
        raise InvalidInput(f"{name} is {value!r}", hint=f'Give texts by name, such as {name}={{"who": "me"}}.')
    return dict(value)


def check_size(vm_size: str | None) -> None:
    """A VM size has to be a text, where one is given; whether there is such a size is Azure's to say."""
    if vm_size is not None and (not isinstance(vm_size, str) or not vm_size.strip()):
        raise InvalidInput(
            f"vm_size is {vm_size!r}",
            hint="Give a size such as 'Standard_NC4as_T4_v3': sizes.gpu_sizes(azure) lists them.",
        )


def check_counts(count: int, least: int | None, most: int | None) -> None:
    """AKS' rule for numbers of nodes."""
    for name, value in (("count", count), ("min_count", least), ("max_count", most)):
        if value is not None or name == "count":
            whole(name, value, 0, 1000, of="AKS takes 0 to 1000 nodes in a pool")
    if (least is None) != (most is None):
        raise InvalidInput("min_count and max_count belong together", hint="Give both, or neither.")
    if least is not None and most is not None and not 0 <= least <= count <= most <= 1000:
        raise InvalidInput(
            f"min_count {least}, count {count} and max_count {most} do not go together",
            hint="0 <= min_count <= count <= max_count <= 1000.",
        )


def _spot(eviction_policy: str, max_price: float | None) -> dict[str, Any]:
    if max_price is not None and not (_number(max_price) and (max_price == -1 or 0 < max_price < math.inf)):
        raise InvalidInput(
            f"spot_max_price is {max_price!r}",
            hint="It is in US dollars per node hour and above 0; None or -1 pays up to the price of other VMs.",
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
        exists, wanted = have.get(field, _OF_SPOT.get(field)), wished.get(field)
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
