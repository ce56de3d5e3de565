"""Long-running operations: started by a request handler, run in the background, polled by the client.

An operation is a document with the kind of the work and the cluster. The work moves the cluster towards the state in
the cluster's own document, so an operation that was interrupted by the end of the process can be run again. As in AKS,
one operation runs on a cluster at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aksgpu.local.arm.arm_errors import ArmError
from aksgpu.local.arm.arm_store import Document, State
from aksgpu.local.arm.faults import Faults
from aksgpu.local.arm.resource_ids import cluster_key

log = logging.getLogger(__name__)

KEPT_SECONDS = 24 * 3600.0
"""Time for which an operation that has ended can be polled."""
MAX_POLL_MILLISECONDS = 1000
MIN_POLL_MILLISECONDS = 50


@dataclass(frozen=True)
class OperationKind:
    """A kind of operation.

    Attributes:
        work: the function that does the work of one operation.
        seconds: its duration, before the laptop's time scale.
        state: the provisioning state of the cluster while it runs.
    """

    work: Callable[[Document], Awaitable[None]]
    seconds: float
    state: str = "Updating"


def now() -> str:
    """Return the current time in Azure's format."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Operations:
    """The operations of a subscription.

    Args:
        state: the stored documents.
        faults: the injected faults.
        time_scale: multiplies the duration of every operation.

    Attributes:
        kinds: the kinds of operation by name. :mod:`aksgpu.local.arm.operation_steps` provides them; they must be set
            before the first operation starts.
    """

    def __init__(self, state: State, faults: Faults, time_scale: float) -> None:
        self._state = state
        self._faults = faults
        self._time_scale = time_scale
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.kinds: Mapping[str, OperationKind] = {}

    def resume(self) -> None:
        """Run the operations that an earlier process left unfinished, and remove those that ended long ago."""
        oldest = time.time() - KEPT_SECONDS
        stale = [key for key, found in self._state.operations.items() if found["ended"] and found["ended"] < oldest]
        for key in stale:
            del self._state.operations[key]
        self._state.save(*(("operations", key) for key in stale))
        for operation in self._state.operations.values():
            if operation["status"] == "InProgress":
                self._start_task(operation)

    async def stop(self) -> None:
        """Interrupt the operations. :meth:`resume` continues them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def start(self, kind: str, location: str, cluster: Document | None = None, **fields: Any) -> Document:
        """Save an operation together with the documents that it changes, and start it.

        Args:
            kind: a key of the table of operation kinds.
            location: the region; it is part of the operation's address.
            cluster: the cluster that it changes, which must have no other operation in progress.
            **fields: further fields of the operation: ``pool`` (a name), ``group`` (a key), and what its kind needs.
        """
        slow = self._faults.take("slow")
        factor = float(slow.get("factor", 10)) if slow is not None else 1.0
        # Only operations on a cluster get stuck, because others cannot be aborted.
        stuck = cluster is not None and self._faults.take("stuck") is not None
        operation: Document = {
            "id": str(uuid.uuid4()),
            "kind": kind,
            "cluster": cluster_key(cluster["group"], cluster["name"]) if cluster else "",
            "pool": "",
            "group": "",
            "location": location,
            "seconds": self.kinds[kind].seconds * factor * self._time_scale,
            "status": "InProgress",
            "startTime": now(),
            "begun": time.time(),
            "ended": None,
            "stuck": stuck,
            **fields,
        }
        self._state.operations[operation["id"]] = operation
        if cluster:
            cluster["operation"] = operation["id"]
            cluster["state"] = self.kinds[kind].state
        self._save(operation)
        self._start_task(operation)
        return operation

    def get_running(self, cluster: Document) -> Document | None:
        """Return the operation that is in progress on a cluster, or None."""
        found = self._state.operations.get(cluster.get("operation") or "")
        return found if found and found["status"] == "InProgress" else None

    async def cancel(self, operation: Document) -> None:
        """End an operation as ``Canceled``. Its changes so far are kept."""
        task = self._tasks.get(operation["id"])
        self._end(operation, "Canceled", {"code": "Canceled", "message": "The operation was canceled."})
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def retry_after(self, operation: Document) -> dict[str, str]:
        """Return the header that says when to poll again.

        ``Retry-After`` is in whole seconds. Clients that support both headers prefer it to ``retry-after-ms``, so only
        one of them is sent: ``retry-after-ms`` when the operation is nearly done.
        """
        remaining = operation["begun"] + operation["seconds"] - time.time()
        milliseconds = max(MIN_POLL_MILLISECONDS, int(remaining * 500))
        if milliseconds >= MAX_POLL_MILLISECONDS:
            return {"Retry-After": "1"}
        return {"retry-after-ms": str(milliseconds)}

    def _start_task(self, operation: Document) -> None:
        task = asyncio.create_task(self._run(operation), name=f"{operation['kind']} {operation['id']}")
        self._tasks[operation["id"]] = task
        task.add_done_callback(lambda _: self._tasks.pop(operation["id"], None))

    async def _run(self, operation: Document) -> None:
        if operation.get("stuck"):
            return  # it stays in progress until it is aborted
        try:
            await self.kinds[operation["kind"]].work(operation)
        except ArmError as error:
            self._end(operation, "Failed", {"code": error.code, "message": error.message})
        except Exception as error:
            log.exception("operation %s %s failed", operation["kind"], operation["id"])
            self._end(operation, "Failed", {"code": "InternalServerError", "message": f"{error}"})
        else:
            self._end(operation, "Succeeded")

    def _end(self, operation: Document, status: str, error: Any = None) -> None:
        """Save the outcome of an operation in the operation, the cluster and the pool."""
        if operation["status"] != "InProgress":
            return
        operation |= {"status": status, "endTime": now(), "ended": time.time()}
        if error:
            operation["error"] = error
        cluster = self._state.clusters.get(operation["cluster"])
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
        """Write an operation and the documents that it changes in one transaction."""
        changed = [("operations", operation["id"])]
        if operation["cluster"]:
            changed.append(("clusters", operation["cluster"]))
        if operation["group"]:
            changed.append(("groups", operation["group"]))
        self._state.save(*changed)
