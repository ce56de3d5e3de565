from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aksgpu.local.control import ControllerManager
from aksgpu.local.control.daemonset_controller import REVISION_LABEL, unavailable_limit

if TYPE_CHECKING:
    from tests.local.control.conftest import World

GPU_TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}


async def _apply(world: World, **spec: Any) -> dict[str, Any]:
    labels = {"app": "plugin"}
    pod = {"containers": [{"name": "main", "image": "plugin:1"}], **spec.pop("pod", {})}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"selector": {"matchLabels": labels}, "template": template, **spec}
    return await world.objects.create("daemonsets", {"metadata": {"name": "plugin"}, "spec": spec}, "default")


async def _status(world: World, **wanted: int) -> dict[str, Any]:
    async def as_wanted() -> dict[str, Any] | None:
        status = (await world.objects.get("daemonsets", "plugin", "default")).get("status") or {}
        return status if all(status.get(name, 0) == value for name, value in wanted.items()) else None

    return dict(await world.eventually(as_wanted))


async def _run_all(world: World) -> None:
    for pod in await world.pods("plugin", placed=True):
        if (pod.get("status") or {}).get("phase") != "Running":
            await world.run(pod)


async def test_one_pod_on_every_node_that_it_tolerates(world: World, controllers: ControllerManager) -> None:
    await world.node("node-a")
    await world.node("node-b")
    await world.node("gpunp", taints=[GPU_TAINT])
    await _apply(world)
    status = await _status(world, desiredNumberScheduled=2, currentNumberScheduled=2, numberUnavailable=2)
    assert status == {
        "currentNumberScheduled": 2,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 2,
        "numberReady": 0,
        "observedGeneration": 1,
        "updatedNumberScheduled": 2,
        "numberUnavailable": 2,
    }

    async def both() -> bool:
        return {pod["spec"].get("nodeName") for pod in await world.pods("plugin")} == {"node-a", "node-b"}

    await world.eventually(both)
    await _run_all(world)
    await _status(world, numberReady=2, numberAvailable=2, numberUnavailable=0)
    pod = (await world.pods("plugin"))[0]
    assert {each["key"] for each in pod["spec"]["tolerations"]} >= {"node.kubernetes.io/unschedulable"}
    assert (await world.told("SuccessfulCreate", "plugin"))["source"] == {"component": "daemonset-controller"}


async def test_follows_nodes(world: World, controllers: ControllerManager) -> None:
    await _apply(world, pod={"nodeSelector": {"accelerator": "nvidia"}})
    await _status(world, desiredNumberScheduled=0)
    await world.node("node-a")
    await world.node("node-b", labels={"accelerator": "nvidia"}, unschedulable=True)
    await _status(world, desiredNumberScheduled=1, currentNumberScheduled=1)

    async def placed() -> bool:
        return [pod["spec"].get("nodeName") for pod in await world.pods("plugin")] == ["node-b"]

    await world.eventually(placed)
    await world.objects.patch("nodes", "node-b", {"metadata": {"labels": {"accelerator": None}}})
    await world.told("SuccessfulDelete", "plugin")


async def test_waits_for_a_node_to_be_ready(world: World, controllers: ControllerManager) -> None:
    await world.node("node-a", ready=False)
    await _apply(world)
    await _status(world, observedGeneration=1, desiredNumberScheduled=0)
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    await world.objects.patch("nodes", "node-a", {"status": ready}, subresource="status")
    await _status(world, desiredNumberScheduled=1, currentNumberScheduled=1)


async def test_takes_over_the_pods_that_one_deleted_with_orphan_left(
    world: World, controllers: ControllerManager
) -> None:
    await world.node("node-a")
    await _apply(world)
    await _status(world, currentNumberScheduled=1)
    [pod] = await world.pods("plugin")
    await world.objects.delete("daemonsets", "plugin", "default", propagation_policy="Orphan")

    async def orphaned() -> bool:
        return not (await world.pods("plugin"))[0]["metadata"].get("ownerReferences")

    await world.eventually(orphaned)
    daemonset = await _apply(world)
    await _status(world, currentNumberScheduled=1, updatedNumberScheduled=1)
    [same] = await world.pods("plugin")
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    assert same["metadata"]["ownerReferences"][0]["uid"] == daemonset["metadata"]["uid"]


async def test_replaces_a_failed_pod(world: World, controllers: ControllerManager) -> None:
    await world.node("node-a")
    await _apply(world)
    await _status(world, currentNumberScheduled=1)
    [pod] = await world.pods("plugin")
    await world.end(pod, 1)
    await world.told("FailedDaemonPod", "plugin")
    await world.bury()

    async def another() -> bool:
        found = await world.pods("plugin")
        return bool(found) and found[0]["metadata"]["uid"] != pod["metadata"]["uid"]

    await world.eventually(another)


async def test_rolls_out_a_few_at_a_time(world: World, controllers: ControllerManager) -> None:
    for name in ("node-a", "node-b", "node-c"):
        await world.node(name)
    await _apply(world)
    await _status(world, currentNumberScheduled=3)

    async def available(number: int) -> bool:
        await _run_all(world)
        status = (await world.objects.get("daemonsets", "plugin", "default"))["status"]
        return status.get("numberAvailable") == number

    await world.eventually(lambda: available(3))
    container = {"name": "main", "image": "plugin:2"}
    await world.objects.patch(
        "daemonsets", "plugin", {"spec": {"template": {"spec": {"containers": [container]}}}}, "default"
    )

    async def rolled_out() -> bool:
        found, _ = await world.objects.list("pods")
        leaving = [pod for pod in found if pod["metadata"].get("deletionTimestamp")]
        assert len(leaving) <= 1
        await world.bury()
        await _run_all(world)
        status = (await world.objects.get("daemonsets", "plugin", "default"))["status"]
        names = ("observedGeneration", "updatedNumberScheduled", "numberAvailable")
        return tuple(status.get(name) for name in names) == (2, 3, 3)

    await world.eventually(rolled_out)
    await _status(world, desiredNumberScheduled=3, numberUnavailable=0)
    assert len({pod["metadata"]["labels"][REVISION_LABEL] for pod in await world.pods("plugin")}) == 1


@pytest.mark.parametrize(("limit", "desired", "number"), [(1, 10, 1), ("25%", 10, 3), ("1%", 10, 1), (3, 10, 3)])
def test_unavailable_limit(limit: int | str, desired: int, number: int) -> None:
    daemonset = {"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": limit}}}}
    assert unavailable_limit(daemonset, desired) == number
    assert unavailable_limit({"spec": {}}, desired) == 1
