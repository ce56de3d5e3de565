from __future__ import annotations

import gc
import json
import logging
import pickle
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from scripted import Request, Server
from urllib3.exceptions import HTTPError

from aksgpu import errors, waiting
from aksgpu.cluster import Cluster
from aksgpu.kube import Kube, client, decoding, kubeconfig, transport

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

Answer = Callable[[Request], None]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    servers: list[Server] = []

    def start(answer: Answer, *, user: dict[str, Any] | None = None, **options: Any) -> tuple[Kube, Server]:
        server = Server(answer).__enter__()
        servers.append(server)
        return Kube.from_kubeconfig(server.kubeconfig(tmp_path, user), **options), server

    yield start
    for server in servers:
        server.__exit__()


def thing(name: str, version: int, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": str(version)}, **more}


def test_requests_for_one_object_use_its_path(serve: Any) -> None:
    api, server = serve(lambda request: request.json(thing("j", 1)))
    api.get("Job", "j")
    api.get("Node", "n")
    api.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"generateName": "j-", "namespace": "team"}})
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}, force=True)
    api.patch("Pod", "p", {"a": None}, "team")
    api.patch("Node", "n", [{"op": "add"}], subresource="status")
    api.delete("Job", "j", propagation_policy="Foreground")
    assert server.requests.pop(-2).route == server.requests[-1].route  # read before it is deleted
    seen = [(r.command, r.route, r.headers["Content-Type"], r.query.get("fieldValidation")) for r in server.requests]
    assert seen == [
        ("GET", "/apis/batch/v1/namespaces/default/jobs/j", None, None),
        ("GET", "/api/v1/nodes/n", None, None),
        ("POST", "/apis/batch/v1/namespaces/team/jobs", "application/json", "Strict"),
        ("PATCH", "/api/v1/namespaces/default/configmaps/c", "application/apply-patch+yaml", "Strict"),
        ("PATCH", "/api/v1/namespaces/team/pods/p", "application/merge-patch+json", None),
        ("PATCH", "/api/v1/nodes/n/status", "application/json-patch+json", None),
        ("DELETE", "/apis/batch/v1/namespaces/default/jobs/j", "application/json", None),
    ]
    assert server.requests[3].query == {"fieldManager": "aksgpu", "fieldValidation": "Strict", "force": "true"}
    assert server.requests[-1].body["propagationPolicy"] == "Foreground"
    assert all(r.headers["Authorization"] == "Bearer t0" for r in server.requests)


WRITES: dict[str, Callable[[Kube], object]] = {
    "create": lambda api: api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "c-"}}),
    "apply": lambda api: api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}),
    "patch": lambda api: api.patch("ConfigMap", "c", {"data": None}),
}


@pytest.mark.parametrize("response", [{}, {"kind": "Status", "metadata": {}, "status": "Success"}, {"metadata": "c"}])
@pytest.mark.parametrize("call", [lambda api: api.get("Job", "j"), *WRITES.values()], ids=["get", *WRITES])
def test_a_response_that_is_not_an_object_is_an_error(
    serve: Any, call: Callable[[Kube], object], response: dict[str, Any]
) -> None:
    api, _ = serve(lambda request: request.json(response))
    with pytest.raises(errors.KubernetesError, match="the response is not a Kubernetes object"):
        call(api)


def test_a_response_without_a_name_is_an_error(serve: Any) -> None:
    api, _ = serve(lambda request: request.json({"metadata": {}}))
    with pytest.raises(errors.KubernetesError, match="the response is not a Kubernetes object"):
        api.get("Job", "j")


def test_lists_are_read_in_pages_and_keep_only_picked_fields(serve: Any) -> None:
    def answer(request: Request) -> None:
        assert request.query["labelSelector"] == "app in (a,b)"
        page = int(request.query.get("continue", 0))
        request.json({"items": [thing(f"p{page}", 1)], "metadata": {"continue": str(page + 1) if page < 3 else ""}})

    api, server = serve(answer)
    names = api.list("Pod", label_selector="app in (a,b)", pick=lambda pod: pod["metadata"]["name"])
    assert names == ["p0", "p1", "p2", "p3"]
    assert {r.query["limit"] for r in server.requests} == {"1000"}
    assert server.requests[0].route == "/api/v1/namespaces/default/pods"


