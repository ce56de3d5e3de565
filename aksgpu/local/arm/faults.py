"""Failures to order: what Azure does to people on bad days, done on purpose by a test or a notebook.

An ordered fault waits until a request or an operation meets it, and is used up then. The faults are forgotten when
the process ends. Evictions are not waited for; :func:`evict` does one at once.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aksgpu.local.arm import nodes
from aksgpu.local.arm.data import SUBSCRIPTION, sizes
from aksgpu.local.arm.errors import ArmError, rejected
from aksgpu.local.arm.fields import Rule, WrongField, between
from aksgpu.local.arm.state import Document
from aksgpu.local.control import events
from aksgpu.local.objects import Object, Objects

if TYPE_CHECKING:
    from aksgpu.local.arm.context import Context

DRIVER_ANNOTATION = "aksgpu.dev/gpu-driver-error"
DRIVER_PROBLEM = "Driver/library version mismatch"
PREEMPTION = "PreemptionScheduled"

NOTICE_SECONDS = 1.0
"""How long before an eviction it is announced, before the time scale; Azure gives half a minute at best."""

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


TEXT, POSITIVE = Rule(str), Rule(float, check=between(0.001, 1_000_000))
FAULTS: dict[str, dict[str, Rule]] = {
    "quota": {"family": TEXT, "limit": Rule(int, check=between(0, 1_000_000))},
    "allocation": {"vm_size": TEXT, "code": Rule(str, words=tuple(ALLOCATION))},
    "throttle": {"method": Rule(str, words=("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE")), "seconds": POSITIVE},
    "slow": {"factor": POSITIVE},
    "stuck": {},
    "eviction": {"pool": TEXT},
    "gpu-driver": {"node": TEXT, "message": TEXT, "vm_size": TEXT, "exit_code": Rule(int, check=between(1, 255))},
}
"""Every kind of fault with the details that it takes."""
TIMES = Rule(int, check=between(1, 1_000_000))


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
        unknown = sorted(set(wanted) - set(FAULTS.get(kind, {})))
        if kind not in FAULTS or unknown:
            known = ", ".join(f"{name}({', '.join(sorted(fields))})" for name, fields in FAULTS.items())
            raise ArmError(
                400, "UnknownFault", f"fault {kind!r} with {unknown or 'nothing'} is unknown; known: {known}"
            )
        try:
            Rule(dict, fields=FAULTS[kind] | {"times": TIMES}).require(details, "")
        except WrongField as wrong:
            raise ArmError(400, "InvalidFault", f"fault {kind!r}: {wrong}") from None
        if kind == "quota":
            self.quota[str(wanted.get("family", "cores")).lower()] = int(wanted.get("limit", 0))
        elif kind != "eviction" and "node" not in wanted:  # these do not wait
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

    def check_machines(self, properties: Document) -> None:
        """Refuse a pool's virtual machines, or fail in setting them up, if that was ordered."""
        vm_size = properties["vmSize"]
        details = self.take("allocation", vm_size=vm_size)
        if details is not None:
            code = str(details.get("code", "ZonalAllocationFailed"))
            raise rejected(code, ALLOCATION.get(code, ALLOCATION["AllocationFailed"]))
        if not sizes()[vm_size.lower()].nvidia or (properties.get("gpuProfile") or {}).get("driver") == "None":
            return
        if (details := self.take("gpu-driver", vm_size=vm_size)) is not None:
            raise rejected(
                "VMExtensionProvisioningError",
                "VM has reported a failure when processing extension 'vmssCSE' (publisher 'Microsoft.Azure.Extensions' "
                "and type 'CustomScript'). Error message: 'Enable failed: failed to execute command: command "
                f"terminated with exit status={details.get('exit_code', 84)}'",
            )

    def check_request(self, method: str, name: str) -> None:
        """Refuse a request if that was ordered; ``name`` is what AKS calls its kind."""
        details = self.take("throttle", method=method)
        if details is not None:
            raise throttled(name, float(details.get("seconds", 1)))


