from __future__ import annotations

from typing import Any

import pytest

from aksgpu.local.api.registry import Registry, WriteOptions
from aksgpu.local.kinds import get_kind
from aksgpu.local.selectors import object_filter
from aksgpu.local.status_error import StatusError

Object = dict[str, Any]


async def absent(registry: Registry, resource: str, name: str, namespace: str | None = "default") -> bool:
    try:
        await registry.get(resource, name, namespace)
    except StatusError as error:
        return error.code == 404
    return False


async def bound(registry: Registry, pod: Object) -> Object:
    await registry.create("pods", pod, "default")
    await registry.create("pods", {"target": {"name": "n"}}, "default", name="p", subresource="binding")
    return await registry.get("pods", "p", "default")


async def test_a_pod_without_a_node_is_deleted_at_once(registry: Registry, pod: Object) -> None:
    await registry.create("pods", pod, "default")
    await registry.delete("pods", "p", "default")
    assert await absent(registry, "pods", "p")


async def test_a_running_pod_gets_its_grace_period(registry: Registry, pod: Object) -> None:
    await bound(registry, pod)
    marked = await registry.delete("pods", "p", "default")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30 and "deletionTimestamp" in marked["metadata"]
    again = await registry.delete("pods", "p", "default")
    assert again["metadata"]["resourceVersion"] == marked["metadata"]["resourceVersion"]
    shorter = await registry.delete("pods", "p", "default", grace_period_seconds=5)
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    longer = await registry.delete("pods", "p", "default", grace_period_seconds=50)
    assert longer["metadata"]["deletionGracePeriodSeconds"] == 5
    await registry.delete("pods", "p", "default", grace_period_seconds=0)
    assert await absent(registry, "pods", "p")


@pytest.mark.parametrize("scheduled", [True, False])
async def test_a_pod_is_marked_before_it_disappears(registry: Registry, pod: Object, scheduled: bool) -> None:
    if scheduled:
        await bound(registry, pod)
    else:
        await registry.create("pods", pod, "default")
    changes = registry.store.subscribe("pods", "default", registry.store.revision)
    deleted = await registry.delete("pods", "p", "default", grace_period_seconds=0)
    assert deleted["metadata"]["deletionGracePeriodSeconds"] == 0
    assert "deletionTimestamp" in deleted["metadata"]
    seen = [(event.type, event.entry.obj["metadata"]) for event in await changes.next(60) or ()]
    assert [type_ for type_, _ in seen] == ["MODIFIED", "DELETED"]
    assert all(metadata["deletionGracePeriodSeconds"] == 0 for _, metadata in seen)
    assert seen[0][1]["resourceVersion"] == deleted["metadata"]["resourceVersion"]
    assert int(seen[1][1]["resourceVersion"]) > int(seen[0][1]["resourceVersion"])


async def test_a_finished_pod_is_deleted_at_once(registry: Registry, pod: Object) -> None:
    await bound(registry, pod)
    await registry.patch("pods", "p", {"status": {"phase": "Succeeded"}}, "default", subresource="status")
    await registry.delete("pods", "p", "default")
    assert await absent(registry, "pods", "p")