def test_namespace_none_is_the_contexts_namespace(serve: Any) -> None:
    api, server = serve(lambda request: request.json({"items": [], "metadata": {}}))
    api.list("Pod")
    api.list("Pod", "team")
    api.list("Pod", all_namespaces=True)
    api.list("Node")
    assert [request.route for request in server.requests] == [
        "/api/v1/namespaces/default/pods",
        "/api/v1/namespaces/team/pods",
        "/api/v1/pods",
        "/api/v1/nodes",
    ]
    for call in (api.list, api.watch):
        with pytest.raises(
            errors.InvalidInput, match="`namespace` must be None with `all_namespaces=True`, got 'team'"
        ):
            call("Pod", "team", all_namespaces=True)


def test_a_list_starts_again_when_its_pages_expire(serve: Any) -> None:
    def answer(request: Request) -> None:
        if "continue" not in request.query:
            request.json({"items": [thing("a", 1)], "metadata": {"continue": "x"}})
        elif sum("continue" in r.query for r in server.requests) == 1:
            request.refuse(410, "Expired", "The provided continue parameter is too old")
        else:
            request.json({"items": [thing("b", 1)], "metadata": {}})

    api, server = serve(answer)
    assert [pod["metadata"]["name"] for pod in api.list("Pod", "team")] == ["a", "b"]


@pytest.mark.parametrize("kind", [getattr(errors, name) for name in errors.__all__])
def test_errors_can_be_pickled(kind: type[errors.AksGpuError]) -> None:
    cause = ValueError("cause")
    error = pickle.loads(pickle.dumps(kind("message", hint="Do this.", original=cause)))
    assert type(error) is kind
    assert str(error) == "message\nHint: Do this."
    assert str(error.original) == "cause"
    with pytest.raises(TypeError):
        kind("message", no_such_attribute=1)  # type: ignore[call-arg]


def test_an_error_without_a_response_has_no_http_status() -> None:
    error = errors.Unreachable("no answer")
    assert error.http_status is None
    assert error.code == ""
    assert error.status == {}


LARGE = json.dumps([{"n": n} for n in range(20_000)]).encode()


def test_large_responses_are_decoded_with_the_garbage_collector_off() -> None:
    before = gc.get_stats()[0]["collections"]
    assert len(decoding.decode(LARGE)) == 20_000
    assert gc.get_stats()[0]["collections"] - before < 5
    assert gc.isenabled()
    with pytest.raises(ValueError):
        decoding.decode(b"x" * 200_000)
    assert gc.isenabled()


@pytest.mark.parametrize(
    "body", [b"", b"NaN", b'{"a":', b"\xff", b"[" * 100_000], ids=["empty", "nan", "cut", "not UTF-8", "deep"]
)
def test_a_body_that_is_not_json_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        decoding.decode(body)


