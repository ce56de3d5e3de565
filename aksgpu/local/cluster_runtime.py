"""The running Kubernetes clusters of this machine.

Resource Manager decides which clusters exist. This module starts, stops and deletes them. A cluster keeps all of its
files in ``clusters/<id>`` below the laptop's home.
"""

from __future__ import annotations

import asyncio
import hmac
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from aksgpu.errors import LaptopError
from aksgpu.local import tls
from aksgpu.local.api.access import CertificateAuthenticator, User, bearer_token, peer_certificate
from aksgpu.local.api.api_server import KubeApi
from aksgpu.local.api.registry import Registry
from aksgpu.local.api.store import Store
from aksgpu.local.arm.pool_nodes import owned_by_daemon_set
from aksgpu.local.control import ControllerManager
from aksgpu.local.node import NodeAgent
from aksgpu.local.node.pod_network import AddressPool
from aksgpu.local.objects import Objects
from aksgpu.local.settings import Settings
from aksgpu.local.status_error import StatusError

ADMINISTRATOR = User(tls.ADMINISTRATOR, (tls.ADMINISTRATORS,))
ENTRA_USER = User("laptop", ("system:masters",), role="cluster-admin")
"""The user of every Entra ID token. The laptop has one user, who has all roles."""


class KubeCluster:
    """One running cluster.

    Args:
        root: the directory of its files.
        settings: the laptop's settings.
        tokens: returns the user of a bearer token, or None for an invalid one.
        certificates: returns the user of a client certificate.
        secret: what the tokens of ServiceAccounts are signed with.
        addresses: the addresses of the pods of all clusters.
        version: the Kubernetes version.
    """

    def __init__(
        self,
        root: Path,
        settings: Settings,
        tokens: Callable[[str], User | None],
        certificates: CertificateAuthenticator,
        secret: bytes,
        addresses: AddressPool,
        version: str,
    ) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.registry = Registry(Store(root / "kube.db"))
        self.agent = NodeAgent(self.registry.with_manager("kubelet"), root, settings, addresses)
        self.controllers = ControllerManager(self.registry.with_manager("kube-controller-manager"), settings)
        self.api = KubeApi(
            self.registry, node=self.agent, tokens=tokens, certificates=certificates, secret=secret, version=version
        )

    async def start(self) -> None:
        """Open the store and start all parts; raises LaptopError if the store cannot be read."""
        try:
            await self.registry.open()
        except (sqlite3.Error, OSError, ValueError) as error:
            hint = "Delete the cluster and create it again."
            raise LaptopError(f"the cluster's store cannot be read: {error}", hint=hint) from error
        try:
            await self.controllers.start()
            await self.agent.start()
        except BaseException:
            await self.stop(end_pods=False)
            raise

    async def stop(self, *, end_pods: bool = True) -> None:
        """Stop all parts. With ``end_pods=False``, pods keep running and are resumed at the next start."""
        await self.controllers.stop()
        await self.agent.stop(end_pods=end_pods)
        await self.registry.close()


class Clusters:
    """All running clusters by id.

    Args:
        home: the laptop's directory.
        settings: the laptop's settings.
        is_entra_token: takes a cluster's id and a token, and returns whether it is an Entra ID token for that cluster.
    """

    def __init__(self, home: Path, settings: Settings, is_entra_token: Callable[[str, str], bool]) -> None:
        self._root = home / "clusters"
        self._settings = settings
        self._is_entra_token = is_entra_token
        self._addresses = AddressPool()
        self._running: dict[str, KubeCluster] = {}
        self._deleted: set[str] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def open(self, cluster_id: str, token: str, version: str) -> Objects:
        """Start the cluster unless it is running, and return its objects.

        Args:
            cluster_id: the cluster's id.
            token: the administrator's bearer token.
            version: the Kubernetes version.

        Raises:
            LaptopError: the cluster is being deleted, or its store cannot be read.
        """

        def find_user(given: str) -> User | None:
            if hmac.compare_digest(given.encode(errors="surrogateescape"), token.encode()):
                return ADMINISTRATOR
            return ENTRA_USER if self._is_entra_token(cluster_id, given) else None

        def find_certificate_user(peer: Mapping[str, Any]) -> User | None:
            return ADMINISTRATOR if tls.administered_cluster(peer) == cluster_id else None

        async with self._locks[cluster_id]:
            if cluster_id in self._deleted:
                raise LaptopError("the cluster is being deleted")
            if cluster_id not in self._running:
                root = self._root / cluster_id
                cluster = KubeCluster(
                    root, self._settings, find_user, find_certificate_user, token.encode(), self._addresses, version
                )
                await cluster.start()
                self._running[cluster_id] = cluster
            return self._running[cluster_id].registry

    async def close(self, cluster_id: str) -> None:
        """Stop the cluster and end its pods. Its objects are kept."""
        async with self._locks[cluster_id]:
            cluster = self._running.pop(cluster_id, None)
            if cluster:
                await cluster.stop()

    async def delete(self, cluster_id: str) -> None:
        """Stop the cluster, end its pods and delete its files. It cannot be opened any more."""
        self._deleted.add(cluster_id)
        await self.close(cluster_id)
        await asyncio.to_thread(shutil.rmtree, self._root / cluster_id, ignore_errors=True)
        self._locks.pop(cluster_id, None)

    def unload_roles(self, seconds: float) -> None:
        """Make every running API server behave for some seconds as if it had not loaded the RBAC roles yet."""
        for cluster in self._running.values():
            cluster.api.unload_roles(seconds)

    async def close_all(self) -> None:
        """Stop every cluster and end all pods."""
        await asyncio.gather(*(self.close(cluster_id) for cluster_id in list(self._running)))

    async def busy(self) -> bool:
        """Return whether a pod is running in any cluster, apart from pods of DaemonSets."""
        for cluster in list(self._running.values()):
            pods, _ = await cluster.registry.list("pods")
            for pod in pods:
                if pod.get("status", {}).get("phase") == "Running" and not owned_by_daemon_set(pod):
                    return True
        return False

    def find_cluster(self, request: web.Request) -> str:
        """Return the id of the only running cluster that knows the request's certificate or token; empty without one.

        ``kubectl proxy`` and ``kubectl get --raw`` leave out the path of the server's address, which has the id.
        """
        named = tls.administered_cluster(peer_certificate(request))
        token = bearer_token(request)
        if named or not token:
            return named
        found = [each for each, cluster in self._running.items() if cluster.api.find_user(token)]
        return found[0] if len(found) == 1 else ""

    async def handle(self, request: web.Request, cluster_id: str, path: str, *, exists: bool) -> web.StreamResponse:
        """Handle a request to a cluster's API server.

        Args:
            request: the request.
            cluster_id: the cluster's id.
            path: the path below the cluster's address.
            exists: whether the cluster exists. A deleted cluster accepts no credentials.
        """
        cluster = self._running.get(cluster_id)
        if cluster:
            return await cluster.api.handle(request, path)
        if exists:
            error = StatusError(503, "ServiceUnavailable", "the cluster is stopped or has not started yet")
        else:
            error = StatusError(401, "Unauthorized", "Unauthorized")
        return web.json_response(error.status, status=error.code)
