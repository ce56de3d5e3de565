"""Failures to order: what Azure does to people on bad days, done on purpose by a test or a notebook.

An ordered fault waits until a request or an operation meets it, and is used up then. The faults are forgotten when
the process ends. Evictions are not waited for; :func:`evict` does one at once.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aksgpu.local.arm import pool_nodes
from aksgpu.local.arm.arm_errors import ArmError, refusal
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.json_schema import WrongField, require
from aksgpu.local.arm.reference_data import sizes, table
from aksgpu.local.control import event_recorder
from aksgpu.local.objects import Object, Objects

if TYPE_CHECKING:
    from aksgpu.local.arm.context import Context

DRIVER_ANNOTATION = "aksgpu.dev/gpu-driver-error"
DRIVER_PROBLEM = "Driver/library version mismatch"

NOTICE_SECONDS = 1.0
"""How long before an eviction it is announced, before the time scale; Azure gives half a minute at best."""


class Faults:
    """The faults that wait."""

    def __init__(self) -> None:
        self._waiting: list[tuple[str, dict[str, Any]]] = []
        self.quota: dict[str, int] = {}

    def clear(self) -> None:
        """Forget all of them."""
        self._waiting = []
        self.quota = {}

    def add(self, kind: str, details: dict[str, Any]) -> None:
        """Let a fault wait, as many times as its details say."""
        self._waiting += [(kind, details)] * details.get("times", 1)

    def take(self, kind: str, **facts: str) -> dict[str, Any] | None:
        """The details of a waiting fault that these facts match, used up once; None when there is none."""
        for fault in self._waiting:
            details = fault[1]
            asked = {name: value for name, value in facts.items() if name in details}
            if fault[0] == kind and all(str(details[name]).lower() == asked[name].lower() for name in asked):
                self._waiting.remove(fault)
                return details
        return None

    def check_machines(self, properties: Document) -> None:
        """Refuse a pool's virtual machines, or fail in setting them up, if that was ordered."""
        vm_size = properties["vmSize"]
        if (details := self.take("allocation", vm_size=vm_size)) is not None:
            raise refusal(details.get("code") or "ZonalAllocationFailed")
        if not sizes()[vm_size.lower()].nvidia or (properties.get("gpuProfile") or {}).get("driver") == "None":
            return
        if (details := self.take("gpu-driver", vm_size=vm_size)) is not None:
            raise refusal("driver_failed", exit_code=details.get("exit_code", 84))

    def check_request(self, method: str, name: str) -> None:
        """Refuse a request if that was ordered; ``name`` is what AKS calls its kind."""
        details = self.take("throttle", method=method)
        if details is not None:
            raise throttled(name, float(details.get("seconds", 1)))


def throttled(what: str, seconds: float) -> ArmError:
    """Too many requests of a kind."""
    wait = max(1, round(seconds))
    error = refusal("throttled", what=what, wait=wait)
    error.headers = {"Retry-After": str(wait)}
    return error


async def order(context: Context, kind: str, details: dict[str, Any]) -> str:
    """Order a fault, or do at once what does not wait; what was done, in words. Raises ArmError."""
    given = {name: value for name, value in details.items() if value is not None}
    if kind != "none":
        _check(kind, given)
    match kind:
        case "none":
            context.faults.clear()
            await _set_drivers(context, "", None)
        case "eviction":
            return f"evicted {await evict(context, given)}"
        case "gpu-driver" if "node" in given:
            if not await _set_drivers(context, given["node"], given.get("message", DRIVER_PROBLEM)):
                raise refusal("no_gpu_node", name=given["node"])
            return f"broke the driver of {given['node']}"
        case "quota":
            context.faults.quota[given.get("family", "cores").lower()] = given.get("limit", 0)
        case _:
            context.faults.add(kind, given)
    return "ordered"


def _check(kind: str, details: dict[str, Any]) -> None:
    """Refuse a fault that nobody knows, or that makes no sense."""
    schemas = table("fields")["faults"]
    fields = schemas.get(kind, {}).get("properties", {})
    if kind not in schemas or not details.keys() <= fields.keys():
        known = ", ".join(f"{name}({', '.join(schema['properties'])})" for name, schema in schemas.items())
        raise refusal("no_fault", fault=kind, fields=sorted(details.keys() - fields) or "nothing", known=known)
    try:
        require(schemas[kind], details)
    except WrongField as wrong:
        raise refusal("bad_fault", fault=kind, why=wrong) from None


async def _running(context: Context) -> AsyncIterator[tuple[Document, Document, Objects, Object]]:
    """Every node whose machine runs: cluster, pool, objects, node; the newest of a pool first."""
    for cluster in list(context.state.clusters.values()):
        if cluster["power"] != "Running":
            continue
        objects = await context.objects(cluster)
        for pool in list(cluster["pools"].values()):
            for node in reversed(await pool_nodes.of_pool(objects, pool)):
                if not pool_nodes.is_off(node):
                    yield cluster, pool, objects, node


async def _set_drivers(context: Context, name: str, problem: str | None) -> bool:
    """Break or mend the NVIDIA driver of a node, or of all; whether there was one."""
    found = False
    async for _, pool, objects, node in _running(context):
        metadata = node["metadata"]
        if pool_nodes.gpu_annotations(pool) and name in ("", metadata["name"]):
            found = True
            if metadata.get("annotations", {}).get(DRIVER_ANNOTATION) != problem:
                change = {"metadata": {"annotations": {DRIVER_ANNOTATION: problem}}}
                await objects.patch("nodes", metadata["name"], change)
    return found


async def evict(context: Context, details: dict[str, Any]) -> str:
    """Take one node of a spot pool away, as Azure does when it needs the capacity; its name.

    The node says so half a minute before, as AKS' problem detector has it say; then its machine goes, or only stops,
    as the pool's eviction policy says.

    Raises:
        ArmError: no cluster has such a node.
    """
    async for cluster, pool, objects, node in _running(context):
        properties = pool["properties"]
        name = str(node["metadata"]["name"])
        if properties["scaleSetPriority"] != "Spot" or pool["name"] != details.get("pool", pool["name"]):
            continue
        async with context.nodes_lock[cluster["id"]]:
            await _announce(objects, node)
            await asyncio.sleep(NOTICE_SECONDS * context.settings.time_scale)
            properties["count"] = max(0, properties["count"] - 1)
            context.save(cluster)
            await pool_nodes.leave(objects, name, deallocate=properties.get("scaleSetEvictionPolicy") == "Deallocate")
        return name
    raise refusal("no_spot_node")


async def _announce(objects: Objects, node: Object) -> None:
    """The condition and the event with which a node tells that it is about to be evicted."""
    now = datetime.now(UTC)
    message = (
        f"Preempt Scheduled: {now:%a, %d %b %Y %H:%M:%S} GMT. For more information, see "
        f"https://aka.ms/aks/scheduled-events. EventId: {str(uuid.uuid4()).upper()}"
    )
    told = {"type": "PreemptionScheduled", "status": "True", "reason": "SpotEvictionIncoming", "message": message}
    told |= dict.fromkeys(("lastHeartbeatTime", "lastTransitionTime"), f"{now:%Y-%m-%dT%H:%M:%SZ}")
    conditions = [*node["status"].get("conditions", []), told]
    await objects.patch("nodes", node["metadata"]["name"], {"status": {"conditions": conditions}}, subresource="status")
    await event_recorder.write_event(
        objects, "node-problem-detector", {**node, "kind": "Node"}, "Warning", "PreemptScheduled", message
    )
