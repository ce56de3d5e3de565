"""Malformed requests: no response is a 500 or a traceback, and the server stays usable.

Requests are random with a fixed seed. They are valid requests with invalid parts, so that they pass the first checks.
"""

from __future__ import annotations

import copy
import json
import random
import socket
import ssl
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import yaml
from support import recorded

from aksgpu.local.kinds import KINDS, Kind

from .conftest import ADMIN, DEV, PREFIX, Response, Server

REQUESTS = 20_000
SEEDS = 4

ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63,
    2**64,
    1e308,
    1.5,
    "",
    " ",
    "x" * 300,
    "\0",
    "é",
    "a/b",
    "..",
    "$patch",
    "-1",
    "1Ki",
    "9" * 400,
    "1e999999999",
    "2026-13-45T00:00:00Z",
    [],
    [None],
    [[]],
    [{}],
    {},
    {"": {}},
    {"$patch": "delete"},
    {"name": None},
    {"a": {"b": [1]}},
    ["a", 1],
    {"matchLabels": []},
    {"matchExpressions": [{"key": "a", "operator": "Maybe"}]},
]
TEXTS = [
    "",
    "x",
    "default",
    "a,b",
    "a in (",
    "!",
    "!!",
    "a=b=c",
    "=,=",
    "metadata.name=",
    "\u2028",
    "%00",
    "eyJ2IjoxfQ",
    "0",
    "-1",
    "9" * 30,
    "true",
    "All",
    "a" * 2000,
    "spec.nodeName!=x\\",
    "metadata.name\\=x=y",
    "a notin (b,,)",
    "a>1,b<x",
]
QUERIES = [
    "labelSelector",
    "fieldSelector",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "dryRun",
    "fieldManager",
    "fieldValidation",
    "force",
    "pretty",
    "includeObject",
    "propagationPolicy",
    "gracePeriodSeconds",
    "orphanDependents",
    "container",
    "tailLines",
    "sinceTime",
    "sinceSeconds",
    "limitBytes",
    "previous",
    "timeout",
]
MEDIA = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "text/plain",
    "",
    "application/json; charset=x",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/json-patch+json",
    "application/apply-patch+yaml",
    "\x7f",
]
ACCEPTS = [
    "application/json",
    "*/*",
    "application/yaml",
    "",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    ";;,,=",
    "text/*",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/json;as=;v",
]
PATHS = [
    "/" + "a/" * 500,
    "/api/v1/namespaces//pods",
    "/api/v1/%2e%2e/%2e%2e",
    "/apis///",
    "/api/v1/namespaces/default/pods/%00",
    "/apis/batch/v1/watch/jobs",
    "/openapi/v3/../../etc/passwd",
    "/api/v1/namespaces/default/pods/p/proxy/x",
    "//",
    "/version/x",
    "/api/v1/namespaces/default/pods/p/exec?command=sh",
    "/healthz/../api/v1/secrets",
]
OPS = ["add", "remove", "replace", "move", "copy", "test", "nope", None, 1]
POINTERS = [
    "",
    "/",
    "/metadata",
    "/metadata/name",
    "/spec/containers/-",
    "/spec/containers/99",
    "/spec/containers/0/image",
    "/data/~2",
    "a",
    "/metadata/labels/x~1y",
    "/" * 50,
    None,
    3,
]

GOOD: dict[str, dict[str, Any]] = {
    "PersistentVolumeClaim": {
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    },
    "Service": {"spec": {"ports": [{"port": 80}]}},
    "ResourceQuota": {"spec": {"hard": {"pods": "1k", "requests.nvidia.com/gpu": "4"}}},
    "ClusterRoleBinding": {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "s"}},
    "PriorityClass": {"value": 10},
    "Secret": {"data": {"k": "dg=="}},
    "SelfSubjectRulesReview": {"spec": {"namespace": "default"}},
    "TokenReview": {"spec": {"token": "none"}},
    "SelfSubjectAccessReview": {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}},
}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "FOO"]


def collection(kind: Kind, namespace: str = "default") -> str:
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    return f"{base}/namespaces/{quote(namespace)}/{kind.plural}" if kind.namespaced else f"{base}/{kind.plural}"


