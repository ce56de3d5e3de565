from __future__ import annotations

import asyncio
import copy
from typing import Any

import orjson
import pytest

from aksgpu.local.api import store as store_module
from aksgpu.local.api.registry import Registry, WriteOptions
from aksgpu.local.api.store import Event
from aksgpu.local.kinds import get_kind
from aksgpu.local.objects import JSON_PATCH, STRATEGIC_PATCH
from aksgpu.local.selectors import object_filter
from aksgpu.local.status_error import StatusError

Object = dict[str, Any]


async def refused(call: Any) -> Object:
    with pytest.raises(StatusError) as raised:
        await call
    return raised.value.status


async def test_objects_of_a_new_cluster(registry: Registry) -> None:
    namespaces, _ = await registry.list("namespaces")
    names = [each["metadata"]["name"] for each in namespaces]
    assert names == ["default", "kube-node-lease", "kube-public", "kube-system"]
    critical = await registry.get("priorityclasses", "system-node-critical")
    assert critical["value"] == 2_000_001_000


async def test_create_completes_metadata(registry: Registry, job: Object) -> None:
    created = await registry.create("jobs", {**job, "metadata": {"generateName": "train-"}}, "default")
    metadata = created["metadata"]
    assert metadata["name"].startswith("train-") and len(metadata["name"]) == len("train-") + 5
    assert metadata["generation"] == 1 and metadata["namespace"] == "default"
    assert metadata["resourceVersion"] == str(registry.store.revision)
    assert created["spec"]["selector"]["matchLabels"] == {"batch.kubernetes.io/controller-uid": metadata["uid"]}
    assert await registry.get("jobs", metadata["name"], "default") == created


async def test_create_does_not_change_its_argument(registry: Registry, job: Object) -> None:
    before = str(job)
    await registry.create("jobs", job, "default")
    assert str(job) == before


async def test_conflicts_and_unconditional_updates(registry: Registry) -> None:
    first = await registry.create("configmaps", {"metadata": {"name": "c"}, "data": {"a": "1"}}, "default")
    second = await registry.update("configmaps", {**first, "data": {"a": "2"}})
    status = await refused(registry.update("configmaps", {**first, "data": {"a": "3"}}))
    assert (status["code"], status["reason"]) == (409, "Conflict")
    assert "the object has been modified" in status["message"]
    third = await registry.update("configmaps", {"metadata": {"name": "c", "namespace": "default"}, "data": {}})
    assert "data" not in third and third["metadata"]["uid"] == second["metadata"]["uid"]