def test_the_garbage_collector_stays_off_until_the_last_thread_has_decoded() -> None:
    with decoding._without_collector():
        other = threading.Thread(target=decoding.decode, args=(LARGE,))
        other.start()
        other.join()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_garbage_collector_that_is_off_stays_off() -> None:
    gc.disable()
    try:
        decoding.decode(LARGE)
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("code", "reason", "message", "kind"),
    [
        (400, "BadRequest", 'strict decoding error: unknown field "spec.template.spec.gpuCount"', errors.Invalid),
        (500, "", "failed to create typed patch object: .spec.gpus: field not declared in schema", errors.Invalid),
        (400, "BadRequest", 'Job in version "v1" cannot be handled as a Job: quantities must match', errors.Invalid),
        (422, "Invalid", "Job.batch is invalid", errors.Invalid),
        (401, "Unauthorized", "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", 'nodes is forbidden: User "dev" cannot list', errors.Forbidden),
        (404, "NotFound", 'jobs.batch "nope" not found', errors.NotFound),
        (409, "AlreadyExists", "exists", errors.AlreadyExists),
        (409, "Conflict", 'conflict with "one": .data.a', errors.Conflict),
        (410, "Expired", "too old", errors.Expired),
        (415, "UnsupportedMediaType", "no", errors.KubernetesError),
        (503, "ServiceUnavailable", "the server is currently unable to handle the request", errors.Unreachable),
    ],
)
def test_refusals_are_exceptions_with_the_servers_message(
    serve: Any, code: int, reason: str, message: str, kind: type[errors.KubernetesError]
) -> None:
    api, _ = serve(lambda request: request.refuse(code, reason, message))
    with pytest.raises(kind, match=message.split(":")[0]) as raised, waiting.deadline(0):
        api.get("Job", "x")
    assert type(raised.value) is kind
    assert (raised.value.http_status, raised.value.code) == (code, reason)
    assert "t0" not in str(raised.value)


def test_an_error_response_without_a_status_object(serve: Any) -> None:
    api, _ = serve(lambda request: request.text("404 page not found\n", 404))
    with pytest.raises(errors.NotFound, match="page not found"):
        api.request("GET", "/apis/nothing/v1/things")


def test_a_refused_connection(serve: Any) -> None:
    api, server = serve(lambda request: None)
    server.__exit__()
    message = r"no response .* 'scripted' at 127\.0\.0\.1:\d+: the connection was refused"
    with pytest.raises(errors.Unreachable, match=message) as raised, waiting.deadline(0.5):
        api.get("Job", "x")
    assert raised.value.hint.startswith("Connect again: azure = aksgpu.connect(...), aks = cluster.get(")
    assert "start" in raised.value.hint
    assert raised.value.refused
    assert isinstance(raised.value.original, HTTPError)
    assert "urllib3" not in "".join(traceback.format_exception(raised.value))


def test_another_server_at_the_old_address_that_does_not_respond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 0.1)
    with waiting.deadline(0.5), socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        path = kubeconfig_of(f"https://{where}", tmp_path)
        with pytest.raises(errors.Unreachable, match="it may have moved to another address") as raised:
            Kube.from_kubeconfig(path).get("Job", "x")
    assert where in raised.value.message
    assert raised.value.hint.startswith("Connect again")
    assert not raised.value.refused


def kubeconfig_of(server: str, folder: Path) -> Path:
    config = {
        "current-context": "moved",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t0"}}],
        "contexts": [{"name": "moved", "context": {"cluster": "c", "user": "u"}}],
    }
    path = folder / "moved"
    path.write_text(json.dumps(config))
    return path


def test_a_refused_token_is_refreshed_once(serve: Any) -> None:
    tokens = iter(["t1", "t2", "t3"])

    def answer(request: Request) -> None:
        if request.headers["Authorization"] == "Bearer t2":
            request.json(thing("x", 1))
        else:
            request.refuse(401, "Unauthorized", "Unauthorized")

    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "kubelogin-not-here"}}
    api, server = serve(answer, user=user, refresh=lambda: next(tokens))
    assert api.get("Job", "x") == thing("x", 1)
    assert len(server.requests) == 2
    assert api.get("Job", "x") == thing("x", 1)
    assert len(server.requests) == 3


def test_a_throttled_request_is_repeated_after_the_requested_time(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(waiting, "pause", pauses.append)

    def answer(request: Request) -> None:
        if len(pauses) < 2:
            request.send_response(429)
            request.send_header("Retry-After", "7")
            request.send_header("Content-Length", "0")
            request.end_headers()
        else:
            request.json(thing("c", 1))

    api, server = serve(answer)
    assert api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}) == thing("c", 1)
    assert pauses == [7.0, 7.0]
    assert [request.command for request in server.requests] == ["GET", "GET", "GET", "POST"]


