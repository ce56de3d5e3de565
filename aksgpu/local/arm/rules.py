"""What AKS accepts: names, regions, sizes, counts, taints, versions, and the fields that cannot change.

These functions only look and refuse. What each field may be by itself is in ``fields.yaml``; quota is looked after in
:mod:`aksgpu.local.arm.vcpu_quota`.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from math import ceil, inf
from typing import Any

from aksgpu.local import name_formats
from aksgpu.local.arm import reference_data
from aksgpu.local.arm.arm_errors import refusal, refuse_if
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import CLUSTER_TYPE
from aksgpu.local.arm.pool_nodes import parse_taint

CLUSTER_NAME = re.compile(r"[a-zA-Z0-9]|[a-zA-Z0-9][-_a-zA-Z0-9]{0,61}[a-zA-Z0-9]")
DNS_PREFIX = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9]{0,52}[a-zA-Z0-9])?")
GROUP_NAME = re.compile(r"[-\w._()]{0,89}[-\w_()]")
"""Letters, digits, ``-_.()``; not more than 90; no full stop at the end."""
POOL_NAME = re.compile(r"[a-z][a-z0-9]*")
RESERVATION = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Compute/capacityReservationGroups/[^/]+", re.I
)
LARGEST_COUNT = 1000


def check_location(text: Any, kind: str | None = CLUSTER_TYPE) -> str:
    """The region's name, from ``eastus`` or ``East US``; ``kind`` is what shall be there, None a resource group."""
    refuse_if(not isinstance(text, str) or not text, "no_location")
    location = str(text).replace(" ", "").lower()
    if location not in reference_data.REGIONS:
        name = "no_location_for" if kind else "no_group_location"
        raise refusal(name, location=text, kind=kind, regions=",".join(reference_data.REGIONS))
    return location


def check_new_cluster(name: str, body: Document) -> None:
    """AKS' rule for the names of clusters, and what a new one has to say."""
    refuse_if(CLUSTER_NAME.fullmatch(name) is None, "cluster_name", name=name)
    properties = body.get("properties") or {}
    prefix = properties.get("dnsPrefix") or properties.get("fqdnSubdomain") or ""
    identity = (body.get("identity") or {}).get("type", "None") or "None"
    refuse_if(DNS_PREFIX.fullmatch(prefix) is None, "dns_prefix", prefix=prefix)
    refuse_if(not properties.get("agentPoolProfiles"), "missing", field="agentPoolProfiles")
    principal = identity != "None" or properties.get("servicePrincipalProfile")
    refuse_if(not principal, "missing", field="servicePrincipalProfile")


def check_cluster(name: str, given: Document) -> None:
    """What a request says of a cluster, its pools apart."""
    check_version(given.get("kubernetesVersion"), name)
    found = [str(profile.get("name")) for profile in given.get("agentPoolProfiles") or []]
    twice = next((name for name in found if found.count(name) > 1), None)
    refuse_if(twice, "pool_twice", name=twice)
    for text in (given.get("apiServerAccessProfile") or {}).get("authorizedIPRanges") or []:
        try:
            ip_network(text, strict=False)
        except ValueError:
            raise refusal("ip_range", text=text) from None


def check_version(version: Any, name: str) -> None:
    """The one version that the laptop runs, in full or by its minor."""
    served = reference_data.KUBERNETES_VERSION
    known = (None, "", served, served.rpartition(".")[0])
    refuse_if(version not in known, "version_not_served", name=name, version=version)


def check_size(name: Any, location: str) -> reference_data.Size:
    """The VM size, if this region has it for this subscription."""
    refuse_if(not name, "missing", field="agentPoolProfile.vmSize")
    size = reference_data.sizes().get(name.lower())
    if size is None:
        known = [
            size.name for size in reference_data.sizes().values() if size.offered(location) and not size.restricted
        ]
        raise refusal("size_unknown", size=name, location=location, known=",".join(known))
    if not size.offered(location) or size.restricted:
        refused = "retired" if size.retired_on else "size_not_offered"
        raise refusal(refused, size=size.name, location=location, retired_on=size.retired_on)
    return size


