"""Names reach only the objects that they name."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import Server
from support.polling import wait_for

import aksgpu
from aksgpu import capacity, diagnose, errors, jobs, logs, plugin
from aksgpu.cluster import Cluster
from aksgpu.kube import Kube, path_names

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

NAMESPACE = "names"
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

KNOWN = [
    ".", "..", "./", "../", "/", "//", "%", "%2e", "%2E%2E", "%2e%2e", "%2f", "..%2f..", "a/b", "a/../b", "a%2fb",
    "a/.", "a/..", ".a", "a.", "a..b", "-", "a-", "", " ", "\t", "a b", "a\n", "\x00", "a\x00", "?", "a?b=c", "#",
    "a#b", "\\", "..\\..", ";", "a;b", "*", "MyJob", "é", "\uff41", "\uff0e", "\ud800", "a\udfff",
    "a" * 254, "a" * 5000,
]  # fmt: skip
PIECES = st.sampled_from([".", "..", "/", "%", "%2e", "%2F", "%25", "\\", "?", "#", " ", "\n", "\x00", "é", "A", "a"])
HOSTILE = (
    st.one_of(st.sampled_from(KNOWN), st.lists(PIECES, min_size=1, max_size=6).map("".join))
    .filter(lambda text: not (SUBDOMAIN.fullmatch(text) and len(text) <= 253))
    .filter(lambda text: not LABEL.fullmatch(text))
)
NOT_TEXT = st.sampled_from([0, 1.5, True, b"job", ["job"], ("a", "b"), {}])

MANIFEST = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "kept"},
    "spec": {
        "suspend": True,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "digits"}]}},
    },
}


def manifest(name: Any, namespace: Any = NAMESPACE) -> dict[str, Any]:
    return {**MANIFEST, "metadata": {"name": name, "namespace": namespace}}


def config_map(name: Any, namespace: Any = NAMESPACE) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}}


def calls_with_a_name(aks: Any, name: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every public function that takes the name of an object."""
    kube = aks.kube
    for kind in ("ConfigMap", "Pod", "Job", "Node", "Namespace", "Widget"):
        yield f"kube.get {kind}", lambda kind=kind: kube.get(kind, name, NAMESPACE)
        yield f"kube.find {kind}", lambda kind=kind: kube.find(kind, name, NAMESPACE)
        yield f"kube.delete {kind}", lambda kind=kind: kube.delete(kind, name, NAMESPACE)
        yield f"kube.patch {kind}", lambda kind=kind: kube.patch(kind, name, {"metadata": {"labels": {}}}, NAMESPACE)
    yield "kube.patch json", lambda: kube.patch("ConfigMap", name, [], NAMESPACE, subresource="status")
    yield "kube.create", lambda: kube.create(config_map(name))
    yield "kube.apply", lambda: kube.apply(config_map(name))
    yield "kube.log", lambda: kube.log(name, NAMESPACE)
    yield "jobs.submit", lambda: jobs.submit(aks, image="digits", name=name, namespace=NAMESPACE, replace=True)
    yield "jobs.apply", lambda: jobs.apply(aks, manifest(name), replace=True)
    yield "jobs.get", lambda: jobs.get(aks, name, namespace=NAMESPACE)
    yield "Job.delete", lambda: jobs.Job(aks, name, namespace=NAMESPACE).delete()
    yield "Job.wait", lambda: jobs.Job(aks, name, namespace=NAMESPACE).wait(timeout=0)
    yield "logs.read", lambda: logs.read(aks, name, namespace=NAMESPACE)
    yield "logs.follow", lambda: next(iter(logs.follow(aks, name, namespace=NAMESPACE)))
    yield "logs.follow_job", lambda: next(iter(logs.follow_job(aks, name, namespace=NAMESPACE)))
    yield "logs.read_job", lambda: logs.read_job(aks, name, namespace=NAMESPACE)
    yield "capacity.advertise", lambda: capacity.advertise(aks, name, gpus=0)
    yield "diagnose.job", lambda: diagnose.job(aks, name, namespace=NAMESPACE)
    yield "diagnose.pod", lambda: diagnose.pod(aks, name, namespace=NAMESPACE)


