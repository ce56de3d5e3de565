"""Clusters that Azure does not manage, so that the functions for Azure's clusters, and the notebooks, work on both.

Nothing is created, changed or deleted. Each function returns what exists, and a sentence for a warning.
"""

from __future__ import annotations

from aksgpu.azure.subscription import KubeconfigTarget
from aksgpu.cluster.cluster_model import Cluster
from aksgpu.cluster.credentials import from_kubeconfig
from aksgpu.cluster.node_pool_model import NodePool
from aksgpu.errors import InvalidInput
from aksgpu.kube.node_facts import Node, read, taint_text

__all__ = ["cluster_at", "gpu_pool", "not_deleted"]


def cluster_at(target: KubeconfigTarget, name: str) -> tuple[Cluster, str]:
    """Return the cluster of a kubeconfig, and a sentence that no cluster was created."""
    aks = from_kubeconfig(target.kubeconfig)
    return aks, (
        f"{aks.name} of {target.kubeconfig} is not managed through Azure; it is used as it is, "
        f"and no cluster {name!r} was created."
    )


def gpu_pool(aks: Cluster, name: str) -> tuple[NodePool, str]:
    """Return the cluster's GPU nodes as a pool, and a sentence that no pool was added.

    Raises:
        InvalidInput: the cluster has no GPU node.
    """
    nodes = [node for node in map(read, aks.kube.list("Node")) if node.gpu]
    if not nodes:
        raise InvalidInput(
            f"`aks` must have a GPU node or be managed through Azure, got {aks.name}, which has none and is not",
            hint="Add a GPU node with the tool that created the cluster. On a cluster for tests, "
            "capacity.advertise(aks, node, gpus=1) adds GPUs to the status of a node.",
        )
    return _as_pool(aks, nodes), (
        f"cluster {aks.name} is not managed through Azure; its {len(nodes)} GPU nodes are used as they are, "
        f"and no node pool {name!r} was added."
    )


def _as_pool(aks: Cluster, nodes: list[Node]) -> NodePool:
    taints = {taint_text(taint) for node in nodes for taint in node.taints}
    vm_sizes = {node.vm_size for node in nodes if node.vm_size}
    pools = {node.pool for node in nodes if node.pool}
    return NodePool(
        name=", ".join(sorted(pools)) or "none",
        cluster=aks.name,
        vm_size=", ".join(sorted(vm_sizes)) or "unknown size",
        count=len(nodes),
        state="not managed through Azure",
        taints=tuple(sorted(taints)),
    )


def not_deleted(aks: Cluster) -> str:
    """Return a sentence that nothing was deleted."""
    return f"cluster {aks.name} is not managed through Azure, so nothing was deleted"
