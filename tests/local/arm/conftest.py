"""Resource Manager over HTTPS. Each cluster has a real store but no controllers and no node agent."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from azure.core.credentials import AccessToken
from azure.core.rest import HttpRequest
from azure.mgmt.containerservice import ContainerServiceClient

from aksgpu.local import tls
from aksgpu.local.api.registry import Registry
from aksgpu.local.api.store import Store
from aksgpu.local.arm import ResourceManager
from aksgpu.local.objects import Objects
from aksgpu.local.settings import Settings

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
VERSION = "2026-08-01"


class Token:
    """A credential that never expires."""

    def __init__(self, text: str = "secret") -> None:
        self.text = text

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return AccessToken(self.text, 2**33)


class StoreClusters:
    """Clusters that consist only of a store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open_clusters = {}
        self.seconds_without_roles = 0.0
        self.available = asyncio.Event()
        self.available.set()

    async def open(self, cluster_id: str, token: str, version: str) -> Objects:
        await self.available.wait()
        if cluster_id not in self.open_clusters:
            (self.root / cluster_id).mkdir(parents=True, exist_ok=True)
            registry = Registry(Store(self.root / cluster_id / "kube.db"))
            await registry.open()
            self.open_clusters[cluster_id] = registry
        return self.open_clusters[cluster_id]

    def unload_roles(self, seconds: float) -> None:
        self.seconds_without_roles = seconds

    async def close(self, cluster_id: str) -> None:
        if cluster_id in self.open_clusters:
            await self.open_clusters.pop(cluster_id).close()

    async def delete(self, cluster_id: str) -> None:
        await self.available.wait()
        await self.close(cluster_id)
        shutil.rmtree(self.root / cluster_id, ignore_errors=True)

    async def close_all(self) -> None:
        for cluster_id in list(self.open_clusters):
            await self.close(cluster_id)


@dataclass
class Arm:
    """Resource Manager in a thread of its own."""

    home: Path
    settings: Settings
    base_url: str = ""
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    sender: ContainerServiceClient | None = None

    def start(self) -> None:
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.run(self._start())

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    async def _start(self) -> None:
        self.clusters = StoreClusters(self.home / "clusters")
        context = tls.server_context(self.home)
        self.manager = ResourceManager(self.home, self.clusters, self.settings)
        await self.manager.start()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.manager.handle)
        self.runner = web.AppRunner(app, auto_decompress=False, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.base_url = f"https://127.0.0.1:{self.runner.addresses[0][1]}"

    async def _stop(self) -> None:
        if self.sender is not None:
            self.sender.close()
            self.sender = None
        await self.runner.cleanup()
        await self.manager.stop()
        await self.clusters.close_all()

    def stop(self) -> None:
        """Stop, and leave operations unfinished as a killed process does."""
        self.run(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    @contextmanager
    def operations_held(self) -> Iterator[None]:
        """Keep every operation in progress until the end of the block, by withholding the clusters."""
        self.loop.call_soon_threadsafe(self.clusters.available.clear)
        try:
            yield
        finally:
            self.loop.call_soon_threadsafe(self.clusters.available.set)

    def client(self) -> ContainerServiceClient:
        return ContainerServiceClient(
            Token(), SUBSCRIPTION, base_url=self.base_url, connection_verify=str(self.home / "ca.pem"), retry_total=0
        )

    def send(self, method: str, path: str, body: Any = None, version: str | None = VERSION, **headers: str) -> Any:
        """Send a request without the SDK's operations, and return the response. A text is sent as it is."""

        query = {"api-version": version} if version else {}
        request = HttpRequest(
            method, path, params=query, headers=headers, **{"content" if isinstance(body, str) else "json": body}
        )
        if self.sender is None:
            self.sender = self.client()
        return self.sender.send_request(request)

    def nodes(self) -> list[dict[str, Any]]:
        """Return the Node objects of the only cluster."""
        (registry,) = self.clusters.open_clusters.values()
        return self.run(registry.list("nodes"))[0]


@pytest.fixture
def arm(tmp_path: Path) -> Iterator[Arm]:
    server = Arm(tmp_path, Settings(time_scale=0.05))
    server.start()
    server.send("PUT", GROUP, {"location": "eastus"}, "2021-04-01")
    yield server
    server.stop()


GROUP = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/rg"
CLUSTER = f"{GROUP}/providers/Microsoft.ContainerService/managedClusters/aks"


def pool(name: str = "nodepool1", **properties: Any) -> dict[str, Any]:
    return {"name": name, "count": 1, "vmSize": "Standard_D2s_v3", "mode": "System", **properties}


def body(*pools: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {
        "location": "eastus",
        "identity": {"type": "SystemAssigned"},
        "properties": {"dnsPrefix": "aks", "agentPoolProfiles": list(pools or (pool(),)), **properties},
    }
