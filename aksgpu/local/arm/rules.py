"""What AKS accepts: names, regions, sizes, counts, taints, versions, and the fields that cannot change.

These functions only look and refuse. Quota is looked after in :mod:`aksgpu.local.arm.quota`.
"""

from __future__ import annotations

import re
from math import ceil
from typing import Any

from aksgpu.local.arm import data, errors
from aksgpu.local.arm.context import CLUSTER_TYPE
from aksgpu.local.arm.nodes import parse_taint
from aksgpu.local.arm.state import Document

CLUSTER_NAME = re.compile(r"[a-zA-Z0-9]|[a-zA-Z0-9][-_a-zA-Z0-9]{0,61}[a-zA-Z0-9]")
GROUP_NAME = re.compile(r"[-\w._()]{0,89}[-\w_()]")
POOL_NAME = re.compile(r"[a-z][a-z0-9]{0,11}")
RESERVATION = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Compute/capacityReservationGroups/[^/]+", re.I
)
WINDOWS_NAME_LENGTH = 6
LARGEST_COUNT = 1000

FIXED_CLUSTER_FIELDS = ("dnsPrefix", "fqdnSubdomain", "nodeResourceGroup", "enableRBAC")
FIXED_POOL_FIELDS = (
    "vmSize",
    "osType",
    "osDiskType",
    "osDiskSizeGB",
    "maxPods",
    "type",
    "scaleSetPriority",
    "scaleSetEvictionPolicy",
    "spotMaxPrice",
    "availabilityZones",
    "gpuInstanceProfile",
    "gpuProfile",
    "vnetSubnetID",
    "capacityReservationGroupID",
)


def check_location(text: Any, resource_type: str | None = CLUSTER_TYPE) -> str:
    """The region's name, from ``eastus`` or ``East US``."""
    if not isinstance(text, str) or not text:
        raise errors.ArmError(400, "LocationRequired", "The location property is required for this definition.")
    location = text.replace(" ", "").lower()
    if location not in data.REGIONS:
        raise errors.location_not_available(text, resource_type)
    return location


def check_group_name(name: str) -> None:
    """Letters, digits, ``-_.()``; not more than 90; no full stop at the end."""
    if GROUP_NAME.fullmatch(name) is None:
        message = (
            f"The provided resource group name '{name}' has these invalid characters or ends with '.'. The name can "
            "only be a letter, digit, '-', '.', '(', ')' or '_', and be at most 90 characters long."
        )
        raise errors.ArmError(400, "InvalidResourceGroup", message)


def check_cluster_name(name: str) -> None:
    """AKS' rule for the names of clusters."""
    if CLUSTER_NAME.fullmatch(name) is None:
        raise errors.invalid(
            "name",
            f"'{name}': the name can contain only letters, numbers, underscores, and hyphens, must start and end with "
            "a letter or number, and must be between 1 and 63 characters long. Please see "
            "https://aka.ms/aks-naming-rules for more details.",
        )


def check_version(version: Any, name: str) -> None:
    """The one version that the laptop runs, in full or by its minor."""
    served = data.KUBERNETES_VERSION
    if version in (None, "", served, served.rpartition(".")[0]):
        return
    message = (
        f"Managed cluster {name} is on version {version}, which is not supported in this region. Please use "
        "[az aks get-versions] command to get the supported version list in this region. For more information, please "
        "check https://aka.ms/supported-version-list"
    )
    raise errors.rejected("K8sVersionNotSupported", message, target="kubernetesVersion")


def check_size(name: Any, location: str) -> data.Size:
    """The VM size, if this region has it for this subscription."""
    if not isinstance(name, str) or not name:
        raise errors.missing("agentPoolProfile.vmSize")
    size = data.sizes().get(name.lower())
    if size is None:
        raise errors.size_not_allowed(name, location)
    if not size.offered(location) or size.restricted():
        raise errors.size_not_supported(size, location)
    return size


def check_pool(name: str, properties: Document, location: str) -> None:
    """Everything about a pool that does not depend on other pools."""
    _check_pool_name(name, properties)
    size = check_size(properties.get("vmSize"), location)
    _check_count(properties)
    _check_zones(properties, size, location)
    check_version(properties.get("orchestratorVersion"), name)
    for taint in properties.get("nodeTaints") or []:
        try:
            parse_taint(taint)
        except (ValueError, TypeError):
            raise errors.invalid(
                "agentPoolProfile.nodeTaints",
                f"Invalid node taint '{taint}': expected 'key=value:effect' with the effect NoSchedule, "
                "PreferNoSchedule or NoExecute.",
            ) from None
    _check_gpu(properties, size)
    _check_capacity_reservation(properties)
    if properties["scaleSetPriority"] == "Spot" and properties["mode"] == "System":
        raise errors.invalid("agentPoolProfile.scaleSetPriority", "A system node pool cannot be a Spot node pool.")


