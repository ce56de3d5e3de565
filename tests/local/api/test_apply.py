from __future__ import annotations

import copy
from typing import Any

import pytest

from aksgpu.local.api import field_sets
from aksgpu.local.api.registry import Registry, WriteOptions
from aksgpu.local.objects import APPLY_PATCH, JSON_PATCH
from aksgpu.local.status_error import StatusError

Object = dict[str, Any]


async def apply(
    registry: Registry, obj: Object, manager: str, *, force: bool = False, resource: str = "configmaps"
) -> Object:
    entry, _ = await registry.write(
        "patch",
        resource,
        obj,
        obj["metadata"]["name"],
        "default",
        content_type=APPLY_PATCH,
        options=WriteOptions(manager=manager, force=force),
    )
    return entry.obj


def config(**data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def owners(obj: Object) -> dict[str, Any]:
    return {each["manager"]: each["fieldsV1"] for each in obj["metadata"]["managedFields"]}


async def test_a_field_no_longer_applied_is_removed(registry: Registry) -> None:
    await apply(registry, config(a="1", b="2"), "one")
    await apply(registry, config(b="2"), "two")
    applied = await apply(registry, config(), "one")
    assert applied["data"] == {"b": "2"}
    assert owners(applied) == {"two": {"f:data": {"f:b": {}}}}


async def test_a_field_that_others_own_is_kept(registry: Registry) -> None:
    await apply(registry, config(a="1"), "k")
    await registry.with_manager("o").patch("configmaps", "c", {"data": {"b": "2"}}, "default")
    bare = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    applied = await apply(registry, bare, "k")
    assert applied["data"] == {"b": "2"}
    assert owners(applied) == {"o": {"f:data": {"f:b": {}}}}


async def test_a_manager_that_applies_nothing_owns_nothing(registry: Registry) -> None:
    await apply(registry, config(a="1"), "one")
    applied = await apply(registry, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}, "one")
    assert "data" not in applied and "managedFields" not in applied["metadata"]
    assert (await apply(registry, config(a="2"), "two"))["data"] == {"a": "2"}


def daemon_set(*variables: str, init: str = "") -> Object:
    env = [{"name": name, "value": name} for name in variables]
    spec = {"containers": [{"name": "c", "image": "busybox:1", "env": env}]}
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {**spec, "initContainers": [{"name": n, "image": "x:1"} for n in init]},
    }
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d"}, "spec": spec}


async def test_lists_keep_the_applied_order(registry: Registry) -> None:
    await apply(registry, daemon_set("A", "B", "C", init="b"), "one", resource="daemonsets")
    await apply(registry, daemon_set("X", "A"), "two", resource="daemonsets")
    applied = await apply(registry, daemon_set("N", "C", "B", "A", init="ab"), "one", resource="daemonsets")
    spec = applied["spec"]["template"]["spec"]
    assert [each["name"] for each in spec["initContainers"]] == ["a", "b"]
    assert [each["name"] for each in spec["containers"][0]["env"]] == ["X", "N", "C", "B", "A"]


async def test_two_items_with_the_same_key_are_refused(registry: Registry) -> None:
    text = r'\.spec\.template\.spec\.containers\[name="c"\]\.env: duplicate entries for key \[name="A"\]'
    with pytest.raises(StatusError, match=text):
        await apply(registry, daemon_set("A", "B", "A"), "one", resource="daemonsets")


async def test_applying_the_same_twice_writes_nothing(registry: Registry) -> None:
    first = await apply(registry, config(a="1"), "one")
    assert (await apply(registry, config(a="1"), "one"))["metadata"] == first["metadata"]


async def test_applying_the_current_value_is_not_a_conflict(registry: Registry) -> None:
    await apply(registry, config(a="1"), "one")
    both = await apply(registry, config(a="1"), "two")
    assert owners(both) == {"one": {"f:data": {"f:a": {}}}, "two": {"f:data": {"f:a": {}}}}
    kept = await apply(registry, config(), "one")
    assert kept["data"] == {"a": "1"}


async def test_conflicts_name_every_field(registry: Registry) -> None:
    await registry.with_manager("writer").create("configmaps", config(a="1", b="2"), "default")
    with pytest.raises(StatusError) as raised:
        await apply(registry, config(a="x", b="y"), "one")
    lines = raised.value.message.splitlines()
    assert lines[0] == 'Apply failed with 2 conflicts: conflicts with "writer" using v1:'
    assert lines[1:] == ["- .data.a", "- .data.b"]
    assert [each["field"] for each in raised.value.status["details"]["causes"]] == [".data.a", ".data.b"]


