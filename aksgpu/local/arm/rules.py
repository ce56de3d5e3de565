"""AKS' validation of names, regions, sizes, counts, taints, versions and immutable fields.

The functions raise ArmError and change nothing. ``fields.yaml`` has the rules for single fields. Quota is in
:mod:`aksgpu.local.arm.vcpu_quota`.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from math import ceil, inf
from typing import Any

from aksgpu.local import kubernetes_versions, name_formats
from aksgpu.local.arm import reference_data
from aksgpu.local.arm.arm_errors import refusal, refuse_if
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.pool_nodes import parse_taint
from aksgpu.local.arm.resource_ids import CLUSTER_TYPE

CLUSTER_NAME = re.compile(r"[a-zA-Z0-9]|[a-zA-Z0-9][-_a-zA-Z0-9]{0,61}[a-zA-Z0-9]")
DNS_PREFIX = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9]{0,52}[a-zA-Z0-9])?")
GROUP_NAME = re.compile(r"[-\w._()]{0,89}[-\w_()]")
"""Letters, digits and ``-_.()``, at most 90 characters, no period at the end."""
POOL_NAME = re.compile(r"[a-z][a-z0-9]*")
RESERVATION = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Compute/capacityReservationGroups/[^/]+", re.I
)
MAX_COUNT = 1000


def check_location(text: Any, kind: str | None = CLUSTER_TYPE) -> str:
    """Return a region's name from ``eastus`` or ``East US``.

    Args:
        text: the location in the request.
        kind: the resource type to create there, or None for a resource group.
    """
    refuse_if(not isinstance(text, str) or not text, "no_location")
    location = str(text).replace(" ", "").lower()
    if location not in reference_data.REGIONS:
        name = "no_location_for" if kind else "no_group_location"
        raise refusal(name, location=text, kind=kind, regions=",".join(reference_data.REGIONS))
    return location


def check_new_cluster(name: str, body: Document) -> None:
    """Check the name of a new cluster, and its required fields."""
    refuse_if(CLUSTER_NAME.fullmatch(name) is None, "cluster_name", name=name)
    properties = body.get("properties") or {}
    prefix = properties.get("dnsPrefix") or properties.get("fqdnSubdomain") or ""
    identity = (body.get("identity") or {}).get("type", "None") or "None"
    refuse_if(DNS_PREFIX.fullmatch(prefix) is None, "dns_prefix", prefix=prefix)
    refuse_if(not properties.get("agentPoolProfiles"), "missing", field="agentPoolProfiles")
    has_principal = identity != "None" or properties.get("servicePrincipalProfile")
    refuse_if(not has_principal, "missing", field="servicePrincipalProfile")


def check_cluster(name: str, given: Document) -> None:
    """Check the properties of a cluster in a request, without its pools."""
    check_version(given.get("kubernetesVersion"), name)
    names = [str(profile.get("name")) for profile in given.get("agentPoolProfiles") or []]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    refuse_if(duplicate, "pool_duplicate", name=duplicate)
    for text in (given.get("apiServerAccessProfile") or {}).get("authorizedIPRanges") or []:
        try:
            ip_network(text, strict=False)
        except ValueError:
            raise refusal("ip_range", text=text) from None


def check_version(version: Any, name: str) -> None:
    """Check a Kubernetes version, which can be a minor version or a patch version."""
    refuse_if(version and not kubernetes_versions.is_offered(version), "version_not_served", name=name, version=version)


def check_same_version(old: Document, given: Document, name: str) -> None:
    """Check that a request does not change the Kubernetes version of a cluster. The laptop does not upgrade."""
    requested = given.get("kubernetesVersion")
    current = kubernetes_versions.patch_version(old["kubernetesVersion"])
    changes = requested and kubernetes_versions.patch_version(requested) != current
    refuse_if(changes, "version_fixed", name=name, there=current, version=requested)


def check_size(name: Any, location: str) -> reference_data.Size:
    """Return the VM size of this name if the region offers it to the subscription."""
    refuse_if(not name, "missing", field="agentPoolProfile.vmSize")
    sizes = reference_data.sizes()
    size = sizes.get(name.lower())
    if size is None:
        known = [each.name for each in sizes.values() if each.is_offered(location) and not each.restricted]
        raise refusal("size_unknown", size=name, location=location, known=",".join(known))
    if not size.is_offered(location) or size.restricted:
        reason = "retired" if size.retired_on else "size_not_offered"
        raise refusal(reason, size=size.name, location=location, retired_on=size.retired_on)
    return size


def check_pool(name: str, properties: Document, location: str) -> None:
    """Check all rules for a pool that do not depend on other pools."""
    max_length = 6 if properties["osType"] == "Windows" else 12
    valid_name = POOL_NAME.fullmatch(name) and len(name) <= max_length
    refuse_if(not valid_name, "pool_name", name=name, longest=max_length)
    kind = properties["type"]
    refuse_if(kind != "VirtualMachineScaleSets", "pool_type", name=name, type=kind)
    size = check_size(properties.get("vmSize"), location)
    _check_count(properties)
    _check_zones(properties, size, location)
    check_version(properties.get("orchestratorVersion"), name)
    _check_labels_and_taints(properties)
    _check_gpu_profile(properties, size)
    _check_spot(properties)


def _check_zones(properties: Document, size: reference_data.Size, location: str) -> None:
    served = size.zones(location)
    wrong = ",".join(zone for zone in properties.get("availabilityZones") or [] if zone not in served)
    listed = ",".join(f"'{zone}'" for zone in served)
    refuse_if(wrong, "zone_not_served", zones=wrong, location=location, served=listed)


def _check_labels_and_taints(properties: Document) -> None:
    for key, value in (properties.get("nodeLabels") or {}).items():
        problems = name_formats.qualified_name_problems(key) or name_formats.label_value_problems(value)
        if problems:
            raise refusal("node_label", label=f"{key}={value}", why=problems[0])
    for taint in properties.get("nodeTaints") or []:
        try:
            parse_taint(taint)
        except ValueError:
            raise refusal("node_taint", taint=taint) from None


def _check_gpu_profile(properties: Document, size: reference_data.Size) -> None:
    profile = properties.get("gpuInstanceProfile")
    if profile:
        refuse_if(not size.mig, "mig_size", size=size.name)
        refuse_if(profile not in reference_data.table("offer")["mig"], "mig_profile", profile=profile)
    nvidia = (properties.get("gpuProfile") or {}).get("nvidia") or {}
    manageable = size.nvidia and properties["osType"] != "Windows"
    managed = nvidia.get("managementMode") == "Managed"
    refuse_if(managed and not manageable, "managed_gpu", size=size.name, system=properties["osType"])


def _check_spot(properties: Document) -> None:
    spot = properties["scaleSetPriority"] == "Spot"
    price = properties.get("spotMaxPrice", -1)
    group = properties.get("capacityReservationGroupID")
    if group:
        refuse_if(RESERVATION.fullmatch(group) is None, "capacity_reservation", group=group)
        refuse_if(spot, "capacity_reservation_spot")
    refuse_if(spot and properties["mode"] == "System", "spot_system")
    refuse_if(price != -1 and not 0 < price < inf, "spot_price", price=price)


def surge_count(properties: Document) -> int:
    """Return the number of nodes that an upgrade adds temporarily.

    ``maxSurge`` is a number, or a percentage of the count, which is rounded up.
    """
    max_surge = str((properties.get("upgradeSettings") or {}).get("maxSurge") or "10%")
    if max_surge.endswith("%"):
        return ceil(int(properties["count"]) * int(max_surge[:-1]) / 100)
    return int(max_surge)


def _check_count(properties: Document) -> None:
    count = properties["count"]
    minimum = 1 if properties["mode"] == "System" else 0
    refuse_if(not minimum <= count <= MAX_COUNT, "count", count=count, least=minimum, most=MAX_COUNT)
    if properties.get("enableAutoScaling"):
        low = properties.get("minCount")
        high = properties.get("maxCount")
        if low is None or high is None or not 0 <= low <= high <= MAX_COUNT:
            raise refusal("limits", low=low, high=high, most=MAX_COUNT)
        refuse_if(not low <= count <= high, "count", count=count, least=low, most=high)


def check_fixed(kind: str, old: Document, given: Document) -> None:
    """Check that a request changes no immutable field of a cluster or a pool. Fields that it omits are kept."""
    for field in reference_data.table("defaults")["fixed"][kind]:
        changes = given.get(field) is not None and _fold_case(given[field]) != _fold_case(old.get(field))
        refuse_if(changes, "fixed", field=f"properties.{field}")


def _fold_case(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def check_subnet(pools: dict[str, Document], properties: Document) -> None:
    """Check that a new pool has a subnet of its own only if the other pools of the cluster have one."""
    managed = [pool["name"] for pool in pools.values() if not pool["properties"].get("vnetSubnetID")]
    refuse_if(properties.get("vnetSubnetID") and managed, "subnet_managed", pool=next(iter(managed), ""))


def check_system_pool(pools: dict[str, Document]) -> None:
    """Check that a cluster has a system pool, and that no system pool is stopped."""
    system_pools = [pool for pool in pools.values() if pool["properties"]["mode"] == "System"]
    refuse_if(not system_pools, "no_system_pool")
    for pool in system_pools:
        refuse_if(pool["power"] == "Stopped", "system_pool_stopped", name=pool["name"])
