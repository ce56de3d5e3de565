"""Injected faults that have not happened yet.

A fault is removed when it happens. All faults are forgotten when the process ends.
"""

from __future__ import annotations

from typing import Any

from aksgpu.local.arm.arm_errors import ArmError, refusal
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.reference_data import sizes


class Faults:
    """The faults that have been injected and have not happened yet.

    Attributes:
        quota: by family in lower case, the vCPU limit that replaces the usual one.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[str, dict[str, Any]]] = []
        self.quota: dict[str, int] = {}

    def clear(self) -> None:
        """Forget all faults."""
        self._pending = []
        self.quota = {}

    def add(self, kind: str, details: dict[str, Any]) -> None:
        """Add a fault. It happens as many times as ``details["times"]`` says, once by default."""
        self._pending += [(kind, details)] * details.get("times", 1)

    def take(self, kind: str, **facts: str) -> dict[str, Any] | None:
        """Remove a fault of this kind whose details match the facts. Return its details, or None if there is none."""
        for fault in self._pending:
            details = fault[1]
            compared = {name: value for name, value in facts.items() if name in details}
            matches = all(str(details[name]).lower() == value.lower() for name, value in compared.items())
            if fault[0] == kind and matches:
                self._pending.remove(fault)
                return details
        return None

    def check_machines(self, properties: Document) -> None:
        """Raise ArmError if a fault concerns the virtual machines of a pool, or their GPU drivers."""
        vm_size = properties["vmSize"]
        allocation = self.take("allocation", vm_size=vm_size)
        if allocation is not None:
            raise refusal(allocation.get("code") or "ZonalAllocationFailed")
        if not sizes()[vm_size.lower()].nvidia or (properties.get("gpuProfile") or {}).get("driver") == "None":
            return
        driver = self.take("gpu-driver", vm_size=vm_size)
        if driver is not None:
            raise refusal("driver_failed", exit_code=driver.get("exit_code", 84))

    def check_request(self, method: str, name: str) -> None:
        """Raise ArmError if a fault throttles this request. ``name`` is AKS' name of the request's kind."""
        details = self.take("throttle", method=method)
        if details is not None:
            raise throttled(name, float(details.get("seconds", 1)))


def throttled(name: str, seconds: float) -> ArmError:
    """Return the 429 for too many requests of a kind.

    Args:
        name: AKS' name of the kind of request.
        seconds: the time that the client should wait.
    """
    wait = max(1, round(seconds))
    error = refusal("throttled", what=name, wait=wait)
    error.headers = {"Retry-After": str(wait)}
    return error
