from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from aksgpu.local.control import ControllerManager, job_accounting
from aksgpu.local.control.job_accounting import backoff_left, failure_policy_action, format_indexes, parse_indexes
from aksgpu.local.control.job_controller import new_pod
from aksgpu.local.objects import Object
from aksgpu.local.settings import Settings

if TYPE_CHECKING:
    from tests.local.control.conftest import World

TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"


async def _conditions(world: World, name: str, kind: str) -> dict[str, Any]:
    """The Job, once it has the condition."""

    async def there() -> dict[str, Any] | None:
        job = await world.objects.get("jobs", name, "default")
        conditions = (job.get("status") or {}).get("conditions") or []
        return job if any(each["type"] == kind and each["status"] == "True" for each in conditions) else None

    return dict(await world.eventually(there))


async def _pods(world: World, name: str, count: int, phase: str = "Pending") -> list[dict[str, Any]]:
    async def enough() -> list[dict[str, Any]]:
        found = await world.pods(name, phase=phase)
        return found if len(found) == count else []

    return list(await world.eventually(enough))


async def test_runs_one_pod_to_completion(world: World, controllers: ControllerManager) -> None:
    await world.node()
    job = await world.job("mnist")
    [pod] = await _pods(world, "mnist", 1)
    meta = pod["metadata"]
    assert meta["generateName"] == "mnist-" and len(meta["name"]) == len("mnist-") + 5
    assert meta["finalizers"] == [TRACKING_FINALIZER]
    owner = meta["ownerReferences"][0]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Job", job["metadata"]["uid"], True)

    async def started() -> dict[str, Any] | None:
        status = (await world.objects.get("jobs", "mnist", "default")).get("status") or {}
        return status if status.get("active") else None

    status = await world.eventually(started)
    start = status.pop("startTime")
    assert status == {"active": 1, "terminating": 0, "uncountedTerminatedPods": {}, "ready": 0}
    await world.run(pod)

    async def ready() -> bool:
        return (await world.objects.get("jobs", "mnist", "default"))["status"].get("ready") == 1

    await world.eventually(ready)
    await world.end(pod)
    done = (await _conditions(world, "mnist", "Complete"))["status"]
    assert [each["type"] for each in done["conditions"]] == ["SuccessCriteriaMet", "Complete"]
    assert {(each["reason"], each["message"]) for each in done["conditions"]} == {
        ("CompletionsReached", "Reached expected number of succeeded pods")
    }
    end = done.pop("completionTime")
    assert end >= start == done.pop("startTime") and done.pop("conditions")
    assert done == {"succeeded": 1, "terminating": 0, "uncountedTerminatedPods": {}, "ready": 0}
    assert "finalizers" not in (await world.objects.get("pods", meta["name"], "default"))["metadata"]
    event = await world.told("SuccessfulCreate", "mnist")
    assert (event["message"], event["source"]) == (f"Created pod: {meta['name']}", {"component": "job-controller"})
    assert (await world.told("Completed", "mnist"))["message"] == "Job completed"


async def test_no_completions_are_reached_at_once(world: World, controllers: ControllerManager) -> None:
    await world.job("nothing", completions=0)
    status = (await _conditions(world, "nothing", "Complete"))["status"]
    assert status["startTime"] <= status["completionTime"] and await world.pods("nothing") == []


async def test_deletion_stops_a_huge_job(world: World, controllers: ControllerManager) -> None:
    await world.job("huge", parallelism=2_000_000_000)

    async def some() -> bool:
        return len(await world.pods("huge")) > 40

    await world.eventually(some)
    await world.objects.delete("jobs", "huge", "default", propagation_policy="Background")
    made = {pod["metadata"]["uid"] for pod in await world.pods()}
    assert len(made) < 600

    async def none() -> bool:
        pods, _ = await world.objects.list("pods")
        made.update(pod["metadata"]["uid"] for pod in pods)
        return not pods

    await world.eventually(none)
    assert len(made) < 600


async def test_a_refused_pod_stops_the_next(world: World, controllers: ControllerManager) -> None:
    hard = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "3"}}}
    await world.objects.create("resourcequotas", hard, "default")
    await world.job("many", parallelism=1000)
    await world.told("FailedCreate", "many")
    assert len(await world.pods("many")) == 3
    found, _ = await world.objects.list("events", "default")
    refused = [each for each in found if each["reason"] == "FailedCreate"]
    assert sum(each.get("count") or 1 for each in refused) < 20


