"""Shared by the benchmarks of API servers: a cluster of the laptop AKS, and a client with little overhead."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

import aksgpu
from aksgpu import cluster, local

RUNS = 3
"""Number of measurements. The best one counts."""
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


def best(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest run."""
    took = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        work()
        took.append(time.perf_counter() - begin)
    return min(took)


@dataclass(frozen=True)
class Api:
    """A cluster's API server."""

    home: Path
    """Directory of the laptop AKS."""
    kubeconfig: Path
    port: int
    prefix: str
    token: str
    context: ssl.SSLContext


def api(kubeconfig: Path, home: Path) -> Api:
    """Return the API server of a kubeconfig file, which must be on this machine and take a bearer token."""
    config = yaml.safe_load(kubeconfig.read_text())
    settings = config["clusters"][0]["cluster"]
    server = settings["server"].removeprefix("https://127.0.0.1:")
    port, _, prefix = server.partition("/")
    authority = base64.b64decode(settings["certificate-authority-data"]).decode()
    trust = ssl.create_default_context(cadata=authority)
    path = f"/{prefix}" if prefix else ""
    return Api(home, kubeconfig, int(port), path, config["users"][0]["user"]["token"], trust)


@contextlib.contextmanager
def small_cluster(time_scale: float = 0.05) -> Iterator[Api]:
    """A private laptop AKS with one node.

    Args:
        time_scale: the duration of a simulated second, in seconds.
    """
    os.environ["AKSGPU_PROGRESS"] = "0"
    with local.laptop(time_scale=time_scale) as endpoint:
        os.environ["AKSGPU_HOME"] = str(endpoint.home)
        azure = aksgpu.connect(endpoint)
        aks = cluster.create(azure, "bench", resource_group="bench", location="eastus")
        yield api(cluster.kubeconfig(aks), endpoint.home)


class Connection:
    """An HTTP connection that sends prepared bytes and reads responses by their length."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, api: Api) -> None:
        self._reader = reader
        self._writer = writer
        self._api = api

    @classmethod
    async def open(cls, api: Api) -> Connection:
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", api.port, ssl=api.context, limit=1 << 26), api)

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Return the bytes of a request."""
        head = f"{method} {self._api.prefix}{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._api.token}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body

    async def send(self, request: bytes) -> bytes:
        """Send a request that must succeed, and return the response's body."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        body = await (self._reader.readexactly(int(length)) if length else self._read_chunks())
        assert head.startswith(b"HTTP/1.1 20"), (head, body[:500])
        return body

    async def _read_chunks(self) -> bytes:
        """Read a body in chunks."""
        chunks = []
        size = 1
        while size:
            size = int(await self._reader.readline(), 16)
            chunks.append(await self._reader.readexactly(size))
            await self._reader.readexactly(2)
        return b"".join(chunks)

    async def watch(self, path: str) -> asyncio.StreamReader:
        """Start a watch. Its events can be read as lines, between lines with the lengths of chunks."""
        self._writer.write(self.request("GET", path))
        await self._reader.readuntil(b"\r\n\r\n")
        return self._reader

    def close(self) -> None:
        """Close the connection."""
        self._writer.transport.abort()


def config_map(name: str) -> dict[str, Any]:
    """Return an object of about a kilobyte."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "data": {f"key{number}": "x" * 40 for number in range(16)},
    }


def encoded(name: str) -> bytes:
    """Return the same object as JSON."""
    return orjson.dumps(config_map(name))
