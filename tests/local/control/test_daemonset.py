from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aksgpu.local.control import ControllerManager
from aksgpu.local.control.daemonset_controller import REVISION_LABEL, unavailable_limit

if TYPE_CHECKING:
    from tests.local.control.conftest import ClusterDriver

GPU_TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}


async def _apply(driver: ClusterDriver, **spec: Any) -> dict[str, Any]:
    labels = {"app": "plugin"}
    pod = {"containers": [{"name": "main", "image": "plugin:1"}], **spec.pop("pod", {})}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"selector": {"matchLabels": labels}, "template": template, **spec}
    return await driver.objects.create("daemonsets", {"metadata": {"name": "plugin"}, "spec": spec}, "default")


async def _status(driver: ClusterDriver, **wanted: int) -> dict[str, Any]:
    async def as_wanted() -> dict[str, Any] | None:
        status = (await driver.objects.get("daemonsets", "plugin", "default")).get("status") or {}
        return status if all(status.get(name, 0) == value for name, value in wanted.items()) else None

    return dict(await driver.eventually(as_wanted))


async def _run_all(driver: ClusterDriver) -> None:
    for pod in await driver.pods("plugin", bound=True):
        if (pod.get("status") or {}).get("phase") != "Running":
            await driver.start_pod(pod)


async def test_runs_one_pod_on_every_tolerated_node(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node("node-a")
    await driver.create_node("node-b")
    await driver.create_node("gpunp", taints=[GPU_TAINT])
    await _apply(driver)
    status = await _status(driver, desiredNumberScheduled=2, currentNumberScheduled=2, numberUnavailable=2)
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
        return {pod["spec"].get("nodeName") for pod in await driver.pods("plugin")} == {"node-a", "node-b"}

    await driver.eventually(both)
    await _run_all(driver)
    await _status(driver, numberReady=2, numberAvailable=2, numberUnavailable=0)
    pod = (await driver.pods("plugin"))[0]
    assert {each["key"] for each in pod["spec"]["tolerations"]} >= {"node.kubernetes.io/unschedulable"}
    assert (await driver.wait_for_event("SuccessfulCreate", "plugin"))["source"] == {
        "component": "daemonset-controller"
    }


async def test_follows_nodes(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await _apply(driver, pod={"nodeSelector": {"accelerator": "nvidia"}})
    await _status(driver, desiredNumberScheduled=0)
    await driver.create_node("node-a")
    await driver.create_node("node-b", labels={"accelerator": "nvidia"}, unschedulable=True)
    await _status(driver, desiredNumberScheduled=1, currentNumberScheduled=1)

    async def placed() -> bool:
        return [pod["spec"].get("nodeName") for pod in await driver.pods("plugin")] == ["node-b"]

    await driver.eventually(placed)
    await driver.objects.patch("nodes", "node-b", {"metadata": {"labels": {"accelerator": None}}})
    await driver.wait_for_event("SuccessfulDelete", "plugin")


async def test_waits_for_a_node_to_be_ready(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node("node-a", ready=False)
    await _apply(driver)
    await _status(driver, observedGeneration=1, desiredNumberScheduled=0)
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    await driver.objects.patch("nodes", "node-a", {"status": ready}, subresource="status")
    await _status(driver, desiredNumberScheduled=1, currentNumberScheduled=1)


async def test_adopts_pods_of_a_daemonset_deleted_with_orphan(
    driver: ClusterDriver, controllers: ControllerManager
) -> None:
    await driver.create_node("node-a")
    await _apply(driver)
    await _status(driver, currentNumberScheduled=1)
    [pod] = await driver.pods("plugin")
    await driver.objects.delete("daemonsets", "plugin", "default", propagation_policy="Orphan")

    async def orphaned() -> bool:
        is_deleted = await driver.get("daemonsets", "plugin") is None
        return is_deleted and not (await driver.pods("plugin"))[0]["metadata"].get("ownerReferences")

    await driver.eventually(orphaned)
    daemonset = await _apply(driver)
    await _status(driver, currentNumberScheduled=1, updatedNumberScheduled=1)
    [same] = await driver.pods("plugin")
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    assert same["metadata"]["ownerReferences"][0]["uid"] == daemonset["metadata"]["uid"]


async def test_replaces_a_failed_pod(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node("node-a")
    await _apply(driver)
    await _status(driver, currentNumberScheduled=1)
    [pod] = await driver.pods("plugin")
    await driver.end_pod(pod, 1)
    await driver.wait_for_event("FailedDaemonPod", "plugin")
    await driver.finish_deletions()

    async def another() -> bool:
        found = await driver.pods("plugin")
        return bool(found) and found[0]["metadata"]["uid"] != pod["metadata"]["uid"]

    await driver.eventually(another)


async def test_rolls_out_a_few_at_a_time(driver: ClusterDriver, controllers: ControllerManager) -> None:
    for name in ("node-a", "node-b", "node-c"):
        await driver.create_node(name)
    await _apply(driver)
    await _status(driver, currentNumberScheduled=3)

    async def available(number: int) -> bool:
        await _run_all(driver)
        status = (await driver.objects.get("daemonsets", "plugin", "default"))["status"]
        return status.get("numberAvailable") == number

    await driver.eventually(lambda: available(3))
    container = {"name": "main", "image": "plugin:2"}
    await driver.objects.patch(
        "daemonsets", "plugin", {"spec": {"template": {"spec": {"containers": [container]}}}}, "default"
    )

    async def rolled_out() -> bool:
        found, _ = await driver.objects.list("pods")
        leaving = [pod for pod in found if pod["metadata"].get("deletionTimestamp")]
        assert len(leaving) <= 1
        await driver.finish_deletions()
        await _run_all(driver)
        status = (await driver.objects.get("daemonsets", "plugin", "default"))["status"]
        names = ("observedGeneration", "updatedNumberScheduled", "numberAvailable")
        return tuple(status.get(name) for name in names) == (2, 3, 3)

    await driver.eventually(rolled_out)
    await _status(driver, desiredNumberScheduled=3, numberUnavailable=0)
    assert len({pod["metadata"]["labels"][REVISION_LABEL] for pod in await driver.pods("plugin")}) == 1


@pytest.mark.parametrize(("limit", "desired", "number"), [(1, 10, 1), ("25%", 10, 3), ("1%", 10, 1), (3, 10, 3)])
def test_unavailable_limit(limit: int | str, desired: int, number: int) -> None:
    daemonset = {"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": limit}}}}
    assert unavailable_limit(daemonset, desired) == number
    assert unavailable_limit({"spec": {}}, desired) == 1
