"""The laptop AKS with hostile clients: it keeps answering, stays small, and does not log much.

The requests are those of :mod:`api_http.test_hostile`. Here, controllers and node agent have to handle the objects that
they create, and many connections are misused.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import urllib3
import yaml
from support.polling import wait_for

from aksgpu import local
from aksgpu.local import Endpoint, Settings

from .api_http.conftest import Response
from .api_http.test_hostile import TEXTS, RequestFuzzer
from .test_process import CLUSTER, GROUP, make_cluster

REQUESTS = 2_000
CONNECTIONS = 400
GROWTH = 100 << 20
"""Bytes of memory: several times what the objects, events and watch rings left behind can take."""


class Target:
    """The laptop with the interface that :class:`RequestFuzzer` uses, and its Resource Manager."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.endpoint: Endpoint = local.start(home, settings=Settings(time_scale=0.05))
        config = yaml.safe_load(make_cluster(self.endpoint))
        self.server = config["clusters"][0]["cluster"]["server"]
        self.token = config["users"][0]["user"]["token"]
        self.port = int(self.endpoint.base_url.rpartition(":")[2])
        self.pid = local.status(home)["pid"]
        self._pool = urllib3.PoolManager(ca_certs=str(self.endpoint.ca_file), retries=False, timeout=60)

    def send(self, method: str, path: str, body: Any = None, **options: Any) -> Response:
        """Send a request to the cluster."""
        media = options.get("content_type", "application/json")
        accept = options.get("accept", "application/json")
        token = self.token if "token" not in options or options["token"].startswith("admin") else "wrong"
        headers = {"Authorization": f"Bearer {token}", "Content-Type": media, "Accept": accept}
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        return Response(self._pool.request(method, self.server + path, body=data, headers=headers))

    def manage(self, method: str, path: str, body: bytes | None, **more: str) -> Response:
        """Send a request to Resource Manager."""
        headers = {"Authorization": f"Bearer {self.endpoint.token}", "Content-Type": "application/json", **more}
        return Response(self._pool.request(method, self.endpoint.base_url + path, body=body, headers=headers))

    def memory(self) -> int:
        """Return the resident memory in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def connect(self) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.endpoint.ca_file))
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        return context.wrap_socket(plain, server_hostname="127.0.0.1")

    def head(self, method: str, path: str) -> bytes:
        """Return the request line and headers of a request."""
        place = self.server.removeprefix(self.endpoint.base_url)
        return f"{method} {place}{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\n".encode()

    @property
    def well(self) -> bool:
        """Whether a valid request is answered."""
        return self.send("GET", "/api/v1/namespaces/default").status == 200

    @property
    def log(self) -> str:
        return (self.home / "laptop.log").read_text()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    home = tmp_path_factory.mktemp("hostile")
    try:
        yield Target(home)
    finally:
        local.stop(home=home)


def test_hostile_objects_do_not_stop_controllers_and_node(target: Target) -> None:
    fuzzer = RequestFuzzer(3)
    before = target.memory()
    for turn in range(REQUESTS):
        if turn % 500 == 0:
            fuzzer.create_samples(target)
        sent, answer = fuzzer.send(target)
        # Kubernetes answers 500 to a new object with a version.
        refused = answer.status in (500, 504) and b"Internal error" not in answer.body
        assert answer.status < 500 or refused, (sent, answer.body)
        assert b"Traceback" not in answer.body
    assert target.well
    assert target.memory() - before < GROWTH
    assert "Traceback" not in target.log
    pod = {"containers": [{"name": "main", "image": "busybox", "command": ["true"]}], "restartPolicy": "Never"}
    assert target.send("POST", "/api/v1/namespaces", {"metadata": {"name": "good"}}).status in (201, 409)
    nodes = target.send("GET", "/api/v1/nodes").json["items"]
    pod["nodeName"] = next(node["metadata"]["name"] for node in nodes if "nodepool1" in node["metadata"]["name"])
    made = target.send("POST", "/api/v1/namespaces/good/pods", {"metadata": {"generateName": "good-"}, "spec": pod})
    path = f"/api/v1/namespaces/good/pods/{made.json['metadata']['name']}"
    wait_for(lambda: target.send("GET", path).json["status"].get("phase") == "Succeeded")


def test_invalid_http_is_not_logged_at_length(target: Target) -> None:
    before = len(target.log)
    for turn in range(300):
        piece = [b"\0\1\2\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"x" * 20_000, b"\x16\x03\x01"][turn % 4]
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", target.port)) as plain:
            plain.sendall(piece)  # not TLS
        with contextlib.suppress(OSError), target.connect() as connection:
            connection.sendall(piece)
            assert b" 500 " not in connection.recv(4096)
    assert target.well
    assert len(target.log) - before < 2_000, target.log[before:][:2_000]


def test_many_connections_that_do_nothing(target: Target) -> None:
    """Many connections send nothing, send part of a request, or do not read."""
    before = target.memory()
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.create_connection(("127.0.0.1", target.port)))
        for turn in range(30):
            connection = stack.enter_context(target.connect())
            part = target.head("POST", "/api/v1/namespaces/default/configmaps")
            match turn % 3:
                case 0:
                    connection.sendall(part[: turn * 3])
                case 1:
                    connection.sendall(part + b"Content-Length: 1000000\r\n\r\n{")
                case 2:
                    connection.sendall(target.head("GET", "/api/v1/events?watch=true") + b"\r\n")
        for _ in range(20):
            assert target.well
        assert target.memory() - before < GROWTH
    assert target.well


def test_a_client_that_closes_its_half_is_answered(target: Target) -> None:
    plain = socket.create_connection(("127.0.0.1", target.port), timeout=60)
    context = ssl.create_default_context(cafile=str(target.endpoint.ca_file))
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
        connection.sendall(target.head("GET", "/api/v1/namespaces/default") + b"Connection: close\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    with target.connect() as connection:
        connection.sendall(target.head("GET", "/api/v1/namespaces/default") + b"\r\n")
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            connection.recv(4096)  # TLS has no half-closed state, so the connection may end
    assert target.well


def test_hostile_requests_to_resource_manager(target: Target) -> None:
    """The last test that uses the cluster, because these requests may stop it."""
    fuzzer = RequestFuzzer(4)
    chance = random.Random(4)
    paths = [
        GROUP,
        CLUSTER,
        f"{CLUSTER}/agentPools/x",
        f"{CLUSTER}/stop",
        "/subscriptions",
        "/%00",
        "/providers//",
        "/",
    ]
    versions = ["api-version=2026-08-01", "api-version=2021-04-01", "api-version=x", "", "$filter=%00"]
    body = {"location": "eastus", "properties": {"agentPoolProfiles": [{"name": "p", "count": 1}], "dnsPrefix": "x"}}
    for _ in range(REQUESTS // 2):
        path = chance.choice(paths) + chance.choice(["", "", f"/{chance.choice(TEXTS[:9])}"])
        content = json.dumps(fuzzer.mutate(body)).encode() if chance.random() < 0.7 else chance.randbytes(50)
        method = chance.choice(["GET", "PUT", "PATCH", "POST", "HEAD", "FOO"])
        answer = target.manage(method, f"{path}?{chance.choice(versions)}".replace(" ", "+"), content)
        assert answer.status < 500, (method, path, content, answer.body)
        assert b"Traceback" not in answer.body
    assert target.manage("GET", "/laptop/status", None).status == 200
    assert "Traceback" not in target.log


def test_encoded_bodies_are_refused_with_json(target: Target) -> None:
    refused = [
        target.manage("POST", "/laptop/inject", b"[" * 100_000),
        target.manage("POST", "/laptop/inject", b"\x8b\xff", **{"Content-Encoding": "gzip"}),
        target.manage("POST", "/laptop/inject", b"{}", **{"Content-Encoding": "br"}),
        target.manage("PUT", f"{GROUP}?api-version=2021-04-01", b"{}", **{"Content-Encoding": "br"}),
    ]
    assert {(answer.status, "message" in answer.json["error"]) for answer in refused} == {(400, True)}


LOG_PROGRAM = """
import logging, sys
from pathlib import Path
from aksgpu.local import server_log

server_log.LOG_BYTES = 10_000
server_log.set_up(Path(sys.argv[1]))
assert logging.getLogger().handlers == []
for name in ("asyncio", "aiohttp.server"):
    logging.getLogger(name).error("client error", exc_info=ConnectionResetError())
for number in range(1_000):
    logging.getLogger("aksgpu.local.test").info("line %s", number)
logging.getLogger("aksgpu.local.test").error("server error", exc_info=ConnectionResetError())
"""


def test_the_log_file_is_rotated_and_private(tmp_path: Path) -> None:
    path = tmp_path / "laptop.log"
    subprocess.run([sys.executable, "-c", LOG_PROGRAM, str(path)], check=True)
    files = {found.name: found.stat() for found in tmp_path.iterdir()}
    assert set(files) == {"laptop.log", "laptop.log.1"}
    assert all(found.st_size <= 10_000 and found.st_mode & 0o077 == 0 for found in files.values())
    text = path.read_text()
    assert "line 999\n" in text
    assert "server error" in text
    assert "client error" not in (tmp_path / "laptop.log.1").read_text() + text
