"""Long-running operations: begun by a handler, driven in the background, asked about by the client.

An operation is a document that says what is to be done to which cluster; :mod:`aksgpu.local.arm.operation_steps`
does it. Since
the work only ever moves a cluster towards what its document says, an operation that a killed process left behind is
simply driven again. One operation runs on a cluster at a time, as in AKS.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from aksgpu.local.arm.arm_errors import ArmError, refusal
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import Answer, Call, Context, cluster_key, operation_place
from aksgpu.local.arm.operation_steps import KINDS

log = logging.getLogger(__name__)

KEPT_SECONDS = 24 * 3600.0
LARGEST_WAIT_MS = 1000
SMALLEST_WAIT_MS = 50


def now() -> str:
    """The time, as Azure writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Operations:
    """The operations of a subscription.

    Args:
        context: the subscription.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def resume(self) -> None:
        """Drive what an earlier process left, and forget what is long done."""
        state = self._context.state
        old = time.time() - KEPT_SECONDS
        stale = [key for key, found in state.operations.items() if found["ended"] and found["ended"] < old]
        for key in stale:
            del state.operations[key]
        state.save(*(("operations", key) for key in stale))
        for operation in state.operations.values():
            if operation["status"] == "InProgress":
                self._drive(operation)

    async def stop(self) -> None:
        """Leave every operation where it is; :meth:`resume` goes on with it."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def begin(self, kind: str, location: str, cluster: Document | None = None, **about: Any) -> Document:
        """Write an operation down together with what it is about, and start it.

        Args:
            kind: a key of :data:`~aksgpu.local.arm.operation_steps.KINDS`.
            location: the region, part of the operation's address.
            cluster: the cluster it is about; it becomes that cluster's one operation.
            **about: the name of the pool, the key of the resource group, and what its kind needs beside.
        """
        state = self._context.state
        faults = self._context.faults
        slow = faults.take("slow")
        factor = float(slow.get("factor", 10)) if slow is not None else 1.0
        operation: Document = {
            "id": str(uuid.uuid4()),
            "kind": kind,
            "cluster": cluster_key(cluster["group"], cluster["name"]) if cluster else "",
            "pool": "",
            "group": "",
            "location": location,
            "seconds": KINDS[kind].seconds * factor * self._context.settings.time_scale,
            "status": "InProgress",
            "startTime": now(),
            "begun": time.time(),
            "ended": None,
            # Only where it can be aborted.
            "stuck": cluster is not None and faults.take("stuck") is not None,
            **about,
        }
        state.operations[operation["id"]] = operation
        if cluster:
            cluster["operation"], cluster["state"] = operation["id"], KINDS[kind].state
        self._save(operation)
        self._drive(operation)
        return operation

    def running(self, cluster: Document) -> Document | None:
        """The operation that runs on this cluster, if any."""
        found = self._context.state.operations.get(cluster.get("operation") or "")
        return found if found and found["status"] == "InProgress" else None

    async def cancel(self, operation: Document) -> None:
        """End an operation as ``Canceled``; what it did so far stays."""
        task = self._tasks.get(operation["id"])
        self._end(operation, "Canceled", {"code": "Canceled", "message": "The operation was canceled."})
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def patience(self, operation: Document) -> dict[str, str]:
        """The header that says when to ask again.

        Clients that know ``Retry-After`` prefer it, and it counts whole seconds; an operation that is nearly done is
        worth asking about sooner, which ``retry-after-ms`` says.
        """
        left = operation["begun"] + operation["seconds"] - time.time()
        milliseconds = max(SMALLEST_WAIT_MS, int(left * 500))
        if milliseconds >= LARGEST_WAIT_MS:
            return {"Retry-After": "1"}
        return {"retry-after-ms": str(milliseconds)}

    def _drive(self, operation: Document) -> None:
        task = asyncio.create_task(self._run(operation), name=f"{operation['kind']} {operation['id']}")
        self._tasks[operation["id"]] = task
        task.add_done_callback(lambda _: self._tasks.pop(operation["id"], None))

    async def _run(self, operation: Document) -> None:
        if operation.get("stuck"):
            return  # as if nobody worked on it: it is in progress until it is aborted
        try:
            await KINDS[operation["kind"]].work(self._context, operation)
        except ArmError as error:
            self._end(operation, "Failed", {"code": error.code, "message": error.message})
        except Exception as error:
            log.exception("operation %s %s failed", operation["kind"], operation["id"])
            self._end(operation, "Failed", {"code": "InternalServerError", "message": f"{error}"})
        else:
            self._end(operation, "Succeeded")

    def _end(self, operation: Document, status: str, error: Any = None) -> None:
        """Write the outcome down, with what it means for the cluster and the pool."""
        if operation["status"] != "InProgress":
            return
        operation.update(status=status, endTime=now(), ended=time.time(), **({"error": error} if error else {}))
        cluster = self._context.state.clusters.get(operation["cluster"])
        if cluster is not None:
            cluster["operation"] = None
            cluster["state"] = status
            cluster["error"] = error
            for name, pool in cluster["pools"].items():
                if operation["pool"] in ("", name):
                    pool["state"] = status
                if operation["pool"] == name:
                    pool["error"] = error
        self._save(operation)

    def _save(self, operation: Document) -> None:
        """Write an operation with what it is about, in one transaction."""
        about = [(f"{kind}s", operation[kind]) for kind in ("cluster", "group") if operation[kind]]
        self._context.state.save(("operations", operation["id"]), *about)


def get_status(context: Context, call: Call) -> Answer:
    """``GET .../operations/{operation}``."""
    operation = _find(context, call)
    shown = {key: operation[key] for key in ("status", "startTime", "endTime", "error") if key in operation}
    identity = f"{operation_place(operation)}/operations/{operation['id']}"
    waiting = context.operations.patience(operation) if operation["status"] == "InProgress" else {}
    return Answer(200, {"id": identity, "name": operation["id"], **shown}, waiting)


def get_result(context: Context, call: Call) -> Answer:
    """``GET .../operationresults/{operation}``: 202 while it runs, then 204, or the error."""
    operation = _find(context, call)
    if operation["status"] == "InProgress":
        address = f"{call.base_url}{call.path['raw']}"
        return Answer(202, None, {"Location": address, **context.operations.patience(operation)})
    if operation["status"] != "Succeeded":
        return Answer(409, {"error": operation["error"]})
    return Answer(204)


def _find(context: Context, call: Call) -> Document:
    operation = context.state.operations.get(call.path["operation"].lower())
    if operation is None:
        raise refusal("no_operation", name=call.path["operation"])
    return operation
