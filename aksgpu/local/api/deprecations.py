"""Warnings about fields that have lost their effect in Kubernetes itself."""

from __future__ import annotations

from aksgpu.local.kinds import Kind
from aksgpu.local.objects import Object
from aksgpu.local.selectors import get_path

__all__ = ["warnings"]

_CRITICAL = "scheduler.alpha.kubernetes.io/critical-pod"
"""An annotation in manifests from before 2020, such as older ones of NVIDIA's device plugin."""
_POD_METADATA = {"pods": "metadata", "daemonsets": "spec.template.metadata", "jobs": "spec.template.metadata"}


def warnings(kind: Kind, obj: Object) -> list[str]:
    """Return the warnings about a new or changed object."""
    path = _POD_METADATA.get(kind.plural)
    if path is None or _CRITICAL not in (get_path(obj, f"{path}.annotations") or {}):
        return []
    return [f'{path}.annotations[{_CRITICAL}]: non-functional in v1.16+; use the "priorityClassName" field instead']
