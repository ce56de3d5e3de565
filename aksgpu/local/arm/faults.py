"""Failures to order: what Azure does to people on bad days, done on purpose by a test or a notebook.

An ordered fault waits until a request or an operation meets it, and is used up then. The faults are forgotten when
the process ends. Evictions are not waited for; :func:`evict` does one at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aksgpu.local.arm import nodes
from aksgpu.local.arm.errors import ArmError, rejected

if TYPE_CHECKING:
    from aksgpu.local.arm.context import Context

FAULTS = {
    "quota": {"family", "limit"},
    "allocation": {"vm_size", "code"},
    "throttle": {"method", "seconds"},
    "slow": {"factor"},
    "stuck": set(),
    "eviction": {"pool"},
}
"""Every kind of fault with the details that it takes."""

GUIDANCE = "Read more about improving likelihood of allocation success at http://aka.ms/allocation-guidance"
ALLOCATION = {
    "ZonalAllocationFailed": "Allocation failed. We do not have sufficient capacity for the requested VM size in this "
    f"zone. {GUIDANCE}",
    "AllocationFailed": "Allocation failed. We do not have sufficient capacity for the requested VM size in this "
    f"region. {GUIDANCE}",
    "OverconstrainedAllocationRequest": "Allocation failed. VM(s) with the following constraints cannot be allocated, "
    "because the condition is too restrictive. Please remove some constraints and try again. Constraints applied are: "
    "- Differencing (Ephemeral) Disks - Networking Constraints (such as Accelerated Networking or IPv6) - VM Size",
    "OverconstrainedZonalAllocationRequest": "Allocation failed. VM(s) with the following constraints cannot be "
    "allocated, because the condition is too restrictive. Please remove some constraints and try again. Constraints "
    "applied are: - Availability Zone - Networking Constraints (such as Accelerated Networking or IPv6) - VM Size",
}


@dataclass
class Fault:
    """One ordered fault."""

    kind: str
    details: dict[str, Any]
    times: int


class Faults:
    """The faults that wait."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self.quota: dict[str, int] = {}

    def order(self, kind: str, details: dict[str, Any]) -> None:
        """Order a fault, or clear all with ``none``; raises ArmError."""
        if kind == "none":
            self._waiting, self.quota = [], {}
            return
        wanted = dict(details)
        times = wanted.pop("times", 1)
        unknown = sorted(set(wanted) - FAULTS.get(kind, set()))
        if kind not in FAULTS or unknown:
            known = ", ".join(f"{name}({', '.join(sorted(fields))})" for name, fields in FAULTS.items())
            raise ArmError(
                400, "UnknownFault", f"fault {kind!r} with {unknown or 'nothing'} is unknown; known: {known}"
            )
        if kind == "quota":
            self.quota[str(wanted.get("family", "cores")).lower()] = int(wanted.get("limit", 0))
        elif kind != "eviction":  # that does not wait
            self._waiting.append(Fault(kind, wanted, int(times)))

    def take(self, kind: str, **facts: str) -> dict[str, Any] | None:
        """The details of a waiting fault that these facts match, used up once; None when there is none."""
        for fault in self._waiting:
            if fault.kind == kind and all(
                str(fault.details[key]).lower() == value.lower() for key, value in facts.items() if key in fault.details
            ):
                fault.times -= 1
                if fault.times <= 0:
                    self._waiting.remove(fault)
                return fault.details
        return None

    def check_allocation(self, vm_size: str) -> None:
        """Refuse virtual machines if that was ordered."""
        details = self.take("allocation", vm_size=vm_size)
        if details is not None:
            code = str(details.get("code", "ZonalAllocationFailed"))
            raise rejected(code, ALLOCATION.get(code, ALLOCATION["AllocationFailed"]))

    def check_request(self, method: str) -> None:
        """Refuse a request if that was ordered."""
        details = self.take("throttle", method=method)
        if details is not None:
            raise throttled(f"{method} requests", float(details.get("seconds", 1)))


def throttled(what: str, seconds: float) -> ArmError:
    """Too many requests of a kind."""
    wait = max(1, round(seconds))
    message = f"The {what} request limit has been exceeded, please retry again in {wait} seconds."
    error = rejected("Throttled", message, status=429)
    error.headers = {"Retry-After": str(wait)}
    return error


async def evict(context: Context, details: dict[str, Any]) -> str:
    """Take one node of a spot pool away, as Azure does when it needs the capacity; its name.

    Raises:
        ArmError: no cluster has such a node.
    """
    for key, cluster in context.state.clusters.items():
        for pool in cluster["pools"].values():
            spot = pool["properties"]["scaleSetPriority"] == "Spot" and cluster["power"] == "Running"
            if not spot or pool["name"] != details.get("pool", pool["name"]):
                continue
            objects = await context.clusters.open(cluster["id"], cluster["token"])
            for node in reversed(await nodes.of_pool(objects, pool)):
                pool["properties"]["count"] = max(0, pool["properties"]["count"] - 1)
                context.state.save(("clusters", key))
                await nodes.remove(objects, node["metadata"]["name"])
                return str(node["metadata"]["name"])
    raise ArmError(404, "NotFound", "no spot node to evict")
