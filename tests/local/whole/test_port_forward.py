"""Port forwarding to pods of a complete laptop AKS, with clients that use WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import kr8s.asyncio
import pytest
from kr8s.asyncio.objects import Pod
from kubernetes import client, config
from kubernetes.stream import portforward
from support.live_cluster import LiveCluster, kubectls, version_of
from support.polling import wait_for

pytest_plugins = ["aksgpu.local.testing", "support.live_cluster"]

KUBECTLS = kubectls()
WITH_WEBSOCKETS = [path for path in KUBECTLS if not path.endswith(".1.29")]
needs_kubectl = pytest.mark.skipif(not KUBECTLS, reason="no kubectl on PATH")
PODS = "/api/v1/namespaces/default/pods"

ECHO = """
import os, socket, socketserver, sys
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(os.environ["NAME"].encode() + b":")
        while data := self.request.recv(65536):
            self.request.sendall(data)
            if b"bye" in data:
                return
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
    allow_reuse_address = True
host = os.environ["POD_IP"] if sys.argv[1] == "own" else sys.argv[1]
servers = [Server((host, int(port)), Echo) for port in sys.argv[2:]]
print("listening", *(server.server_address[1] for server in servers), flush=True)
import threading
for server in servers:
    threading.Thread(target=server.serve_forever).start()
"""
"""Sends the pod's name and then whatever it receives, until that contains ``bye``."""


@pytest.fixture(scope="module")
def api(live_cluster: LiveCluster) -> client.CoreV1Api:
    return client.CoreV1Api(config.new_client_from_config(str(live_cluster.kubeconfig)))


@pytest.fixture
def start(live_cluster: LiveCluster) -> Iterator[Any]:
    """Start pods with the program above, and delete them in the end. Returns the ports that they listen on."""
    names: list[str] = []

    def run(name: str, host: str, *ports: int) -> list[int]:
        ip = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
        container = {
            "name": "main",
            "image": "python",
            "command": ["python3", "-c", ECHO, host, *map(str, ports or (0,))],
            "env": [{"name": "NAME", "value": name}, ip],
        }
        spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
        assert live_cluster.send("POST", PODS, {"metadata": {"name": name}, "spec": spec}).status == 201
        names.append(name)
        log = wait_for(lambda: _log(live_cluster, name), 60)
        wait_for(lambda: live_cluster.send("GET", f"{PODS}/{name}").json()["status"]["phase"] == "Running", 60)
        return [int(port) for port in log.split()[1:]]

    yield run
    for name in names:
        live_cluster.send("DELETE", f"{PODS}/{name}?gracePeriodSeconds=0")


def _log(live_cluster: LiveCluster, name: str) -> bytes:
    answer = live_cluster.send("GET", f"{PODS}/{name}/log")
    return answer.data if answer.status == 200 and answer.data.endswith(b"\n") else b""


def read(connection: socket.socket, text: bytes) -> None:
    """Read exactly this text."""
    connection.settimeout(60)
    seen = b""
    while len(seen) < len(text):
        data = connection.recv(65536)
        assert data, f"the connection ended after {seen!r}"
        seen += data
    assert seen == text


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize("host", ["own", "127.0.0.1", "0.0.0.0", "::"])
def test_with_the_official_client(api: client.CoreV1Api, start: Any, host: str) -> None:
    (port,) = start("echo", host)
    forward = portforward(api.connect_get_namespaced_pod_portforward, "echo", "default", ports=str(port))
    connection = forward.socket(port)
    connection.setblocking(True)
    read(connection, b"echo:")
    for size in (1, 1000, 300_000):
        connection.sendall(b"x" * size)
        read(connection, b"x" * size)
    connection.sendall(b"bye")
    read(connection, b"bye")
    assert connection.recv(1) == b""  # the pod has closed the connection
    assert forward.error(port) is None


def test_each_pod_answers_on_the_same_port(api: client.CoreV1Api, start: Any) -> None:
    port = free_port()
    for name in ("one", "two"):
        start(name, "own", port)
    for name in ("one", "two"):
        forward = portforward(api.connect_get_namespaced_pod_portforward, name, "default", ports=str(port))
        forward.socket(port).setblocking(True)
        read(forward.socket(port), f"{name}:".encode())
        forward.close()


def test_several_ports_over_one_connection(api: client.CoreV1Api, start: Any) -> None:
    ports = start("many", "127.0.0.1", 0, 0)
    given = ",".join(map(str, ports))
    forward = portforward(api.connect_get_namespaced_pod_portforward, "many", "default", ports=given)
    for port in ports:
        forward.socket(port).setblocking(True)
        read(forward.socket(port), b"many:")
    for port in ports:
        forward.socket(port).sendall(f"to {port}".encode())
    for port in ports:
        read(forward.socket(port), f"to {port}".encode())
    forward.close()