async def test_an_update_without_changes_is_not_written(registry: Registry) -> None:
    created = await registry.create("configmaps", {"metadata": {"name": "c"}, "data": {"a": "1"}}, "default")
    same = await registry.patch("configmaps", "c", {"data": {"a": "1"}}, "default")
    assert same["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]


async def test_status_and_spec_are_written_separately(registry: Registry, job: Object) -> None:
    created = await registry.create("jobs", job, "default")
    done = await registry.update(
        "jobs",
        {**created, "spec": {**created["spec"], "parallelism": 5}, "status": {"active": 1}},
        subresource="status",
    )
    assert done["status"] == {"active": 1} and done["spec"] == created["spec"] and done["metadata"]["generation"] == 1
    more = await registry.patch("jobs", "train", {"spec": {"parallelism": 2}, "status": {"active": 9}}, "default")
    assert more["status"] == {"active": 1} and more["spec"]["parallelism"] == 2 and more["metadata"]["generation"] == 2


async def test_field_validation(registry: Registry) -> None:
    obj = {"metadata": {"name": "c"}, "dat": {}, "datum": 1}
    status = await refused(registry.create("configmaps", obj, "default"))
    assert status["message"] == (
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: '
        'unknown field "dat", unknown field "datum"'
    )
    options = WriteOptions(field_validation="Warn")
    entry, _ = await registry.write("create", "configmaps", obj, None, "default", options=options)
    assert options.warnings == ['unknown field "dat"', 'unknown field "datum"'] and "dat" not in entry.obj
    options = WriteOptions(field_validation="Ignore")
    await registry.write("update", "configmaps", {"x": 1}, "c", "default", options=options)
    assert not options.warnings


async def test_dry_run_stores_nothing(registry: Registry, pod: Object) -> None:
    revision = registry.store.revision
    options = WriteOptions(dry_run=True)
    entry, _ = await registry.write("create", "pods", pod, None, "default", options=options)
    assert "resourceVersion" not in entry.obj["metadata"] and entry.obj["spec"]["priority"] == 0
    await registry.write("patch", "namespaces", {"metadata": {"labels": {"a": "b"}}}, "default", options=options)
    assert registry.store.revision == revision
    assert (await refused(registry.get("pods", "p", "default")))["code"] == 404


async def test_names_in_the_url_and_in_the_body(registry: Registry) -> None:
    await registry.create("configmaps", {"metadata": {"name": "c"}}, "default")
    status = await refused(registry.write("update", "configmaps", {"metadata": {"name": "d"}}, "c", "default"))
    assert status["message"] == "the name of the object (d) does not match the name on the URL (c)"
    status = await refused(
        registry.create("configmaps", {"metadata": {"name": "x", "namespace": "kube-system"}}, "default")
    )
    assert "does not match the namespace sent on the request" in status["message"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"containers": []}, "spec.containers: Required value"),
        ({"containers": [{"name": "a"}]}, "spec.containers[0].image: Required value"),
        ({"containers": [{"name": "A", "image": "x"}]}, "a lowercase RFC 1123 label must consist"),
        (
            {"restartPolicy": "Sometimes"},
            'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always"',
        ),
        (
            {"containers": [{"name": "a", "image": "x"}, {"name": "a", "image": "x"}]},
            'spec.containers[1].name: Duplicate value: "a"',
        ),
        (
            {"containers": [{"name": "a", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]},
            'spec.containers[0].volumeMounts[0].name: Not found: "v"',
        ),
        (
            {"containers": [{"name": "a", "image": "x", "resources": {"limits": {"nvidia.com/gpu": "500m"}}}]},
            'spec.containers[0].resources.limits[nvidia.com/gpu]: Invalid value: "500m": must be an integer',
        ),
        (
            {"containers": [{"name": "a", "image": "x", "resources": {"requests": {"nvidia.com/gpu": 1}}}]},
            "Limit must be set for non overcommitable resources",
        ),
        (
            {
                "containers": [
                    {"name": "a", "image": "x", "resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1"}}}
                ]
            },
            'resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1',
        ),
        ({"tolerations": [{"operator": "Is", "key": "a"}]}, 'supported values: "Equal", "Exists"'),
        (
            {"ephemeralContainers": [{"name": "debug", "image": "x"}]},
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
        ({"priorityClassName": "nope"}, "no PriorityClass with name nope was found"),
        ({"serviceAccountName": "nope"}, 'serviceaccount "nope" not found'),
    ],
)
async def test_invalid_pods_are_refused(registry: Registry, pod: Object, change: Object, message: str) -> None:
    pod["spec"] |= change
    assert message in (await refused(registry.create("pods", pod, "default")))["message"]


async def test_default_tolerations_do_not_replace_given_ones(registry: Registry, pod: Object) -> None:
    pod["spec"]["tolerations"] = [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]
    created = await registry.create("pods", pod, "default")
    assert [each["key"] for each in created["spec"]["tolerations"]] == [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]


async def test_priority_and_quality_of_service(registry: Registry, pod: Object) -> None:
    pod["spec"]["priorityClassName"] = "system-node-critical"
    pod["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1", "memory": "1Gi"}}
    created = await registry.create("pods", pod, "default")
    assert created["spec"]["priority"] == 2_000_001_000 and created["status"]["qosClass"] == "Guaranteed"


async def test_invalid_jobs_are_refused(registry: Registry, job: Object) -> None:
    job["spec"] |= {"completionMode": "Indexed", "parallelism": -1}
    status = await refused(registry.create("jobs", job, "default"))
    fields = [cause["field"] for cause in status["details"]["causes"]]
    assert fields == ["spec.parallelism", "spec.completions"]
    assert "spec.completions: Required value: when completion mode is Indexed" in status["message"]


