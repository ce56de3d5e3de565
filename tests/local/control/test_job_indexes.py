"""Jobs with limits per index, success policies, and changes that are collected before a Job is synced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aksgpu.local.control import ControllerManager
from aksgpu.local.control.job_accounting import count_delayed, count_pods
from aksgpu.local.control.job_indexes import matched_success_rule
from aksgpu.local.objects import Object
from aksgpu.local.settings import Settings

if TYPE_CHECKING:
    from tests.local.control.conftest import ClusterDriver

PREFIX = "batch.kubernetes.io/job-"
DISRUPTED = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def failures(pod: Object) -> tuple[str | None, str | None]:
    """Return the numbers of failures before a pod that count and that are ignored."""
    annotations = pod["metadata"]["annotations"]
    return annotations.get(f"{PREFIX}index-failure-count"), annotations.get(f"{PREFIX}index-ignored-failure-count")


async def status_of(driver: ClusterDriver, name: str) -> dict[str, Any]:
    return dict((await driver.objects.get("jobs", name, "default")).get("status") or {})


async def wait_for_condition(driver: ClusterDriver, name: str, kind: str) -> dict[str, Any]:
    """Let deleted pods end until the Job has a condition, and return the Job's status."""

    async def found() -> dict[str, Any] | None:
        await driver.finish_deletions()
        status = await status_of(driver, name)
        return status if any(each["type"] == kind for each in status.get("conditions") or []) else None

    return dict(await driver.eventually(found))


async def pod_of_index(driver: ClusterDriver, name: str, index: int, after: Object | None = None) -> Object:
    """Wait for the pod of an index that has not ended and is not ``after``."""

    async def found() -> Object | None:
        for pod in await driver.pods(name, phase="Pending"):
            is_new = after is None or pod["metadata"]["uid"] != after["metadata"]["uid"]
            if is_new and pod["metadata"]["labels"][f"{PREFIX}completion-index"] == str(index):
                return pod
        return None

    return dict(await driver.eventually(found))