def surge(properties: Document) -> int:
    """How many nodes an upgrade of the pool adds for a while: a number, or a share of the count, rounded up."""
    wanted = str((properties.get("upgradeSettings") or {}).get("maxSurge") or "10%")
    return ceil(properties["count"] * int(wanted[:-1]) / 100) if wanted.endswith("%") else int(wanted)


def _check_gpu(properties: Document, size: data.Size) -> None:
    profile = properties.get("gpuInstanceProfile")
    if profile and (not size.mig or profile not in data.MIG_PROFILES):
        why = f"VM size {size.name} does not support MIG" if not size.mig else f"'{profile}' is no GPU instance profile"
        raise errors.invalid("agentPoolProfile.gpuInstanceProfile", f"{why}.")
    nvidia = (properties.get("gpuProfile") or {}).get("nvidia") or {}
    if nvidia.get("managementMode") == "Managed" and (not size.nvidia or properties["osType"] == "Windows"):
        raise errors.invalid(
            "agentPoolProfile.gpuProfile.nvidia",
            f"VM size {size.name} with {properties['osType']} has no NVIDIA GPU that AKS could manage.",
        )


def _check_capacity_reservation(properties: Document) -> None:
    group = properties.get("capacityReservationGroupID")
    if group and RESERVATION.fullmatch(group) is None:
        raise errors.invalid("agentPoolProfile.capacityReservationGroupID", f"'{group}' is no resource id of one.")
    if group and properties["scaleSetPriority"] == "Spot":
        raise errors.invalid("agentPoolProfile.capacityReservationGroupID", "A Spot node pool cannot use one.")


def _check_pool_name(name: str, properties: Document) -> None:
    windows = properties["osType"] == "Windows"
    if POOL_NAME.fullmatch(name) and (not windows or len(name) <= WINDOWS_NAME_LENGTH):
        return
    longest = WINDOWS_NAME_LENGTH if windows else 12
    raise errors.invalid(
        "agentPoolProfile.name",
        f"'{name}': agent pool names must start with a lowercase letter, have max length of {longest}, and only have "
        "characters a-z0-9. Please see https://aka.ms/aks-naming-rules for more details.",
    )


def _check_count(properties: Document) -> None:
    count, least = properties["count"], 1 if properties["mode"] == "System" else 0
    if not isinstance(count, int) or isinstance(count, bool) or not least <= count <= LARGEST_COUNT:
        raise errors.invalid(
            "agentPoolProfile.count",
            f"agentPoolProfile.count was {count}. It must be greater or equal to minCount:{least} and less than or "
            f"equal to maxCount:{LARGEST_COUNT}",
        )
    if not properties.get("enableAutoScaling"):
        return
    low, high = properties.get("minCount"), properties.get("maxCount")
    if low is None or high is None or not 0 <= low <= high <= LARGEST_COUNT:
        raise errors.invalid(
            "agentPoolProfile.minCount",
            f"with enableAutoScaling, minCount:{low} and maxCount:{high} must be given and 0 <= minCount <= maxCount "
            f"<= {LARGEST_COUNT}",
        )
    if not low <= count <= high:
        raise errors.invalid(
            "agentPoolProfile.count",
            f"agentPoolProfile.count was {count}. It must be greater or equal to minCount:{low} and less than or "
            f"equal to maxCount:{high}",
        )


def _check_zones(properties: Document, size: data.Size, location: str) -> None:
    wanted, served = properties.get("availabilityZones") or [], size.zones(location)
    wrong = [zone for zone in wanted if zone not in served]
    if wrong:
        listed = ",".join(f"'{zone}'" for zone in served)
        message = (
            f"The zone(s) '{','.join(wrong)}' for resource 'agentPoolProfile' is not supported. "
            f"The supported zones for location '{location}' are {listed}"
        )
        raise errors.rejected("AvailabilityZoneNotSupported", message, target="agentPoolProfile.availabilityZones")


def check_fixed(old: Document, given: Document, fields: tuple[str, ...]) -> None:
    """Refuse a request that changes what is fixed; what it leaves out stays."""
    for field in fields:
        if given.get(field) is not None and _folded(given[field]) != _folded(old.get(field)):
            raise errors.unchangeable(f"properties.{field}")


def _folded(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def check_system_pool(pools: dict[str, Document]) -> None:
    """A cluster lives by its system pool, which is never stopped by itself."""
    if not any(pool["properties"]["mode"] == "System" for pool in pools.values()):
        raise errors.rejected("BadRequest", "There has to be at least one system agent pool.")
    for pool in pools.values():
        if pool["power"] == "Stopped" and pool["properties"]["mode"] == "System":
            raise errors.not_allowed(f"Agent pool '{pool['name']}' is a system pool. System pools cannot be stopped.")
