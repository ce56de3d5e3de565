"""Watches over HTTP: their first events, their formats, how they end, and clients that misbehave."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from support.polling import wait_for

from aksgpu.local.api import api_server, streaming

from .conftest import ADMIN, PREFIX, Server

MAPS = "/api/v1/namespaces/default/configmaps"
TABLE = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)


def make(server: Server, name: str, **labels: str) -> dict[str, Any]:
    response = server.send("POST", MAPS, {"metadata": {"name": name, "labels": labels}, "data": {"k": "1"}})
    assert response.status == 201, response.body
    created: dict[str, Any] = response.json
    return created


@pytest.fixture(scope="module", autouse=True)
def objects(server: Server) -> None:
    for name in ("a", "b"):
        make(server, name, team=name)


def watch(server: Server, query: str, accept: str = "application/json") -> list[dict[str, Any]]:
    response = server.send("GET", f"{MAPS}?watch=true&timeoutSeconds=1&{query}", accept=accept)
    assert response.status == 200
    assert response.headers["Transfer-Encoding"] == "chunked"
    return response.events


def names(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events]


def test_a_watch_without_a_version_sends_existing_objects_first(server: Server) -> None:
    assert names(watch(server, "labelSelector=team")) == [("ADDED", "a"), ("ADDED", "b")]
    assert names(watch(server, "resourceVersion=0&fieldSelector=metadata.name%3Db")) == [("ADDED", "b")]


def test_a_watch_from_a_version_sends_only_later_events(server: Server) -> None:
    version = server.send("GET", MAPS).json["metadata"]["resourceVersion"]
    first = make(server, "late")
    server.send("DELETE", f"{MAPS}/late")
    events = watch(server, f"resourceVersion={version}&allowWatchBookmarks=true")
    assert names(events) == [("ADDED", "late"), ("DELETED", "late"), ("BOOKMARK", "")]
    assert events[0]["object"] == first
    assert events[2]["object"]["metadata"]["resourceVersion"] == events[1]["object"]["metadata"]["resourceVersion"]
    assert set(events[2]["object"]) == {"kind", "apiVersion", "metadata"}


def test_a_negative_timeout_ends_a_watch_at_once(server: Server) -> None:
    response = server.send("GET", f"{MAPS}?watch=true&timeoutSeconds=-1")
    assert (response.status, response.body) == (200, b"")


def test_a_version_in_the_future_waits(server: Server) -> None:
    assert watch(server, "resourceVersion=999999999") == []


def test_initial_events_end_with_a_bookmark(server: Server) -> None:
    query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&labelSelector=team%3Da"
    events = watch(server, query)
    assert names(events)[:2] == [("ADDED", "a"), ("BOOKMARK", "")]
    assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_no_initial_events_on_request(server: Server) -> None:
    assert watch(server, "sendInitialEvents=false&resourceVersionMatch=NotOlderThan") == []


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("watch=1&sendInitialEvents=true", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        (
            "watch=1&resourceVersionMatch=NotOlderThan&resourceVersion=1",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (
            "watch=1&resourceVersionMatch=Exact&sendInitialEvents=true",
            'Unsupported value: "Exact": supported values: "NotOlderThan"',
        ),
        ("sendInitialEvents=true", "sendInitialEvents is forbidden for list"),
    ],
)
def test_options_that_contradict_each_other_are_refused(server: Server, query: str, text: str) -> None:
    response = server.send("GET", f"{MAPS}?timeoutSeconds=1&{query}")
    assert response.status == 422
    assert text in response.json["message"]


def test_initial_events_of_a_version_in_the_future_are_refused(server: Server) -> None:
    events = watch(server, "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=999999999")
    assert [event["type"] for event in events] == ["ERROR"]
    status = events[0]["object"]
    assert (status["code"], status["reason"]) == (504, "Timeout")
    assert "Too large resource version" in status["message"]


def test_only_the_first_table_has_columns(server: Server) -> None:
    events = watch(server, "labelSelector=team", TABLE)
    assert [event["object"]["kind"] for event in events] == ["Table", "Table"]
    assert [bool(event["object"]["columnDefinitions"]) for event in events] == [True, False]
    assert events[0]["object"]["rows"][0]["cells"][:2] == ["a", 1]
    assert events[0]["object"]["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


def test_metadata_only(server: Server) -> None:
    events = watch(server, "labelSelector=team%3Da", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")
    assert [set(event["object"]) for event in events] == [{"kind", "apiVersion", "metadata"}]


def test_too_old_is_an_error_event(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = server.registry.store
    monkeypatch.setattr(store._watch_cache("configmaps"), "oldest_version", store.revision)
    events = watch(server, "resourceVersion=1")
    assert [event["type"] for event in events] == ["ERROR"]
    status = events[0]["object"]
    assert (status["code"], status["reason"], status["kind"]) == (410, "Expired", "Status")


@pytest.mark.parametrize(
    "query",
    [
        "resourceVersion=abc",
        "resourceVersion=-1",
        "fieldSelector=data.k%3D1",
        "labelSelector=%21%21",
        "timeoutSeconds=x",
    ],
)
def test_invalid_options_are_refused_before_the_stream(server: Server, query: str) -> None:
    response = server.send("GET", f"{MAPS}?watch=true&{query}")
    assert response.status == 400
    assert response.json["reason"] == "BadRequest"


def test_too_many_watches(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_server, "MAX_WATCHES", 0)
    response = server.send("GET", f"{MAPS}?watch=true")
    assert (response.status, response.headers["Retry-After"]) == (429, "1")


class Raw:
    """A connection that sends and reads only on request."""

    def __init__(self, server: Server) -> None:
        context = ssl.create_default_context(cafile=str(server.ca))
        self.socket = context.wrap_socket(
            socket.create_connection(("127.0.0.1", server.port), timeout=60), server_hostname="127.0.0.1"
        )

    def get(self, path: str) -> None:
        head = f"GET {PREFIX}{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\n\r\n"
        self.socket.sendall(head.encode())

    def read_until(self, mark: bytes) -> bytes:
        data = b""
        while mark not in data:
            piece = self.socket.recv(65536)
            if not piece:
                break
            data += piece
        return data


@pytest.fixture
def raw(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Raw]:
    monkeypatch.setattr(streaming, "CHECK_SECONDS", 0.1)
    created = Raw(server)
    yield created
    created.socket.close()


def wait_for_watches(server: Server, count: int) -> None:
    wait_for(lambda: server.api._watch_count == count, 60)


def test_a_client_that_disappears_is_noticed(server: Server, raw: Raw) -> None:
    raw.get(f"{MAPS}?watch=true")
    raw.read_until(b'"name":"b"')
    assert server.api._watch_count == 1
    raw.socket.close()
    wait_for_watches(server, 0)


def test_a_client_that_does_not_read_blocks_no_one(server: Server, raw: Raw) -> None:
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.get(f"{MAPS}?watch=true&timeoutSeconds=5")
    wait_for_watches(server, 1)
    blob = {"metadata": {"name": "big"}, "data": {"k": "x" * 900_000}}
    assert server.send("POST", MAPS, blob).status == 201
    for index in range(12):
        response = server.send(
            "PATCH", f"{MAPS}/big", {"data": {"n": str(index)}}, content_type="application/merge-patch+json"
        )
        assert response.status == 200
    assert server.send("GET", f"{MAPS}/a").status == 200
    wait_for_watches(server, 0)
    server.send("DELETE", f"{MAPS}/big")


def test_events_reach_all_watches(server: Server) -> None:
    version = server.send("GET", MAPS).json["metadata"]["resourceVersion"]
    watches = [Raw(server) for _ in range(8)]
    for each in watches:
        each.get(f"{MAPS}?watch=true&resourceVersion={version}")
    wait_for_watches(server, 8)
    make(server, "shared")
    server.end_watches()
    for each in watches:
        lines = each.read_until(b"\r\n0\r\n\r\n").splitlines()
        assert names([orjson.loads(line) for line in lines if line.startswith(b"{")]) == [("ADDED", "shared")]
        each.socket.close()


def test_every_line_is_an_event(server: Server) -> None:
    response = server.send("GET", f"{MAPS}?watch=1&timeoutSeconds=1")
    for line in response.body.splitlines():
        assert set(orjson.loads(line)) == {"type", "object"}
