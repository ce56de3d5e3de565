"""Clusters and their node pools: create, scale, stop, reach and delete them, and find what still costs money.

    aks = cluster.create(azure, "myAKSCluster", resource_group="myResourceGroup", location="eastus")
    cluster.add_gpu_pool(aks, "gpunp", vm_size="Standard_NC4as_T4_v3", count=1)
    ...
    cluster.delete(aks)
    cluster.leftovers(azure)

Every call may be repeated. It shows its progress, has a timeout, and waits for an operation that an earlier call
began. The other modules take a :class:`Cluster` as their first argument.
"""

from __future__ import annotations

from collections.abc import Iterable

from aksgpu.cluster.cluster_model import Cluster
from aksgpu.cluster.clusters import abort, create, get, start, stop
from aksgpu.cluster.clusters import list_clusters as list
from aksgpu.cluster.credentials import from_kubeconfig, get_credentials, kubeconfig
from aksgpu.cluster.leftover_resources import Deletion, delete, leftovers
from aksgpu.cluster.node_pool_model import NodePool, list_pools, usd_per_hour
from aksgpu.cluster.node_pools import add_gpu_pool, delete_pool, get_pool, scale_pool, start_pool, stop_pool
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
    "get_pool",
    "kubeconfig",
    "leftovers",
    "list",
    "list_pools",
    "scale_pool",
    "start",
    "start_pool",
    "stop",
    "stop_pool",
    "temporary",
    "usd_per_hour",
]


def __dir__() -> Iterable[str]:
    return __all__
