from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aksgpu.local.control import ControllerManager
from aksgpu.local.settings import Settings
from aksgpu.local.status_error import StatusError

if TYPE_CHECKING:
    from tests.local.control.conftest import World


async def _owner(world: World, name: str = "owner") -> dict[str, Any]:
    return await world.objects.create("configmaps", {"metadata": {"name": name}}, "default")


async def _owned(world: World, name: str, *owners: dict[str, Any], block: bool = True) -> dict[str, Any]:
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
    return await world.objects.create("secrets", {"metadata": {"name": name, "ownerReferences": refs}}, "default")


async def _gone(world: World, resource: str, name: str) -> None:
    async def gone() -> bool:
        return await world.get(resource, name) is None

    await world.eventually(gone)


async def test_background(world: World, controllers: ControllerManager) -> None:
    await _owned(world, "owned", await _owner(world))
    await world.objects.delete("configmaps", "owner", "default", propagation_policy="Background")
    assert await world.get("configmaps", "owner") is None
    await _gone(world, "secrets", "owned")


async def test_foreground_takes_the_owned_first(world: World, controllers: ControllerManager) -> None:
    job = await world.job("job")

    async def made() -> list[dict[str, Any]]:
        return await world.pods("job")

    await world.node()
    [pod] = await world.eventually(made)
    await world.placed(pod["metadata"]["name"])
    await world.run(await world.objects.get("pods", pod["metadata"]["name"], "default"))
    await world.objects.delete("jobs", "job", "default", propagation_policy="Foreground")

    async def leaving() -> bool:
        now = await world.get("pods", pod["metadata"]["name"])
        return bool(now and now["metadata"].get("deletionTimestamp"))

    await world.eventually(leaving)
    left = await world.get("jobs", "job")
    assert left and left["metadata"]["uid"] == job["metadata"]["uid"] and left["metadata"]["deletionTimestamp"]
    await world.bury()
    await _gone(world, "jobs", "job")
    assert await world.get("pods", pod["metadata"]["name"]) is None


async def test_foreground_reaches_what_the_owned_own(world: World, controllers: ControllerManager) -> None:
    first = await _owner(world)
    second = await _owned(world, "second", first)
    reference = {"apiVersion": "v1", "kind": "Secret", "name": "second", "uid": second["metadata"]["uid"]}
    meta = {"name": "third", "ownerReferences": [{**reference, "blockOwnerDeletion": True}], "finalizers": ["a.io/b"]}
    await world.objects.create("secrets", {"metadata": meta}, "default")
    await world.objects.delete("configmaps", "owner", "default", propagation_policy="Foreground")

    async def leaving() -> bool:
        return bool((await world.objects.get("secrets", "third", "default"))["metadata"].get("deletionTimestamp"))

    await world.eventually(leaving)
    assert await world.get("configmaps", "owner") and await world.get("secrets", "second")
    await world.objects.patch("secrets", "third", {"metadata": {"finalizers": None}}, "default")
    await _gone(world, "configmaps", "owner")


async def test_foreground_round_a_circle_ends(world: World, controllers: ControllerManager) -> None:
    first = await _owner(world)
    second = await _owned(world, "second", first)
    reference = {"apiVersion": "v1", "kind": "Secret", "name": "second", "uid": second["metadata"]["uid"]}
    circle = {"metadata": {"ownerReferences": [{**reference, "blockOwnerDeletion": True}]}}
    await world.objects.patch("configmaps", "owner", circle, "default")
    await world.objects.delete("configmaps", "owner", "default", propagation_policy="Foreground")
    await _gone(world, "configmaps", "owner")
    await _gone(world, "secrets", "second")


async def test_foreground_of_what_owns_itself_ends(world: World, controllers: ControllerManager) -> None:
    owner = await _owner(world)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    itself = {"metadata": {"ownerReferences": [{**reference, "blockOwnerDeletion": True}]}}
    await world.objects.patch("configmaps", "owner", itself, "default")
    await world.objects.delete("configmaps", "owner", "default", propagation_policy="Foreground")
    await _gone(world, "configmaps", "owner")


async def test_what_belongs_to_no_namespace_is_not_owned_by_what_does(
    world: World, controllers: ControllerManager
) -> None:
    owner = await _owner(world)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    important = {"metadata": {"name": "important", "ownerReferences": [reference]}, "value": 5}
    await world.objects.create("priorityclasses", important)
    await _owned(world, "owned", owner)
    await world.objects.delete("configmaps", "owner", "default")
    await _gone(world, "secrets", "owned")
    assert await world.get("priorityclasses", "important", None)