async def test_a_template_has_no_ephemeral_containers(registry: Registry, job: Object) -> None:
    job["spec"]["template"]["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "x"}]
    message = (await refused(registry.create("jobs", job, "default")))["message"]
    field = "spec.template.spec.ephemeralContainers"
    assert f"{field}: Forbidden: ephemeral containers not allowed in pod template" in message


async def test_scheduling_of_a_suspended_job_may_change(registry: Registry, job: Object) -> None:
    job["spec"]["suspend"] = True
    await registry.create("jobs", job, "default")
    move = {"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}}
    await registry.patch("jobs", "train", move, "default")
    other = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "busybox:2"}]}}}}
    assert "field is immutable" in (await refused(registry.patch("jobs", "train", other, "default")))["message"]
    await registry.patch("jobs", "train", {"spec": {"suspend": False}}, "default")
    move = {"spec": {"template": {"spec": {"nodeSelector": {"a": "c"}}}}}
    assert "field is immutable" in (await refused(registry.patch("jobs", "train", move, "default")))["message"]


async def test_daemon_sets(registry: Registry) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "x:1"}]}}
    obj: Object = {"metadata": {"name": "d"}, "spec": {"template": template}}
    status = await refused(registry.create("daemonsets", obj, "default"))
    assert status["message"] == 'DaemonSet.apps "d" is invalid: spec.selector: Required value'
    obj["spec"]["selector"] = {"matchLabels": {"a": "c"}}
    assert "`selector` does not match" in (await refused(registry.create("daemonsets", obj, "default")))["message"]
    obj["spec"]["selector"] = {"matchLabels": {"a": "b"}}
    await registry.create("daemonsets", obj, "default")
    change = {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "x:2"}]}}}}
    changed = await registry.patch("daemonsets", "d", change, "default", content_type=STRATEGIC_PATCH)
    assert changed["metadata"]["annotations"] == {"deprecated.daemonset.template.generation": "2"}
    assert changed["metadata"]["generation"] == 2


async def test_immutable_config_maps_and_secrets(registry: Registry) -> None:
    await registry.create("configmaps", {"metadata": {"name": "c"}, "data": {"a": "1"}, "immutable": True}, "default")
    status = await refused(registry.patch("configmaps", "c", {"data": {"a": "2"}}, "default"))
    assert status["message"].endswith("data: Forbidden: field is immutable when `immutable` is set")


async def test_quota_follows_the_pods(registry: Registry, pod: Object) -> None:
    await registry.create("resourcequotas", {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "3"}}}, "default")

    async def fill() -> list[str]:
        names = []
        with pytest.raises(StatusError, match="exceeded quota"):
            while True:
                created = await registry.create("pods", {**pod, "metadata": {"generateName": "p-"}}, "default")
                names.append(created["metadata"]["name"])
        return names

    names = await fill()
    assert len(names) == 3
    await registry.patch("pods", names[0], {"status": {"phase": "Failed"}}, "default", subresource="status")
    await registry.delete("pods", names[1], "default", grace_period_seconds=0)
    assert len(await fill()) == 2
    await registry.delete("pods", names[0], "default", grace_period_seconds=0)  # It used nothing any more.
    assert await fill() == []


async def test_quota_is_enforced(registry: Registry, pod: Object) -> None:
    quota = {"metadata": {"name": "gpus"}, "spec": {"hard": {"requests.nvidia.com/gpu": 1}}}
    await registry.create("resourcequotas", quota, "default")
    pod["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 1}}
    await registry.create("pods", pod, "default")
    pod["metadata"]["name"] = "second"
    status = await refused(registry.create("pods", pod, "default"))
    assert status["message"] == (
        'pods "second" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, '
        "used: requests.nvidia.com/gpu=1, limited: requests.nvidia.com/gpu=1"
    )
    await registry.patch("pods", "p", {"status": {"phase": "Succeeded"}}, "default", subresource="status")
    await registry.create("pods", pod, "default")


async def test_a_quota_requires_requests_and_limits(registry: Registry, pod: Object) -> None:
    quota = {"metadata": {"name": "cpus"}, "spec": {"hard": {"requests.cpu": 1, "limits.memory": "1Gi"}}}
    await registry.create("resourcequotas", quota, "default")
    status = await refused(registry.create("pods", pod, "default"))
    why = "failed quota: cpus: must specify limits.memory for: main; requests.cpu for: main"
    assert status["code"] == 403 and status["message"] == f'pods "p" is forbidden: {why}'


@pytest.mark.parametrize(
    ("scope", "inside", "outside"),
    [
        ({"scopes": ["Terminating"]}, {"activeDeadlineSeconds": 5}, {}),
        ({"scopes": ["NotTerminating"]}, {}, {"activeDeadlineSeconds": 5}),
        ({"scopes": ["BestEffort"]}, {}, {"cpu": "1"}),
        ({"scopes": ["NotBestEffort", "NotTerminating"]}, {"cpu": "1"}, {"cpu": "1", "activeDeadlineSeconds": 5}),
        (
            {
                "scopeSelector": {
                    "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]
                }
            },
            {"priorityClassName": "high"},
            {},
        ),
        ({"scopes": ["PriorityClass"]}, {"priorityClassName": "high"}, {}),
    ],
)
async def test_a_quota_with_scopes_is_about_some_pods(
    registry: Registry, pod: Object, scope: Object, inside: Object, outside: Object
) -> None:
    await registry.create("priorityclasses", {"metadata": {"name": "high"}, "value": 1000})
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}, **scope}}
    await registry.create("resourcequotas", quota, "default")

    async def create(name: str, changes: Object) -> None:
        spec = {**pod["spec"], **{key: value for key, value in changes.items() if key != "cpu"}}
        requests = {"requests": {"cpu": changes["cpu"]}} if "cpu" in changes else {}
        spec["containers"] = [{**spec["containers"][0], "resources": requests}]
        await registry.create("pods", {"metadata": {"name": name}, "spec": spec}, "default")

    for number in range(2):
        await create(f"outside-{number}", outside)
    await create("inside", inside)
    status = await refused(create("second", inside))
    assert status["message"] == (
        'pods "second" is forbidden: exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1'
    )


