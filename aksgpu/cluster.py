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

from aksgpu._azure.clusters import abort, create, get, start, stop
from aksgpu._azure.clusters import list_clusters as list
from aksgpu._azure.credentials import from_kubeconfig, get_credentials, kubeconfig
from aksgpu._azure.handle import Cluster
from aksgpu._azure.leftovers import Deletion, delete, leftovers
from aksgpu._azure.nodepool import NodePool, pools
from aksgpu._azure.pools import add_gpu_pool, delete_pool, scale, start_pool, stop_pool
from aksgpu._azure.temporary import temporary

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