async def test_more_pods_than_one_look_makes(
    world: World, controllers: ControllerManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aksgpu.local.control.job_controller._MAX_CREATES_PER_SYNC", 5)
    await world.job("wide", parallelism=12)
    await _pods(world, "wide", 12)


async def test_fails_at_its_backoff_limit(world: World, controllers: ControllerManager) -> None:
    await world.job("fails", backoffLimit=1)
    for _ in range(2):
        [pod] = await _pods(world, "fails", 1)
        await world.end(pod, 3)
    status = (await _conditions(world, "fails", "Failed"))["status"]
    assert [each["type"] for each in status["conditions"]] == ["FailureTarget", "Failed"]
    assert {(each["reason"], each["message"]) for each in status["conditions"]} == {
        ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
    }
    assert (status["failed"], status["uncountedTerminatedPods"], "active" in status) == (2, {}, False)
    event = await world.told("BackoffLimitExceeded", "fails")
    assert (event["type"], event["count"]) == ("Warning", 1)


async def test_restarts_count_against_the_limit(world: World, controllers: ControllerManager) -> None:
    await world.job("restarts", backoffLimit=2, pod={"restartPolicy": "OnFailure"})
    [pod] = await _pods(world, "restarts", 1)
    await world.restart(pod, 2)
    await world.told("SuccessfulDelete", "restarts")
    await world.bury()
    status = (await _conditions(world, "restarts", "Failed"))["status"]
    assert status["conditions"][0]["reason"] == "BackoffLimitExceeded" and status["failed"] == 1


async def test_waits_before_it_replaces_a_failed_pod(world: World, registry: Any) -> None:
    controllers = ControllerManager(registry, Settings(time_scale=1000.0))
    await controllers.start()
    try:
        await world.job("patient")
        [pod] = await _pods(world, "patient", 1)
        await world.end(pod, 1)

        async def counted() -> bool:
            return (await world.objects.get("jobs", "patient", "default"))["status"].get("failed") == 1

        await world.eventually(counted)
        assert len(await world.pods("patient")) == 1
    finally:
        await controllers.stop()


async def test_indexed(world: World, controllers: ControllerManager) -> None:
    await world.job("sweep", completionMode="Indexed", completions=3, parallelism=2)
    first = await _pods(world, "sweep", 2)
    assert sorted(pod["metadata"]["generateName"] for pod in first) == ["sweep-0-", "sweep-1-"]
    pod = min(first, key=lambda pod: pod["metadata"]["name"])
    assert pod["spec"]["hostname"] == "sweep-0"
    key = "batch.kubernetes.io/job-completion-index"
    assert pod["metadata"]["labels"][key] == pod["metadata"]["annotations"][key] == "0"
    [variable] = pod["spec"]["containers"][0]["env"]
    assert variable["valueFrom"]["fieldRef"] == {"apiVersion": "v1", "fieldPath": f"metadata.labels['{key}']"}
    await world.end(pod)
    last = [pod for pod in await _pods(world, "sweep", 2) if pod["metadata"]["generateName"] == "sweep-2-"]
    assert last
    await world.end(last[0])

    async def two() -> bool:
        return (await world.objects.get("jobs", "sweep", "default"))["status"].get("completedIndexes") == "0,2"

    await world.eventually(two)
    for pod in await world.pods("sweep", phase="Pending"):
        await world.end(pod)
    status = (await _conditions(world, "sweep", "Complete"))["status"]
    assert (status["completedIndexes"], status["succeeded"]) == ("0-2", 3)
    assert len(await world.pods("sweep")) == 3


async def test_an_indexed_job_that_shrinks_forgets_the_indexes_beyond(
    world: World, controllers: ControllerManager
) -> None:
    await world.job("elastic", completionMode="Indexed", completions=5, parallelism=5)
    pods = {pod["metadata"]["generateName"]: pod for pod in await _pods(world, "elastic", 5)}
    for index in (0, 3, 4):
        await world.end(pods[f"elastic-{index}-"])

    async def completed(indexes: str) -> bool:
        return (await world.objects.get("jobs", "elastic", "default"))["status"].get("completedIndexes") == indexes

    await world.eventually(lambda: completed("0,3,4"))
    await world.objects.patch("jobs", "elastic", {"spec": {"completions": 2, "parallelism": 2}}, "default")
    await world.eventually(lambda: completed("0"))
    [left] = [pod for pod in await world.pods("elastic") if not pod.get("status", {}).get("containerStatuses")]
    assert left["metadata"]["generateName"] == "elastic-1-"
    await world.end(left)
    status = (await _conditions(world, "elastic", "Complete"))["status"]
    assert (status["completedIndexes"], status["succeeded"]) == ("0,1", 2)


def test_of_pods_that_are_too_many_those_go_first_that_have_done_least() -> None:
    def pod(name: str, created: int, node: str = "", phase: str = "Pending", ready: str = "False") -> Object:
        meta = {"name": name, "creationTimestamp": f"2026-11-24T10:00:0{created}Z"}
        status = {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}
        return {"metadata": meta, "spec": {"nodeName": node} if node else {}, "status": status}

    old = pod("old", 1, "n", "Running", "True")
    new = pod("new", 2, "n", "Running", "True")
    active = [old, new, pod("starting", 3, "n"), pod("waiting", 4), pod("unready", 5, "n", "Running")]
    going = job_accounting.surplus({"spec": {}}, active, 1)
    assert [each["metadata"]["name"] for each in going] == ["waiting", "starting", "unready", "new"]


async def test_suspend_and_resume(world: World, controllers: ControllerManager) -> None:
    await world.job("later", suspend=True)
    status = (await _conditions(world, "later", "Suspended"))["status"]
    assert status["conditions"][0]["reason"] == "JobSuspended" and "startTime" not in status
    assert await world.pods("later") == []
    await world.objects.patch("jobs", "later", {"spec": {"suspend": False}}, "default")
    [pod] = await _pods(world, "later", 1)
    await world.told("Resumed", "later")
    await world.objects.patch("jobs", "later", {"spec": {"suspend": True}}, "default")
    await world.told("SuccessfulDelete", "later")

    async def idle() -> bool:
        status = (await world.objects.get("jobs", "later", "default"))["status"]
        # When it began is told until it begins anew.
        return "active" not in status and "failed" not in status and "startTime" in status

    await world.eventually(idle)
    assert pod["metadata"]["name"] not in {each["metadata"]["name"] for each in await world.pods("later")}


async def test_deadline(world: World, controllers: ControllerManager) -> None:
    await world.job("slow", activeDeadlineSeconds=1)
    [pod] = await _pods(world, "slow", 1)
    await world.node()
    await world.placed(pod["metadata"]["name"])
    await world.run(pod)
    await world.told("SuccessfulDelete", "slow")
    job = await world.objects.get("jobs", "slow", "default")
    await asyncio.sleep(0.1)
    # While the pod takes its grace period there is nothing to do, and nothing is done.
    assert (await world.objects.get("jobs", "slow", "default"))["status"].get("terminating") == 1
    assert len(await world.events("SuccessfulDelete", "slow")) == 1
    assert [each["type"] for each in job["status"].get("conditions", [])] in ([], ["FailureTarget"])

    async def over() -> bool:
        await world.bury()
        status = (await world.objects.get("jobs", "slow", "default"))["status"]
        return any(each["type"] == "Failed" for each in status.get("conditions") or [])

    await world.eventually(over)
    status = (await world.objects.get("jobs", "slow", "default"))["status"]
    assert status["conditions"][0]["reason"] == "DeadlineExceeded"
    assert status["conditions"][0]["message"] == "Job was active longer than specified deadline"


async def test_failure_policy_ends_the_job_at_once(world: World, controllers: ControllerManager) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}}
    await world.job("strict", podFailurePolicy={"rules": [rule]})
    [pod] = await _pods(world, "strict", 1)
    await world.end(pod, 42)
    status = (await _conditions(world, "strict", "Failed"))["status"]
    name = f"default/{pod['metadata']['name']}"
    assert status["conditions"][0]["reason"] == "PodFailurePolicy"
    text = f"Container main for pod {name} failed with exit code 42 matching FailJob rule at index 0"
    assert status["conditions"][0]["message"] == text


