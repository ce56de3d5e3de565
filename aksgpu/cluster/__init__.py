"""Clusters and their node pools: created, scaled, stopped, reached, deleted; and what still costs money.

    aks = cluster.create(azure, "myAKSCluster", resource_group="myResourceGroup", location="eastus")
    cluster.add_gpu_pool(aks, "gpunp", vm_size="Standard_NC4as_T4_v3", count=1)
    ...
    cluster.delete(aks)
    cluster.leftovers(azure)

Every call is safe to run twice, waits with progress, and goes on waiting for what an earlier call began. What runs in
the cluster is the other rooms' business: they take a :class:`Cluster` and use its ``kube``.
"""

from __future__ import annotations

from aksgpu.cluster.cluster_model import Cluster
from aksgpu.cluster.clusters import abort, create, get, start, stop
from aksgpu.cluster.clusters import list_clusters as list
from aksgpu.cluster.credentials import from_kubeconfig, get_credentials, kubeconfig
from aksgpu.cluster.leftover_resources import Deletion, delete, leftovers
from aksgpu.cluster.node_pool_model import NodePool, pools
from aksgpu.cluster.node_pools import add_gpu_pool, delete_pool, scale, start_pool, stop_pool
from aksgpu.cluster.temporary_clusters import temporary

__all__ = [
    "Cluster",
    "Deletion",
    "NodePool",
    "abort",
    "add_gpu_pool",
    "create",
    "delete",
    "delete_pool",
    "from_kubeconfig",
    "get",
    "get_credentials",
    "kubeconfig",
    "leftovers",
    "list",
    "pools",
    "scale",
    "start",
    "start_pool",
    "stop",
    "stop_pool",
    "temporary",
]
