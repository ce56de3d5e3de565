"""The fault proxy itself: a plain HTTP client gets each fault as described."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import Request, Server
from support import fault_proxy as faults
from support.fault_proxy import FaultProxy
from support.polling import wait_for

from aksgpu import cluster
from aksgpu.cluster import Cluster
from aksgpu.errors import Forbidden, Unreachable
from aksgpu.kube import Kube

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

BODY = b"".join(b"line %d\n" % number for number in range(100))


def answer(request: Request) -> None:
    if request.command == "POST":
        request.json(request.body, 201)
    else:
        request.begin()
        request.chunk(BODY)
        request.end()


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with Server(answer) as server, FaultProxy(f"http://127.0.0.1:{server.server_port}", seed=1) as made:
        made.real = server  # type: ignore[attr-defined]
        yield made


def get(proxy: FaultProxy, path: str = "/x", timeout: float = 60) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy._port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_requests_without_a_fault_are_forwarded(proxy: FaultProxy) -> None:
    assert get(proxy) == (200, BODY)
    connection = http.client.HTTPConnection("127.0.0.1", proxy._port, timeout=60)
    connection.request("POST", "/a%2Fb?x=1%2F2", body=b'{"a":1}', headers={"Authorization": "Bearer t"})
    response = connection.getresponse()
    assert (response.status, response.read()) == (201, b'{"a": 1}')
    connection.close()
    last: Any = proxy.real.requests[-1]  # type: ignore[attr-defined]
    assert (last.route, last.query, last.headers["Authorization"]) == ("/a%2Fb", {"x": "1/2"}, "Bearer t")


@pytest.mark.parametrize("code", [401, 403, 404, 410, 429, 500, 502, 503, 504])
def test_an_error_status_is_sent_as_often_as_planned(proxy: FaultProxy, code: int) -> None:
    proxy.plan = faults.first(faults.status(code), times=2, path="^/x")
    assert [get(proxy)[0] for _ in range(3)] == [code, code, 200]
    assert len(proxy.real.requests) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("at", [0, 1, 333, len(BODY) - 1])
def test_a_cut_is_noticed_and_an_early_end_is_not(proxy: FaultProxy, at: int) -> None:
    proxy.plan = faults.in_turn([faults.cut(at), faults.early_end(at)])
    with pytest.raises(http.client.IncompleteRead) as broken:
        get(proxy)
    assert broken.value.partial == BODY[:at]
    assert get(proxy) == (200, BODY[:at])


def test_silence_ends_with_the_clients_timeout(proxy: FaultProxy) -> None:
    proxy.plan = faults.in_turn([faults.half_open(10), faults.half_open(None)])
    for _ in range(2):
        with pytest.raises(TimeoutError):
            get(proxy, timeout=0.3)


def test_connections_are_accepted_again_after_refusals(proxy: FaultProxy) -> None:
    proxy.plan = faults.first(faults.refused(5))
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        get(proxy)
    with pytest.raises(ConnectionRefusedError):
        get(proxy)

    def answer_or_none() -> tuple[int, bytes] | None:
        try:
            return get(proxy)
        except ConnectionRefusedError:
            return None

    assert wait_for(answer_or_none) == (200, BODY)


def test_the_server_receives_the_request_of_a_lost_response(proxy: FaultProxy) -> None:
    proxy.plan = faults.first(faults.no_answer())
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        get(proxy)
    assert len(proxy.real.requests) == 1  # type: ignore[attr-defined]


def test_a_slow_body_is_complete(proxy: FaultProxy) -> None:
    proxy.plan = faults.first(faults.trickle(50, 0.001))
    assert get(proxy) == (200, BODY)


def test_the_same_seed_gives_the_same_faults() -> None:
    def kinds(seed: int) -> list[str]:
        with Server(answer) as server, FaultProxy(f"http://127.0.0.1:{server.server_port}", seed=seed) as proxy:
            made = [lambda r: faults.status(500), lambda r: faults.early_end(r.randrange(50))]
            proxy.plan = faults.at_random(made, 0.5, limit=10)
            for _ in range(30):
                get(proxy)
            return [f"{call.ordinal} {fault.kind} {fault.at}" for call, fault in proxy.faults]

    assert kinds(3) == kinds(3) != kinds(4)
    assert len(kinds(3)) == 10


def test_ends_with_connections_open() -> None:
    with Server(answer) as server:
        proxy = FaultProxy(f"http://127.0.0.1:{server.server_port}", faults.always(faults.half_open(5))).__enter__()

        def ask() -> None:
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                get(proxy)

        client = threading.Thread(target=ask)
        client.start()
        wait_for(lambda: proxy.faults)
        proxy.__exit__()
        client.join(60)
        assert not client.is_alive()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", proxy._port), 60)


def test_the_librarys_client_connects_over_tls(tmp_path: Path) -> None:
    with Server(lambda request: request.json({"kind": "Node"})) as server:
        with FaultProxy(f"http://127.0.0.1:{server.server_port}", tls=True) as proxy:
            kube = Kube.from_kubeconfig(proxy.kubeconfig(tmp_path))
            assert kube.request("GET", "/api/v1/nodes/n") == {"kind": "Node"}
            assert proxy.url.startswith("https://")
        with pytest.raises(Unreachable):
            kube.request("GET", "/api/v1/nodes/n")


def test_in_front_of_a_laptop_cluster(aks: Cluster, tmp_path: Path) -> None:
    with FaultProxy.for_kubeconfig(cluster.get_credentials(aks, tmp_path / "config"), seed=1) as proxy:
        kube = Kube.from_kubeconfig(proxy.kubeconfig(tmp_path))
        nodes = [node["metadata"]["name"] for node in kube.list("Node")]
        assert nodes == [node["metadata"]["name"] for node in aks.kube.list("Node")]
        proxy.plan = faults.always(faults.forbidden(), path="/nodes")
        with pytest.raises(Forbidden):
            kube.list("Node")