def test_credentials_that_change_in_the_file_are_used(serve: Any, tmp_path: Path) -> None:
    def answer(request: Request) -> None:
        if request.headers["Authorization"] == "Bearer new":
            request.json(thing("x", 1))
        else:
            request.refuse(401, "Unauthorized", "Unauthorized")

    api, server = serve(answer)
    with pytest.raises(errors.Unauthorized, match=r"may have been deleted or created again.*cluster\.get\("):
        api.get("Job", "x")
    assert len(server.requests) == 2  # once more with the same token, because there is no newer one
    server.kubeconfig(tmp_path, {"token": "new"})
    assert api.get("Job", "x") == thing("x", 1)


@pytest.mark.parametrize(
    "user",
    [
        {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "kubelogin-not-here", "args": []}},
        {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "false", "args": []}},
        {"auth-provider": {"name": "azure", "config": {}}},
    ],
)
def test_logins_that_would_fail_in_silence_are_refused(serve: Any, user: dict[str, Any]) -> None:
    with pytest.raises(errors.Unauthorized) as raised:
        serve(lambda request: request.json({}), user=user)
    assert "azure-identity" in raised.value.hint


def test_the_error_text_of_a_login_program_is_in_the_error_and_not_printed(
    serve: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "login"
    program.write_text("#!/bin/sh\necho please log in first >&2\nexit 1\n")
    program.chmod(0o755)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program)}}
    before = logging.getLogger().handlers[:]
    with pytest.raises(errors.Unauthorized, match=r"gave no token: .*please log in first"):
        serve(lambda request: None, user=user)
    assert logging.getLogger().handlers == before
    assert "please log in" not in capfd.readouterr().err


def test_a_login_program_that_works_is_used(serve: Any, tmp_path: Path) -> None:
    program = tmp_path / "login"
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "e"}}
    program.write_text(f"#!/bin/sh\necho '{json.dumps(credential)}'\n")
    program.chmod(0o700)
    user = {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program), "interactiveMode": "Never"}
    }
    api, server = serve(lambda request: request.json(thing("x", 1)), user=user)
    api.get("Job", "x")
    assert server.requests[0].headers["Authorization"] == "Bearer e"


def test_kubeconfigs_that_are_missing_or_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.InvalidInput, match="no kubeconfig"):
        Kube.from_kubeconfig(tmp_path / "none")
    bad = tmp_path / "bad"
    bad.write_text("a: [")
    with pytest.raises(errors.InvalidInput, match="not a kubeconfig"):
        Kube.from_kubeconfig(bad)
    bad.write_text("users: [5]")
    with pytest.raises(errors.InvalidInput, match="users are not named entries"):
        Kube.from_kubeconfig(bad)
    server = Server(lambda request: None)
    for user in ("x", {"exec": "kubelogin"}, {"auth-provider": "azure"}):
        with pytest.raises(errors.InvalidInput, match=r"the kubeconfig's .* must be a mapping, got str"):
            Kube.from_kubeconfig(server.kubeconfig(tmp_path, user))  # type: ignore[arg-type]
    path = server.kubeconfig(tmp_path)
    server.server_close()
    with pytest.raises(errors.InvalidInput, match=r"no context 'other'\nHint: Its contexts: scripted"):
        Kube.from_kubeconfig(path, context="other")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'none'}:{path}")
    assert repr(Kube.from_kubeconfig()) == "Kube(context='scripted')"


@pytest.mark.parametrize(
    "server", [None, "", "10.0.0.1", "ftp://10.0.0.1", "https://", "https://[::1", "https://10.0.0.1:x", 5]
)
def test_an_address_that_is_none_is_refused_before_a_request(tmp_path: Path, server: Any) -> None:
    path = tmp_path / "config"
    path.write_text(json.dumps({**BARE, "clusters": [{"name": "c", "cluster": {"server": server} if server else {}}]}))
    with pytest.raises(errors.InvalidInput, match="`server` of its cluster must be an address such as https://"):
        Kube.from_kubeconfig(path)