def throttled(what: str, seconds: float) -> ArmError:
    """Too many requests of a kind."""
    wait = max(1, round(seconds))
    message = (
        f"The {what} request limit has been exceeded for SubID='{SUBSCRIPTION}', please retry again in {wait} seconds."
    )
    error = rejected("Throttled", message, status=429)
    error.headers = {"Retry-After": str(wait)}
    return error


async def act(context: Context, kind: str, details: dict[str, Any]) -> str:
    """Do at once what does not wait; what was done, in words. Raises ArmError."""
    if kind == "eviction":
        return f"evicted {await evict(context, details)}"
    if kind == "none":
        await _set_drivers(context, "", None)
    if kind == "gpu-driver" and "node" in details:
        name, problem = str(details["node"]), str(details.get("message", DRIVER_PROBLEM))
        if not await _set_drivers(context, name, problem):
            raise ArmError(404, "NotFound", f"no GPU node {name!r} with a driver")
        return f"broke the driver of {name}"
    return "ordered"


async def _running(context: Context) -> AsyncIterator[tuple[str, Document, Document, Objects, Object]]:
    """Every node whose machine runs: the cluster's key, cluster, pool, objects, node; the newest of a pool first."""
    for key, cluster in list(context.state.clusters.items()):
        if cluster["power"] != "Running":
            continue
        objects = await context.clusters.open(cluster["id"], cluster["token"])
        for pool in list(cluster["pools"].values()):
            for node in reversed(await nodes.of_pool(objects, pool)):
                if not nodes.is_off(node):
                    yield key, cluster, pool, objects, node


async def _set_drivers(context: Context, name: str, problem: str | None) -> bool:
    """Break or mend the NVIDIA driver of a node, or of all; whether there was one."""
    found = False
    async for _, _, pool, objects, node in _running(context):
        metadata = node["metadata"]
        changes = metadata.get("annotations", {}).get(DRIVER_ANNOTATION) != problem
        if nodes.gpu_annotations(pool) and name in ("", metadata["name"]):
            found = True
            if changes:
                await objects.patch(
                    "nodes", metadata["name"], {"metadata": {"annotations": {DRIVER_ANNOTATION: problem}}}
                )
    return found


async def evict(context: Context, details: dict[str, Any]) -> str:
    """Take one node of a spot pool away, as Azure does when it needs the capacity; its name.

    The node says so half a minute before, as AKS' problem detector has it say; then its machine goes, or only stops,
    as the pool's eviction policy says.

    Raises:
        ArmError: no cluster has such a node.
    """
    async for key, cluster, pool, objects, node in _running(context):
        properties, name = pool["properties"], str(node["metadata"]["name"])
        if properties["scaleSetPriority"] != "Spot" or pool["name"] != details.get("pool", pool["name"]):
            continue
        async with context.nodes_lock[cluster["id"]]:
            await _announce(objects, node)
            await asyncio.sleep(NOTICE_SECONDS * context.settings.time_scale)
            properties["count"] = max(0, properties["count"] - 1)
            context.state.save(("clusters", key))
            if properties.get("scaleSetEvictionPolicy") == "Deallocate":
                await nodes.switch_off(objects, name)
            else:
                await nodes.remove(objects, name)
        return name
    raise ArmError(404, "NotFound", "no spot node to evict")


async def _announce(objects: Objects, node: Object) -> None:
    """The condition and the event with which a node tells that it is about to be evicted."""
    when = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    message = (
        f"Preempt Scheduled: {when}. For more information, see "
        f"https://aka.ms/aks/scheduled-events. EventId: {str(uuid.uuid4()).upper()}"
    )
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
    told = {"type": PREEMPTION, "status": "True", "reason": "SpotEvictionIncoming", "message": message, **times}
    conditions = [*node["status"].get("conditions", []), told]
    await objects.patch("nodes", node["metadata"]["name"], {"status": {"conditions": conditions}}, subresource="status")
    await events.write(
        objects, "node-problem-detector", {**node, "kind": "Node"}, "Warning", "PreemptScheduled", message
    )
