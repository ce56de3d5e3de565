"""Ports of pods on this machine: data in both directions, several connections, and pods that do not answer."""

from __future__ import annotations

import http.server
import socket
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.polling import wait_for

from aksgpu import errors, jobs
from aksgpu.cluster import Cluster
from aksgpu.kube.port_forward import PortForward

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

TIMEOUT = 60


def serve(address: str) -> None:
    """Serve the number of requests, and write the port to the log."""
    count = 0

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal count
            count += 1
            data = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"%d " % count + data)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    sys.stdout.write(f"port {server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


@pytest.fixture(scope="module")
def server(aks: Cluster) -> Iterator[tuple[jobs.Job, int]]:
    """A Job that serves HTTP, and its port."""
    job = jobs.Executor(aks, gpus=0, root=Path(__file__).parent).submit(serve, "127.0.0.1")
    line = wait_for(lambda: next((each for each in job.logs().splitlines() if each.startswith("port ")), ""), 120)
    yield job, int(line.split()[1])
    job.delete()


def post(url: str, data: bytes) -> bytes:
    with urllib.request.urlopen(url, data, timeout=TIMEOUT) as response:
        return bytes(response.read())


def test_a_program_in_the_pod_answers_on_a_local_port(server: tuple[jobs.Job, int]) -> None:
    job, port = server
    with job.forward(port) as forward:
        assert forward.url == f"http://127.0.0.1:{forward.port}"
        data = bytes(range(256)) * 8000
        assert post(forward.url, data).partition(b" ")[2] == data
        assert post(forward.url, b"again").endswith(b" again")
        assert forward.last_error == ""
    with pytest.raises(OSError, match=r"refused|reset"):
        socket.create_connection(("127.0.0.1", forward.port), TIMEOUT)
    forward.close()


def test_a_client_that_ends_its_output_gets_the_answer(server: tuple[jobs.Job, int]) -> None:
    job, port = server
    with job.forward(port) as forward, socket.create_connection(("127.0.0.1", forward.port), TIMEOUT) as client:
        client.sendall(b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi")
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while data := client.recv(65536):
            answer += data
        assert answer.endswith(b" hi")


def test_a_port_without_a_listener_is_named(server: tuple[jobs.Job, int], aks: Cluster) -> None:
    job, _ = server
    (pod,) = job.pods()["pod"]
    with socket.socket() as unused:  # it has a port and does not listen
        unused.bind(("127.0.0.1", 0))
        with aks.kube.port_forward(pod, unused.getsockname()[1]) as forward:
            with socket.create_connection(("127.0.0.1", forward.port), TIMEOUT) as client:
                assert client.recv(1) == b""
            wait_for(lambda: "port" in forward.last_error, TIMEOUT)


def test_a_pod_that_does_not_exist_is_named(aks: Cluster) -> None:
    with aks.kube.port_forward("no-such-pod", 80) as forward:
        with socket.create_connection(("127.0.0.1", forward.port), TIMEOUT) as client:
            assert client.recv(1) == b""
        wait_for(lambda: "no-such-pod" in forward.last_error, TIMEOUT)


def test_a_connection_that_was_accepted_before_the_port_was_closed_is_closed() -> None:
    def connect() -> Any:
        raise AssertionError("the port is closed")

    forward = PortForward(connect)
    forward.close()
    accepted, client = socket.socketpair()
    with client:
        forward._serve(accepted)
        client.settimeout(TIMEOUT)
        assert client.recv(1) == b""


@pytest.mark.parametrize("port", [0, 65536, "80", 1.5, True])
def test_other_ports_are_refused(server: tuple[jobs.Job, int], aks: Cluster, port: Any) -> None:
    job, _ = server
    with pytest.raises(errors.InvalidInput, match="`port` must be an integer, 1 to 65535"):
        job.forward(port)
    with pytest.raises(errors.InvalidInput, match="`port` must be an integer, 1 to 65535"):
        aks.kube.port_forward("pod", port)


def test_a_job_that_has_ended_has_no_port(aks: Cluster) -> None:
    job = jobs.Executor(aks, gpus=0, root=Path(__file__).parent).submit(max, 1, 2)
    assert job.result(120) == 2
    with pytest.raises(errors.NotFound, match="has ended"):
        job.forward(80)
    job.delete()