async def test_an_index_fails_after_its_own_limit(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_job("sweep", completionMode="Indexed", completions=3, parallelism=3, backoffLimitPerIndex=1)
    first = await pod_of_index(driver, "sweep", 0)
    assert failures(first) == ("0", None)
    await driver.end_pod(first, 1)
    second = await pod_of_index(driver, "sweep", 0, after=first)
    assert failures(second) == ("1", None)
    assert (await status_of(driver, "sweep"))["failedIndexes"] == ""
    await driver.end_pod(second, 1)

    async def failed() -> bool:
        return (await status_of(driver, "sweep"))["failedIndexes"] == "0"

    await driver.eventually(failed)
    for index in (1, 2):
        await driver.end_pod(await pod_of_index(driver, "sweep", index))
    status = await wait_for_condition(driver, "sweep", "Failed")
    assert (status["failedIndexes"], status["completedIndexes"]) == ("0", "1,2")
    assert (status["failed"], status["succeeded"], status["uncountedTerminatedPods"]) == (2, 2, {})
    ends = [(each["type"], each["reason"], each["message"]) for each in status["conditions"]]
    assert ends == [(kind, "FailedIndexes", "Job has failed indexes") for kind in ("FailureTarget", "Failed")]
    assert (await driver.wait_for_event("FailedIndexes", "sweep"))["type"] == "Warning"
    assert not [pod for pod in await driver.pods("sweep") if pod["metadata"].get("finalizers")]


async def test_too_many_failed_indexes_end_the_job(driver: ClusterDriver, controllers: ControllerManager) -> None:
    spec = {"completions": 3, "parallelism": 3, "backoffLimitPerIndex": 0, "maxFailedIndexes": 0}
    await driver.create_job("strict", completionMode="Indexed", **spec)
    await driver.end_pod(await pod_of_index(driver, "strict", 1), 1)
    status = await wait_for_condition(driver, "strict", "Failed")
    assert status["failedIndexes"] == "1"
    assert status["conditions"][0]["reason"] == "MaxFailedIndexesExceeded"
    assert status["conditions"][0]["message"] == "Job has exceeded the specified maximal number of failed indexes"
    await driver.wait_for_events(2, "SuccessfulDelete", "strict")
    assert (status["failed"], "active" in status) == (3, False)


async def test_fail_index_does_not_retry(driver: ClusterDriver, controllers: ControllerManager) -> None:
    rule = {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}
    spec = {"completions": 2, "parallelism": 2, "backoffLimitPerIndex": 5, "podFailurePolicy": {"rules": [rule]}}
    await driver.create_job("choosy", completionMode="Indexed", **spec)
    first = await pod_of_index(driver, "choosy", 0)
    await driver.end_pod(await pod_of_index(driver, "choosy", 1), 42)
    await driver.end_pod(first, 1)
    await driver.end_pod(await pod_of_index(driver, "choosy", 0, after=first))
    status = await wait_for_condition(driver, "choosy", "Failed")
    assert (status["failedIndexes"], status["completedIndexes"], status["failed"]) == ("1", "0", 2)


async def test_ignored_failures_of_an_index(driver: ClusterDriver, controllers: ControllerManager) -> None:
    spec = {"completions": 1, "backoffLimitPerIndex": 0, "podFailurePolicy": {"rules": [DISRUPTED]}}
    await driver.create_job("sturdy", completionMode="Indexed", **spec)
    first = await pod_of_index(driver, "sturdy", 0)
    disruption = {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}
    name = first["metadata"]["name"]
    await driver.objects.patch("pods", name, {"status": disruption}, "default", subresource="status")
    await driver.end_pod(first, 137)
    second = await pod_of_index(driver, "sturdy", 0, after=first)
    assert failures(second) == ("0", "1")
    await driver.end_pod(second)
    status = await wait_for_condition(driver, "sturdy", "Complete")
    assert "failed" not in status and (status["succeeded"], status["failedIndexes"]) == (1, "")


async def test_limits_per_index_across_restarts_of_the_controllers(driver: ClusterDriver, registry: Any) -> None:
    """Restart the controllers repeatedly while pods fail. No failure is counted twice, missed or forgotten."""
    spec = {"completions": 3, "parallelism": 3, "backoffLimitPerIndex": 2}
    await driver.create_job("tough", completionMode="Indexed", **spec)
    for _ in range(40):
        controllers = ControllerManager(registry, Settings(time_scale=0.001))
        await controllers.start()
        for pod in (await driver.pods("tough", phase="Pending"))[:1]:
            await driver.end_pod(pod, 1)
        await controllers.stop()
        for pod in (await driver.pods("tough", phase="Pending"))[:1]:
            await driver.end_pod(pod, 1)
    controllers = ControllerManager(registry, Settings(time_scale=0.001))
    await controllers.start()

    async def failed() -> dict[str, Any] | None:
        for pod in await driver.pods("tough", phase="Pending"):
            await driver.end_pod(pod, 1)
        status = await status_of(driver, "tough")
        return status if any(each["type"] == "Failed" for each in status.get("conditions") or []) else None

    try:
        status = await driver.eventually(failed)
    finally:
        await controllers.stop()
    assert (status["failed"], status["failedIndexes"]) == (9, "0-2")
    counts = sorted(failures(pod)[0] or "" for pod in await driver.pods("tough"))
    assert counts == ["0"] * 3 + ["1"] * 3 + ["2"] * 3


async def test_success_policy_ends_the_other_pods(driver: ClusterDriver, controllers: ControllerManager) -> None:
    policy = {"rules": [{"succeededIndexes": "0"}]}
    await driver.create_job("leader", completionMode="Indexed", completions=3, parallelism=3, successPolicy=policy)
    await driver.end_pod(await pod_of_index(driver, "leader", 0))
    status = await wait_for_condition(driver, "leader", "Complete")
    ends = [(each["type"], each["reason"], each["message"]) for each in status["conditions"]]
    expected = [(kind, "SuccessPolicy", "Matched rules at index 0") for kind in ("SuccessCriteriaMet", "Complete")]
    assert ends == expected
    assert (status["succeeded"], status["completedIndexes"], "failed" in status) == (1, "0", False)
    await driver.wait_for_events(2, "SuccessfulDelete", "leader")


def test_failed_pods_that_wait_for_their_replacement_are_counted_once() -> None:
    def failed(index: int, code: int) -> Object:
        meta = {"name": f"p-{index}", "namespace": "default", "uid": str(index), "finalizers": [f"{PREFIX}tracking"]}
        meta["annotations"] = {f"{PREFIX}completion-index": str(index), f"{PREFIX}index-failure-count": "0"}
        state = {"terminated": {"exitCode": code, "finishedAt": "2026-01-01T00:00:00Z"}}
        status = {"phase": "Failed", "containerStatuses": [{"name": "main", "state": state}]}
        return {"metadata": meta, "spec": {}, "status": status}

    rule = {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}
    spec = {"completionMode": "Indexed", "completions": 3, "backoffLimitPerIndex": 1}
    job = {"spec": {**spec, "podFailurePolicy": {"rules": [rule]}}, "status": {}}
    counts = count_pods(job, [failed(0, 1), failed(1, 42)])
    assert (counts.failed_indexes, list(counts.delayed)) == ({1}, [0])
    assert (counts.recorded("failed"), counts.total("failed")) == (1, 2)
    count_delayed(job, counts)
    assert (counts.recorded("failed"), counts.total("failed")) == (2, 2)


def test_rules_of_a_success_policy() -> None:
    def rule(completed: set[int], *rules: dict[str, Any]) -> int | None:
        return matched_success_rule({"spec": {"completions": 10, "successPolicy": {"rules": list(rules)}}}, completed)

    assert rule(set(), {"succeededCount": 0}) is None
    assert rule({1, 2}, {"succeededCount": 3}, {"succeededCount": 2}) == 1
    assert rule({1, 2}, {"succeededIndexes": "1-3"}) is None
    assert rule({1, 2, 3, 9}, {"succeededIndexes": "1-3"}) == 0
    assert rule({1, 2}, {"succeededIndexes": "1-3", "succeededCount": 2}) == 0
    assert rule({1, 9}, {"succeededIndexes": "1-3", "succeededCount": 2}) is None


async def test_a_job_of_another_controller_is_left_alone(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_job("theirs", managedBy="example.com/other")
    await driver.create_job("ours", managedBy="kubernetes.io/job-controller")
    await driver.wait_for_event("SuccessfulCreate", "ours")
    assert await driver.pods("theirs") == [] and "startTime" not in await status_of(driver, "theirs")


async def test_changes_of_pods_are_collected_and_those_of_the_spec_are_not(
    driver: ClusterDriver, registry: Any
) -> None:
    controllers = ControllerManager(registry, Settings(time_scale=1000.0))
    await controllers.start()
    try:
        await driver.create_job("calm", completions=2)
        await driver.wait_for_event("SuccessfulCreate", "calm")
        [pod] = await driver.pods("calm")
        await driver.end_pod(pod)
        # The controllers share the watch of pods, so the Job controller has seen the end of the pod by then.
        await driver.create_pod("marker")
        await driver.wait_until_unschedulable("marker", "no nodes available to schedule pods")
        # A new Job is synced at once.
        await driver.create_job("later")
        await driver.wait_for_event("SuccessfulCreate", "later")
        assert "succeeded" not in await status_of(driver, "calm")
        await driver.objects.patch("jobs", "calm", {"spec": {"parallelism": 2}}, "default")

        async def counted() -> bool:
            return (await status_of(driver, "calm")).get("succeeded") == 1

        await driver.eventually(counted)
    finally:
        await controllers.stop()