async def test_a_quota_on_the_number_of_objects(registry: Registry, job: Object) -> None:
    hard = {"count/jobs.batch": "1", "secrets": "1", "services.nodeports": "1"}
    await registry.create("resourcequotas", {"metadata": {"name": "objects"}, "spec": {"hard": hard}}, "default")
    await registry.create("jobs", job, "default")
    status = await refused(registry.create("jobs", {**job, "metadata": {"name": "second"}}, "default"))
    assert status["code"] == 403 and status["message"] == (
        'jobs.batch "second" is forbidden: exceeded quota: objects, requested: count/jobs.batch=1, '
        "used: count/jobs.batch=1, limited: count/jobs.batch=1"
    )
    await registry.create("secrets", {"metadata": {"name": "a"}}, "default")
    secret = await refused(registry.create("secrets", {"metadata": {"name": "b"}}, "default"))
    assert "requested: secrets=1, used: secrets=1, limited: secrets=1" in secret["message"]
    await registry.delete("secrets", "a", "default")
    await registry.create("secrets", {"metadata": {"name": "b"}}, "default")
    ports = [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]
    service = {"metadata": {"name": "web"}, "spec": {"type": "NodePort", "ports": ports}}
    refusal = await refused(registry.create("services", service, "default"))
    assert "requested: services.nodeports=2" in refusal["message"]


async def test_priority_comes_from_the_priority_class(registry: Registry, pod: Object) -> None:
    await registry.create("priorityclasses", {"metadata": {"name": "high"}, "value": 1000})
    pod["spec"] |= {"priorityClassName": "high", "priority": 5}
    status = await refused(registry.create("pods", pod, "default"))
    assert status["code"] == 403 and status["message"] == (
        'pods "p" is forbidden: the integer value of priority (5) must not be provided in pod spec; '
        "priority admission controller computed 1000 from the given PriorityClass name"
    )


async def test_binding(registry: Registry, pod: Object) -> None:
    await registry.create("pods", pod, "default")
    target = {"target": {"kind": "Node", "name": "n"}}
    answer = await registry.create("pods", target, "default", name="p", subresource="binding")
    assert (answer["kind"], answer["status"]) == ("Status", "Success")
    bound = await registry.get("pods", "p", "default")
    assert bound["spec"]["nodeName"] == "n" and bound["status"]["conditions"][0]["type"] == "PodScheduled"
    again = registry.create("pods", target, "default", name="p", subresource="binding")
    assert 'pod p is already assigned to node "n"' in (await refused(again))["message"]