@pytest.mark.parametrize(
    ("part", "fields", "words"),
    [
        ("cluster", {"certificate-authority-data": "Zm9v"}, "certificate authority is not a certificate"),
        ("user", {"client-certificate-data": "Zm9v", "client-key-data": "Zm9v"}, "certificate and key are not a pair"),
    ],
)
def test_certificates_that_are_none_are_refused_before_a_request(
    tmp_path: Path, part: str, fields: dict[str, str], words: str
) -> None:
    config = {
        **BARE,
        "clusters": [
            {"name": "c", "cluster": {"server": "https://127.0.0.1:9", **(fields if part == "cluster" else {})}}
        ],
        "users": [{"name": "u", "user": fields if part == "user" else {}}],
    }
    path = tmp_path / "config"
    path.write_text(json.dumps(config))
    with pytest.raises(errors.InvalidInput, match=f"context 'x' of the kubeconfig cannot be used: its .*{words}"):
        Kube.from_kubeconfig(path)


BARE = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "x",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}],
    "users": [{"name": "u", "user": {}}],
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
}
"""A kubeconfig of a server that nobody connects to."""


AS_JANE = {
    "token": "t0",
    "as": "jane",
    "as-uid": "17",
    "as-groups": ["students", "system:masters"],
    "as-user-extra": {"example.com/Scope": ["a", "b"]},
}


def test_a_kubeconfigs_impersonation_is_sent_with_every_request(serve: Any) -> None:
    api, server = serve(lambda request: request.json({"items": [], "metadata": {}}), user=AS_JANE)
    api.list("Pod")
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}})
    api.log("p").read()
    assert len(server.requests) == 3
    for request in server.requests:
        assert request.headers["Authorization"] == "Bearer t0"
        assert request.headers["Impersonate-User"] == "jane"
        assert request.headers["Impersonate-Uid"] == "17"
        assert request.headers.get_all("Impersonate-Group") == ["students", "system:masters"]
        assert request.headers.get_all("Impersonate-Extra-example.com%2FScope") == ["a", "b"]


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"as-groups": ["system:masters"]}, "as-groups without `as`"),
        ({"as-uid": "1"}, "as-uid without `as`"),
        ({"as": "jane\nImpersonate-Group: system:masters"}, "`as` .* must be printable ASCII"),
        ({"as": 5}, "`as` .* must be printable ASCII"),
        ({"as": "jane", "as-groups": "students"}, "`as-groups` .* must be a list of strings"),
        ({"as": "jane", "as-user-extra": ["a"]}, "`as-user-extra` .* must be a mapping"),
        ({"as": "jane", "as-user-extra": {"a": ["\u0394"]}}, "`as-user-extra` .* must be printable ASCII"),
    ],
)
def test_impersonation_that_cannot_be_sent_is_refused(serve: Any, user: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InvalidInput, match=message):
        serve(lambda request: request.json({}), user={"token": "t0", **user})


def test_other_kinds_are_discovered_once(serve: Any) -> None:
    def answer(request: Request) -> None:
        if request.route == "/apis":
            request.json({"groups": [{"preferredVersion": {"groupVersion": "example.com/v1"}}]})
        elif request.route == "/api/v1":
            request.json({"resources": [{"name": "pods", "kind": "Pod", "namespaced": True}]})
        elif request.route == "/apis/example.com/v1":
            resources = [{"name": "widgets/status", "kind": "Widget", "namespaced": True}]
            request.json({"resources": [*resources, {"name": "widgets", "kind": "Widget", "namespaced": False}]})
        else:
            request.json({"items": [], "metadata": {}})

    api, server = serve(answer)
    assert api.list("Widget") == api.list("Widget") == []
    assert [r.route for r in server.requests][-2:] == ["/apis/example.com/v1/widgets"] * 2
    with pytest.raises(errors.NotFound, match="no kind 'Gadget'"):
        api.get("Gadget", "x")