async def test_orphan(world: World, controllers: ControllerManager) -> None:
    await _owned(world, "owned", await _owner(world))
    await world.objects.delete("configmaps", "owner", "default", propagation_policy="Orphan")
    await _gone(world, "configmaps", "owner")
    orphan = await world.get("secrets", "owned")
    assert orphan and not orphan["metadata"].get("ownerReferences")


async def test_one_of_two_owners_stays(world: World, controllers: ControllerManager) -> None:
    await _owned(world, "owned", await _owner(world, "first"), await _owner(world, "second"))
    await world.objects.delete("configmaps", "first", "default")

    async def one() -> bool:
        now = await world.get("secrets", "owned")
        return bool(now and [each["name"] for each in now["metadata"]["ownerReferences"]] == ["second"])

    await world.eventually(one)


async def test_an_owner_that_never_was(world: World, controllers: ControllerManager) -> None:
    await _owned(world, "owned", {"metadata": {"name": "ghost", "uid": "00000000-0000-0000-0000-000000000000"}})
    await _gone(world, "secrets", "owned")


async def test_owner_deleted_while_nobody_looked(world: World, registry: Any) -> None:
    await _owned(world, "owned", await _owner(world))
    await world.objects.delete("configmaps", "owner", "default")
    controllers = ControllerManager(registry, Settings())
    await controllers.start()
    await _gone(world, "secrets", "owned")
    await controllers.stop()


async def test_a_deleted_job_takes_its_pods_along(world: World, controllers: ControllerManager) -> None:
    await world.job("job", parallelism=3, completions=3)

    async def three() -> bool:
        return len(await world.pods("job")) == 3

    await world.eventually(three)
    await world.objects.delete("jobs", "job", "default", propagation_policy="Background")

    async def none() -> bool:
        return (await world.objects.list("pods"))[0] == []

    await world.eventually(none)


async def test_a_namespace_says_what_keeps_it(world: World, controllers: ControllerManager) -> None:
    await world.objects.create("namespaces", {"metadata": {"name": "stuck"}})
    for name in ("one", "two"):
        await world.objects.create("configmaps", {"metadata": {"name": name, "finalizers": ["a.io/b"]}}, "stuck")
    await world.objects.create("configmaps", {"metadata": {"name": "free"}}, "stuck")
    await world.objects.delete("namespaces", "stuck")

    async def said() -> dict[str, Any]:
        conditions = (await world.objects.get("namespaces", "stuck"))["status"].get("conditions") or []
        return {each["type"]: (each["status"], each["reason"], each["message"]) for each in conditions}

    told = await world.eventually(said)
    text = "Some resources are remaining: configmaps. has 2 resource instances"
    assert told["NamespaceContentRemaining"] == ("True", "SomeResourcesRemain", text)
    text = "Some content in the namespace has finalizers remaining: a.io/b in 2 resource instances"
    assert told["NamespaceFinalizersRemaining"] == ("True", "SomeFinalizersRemain", text)
    assert {told[kind][0] for kind in told if "Deletion" in kind} == {"False"} and len(told) == 5
    for name in ("one", "two"):
        await world.objects.patch("configmaps", name, {"metadata": {"finalizers": None}}, "stuck")

    async def gone() -> bool:
        return await world.get("namespaces", "stuck", None) is None

    await world.eventually(gone)


async def test_a_deleted_namespace_empties(world: World, controllers: ControllerManager) -> None:
    await world.objects.create("namespaces", {"metadata": {"name": "mine"}})
    await world.objects.create("configmaps", {"metadata": {"name": "settings"}}, "mine")
    template = {"spec": {"containers": [{"name": "main", "image": "busybox"}], "restartPolicy": "Never"}}
    await world.objects.create("jobs", {"metadata": {"name": "job"}, "spec": {"template": template}}, "mine")
    await world.told("SuccessfulCreate", "job")
    await world.objects.delete("namespaces", "mine")

    async def gone() -> bool:
        await world.bury()
        return await world.get("namespaces", "mine", None) is None

    await world.eventually(gone)
    for resource in ("pods", "jobs", "configmaps"):
        assert (await world.objects.list(resource, "mine"))[0] == []
    try:
        await world.objects.create("configmaps", {"metadata": {"name": "late"}}, "mine")
    except StatusError as error:
        assert error.code == 404
