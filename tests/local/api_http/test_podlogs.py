"""The ``log`` subresource: what the node agent is asked for, and error texts."""

from __future__ import annotations

from typing import Any

import pytest
import urllib3

from aksgpu.local.api import streaming

from .conftest import DEV, Server
from .test_watch import Raw

PODS = "/api/v1/namespaces/default/pods"
RUNNING = {"running": {"startedAt": "2026-11-23T10:00:00Z"}}


def make(server: Server, name: str, state: dict[str, Any] | None, *, node: str = "n", **more: Any) -> None:
    server.send("DELETE", f"{PODS}/{name}?gracePeriodSeconds=0")
    containers = [{"name": each, "image": "i"} for each in more.get("names", ["main"])]
    spec: dict[str, Any] = {"containers": containers, **({"nodeName": node} if node else {})}
    if "inits" in more:
        spec["initContainers"] = [{"name": each, "image": "i"} for each in more["inits"]]
    assert server.send("POST", PODS, {"metadata": {"name": name}, "spec": spec}).status == 201
    if state is not None:
        one = {"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        status = {"status": {"containerStatuses": [{**one, "lastState": more.get("last", {})}]}}
        response = server.send("PATCH", f"{PODS}/{name}/status", status, content_type="application/merge-patch+json")
        assert response.status == 200, response.body


def get(server: Server, name: str, query: str = "") -> tuple[int, str]:
    response = server.send("GET", f"{PODS}/{name}/log?{query}", accept="application/json, */*")
    return response.status, response.json["message"] if response.status >= 400 else response.body.decode()


def test_output_is_passed_on_unchanged(server: Server) -> None:
    make(server, "runs", RUNNING)
    query = (
        "container=main&follow=true&timestamps=true&tailLines=2&limitBytes=99&sinceTime=2026-11-23T10:59:32.151733689Z"
    )
    response = server.send("GET", f"{PODS}/runs/log?{query}", accept="application/json, */*")
    assert (response.status, response.body) == (200, b"line 1\nline 2\n")
    assert response.headers["Content-Type"] == "text/plain"
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert server.logs.requested == {
        "namespace": "default",
        "pod": "runs",
        "container": "main",
        "follow": True,
        "previous": False,
        "timestamps": True,
        "tail_lines": 2,
        "limit_bytes": 99,
        "since_seconds": None,
        "since_time": "2026-11-23T10:59:32Z",
    }


def test_defaults(server: Server) -> None:
    make(server, "plain", {"terminated": {"exitCode": 0}})
    assert get(server, "plain") == (200, "line 1\nline 2\n")
    assert server.send("GET", f"{PODS}/plain/log", accept="text/plain").status == 200
    requested = server.logs.requested
    assert (requested["container"], requested["follow"], requested["tail_lines"], requested["since_time"]) == (
        "main",
        False,
        None,
        None,
    )


def test_a_pod_without_a_node_has_no_content(server: Server) -> None:
    make(server, "waits", None, node="")
    assert get(server, "waits") == (204, "")


@pytest.mark.parametrize(
    ("state", "query", "message"),
    [
        ({"waiting": {"reason": "ErrImagePull"}}, "", "is waiting to start: image can't be pulled"),
        ({"waiting": {"reason": "ImagePullBackOff"}}, "", "is waiting to start: trying and failing to pull image"),
        ({"waiting": {"reason": "ContainerCreating"}}, "", "is waiting to start: ContainerCreating"),
        (None, "", "is waiting to start: ContainerCreating"),
    ],
)
def test_not_started(server: Server, state: dict[str, Any] | None, query: str, message: str) -> None:
    make(server, "late", state)
    assert get(server, "late", query) == (400, f'container "main" in pod "late" {message}')


def test_previous(server: Server) -> None:
    make(server, "again", {"waiting": {"reason": "CrashLoopBackOff"}}, last={"terminated": {"exitCode": 1}})
    assert get(server, "again", "previous=true")[0] == 200
    assert server.logs.requested["previous"] is True
    assert get(server, "again")[0] == 200
    make(server, "first", RUNNING)
    refused = (400, 'previous terminated container "main" in pod "first" not found')
    assert get(server, "first", "previous=true") == refused


def test_container_selection(server: Server) -> None:
    make(server, "many", RUNNING, names=["main", "side"], inits=["prepare"])
    assert get(server, "many", "container=nope") == (400, "container nope is not valid for pod many")
    choice = (
        "a container name must be specified for pod many, choose one of: [main side] "
        "or one of the init containers: [prepare]"
    )
    assert get(server, "many") == (400, choice)
    assert get(server, "many", "container=main")[0] == 200
    assert get(server, "nope") == (404, 'pods "nope" not found')


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("tailLines=-1", 422),
        ("limitBytes=0", 422),
        ("sinceSeconds=0", 422),
        ("tailLines=x", 400),
        ("sinceTime=yesterday", 400),
        ("sinceTime=2026-11-23T10:59:32Z&sinceSeconds=3", 422),
    ],
)
def test_bad_options(server: Server, query: str, code: int) -> None:
    make(server, "opt", RUNNING)
    assert get(server, "opt", query)[0] == code


def test_a_follower_that_disconnects_is_noticed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "CHECK_SECONDS", 0.1)
    make(server, "long", RUNNING)
    server.logs.closed.clear()
    monkeypatch.setattr(server.logs, "keep_open", True)
    raw = Raw(server)
    raw.get(f"{PODS}/long/log?follow=true")
    assert b"line 2" in raw.read_until(b"line 2")
    assert not server.logs.closed.is_set()
    raw.socket.close()
    assert server.logs.closed.wait(60)


def test_an_error_while_streaming_cuts_the_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def pieces() -> Any:
        yield b"line 1\n"
        raise RuntimeError("the node fell over")

    make(server, "falls", RUNNING)
    monkeypatch.setattr(server.logs, "_pieces", pieces)
    with pytest.raises(urllib3.exceptions.HTTPError):
        server.send("GET", f"{PODS}/falls/log")


def test_exec_requires_permission_to_create(server: Server) -> None:
    """A WebSocket starts with GET, but exec is not a read."""
    make(server, "runs", RUNNING)
    rules = [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"]}]
    role = {"metadata": {"name": "log-reader"}, "rules": rules}
    roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    assert server.send("POST", f"{roles}/roles", role).status == 201
    subjects = [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "dev"}]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "log-reader"}
    binding = {"metadata": {"name": "log-reader"}, "subjects": subjects, "roleRef": reference}
    assert server.send("POST", f"{roles}/rolebindings", binding).status == 201
    path = f"{PODS}/runs/exec?command=true&stdout=true"
    refused = server.send("GET", path, token=DEV)
    assert refused.status == 403
    assert 'User "dev" cannot create resource "pods/exec" in API group ""' in refused.json["message"]
    rules[0]["verbs"] = ["create"]
    assert server.send("PUT", f"{roles}/roles/log-reader", role).status == 200
    allowed = server.send("GET", path, token=DEV)
    assert (allowed.status, allowed.json["message"].partition(":")[0]) == (400, "Upgrade request required")
    assert server.send("POST", f"{PODS}/runs/exec?stdout=true").json["reason"] == "BadRequest"
