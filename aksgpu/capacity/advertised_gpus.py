"""GPUs that do not exist, written into a node's status for test clusters."""

from __future__ import annotations

from aksgpu.common.arguments import integer
from aksgpu.kube import path_names
from aksgpu.kube.client import HasKube
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.kube.node_facts import GPU

__all__ = ["advertise"]


def advertise(aks: HasKube, node: str, *, gpus: int = 1) -> None:
    """Write GPUs that do not exist into a node's status, as Kubernetes documents it for extended resources.

    This is for test clusters without a GPU (kind, k3d, minikube): pods that request a GPU are scheduled. A device
    plugin on the node overwrites the number. :func:`aksgpu.plugin.install` removes these GPUs before it installs a
    plugin, and :func:`aksgpu.plugin.status` reports them.

    Args:
        aks: the cluster.
        node: name of the node.
        gpus: number of GPUs; 0 removes them.

    Raises:
        InvalidInput: an argument is wrong.
        NotFound: the cluster has no such node.
        Forbidden: you may not change the status of nodes.

    Example:
        capacity.advertise(aks, "kind-control-plane", gpus=2)
    """
    check_cluster(aks)
    path_names.check_name("Node", node, "node")
    gpus = integer("gpus", gpus, 0, 10**9)
    resources = {GPU: str(gpus) if gpus else None}
    aks.kube.patch("Node", node, {"status": {"capacity": resources, "allocatable": resources}}, subresource="status")