async def test_conflicts_list_the_fields_of_a_level_before_what_is_inside_of_others(
    registry: Registry, job: Object
) -> None:
    await registry.with_manager("writer").create("jobs", copy.deepcopy(job), "default")
    changed = copy.deepcopy(job)
    changed["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
    changed["spec"] |= {"suspend": True, "parallelism": 7}
    with pytest.raises(StatusError) as raised:
        await apply(registry, changed, "one", resource="jobs")
    fields = [each["field"] for each in raised.value.status["details"]["causes"]]
    assert fields.index(".spec.suspend") < fields.index(".spec.template.spec.restartPolicy")


async def test_lists_are_owned_item_by_item(registry: Registry, job: Object) -> None:
    job["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}]
    job["spec"]["suspend"] = True
    await apply(registry, job, "one", resource="jobs")
    parallel = {**job, "spec": {"parallelism": 3, "template": {"spec": {"containers": []}}}}
    del parallel["spec"]["template"]
    merged = await apply(registry, parallel, "two", resource="jobs")
    assert merged["spec"]["parallelism"] == 3 and merged["spec"]["template"]["spec"]["containers"][0]["name"] == "main"
    assert owners(merged)["two"] == {"f:spec": {"f:parallelism": {}}}
    container = owners(merged)["one"]["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"main"}']
    assert container == {
        ".": {},
        "f:env": {'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}}},
        "f:image": {},
        "f:name": {},
        "f:resources": {"f:limits": {"f:nvidia.com/gpu": {}}},
    }


async def test_a_port_that_is_no_longer_applied_is_removed(registry: Registry) -> None:
    def service(*ports: int) -> Object:
        listed = [{"port": port, "name": f"p{port}"} for port in ports]
        spec = {"ports": listed, "selector": {"a": "b"}}
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}

    await apply(registry, service(80, 90), "one", resource="services")
    left = await apply(registry, service(90), "one", resource="services")
    assert [port["port"] for port in left["spec"]["ports"]] == [90]


async def test_apply_to_a_status_owns_only_the_status(registry: Registry, pod: Object) -> None:
    await registry.create("pods", pod, "default")
    patch = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {"phase": "Running"}}
    entry, _ = await registry.write(
        "patch",
        "pods",
        patch,
        "p",
        "default",
        content_type=APPLY_PATCH,
        subresource="status",
        options=WriteOptions(manager="k"),
    )
    assert entry.obj["status"]["phase"] == "Running"
    assert owners(entry.obj)["k"] == {"f:status": {"f:phase": {}}}


async def test_managed_fields_can_be_transferred(registry: Registry) -> None:
    created = await registry.with_manager("kubectl-client-side-apply").create("configmaps", config(a="1"), "default")
    managed = [{**created["metadata"]["managedFields"][0], "manager": "kubectl", "operation": "Apply"}]
    patch = [{"op": "replace", "path": "/metadata/managedFields", "value": managed}]
    await registry.patch("configmaps", "c", patch, "default", content_type=JSON_PATCH)
    applied = await apply(registry, config(b="1"), "kubectl")
    assert applied["data"] == {"b": "1"}
    assert owners(applied) == {"kubectl": {"f:data": {"f:b": {}}}}


async def test_apply_is_as_strict_as_create(registry: Registry) -> None:
    with pytest.raises(StatusError, match='strict decoding error: unknown field "dat"'):
        await apply(registry, {**config(), "dat": {}}, "one")
    with pytest.raises(StatusError, match=r"metadata\.managedFields must be nil"):
        owned = {"name": "c", "managedFields": [{"manager": "x"}]}
        await apply(registry, {**config(), "metadata": owned}, "one")


def test_format_path() -> None:
    path = ("f:spec", 'k:{"name":"main"}', 'k:{"port":80,"protocol":"TCP"}', 'v:"a/b"')
    assert field_sets.format_path(path) == '.spec[name="main"][port=80,protocol="TCP"][="a/b"]'


@pytest.mark.parametrize(
    ("absent", "text"),
    [("apiVersion", "Specified patch version: , expected: v1"), ("kind", "invalid object type: /v1, Kind=")],
)
async def test_apply_requires_api_version_and_kind(registry: Registry, absent: str, text: str) -> None:
    given = config(a="1")
    del given[absent]
    with pytest.raises(StatusError, match=text) as raised:
        await apply(registry, given, "one")
    assert raised.value.code == 400


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ([{}], []),
        ([{"manager": "x", "operation": "Steal", "fieldsType": "FieldsV1", "apiVersion": "v1"}], ["one"]),
        ([{"manager": "x", "fieldsV1": {"f:data": {}}}], ["one"]),
    ],
)
async def test_managed_fields_written_by_a_client(registry: Registry, given: list[Object], left: list[str]) -> None:
    await apply(registry, config(a="1"), "one")
    patch = [{"op": "replace", "path": "/metadata/managedFields", "value": given}]
    entry, _ = await registry.write("patch", "configmaps", patch, "c", "default", content_type=JSON_PATCH)
    assert [each["manager"] for each in entry.obj["metadata"].get("managedFields", ())] == left


async def test_an_entry_without_a_time_is_accepted(registry: Registry) -> None:
    created = await apply(registry, config(a="1"), "one")
    timeless = {**created["metadata"]["managedFields"][0], "operation": "Update"}
    del timeless["time"]
    patch = [{"op": "replace", "path": "/metadata/managedFields", "value": [timeless]}]
    await registry.write("patch", "configmaps", patch, "c", "default", content_type=JSON_PATCH)
    both = await apply(registry, config(a="1"), "two")
    assert sorted(owners(both)) == ["one", "two"]
    with pytest.raises(StatusError, match='conflict with "one" using v1: '):
        await apply(registry, config(a="2"), "two")
