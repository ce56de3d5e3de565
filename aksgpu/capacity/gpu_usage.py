"""The GPUs that pods use, by node and by namespace."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from aksgpu.errors import Forbidden
from aksgpu.kube import pod_facts
from aksgpu.kube.client import HasKube
from aksgpu.kube.cluster_argument import check_cluster

__all__ = ["Usage", "holders", "usage", "usage_or_none"]

_ON_NODES = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
"""Field selector for pods that use resources of a node."""


@dataclass(frozen=True)
class Usage:
    """GPUs in use on one node.

    Attributes:
        taken: number of GPUs by resource name.
        by: for each resource name, number of GPUs by user (``namespace/name`` of a Job or pod).
    """

    taken: Counter[str] = field(default_factory=Counter)
    by: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


def holders(use: Usage, resource: str) -> str:
    """Return the users of a node's GPUs as text: ``default/train, default/sweep (2)``."""
    texts = []
    for name, count in sorted(use.by[resource].items()):
        texts.append(name if count == 1 else f"{name} ({count})")
    return ", ".join(texts)


def usage(aks: HasKube) -> dict[str, Usage]:
    """Return the GPUs in use by node. Nodes without GPUs in use are omitted.

    Args:
        aks: the cluster.

    Raises:
        InvalidInput: ``aks`` is not a cluster.
        Forbidden: you may not list the pods of all namespaces.
    """
    check_cluster(aks)
    using: defaultdict[str, Usage] = defaultdict(Usage)
    for node, owner, wants in aks.kube.list("Pod", all_namespaces=True, field_selector=_ON_NODES, pick=_picked):
        for resource, count in wants.items():
            using[node].taken[resource] += count
            using[node].by[resource][owner] += count
    return dict(using)


def _picked(pod: dict[str, Any]) -> tuple[str, str, dict[str, int]]:
    return pod["spec"]["nodeName"], pod_facts.owner(pod), pod_facts.gpus(pod["spec"])


def usage_or_none(aks: HasKube) -> dict[str, Usage] | None:
    """Return the GPUs in use by node; None if the user may not list the pods of all namespaces."""
    try:
        return usage(aks)
    except Forbidden:
        return None
