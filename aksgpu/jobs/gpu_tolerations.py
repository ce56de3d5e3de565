"""The tolerations that a Job's pods need to run on the cluster's GPU nodes."""

from __future__ import annotations

from aksgpu.errors import Forbidden
from aksgpu.kube import pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.node_facts import add_tolerations, read, tolerations

__all__ = ["tolerate_gpu_nodes"]


def tolerate_gpu_nodes(aks: HasKube, pod_spec: Object) -> None:
    """Add the tolerations for the taints of the cluster's GPU nodes to a pod's spec, if it asks for GPUs."""
    if not pod_facts.gpus(pod_spec):
        return
    try:
        nodes = aks.kube.list("Node", pick=read)
    except Forbidden:
        # A user with rights in one namespace only: without nodes, the documented taints are tolerated.
        nodes = []
    add_tolerations(pod_spec, tolerations(nodes))