async def test_finalizers_delay_deletion(registry: Registry, pod: Object) -> None:
    pod["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
    await bound(registry, pod)
    marked = await registry.delete("pods", "p", "default", grace_period_seconds=0)
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 0
    with pytest.raises(StatusError, match="no new finalizers can be added"):
        await registry.patch("pods", "p", {"metadata": {"finalizers": ["a/b", "c/d"]}}, "default")
    await registry.patch("pods", "p", {"metadata": {"finalizers": None}}, "default")
    assert await absent(registry, "pods", "p")


async def test_a_pod_waits_for_its_grace_period_after_its_finalizers(registry: Registry, pod: Object) -> None:
    pod["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
    await bound(registry, pod)
    await registry.delete("pods", "p", "default")
    await registry.patch("pods", "p", {"metadata": {"finalizers": None}}, "default")
    assert not await absent(registry, "pods", "p")
    await registry.delete("pods", "p", "default", grace_period_seconds=0)
    assert await absent(registry, "pods", "p")


async def test_a_negative_grace_period_is_one_second(registry: Registry, pod: Object) -> None:
    await bound(registry, pod)
    marked = await registry.delete("pods", "p", "default", grace_period_seconds=-1)
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 1
    await registry.delete("pods", "p", "default", grace_period_seconds=0)
    assert await absent(registry, "pods", "p")


async def test_a_huge_grace_period_is_limited(registry: Registry, pod: Object) -> None:
    pod["spec"] |= {"nodeName": "n", "terminationGracePeriodSeconds": 10**17}
    await registry.create("pods", pod, "default")
    marked = await registry.delete("pods", "p", "default")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 10**9
    await registry.delete("pods", "p", "default", grace_period_seconds=0)
    assert await absent(registry, "pods", "p")


@pytest.mark.parametrize(
    ("policy", "finalizers"),
    [("Foreground", ["foregroundDeletion"]), ("Orphan", ["orphan"]), ("Background", None), (None, ["orphan"])],
)
async def test_propagation(registry: Registry, job: Object, policy: str | None, finalizers: list[str] | None) -> None:
    await registry.create("jobs", job, "default")
    options = WriteOptions()
    body = {"propagationPolicy": policy} if policy else {}
    entry, gone = await registry.write("delete", "jobs", body, "train", "default", options=options)
    assert gone is (finalizers is None)
    assert bool(options.warnings) is (policy is None)
    if finalizers:
        assert entry.obj["metadata"]["finalizers"] == finalizers and entry.obj["metadata"]["generation"] == 2
        await registry.patch("jobs", "train", {"metadata": {"finalizers": None}}, "default")
    assert await absent(registry, "jobs", "train")


async def test_preconditions(registry: Registry) -> None:
    created = await registry.create("configmaps", {"metadata": {"name": "c"}}, "default")
    with pytest.raises(
        StatusError, match="Precondition failed: UID in precondition: x, UID in object meta: "
    ) as raised:
        await registry.delete("configmaps", "c", "default", uid="x")
    assert raised.value.code == 409
    await registry.delete("configmaps", "c", "default", uid=created["metadata"]["uid"])


async def test_a_namespace_is_deleted_when_it_is_finalized(registry: Registry) -> None:
    await registry.create("namespaces", {"metadata": {"name": "gpu"}})
    marked = await registry.delete("namespaces", "gpu")
    assert "deletionTimestamp" in marked["metadata"] and "deletionGracePeriodSeconds" not in marked["metadata"]
    assert marked["status"]["phase"] == "Terminating" and marked["spec"]["finalizers"] == ["kubernetes"]
    with pytest.raises(StatusError) as raised:
        await registry.create("configmaps", {"metadata": {"name": "c"}}, "gpu")
    assert raised.value.code == 403
    assert raised.value.message == (
        'configmaps "c" is forbidden: unable to create new content in namespace gpu because it is being terminated'
    )
    await registry.update("namespaces", {**marked, "spec": {"finalizers": []}}, subresource="finalize")
    assert await absent(registry, "namespaces", "gpu", None)


async def test_the_default_namespace_cannot_be_deleted(registry: Registry) -> None:
    with pytest.raises(StatusError, match='namespaces "default" is forbidden: this namespace may not be deleted'):
        await registry.delete("namespaces", "default")


async def test_collections(registry: Registry) -> None:
    for name, team in (("a", "x"), ("b", "y"), ("c", "x")):
        await registry.create("configmaps", {"metadata": {"name": name, "labels": {"team": team}}}, "default")
    match = object_filter(get_kind("configmaps"), "team=x", "")
    gone = await registry.remove_collection("configmaps", "default", match, {}, WriteOptions())
    assert [entry.key[1] for entry in gone.entries] == ["a", "c"]
    assert [each["metadata"]["name"] for each in (await registry.list("configmaps"))[0]] == ["b"]


async def test_eviction(registry: Registry, pod: Object) -> None:
    await bound(registry, pod)
    answer = await registry.create("pods", {"metadata": {"name": "p"}}, "default", name="p", subresource="eviction")
    assert answer["status"] == "Success"
    evicted = await registry.get("pods", "p", "default")
    assert "deletionTimestamp" in evicted["metadata"]
    why = evicted["status"]["conditions"][-1]
    assert (why["type"], why["status"], why["reason"]) == ("DisruptionTarget", "True", "EvictionByEvictionAPI")
    assert why["message"] == "Eviction API: evicting" and why["lastTransitionTime"]


async def test_a_refused_eviction_changes_nothing(registry: Registry, pod: Object) -> None:
    await bound(registry, pod)
    before = await registry.get("pods", "p", "default")
    dry = WriteOptions(dry_run=True)
    await registry.write("create", "pods", {}, "p", "default", subresource="eviction", options=dry)
    body = {"deleteOptions": {"preconditions": {"uid": "another"}}}
    with pytest.raises(StatusError, match="Precondition failed"):
        await registry.create("pods", body, "default", name="p", subresource="eviction")
    assert await registry.get("pods", "p", "default") == before


@pytest.mark.parametrize(
    "body",
    [
        {"preconditions": "x"},
        {"gracePeriodSeconds": "soon"},
        {"propagationPolicy": ["Foreground"]},
        {"propagationPolicy": "Sideways"},
    ],
)
async def test_invalid_delete_options(registry: Registry, pod: Object, body: Object) -> None:
    await bound(registry, pod)
    with pytest.raises(StatusError) as raised:
        await registry.write("delete", "pods", body, "p", "default")
    assert raised.value.code in (400, 422)
    with pytest.raises(StatusError):
        await registry.create("pods", {"deleteOptions": body}, "default", name="p", subresource="eviction")
    with pytest.raises(StatusError):
        await registry.create("pods", {"target": body}, "default", name="p", subresource="binding")
    assert "deletionTimestamp" not in (await registry.get("pods", "p", "default"))["metadata"]


@pytest.mark.parametrize("part", ["binding", "eviction"])
async def test_a_subresource_must_name_the_pod_of_the_url(registry: Registry, pod: Object, part: str) -> None:
    await registry.create("pods", pod, "default")
    for metadata in ({"name": "q"}, {"name": "p", "namespace": "kube-system"}):
        with pytest.raises(StatusError, match="does not match"):
            await registry.create("pods", {"metadata": metadata}, "default", name="p", subresource=part)
