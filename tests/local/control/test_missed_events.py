"""Objects that are made and deleted while the controllers' watches are interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.interrupted_watches import InterruptedWatches

from aksgpu.local.api.registry import Registry
from aksgpu.local.control import ControllerManager
from aksgpu.local.control.pod_control import reference_to

if TYPE_CHECKING:
    from tests.local.control.conftest import ClusterDriver


@pytest.fixture
def watched(registry: Registry) -> InterruptedWatches:
    return InterruptedWatches(registry)


async def wait_until_interrupted(driver: ClusterDriver, watched: InterruptedWatches, resource: str, lists: int) -> None:
    """Wait until the watch has missed an event, which makes the controllers list again."""

    async def is_listing() -> bool:
        return watched.lists(resource) > lists

    await driver.eventually(is_listing)


async def active_pods(driver: ClusterDriver, app: str) -> list[dict[str, Any]]:
    return await driver.pods(app, phase="Pending")


async def test_a_pod_that_no_controller_saw(
    driver: ClusterDriver, controllers: ControllerManager, watched: InterruptedWatches
) -> None:
    """The Job neither counts it nor replaces it, and the scheduler does not keep its GPU."""
    await driver.create_node()
    job = await driver.create_job("job", pod={"nodeSelector": {"none": "such"}})

    async def first() -> list[dict[str, Any]]:
        return await active_pods(driver, "job")

    [own] = await driver.eventually(first)
    lists = watched.lists("pods")
    watched.interrupt("pods")
    job = await driver.objects.get("jobs", "job", "default")
    container = {"name": "main", "image": "busybox", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    meta = {"name": "brief", "labels": own["metadata"]["labels"], "ownerReferences": [reference_to(job)]}
    brief = {"metadata": meta, "spec": {"containers": [container], "nodeName": "node-a"}}
    await driver.objects.create("pods", brief, "default")
    await driver.objects.delete("pods", "brief", "default", grace_period_seconds=0)
    await wait_until_interrupted(driver, watched, "pods", lists)
    watched.resume("pods")
    await driver.create_pod("next", gpus=1)
    assert await driver.wait_until_bound("next") == "node-a"
    assert [pod["metadata"]["uid"] for pod in await first()] == [own["metadata"]["uid"]]

    async def counted() -> dict[str, Any] | None:
        status = (await driver.objects.get("jobs", "job", "default")).get("status") or {}
        return status if status.get("active") else None

    status = await driver.eventually(counted)
    assert (status["active"], status.get("failed"), status.get("succeeded")) == (1, None, None)


async def test_a_jobs_own_pod_that_is_deleted_before_the_watch_shows_it(
    driver: ClusterDriver, controllers: ControllerManager, watched: InterruptedWatches
) -> None:
    """The Job knows its pod from the response to its own request, and replaces it."""
    await driver.create_node(gpus=0)
    lists = watched.lists("pods")
    watched.interrupt("pods")
    await driver.create_job("job")

    async def pods() -> list[dict[str, Any]]:
        return await active_pods(driver, "job")

    [first] = await driver.eventually(pods)
    name = first["metadata"]["name"]
    await driver.objects.patch("pods", name, {"metadata": {"finalizers": None}}, "default")
    await driver.objects.delete("pods", name, "default", grace_period_seconds=0)
    assert await driver.get("pods", name) is None
    await wait_until_interrupted(driver, watched, "pods", lists)
    assert await pods() == []
    watched.resume("pods")
    [second] = await driver.eventually(pods)
    assert await driver.wait_until_bound(second["metadata"]["name"]) == "node-a"
    await driver.end_pod(await driver.objects.get("pods", second["metadata"]["name"], "default"))
    await driver.wait_for_event("Completed", "job")


async def test_a_job_that_is_replaced(
    driver: ClusterDriver, controllers: ControllerManager, watched: InterruptedWatches
) -> None:
    """The pods of the first Job are deleted. The second Job, of the same name, gets its own."""
    await driver.create_node(gpus=0)
    first = await driver.create_job("job")

    async def pods() -> list[dict[str, Any]]:
        return await active_pods(driver, "job")

    await driver.eventually(pods)
    lists = watched.lists("jobs")
    watched.interrupt("jobs")
    await driver.objects.delete("jobs", "job", "default", propagation_policy="Background")
    second = await driver.create_job("job")
    await wait_until_interrupted(driver, watched, "jobs", lists)
    watched.resume("jobs")

    async def owners() -> bool:
        await driver.finish_deletions()
        found, _ = await driver.objects.list("pods")
        return [pod["metadata"]["ownerReferences"][0]["uid"] for pod in found] == [second["metadata"]["uid"]]

    await driver.eventually(owners)
    assert first["metadata"]["uid"] != second["metadata"]["uid"]


async def test_an_owner_that_the_garbage_collector_did_not_see(
    driver: ClusterDriver, controllers: ControllerManager, watched: InterruptedWatches
) -> None:
    """It reads an unknown owner from the server, and its dependents are deleted although no watch showed the owner."""
    lists = watched.lists("configmaps")
    watched.interrupt("configmaps")
    owner = await driver.objects.create("configmaps", {"metadata": {"name": "owner"}}, "default")
    await wait_until_interrupted(driver, watched, "configmaps", lists)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    owned = {"metadata": {"name": "owned", "ownerReferences": [reference]}}
    await driver.objects.create("secrets", owned, "default")

    async def has_read_the_owner() -> bool:
        return ("configmaps", "owner") in watched.read

    await driver.eventually(has_read_the_owner)
    await driver.objects.delete("configmaps", "owner", "default")
    watched.resume("configmaps")
    await driver.wait_until_deleted("secrets", "owned")


async def test_a_node_that_the_eviction_of_pods_did_not_see(
    driver: ClusterDriver, controllers: ControllerManager, watched: InterruptedWatches
) -> None:
    """The pod of a node that no watch showed is deleted after the node."""
    lists = watched.lists("nodes")
    watched.interrupt("nodes")
    await driver.create_node("node-a")
    await wait_until_interrupted(driver, watched, "nodes", lists)
    await driver.create_pod("orphan", nodeName="node-a")

    async def has_read_the_node() -> bool:
        return ("nodes", "node-a") in watched.read

    await driver.eventually(has_read_the_node)
    await driver.objects.delete("nodes", "node-a")
    watched.resume("nodes")
    await driver.wait_until_deleted("pods", "orphan")


async def test_a_claim_of_a_pod_that_no_controller_saw(
    driver: ClusterDriver, controllers: ControllerManager, watched: InterruptedWatches
) -> None:
    """The claim is kept while the pod uses it."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}
    await driver.objects.create("persistentvolumeclaims", {"metadata": {"name": "data"}, "spec": spec}, "default")

    async def claim() -> dict[str, Any] | None:
        return await driver.get("persistentvolumeclaims", "data")

    async def protected() -> bool:
        return bool((await claim() or {"metadata": {}})["metadata"].get("finalizers"))

    await driver.eventually(protected)
    lists = watched.lists("pods")
    watched.interrupt("pods")
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    pod = await driver.create_pod("reads", volumes=volumes)
    await wait_until_interrupted(driver, watched, "pods", lists)
    await driver.objects.delete("persistentvolumeclaims", "data", "default")

    async def is_listed_again() -> bool:
        return watched.lists("pods") > lists + 1

    await driver.eventually(is_listed_again)  # The controller asks the server about pods.
    watched.resume("pods")
    await driver.wait_until_unschedulable("reads", "no nodes available to schedule pods")
    assert await claim()
    await driver.end_pod(pod)
    await driver.wait_until_deleted("persistentvolumeclaims", "data")


