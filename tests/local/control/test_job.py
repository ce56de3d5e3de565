from __future__ import annotations

import asyncio
import copy
import re
from typing import TYPE_CHECKING, Any

import pytest

from aksgpu.common import times
from aksgpu.local.control import ControllerManager, job_accounting
from aksgpu.local.control.job_backoff import PodEndings
from aksgpu.local.control.job_controller import new_pod
from aksgpu.local.control.job_indexes import format_indexes, parse_indexes
from aksgpu.local.control.pod_failure_policy import match_failure_policy
from aksgpu.local.objects import Object
from aksgpu.local.settings import Settings

if TYPE_CHECKING:
    from tests.local.control.conftest import ClusterDriver

TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"


async def _conditions(driver: ClusterDriver, name: str, kind: str) -> dict[str, Any]:
    """Wait until the Job has a condition, and return it."""

    async def has_condition() -> dict[str, Any] | None:
        job = await driver.objects.get("jobs", name, "default")
        conditions = (job.get("status") or {}).get("conditions") or []
        return job if any(each["type"] == kind and each["status"] == "True" for each in conditions) else None

    return dict(await driver.eventually(has_condition))


async def _pods(driver: ClusterDriver, name: str, count: int, phase: str = "Pending") -> list[dict[str, Any]]:
    async def has_count() -> list[dict[str, Any]]:
        found = await driver.pods(name, phase=phase)
        return found if len(found) == count else []

    return list(await driver.eventually(has_count))


async def test_runs_one_pod_to_completion(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node()
    job = await driver.create_job("mnist")
    [pod] = await _pods(driver, "mnist", 1)
    meta = pod["metadata"]
    assert meta["generateName"] == "mnist-" and len(meta["name"]) == len("mnist-") + 5
    assert meta["finalizers"] == [TRACKING_FINALIZER]
    owner = meta["ownerReferences"][0]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Job", job["metadata"]["uid"], True)

    async def started() -> dict[str, Any] | None:
        status = (await driver.objects.get("jobs", "mnist", "default")).get("status") or {}
        return status if status.get("active") else None

    status = dict(await driver.eventually(started))  # the store keeps the same object
    start = status.pop("startTime")
    assert status == {"active": 1, "terminating": 0, "uncountedTerminatedPods": {}, "ready": 0}
    await driver.start_pod(pod)

    async def ready() -> bool:
        return (await driver.objects.get("jobs", "mnist", "default"))["status"].get("ready") == 1

    await driver.eventually(ready)
    await driver.end_pod(pod)
    done = copy.deepcopy((await _conditions(driver, "mnist", "Complete"))["status"])
    assert [each["type"] for each in done["conditions"]] == ["SuccessCriteriaMet", "Complete"]
    assert {(each["reason"], each["message"]) for each in done["conditions"]} == {
        ("CompletionsReached", "Reached expected number of succeeded pods")
    }
    end = done.pop("completionTime")
    assert end >= start == done.pop("startTime") and done.pop("conditions")
    assert done == {"succeeded": 1, "terminating": 0, "uncountedTerminatedPods": {}, "ready": 0}
    assert "finalizers" not in (await driver.objects.get("pods", meta["name"], "default"))["metadata"]
    event = await driver.wait_for_event("SuccessfulCreate", "mnist")
    assert (event["message"], event["source"]) == (f"Created pod: {meta['name']}", {"component": "job-controller"})
    assert (await driver.wait_for_event("Completed", "mnist"))["message"] == "Job completed"


async def test_zero_completions_complete_at_once(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_job("nothing", completions=0)
    status = (await _conditions(driver, "nothing", "Complete"))["status"]
    assert status["startTime"] <= status["completionTime"] and await driver.pods("nothing") == []


async def test_deletion_stops_a_huge_job(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_job("huge", parallelism=2_000_000_000)

    async def some() -> bool:
        return len(await driver.pods("huge")) > 40

    await driver.eventually(some)
    await driver.objects.delete("jobs", "huge", "default", propagation_policy="Background")
    created = {pod["metadata"]["uid"] for pod in await driver.pods()}
    assert len(created) < 600

    async def none() -> bool:
        pods, _ = await driver.objects.list("pods")
        created.update(pod["metadata"]["uid"] for pod in pods)
        return not pods

    await driver.eventually(none)
    assert len(created) < 600


async def test_a_refused_pod_stops_further_creations(driver: ClusterDriver, controllers: ControllerManager) -> None:
    hard = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "3"}}}
    await driver.objects.create("resourcequotas", hard, "default")
    await driver.create_job("many", parallelism=1000)
    await driver.wait_for_event("FailedCreate", "many")
    assert len(await driver.pods("many")) == 3
    found, _ = await driver.objects.list("events", "default")
    refused = [each for each in found if each["reason"] == "FailedCreate"]
    assert sum(each.get("count") or 1 for each in refused) < 20


