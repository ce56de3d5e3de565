"""What a Job needs to know of the cluster's GPU nodes: the taints to tolerate, and the cores and memory per GPU."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from aksgpu.common import quantities
from aksgpu.errors import Forbidden
from aksgpu.kube import pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.node_facts import GPU, Node, add_tolerations, read, tolerations

__all__ = ["NodeFacts", "node_share", "read_nodes", "tolerate_gpu_nodes"]

_PART = Decimal("0.75")
"""Part of a node's share that is reserved for a program. DaemonSets and the sidecar need the rest."""


class NodeFacts(NamedTuple):
    """What is kept of a node."""

    node: Node
    cores: Decimal
    """Allocatable cores; 0 if the node does not report them."""
    memory: Decimal
    """Allocatable memory in bytes; 0 if the node does not report it."""


def read_nodes(aks: HasKube) -> list[NodeFacts] | None:
    """Return the cluster's nodes; None if the user may not list them, as with rights in one namespace only."""
    try:
        return aks.kube.list("Node", pick=_facts)
    except Forbidden:
        return None


def _facts(node: Object) -> NodeFacts:
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    return NodeFacts(
        read(node),
        quantities.parse(str(allocatable.get("cpu") or "0")),
        quantities.parse(str(allocatable.get("memory") or "0")),
    )


def tolerate_gpu_nodes(pod_spec: Object, nodes: list[NodeFacts] | None) -> None:
    """Add the tolerations for the taints of the cluster's GPU nodes to a pod's spec, if it asks for GPUs.

    Args:
        pod_spec: the pod's spec.
        nodes: the cluster's nodes; None tolerates the documented taints.
    """
    if pod_facts.gpus(pod_spec):
        add_tolerations(pod_spec, tolerations([facts.node for facts in nodes or ()]))


def node_share(nodes: list[NodeFacts] | None, gpus: int) -> tuple[str, str]:
    """Return the cores and the memory that belong to some GPUs of a node, as quantities.

    Args:
        nodes: the cluster's nodes. The smallest share of those with enough GPUs counts.
        gpus: number of GPUs of the pod.

    Returns:
        Two quantities; both empty if no node is known or no GPU is asked for.
    """
    shares = []
    for facts in nodes or ():
        count = facts.node.allocatable.get(GPU, 0)
        if gpus and count >= gpus and facts.cores and facts.memory:
            part = _PART * gpus / count
            shares.append((facts.cores * part, facts.memory * part))
    if not shares:
        return "", ""
    cores = min(cores for cores, _ in shares)
    memory = min(memory for _, memory in shares)
    return f"{int(cores * 1000)}m", f"{int(memory / 2**20)}Mi"