class Forward:
    """A running ``kubectl port-forward`` to one pod."""

    def __init__(self, live_cluster: LiveCluster, binary: str, *args: str) -> None:
        env = {"HOME": str(live_cluster.folder), "PATH": os.environ["PATH"], "KUBECTL_PORT_FORWARD_WEBSOCKETS": "true"}
        command = live_cluster.command(binary, "port-forward", *args)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)

    def local_port(self) -> int:
        """Wait until kubectl listens, and return the port."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line.startswith("Forwarding from 127.0.0.1:"), (line, self.process.poll())
        return int(line.split(":")[1].split()[0])

    def error(self) -> str:
        """Return the next line of the error output."""
        assert self.process.stderr
        return self.process.stderr.readline()

    def __enter__(self) -> Forward:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@needs_kubectl
@pytest.mark.parametrize("binary", WITH_WEBSOCKETS, ids=map(version_of, WITH_WEBSOCKETS))
def test_with_every_kubectl(live_cluster: LiveCluster, start: Any, binary: str) -> None:
    (port,) = start("kubectl", "own")
    with Forward(live_cluster, binary, "pod/kubectl", f":{port}") as forward:
        local = forward.local_port()
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(socket.create_connection(("127.0.0.1", local))) for _ in range(5)]
            for connection in connections:
                read(connection, b"kubectl:")
            for size in (1, 1000, 300_000):
                for connection in connections:
                    connection.sendall(b"x" * size)
                for connection in reversed(connections):
                    read(connection, b"x" * size)
            connections[0].sendall(b"bye")
            read(connections[0], b"bye")
            assert connections[0].recv(1) == b"", "the pod has closed the connection"
            connections[1].shutdown(socket.SHUT_WR)
            assert connections[1].recv(1) == b"", "the pod has seen the end of the input"
            connections[2].sendall(b"still there")
            read(connections[2], b"still there")
        with socket.create_connection(("127.0.0.1", local)) as connection:
            read(connection, b"kubectl:")


@needs_kubectl
def test_kubectl_shows_why_a_port_is_refused(live_cluster: LiveCluster, start: Any) -> None:
    start("refuses", "own")
    port = free_port()
    with Forward(live_cluster, WITH_WEBSOCKETS[-1], "pod/refuses", f":{port}") as forward:
        with socket.create_connection(("127.0.0.1", forward.local_port())) as connection:
            connection.settimeout(60)
            assert connection.recv(1) == b""
        while "error forwarding port" not in (line := forward.error()):
            assert line, forward.process.poll()
        assert "connection refused" in line


@needs_kubectl
def test_an_old_kubectl_gets_a_hint(live_cluster: LiveCluster, start: Any) -> None:
    binary = next((path for path in KUBECTLS if path.endswith(".1.29")), None)
    if binary is None:
        pytest.skip("no kubectl 1.29 here")
    (port,) = start("hint", "own")
    done = live_cluster.kubectl(binary, "port-forward", "pod/hint", f":{port}")
    assert done.returncode == 1
    assert "KUBECTL_PORT_FORWARD_WEBSOCKETS=true" in done.stderr


def test_a_port_of_another_program_is_refused(api: client.CoreV1Api, start: Any) -> None:
    """This machine's own programs listen in the same network, but they are not part of the pod."""
    start("alone", "own")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        forward = portforward(api.connect_get_namespaced_pod_portforward, "alone", "default", ports=str(port))
        error = wait_for(lambda: forward.error(port))
        assert error.startswith(f"error forwarding port {port} to pod ")
        assert f"dial tcp4 127.0.0.1:{port}: connect: connection refused" in error


async def test_with_kr8s(live_cluster: LiveCluster, start: Any) -> None:
    (port,) = await asyncio.to_thread(start, "kr8s", "own")
    api = await kr8s.asyncio.api(kubeconfig=str(live_cluster.kubeconfig))
    pod = await Pod.get("kr8s", namespace="default", api=api)
    async with pod.portforward(remote_port=port, local_port="auto") as local, asyncio.timeout(60):
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", local)
            assert await reader.readexactly(5) == b"kr8s:"
            writer.write(b"ping bye")
            assert await reader.readexactly(8) == b"ping bye"
            writer.close()


def test_errors(live_cluster: LiveCluster, start: Any) -> None:
    def ask(path: str) -> tuple[int, str]:
        answer = live_cluster.send("POST", f"{PODS}/{path}")
        return answer.status, answer.json()["message"]

    start("errors", "own")
    assert ask("none/portforward?ports=80") == (404, 'pods "none" not found')
    assert ask("errors/portforward") == (400, 'query parameter "ports" is required')
    assert ask("errors/portforward?ports=0") == (400, 'port "0" must be > 0')
    for wrong in ("x", "65536", "-1", "", "8080,"):
        status, message = ask(f"errors/portforward?ports={wrong}")
        assert (status, message.partition(" as a port")[2][:1]) == (400, ":"), wrong
    status, message = ask("errors/portforward?ports=80")
    assert (status, message.partition(":")[0]) == (400, "Upgrade request required")