def check_pool(name: str, properties: Document, location: str) -> None:
    """Everything about a pool that does not depend on other pools."""
    system = properties["osType"]
    longest = 6 if system == "Windows" else 12
    refuse_if(POOL_NAME.fullmatch(name) is None or len(name) > longest, "pool_name", name=name, longest=longest)
    size = check_size(properties.get("vmSize"), location)
    _check_count(properties)
    served = size.zones(location)
    wrong = ",".join(zone for zone in properties.get("availabilityZones") or [] if zone not in served)
    listed = ",".join(f"'{zone}'" for zone in served)
    refuse_if(wrong, "zone_not_served", zones=wrong, location=location, served=listed)
    check_version(properties.get("orchestratorVersion"), name)
    for key, text in (properties.get("nodeLabels") or {}).items():
        if problems := name_formats.qualified_name_problems(key) or name_formats.label_value_problems(text):
            raise refusal("node_label", label=f"{key}={text}", why=problems[0])
    for taint in properties.get("nodeTaints") or []:
        try:
            parse_taint(taint)
        except ValueError:
            raise refusal("node_taint", taint=taint) from None

    if profile := properties.get("gpuInstanceProfile"):
        refuse_if(not size.mig, "mig_size", size=size.name)
        refuse_if(profile not in reference_data.table("offer")["mig"], "mig_profile", profile=profile)
    nvidia = (properties.get("gpuProfile") or {}).get("nvidia") or {}
    manageable = size.nvidia and system != "Windows"
    managed = nvidia.get("managementMode") == "Managed"
    refuse_if(managed and not manageable, "managed_gpu", size=size.name, system=system)

    spot = properties["scaleSetPriority"] == "Spot"
    price = properties.get("spotMaxPrice", -1)
    if group := properties.get("capacityReservationGroupID"):
        refuse_if(RESERVATION.fullmatch(group) is None, "capacity_reservation", group=group)
        refuse_if(spot, "capacity_reservation_spot")
    refuse_if(spot and properties["mode"] == "System", "spot_system")
    refuse_if(price != -1 and not 0 < price < inf, "spot_price", price=price)


def surge(properties: Document) -> int:
    """How many nodes an upgrade of the pool adds for a while: a number, or a share of the count, rounded up."""
    wanted = str((properties.get("upgradeSettings") or {}).get("maxSurge") or "10%")
    return ceil(properties["count"] * int(wanted[:-1]) / 100) if wanted.endswith("%") else int(wanted)


def _check_count(properties: Document) -> None:
    count = properties["count"]
    least = 1 if properties["mode"] == "System" else 0
    most = LARGEST_COUNT
    refuse_if(not least <= count <= most, "count", count=count, least=least, most=most)
    if properties.get("enableAutoScaling"):
        low = properties.get("minCount")
        high = properties.get("maxCount")
        if low is None or high is None or not 0 <= low <= high <= most:
            raise refusal("limits", low=low, high=high, most=most)
        refuse_if(not low <= count <= high, "count", count=count, least=low, most=high)


def check_fixed(kind: str, old: Document, given: Document) -> None:
    """Refuse a request that changes what is fixed of a cluster or a pool; what it leaves out stays."""
    for field in reference_data.table("defaults")["fixed"][kind]:
        changes = given.get(field) is not None and _folded(given[field]) != _folded(old.get(field))
        refuse_if(changes, "fixed", field=f"properties.{field}")


def _folded(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def check_system_pool(pools: dict[str, Document]) -> None:
    """A cluster lives by its system pool, which is never stopped by itself."""
    systems = [pool for pool in pools.values() if pool["properties"]["mode"] == "System"]
    refuse_if(not systems, "no_system_pool")
    for pool in systems:
        refuse_if(pool["power"] == "Stopped", "system_pool_stopped", name=pool["name"])
