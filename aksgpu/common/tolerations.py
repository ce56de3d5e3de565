"""Matching of tolerations against taints, by the rules of the Kubernetes scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["matches", "tolerates"]


def matches(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Return whether one toleration matches a taint.

    A toleration without an effect matches every effect. One without a key matches every taint if its operator is
    ``Exists``, and none otherwise.
    """
    for field in ("effect", "key"):
        wanted = toleration.get(field)
        if wanted and wanted != taint.get(field):
            return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


def tolerates(tolerations: Iterable[Mapping[str, Any]], taint: Mapping[str, Any]) -> bool:
    """Return whether any of a pod's tolerations matches a taint."""
    return any(matches(toleration, taint) for toleration in tolerations)
