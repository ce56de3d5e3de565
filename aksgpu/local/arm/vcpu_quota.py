"""vCPU quota: usage, limits, and the check of a request.

Usage is computed from the clusters on each request, so it is always current.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from aksgpu.local.arm import reference_data
from aksgpu.local.arm.arm_errors import refusal
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import Context

Pools = Iterable[Document]
REGION = "cores"
SPOT = "lowPriorityCores"


def limit(context: Context, family: str) -> int:
    """Return the number of vCPUs that the subscription may use of a family, of the region, or of spot."""
    offered: int = reference_data.table("offer")["quota"].get(
        family, reference_data.FAMILIES.get(family.lower(), {}).get("quota", 0)
    )
    return context.faults.quota.get(family.lower(), offered)


def usage(context: Context, location: str) -> Counter[str]:
    """Return the vCPUs in use in a region, by family in lower case, and for the region and spot as a whole."""
    used: Counter[str] = Counter()
    for cluster in context.state.clusters.values():
        if cluster["location"] != location or cluster["power"] == "Stopped":
            continue
        running = context.operations.get_running(cluster) or {}
        for pool in cluster["pools"].values():
            surge = running.get("surge", 0) if pool["name"] == running.get("pool") else 0
            used.update(pool_vcpus(pool, surge))
    return used


def check(context: Context, location: str, requested_pools: Pools, *, instead_of: Pools = (), surge: int = 0) -> None:
    """Raise ArmError if the pools would exceed the quota.

    Args:
        context: the subscription.
        location: the region.
        requested_pools: the pools as requested.
        instead_of: the current versions of the same pools. Their usage is subtracted.
        surge: temporary nodes of each pool in addition to its count.
    """
    used = usage(context, location)
    before = sum((Counter(pool_vcpus(pool)) for pool in instead_of), Counter[str]())
    after = sum((Counter(pool_vcpus(pool, surge)) for pool in requested_pools), Counter[str]())
    for name, vcpus in after.items():
        requested = vcpus - before[name]
        remaining = limit(context, name) - used[name]
        if requested > max(0, remaining):
            kind = "regional_quota" if name == REGION else "family_quota"
            families = {size.family.lower(): size.family for size in reference_data.sizes().values()}
            family = families.get(name, name)
            raise refusal(kind, requested=requested, remaining=max(0, remaining), family=family, location=location)


def default_size(context: Context, location: str, given: Document) -> str:
    """Return the VM size of a new pool that names none, as AKS chooses it: one that is offered and within the quota.

    Args:
        context: the subscription.
        location: the region.
        given: the properties of the pool in the request.
    """
    offered: list[str] = reference_data.table("offer")["default_sizes"]
    used = usage(context, location)
    count = int(given.get("count") or 1)
    for name in offered:
        size = reference_data.sizes()[name.lower()]
        needed = size.vcpus * count
        quotas = (size.family.lower(), REGION)
        has_room = all(needed <= limit(context, quota) - used[quota] for quota in quotas)
        if size.is_offered(location) and not size.restricted and has_room:
            return name
    return offered[0]


def pool_vcpus(pool: Document, surge: int = 0) -> dict[str, int]:
    """Return the vCPUs of a pool, by the quotas that they count against."""
    properties = pool["properties"]
    size = reference_data.sizes()[properties["vmSize"].lower()]
    vcpus = 0 if pool["power"] == "Stopped" else size.vcpus * (int(properties["count"]) + surge)
    if properties.get("scaleSetPriority") == "Spot":
        return {SPOT: vcpus}
    return {size.family.lower(): vcpus, REGION: vcpus}