def samples() -> dict[str, dict[str, Any]]:
    """Return a valid object of each kind."""
    found: dict[str, dict[str, Any]] = {}
    for obj in recorded.objects():
        found.setdefault(obj["kind"], obj)
    for path in recorded.RECORDINGS.glob("manifests/*.yaml"):
        for obj in yaml.safe_load_all(path.read_text()):
            found[obj["kind"]] = obj
    for kind in KINDS:
        found.setdefault(kind.kind, {"metadata": {"name": "s"}, **GOOD.get(kind.kind, {})})
    return found


class RequestFuzzer:
    """Makes random requests."""

    def __init__(self, seed: int) -> None:
        self.random_source = random.Random(seed)
        self.samples = samples()

    def pick(self, choices: Any) -> Any:
        return self.random_source.choice(choices)

    def mutate(self, value: Any) -> Any:
        """Return a copy with one to three parts replaced, removed or added."""
        root = {"": copy.deepcopy(value)}
        for _ in range(self.random_source.randint(1, 3)):
            owner: Any = root
            key: Any = ""
            while isinstance(owner[key], (dict, list)) and owner[key] and self.random_source.random() < 0.8:
                owner = owner[key]
                key = self.pick(list(owner)) if isinstance(owner, dict) else self.random_source.randrange(len(owner))
            if isinstance(owner, dict) and key and self.random_source.random() < 0.2:
                del owner[key]
            else:
                owner[key] = copy.deepcopy(self.pick(ODD))
        return root[""]

    def create_samples(self, server: Server) -> None:
        """Create the valid objects that do not exist."""
        for kind in KINDS:
            obj = copy.deepcopy(self.samples[kind.kind])
            obj["metadata"] = {k: v for k, v in obj["metadata"].items() if k in ("name", "labels", "annotations")}
            server.send("POST", collection(kind), obj)

    def body(self, kind: Kind) -> Any:
        obj = self.samples[kind.kind]
        roll = self.random_source.random()
        if roll < 0.1:
            return self.random_source.randbytes(self.random_source.randint(0, 200))
        if roll < 0.15:
            return orjson.dumps(obj)[: self.random_source.randint(0, 100)]
        if roll < 0.3:
            return [
                {
                    "op": self.pick(OPS),
                    "path": self.pick(POINTERS),
                    "from": self.pick(POINTERS),
                    "value": self.pick(ODD),
                }
                for _ in range(self.random_source.randint(0, 3))
            ]
        return self.mutate(obj)

    def path(self, kind: Kind) -> tuple[str, list[str]]:
        """Return a path and the methods that it supports."""
        if self.random_source.random() < 0.05:
            return str(self.pick(PATHS)), METHODS
        path = collection(kind, self.pick(["default"] * 9 + ["nowhere", "Ä", " "]))
        if self.random_source.random() < 0.3:
            return path, [
                "GET",
                "GET",
                "POST",
                "POST",
                "POST",
                "DELETE" if self.random_source.random() < 0.1 else "GET",
            ]
        own = self.samples[kind.kind]["metadata"]["name"]
        path += f"/{quote(self.pick([own] * 9 + ['x', '%', 'Ä', 'a' * 300]), safe='')}"
        if self.random_source.random() < 0.3:
            part = self.pick([*kind.subresources, "status", "scale", "x/y"])
            return f"{path}/{part}", ["POST"] if part in ("binding", "eviction") else ["GET", "PUT", "PATCH", "PATCH"]
        return path, [
            "GET",
            "PUT",
            "PUT",
            "PATCH",
            "PATCH",
            "PATCH",
            "PATCH",
            "DELETE" if self.random_source.random() < 0.3 else "GET",
        ]

    def query(self) -> str:
        names = [self.pick(QUERIES) for _ in range(self.pick([0, 0, 1, 1, 2, 5]))]
        return "&".join(f"{name}={quote(self.pick(TEXTS))}" for name in names)

    def send(self, server: Server) -> tuple[str, Response]:
        kind = self.pick(KINDS)
        path, methods = self.path(kind)
        query = self.query()
        method = self.pick(METHODS if self.random_source.random() < 0.1 else methods)
        if "?" not in path and query:
            path += f"?{query}"
        media = (
            self.pick(MEDIA)
            if self.random_source.random() < 0.3
            else self.pick(MEDIA[6:10])
            if method == "PATCH"
            else MEDIA[0]
        )
        body = None if method in ("GET", "HEAD") else self.body(kind)
        response = server.send(
            method,
            path,
            body if body is None or isinstance(body, bytes) else json.dumps(body, default=str).encode(),
            content_type=media,
            accept=self.pick(ACCEPTS) if self.random_source.random() < 0.2 else "application/json",
            token=DEV if self.random_source.random() < 0.02 else ADMIN,
        )
        return f"{method} {path} {media} {str(body)[:1500]}", response


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_random_requests_get_a_valid_response(server: Server, seed: int) -> None:
    fuzzer = RequestFuzzer(seed)
    codes = set()
    for turn in range(REQUESTS // SEEDS):
        if turn % 200 == 0:
            fuzzer.create_samples(server)
        sent, response = fuzzer.send(server)
        codes.add(response.status)
        # Kubernetes answers 500 to a new object with a version.
        refused = response.status in (500, 504) and b"Internal error" not in response.body
        assert response.status < 500 or refused, (sent, response.body)
        assert b"Traceback" not in response.body, sent
        if response.status >= 400 and response.body.startswith(b"{"):
            assert (response.json["kind"], response.json["code"]) == ("Status", response.status), sent
    assert codes >= {200, 201, 400, 404, 405, 409, 415, 422}
    assert server.send("GET", "/api/v1/namespaces/default").status == 200


def exchange(server: Server, *pieces: bytes) -> bytes:
    """Send raw bytes over TLS, and return what comes back until the server closes the connection or stops sending."""
    context = ssl.create_default_context(cafile=str(server.ca))
    with context.wrap_socket(
        socket.create_connection(("127.0.0.1", server.port), timeout=60), server_hostname="127.0.0.1"
    ) as connection:
        connection.settimeout(1)
        try:
            for piece in pieces:
                connection.sendall(piece)
            return connection.recv(65536)
        except OSError:
            return b""


HEAD = (
    f"POST {PREFIX}/api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\n"
).encode()


@pytest.mark.parametrize(
    "pieces",
    [
        [b"\0\1\2\3\r\n\r\n"],
        [b"GET / HTTP/9.9\r\n\r\n"],
        [b"GET " + b"x" * 100_000],
        [HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n"],
        [HEAD + b"Content-Length: -1\r\n\r\n"],
        [HEAD + b"Content-Length: 100\r\n\r\n{"],
        [HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
        [HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
        [HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nxyz"],
        [HEAD + b"Expect: 200-maybe\r\nContent-Length: 2\r\n\r\n{}"],
    ],
)
def test_malformed_http(server: Server, pieces: list[bytes]) -> None:
    answered = exchange(server, *pieces)
    assert b" 500 " not in answered.partition(b"\r\n")[0]
    assert b"Traceback" not in answered
    assert server.send("GET", "/version").status == 200


def test_long_lists_do_not_block_the_server(server: Server) -> None:
    """Each of these takes part of a second. A comparison of each item with each other item would take minutes."""
    many = range(10_000)

    def send(path: str, body: Any, media: str) -> None:
        assert server.send("PATCH", path, body, content_type=f"application/{media}").status in (200, 201)

    path = "/api/v1/namespaces/default/configmaps/long"
    for prefix in "ab":
        head = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "long"}}
        body = {**head, "data": {f"{prefix}{number}": "" for number in many}}
        send(f"{path}?fieldManager=m", body, "apply-patch+yaml")
    names = [f"example.com/{number}" for number in many]
    for metadata in ({"finalizers": names}, {"$deleteFromPrimitiveList/finalizers": [*names[1:], "x"]}):
        send(path, {"metadata": metadata}, "strategic-merge-patch+json")
    assert server.send("GET", path).json["metadata"]["finalizers"] == names[:1]
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}}
    spec["template"]["spec"] = {"containers": [{"name": "c", "image": "x"}]}
    path = "/apis/apps/v1/namespaces/default/daemonsets"
    assert server.send("POST", path, {"metadata": {"name": "long"}, "spec": spec}).status == 201
    for prefix in "AB":
        containers = [{"name": "c", "env": [{"name": f"{prefix}{number}", "value": ""} for number in many]}]
        body = {"spec": {"template": {"spec": {"containers": containers}}}}
        send(f"{path}/long", body, "strategic-merge-patch+json")