async def test_a_pod_whose_binding_no_controller_saw(
    driver: ClusterDriver, controllers: ControllerManager, watched: InterruptedWatches
) -> None:
    """A pod of higher priority does not get the room of a pod that was bound a moment ago, but preempts it."""
    for name, value in (("low", 10), ("high", 1000)):
        await driver.objects.create("priorityclasses", {"metadata": {"name": name}, "value": value})
    await driver.create_pod("cheap", gpus=1, priorityClassName="low")
    await driver.create_pod("urgent", gpus=1, priorityClassName="high", nodeSelector={"pool": "gpu"})
    for name in ("cheap", "urgent"):
        await driver.wait_until_unschedulable(name, "no nodes available to schedule pods")
    watched.interrupt("pods")
    await driver.create_node("node-a")
    await driver.wait_until_bound("cheap")
    await driver.objects.patch("nodes", "node-a", {"metadata": {"labels": {"pool": "gpu"}}})
    await driver.wait_for_event("Preempted", "cheap")
    assert not (await driver.objects.get("pods", "urgent", "default"))["spec"].get("nodeName")
    watched.resume("pods")
    await driver.finish_deletions()
    assert await driver.wait_until_bound("urgent") == "node-a"


async def test_an_object_that_no_controller_saw_is_kept_without_its_owner(
    driver: ClusterDriver, controllers: ControllerManager, watched: InterruptedWatches
) -> None:
    owner = await driver.objects.create("configmaps", {"metadata": {"name": "owner"}}, "default")
    lists = watched.lists("secrets")
    watched.interrupt("secrets")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    owned = {"metadata": {"name": "owned", "ownerReferences": [reference]}}
    await driver.objects.create("secrets", owned, "default")
    await wait_until_interrupted(driver, watched, "secrets", lists)
    await driver.objects.delete("configmaps", "owner", "default", propagation_policy="Orphan")

    async def is_listed_again() -> bool:
        return watched.lists("secrets") > lists + 1

    await driver.eventually(is_listed_again)  # The controller asks the server about dependents.
    watched.resume("secrets")
    await driver.wait_until_deleted("configmaps", "owner")
    orphan = await driver.get("secrets", "owned")
    assert orphan
    assert not orphan["metadata"].get("ownerReferences")
