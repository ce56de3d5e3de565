from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aksgpu.common.tolerations import tolerates
from aksgpu.local.control import ControllerManager
from aksgpu.local.control.filters import PodRequirements, pod_requests, term_matches
from aksgpu.local.control.scheduler_queue import SchedulerQueue

if TYPE_CHECKING:
    from tests.local.control.conftest import World

ALONE = "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
NO_GPU = f"0/1 nodes are available: 1 Insufficient nvidia.com/gpu. {ALONE}"
GPU_TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}


async def test_binds_a_pod_and_says_so(world: World, controllers: ControllerManager) -> None:
    await world.node()
    await world.pod("one", gpus=1)
    assert await world.placed("one") == "node-a"
    event = await world.told("Scheduled", "one")
    assert event["message"] == "Successfully assigned default/one to node-a"
    assert (event["action"], event["reportingComponent"], event["source"]) == ("Binding", "default-scheduler", {})
    assert event["eventTime"] and not event.get("count")


async def test_waits_while_the_only_gpu_is_taken(world: World, controllers: ControllerManager) -> None:
    await world.node()
    first = await world.pod("first", gpus=1)
    await world.placed("first")
    await world.pod("second", gpus=1)
    await world.unschedulable("second", NO_GPU)
    event = await world.told("FailedScheduling", "second")
    assert (event["type"], event["message"], event["action"]) == ("Warning", NO_GPU, "Scheduling")
    await world.end(first)
    assert await world.placed("second") == "node-a"
    get_condition = (await world.objects.get("pods", "second", "default"))["status"]["conditions"]
    assert [each["status"] for each in get_condition if each["type"] == "PodScheduled"] == ["True"]


async def test_names_every_reason(world: World, controllers: ControllerManager) -> None:
    await world.node("system", gpus=0)
    await world.node("gpunp", taints=[GPU_TAINT])
    await world.pod("plain", gpus=1)
    await world.unschedulable(
        "plain",
        "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint {sku: gpu}. "
        "preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, "
        "1 Preemption is not helpful for scheduling.",
    )
    toleration = {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}
    await world.pod("tolerant", gpus=1, tolerations=[toleration])
    assert await world.placed("tolerant") == "gpunp"


async def test_no_nodes_then_one(world: World, controllers: ControllerManager) -> None:
    await world.pod("early")
    await world.unschedulable("early", "no nodes available to schedule pods")
    await world.node()
    assert await world.placed("early") == "node-a"


async def test_a_new_reason_replaces_the_old_one(world: World, controllers: ControllerManager) -> None:
    await world.node(gpus=0)
    await world.pod("waits", gpus=1)
    await world.unschedulable("waits", NO_GPU)
    await world.objects.patch("nodes", "node-a", {"spec": {"unschedulable": True}})
    helpless = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    await world.unschedulable("waits", f"0/1 nodes are available: 1 node(s) were unschedulable. {helpless}")


async def test_a_cordoned_node_takes_nothing_until_uncordoned(world: World, controllers: ControllerManager) -> None:
    await world.node(unschedulable=True)
    await world.pod("waits")
    helpless = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    await world.unschedulable("waits", f"0/1 nodes are available: 1 node(s) were unschedulable. {helpless}")
    await world.objects.patch("nodes", "node-a", {"spec": {"unschedulable": None}})
    assert await world.placed("waits") == "node-a"


async def test_a_node_that_is_not_ready_takes_nothing(world: World, controllers: ControllerManager) -> None:
    node = await world.node(ready=False)
    await world.pod("waits")
    helpless = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    reason = "1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }"
    await world.unschedulable("waits", f"0/1 nodes are available: {reason}. {helpless}")
    node = await world.objects.get("nodes", "node-a")
    ready = {**node["status"], "conditions": [{"type": "Ready", "status": "True"}]}
    await world.objects.patch("nodes", "node-a", {"status": ready}, subresource="status")
    assert await world.placed("waits") == "node-a"


async def test_spreads_over_nodes(world: World, controllers: ControllerManager) -> None:
    for name in ("node-a", "node-b", "node-c"):
        await world.node(name)
    for number in range(6):
        await world.pod(f"pod-{number}", cpu="500m")
        await world.placed(f"pod-{number}")
    nodes = [pod["spec"]["nodeName"] for pod in await world.pods()]
    assert sorted(nodes) == ["node-a"] * 2 + ["node-b"] * 2 + ["node-c"] * 2