def test_a_watch_starts_with_existing_objects_and_continues_after_each_end(serve: Any) -> None:
    def answer(request: Request) -> None:
        if "watch" not in request.query:
            request.json({"items": [thing("a", 1)], "metadata": {"resourceVersion": "5"}})
            return
        position = int(request.query["resourceVersion"])
        request.begin()
        if position == 5:
            request.event("MODIFIED", thing("a", 6))
            request.event("BOOKMARK", thing("", 8))
            request.end()
        elif position == 8:
            request.event("ADDED", thing("b", 9))
            request.chunk(b'{"type": "DELETED", "obj')
            request.drop()
        elif position == 9:
            request.event("DELETED", thing("b", 10))
            request.silence()

    api, server = serve(answer)
    events = [(change, obj["metadata"]["name"]) for change, obj in islice(api.watch("Pod"), 4)]
    assert events == [("ADDED", "a"), ("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "b")]
    watches = [r.query for r in server.requests if "watch" in r.query]
    assert [q["resourceVersion"] for q in watches] == ["5", "8", "9"]
    assert all(q["timeoutSeconds"] == "120" for q in watches)


@pytest.mark.parametrize("shape", ["event", "status"])
def test_a_watch_that_expires_lists_again_and_yields_the_differences(serve: Any, shape: str) -> None:
    states = [[thing("a", 1), thing("b", 2), thing("c", 3)], [thing("a", 1), thing("b", 8), thing("d", 9)]]

    def answer(request: Request) -> None:
        if "watch" not in request.query:
            request.json({"items": states.pop(0), "metadata": {"resourceVersion": str(10 * (2 - len(states)))}})
        elif request.query["resourceVersion"] == "10":
            gone = {"kind": "Status", "message": "too old resource version", "reason": "Expired", "code": 410}
            if shape == "status":
                request.refuse(410, "Expired", "too old")
            else:
                request.begin()
                request.event("ERROR", gone)
                request.end()
        else:
            request.begin()
            request.silence()

    api, server = serve(answer)
    events = [(change, obj["metadata"]["name"]) for change, obj in islice(api.watch("Pod"), 6)]
    assert events == [("ADDED", n) for n in "abc"] + [("DELETED", "c"), ("MODIFIED", "b"), ("ADDED", "d")]
    assert len(server.requests) <= 5


def successor(name: str, uid: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": str(version)}}


def names_and_uids(events: Any) -> list[tuple[str, str]]:
    return [(change, obj["metadata"]["uid"]) for change, obj in events]


def test_a_watch_that_lists_again_yields_a_deletion_before_the_successor_of_the_same_name(serve: Any) -> None:
    states = [[successor("a", "a1", 1), thing("z", 2)], [successor("a", "a2", 8), thing("n", 9)]]

    def answer(request: Request) -> None:
        if "watch" not in request.query:
            request.json({"items": states.pop(0), "metadata": {"resourceVersion": str(10 * (2 - len(states)))}})
        elif request.query["resourceVersion"] == "10":
            request.refuse(410, "Expired", "too old")
        else:
            request.begin()
            request.silence()

    api, _ = serve(answer)
    assert names_and_uids(islice(api.watch("Pod"), 6)) == [
        ("ADDED", "a1"),
        ("ADDED", "z"),
        ("DELETED", "a1"),
        ("DELETED", "z"),
        ("ADDED", "a2"),
        ("ADDED", "n"),
    ]


def test_a_resumed_watch_yields_a_deletion_that_it_missed_before_the_successor(serve: Any) -> None:
    def answer(request: Request) -> None:
        if "watch" not in request.query:
            request.json({"items": [successor("a", "a1", 1)], "metadata": {"resourceVersion": "5"}})
            return
        request.begin()
        if request.query["resourceVersion"] == "5":
            request.event("MODIFIED", successor("a", "a1", 6))
            request.drop()
        elif request.query["resourceVersion"] == "6":
            request.event("MODIFIED", successor("a", "a2", 8))
            request.event("DELETED", successor("a", "a1", 9))
            request.event("DELETED", successor("a", "a2", 10))
            request.silence()

    api, _ = serve(answer)
    assert names_and_uids(islice(api.watch("Pod"), 5)) == [
        ("ADDED", "a1"),
        ("MODIFIED", "a1"),
        ("DELETED", "a1"),
        ("ADDED", "a2"),
        ("DELETED", "a2"),
    ]


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_watch_survives_temporary_failures(serve: Any, code: int) -> None:
    def answer(request: Request) -> None:
        if len(server.requests) in (1, 3):
            request.refuse(code, "", "again")
        elif "watch" not in request.query:
            request.json({"items": [thing("a", 1)], "metadata": {"resourceVersion": "5"}})
        else:
            request.begin()
            request.event("MODIFIED", thing("a", 6))
            request.silence()

    api, server = serve(answer)
    assert [change for change, _ in islice(api.watch("Pod"), 2)] == ["ADDED", "MODIFIED"]


def test_a_watch_without_a_response_is_an_error(serve: Any) -> None:
    api, _ = serve(lambda request: request.refuse(503, "", "starting"))
    with pytest.raises(errors.Unreachable, match=r"the watch ended after 0\.5 s without a response: starting"):
        list(api.watch("Pod", timeout=0.5))


def test_a_watch_without_time_asks_once(serve: Any) -> None:
    api, server = serve(lambda request: request.refuse(503, "", "starting"))
    with waiting.deadline(0), pytest.raises(errors.Unreachable, match="without a response: starting"):
        list(api.watch("Pod"))
    assert len(server.requests) == 1
    api, _ = serve(lambda request: request.json({"items": [thing("a", 1)], "metadata": {"resourceVersion": "5"}}))
    assert list(api.watch("Pod", timeout=0)) == [("ADDED", thing("a", 1))]


def test_a_server_with_another_certificate_is_not_asked_again(tmp_path: Path) -> None:
    import ssl

    import trustme

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with Server(lambda request: request.json({})) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        path = kubeconfig_of(f"https://127.0.0.1:{server.server_port}", tmp_path)
        with pytest.raises(errors.Unreachable, match="TLS failed") as raised:
            Kube.from_kubeconfig(path).get("Job", "x")
    assert raised.value.permanent
    assert "cluster.get(azure, name, resource_group=...)" in raised.value.hint


def test_a_watch_from_a_position_that_is_too_old_is_an_error(serve: Any) -> None:
    api, _ = serve(lambda request: request.refuse(410, "Expired", "too old"))
    with pytest.raises(errors.Expired):
        next(api.watch("Pod", resource_version="1"))


def test_a_silent_watch_ends_at_its_timeout(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from aksgpu.kube import watch

    monkeypatch.setattr(watch, "GRACE", 4.0)

    def answer(request: Request) -> None:
        request.begin()
        request.silence()  # not even the end that timeoutSeconds asks for

    api, _ = serve(answer)
    assert list(api.watch("Pod", resource_version="1", timeout=0.3)) == []


def test_a_watch_that_is_closed_at_once_is_not_repeated_in_a_busy_loop(serve: Any) -> None:
    def answer(request: Request) -> None:
        request.begin()
        request.end()

    api, server = serve(answer)
    assert list(api.watch("Pod", resource_version="1", timeout=1.0)) == []
    assert len(server.requests) < 10


def test_objects_without_a_name_or_kind_are_refused_before_anything_is_sent(serve: Any) -> None:
    api, server = serve(lambda request: request.json({}))
    for obj in ({}, {"kind": "Job"}, {"apiVersion": "batch/v1", "kind": "Job"}):
        with pytest.raises(errors.InvalidInput):
            api.create(obj)
    with pytest.raises(errors.InvalidInput):
        api.get("Job", "")
    assert server.requests == []


def test_importing_kube_does_not_import_the_kubernetes_package() -> None:
    code = "import sys, aksgpu.kube, aksgpu.logs; sys.exit('kubernetes' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_table_of_kinds_needs_no_discovery() -> None:
    assert {kind.api_version for kind in client.KINDS.values()} == {"v1", "batch/v1", "apps/v1"}


# Against the laptop AKS


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


def test_an_objects_life_is_watched(aks: Cluster) -> None:
    events = aks.kube.watch("ConfigMap", "default", field_selector="metadata.name=watched", timeout=120)
    api = aks.kube
    api.create(config_map("watched", a="1"))
    seen = [next(events)]
    api.patch("ConfigMap", "watched", {"data": {"a": "2"}})
    seen.append(next(events))
    api.delete("ConfigMap", "watched")
    seen.append(next(events))
    assert [(change, obj["data"]["a"]) for change, obj in seen] == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]
    assert list(api.watch("ConfigMap", "default", field_selector="metadata.name=watched", timeout=5)) == []


def test_pages_of_the_laptop(aks: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(5):
        aks.kube.apply({**config_map(f"page-{n}"), "metadata": {"name": f"page-{n}", "labels": {"test": "pages"}}})
    monkeypatch.setattr(client, "PAGE", 2)
    names = aks.kube.list("ConfigMap", label_selector="test=pages", pick=lambda obj: obj["metadata"]["name"])
    assert names == [f"page-{n}" for n in range(5)]
    for name in names:
        aks.kube.delete("ConfigMap", name)


def test_apply_is_refused_where_another_manager_owns_the_field(aks: Cluster) -> None:
    api = aks.kube
    api.apply(config_map("owned", a="1"))
    assert api.apply(config_map("owned", a="2"))["data"] == {"a": "2"}
    taken = {"fieldManager": "other", "force": True}
    path = "/api/v1/namespaces/default/configmaps/owned"
    content_type = "application/apply-patch+yaml"
    api.request("PATCH", path, params=taken, body=config_map("owned", a="3"), content_type=content_type)
    with pytest.raises(errors.Conflict, match='conflict with "other"'):
        api.apply(config_map("owned", a="4"))
    assert api.apply(config_map("owned", a="4"), force=True)["data"] == {"a": "4"}
    api.delete("ConfigMap", "owned")


def test_discovery_and_refusals_of_the_laptop(aks: Cluster) -> None:
    api = aks.kube
    assert api.list("Lease", "kube-node-lease")
    assert api.create(config_map("never"), dry_run=True)["metadata"]["name"] == "never"
    with pytest.raises(errors.NotFound):
        api.get("ConfigMap", "never")
    with pytest.raises(errors.Invalid, match="unknown field"):
        api.create({**config_map("never"), "dat": {}})
    with pytest.raises(errors.NotFound, match="no kind 'Widget'"):
        api.list("Widget")
    assert api.request("GET", "/version")["gitVersion"].startswith("v1.")


def kubeconfig_as(aks: Cluster, folder: Path, **user: Any) -> Path:
    """Return the cluster's kubeconfig with additional fields in its user."""
    config = kubeconfig.load(aks.kube._transport._path)
    for entry in config["users"]:
        entry["user"] = {**entry["user"], **user}
    path = folder / "impersonating"
    path.write_text(json.dumps(config))
    return path


def test_an_impersonated_user_has_only_their_own_rights_on_the_laptop(aks: Cluster, tmp_path: Path) -> None:
    assert aks.kube.list("Node")
    jane = Kube.from_kubeconfig(kubeconfig_as(aks, tmp_path, **{"as": "jane"}))
    with pytest.raises(errors.Forbidden, match='User "jane" cannot list resource "nodes"'):
        jane.list("Node")
    with pytest.raises(errors.Forbidden, match='User "jane" cannot create'):
        jane.create(config_map("as-jane"))
    masters = {"as": "jane", "as-groups": ["system:masters"]}
    assert Kube.from_kubeconfig(kubeconfig_as(aks, tmp_path, **masters)).list("Node")


@pytest.mark.parametrize("header", ["Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-scopes"])
def test_the_laptop_refuses_impersonation_without_a_user(aks: Cluster, tmp_path: Path, header: str) -> None:
    api = Kube.from_kubeconfig(kubeconfig_as(aks, tmp_path))
    api._transport._impersonation = [(header, "value")]
    with pytest.raises(errors.KubernetesError, match="without impersonating a user"):
        api.list("Node")
