"""The Kubernetes clusters of this machine: the parts of each put together, started, stopped and deleted.

Resource Manager decides which clusters there are; this module runs them. A cluster keeps all of its files in
``clusters/<id>`` below the laptop's home.
"""

from __future__ import annotations

import asyncio
import hmac
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from aksgpu.errors import LaptopError
from aksgpu.local.api.access import User
from aksgpu.local.api.api_server import KubeApi
from aksgpu.local.api.registry import Registry
from aksgpu.local.api.store import Store
from aksgpu.local.arm.pool_nodes import owned_by_daemon_set
from aksgpu.local.control import ControllerManager
from aksgpu.local.node import NodeAgent
from aksgpu.local.objects import Objects
from aksgpu.local.settings import Settings
from aksgpu.local.status_error import StatusError

ADMINISTRATOR = User("masterclient", ("system:masters",))
ENTRA_USER = User("laptop", ("system:masters",))
"""Whoever logs in with Entra ID; the laptop's one user has every role."""


class KubeCluster:
    """One running cluster.

    Args:
        root: the directory of its files.
        settings: the laptop's.
        tokens: knows the user of a bearer token.
    """

    def __init__(self, root: Path, settings: Settings, tokens: Callable[[str], User | None]) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.registry = Registry(Store(root / "kube.db"))
        self.agent = NodeAgent(self.registry.with_manager("kubelet"), root, settings)
        self.controllers = ControllerManager(self.registry.with_manager("kube-controller-manager"), settings)
        self.api = KubeApi(self.registry, node=self.agent, tokens=tokens)

    async def start(self) -> None:
        """Open the store and set everything in motion; raises LaptopError when the store cannot be read."""
        try:
            await self.registry.open()
        except (sqlite3.Error, OSError, ValueError) as error:
            hint = "Delete the cluster and make it again."
            raise LaptopError(f"the cluster's store cannot be read: {error}", hint=hint) from error
        try:
            await self.controllers.start()
            await self.agent.start()
        except BaseException:
            await self.stop(end_pods=False)
            raise

    async def stop(self, *, end_pods: bool = True) -> None:
        """Stop everything; pods that are not ended go on without anybody and are found again at the next start."""
        await self.controllers.stop()
        await self.agent.stop(end_pods=end_pods)
        await self.registry.close()


class Clusters:
    """All running clusters, by their ids.

    Args:
        home: the laptop's directory.
        settings: the laptop's.
        entra: whether a token, the second argument, is one that Entra ID gave for a cluster, the first.
    """

    def __init__(self, home: Path, settings: Settings, entra: Callable[[str, str], bool]) -> None:
        self._root = home / "clusters"
        self._settings = settings
        self._entra = entra
        self._running: dict[str, KubeCluster] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def open(self, cluster_id: str, token: str) -> Objects:
        """Start the cluster, or find it running; ``token`` is its administrator's."""

        def user(given: str) -> User | None:
            if hmac.compare_digest(given.encode(errors="surrogateescape"), token.encode()):
                return ADMINISTRATOR
            return ENTRA_USER if self._entra(cluster_id, given) else None

        async with self._locks[cluster_id]:
            if cluster_id not in self._running:
                cluster = KubeCluster(self._root / cluster_id, self._settings, user)
                await cluster.start()
                self._running[cluster_id] = cluster
            return self._running[cluster_id].registry

    async def close(self, cluster_id: str) -> None:
        """Stop the cluster and end its pods; its objects are kept."""
        async with self._locks[cluster_id]:
            if cluster := self._running.pop(cluster_id, None):
                await cluster.stop()

    async def delete(self, cluster_id: str) -> None:
        """Stop the cluster, end its pods and remove its files."""
        await self.close(cluster_id)
        await asyncio.to_thread(shutil.rmtree, self._root / cluster_id, ignore_errors=True)
        self._locks.pop(cluster_id, None)

    async def close_all(self) -> None:
        """Stop every cluster and end all pods."""
        await asyncio.gather(*(self.close(cluster_id) for cluster_id in list(self._running)))

    async def busy(self) -> bool:
        """Whether a pod runs in any cluster that was put there to do something and then end."""
        pods = [pod for cluster in list(self._running.values()) for pod in (await cluster.registry.list("pods"))[0]]
        return any(pod.get("status", {}).get("phase") == "Running" and not owned_by_daemon_set(pod) for pod in pods)

    async def handle(self, request: web.Request, cluster_id: str, path: str, *, known: bool) -> web.StreamResponse:
        """Answer a request to a cluster's API server.

        Args:
            request: the request.
            cluster_id: the cluster.
            path: the path below the cluster's address.
            known: whether the cluster exists; one that does not (any more) knows no credentials.
        """
        if cluster := self._running.get(cluster_id):
            return await cluster.api.handle(request, path)
        error = StatusError(401, "Unauthorized", "Unauthorized")
        if known:
            error = StatusError(503, "ServiceUnavailable", "the cluster is stopped, or does not run yet")
        return web.json_response(error.status, status=error.code)
