"""Read what a diagnosis needs. What cannot be read is recorded as unknown and never treated as absent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from aksgpu.diagnose.diagnosis import Diagnosis
from aksgpu.errors import KubernetesError, NotFound, Unreachable
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.node_facts import Node, read
from aksgpu.logs.job_logs import read as read_log

__all__ = ["TAIL", "TAIL_TIMEOUT", "ClusterReader", "has_azure"]

T = TypeVar("T")

TAIL = 20
"""Lines of a log that are evidence."""
TAIL_TIMEOUT = 5.0
"""Seconds for which reading a log is retried."""


def has_azure(aks: HasKube) -> bool:
    """Whether the cluster is managed through Azure, so that node pools and ``az`` can change it."""
    return getattr(aks, "azure", None) is not None


class ClusterReader:
    """Reads a cluster for one diagnosis.

    Attributes:
        aks: the cluster.
        unknown: what could not be read, and why.
    """

    def __init__(self, aks: HasKube) -> None:
        self.aks = aks
        self.unknown: list[str] = []
        self._unreachable = False

    @property
    def has_azure(self) -> bool:
        """Whether the cluster is managed through Azure."""
        return has_azure(self.aks)

    def attempt(self, what: str, fetch: Callable[[], T]) -> T | None:
        """Return what ``fetch`` returns, or None if the API server refuses or does not answer.

        Once the API server has not answered, no further request is sent: each could take a minute.

        Args:
            what: what is fetched, such as ``the nodes``.
            fetch: sends the request.
        """
        if self._unreachable:
            self.unknown.append(f"{what}: not asked for, since the API server does not answer")
            return None
        try:
            return fetch()
        except KubernetesError as error:
            self._unreachable = isinstance(error, Unreachable)
            self.unknown.append(f"{what}: {error.message}")
            return None

    def finish(self, diagnosis: Diagnosis) -> Diagnosis:
        """Return the diagnosis with what could not be read."""
        return replace(diagnosis, unknown=tuple(dict.fromkeys((*diagnosis.unknown, *self.unknown))))

    def node(self, name: str) -> Object | None:
        """Return the Node object. Empty if there is no such node, None if that could not be read."""

        def fetch() -> Object:
            try:
                return self.aks.kube.get("Node", name)
            except NotFound:
                return {}

        return self.attempt(f"node {name}", fetch)

    def nodes(self) -> list[Node] | None:
        """Return all nodes by pool and name; None if they could not be read."""
        nodes = self.attempt("the nodes", lambda: self.aks.kube.list("Node", pick=read))
        return None if nodes is None else sorted(nodes, key=lambda node: (node.pool, node.name))

    def tail(self, pod: Object, container: str, *, previous: bool = False) -> str:
        """Return the last lines of a container's log; empty if it has none or it could not be read.

        Args:
            pod: the Pod object.
            container: name.
            previous: read the run before the last restart.
        """
        metadata = pod["metadata"]

        def fetch() -> str:
            return read_log(
                self.aks,
                metadata["name"],
                namespace=metadata["namespace"],
                container=container,
                tail_lines=TAIL,
                previous=previous,
                timeout=TAIL_TIMEOUT,
            )

        text = self.attempt(f"the log of pod {metadata['name']}", fetch)
        return (text or "").rstrip()
