"""How many nodes and node pools are ready while an operation runs, for the progress bar.

Another module follows the operation itself, so the functions here return an empty string if a read fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aksgpu.azure.throttling import limit
from aksgpu.cluster.cluster_model import Cluster
from aksgpu.errors import AksGpuError
from aksgpu.kube.node_facts import read as read_node

__all__ = ["PoolNodes", "pools_ready"]

_READ_TIMEOUT = 5.0
"""Seconds for one read. The operation is followed at the same time."""


def pools_ready(read: Callable[[], Mapping[str, Any] | None]) -> str:
    """Return how many node pools of a cluster are ready, such as ``node pools ready 0/1``.

    Args:
        read: reads the cluster.
    """
    try:
        with limit(_READ_TIMEOUT):
            found = read() or {}
    except AksGpuError:
        return ""
    profiles = (found.get("properties") or {}).get("agentPoolProfiles") or ()
    if not profiles:
        return ""
    ready = [profile for profile in profiles if profile.get("provisioningState") == "Succeeded"]
    return f"node pools ready {len(ready)}/{len(profiles)}"


class PoolNodes:
    """The nodes of one pool in Kubernetes.

    Args:
        aks: the cluster. If its API is private or restricted, it is not read, because a timeout would delay the wait.
        pool: name of the pool.
    """

    def __init__(self, aks: Cluster, pool: str) -> None:
        self._aks = aks
        self._pool = pool
        self._is_readable = not aks.access

    def ready(self, wanted: int) -> str:
        """Return how many nodes are ready, such as ``nodes ready 0/1``."""
        nodes = self._list()
        return "" if nodes is None else f"nodes ready {sum(nodes)}/{wanted}"

    def left(self) -> str:
        """Return how many nodes are left, such as ``nodes left 1``."""
        nodes = self._list()
        return "" if nodes is None else f"nodes left {len(nodes)}"

    def _list(self) -> list[bool] | None:
        """Return for each node whether it is ready; None if the nodes cannot be read."""
        if not self._is_readable:
            return None
        try:
            with limit(_READ_TIMEOUT):
                nodes = self._aks.kube.list("Node", label_selector=f"agentpool={self._pool}")
        except AksGpuError:
            self._is_readable = False
            return None
        return [read_node(node).ready for node in nodes]
