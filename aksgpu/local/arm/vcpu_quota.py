"""vCPU quota: what the clusters of a region use, and whether a request still fits.

Usage is not counted up and down but summed from the clusters themselves, so that it cannot drift.
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
    """How many vCPUs of a family (or of the region, or for spot) the subscription may use."""
    offered: int = reference_data.table("offer")["quota"].get(
        family, reference_data.FAMILIES.get(family.lower(), {}).get("quota", 0)
    )
    return context.faults.quota.get(family.lower(), offered)


def usage(context: Context, location: str) -> Counter[str]:
    """The vCPUs in use in a region, by family in lower case, and for the region and spot as a whole."""
    used: Counter[str] = Counter()
    for cluster in context.state.clusters.values():
        if cluster["location"] != location or cluster["power"] == "Stopped":
            continue
        running = context.operations.running(cluster) or {}
        for pool in cluster["pools"].values():
            used.update(cost(pool, running.get("surge", 0) if pool["name"] == running.get("pool") else 0))
    return used


def check(context: Context, location: str, wanted: Pools, *, instead_of: Pools = (), surge: int = 0) -> None:
    """Refuse pools that the quota has no room for.

    Args:
        context: the subscription.
        location: the region.
        wanted: the pools as they shall be.
        instead_of: the same pools as they are, whose use is given back.
        surge: nodes that each pool has for a while beside those that it counts.
    """
    used = usage(context, location)
    before = sum((Counter(cost(pool)) for pool in instead_of), Counter[str]())
    after = sum((Counter(cost(pool, surge)) for pool in wanted), Counter[str]())
    for name, vcpus in after.items():
        requested = vcpus - before[name]
        remaining = limit(context, name) - used[name]
        if requested > max(0, remaining):
            kind = "regional_quota" if name == REGION else "family_quota"
            family = next(
                (size.family for size in reference_data.sizes().values() if size.family.lower() == name), name
            )
            raise refusal(kind, requested=requested, remaining=max(0, remaining), family=family, location=location)


def cost(pool: Document, surge: int = 0) -> dict[str, int]:
    """The vCPUs of a pool, by the quotas that they come from."""
    properties = pool["properties"]
    size = reference_data.sizes()[properties["vmSize"].lower()]
    vcpus = 0 if pool["power"] == "Stopped" else size.vcpus * (int(properties["count"]) + surge)
    if properties.get("scaleSetPriority") == "Spot":
        return {SPOT: vcpus}
    return {size.family.lower(): vcpus, REGION: vcpus}
