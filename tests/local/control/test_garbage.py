from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aksgpu.local.control import ControllerManager
from aksgpu.local.settings import Settings
from aksgpu.local.status_error import StatusError

if TYPE_CHECKING:
    from tests.local.control.conftest import ClusterDriver


async def _owner(driver: ClusterDriver, name: str = "owner") -> dict[str, Any]:
    return await driver.objects.create("configmaps", {"metadata": {"name": name}}, "default")


async def _owned(driver: ClusterDriver, name: str, *owners: dict[str, Any], block: bool = True) -> dict[str, Any]:
    refs = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": each["metadata"]["name"],
            "uid": each["metadata"]["uid"],
            "blockOwnerDeletion": block,
        }
        for each in owners
    ]
    return await driver.objects.create("secrets", {"metadata": {"name": name, "ownerReferences": refs}}, "default")


async def _wait_until_secrets_are_seen(driver: ClusterDriver) -> None:
    """Wait until the controllers know all Secrets. Their watch shows them in the order of their creation."""
    await _owned(driver, "last", {"metadata": {"name": "ghost", "uid": "00000000-0000-0000-0000-000000000000"}})
    await driver.wait_until_deleted("secrets", "last")


async def test_background(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await _owned(driver, "owned", await _owner(driver))
    await driver.objects.delete("configmaps", "owner", "default", propagation_policy="Background")
    assert await driver.get("configmaps", "owner") is None
    await driver.wait_until_deleted("secrets", "owned")


async def test_foreground_deletes_dependents_first(driver: ClusterDriver, controllers: ControllerManager) -> None:
    job = await driver.create_job("job")

    async def created() -> list[dict[str, Any]]:
        return await driver.pods("job")

    await driver.create_node()
    [pod] = await driver.eventually(created)
    await driver.wait_until_bound(pod["metadata"]["name"])
    await driver.start_pod(await driver.objects.get("pods", pod["metadata"]["name"], "default"))
    await driver.objects.delete("jobs", "job", "default", propagation_policy="Foreground")

    async def leaving() -> bool:
        now = await driver.get("pods", pod["metadata"]["name"])
        return bool(now and now["metadata"].get("deletionTimestamp"))

    await driver.eventually(leaving)
    left = await driver.get("jobs", "job")
    assert left and left["metadata"]["uid"] == job["metadata"]["uid"] and left["metadata"]["deletionTimestamp"]
    await driver.finish_deletions()
    await driver.wait_until_deleted("jobs", "job")
    assert await driver.get("pods", pod["metadata"]["name"]) is None


async def test_foreground_deletes_dependents_of_dependents(
    driver: ClusterDriver, controllers: ControllerManager
) -> None:
    first = await _owner(driver)
    second = await _owned(driver, "second", first)
    reference = {"apiVersion": "v1", "kind": "Secret", "name": "second", "uid": second["metadata"]["uid"]}
    meta = {"name": "third", "ownerReferences": [{**reference, "blockOwnerDeletion": True}], "finalizers": ["a.io/b"]}
    await driver.objects.create("secrets", {"metadata": meta}, "default")
    await _wait_until_secrets_are_seen(driver)
    await driver.objects.delete("configmaps", "owner", "default", propagation_policy="Foreground")

    async def leaving() -> bool:
        return bool((await driver.objects.get("secrets", "third", "default"))["metadata"].get("deletionTimestamp"))

    await driver.eventually(leaving)
    assert await driver.get("configmaps", "owner") and await driver.get("secrets", "second")
    await driver.objects.patch("secrets", "third", {"metadata": {"finalizers": None}}, "default")
    await driver.wait_until_deleted("configmaps", "owner")


async def test_foreground_with_circular_owners_completes(driver: ClusterDriver, controllers: ControllerManager) -> None:
    first = await _owner(driver)
    second = await _owned(driver, "second", first)
    reference = {"apiVersion": "v1", "kind": "Secret", "name": "second", "uid": second["metadata"]["uid"]}
    circle = {"metadata": {"ownerReferences": [{**reference, "blockOwnerDeletion": True}]}}
    await driver.objects.patch("configmaps", "owner", circle, "default")
    await driver.objects.delete("configmaps", "owner", "default", propagation_policy="Foreground")
    await driver.wait_until_deleted("configmaps", "owner")
    await driver.wait_until_deleted("secrets", "second")


async def test_foreground_of_an_object_that_owns_itself_completes(
    driver: ClusterDriver, controllers: ControllerManager
) -> None:
    owner = await _owner(driver)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    itself = {"metadata": {"ownerReferences": [{**reference, "blockOwnerDeletion": True}]}}
    await driver.objects.patch("configmaps", "owner", itself, "default")
    await driver.objects.delete("configmaps", "owner", "default", propagation_policy="Foreground")
    await driver.wait_until_deleted("configmaps", "owner")


async def test_cluster_scoped_objects_ignore_namespaced_owners(
    driver: ClusterDriver, controllers: ControllerManager
) -> None:
    owner = await _owner(driver)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    important = {"metadata": {"name": "important", "ownerReferences": [reference]}, "value": 5}
    await driver.objects.create("priorityclasses", important)
    await _owned(driver, "owned", owner)
    await driver.objects.delete("configmaps", "owner", "default")
    await driver.wait_until_deleted("secrets", "owned")
    assert await driver.get("priorityclasses", "important", None)


async def test_orphan(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await _owned(driver, "owned", await _owner(driver))
    await driver.objects.delete("configmaps", "owner", "default", propagation_policy="Orphan")
    await driver.wait_until_deleted("configmaps", "owner")
    orphan = await driver.get("secrets", "owned")
    assert orphan and not orphan["metadata"].get("ownerReferences")


async def test_an_object_with_a_remaining_owner_is_kept(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await _owned(driver, "owned", await _owner(driver, "first"), await _owner(driver, "second"))
    await driver.objects.delete("configmaps", "first", "default")

    async def one() -> bool:
        now = await driver.get("secrets", "owned")
        return bool(now and [each["name"] for each in now["metadata"]["ownerReferences"]] == ["second"])

    await driver.eventually(one)


async def test_an_owner_that_never_existed(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await _owned(driver, "owned", {"metadata": {"name": "ghost", "uid": "00000000-0000-0000-0000-000000000000"}})
    await driver.wait_until_deleted("secrets", "owned")


async def test_owner_deleted_while_the_controllers_were_stopped(driver: ClusterDriver, registry: Any) -> None:
    await _owned(driver, "owned", await _owner(driver))
    await driver.objects.delete("configmaps", "owner", "default")
    controllers = ControllerManager(registry, Settings())
    await controllers.start()
    await driver.wait_until_deleted("secrets", "owned")
    await controllers.stop()


async def test_deleting_a_job_deletes_its_pods(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_job("job", parallelism=3, completions=3)

    async def three() -> bool:
        return len(await driver.pods("job")) == 3

    await driver.eventually(three)
    await driver.objects.delete("jobs", "job", "default", propagation_policy="Background")

    async def none() -> bool:
        return (await driver.objects.list("pods"))[0] == []

    await driver.eventually(none)


async def test_a_namespace_reports_what_delays_its_deletion(
    driver: ClusterDriver, controllers: ControllerManager
) -> None:
    await driver.objects.create("namespaces", {"metadata": {"name": "stuck"}})
    for name in ("one", "two"):
        await driver.objects.create("configmaps", {"metadata": {"name": name, "finalizers": ["a.io/b"]}}, "stuck")
    await driver.objects.create("configmaps", {"metadata": {"name": "free"}}, "stuck")
    await driver.objects.delete("namespaces", "stuck")

    async def has_conditions() -> dict[str, Any]:
        conditions = (await driver.objects.get("namespaces", "stuck"))["status"].get("conditions") or []
        return {each["type"]: (each["status"], each["reason"], each["message"]) for each in conditions}

    conditions = await driver.eventually(has_conditions)
    text = "Some resources are remaining: configmaps. has 2 resource instances"
    assert conditions["NamespaceContentRemaining"] == ("True", "SomeResourcesRemain", text)
    text = "Some content in the namespace has finalizers remaining: a.io/b in 2 resource instances"
    assert conditions["NamespaceFinalizersRemaining"] == ("True", "SomeFinalizersRemain", text)
    assert {conditions[kind][0] for kind in conditions if "Deletion" in kind} == {"False"} and len(conditions) == 5
    for name in ("one", "two"):
        await driver.objects.patch("configmaps", name, {"metadata": {"finalizers": None}}, "stuck")
    await driver.wait_until_deleted("namespaces", "stuck", None)


async def test_the_namespace_of_the_leases_is_created_again(
    driver: ClusterDriver, controllers: ControllerManager
) -> None:
    """A user deletes it with ``kubectl delete namespaces --all``. The others of the system refuse to be deleted."""
    old = await driver.objects.get("namespaces", "kube-node-lease")
    await driver.create_lease("node-a")
    await driver.objects.delete("namespaces", "kube-node-lease")

    async def created_again() -> bool:
        found = await driver.get("namespaces", "kube-node-lease", None)
        return found is not None and bool(found["metadata"]["uid"] != old["metadata"]["uid"])

    await driver.eventually(created_again)
    await driver.create_lease("node-a")


async def test_deleting_a_namespace_deletes_its_content(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.objects.create("namespaces", {"metadata": {"name": "mine"}})
    await driver.objects.create("configmaps", {"metadata": {"name": "settings"}}, "mine")
    template = {"spec": {"containers": [{"name": "main", "image": "busybox"}], "restartPolicy": "Never"}}
    await driver.objects.create("jobs", {"metadata": {"name": "job"}, "spec": {"template": template}}, "mine")
    await driver.wait_for_event("SuccessfulCreate", "job")
    await driver.objects.delete("namespaces", "mine")

    async def gone() -> bool:
        await driver.finish_deletions()
        return await driver.get("namespaces", "mine", None) is None

    await driver.eventually(gone)
    for resource in ("pods", "jobs", "configmaps"):
        assert (await driver.objects.list(resource, "mine"))[0] == []
    try:
        await driver.objects.create("configmaps", {"metadata": {"name": "late"}}, "mine")
    except StatusError as error:
        assert error.code == 404