def calls_with_a_namespace(aks: Any, namespace: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every public function that takes the name of a namespace."""
    kube = aks.kube
    yield "kube.get", lambda: kube.get("ConfigMap", "kept", namespace)
    yield "kube.find", lambda: kube.find("ConfigMap", "kept", namespace)
    yield "kube.delete", lambda: kube.delete("ConfigMap", "kept", namespace)
    yield "kube.patch", lambda: kube.patch("ConfigMap", "kept", {"data": None}, namespace)
    yield "kube.list", lambda: kube.list("ConfigMap", namespace)
    yield "kube.watch", lambda: next(kube.watch("ConfigMap", namespace, timeout=0.1), None)
    yield "kube.log", lambda: kube.log("kept", namespace)
    yield "jobs.list", lambda: jobs.list(aks, namespace=namespace)
    yield "jobs.get", lambda: jobs.get(aks, "kept", namespace=namespace)
    yield "Job.delete", lambda: jobs.Job(aks, "kept", namespace=namespace).delete()
    yield "logs.read", lambda: logs.read(aks, "kept", namespace=namespace)
    yield "logs.follow", lambda: next(iter(logs.follow(aks, "kept", namespace=namespace)))
    yield "logs.follow_job", lambda: next(iter(logs.follow_job(aks, "kept", namespace=namespace)))
    yield "diagnose.job", lambda: diagnose.job(aks, "kept", namespace=namespace)
    yield "diagnose.pod", lambda: diagnose.pod(aks, "kept", namespace=namespace)
    yield "plugin.install", lambda: plugin.install(aks, namespace=namespace, force=True, timeout=1)
    if namespace != "":  # an object with an empty namespace has none, as for kubectl
        yield "kube.create", lambda: kube.create(config_map("kept", namespace))
        yield "kube.apply", lambda: kube.apply(config_map("kept", namespace))


def assert_refused(calls: Iterator[tuple[str, Callable[[], Any]]]) -> None:
    for what, call in calls:
        try:
            answer = call()
        except errors.InvalidInput as refused:
            assert "`" in refused.message, what
            assert "got" in refused.message, what
            assert len(str(refused)) < 600, what
            str(refused).encode()
        else:
            pytest.fail(f"{what} was not refused: {answer!r}")


class Stub:
    def __init__(self, kube: Kube) -> None:
        self.name = "stub"
        self.kube = kube


@pytest.fixture(scope="module")
def nothing_sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stub, Server]]:
    with Server(lambda request: request.json({"items": [], "metadata": {}})) as server:
        yield Stub(Kube.from_kubeconfig(server.kubeconfig(tmp_path_factory.mktemp("names")))), server


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.one_of(HOSTILE, NOT_TEXT))
def test_a_hostile_name_or_namespace_is_refused_before_anything_is_sent(
    nothing_sent: tuple[Stub, Server], name: Any
) -> None:
    stub, server = nothing_sent
    assert_refused(calls_with_a_namespace(stub, name))
    # submit derives a name if none is given
    assert_refused(call for call in calls_with_a_name(stub, name) if name or call[0] != "jobs.submit")
    sent = [request.route for request in server.requests if request.route != "/api/v1/nodes"]
    assert sent == []


def everything(kube: Kube) -> set[tuple[str, str, str, str]]:
    """Return all objects except those that controllers create and update at any time."""
    found = set()
    groups = kube.request("GET", "/apis")["groups"]
    for version in ("v1", *(group["preferredVersion"]["groupVersion"] for group in groups)):
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        for resource in kube.request("GET", root)["resources"]:
            if (
                "list" in resource["verbs"]
                and "/" not in resource["name"]
                and resource["kind"] not in ("Event", "Lease")
            ):
                for obj in kube.request("GET", f"{root}/{resource['name']}")["items"]:
                    metadata = obj["metadata"]
                    found.add((resource["kind"], metadata.get("namespace", ""), metadata["name"], metadata["uid"]))
    return found


def being_deleted(kube: Kube) -> list[str]:
    """Return the namespaces and pods that other tests have deleted and that still exist."""
    found = [*kube.list("Namespace"), *kube.list("Pod", all_namespaces=True)]
    return [each["metadata"]["name"] for each in found if each["metadata"].get("deletionTimestamp")]


@pytest.fixture(scope="module")
def kept(aks: Cluster) -> Iterator[Cluster]:
    """A namespace with objects of several kinds, all of which must be kept."""
    aks.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for name in ("kept", "kept-too"):
        aks.kube.apply(config_map(name))
        jobs.apply(aks, manifest(name))
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": []}
    aks.kube.apply({**role, "metadata": {"name": "names:kept"}})
    aks.kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kept", "namespace": NAMESPACE}})
    wait_for(lambda: not being_deleted(aks.kube))
    yield aks
    aks.kube.delete("ClusterRole", "names:kept")
    aks.kube.delete("Namespace", NAMESPACE)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(HOSTILE.filter(bool))
def test_a_hostile_name_changes_no_object_of_a_cluster(kept: Cluster, name: str) -> None:
    before = everything(kept.kube)
    assert ("ConfigMap", NAMESPACE, "kept") in {each[:3] for each in before}
    assert_refused(calls_with_a_name(kept, name))
    assert_refused(calls_with_a_namespace(kept, name))
    assert everything(kept.kube) == before


@pytest.mark.parametrize("name", [".", "..", "", "a/b", "a%2fb", " ", "a b", "\ud800", "a" * 254])
def test_names_of_roles_may_contain_colons_but_nothing_that_changes_a_path(kept: Cluster, name: str) -> None:
    assert kept.kube.get("ClusterRole", "names:kept")
    for kind in ("ClusterRole", "Role"):
        with pytest.raises(errors.InvalidInput, match="`name` must be the name of a "):
            kept.kube.delete(kind, name, NAMESPACE)


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/api/v1/namespaces/names/configmaps/.", "DELETE"),
        ("/api/v1/namespaces/names/configmaps/..", "DELETE"),
        ("/api/v1/namespaces/names/configmaps/", "DELETE"),
        ("/api/v1/namespaces/names/configmaps/x/..", "DELETE"),
        ("/api/v1/namespaces/names/configmaps/%2e", "DELETE"),
        ("/api/v1/namespaces/names/configmaps/%2E%2e", "DELETE"),
        ("/api/v1/namespaces/names/configmaps/a%2fb", "DELETE"),
        ("/api/v1/namespaces/names/configmaps/a%252fb", "DELETE"),
        ("/api/v1/namespaces//configmaps", "GET"),
        ("/api/v1/namespaces/names/configmaps?limit=1", "GET"),
        ("/api/v1/namespaces/names/config maps", "GET"),
        ("/api/v1/namespaces/é", "GET"),
        ("api/v1/namespaces", "GET"),
        ("", "GET"),
        (None, "GET"),
    ],
)
def test_a_raw_path_whose_segments_change_its_meaning_is_refused(
    nothing_sent: tuple[Stub, Server], path: Any, method: str
) -> None:
    stub, server = nothing_sent
    before = len(server.requests)
    with pytest.raises(errors.InvalidInput, match="`path` must"):
        stub.kube.request(method, path)
    assert len(server.requests) == before


def test_unambiguous_raw_paths_are_sent_unchanged(nothing_sent: tuple[Stub, Server]) -> None:
    stub, server = nothing_sent
    for path in ("/", "/version", "/apis/", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode"):
        stub.kube.request("GET", path)
        assert server.requests[-1].route == path


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("..", "v1"),
        ("Job/..", "batch/v1"),
        ("Job", ".."),
        ("Job", "batch/.."),
        ("Job", "../v1"),
        ("Job", "a/b/c"),
        (5, "v1"),
    ],
)
def test_hostile_kinds_and_versions_are_refused(nothing_sent: tuple[Stub, Server], kind: Any, version: str) -> None:
    stub, server = nothing_sent
    before = len(server.requests)
    obj = {"apiVersion": version, "kind": kind, "metadata": {"name": "a"}}
    for call in (stub.kube.create, stub.kube.apply):
        with pytest.raises(errors.InvalidInput, match="must be"):
            call(obj)
    assert len(server.requests) == before


@pytest.mark.parametrize("subresource", ["..", ".", "../..", "status/..", "a%2fb", "Status"])
def test_hostile_subresources_are_refused(nothing_sent: tuple[Stub, Server], subresource: str) -> None:
    with pytest.raises(errors.InvalidInput, match="`subresource` must be"):
        nothing_sent[0].kube.patch("Job", "a", {}, subresource=subresource)


def test_an_error_describes_valid_names_and_proposes_one() -> None:
    with pytest.raises(errors.InvalidInput) as raised:
        path_names.check_name("Job", "My Job_1!", "metadata.name")
    assert raised.value.message == (
        "`metadata.name` must be the name of a Job (lower case letters, digits, '-' and '.', at most 253 characters, "
        "beginning and ending with a letter or digit), got 'My Job_1!'"
    )
    assert raised.value.hint == "For example metadata.name='my-job-1'."


@given(st.text())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_proposed_name_is_valid(text: str) -> None:
    proposed = path_names.proposed(text)
    if proposed:
        assert path_names.check_name("Job", proposed) == path_names.check_namespace(proposed) == proposed


# The laptop's own side


def raw(aks: Cluster, method: str, tail: str, body: Any = None) -> int:
    """Send a request whose path no client has normalised."""
    transport = aks.kube._transport
    url = urlsplit(transport.host)
    context = ssl._create_unverified_context()  # only the path matters
    connection = http.client.HTTPSConnection(url.hostname, url.port, context=context, timeout=60)
    token = transport._configuration.auth_settings()["BearerToken"]["value"]
    headers = {"Authorization": token, "Content-Type": "application/json"}
    connection.request(method, url.path + tail, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


@pytest.mark.parametrize("segment", [".", "..", "%2e", "%2E%2e", "x/..", "x/../..", "x%2f..", "..%2f", "./"])
@pytest.mark.parametrize("collection", ["configmaps", "jobs", "pods"])
def test_the_laptop_never_resolves_dot_segments(kept: Cluster, collection: str, segment: str) -> None:
    before = everything(kept.kube)
    group = "/apis/batch/v1" if collection == "jobs" else "/api/v1"
    for method in ("DELETE", "GET", "PUT"):
        assert raw(kept, method, f"{group}/namespaces/{NAMESPACE}/{collection}/{segment}", config_map(".")) >= 400
    assert everything(kept.kube) == before


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (".", "must not be '.'"),
        ("..", "must not be '..'"),
        ("..a", "must not start with '..'"),
        ("../a", "a valid config"),
    ],
)
@pytest.mark.parametrize(("kind", "field"), [("ConfigMap", "data"), ("ConfigMap", "binaryData"), ("Secret", "data")])
def test_the_laptop_refuses_keys_that_would_leave_a_volume(
    kept: Cluster, kind: str, field: str, key: str, problem: str
) -> None:
    obj = {**config_map("keys"), "kind": kind, field: {key: "YQ=="}}
    with pytest.raises(aksgpu.errors.Invalid, match=re.escape(problem)):
        kept.kube.create(obj)
    assert kept.kube.create({**obj, field: {"a..b": "YQ==", ".a": "YQ=="}}, dry_run=True)
