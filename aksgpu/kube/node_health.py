"""The health of a node's GPUs, from the conditions that AKS' node problem detector writes. Sends no requests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from aksgpu.common.kubernetes_objects import Object

__all__ = ["GpuHealth", "concerns_gpus", "gpu_health"]

_GPU = re.compile(
    r"gpu|nvlink|xid|nvidia|dcgm|ib_?link|infiniband|grid_?licen|(?:^|unhealthy|missing|invalid|expired)grid|\becc",
    re.I,
)
"""Words in the types of conditions about GPUs."""
_GOOD = re.compile(r"(?:(?<!not)ready|(?<!un)healthy|(?<!un)available)$", re.I)
"""Ends of the types of conditions whose status True is not a problem."""


@dataclass(frozen=True)
class GpuHealth:
    """The health of a node's GPUs.

    Attributes:
        problems: conditions with the status True, each with its message, such as ``GPUMissing: 1 GPU is missing``.
        unknown: types of the conditions whose check has no result yet.
        checked: whether the node has conditions about GPUs at all.
    """

    problems: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    checked: bool = False

    @property
    def state(self) -> str:
        """``healthy``, ``unhealthy`` or ``unknown``; empty if the node has no conditions about GPUs."""
        if self.problems:
            return "unhealthy"
        if self.unknown:
            return "unknown"
        return "healthy" if self.checked else ""

    @property
    def text(self) -> str:
        """The problems and the checks without a result, as text; empty if there are none."""
        parts = list(self.problems)
        if self.unknown:
            parts.append(f"no result yet: {', '.join(self.unknown)}")
        return "; ".join(parts)


def concerns_gpus(condition: str) -> bool:
    """Return whether conditions of a type report problems of GPUs, of the links between them, or of InfiniBand.

    Args:
        condition: the type, such as ``GPUMissing``, ``XIDErrors`` or ``UnhealthyNvidiaDevicePlugin``.
    """
    return _GPU.search(condition) is not None and _GOOD.search(condition) is None


def gpu_health(conditions: Iterable[Object]) -> GpuHealth:
    """Return the health of a node's GPUs from the node's conditions."""
    about_gpus = [each for each in conditions if concerns_gpus(str(each.get("type") or ""))]
    problems = tuple(_text(each) for each in about_gpus if each.get("status") == "True")
    unknown = tuple(str(each["type"]) for each in about_gpus if each.get("status") not in ("True", "False"))
    return GpuHealth(problems, unknown, bool(about_gpus))


def _text(condition: Object) -> str:
    message = condition.get("message") or condition.get("reason") or ""
    return f"{condition['type']}: {message}" if message else str(condition["type"])