async def test_failure_policy_ignores_disruptions(world: World, controllers: ControllerManager) -> None:
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    await world.job("sturdy", backoffLimit=0, podFailurePolicy={"rules": [rule]})
    [pod] = await _pods(world, "sturdy", 1)
    disruption = {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}
    await world.objects.patch("pods", pod["metadata"]["name"], {"status": disruption}, "default", subresource="status")
    await world.end(pod, 137)
    [again] = await _pods(world, "sturdy", 1)
    await world.end(again)
    status = (await _conditions(world, "sturdy", "Complete"))["status"]
    assert "failed" not in status and status["succeeded"] == 1


async def test_work_queue_ends_when_one_pod_succeeded_and_all_ended(
    world: World, controllers: ControllerManager
) -> None:
    await world.job("queue", parallelism=2, completions=None)
    first, second = await _pods(world, "queue", 2)
    await world.end(first)

    async def one() -> bool:
        return (await world.objects.get("jobs", "queue", "default"))["status"].get("succeeded") == 1

    await world.eventually(one)
    assert len(await world.pods("queue")) == 2
    await world.end(second)
    assert (await _conditions(world, "queue", "Complete"))["status"]["succeeded"] == 2


async def test_counts_once_across_restarts_of_the_controllers(world: World, registry: Any) -> None:
    """Stopped, changed, started: again and again; nothing is counted twice or lost."""
    await world.job("many", completions=6, parallelism=3)
    for _ in range(30):
        controllers = ControllerManager(registry, Settings(time_scale=0.001))
        await controllers.start()
        for pod in (await world.pods("many", phase="Pending"))[:1]:
            await world.end(pod)
        await controllers.stop()
        job = await world.objects.get("jobs", "many", "default")
        assert (job.get("status") or {}).get("succeeded", 0) <= 6
        for pod in (await world.pods("many", phase="Pending"))[:1]:
            await world.end(pod)
    controllers = ControllerManager(registry, Settings(time_scale=0.001))
    await controllers.start()
    status = (await _conditions(world, "many", "Complete"))["status"]
    await controllers.stop()
    assert status["succeeded"] == 6 == len(await world.pods("many", phase="Succeeded"))
    assert len(await world.pods("many")) == 6


