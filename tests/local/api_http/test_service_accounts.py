"""Tokens of ServiceAccounts."""

from __future__ import annotations

from typing import Any

import pytest
from support.live_cluster import kubectls, version_of

from .conftest import ADMIN, DEV, Server, run_kubectl

EVERY = kubectls(oldest=27)
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"


@pytest.fixture
def account(server: Server) -> str:
    server.send("DELETE", f"{ACCOUNTS}/robot")
    assert server.send("POST", ACCOUNTS, {"metadata": {"name": "robot"}}).status == 201
    return f"{ACCOUNTS}/robot/token"


def request_token(server: Server, path: str, **spec: Any) -> str:
    answer = server.send("POST", path, {"spec": spec})
    assert answer.status == 201, answer.body
    return str(answer.json["status"]["token"])


def test_a_token_has_the_rights_of_its_account(server: Server, account: str) -> None:
    token = request_token(server, account, expirationSeconds=600)
    assert server.send("GET", "/version", token=token).status == 200
    refused = server.send("GET", "/api/v1/namespaces/default/configmaps", token=token)
    assert 'User "system:serviceaccount:default:robot" cannot list resource "configmaps"' in refused.json["message"]
    subject = {"kind": "ServiceAccount", "name": "robot", "namespace": "default"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    binding = {"metadata": {"name": "robot-views"}, "subjects": [subject], "roleRef": role}
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
    assert server.send("POST", path, binding).status == 201
    assert server.send("GET", "/api/v1/namespaces/default/configmaps", token=token).status == 200
    review = server.send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, token=token).json
    assert review["status"]["userInfo"] == {
        "username": "system:serviceaccount:default:robot",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
    }


def test_a_token_ends_with_its_account(server: Server, account: str) -> None:
    token = request_token(server, account)
    server.send("DELETE", f"{ACCOUNTS}/robot")
    assert server.send("GET", "/version", token=token).status == 401
    server.send("POST", ACCOUNTS, {"metadata": {"name": "robot"}})
    assert server.send("GET", "/version", token=token).status == 401, "it is another account of the same name"


def test_a_token_ends_with_the_object_that_it_is_bound_to(server: Server, account: str) -> None:
    secrets = "/api/v1/namespaces/default/secrets"
    made = server.send("POST", secrets, {"metadata": {"name": "anchor"}}).json
    reference = {"apiVersion": "v1", "kind": "Secret", "name": "anchor", "uid": made["metadata"]["uid"]}
    token = request_token(server, account, boundObjectRef=reference)
    assert server.send("GET", "/version", token=token).status == 200
    server.send("DELETE", f"{secrets}/anchor")
    assert server.send("GET", "/version", token=token).status == 401
    server.send("POST", secrets, {"metadata": {"name": "anchor"}})
    assert server.send("GET", "/version", token=token).status == 401, "it is another Secret of the same name"
    refused = server.send("POST", account, {"spec": {"boundObjectRef": reference}})
    assert refused.status == 409
    assert "does not match the UID in record" in refused.json["message"]
    server.send("DELETE", f"{secrets}/anchor")


@pytest.mark.parametrize(
    ("reference", "status", "text"),
    [
        ({"apiVersion": "v1", "kind": "Pod", "name": "nope"}, 404, 'pods "nope" not found'),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"},
            400,
            "cannot bind token to object of type /v1, Kind=ConfigMap",
        ),
        (
            {"apiVersion": "v1", "kind": "Pod", "name": "bound"},
            400,
            'cannot bind token for serviceaccount "robot" to pod running with different serviceaccount name.',
        ),
    ],
)
def test_a_token_that_cannot_be_bound_is_refused(
    server: Server, account: str, reference: dict[str, str], status: int, text: str
) -> None:
    pod = {"metadata": {"name": "bound"}, "spec": {"containers": [{"name": "main", "image": "busybox"}]}}
    server.send("POST", "/api/v1/namespaces/default/pods", pod)
    refused = server.send("POST", account, {"spec": {"boundObjectRef": reference}})
    assert (refused.status, refused.json["message"]) == (status, text)


def test_tokens_that_are_not_valid(server: Server, account: str) -> None:
    token = request_token(server, account, audiences=["vault"])
    assert server.send("GET", "/version", token=token).status == 401, "it is for another service"
    head, claims, signature = request_token(server, account).split(".")
    for broken in (f"{head}.{claims}.", f"{head}.{claims}.x{signature}", f"{head}..{signature}", "..", f".{signature}"):
        assert server.send("GET", "/version", token=broken).status == 401, broken


def test_requests_that_are_refused(server: Server, account: str) -> None:
    missing = server.send("POST", f"{ACCOUNTS}/none/token", {"spec": {}})
    assert (missing.status, missing.json["message"]) == (404, 'serviceaccounts "none" not found')
    short = server.send("POST", account, {"spec": {"expirationSeconds": 60}})
    assert (short.status, "less than 10 minutes" in short.json["message"]) == (422, True)
    long = server.send("POST", account, {"spec": {"expirationSeconds": 1 << 40}})
    assert (long.status, "larger than 2^32 seconds" in long.json["message"]) == (422, True)
    assert server.send("POST", account, {"spec": {}}, token=DEV).status == 403
    assert server.send("GET", account).status == 405


@pytest.mark.skipif(not EVERY, reason="no kubectl on PATH")
@pytest.mark.parametrize("binary", EVERY, ids=map(version_of, EVERY))
def test_kubectl_create_token(server: Server, account: str, binary: str) -> None:
    done = run_kubectl(binary, server, "create", "token", "robot", token=ADMIN)
    assert (done.returncode, done.stderr) == (0, "")
    assert server.send("GET", "/version", token=done.stdout.strip()).status == 200
