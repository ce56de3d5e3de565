"""A real HTTPS server of the Kubernetes API alone, without controllers and nodes, in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest
import trustme
import urllib3
import yaml
from aiohttp import web

from aksgpu.local.api.access import User
from aksgpu.local.api.api_server import KubeApi
from aksgpu.local.api.registry import Registry
from aksgpu.local.api.store import Store

T = TypeVar("T")

ADMIN = "admin-token"
DEV = "dev-token"
TOKENS = {ADMIN: User("clusterAdmin", ("system:masters",)), DEV: User("dev", ())}
PREFIX = "/k8s/clusters/0123abcd"


@dataclass
class FakePodLogs:
    """Returns fixed output of a container, and records the request."""

    pieces: list[bytes] = field(default_factory=lambda: [b"line 1\nline 2\n"])
    requested: dict[str, Any] = field(default_factory=dict)
    keep_open: bool = False
    closed: threading.Event = field(default_factory=threading.Event)

    async def open(self, namespace: str, pod: str, container: str, **options: Any) -> AsyncIterator[bytes]:
        self.requested = {"namespace": namespace, "pod": pod, "container": container, **options}
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        try:
            for piece in self.pieces:
                yield piece
            while self.keep_open:
                await asyncio.sleep(0.05)
        finally:
            self.closed.set()


class Response:
    """Status, headers and body of a response."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.data

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.body.splitlines()]


class Server:
    """The server, with a plain HTTP client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = FakePodLogs()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        authority = trustme.CA()
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(self._tls)
        self.port = self.run(self._start())
        self.url = f"https://127.0.0.1:{self.port}{PREFIX}"
        self._pool = urllib3.PoolManager(ca_certs=str(self.ca), retries=False, timeout=60)

    async def _start(self) -> int:
        self.registry = Registry(Store(self.folder / "kube.db"))
        await self.registry.open()
        self.api = KubeApi(self.registry, node=self.logs, tokens=TOKENS)

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self.api.handle(request, request.path.removeprefix(PREFIX))

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        return int(self._runner.addresses[0][1])

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def end_watches(self) -> None:
        """End all watches, after what has been written so far."""

        async def end() -> None:
            self.registry.store._end_watches(None)

        self.run(end())

    def stop(self) -> None:
        self._pool.clear()
        self.run(self.registry.close())
        self.run(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str | None = "application/json",
        accept: str = "application/json",
        token: str | None = ADMIN,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Send a request. A body that is not bytes is sent as JSON."""
        sent = {"Accept": accept, "User-Agent": "tests", **(headers or {})}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        if body is not None and content_type:
            sent["Content-Type"] = content_type
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        return Response(self._pool.request(method, self.url + path, body=data, headers=sent))

    def kubeconfig(self, token: str = ADMIN) -> Path:
        """Return the path of a kubeconfig for this server."""
        path = self.folder / f"kubeconfig-{token}"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "laptop",
                    "clusters": [
                        {"name": "laptop", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}
                    ],
                    "users": [{"name": "me", "user": {"token": token}}],
                    "contexts": [{"name": "laptop", "context": {"cluster": "laptop", "user": "me"}}],
                }
            )
        )
        return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    created = Server(tmp_path_factory.mktemp("api"))
    yield created
    created.stop()


Kubectl = Callable[..., subprocess.CompletedProcess[str]]


def start_kubectl(binary: str, server: Server, *args: str, token: str = ADMIN) -> subprocess.Popen[str]:
    """Start kubectl with its own home and cache. Its standard streams are pipes."""
    home = server.folder / "home"
    home.mkdir(exist_ok=True)
    command = [binary, f"--kubeconfig={server.kubeconfig(token)}", f"--cache-dir={server.folder / 'cache'}", *args]
    env = {"HOME": str(home), "PATH": os.environ["PATH"]}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=env, text=True)


def run_kubectl(
    binary: str, server: Server, *args: str, stdin: str = "", token: str = ADMIN
) -> subprocess.CompletedProcess[str]:
    """Run kubectl until it ends, as :func:`start_kubectl` starts it."""
    with start_kubectl(binary, server, *args, token=token) as process:
        try:
            output, errors = process.communicate(stdin, timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(args, process.returncode, output, errors)