async def test_every_refused_pod_has_an_event(driver: ClusterDriver, controllers: ControllerManager) -> None:
    """Each event names another pod, so none of them is counted twice."""
    hard = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await driver.objects.create("resourcequotas", hard, "default")
    await driver.create_job("refused")

    async def three() -> list[dict[str, Any]]:
        found = await driver.events("FailedCreate", "refused")
        return found if len(found) >= 3 else []

    events = await driver.eventually(three)
    assert {each["count"] for each in events} == {1}
    for each in events:
        text = r'Error creating: pods "refused-\w{5}" is forbidden: exceeded quota: none, requested: pods=1, .*'
        assert re.fullmatch(text, each["message"])


async def test_more_pods_than_one_sync_creates(
    driver: ClusterDriver, controllers: ControllerManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aksgpu.local.control.job_controller._MAX_CREATES_PER_SYNC", 5)
    await driver.create_job("wide", parallelism=12)
    await _pods(driver, "wide", 12)


async def test_fails_at_its_backoff_limit(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_job("fails", backoffLimit=1)
    for _ in range(2):
        [pod] = await _pods(driver, "fails", 1)
        await driver.end_pod(pod, 3)
    status = (await _conditions(driver, "fails", "Failed"))["status"]
    assert [each["type"] for each in status["conditions"]] == ["FailureTarget", "Failed"]
    assert {(each["reason"], each["message"]) for each in status["conditions"]} == {
        ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
    }
    assert (status["failed"], status["uncountedTerminatedPods"], "active" in status) == (2, {}, False)
    event = await driver.wait_for_event("BackoffLimitExceeded", "fails")
    assert (event["type"], event["count"]) == ("Warning", 1)


async def test_restarts_count_against_the_limit(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_job("restarts", backoffLimit=2, pod={"restartPolicy": "OnFailure"})
    [pod] = await _pods(driver, "restarts", 1)
    await driver.restart_pod(pod, 2)
    await driver.wait_for_event("SuccessfulDelete", "restarts")
    await driver.finish_deletions()
    status = (await _conditions(driver, "restarts", "Failed"))["status"]
    assert status["conditions"][0]["reason"] == "BackoffLimitExceeded" and status["failed"] == 1


async def test_waits_before_it_replaces_a_failed_pod(driver: ClusterDriver, registry: Any) -> None:
    controllers = ControllerManager(registry, Settings(time_scale=0.2))
    await controllers.start()
    try:
        await driver.create_job("patient")
        [first] = await _pods(driver, "patient", 1)
        await driver.end_pod(first, 1)
        [second] = await _pods(driver, "patient", 1)
        failed = await driver.objects.get("pods", first["metadata"]["name"], "default")
        end = failed["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"]
        assert times.seconds(second["metadata"]["creationTimestamp"]) >= times.seconds(end) + 2

        async def counted() -> bool:
            return (await driver.objects.get("jobs", "patient", "default"))["status"].get("failed") == 1

        await driver.eventually(counted)
    finally:
        await controllers.stop()


async def test_indexed(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_job("sweep", completionMode="Indexed", completions=3, parallelism=2)
    first = await _pods(driver, "sweep", 2)
    assert sorted(pod["metadata"]["generateName"] for pod in first) == ["sweep-0-", "sweep-1-"]
    pod = min(first, key=lambda pod: pod["metadata"]["name"])
    assert pod["spec"]["hostname"] == "sweep-0"
    key = "batch.kubernetes.io/job-completion-index"
    assert pod["metadata"]["labels"][key] == pod["metadata"]["annotations"][key] == "0"
    [variable] = pod["spec"]["containers"][0]["env"]
    assert variable["valueFrom"]["fieldRef"] == {"apiVersion": "v1", "fieldPath": f"metadata.labels['{key}']"}
    await driver.end_pod(pod)
    last = [pod for pod in await _pods(driver, "sweep", 2) if pod["metadata"]["generateName"] == "sweep-2-"]
    assert last
    await driver.end_pod(last[0])

    async def two() -> bool:
        return (await driver.objects.get("jobs", "sweep", "default"))["status"].get("completedIndexes") == "0,2"

    await driver.eventually(two)
    for pod in await driver.pods("sweep", phase="Pending"):
        await driver.end_pod(pod)
    status = (await _conditions(driver, "sweep", "Complete"))["status"]
    assert (status["completedIndexes"], status["succeeded"]) == ("0-2", 3)
    assert len(await driver.pods("sweep")) == 3


async def test_a_reduced_indexed_job_drops_indexes(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_job("elastic", completionMode="Indexed", completions=5, parallelism=5)
    pods = {pod["metadata"]["generateName"]: pod for pod in await _pods(driver, "elastic", 5)}
    for index in (0, 3, 4):
        await driver.end_pod(pods[f"elastic-{index}-"])

    async def completed(indexes: str) -> bool:
        return (await driver.objects.get("jobs", "elastic", "default"))["status"].get("completedIndexes") == indexes

    await driver.eventually(lambda: completed("0,3,4"))
    await driver.objects.patch("jobs", "elastic", {"spec": {"completions": 2, "parallelism": 2}}, "default")
    await driver.eventually(lambda: completed("0"))
    [left] = [pod for pod in await driver.pods("elastic") if not pod.get("status", {}).get("containerStatuses")]
    assert left["metadata"]["generateName"] == "elastic-1-"
    await driver.end_pod(left)
    status = (await _conditions(driver, "elastic", "Complete"))["status"]
    assert (status["completedIndexes"], status["succeeded"]) == ("0,1", 2)


def test_surplus_pods_with_least_progress_are_deleted_first() -> None:
    def pod(name: str, created: int, node: str = "", phase: str = "Pending", ready: str = "False") -> Object:
        meta = {"name": name, "creationTimestamp": f"2026-11-24T10:00:0{created}Z"}
        status = {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}
        return {"metadata": meta, "spec": {"nodeName": node} if node else {}, "status": status}

    old = pod("old", 1, "n", "Running", "True")
    new = pod("new", 2, "n", "Running", "True")
    active = [old, new, pod("starting", 3, "n"), pod("waiting", 4), pod("unready", 5, "n", "Running")]
    going = job_accounting.surplus({"spec": {}}, active, 1)
    assert [each["metadata"]["name"] for each in going] == ["waiting", "starting", "unready", "new"]


async def test_suspend_and_resume(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_job("later", suspend=True)
    status = (await _conditions(driver, "later", "Suspended"))["status"]
    assert status["conditions"][0]["reason"] == "JobSuspended" and "startTime" not in status
    assert await driver.pods("later") == []
    await driver.objects.patch("jobs", "later", {"spec": {"suspend": False}}, "default")
    [pod] = await _pods(driver, "later", 1)
    await driver.wait_for_event("Resumed", "later")
    await driver.objects.patch("jobs", "later", {"spec": {"suspend": True}}, "default")
    await driver.wait_for_event("SuccessfulDelete", "later")

    async def idle() -> bool:
        status = (await driver.objects.get("jobs", "later", "default"))["status"]
        return "active" not in status and "failed" not in status and "startTime" not in status

    await driver.eventually(idle)
    assert pod["metadata"]["name"] not in {each["metadata"]["name"] for each in await driver.pods("later")}


async def test_deadline(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_job("slow")
    [pod] = await _pods(driver, "slow", 1)
    await driver.create_node()
    await driver.wait_until_bound(pod["metadata"]["name"])
    await driver.start_pod(pod)

    async def started() -> str:
        return str((await driver.objects.get("jobs", "slow", "default"))["status"].get("startTime", ""))

    deadline = int(times.age(await driver.eventually(started))) + 2
    await driver.objects.patch("jobs", "slow", {"spec": {"activeDeadlineSeconds": deadline}}, "default")
    await driver.wait_for_event("SuccessfulDelete", "slow")

    async def terminating() -> bool:
        return (await driver.objects.get("jobs", "slow", "default"))["status"].get("terminating") == 1

    await driver.eventually(terminating)
    await asyncio.sleep(0.1)
    # During the pod's grace period, the controller does nothing.
    job = await driver.objects.get("jobs", "slow", "default")
    assert job["status"]["terminating"] == 1
    assert [each["type"] for each in job["status"]["conditions"]] == ["FailureTarget"]
    assert len(await driver.events("SuccessfulDelete", "slow")) == 1

    async def over() -> bool:
        await driver.finish_deletions()
        status = (await driver.objects.get("jobs", "slow", "default"))["status"]
        return any(each["type"] == "Failed" for each in status.get("conditions") or [])

    await driver.eventually(over)
    status = (await driver.objects.get("jobs", "slow", "default"))["status"]
    assert status["conditions"][0]["reason"] == "DeadlineExceeded"
    assert status["conditions"][0]["message"] == "Job was active longer than specified deadline"


async def test_deadline_of_a_job_without_a_node(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_job("slow", activeDeadlineSeconds=1)
    status = (await _conditions(driver, "slow", "Failed"))["status"]
    assert [each["reason"] for each in status["conditions"]] == ["DeadlineExceeded"] * 2
    assert "active" not in status and await driver.pods("slow") == []


async def test_failure_policy_ends_the_job_at_once(driver: ClusterDriver, controllers: ControllerManager) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}}
    await driver.create_job("strict", podFailurePolicy={"rules": [rule]})
    [pod] = await _pods(driver, "strict", 1)
    await driver.end_pod(pod, 42)
    status = (await _conditions(driver, "strict", "Failed"))["status"]
    name = f"default/{pod['metadata']['name']}"
    assert status["conditions"][0]["reason"] == "PodFailurePolicy"
    text = f"Container main for pod {name} failed with exit code 42 matching FailJob rule at index 0"
    assert status["conditions"][0]["message"] == text


async def test_failure_policy_ignores_disruptions(driver: ClusterDriver, controllers: ControllerManager) -> None:
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    await driver.create_job("sturdy", backoffLimit=0, podFailurePolicy={"rules": [rule]})
    [pod] = await _pods(driver, "sturdy", 1)
    disruption = {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}
    await driver.objects.patch("pods", pod["metadata"]["name"], {"status": disruption}, "default", subresource="status")
    await driver.end_pod(pod, 137)
    [again] = await _pods(driver, "sturdy", 1)
    await driver.end_pod(again)
    status = (await _conditions(driver, "sturdy", "Complete"))["status"]
    assert "failed" not in status and status["succeeded"] == 1


async def test_work_queue_completes_after_one_success_when_all_pods_have_ended(
    driver: ClusterDriver, controllers: ControllerManager
) -> None:
    await driver.create_job("queue", parallelism=2, completions=None)
    first, second = await _pods(driver, "queue", 2)
    await driver.end_pod(first)

    async def one() -> bool:
        return (await driver.objects.get("jobs", "queue", "default"))["status"].get("succeeded") == 1

    await driver.eventually(one)
    assert len(await driver.pods("queue")) == 2
    await driver.end_pod(second)
    assert (await _conditions(driver, "queue", "Complete"))["status"]["succeeded"] == 2


async def test_counts_once_across_restarts_of_the_controllers(driver: ClusterDriver, registry: Any) -> None:
    """Restart the controllers repeatedly while pods change. No pod is counted twice or missed."""
    await driver.create_job("many", completions=6, parallelism=3)
    for _ in range(30):
        controllers = ControllerManager(registry, Settings(time_scale=0.001))
        await controllers.start()
        for pod in (await driver.pods("many", phase="Pending"))[:1]:
            await driver.end_pod(pod)
        await controllers.stop()
        job = await driver.objects.get("jobs", "many", "default")
        assert (job.get("status") or {}).get("succeeded", 0) <= 6
        for pod in (await driver.pods("many", phase="Pending"))[:1]:
            await driver.end_pod(pod)
    controllers = ControllerManager(registry, Settings(time_scale=0.001))
    await controllers.start()

    async def complete() -> dict[str, Any] | None:
        for pod in await driver.pods("many", phase="Pending"):
            await driver.end_pod(pod)
        status = (await driver.objects.get("jobs", "many", "default")).get("status") or {}
        return status if any(each["type"] == "Complete" for each in status.get("conditions") or []) else None

    status = dict(await driver.eventually(complete))
    await controllers.stop()
    assert status["succeeded"] == 6 == len(await driver.pods("many", phase="Succeeded"))
    assert len(await driver.pods("many")) == 6


async def test_a_finished_job_is_deleted_after_its_ttl(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_job("brief", ttlSecondsAfterFinished=0)
    [pod] = await _pods(driver, "brief", 1)
    await driver.end_pod(pod)

    async def gone() -> bool:
        return await driver.get("jobs", "brief") is None and not await driver.pods("brief")

    await driver.eventually(gone)


@pytest.mark.parametrize(("numbers", "text"), [([], ""), ([0, 1, 2], "0-2"), ([1, 3, 4, 5, 7, 8], "1,3-5,7,8")])
def test_indexes(numbers: list[int], text: str) -> None:
    assert format_indexes(numbers) == text and parse_indexes(text, 10) == set(numbers)


def test_indexes_of_a_damaged_status_are_left_out() -> None:
    assert parse_indexes("1,x,2-,3-1,4-2000000000,-7", 6) == {1, 4, 5}


def _ended(phase: str, when: str, code: int = 0, name: str = "p") -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "finishedAt": when}}
    status = {"phase": phase, "containerStatuses": [{"name": "main", "state": state}]}
    return {"metadata": {"name": name, "uid": name, "namespace": "default"}, "status": status}


def _seconds_left(now: float, *pods: dict[str, Any], scale: float = 1.0) -> float:
    endings = PodEndings("uid")
    endings.observe(pods)
    return endings.seconds_left(now, scale)


def test_backoff_doubles_and_a_success_ends_it() -> None:
    first = "1970-01-01T00:01:00Z"
    second = "1970-01-01T00:02:00Z"
    failed = _ended("Failed", first)
    assert _seconds_left(60) == 0
    assert _seconds_left(60, failed) == 10
    assert _seconds_left(120, failed, _ended("Failed", second, name="q")) == 20
    assert _seconds_left(120, failed, _ended("Succeeded", second, name="q")) == 0
    assert _seconds_left(60, *(_ended("Failed", first, name=str(number)) for number in range(50))) == 600
    assert _seconds_left(60, failed, scale=0.1) == 1


def test_backoff_of_a_deleted_pod_starts_when_it_was_deleted() -> None:
    meta = {"uid": "p", "deletionTimestamp": "1970-01-01T00:01:30Z", "deletionGracePeriodSeconds": 30}
    assert _seconds_left(60, {"metadata": meta, "status": {"phase": "Running"}}) == 10


def test_failure_policy_action() -> None:
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
    assert match_failure_policy(job, _ended("Failed", now, 2)).action == "Ignore"
    assert match_failure_policy(job, _ended("Failed", now, 9)).action == "FailJob"
    assert match_failure_policy(job, _ended("Failed", now, 3)).action == "Count"
    assert match_failure_policy({"spec": {}}, _ended("Failed", now, 3)).action == "Count"


def test_a_long_name_keeps_its_index() -> None:
    template = {"spec": {"containers": [{"name": "main"}]}}
    head = {"name": "x" * 60, "namespace": "default", "uid": "u"}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": head, "spec": {"template": template}}
    pod = new_pod(job, 7)
    assert pod["metadata"]["generateName"] == "x" * 55 + "-7-" and pod["spec"]["hostname"] == "x" * 60 + "-7"
    assert "env" not in template["spec"]["containers"][0]