async def test_finished_job_goes_when_its_time_is_over(world: World, controllers: ControllerManager) -> None:
    await world.job("brief", ttlSecondsAfterFinished=0)
    [pod] = await _pods(world, "brief", 1)
    await world.end(pod)

    async def gone() -> bool:
        return await world.get("jobs", "brief") is None and not await world.pods("brief")

    await world.eventually(gone)


@pytest.mark.parametrize(("numbers", "text"), [([], ""), ([0, 1, 2], "0-2"), ([1, 3, 4, 5, 7, 8], "1,3-5,7,8")])
def test_indexes(numbers: list[int], text: str) -> None:
    assert format_indexes(numbers) == text and parse_indexes(text) == set(numbers)


def _ended(phase: str, when: str, code: int = 0) -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "finishedAt": when}}
    status = {"phase": phase, "containerStatuses": [{"name": "main", "state": state}]}
    return {"metadata": {"name": "p", "namespace": "default"}, "status": status}


def test_backoff_doubles_and_a_success_ends_it() -> None:
    first = "1970-01-01T00:01:00Z"
    second = "1970-01-01T00:02:00Z"
    assert backoff_left([_ended("Failed", first)], 60, 1) == 10
    assert backoff_left([_ended("Failed", first), _ended("Failed", second)], 120, 1) == 20
    assert backoff_left([_ended("Failed", first), _ended("Succeeded", second)], 120, 1) == 0
    assert backoff_left([_ended("Failed", first)] * 50, 60, 1) == 600
    assert backoff_left([_ended("Failed", first)], 60, 0.1) == 1


def test_rulings() -> None:
    job = {
        "spec": {
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [1, 2]}},
                    {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [3]}},
                ]
            }
        }
    }
    now = "1970-01-01T00:01:00Z"
    assert failure_policy_action(job, _ended("Failed", now, 2))[0] == "Ignore"
    assert failure_policy_action(job, _ended("Failed", now, 9))[0] == "FailJob"
    assert failure_policy_action(job, _ended("Failed", now, 3))[0] == "Count"
    assert failure_policy_action({"spec": {}}, _ended("Failed", now, 3))[0] == "Count"


def test_a_long_name_keeps_its_index() -> None:
    template = {"spec": {"containers": [{"name": "main"}]}}
    head = {"name": "x" * 63, "namespace": "default", "uid": "u"}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": head, "spec": {"template": template}}
    pod = new_pod(job, 7)
    assert pod["metadata"]["generateName"].endswith("7-") and len(pod["spec"]["hostname"]) == 63
    assert "env" not in template["spec"]["containers"][0]
