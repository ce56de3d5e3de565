"""A node pool's fields: the arguments of ``add_gpu_pool`` in Azure's names, and in what an existing pool differs.

Which fields can change is AKS' rule: the number of nodes and the autoscaler's limits can, here; for the others a pool
has to be made anew. Nothing is sent from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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

_OF_SPOT = {"scaleSetEvictionPolicy", "spotMaxPrice"}
_LIMITS = {"min_count", "max_count"}

Differences = dict[str, tuple[object, object]]


def wish(**arguments: Any) -> dict[str, Any]:
    """A pool's properties, as Azure calls them; arguments as for :func:`aksgpu.cluster.add_gpu_pool`.

    Raises:
        InvalidInput: numbers that do not go together, or a word that is none of the possible ones.
    """
    check_counts(arguments["count"], arguments["min_count"], arguments["max_count"])
    spot = arguments["spot"]
    fields = {
        field: arguments[name]
        for field, name in _PLAIN.items()
        if arguments[name] is not None and field not in _OF_SPOT
    }
    lists: dict[str, Any] = {
        "nodeTaints": _list(arguments["node_taints"]),
        "nodeLabels": dict(arguments["node_labels"] or {}),
        "tags": dict(arguments["tags"] or {}),
        "availabilityZones": [str(zone) for zone in _list(arguments["zones"])],
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


def _list(value: Sequence[str] | str) -> list[str]:
    return [value] if isinstance(value, str) else [*value]


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
    return {
        "scaleSetPriority": "Spot",
        "scaleSetEvictionPolicy": eviction_policy,
        "spotMaxPrice": -1 if max_price is None else max_price,
    }


def _gpu_profile(driver: str | None, management_mode: str | None) -> dict[str, Any]:
    profile: dict[str, Any] = {}
    if driver is not None:
        if driver not in ("install", "none"):
            raise InvalidInput(f"gpu_driver is {driver!r}", hint='It is "install" or "none".')
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
        if field in wished and str(have.get(field)).lower() != str(wished[field]).lower():
            found[argument] = (have.get(field), wished[field])
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
    return found | _gpu_differences(have.get("gpuProfile") or {}, wished.get("gpuProfile") or {})


def _gpu_differences(have: Mapping[str, Any], wished: Mapping[str, Any]) -> Differences:
    found: Differences = {}
    driver = str(have.get("driver") or "Install")  # what AKS does where nothing is said
    if "driver" in wished and driver.lower() != wished["driver"].lower():
        found["gpu_driver"] = (driver.lower(), wished["driver"].lower())
    mode = (have.get("nvidia") or {}).get("managementMode")
    if "nvidia" in wished and mode != wished["nvidia"]["managementMode"]:
        found["management_mode"] = (mode, wished["nvidia"]["managementMode"])
    return found


def _taints(properties: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(t for t in properties.get("nodeTaints") or () if t != SPOT_TAINT))


def remedy(found: Differences, pool: str) -> str:
    """What to do about differences, as an action."""
    if found.keys() <= {"count"}:
        return f"cluster.scale(aks, {pool!r}, count) changes the number of nodes."
    if found.keys() <= _LIMITS and None not in found.get("max_count", ()):
        return f"cluster.scale(aks, {pool!r}, min_count=..., max_count=...) changes the autoscaler's limits."
    return (
        f"A pool's {', '.join(sorted(found.keys() - _LIMITS - {'count'}) or found)} cannot be changed: "
        f"cluster.delete_pool(aks, {pool!r}) and add it again, or take another name."
    )
