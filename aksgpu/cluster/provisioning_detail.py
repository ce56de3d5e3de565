"""What a running operation still waits for, in words, for the progress bar: nodes and node pools that are not ready.

Company only: the operation itself is followed elsewhere, so whatever cannot be read here is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aksgpu.azure.throttling import limit
from aksgpu.cluster.cluster_model import Cluster
from aksgpu.errors import AksGpuError
from aksgpu.kube.node_facts import read as read_node

_LOOK = 5.0
"""Seconds that one look at a pool's nodes may take; the operation is followed elsewhere meanwhile."""


def pools_ready(read: Callable[[], Mapping[str, Any] | None]) -> str:
    """How many node pools of a cluster are ready, such as ``node pools ready 0/1``.

    Args:
        read: reads the cluster.
    """
    try:
        with limit(_LOOK):
            shown = read() or {}
        profiles = (shown.get("properties") or {}).get("agentPoolProfiles") or ()
    except AksGpuError:
        return ""
    ready = sum(profile.get("provisioningState") == "Succeeded" for profile in profiles)
    return f"node pools ready {ready}/{len(profiles)}" if profiles else ""


class PoolNodes:
    """The nodes of one pool, as Kubernetes sees them come and go.

    Args:
        aks: the cluster. One whose API does not answer everybody is not asked: its silence would hold up the wait.
        pool: name of the pool.
    """

    def __init__(self, aks: Cluster, pool: str) -> None:
        self._aks = aks
        self._pool = pool
        self._mute = bool(aks.access)

    def ready(self, wanted: int) -> str:
        """Such as ``nodes ready 0/1``."""
        found = self._list()
        return "" if found is None else f"nodes ready {sum(found)}/{wanted}"

    def left(self) -> str:
        """Such as ``nodes left 1``."""
        found = self._list()
        return "" if found is None else f"nodes left {len(found)}"

    def _list(self) -> list[bool] | None:
        if self._mute:
            return None
        try:
            with limit(_LOOK):
                nodes = self._aks.kube.list("Node", label_selector=f"agentpool={self._pool}")
        except AksGpuError:
            self._mute = True
            return None
        return [read_node(node).ready for node in nodes]
