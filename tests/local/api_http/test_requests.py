"""Requests: paths, methods, bodies, response formats, pages and error texts."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from aksgpu.local.api.request_bodies import MAX_BODY
from aksgpu.local.kinds import KINDS

from .conftest import DEV, Server

MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"
EVENT = {"apiVersion": "v1", "kind": "Event", "name": "e", "uid": "1"}
BOTH = ["orphan", "foregroundDeletion"]


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


@pytest.fixture(scope="module", autouse=True)
def objects(server: Server) -> None:
    for name in "abcde":
        assert server.send("POST", MAPS, config_map(name, k="1")).status == 201


@pytest.mark.parametrize("token", [None, "wrong", ""])
@pytest.mark.parametrize("path", ["/api/v1/nodes", "/version", "/healthz", "/openapi/v3", "/nothing"])
def test_requests_without_a_token_are_refused(server: Server, token: str | None, path: str) -> None:
    response = server.send("GET", path, token=token)
    assert response.status == 401
    assert response.json == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Unauthorized",
        "reason": "Unauthorized",
        "code": 401,
    }


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/apis/nothing",
        "/apis/nothing/v1",
        "/apis/apps/v2/daemonsets",
        "/api/v2",
        "/openapi/v1",
        "/openapi/v3/apis/nothing/v1",
        "/api/v1/pods/x/log/y/z",
    ],
)
def test_unknown_paths(server: Server, path: str) -> None:
    response = server.send("GET", path)
    assert (response.status, response.body) == (404, b"404 page not found\n")
    assert response.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/widgets",
        "/api/v1/namespaces/default/nodes",
        "/api/v1/pods/x",
        "/api/v1/namespaces/default/configmaps/a/status",
        "/api/v1/namespaces/default/pods/p/proxy",
    ],
)
def test_unknown_resources(server: Server, path: str) -> None:
    response = server.send("GET", path)
    assert (response.status, response.json["reason"]) == (404, "NotFound")
    assert response.json["message"] == "the server could not find the requested resource"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{MAPS}/a"),
        ("PUT", MAPS),
        ("PATCH", MAPS),
        ("DELETE", "/api/v1/namespaces"),
        ("POST", "/api/v1/configmaps"),
        ("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
        ("OPTIONS", MAPS),
        ("TRACE", MAPS),
        ("GET", "/api/v1/namespaces/default/pods/x/binding"),
        ("DELETE", "/api/v1/nodes/x/status"),
    ],
)
def test_unsupported_methods(server: Server, method: str, path: str) -> None:
    response = server.send(method, path, {})
    assert (response.status, response.json["reason"]) == (405, "MethodNotAllowed")


def test_pages_add_up_to_the_list(server: Server) -> None:
    names = []
    token = ""
    versions = set()
    while True:
        page = server.send("GET", f"{MAPS}?limit=2&continue={token}").json
        names += [item["metadata"]["name"] for item in page["items"]]
        versions.add(page["metadata"]["resourceVersion"])
        token = page["metadata"].get("continue", "")
        if not token:
            break
        if len(names) == 2:
            server.send("POST", MAPS, config_map("between"))
            server.send("DELETE", f"{MAPS}/between")
    assert names == list("abcde")
    assert len(versions) == 1
    assert all(set(item) <= {"metadata", "data"} for item in page["items"])


def test_a_collection_is_deleted_up_to_its_limit(server: Server) -> None:
    for name in ("x1", "x2", "x3"):
        server.send("POST", MAPS, {"metadata": {"name": name, "labels": {"page": "x"}}})
    first = server.send("DELETE", f"{MAPS}?labelSelector=page&limit=1").json
    assert [each["metadata"]["name"] for each in first["items"]] == ["x1"]
    left = server.send("GET", f"{MAPS}?labelSelector=page").json["items"]
    assert [each["metadata"]["name"] for each in left] == ["x2", "x3"]
    rest = server.send("DELETE", f"{MAPS}?labelSelector=page&continue={first['metadata']['continue']}").json
    assert [each["metadata"]["name"] for each in rest["items"]] == ["x2", "x3"]
    assert "continue" not in rest["metadata"]


def test_a_negative_limit_is_no_limit(server: Server) -> None:
    assert len(server.send("GET", f"{MAPS}?limit=-1").json["items"]) >= 5


@pytest.mark.parametrize(
    "query",
    [
        "continue=garbage",
        "limit=x",
        "labelSelector=a%20b%20c",
        "fieldSelector=nothing",
        "resourceVersion=x",
        "includeObject=All",
    ],
)
def test_invalid_list_options(server: Server, query: str) -> None:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io" if "include" in query else "application/json"
    response = server.send("GET", f"{MAPS}?{query}", accept=accept)
    assert (response.status, response.json["reason"]) == (400, "BadRequest")


def test_response_formats(server: Server) -> None:
    one = f"{MAPS}/a"
    shown = server.send("GET", one, accept="application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").json
    assert set(shown) == {"kind", "apiVersion", "metadata"}
    table = server.send("GET", f"{one}?includeObject=None", accept="application/json;as=Table;v=v1;g=meta.k8s.io").json
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert "object" not in table["rows"][0]
    either = "application/vnd.kubernetes.protobuf,application/json"
    assert server.send("GET", one, accept=either).json["kind"] == "ConfigMap"


@pytest.mark.parametrize(
    "accept", ["application/vnd.kubernetes.protobuf", "text/html", "application/json;as=Widget", "application/yaml"]
)
def test_unsupported_response_formats(server: Server, accept: str) -> None:
    response = server.send("GET", MAPS, accept=accept)
    assert (response.status, response.json["reason"]) == (406, "NotAcceptable")


def test_yaml_bodies(server: Server) -> None:
    body = b"metadata:\n  name: from-yaml\ndata:\n  when: 2026-01-01\n  k: text\n"
    created = server.send("POST", MAPS, body, content_type="application/yaml").json
    assert created["data"] == {"k": "text", "when": "2026-01-01"}
    bomb = b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n".encode() for i in range(8)
    )
    response = server.send("POST", MAPS, bomb, content_type="application/yaml")
    assert (response.status, "aliases are not supported" in response.json["message"]) == (400, True)


DEEP = b"[" * 100_000 + b"]" * 100_000  # Newer versions of libyaml refuse this themselves.
DEEP_IN_BLOCKS = b"\n" + b"".join(b" " * (2 + level) + b"a:\n" for level in range(200))
LONG = b"[" + b"x," * 1_000_000 + b"]"


@pytest.mark.parametrize("media", ["application/yaml", "application/apply-patch+yaml"])
@pytest.mark.parametrize(
    ("data", "why"), [(DEEP, "yaml: "), (DEEP_IN_BLOCKS, "not supported"), (LONG, "not supported")]
)
def test_yaml_that_is_too_deep_or_too_large(server: Server, media: str, data: bytes, why: str) -> None:
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: deep}\ndata: " + data
    post = media == "application/yaml"
    path = MAPS if post else f"{MAPS}/deep?fieldManager=me"
    response = server.send("POST" if post else "PATCH", path, body, content_type=media)
    assert (response.status, why in response.json["message"]) == (400, True)


def test_a_list_at_an_exact_version(server: Server) -> None:
    before = server.send("GET", f"{MAPS}?limit=2").json
    version = before["metadata"]["resourceVersion"]
    assert server.send("POST", MAPS, config_map("aa")).status == 201
    exact = f"{MAPS}?limit=2&resourceVersion={version}&resourceVersionMatch="
    assert server.send("GET", exact + "Exact").json == before
    assert server.send("GET", exact + "NotOlderThan").json["items"][1]["metadata"]["name"] == "aa"
    assert server.send("DELETE", f"{MAPS}/aa").status == 200


def test_a_version_with_a_limit_is_exact(server: Server) -> None:
    before = server.send("GET", f"{MAPS}?limit=2").json
    version = before["metadata"]["resourceVersion"]
    assert server.send("POST", MAPS, config_map("aa")).status == 201
    assert server.send("GET", f"{MAPS}?limit=2&resourceVersion={version}").json == before
    token = before["metadata"]["continue"]
    refused = server.send("GET", f"{MAPS}?limit=2&resourceVersion={version}&continue={token}")
    assert refused.status == 400
    assert refused.json["message"] == "specifying resource version is not allowed when using continue"
    assert server.send("GET", f"{MAPS}?limit=2&resourceVersion=0&continue={token}").status == 200
    assert server.send("DELETE", f"{MAPS}/aa").status == 200


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("resourceVersionMatch=Exact", "is forbidden unless resourceVersion is provided"),
        ("resourceVersionMatch=Exact&resourceVersion=0", '"exact" is forbidden for resourceVersion "0"'),
        ("resourceVersionMatch=Exact&resourceVersion=2&continue=x", "is forbidden when continue is provided"),
        ("resourceVersionMatch=Newest&resourceVersion=2", 'supported values: "Exact", "NotOlderThan", ""'),
    ],
)
def test_a_version_that_is_too_old(server: Server, query: str, text: str) -> None:
    response = server.send("GET", f"{MAPS}?{query}").json
    assert response["code"] == 422 and text in response["message"]
    assert response["message"].startswith('ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: ')


def test_a_version_in_the_future(server: Server) -> None:
    response = server.send("GET", f"{MAPS}?resourceVersion=99999999")
    assert (response.status, response.json["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")
    for rv in ("1" + "0" * 30, "1e308", '"1"'):
        token = base64.urlsafe_b64encode(b'{"v":"meta.k8s.io/v1","rv":%s,"start":"default/a"}' % rv.encode()).decode()
        assert server.send("GET", f"{MAPS}?limit=1&continue={token}").status == 400


@pytest.mark.parametrize("spec", [{}, {"resourceAttributes": {"verb": "get"}, "nonResourceAttributes": {"path": "/"}}])
def test_access_reviews_need_exactly_one_subject(server: Server, spec: dict[str, Any]) -> None:
    response = server.send("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": spec})
    assert (response.status, "exactly one of" in response.json["message"]) == (422, True)


def test_token_reviews(server: Server) -> None:
    path = "/apis/authentication.k8s.io/v1/tokenreviews"

    def status(token: str, **options: Any) -> Any:
        return server.send("POST", path, {"spec": {"token": token}}, **options).json["status"]

    user = {"username": "dev", "groups": ["system:authenticated"]}
    assert status(DEV) == {"authenticated": True, "user": user}
    assert status("none") == {"user": {}, "error": "[invalid bearer token]"}
    refused = server.send("POST", path, {"spec": {}})
    assert (refused.status, refused.json["message"]) == (400, "token is required for TokenReview in authentication")
    assert server.send("POST", path, {"spec": {"token": DEV}}, token=DEV).status == 403
    rules = server.send("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", {"spec": {}})
    assert (rules.status, rules.json["message"]) == (400, "no namespace on request")


def test_the_size_of_a_body_is_limited(server: Server) -> None:
    fits = config_map("fits", k="x" * 500_000)
    assert server.send("POST", MAPS, fits).status == 201
    response = server.send("POST", MAPS, b"x" * (MAX_BODY + 1))
    assert (response.status, response.json["reason"]) == (413, "RequestEntityTooLarge")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "json parse error: "),
        (b'{"a":', "json parse error: "),
        (b"{'a':1}", 'json parse error: invalid character "\'" looking for beginning of object key string'),
        (b"[1]", "it is not an object"),
        (b"null", "it is not an object"),
        (b"[" * 100_000, "unrecognized"),
        (b'{"metadata":{"name":"\xff"}}', "unrecognized"),
    ],
)
def test_malformed_json(server: Server, body: bytes, text: str) -> None:
    response = server.send("POST", MAPS, body)
    assert response.status == 400
    assert text in response.json["message"]
    assert response.json["message"].startswith("the object provided is unrecognized (must be of type ConfigMap): ")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"kind": 3, "apiVersion": "batch/v1"},
            '3 in version "v1" cannot be handled as a ConfigMap: converting (v1.3) to (core.ConfigMap): unknown '
            "conversion",
        ),
        (
            {"kind": "ConfigMap", "apiVersion": "v2", "metadata": {"name": "x"}},
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (
            {"metadata": {"name": "x", "namespace": "kube-system"}},
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
    ],
)
def test_wrong_namespace(server: Server, body: dict[str, Any], message: str) -> None:
    response = server.send("POST", MAPS, body)
    assert (response.status, response.json["message"]) == (400, message)


def test_an_update_with_version_zero_is_unconditional(server: Server) -> None:
    body = {"metadata": {"name": "b", "resourceVersion": "0"}, "data": {"k": "1"}}
    assert server.send("PUT", f"{MAPS}/b", body).status == 200
    body["metadata"] = {"name": "b", "resourceVersion": "1"}
    assert server.send("PUT", f"{MAPS}/b", body).status == 409


def test_names_must_agree(server: Server) -> None:
    response = server.send("PUT", f"{MAPS}/a", config_map("b"))
    assert (response.status, response.json["reason"]) == (400, "BadRequest")
    assert response.json["message"] == "the name of the object (b) does not match the name on the URL (a)"


@pytest.mark.parametrize("media", ["application/json", "text/plain", ""])
def test_patches_have_four_media_types(server: Server, media: str) -> None:
    response = server.send("PATCH", f"{MAPS}/a", b"{}", content_type=media or None)
    assert (response.status, response.json["message"]) == (415, "415: Unsupported Media Type")


def test_malformed_patches(server: Server) -> None:
    for media, body in ((MERGE, b"[]"), ("application/json-patch+json", b"{}"), (MERGE, b"{")):
        response = server.send("PATCH", f"{MAPS}/a", body, content_type=media)
        assert (response.status, response.json["reason"]) == (400, "BadRequest"), body
    apply = "application/apply-patch+yaml"
    response = server.send("PATCH", f"{MAPS}/a", b"kind: ConfigMap\napiVersion: v1\n", content_type=apply)
    assert response.json["message"] == (
        'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
    )
    assert response.status == 422


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("dryRun=Some", 'dryRun: Unsupported value: "Some": supported values: "All"'),
        ("fieldValidation=x", 'fieldValidation: Unsupported value: "x": supported values: "Ignore", "Strict", "Warn"'),
        ("fieldManager=" + "x" * 129, "fieldManager: Too long: may not be more than 128 bytes"),
    ],
)
def test_invalid_options(server: Server, query: str, message: str) -> None:
    response = server.send("POST", f"{MAPS}?{query}", config_map("never"))
    assert (response.status, response.json["message"]) == (422, f'CreateOptions.meta.k8s.io "" is invalid: {message}')


@pytest.mark.parametrize(
    ("metadata", "field", "why"),
    [
        ({"generateName": "AB-"}, "generateName", "a lowercase RFC 1123 subdomain must consist of"),
        ({"generateName": "a" * 300}, "generateName", "must be no more than 253"),
        ({"ownerReferences": [EVENT]}, "ownerReferences", "/v1, Kind=Event is disallowed from being an owner"),
        ({"finalizers": BOTH}, "finalizers", "finalizer orphan and foregroundDeletion cannot be both set"),
    ],
)
def test_metadata_that_kubernetes_refuses(server: Server, metadata: dict[str, Any], field: str, why: str) -> None:
    name = {} if "generateName" in metadata else {"name": "never"}
    response = server.send("POST", MAPS, {"metadata": {**name, **metadata}})
    assert response.status == 422
    causes = [each for each in response.json["details"]["causes"] if each["field"] == f"metadata.{field}"]
    assert len(causes) == 1 and why in causes[0]["message"]


def test_a_prefix_of_names_may_end_with_a_hyphen(server: Server) -> None:
    assert server.send("POST", f"{MAPS}?dryRun=All", {"metadata": {"generateName": "run-"}}).status == 201


def test_only_an_apply_patch_can_be_forced(server: Server) -> None:
    response = server.send("PATCH", f"{MAPS}/a?force=true", {"data": {}}, content_type=MERGE)
    message = "force: Forbidden: may not be specified for non-apply patch"
    assert (response.status, response.json["message"]) == (422, f'PatchOptions.meta.k8s.io "" is invalid: {message}')


def test_dry_run_stores_nothing(server: Server) -> None:
    assert server.send("POST", f"{MAPS}?dryRun=All", config_map("dry")).status == 201
    assert server.send("GET", f"{MAPS}/dry").status == 404
    assert server.send("DELETE", f"{MAPS}/a?dryRun=All").status == 200
    assert server.send("DELETE", f"{MAPS}/a", {"dryRun": ["All"]}).status == 200
    assert server.send("DELETE", f"{MAPS}/a", {"dryRun": ["Some"]}).status == 422
    assert server.send("DELETE", MAPS, {"dryRun": ["All"]}).status == 200
    assert server.send("GET", f"{MAPS}/a").status == 200


def test_duplicate_and_unknown_fields(server: Server) -> None:
    body = b'{"metadata":{"name":"twice"},"data":{"k":"1","k":"2"},"date":{}}'
    strict = server.send("POST", f"{MAPS}?fieldValidation=Strict", body)
    assert strict.status == 400
    assert 'duplicate field "k"' in strict.json["message"]
    warned = server.send("POST", MAPS, body)
    assert warned.status == 201
    warnings = warned.headers.getlist("Warning")
    assert '299 - "duplicate field \\"k\\""' in warnings
    assert '299 - "unknown field \\"date\\""' in warnings
    server.send("DELETE", f"{MAPS}/twice")
    assert "Warning" not in server.send("POST", f"{MAPS}?fieldValidation=Ignore", body).headers


def test_delete_options_from_body_and_query(server: Server) -> None:
    server.send("POST", MAPS, config_map("gone"))
    wrong = {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}
    assert server.send("DELETE", f"{MAPS}/gone", wrong).status == 409
    assert server.send("DELETE", f"{MAPS}/gone", {"kind": "Pod"}).status == 400
    response = server.send("DELETE", f"{MAPS}/gone?propagationPolicy=Background")
    assert response.json["status"] == "Success"
    assert response.json["details"].keys() == {"name", "kind", "uid"}


def test_delete_collection(server: Server) -> None:
    for name in ("x1", "x2"):
        server.send("POST", MAPS, {"metadata": {"name": name, "labels": {"x": ""}}})
    response = server.send("DELETE", f"{MAPS}?labelSelector=x")
    assert (response.status, response.json["kind"], len(response.json["items"])) == (200, "ConfigMapList", 2)
    assert server.send("GET", f"{MAPS}?labelSelector=x").json["items"] == []


def test_health_and_version(server: Server) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/readyz/ping"):
        assert server.send("GET", path).body == b"ok"
    version = server.send("GET", "/version?timeout=5s").json
    assert (version["major"], version["minor"], version["gitVersion"]) == ("1", "36", "v1.36.2")


def test_both_forms_of_discovery_contain_every_kind(server: Server) -> None:
    wanted = {(kind.group, kind.plural) for kind in KINDS}
    aggregated = set()
    for path in ("/api", "/apis"):
        accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
        response = server.send("GET", path, accept=accept)
        assert (
            response.headers["Content-Type"] == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        )
        for group in response.json["items"]:
            for resource in group["versions"][0]["resources"]:
                aggregated.add((group["metadata"].get("name", ""), resource["resource"]))
    legacy = set()
    paths = ["/api/v1"] + [
        f"/apis/{g['preferredVersion']['groupVersion']}" for g in server.send("GET", "/apis").json["groups"]
    ]
    for path in paths:
        listed = server.send("GET", path).json
        group = listed["groupVersion"].rpartition("/")[0]
        legacy |= {(group, each["name"]) for each in listed["resources"] if "/" not in each["name"]}
    assert aggregated == legacy == wanted
    assert server.send("GET", "/apis/batch").json["preferredVersion"]["groupVersion"] == "batch/v1"
    eviction = next(r for r in server.send("GET", "/api/v1").json["resources"] if r["name"] == "pods/eviction")
    assert (eviction["group"], eviction["version"], eviction["kind"]) == ("policy", "v1", "Eviction")


def test_openapi_documents(server: Server) -> None:
    paths = server.send("GET", "/openapi/v3").json["paths"]
    document = server.send("GET", paths["apis/batch/v1"]["serverRelativeURL"])
    assert document.headers["Cache-Control"] == "public, immutable"
    job = document.json["components"]["schemas"]["io.k8s.api.batch.v1.Job"]
    assert job["x-kubernetes-group-version-kind"] == [{"group": "batch", "kind": "Job", "version": "v1"}]
    patch = document.json["paths"]["/apis/batch/v1/namespaces/{namespace}/jobs/{name}"]["patch"]
    assert {"fieldValidation"} <= {each["name"] for each in patch["parameters"]}
    assert "io.k8s.api.core.v1.PodSpec" in document.json["components"]["schemas"]


def test_openapi_v2(server: Server) -> None:
    document = server.send("GET", "/openapi/v2", accept="application/json").json
    assert document["swagger"] == "2.0"
    job = document["definitions"]["io.k8s.api.batch.v1.Job"]
    assert job["properties"]["spec"]["$ref"] == "#/definitions/io.k8s.api.batch.v1.JobSpec"
    patch = document["paths"]["/apis/batch/v1/namespaces/{namespace}/jobs/{name}"]["patch"]
    assert [each["name"] for each in patch["parameters"]] == ["fieldValidation"]


def test_an_internal_error_is_a_status_without_details(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("secret-value")

    monkeypatch.setattr(server.registry, "entry", fail)
    response = server.send("GET", "/api/v1/namespaces/default/secrets/s")
    assert (response.status, response.json["reason"]) == (500, "InternalError")
    assert b"secret-value" not in response.body


def test_authorization_comes_first(server: Server) -> None:
    response = server.send("POST", MAPS, b"not json", token=DEV)
    assert response.status == 403
    assert response.json["message"] == (
        'configmaps is forbidden: User "dev" cannot create resource "configmaps" in API group "" '
        'in the namespace "default"'
    )
    assert (
        server.send("GET", "/metrics", token=DEV).json["message"] == 'forbidden: User "dev" cannot get path "/metrics"'
    )
    assert server.send("GET", "/api/v1", token=DEV).status == 200


def test_authorization_of_one_object_and_of_apply(server: Server) -> None:
    group = "rbac.authorization.k8s.io"
    place = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]},
    ]
    server.send("POST", f"{place}/roles", {"metadata": {"name": "one"}, "rules": rules})
    reference = {"apiGroup": group, "kind": "Role", "name": "one"}
    subjects = [{"kind": "User", "apiGroup": group, "name": "dev"}]
    binding = {"metadata": {"name": "one"}, "roleRef": reference, "subjects": subjects}
    assert server.send("POST", f"{place}/rolebindings", binding).status == 201
    try:
        for query, status in (("metadata.name=mine", 200), ("metadata.name=other", 403), ("metadata.name!=mine", 403)):
            assert server.send("GET", f"{MAPS}?fieldSelector={query}", token=DEV).status == status
        assert server.send("GET", MAPS, token=DEV).status == 403
        body = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}
        media = "application/apply-patch+yaml"
        new = server.send("PATCH", f"{MAPS}/new?fieldManager=me", body, content_type=media, token=DEV)
        assert (new.status, 'cannot create resource "configmaps"' in new.json["message"]) == (403, True)
        server.send("POST", MAPS, {"metadata": {"name": "new"}})
        assert server.send("PATCH", f"{MAPS}/new?fieldManager=me", body, content_type=media, token=DEV).status == 200
    finally:
        server.send("DELETE", f"{place}/rolebindings/one")


def test_propagation_policy_in_the_query(server: Server) -> None:
    server.send("POST", MAPS, {"metadata": {"name": "owner"}})
    left = server.send("DELETE", f"{MAPS}/owner?orphanDependents=true").json
    assert left["metadata"]["finalizers"] == ["orphan"]
    both = server.send("DELETE", f"{MAPS}/owner?orphanDependents=true&propagationPolicy=Background")
    assert (both.status, both.json["reason"]) == (422, "Invalid")
    server.send(
        "PATCH", f"{MAPS}/owner", {"metadata": {"finalizers": None}}, content_type="application/merge-patch+json"
    )


def test_a_server_that_has_not_loaded_its_roles(server: Server) -> None:
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    subjects = [{"kind": "User", "name": "dev"}]
    binding = {"metadata": {"name": "dev-views"}, "roleRef": reference, "subjects": subjects}
    assert server.send("POST", path, binding).status == 201
    try:
        assert server.send("GET", MAPS, token=DEV).status == 200
        server.api.unload_roles(60)
        refused = server.send("GET", MAPS, token=DEV)
        assert (refused.status, refused.json["reason"]) == (403, "Forbidden")
        assert refused.json["message"] == (
            'configmaps is forbidden: User "dev" cannot list resource "configmaps" in API group "" in the namespace '
            '"default": RBAC: [clusterrole.rbac.authorization.k8s.io "system:basic-user" not found, '
            'clusterrole.rbac.authorization.k8s.io "system:discovery" not found, '
            'clusterrole.rbac.authorization.k8s.io "system:public-info-viewer" not found, '
            'clusterrole.rbac.authorization.k8s.io "view" not found]'
        )
        assert (
            server.send("GET", "/apis", token=DEV)
            .json["message"]
            .startswith('forbidden: User "dev" cannot get path "/apis": RBAC: [clusterrole.rbac.authorization.k8s.io')
        )
        assert server.send("GET", MAPS).status == 200  # The group of administrators needs no role.
        server.api.unload_roles(0)
        assert server.send("GET", MAPS, token=DEV).status == 200
    finally:
        server.api.unload_roles(0)
        server.send("DELETE", f"{path}/dev-views")
