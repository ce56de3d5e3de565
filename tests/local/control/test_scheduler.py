from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aksgpu.local.control import ControllerManager
from aksgpu.local.control.filters import PodRequirements, pod_requests, term_matches
from aksgpu.local.control.scheduler_queue import SchedulerQueue

if TYPE_CHECKING:
    from tests.local.control.conftest import ClusterDriver

HELPLESS = "no new claims to deallocate, preemption: 0/1 nodes are available: 1"
ALONE = f"{HELPLESS} No preemption victims found for incoming pod."
NO_GPU = f"0/1 nodes are available: 1 Insufficient nvidia.com/gpu. {ALONE}"
GPU_TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}


async def test_binds_a_pod_and_records_an_event(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node()
    await driver.create_pod("one", gpus=1)
    assert await driver.wait_until_bound("one") == "node-a"
    event = await driver.wait_for_event("Scheduled", "one")
    assert event["message"] == "Successfully assigned default/one to node-a"
    assert (event["action"], event["reportingComponent"], event["source"]) == ("Binding", "default-scheduler", {})
    assert event["eventTime"] and not event.get("count")


async def test_waits_while_the_only_gpu_is_taken(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node()
    first = await driver.create_pod("first", gpus=1)
    await driver.wait_until_bound("first")
    await driver.create_pod("second", gpus=1)
    await driver.wait_until_unschedulable("second", NO_GPU)
    event = await driver.wait_for_event("FailedScheduling", "second")
    assert (event["type"], event["message"], event["action"]) == ("Warning", NO_GPU, "Scheduling")
    await driver.end_pod(first)
    assert await driver.wait_until_bound("second") == "node-a"
    get_condition = (await driver.objects.get("pods", "second", "default"))["status"]["conditions"]
    assert [each["status"] for each in get_condition if each["type"] == "PodScheduled"] == ["True"]


async def test_names_every_reason(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node("system", gpus=0)
    await driver.create_node("gpunp", taints=[GPU_TAINT])
    await driver.create_pod("plain", gpus=1)
    await driver.wait_until_unschedulable(
        "plain",
        "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint(s). no new claims to "
        "deallocate, preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 "
        "Preemption is not helpful for scheduling.",
    )
    toleration = {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}
    await driver.create_pod("tolerant", gpus=1, tolerations=[toleration])
    assert await driver.wait_until_bound("tolerant") == "gpunp"


async def test_no_nodes_then_one(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_pod("early")
    await driver.wait_until_unschedulable("early", "no nodes available to schedule pods")
    await driver.create_node()
    assert await driver.wait_until_bound("early") == "node-a"


async def test_a_new_message_replaces_the_old_one(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node(gpus=0)
    await driver.create_pod("waits", gpus=1)
    await driver.wait_until_unschedulable("waits", NO_GPU)
    await driver.objects.patch("nodes", "node-a", {"spec": {"unschedulable": True}})
    helpless = (
        "no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )
    await driver.wait_until_unschedulable("waits", f"0/1 nodes are available: 1 node(s) were unschedulable. {helpless}")


async def test_a_cordoned_node_gets_no_pods(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node(unschedulable=True)
    await driver.create_pod("waits")
    helpless = (
        "no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )
    await driver.wait_until_unschedulable("waits", f"0/1 nodes are available: 1 node(s) were unschedulable. {helpless}")
    await driver.objects.patch("nodes", "node-a", {"spec": {"unschedulable": None}})
    assert await driver.wait_until_bound("waits") == "node-a"


async def test_a_node_that_is_not_ready_gets_no_pods(driver: ClusterDriver, controllers: ControllerManager) -> None:
    node = await driver.create_node(ready=False)
    await driver.create_pod("waits")
    helpless = (
        "no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )
    reason = "1 node(s) had untolerated taint(s)"
    await driver.wait_until_unschedulable("waits", f"0/1 nodes are available: {reason}. {helpless}")
    node = await driver.objects.get("nodes", "node-a")
    ready = {**node["status"], "conditions": [{"type": "Ready", "status": "True"}]}
    await driver.objects.patch("nodes", "node-a", {"status": ready}, subresource="status")
    assert await driver.wait_until_bound("waits") == "node-a"


async def test_spreads_over_nodes(driver: ClusterDriver, controllers: ControllerManager) -> None:
    for name in ("node-a", "node-b", "node-c"):
        await driver.create_node(name)
    for number in range(6):
        await driver.create_pod(f"pod-{number}", cpu="500m")
        await driver.wait_until_bound(f"pod-{number}")
    nodes = [pod["spec"]["nodeName"] for pod in await driver.pods()]
    assert sorted(nodes) == ["node-a"] * 2 + ["node-b"] * 2 + ["node-c"] * 2


async def test_node_selector_and_affinity(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node("node-a")
    await driver.create_node("node-b", labels={"accelerator": "nvidia"})
    await driver.create_pod("selected", nodeSelector={"accelerator": "nvidia"})
    terms = [{"matchExpressions": [{"key": "accelerator", "operator": "DoesNotExist"}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    await driver.create_pod("repelled", affinity={"nodeAffinity": required})
    assert await driver.wait_until_bound("selected") == "node-b"
    assert await driver.wait_until_bound("repelled") == "node-a"


async def test_preempts_the_lowest_priority(driver: ClusterDriver, controllers: ControllerManager) -> None:
    for name, value in (("low", 10), ("high", 1000)):
        await driver.objects.create("priorityclasses", {"metadata": {"name": name}, "value": value})
    await driver.create_node(gpus=2)
    for name in ("cheap", "dear"):
        await driver.create_pod(name, gpus=1, priorityClassName={"cheap": "low", "dear": "high"}[name])
        await driver.wait_until_bound(name)
    await driver.create_pod("urgent", gpus=1, priorityClassName="high")
    event = await driver.wait_for_event("Preempted", "cheap")
    uid = (await driver.objects.get("pods", "urgent", "default"))["metadata"]["uid"]
    assert event["message"] == f"Preempted by pod {uid} on node node-a"
    assert (await driver.objects.get("pods", "urgent", "default"))["status"]["nominatedNodeName"] == "node-a"
    assert (await driver.get("pods", "dear"))["metadata"].get("deletionTimestamp") is None
    # Room that preemption has made is not given to a pod of lower priority.
    await driver.create_pod("sneaky", gpus=1, priorityClassName="low")
    await driver.finish_deletions()
    assert await driver.wait_until_bound("urgent") == "node-a"
    await driver.wait_until_unschedulable("sneaky", NO_GPU)


async def test_preempts_for_several_pods_at_once(driver: ClusterDriver, controllers: ControllerManager) -> None:
    for name, value in (("low", 10), ("high", 1000), ("highest", 2000)):
        await driver.objects.create("priorityclasses", {"metadata": {"name": name}, "value": value})
    await driver.create_node(gpus=2)
    for name in ("cheap-1", "cheap-2"):
        await driver.create_pod(name, gpus=1, priorityClassName="low")
        await driver.wait_until_bound(name)
    for name in ("urgent-1", "urgent-2"):
        await driver.create_pod(name, gpus=1, priorityClassName="high")
    assert {(await driver.wait_for_event("Preempted", name))["reason"] for name in ("cheap-1", "cheap-2")} == {
        "Preempted"
    }
    # Before the room is free, a pod of higher priority comes.
    await driver.create_pod("first", gpus=2, priorityClassName="highest")
    assert (await driver.wait_for_event("FailedScheduling", "first"))["message"] == NO_GPU.partition(" no new")[0]
    for name in ("urgent-1", "urgent-2"):
        await driver.wait_until_unschedulable(name, NO_GPU)
    await driver.finish_deletions()
    assert await driver.wait_until_bound("first") == "node-a"
    assert {pod["metadata"]["name"] for pod in await driver.pods()} == {"first", "urgent-1", "urgent-2"}
    for name in ("urgent-1", "urgent-2"):
        await driver.wait_until_unschedulable(name, NO_GPU)
    await driver.objects.delete("pods", "first", "default", grace_period_seconds=0)
    assert [await driver.wait_until_bound(name) for name in ("urgent-1", "urgent-2")] == ["node-a", "node-a"]


async def test_does_not_preempt_with_policy_never(driver: ClusterDriver, controllers: ControllerManager) -> None:
    high = {"metadata": {"name": "polite"}, "value": 1000, "preemptionPolicy": "Never"}
    await driver.objects.create("priorityclasses", high)
    await driver.create_node()
    await driver.create_pod("first", gpus=1)
    await driver.wait_until_bound("first")
    await driver.create_pod("second", gpus=1, priorityClassName="polite")
    text = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. "
    text += "no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never."
    await driver.wait_until_unschedulable("second", text)


async def test_ignores_pods_of_other_schedulers(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node()
    await driver.create_pod("theirs", schedulerName="another")
    await driver.create_pod("ours")
    await driver.wait_until_bound("ours")
    assert not (await driver.objects.get("pods", "theirs", "default"))["spec"].get("nodeName")
    event = await driver.wait_for_event("NoScheduler", "theirs")
    assert "runs no scheduler 'another'" in event["message"]


async def test_many_pods_for_few_gpus(driver: ClusterDriver, controllers: ControllerManager) -> None:
    for number in range(4):
        await driver.create_node(f"node-{number}", gpus=2)
    for number in range(40):
        await driver.create_pod(f"pod-{number}", gpus=1)

    async def eight() -> bool:
        return len(await driver.pods(bound=True)) == 8

    for _ in range(5):
        await driver.eventually(eight)
        by_node: dict[str, int] = {}
        for pod in await driver.pods(bound=True):
            by_node[pod["spec"]["nodeName"]] = by_node.get(pod["spec"]["nodeName"], 0) + 1
            await driver.end_pod(pod)
            await driver.objects.delete("pods", pod["metadata"]["name"], "default", grace_period_seconds=0)
        assert by_node == {f"node-{number}": 2 for number in range(4)}
    assert await driver.pods() == []


def _spec(**containers: Any) -> dict[str, Any]:
    return {name: [{"resources": {"requests": each}} for each in them] for name, them in containers.items()}


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (_spec(containers=[{"cpu": "250m"}, {"cpu": "1"}]), {"cpu": 1250}),
        (_spec(containers=[{"cpu": "1"}], initContainers=[{"cpu": "3"}, {"cpu": "2"}]), {"cpu": 3000}),
        (
            {
                "containers": [{"resources": {"limits": {"nvidia.com/gpu": 1}}}],
                "initContainers": [
                    {"restartPolicy": "Always", "resources": {"requests": {"memory": "1Ki"}}},
                    {"resources": {"requests": {"memory": "2Ki"}}},
                ],
                "overhead": {"cpu": "0.1"},
            },
            {"nvidia.com/gpu": 1, "memory": 3072, "cpu": 100},
        ),
    ],
)
def test_requests(spec: dict[str, Any], wanted: dict[str, int]) -> None:
    assert pod_requests(spec) == wanted


def test_an_empty_term_selects_nothing() -> None:
    assert not term_matches({}, "node-a", {})
    assert term_matches(
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-a"]}]}, "node-a", {}
    )


def _bare_pod(uid: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"uid": uid, "name": uid, "namespace": "default"}, "spec": {"containers": [], **spec}}


def _bare_node(name: str, **amounts: str) -> dict[str, Any]:
    status = {"allocatable": {"pods": "2", **amounts}, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": name}, "spec": {}, "status": status}


def test_queue_drops_deleted_objects() -> None:
    queue = SchedulerQueue()
    for number in range(200):
        queue.node_changed("n", _bare_node("n"))
        pod = _bare_pod(f"p{number}", nodeSelector={"never": str(number)})
        queue.pod_changed(pod["metadata"]["uid"], pod)
        queue.pod_changed(pod["metadata"]["uid"], None)
        queue.node_changed("n", None)
    assert queue.nodes == {} and len(queue._groups) <= 17 and not queue._group_keys


def test_queue_counts_an_assumed_pod_once() -> None:
    queue = SchedulerQueue()
    queue.node_changed("n", _bare_node("n"))
    first, second, third = (_bare_pod(uid) for uid in ("a", "b", "c"))
    for pod in (first, second, third):
        queue.pod_changed(pod["metadata"]["uid"], pod)
    while placement := queue.next():
        queue.assume(placement.pod, placement.node)
    queue.pod_changed("a", _bare_pod("a", nodeName="n"))
    assert set(queue.nodes["n"].pods) == {"a", "b"}
    queue.requeue(second)
    placement = queue.next()
    assert placement and placement.pod["metadata"]["uid"] == "c"
    assert PodRequirements(first["spec"]).key == PodRequirements(third["spec"]).key
