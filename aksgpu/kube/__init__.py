"""The Kubernetes API on plain dicts: get, list, watch, create, apply, patch, delete, and log streams.

aks.kube.list("Pod", "default")
"""

from __future__ import annotations

from aksgpu.kube.client import HasKube, Kind, Kube, Object

__all__ = ["HasKube", "Kind", "Kube", "Object"]


def __dir__() -> list[str]:
    return list(__all__)