async def test_pages_are_consistent(registry: Registry) -> None:
    for name in "abcdef":
        await registry.create("configmaps", {"metadata": {"name": name}, "data": {"v": "old"}}, "default")
    page = await registry.list_page("configmaps", "default", limit=2)
    assert page.remaining == 4
    seen = [entry.obj for entry in page.entries]
    await registry.delete("configmaps", "c", "default")
    await registry.patch("configmaps", "d", {"data": {"v": "new"}}, "default")
    await registry.create("configmaps", {"metadata": {"name": "cc"}}, "default")
    while page.token:
        following = await registry.list_page("configmaps", "default", limit=2, token=page.token)
        assert following.resource_version == page.resource_version
        page = following
        seen += [entry.obj for entry in page.entries]
    assert [each["metadata"]["name"] for each in seen] == list("abcdef")
    assert {each["data"]["v"] for each in seen} == {"old"}
    assert [entry.key[1] for entry in (await registry.list_page("configmaps", "default")).entries] == [
        *"ab",
        "cc",
        *"def",
    ]


async def test_an_expired_continue_token(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "WATCH_CACHE_SIZE", 2)
    for name in "abcdef":
        await registry.create("configmaps", {"metadata": {"name": name}}, "default")
    page = await registry.list_page("configmaps", limit=2)
    for name in "xyz":
        await registry.create("configmaps", {"metadata": {"name": name}}, "default")
    status = await refused(registry.list_page("configmaps", limit=2, token=page.token))
    assert (status["code"], status["reason"]) == (410, "Expired")
    rest = await registry.list_page("configmaps", token=status["metadata"]["continue"])
    assert [entry.key[1] for entry in rest.entries] == list("cdefxyz")
    assert (await refused(registry.list_page("configmaps", token="!")))["code"] == 400


async def collect(registry: Registry, count: int, **options: Any) -> list[Event]:
    found: list[Event] = []
    async with asyncio.timeout(60):
        async for events in registry.stream("configmaps", "default", **options):
            found.extend(events)
            if len(found) >= count:
                break
    return found


async def test_a_watch_with_a_selector(registry: Registry) -> None:
    start = registry.store.revision
    await registry.create("configmaps", {"metadata": {"name": "c", "labels": {"team": "a"}}}, "default")
    await registry.patch("configmaps", "c", {"data": {"k": "1"}}, "default")
    await registry.patch("configmaps", "c", {"metadata": {"labels": {"team": "b"}}}, "default")
    await registry.patch("configmaps", "c", {"data": {"k": "2"}}, "default")
    await registry.patch("configmaps", "c", {"metadata": {"labels": {"team": "a"}}}, "default")
    await registry.delete("configmaps", "c", "default")
    events = await collect(
        registry, 5, resource_version=start, match=object_filter(get_kind("configmaps"), "team=a", "")
    )
    assert [event.type for event in events] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
    left = events[2].entry
    # It is sent as it was when it matched, with the version of the change.
    assert left.obj["metadata"]["labels"] == {"team": "a"}
    assert left.rv == events[1].entry.rv + 1
    assert orjson.loads(left.data)["metadata"] == {**events[1].entry.obj["metadata"], "resourceVersion": str(left.rv)}


async def test_a_watch_without_a_version_starts_with_existing_objects(registry: Registry) -> None:
    await registry.create("configmaps", {"metadata": {"name": "c"}}, "default")
    (event,) = await collect(registry, 1)
    assert (event.type, event.entry.key[1]) == ("ADDED", "c")
    events = await collect(registry, 2, initial_events=True)
    assert [event.type for event in events] == ["ADDED", "BOOKMARK"]
    assert events[1].entry.obj["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_bookmarks_have_the_newest_version(registry: Registry) -> None:
    start = registry.store.revision
    await registry.create("secrets", {"metadata": {"name": "s"}}, "default")
    (event,) = await collect(registry, 1, resource_version=start, bookmark_seconds=0.01)
    assert event.type == "BOOKMARK" and event.entry.rv == registry.store.revision


async def test_watch(registry: Registry) -> None:
    _, version = await registry.list("configmaps")
    await registry.create("configmaps", {"metadata": {"name": "c"}}, "default")
    async with asyncio.timeout(60):
        async for event in registry.watch("configmaps", resource_version=version):
            assert (event.type, event.object["metadata"]["name"]) == ("ADDED", "c")
            break


async def test_old_events_are_deleted(registry: Registry) -> None:
    event = {"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"}, "lastTimestamp": "2020-01-01T00:00:00Z"}
    await registry.create("events", event, "default")
    await registry.create("events", {"metadata": {"name": "f"}, "involvedObject": {"kind": "Pod"}}, "default")
    janitor = asyncio.create_task(registry._expire_events())
    await asyncio.sleep(0)
    janitor.cancel()
    assert [each["metadata"]["name"] for each in (await registry.list("events"))[0]] == ["f"]


