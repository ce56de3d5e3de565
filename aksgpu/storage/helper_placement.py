"""The nodes on which the helper pod of a claim should run.

A disk is created in the zone of its first pod, and can then be used in that zone only. So the helper pod runs in a zone
with GPU nodes. It asks for no GPU, and prefers other nodes of the zone.
"""

from __future__ import annotations

from aksgpu.azure.throttling import limit
from aksgpu.cluster.cluster_model import Cluster
from aksgpu.cluster.node_pool_model import read_pools
from aksgpu.common.kubernetes_objects import Object
from aksgpu.common.notices import warn
from aksgpu.errors import AzureError, Forbidden
from aksgpu.kube import node_facts
from aksgpu.kube.client import HasKube
from aksgpu.kube.node_facts import Node
from aksgpu.storage.claims import pods_using

__all__ = ["place"]

_ZONE = "topology.kubernetes.io/zone"
_POOL = "kubernetes.azure.com/agentpool"
_READING_POOLS = 20.0
"""Seconds that reading the node pools may take."""
_PREFERENCE = 100
"""The strongest preference that Kubernetes knows."""


def place(aks: HasKube, spec: Object, claim: Object, *, shared: bool) -> None:
    """Add to the helper pod's spec what restricts it to suitable nodes.

    Args:
        aks: the cluster.
        spec: the pod's spec, which is changed.
        claim: the PersistentVolumeClaim.
        shared: whether any node can use the claim.
    """
    metadata = claim["metadata"]
    is_new = (claim.get("status") or {}).get("phase") != "Bound"
    nodes = _nodes(aks)
    node_facts.add_tolerations(spec, node_facts.tolerations(nodes or ()))
    affinity: Object = {}
    gpu_pools = sorted({node.pool for node in nodes or () if node.gpu and node.pool})
    if gpu_pools:
        others = {"matchExpressions": [{"key": _POOL, "operator": "NotIn", "values": gpu_pools}]}
        preferred = {"weight": _PREFERENCE, "preference": others}
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = [preferred]
    required = None
    if not shared:
        required = _same_node(aks, metadata["name"], metadata["namespace"])
        if required is None and is_new:
            required = _same_zone(aks, nodes, metadata["name"])
    if required is not None:
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [required]}
    if affinity:
        spec["affinity"] = {"nodeAffinity": affinity}


def _nodes(aks: HasKube) -> list[Node] | None:
    """Return the cluster's nodes; None if the user may not list them."""
    try:
        return aks.kube.list("Node", pick=node_facts.read)
    except Forbidden:
        return None


def _same_node(aks: HasKube, name: str, namespace: str) -> Object | None:
    """Return the term for the node on which pods use the claim now; None if no pod does."""
    for pod in pods_using(aks, name, namespace):
        node = pod["spec"].get("nodeName")
        if node:
            return {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    return None


def _same_zone(aks: HasKube, nodes: list[Node] | None, name: str) -> Object | None:
    """Return the term for the zones of the GPU nodes; None if they are not known."""
    zones = sorted({node.labels[_ZONE] for node in nodes or () if node.gpu and node.labels.get(_ZONE)})
    if not zones:
        zones = _zones_of_pools(aks)
    if not zones and nodes is None:
        warn(
            f"You may not list the cluster's nodes, so the disk of claim {name!r} is made in any zone. "
            "GPU nodes of another zone cannot use it."
        )
    if not zones:
        return None
    return {"matchExpressions": [{"key": _ZONE, "operator": "In", "values": zones}]}


def _zones_of_pools(aks: HasKube) -> list[str]:
    """Return the zones of the GPU node pools, as nodes have them in a label; empty if they are not known."""
    if not isinstance(aks, Cluster) or not aks.has_azure:
        return []
    try:
        with limit(_READING_POOLS, "reading node pools"):
            pools = read_pools(aks)
    except AzureError:
        return []
    zones = {zone for pool in pools if pool.gpu_model for zone in pool.zones}
    return sorted(f"{aks.location}-{zone}" for zone in zones)