async def test_node_selector_and_affinity(world: World, controllers: ControllerManager) -> None:
    await world.node("node-a")
    await world.node("node-b", labels={"accelerator": "nvidia"})
    await world.pod("selected", nodeSelector={"accelerator": "nvidia"})
    terms = [{"matchExpressions": [{"key": "accelerator", "operator": "DoesNotExist"}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    await world.pod("repelled", affinity={"nodeAffinity": required})
    assert await world.placed("selected") == "node-b"
    assert await world.placed("repelled") == "node-a"


async def test_preempts_the_least_important(world: World, controllers: ControllerManager) -> None:
    for name, value in (("low", 10), ("high", 1000)):
        await world.objects.create("priorityclasses", {"metadata": {"name": name}, "value": value})
    await world.node(gpus=2)
    for name in ("cheap", "dear"):
        await world.pod(name, gpus=1, priorityClassName={"cheap": "low", "dear": "high"}[name])
        await world.placed(name)
    await world.pod("urgent", gpus=1, priorityClassName="high")
    event = await world.told("Preempted", "cheap")
    uid = (await world.objects.get("pods", "urgent", "default"))["metadata"]["uid"]
    assert event["message"] == f"Preempted by pod {uid} on node node-a"
    assert (await world.objects.get("pods", "urgent", "default"))["status"]["nominatedNodeName"] == "node-a"
    assert (await world.get("pods", "dear"))["metadata"].get("deletionTimestamp") is None
    # Room that was made is not given to a less important pod.
    await world.pod("sneaky", gpus=1, priorityClassName="low")
    await world.bury()
    assert await world.placed("urgent") == "node-a"
    await world.unschedulable("sneaky", NO_GPU)


async def test_makes_room_for_several_at_once(world: World, controllers: ControllerManager) -> None:
    for name, value in (("low", 10), ("high", 1000), ("highest", 2000)):
        await world.objects.create("priorityclasses", {"metadata": {"name": name}, "value": value})
    await world.node(gpus=2)
    for name in ("cheap-1", "cheap-2"):
        await world.pod(name, gpus=1, priorityClassName="low")
        await world.placed(name)
    for name in ("urgent-1", "urgent-2"):
        await world.pod(name, gpus=1, priorityClassName="high")
    assert {(await world.told("Preempted", name))["reason"] for name in ("cheap-1", "cheap-2")} == {"Preempted"}
    # While that room is made, somebody more important comes.
    await world.pod("first", gpus=2, priorityClassName="highest")
    assert (await world.told("FailedScheduling", "first"))["message"] == NO_GPU.partition(" preemption")[0]
    await world.bury()
    assert await world.placed("first") == "node-a"
    assert {pod["metadata"]["name"] for pod in await world.pods()} == {"first", "urgent-1", "urgent-2"}
    for name in ("urgent-1", "urgent-2"):
        await world.unschedulable(name, NO_GPU)
    await world.objects.delete("pods", "first", "default", grace_period_seconds=0)
    assert [await world.placed(name) for name in ("urgent-1", "urgent-2")] == ["node-a", "node-a"]


async def test_never_preempts_when_told_not_to(world: World, controllers: ControllerManager) -> None:
    high = {"metadata": {"name": "polite"}, "value": 1000, "preemptionPolicy": "Never"}
    await world.objects.create("priorityclasses", high)
    await world.node()
    await world.pod("first", gpus=1)
    await world.placed("first")
    await world.pod("second", gpus=1, priorityClassName="polite")
    text = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. "
    text += "preemption: not eligible due to preemptionPolicy=Never."
    await world.unschedulable("second", text)


async def test_leaves_pods_of_other_schedulers_alone(world: World, controllers: ControllerManager) -> None:
    await world.node()
    await world.pod("theirs", schedulerName="another")
    await world.pod("ours")
    await world.placed("ours")
    assert not (await world.objects.get("pods", "theirs", "default"))["spec"].get("nodeName")


async def test_many_pods_for_few_gpus(world: World, controllers: ControllerManager) -> None:
    for number in range(4):
        await world.node(f"node-{number}", gpus=2)
    for number in range(40):
        await world.pod(f"pod-{number}", gpus=1)

    async def eight() -> bool:
        return len(await world.pods(placed=True)) == 8

    for _ in range(5):
        await world.eventually(eight)
        by_node: dict[str, int] = {}
        for pod in await world.pods(placed=True):
            by_node[pod["spec"]["nodeName"]] = by_node.get(pod["spec"]["nodeName"], 0) + 1
            await world.end(pod)
            await world.objects.delete("pods", pod["metadata"]["name"], "default", grace_period_seconds=0)
        assert by_node == {f"node-{number}": 2 for number in range(4)}
    assert await world.pods() == []


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


@pytest.mark.parametrize(
    ("toleration", "covered"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "sku", "operator": "Exists"}, True),
        ({"key": "sku", "value": "gpu"}, True),
        ({"key": "sku", "operator": "Equal", "value": "cpu"}, False),
        ({"key": "sku", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({}, False),
    ],
)
def test_tolerations(toleration: dict[str, Any], covered: bool) -> None:
    assert tolerates([toleration], GPU_TAINT) is covered


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


def test_queue_forgets_what_is_gone() -> None:
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