async def test_json_patch_limits(registry: Registry) -> None:
    patch: list[Object] = [{"op": "test", "path": "/kind", "value": "Namespace"}] * 10_001
    status = await refused(registry.patch("namespaces", "default", patch, content_type=JSON_PATCH))
    assert status["code"] == 413
    # Each copy doubles the size. A hundred would fill the memory.
    copies = [{"op": "copy", "from": "/metadata", "path": f"/metadata/copy{number}"} for number in range(100)]
    for bad in ([{"op": "remove", "path": "/nope"}], [{"op": "what", "path": "/a"}], [{"path": 5}], copies):
        status = await refused(registry.patch("namespaces", "default", bad, content_type=JSON_PATCH))
        assert status["code"] == 422


async def test_a_deeply_nested_patch_is_refused(registry: Registry) -> None:
    deep: Object = {}
    for _ in range(5000):
        deep = {"a": deep}
    status = await refused(registry.patch("namespaces", "default", {"metadata": {"annotations": deep}}))
    assert status["code"] == 400


async def test_text_that_json_cannot_represent_is_refused(registry: Registry) -> None:
    revision = registry.store.revision
    for text in ("\ud800", "a\udfff"):
        status = await refused(
            registry.create("configmaps", {"metadata": {"name": "c"}, "data": {"a": text}}, "default")
        )
        assert status["code"] == 400
    assert registry.store.revision == revision


async def test_a_new_object_must_not_have_a_version(registry: Registry) -> None:
    async def create(name: str, version: str) -> Object:
        return await registry.create("configmaps", {"metadata": {"name": name, "resourceVersion": version}}, "default")

    with pytest.raises(StatusError) as caught:
        await create("a", "12")
    assert caught.value.code == 500
    assert "reason" not in caught.value.status
    assert caught.value.message == "resourceVersion should not be set on objects to be created"
    for name, version in (("zero", "0"), ("text", "abc"), ("empty", "")):
        assert (await create(name, version))["metadata"]["resourceVersion"] not in ("0", "abc", "")


async def test_a_replaced_job_gets_all_causes(registry: Registry, job: Object) -> None:
    """A manifest lacks the selector and the labels that were generated when the Job was created."""
    given = copy.deepcopy(job)
    given["spec"]["template"]["metadata"] = {"labels": {"app": "a"}}
    await registry.create("jobs", copy.deepcopy(given), "default")
    with pytest.raises(StatusError) as caught:
        await registry.update("jobs", {**given, "metadata": {"name": "train", "namespace": "default"}})
    causes = caught.value.status["details"]["causes"]
    mismatch = 'Invalid value: {"app":"a"}: `selector` does not match template `labels`'
    assert [(cause["field"], cause["message"]) for cause in causes[:3]] == [
        ("spec.selector", "Required value"),
        ("spec.template.metadata.labels", mismatch),
        ("spec.selector", 'Invalid value: "null": field is immutable'),
    ]
    assert causes[3]["field"] == "spec.template"
    assert causes[3]["message"].endswith(": field is immutable")
    assert len(causes) == 4


async def test_pods_that_need_kinds_that_are_not_served(registry: Registry, pod: Object) -> None:
    runtime = copy.deepcopy(pod)
    runtime["spec"]["runtimeClassName"] = "nvidia"
    status = await refused(registry.create("pods", runtime, "default"))
    assert (status["code"], status["message"]) == (
        403,
        'pods "p" is forbidden: pod rejected: RuntimeClass "nvidia" not found',
    )
    claims = copy.deepcopy(pod)
    claims["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimTemplateName": "t"}]
    status = await refused(registry.create("pods", claims, "default"))
    assert status["code"] == 403
    assert "serves no resource claims. Request nvidia.com/gpu instead" in status["message"]


async def test_a_warning_about_an_annotation_that_has_lost_its_effect(registry: Registry, job: Object) -> None:
    critical = "scheduler.alpha.kubernetes.io/critical-pod"
    job["spec"]["template"]["metadata"] = {"annotations": {critical: ""}}
    options = WriteOptions(manager="test")
    await registry.write("create", "jobs", job, "train", "default", options=options)
    assert options.warnings == [
        f"spec.template.metadata.annotations[{critical}]: non-functional in v1.16+; "
        'use the "priorityClassName" field instead'
    ]
