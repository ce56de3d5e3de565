"""Clusters that Azure does not manage, in the calls for Azure's clusters, so that a notebook runs on both.

Nothing is created, changed or deleted. Each function returns what is there and a sentence that says so.
"""

from __future__ import annotations

from aksgpu.azure.subscription import KubeconfigTarget
from aksgpu.cluster.cluster_model import Cluster
from aksgpu.cluster.credentials import from_kubeconfig
from aksgpu.cluster.node_pool_model import NodePool
from aksgpu.errors import InvalidInput
from aksgpu.kube.node_facts import Node, read, taint_text


def cluster_at(target: KubeconfigTarget, name: str) -> tuple[Cluster, str]:
    """The cluster of a kubeconfig, and a sentence that says that nothing was created."""
    aks = from_kubeconfig(target.kubeconfig)
    said = f"{aks.name} of {target.kubeconfig} is not managed through Azure; it is used as it is, and no cluster "
    return aks, f"{said}{name!r} was created."


def gpu_pool(aks: Cluster, name: str) -> tuple[NodePool, str]:
    """The GPU nodes that the cluster has, as if they were a pool, and a sentence that says that none was added.

    Raises:
        InvalidInput: it has no GPU node.
    """
    nodes = [node for node in map(read, aks.kube.list("Node")) if node.gpu]
    if not nodes:
        raise InvalidInput(
            f"cluster {aks.name} is not managed through Azure, so no node pool can be added, and no node has a GPU",
            hint="Add a GPU node where the cluster was made. On a cluster for tests, "
            "capacity.advertise(aks, node, gpus=1) lets a node offer GPUs that are not there.",
        )
    said = f"cluster {aks.name} is not managed through Azure; its {len(nodes)} GPU nodes are used as they are, and no "
    return _as_pool(aks, nodes), f"{said}node pool {name!r} was added."


def _as_pool(aks: Cluster, nodes: list[Node]) -> NodePool:
    taints = {taint_text(taint) for node in nodes for taint in node.taints}
    sizes = {node.vm_size for node in nodes if node.vm_size}
    pools = {node.pool for node in nodes if node.pool}
    return NodePool(
        name=", ".join(sorted(pools)) or "none",
        cluster=aks.name,
        vm_size=", ".join(sorted(sizes)) or "unknown size",
        count=len(nodes),
        state="not managed through Azure",
        taints=tuple(sorted(taints)),
    )


def not_deleted(aks: Cluster) -> str:
    """A sentence that says that nothing was deleted."""
    return f"cluster {aks.name} is not managed through Azure, so nothing of it was deleted"
