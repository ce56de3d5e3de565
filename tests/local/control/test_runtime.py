from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from aksgpu.local.control import ControllerManager
from aksgpu.local.control.controller_runtime import Cluster, Controller, Tasks, WorkQueue
from aksgpu.local.control.event_recorder import EventRecorder
from aksgpu.local.control.informer import Informer
from aksgpu.local.objects import WatchEvent
from aksgpu.local.settings import Settings
from aksgpu.local.status_error import StatusError, conflict, expired

if TYPE_CHECKING:
    from tests.local.control.conftest import ClusterDriver


def _object(name: str, version: int, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name, **more, "resourceVersion": str(version)}}


class ExpiringServer:
    """An API server whose watches expire, so that changes are only seen in the next list."""

    def __init__(self) -> None:
        self.items = {"a": _object("a", 1), "b": _object("b", 2)}
        self.version = 2
        self.lists = 0
        self.expire = asyncio.Event()

    async def list(self, resource: str) -> tuple[list[dict[str, Any]], str]:
        self.lists += 1
        return list(self.items.values()), str(self.version)

    async def watch(self, resource: str, *, resource_version: str) -> AsyncIterator[WatchEvent]:
        if self.lists == 1:
            yield WatchEvent("MODIFIED", _object("a", 3))
        await self.expire.wait()
        self.expire.clear()
        raise expired("too old resource version: 3 (9)")


async def test_lists_again_after_an_expired_watch(driver: ClusterDriver) -> None:
    server = ExpiringServer()
    seen = []
    informer = Informer(server, "things")  # type: ignore[arg-type]
    informer.on_change(lambda old, new: seen.append(((old or new or {})["metadata"]["name"], bool(old), bool(new))))
    tasks = Tasks()
    tasks.spawn(informer.run())
    await asyncio.wait_for(informer.synced.wait(), 60)

    async def modified() -> bool:
        return len(seen) == 3

    await driver.eventually(modified)
    server.items = {"a": _object("a", 3), "c": _object("c", 9)}
    server.version = 9
    server.expire.set()

    async def listed() -> bool:
        return {obj["metadata"]["name"] for obj in informer} == {"a", "c"}

    await driver.eventually(listed)
    await tasks.cancel()
    assert seen == [("a", False, True), ("b", False, True), ("a", True, True), ("b", True, False), ("c", False, True)]


async def test_own_writes_are_in_the_cache_at_once(driver: ClusterDriver) -> None:
    server = ExpiringServer()
    informer = Informer(server, "things")  # type: ignore[arg-type]
    tasks = Tasks()
    tasks.spawn(informer.run())

    async def modified() -> bool:
        return (informer.get("a") or {"metadata": {}})["metadata"].get("resourceVersion") == "3"

    await driver.eventually(modified)
    informer.update_cache(_object("new", 4))
    assert informer.get("new")
    informer.update_cache(_object("late", 3))  # The watch has passed it: it was created and deleted.
    assert informer.get("late") is None
    await tasks.cancel()


async def test_a_write_during_a_list_is_kept(driver: ClusterDriver) -> None:
    """The object is newer than the list, which therefore does not say that it is gone. The next list does."""
    server = ExpiringServer()
    informer = Informer(server, "things")  # type: ignore[arg-type]
    seen: list[tuple[str, bool]] = []
    informer.on_change(lambda old, new: seen.append(((old or new or {})["metadata"]["name"], bool(new))))
    tasks = Tasks()
    informer.update_cache(_object("written", 4))
    tasks.spawn(informer.run())
    await asyncio.wait_for(informer.synced.wait(), 60)
    assert ("b", True) in seen and ("written", False) not in seen
    server.version = 4
    server.expire.set()

    async def removed() -> bool:
        return ("written", False) in seen

    await driver.eventually(removed)
    await tasks.cancel()


async def test_the_deletion_of_an_earlier_object_of_the_same_name() -> None:
    """It is delivered after the response to the request that created the second object."""

    class Server(ExpiringServer):
        async def watch(self, resource: str, *, resource_version: str) -> AsyncIterator[WatchEvent]:
            informer.update_cache(_object("a", 9, uid="second"))
            yield WatchEvent("DELETED", _object("a", 8))
            yield WatchEvent("ADDED", _object("a", 9, uid="second"))
            delivered.set()
            await self.expire.wait()

    delivered = asyncio.Event()
    informer = Informer(Server(), "things")  # type: ignore[arg-type]
    seen: list[tuple[str, bool]] = []
    informer.on_change(lambda old, new: seen.append(((old or new or {})["metadata"]["uid"], bool(new))))
    tasks = Tasks()
    tasks.spawn(informer.run())
    await asyncio.wait_for(delivered.wait(), 60)
    await tasks.cancel()
    assert seen == [("a", True), ("b", True), ("a", False), ("second", True)]


async def test_a_recreated_object_is_deleted_and_added() -> None:
    informer = Informer(ExpiringServer(), "things")  # type: ignore[arg-type]
    seen = []
    informer.on_change(lambda old, new: seen.append(((old or {}).get("metadata"), (new or {}).get("metadata"))))
    first = _object("a", 4, uid="first")
    second = _object("a", 6, uid="second")
    for each in (first, second, _object("a", 5, uid="first")):
        informer.update_cache(each)
    assert seen == [(None, first["metadata"]), (first["metadata"], None), (None, second["metadata"])]


async def test_queue_holds_a_key_once_for_one_worker() -> None:
    queue = WorkQueue()
    queue.add("a")
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")  # While a worker has it.
    queue.add("b")
    assert await queue.get() == "b"
    queue.done("a")
    assert await asyncio.wait_for(queue.get(), 60) == "a"
    queue.add_after("c", 0.01)
    queue.add_after("c", 3600)  # The earlier time counts.
    assert await asyncio.wait_for(queue.get(), 60) == "c"
    queue.add_after("d", 3600)
    queue.add_after("d", 0.01)
    assert await asyncio.wait_for(queue.get(), 60) == "d"
    queue.close()


async def test_a_failed_sync_is_repeated(registry: Any, driver: ClusterDriver) -> None:
    """A sync is repeated soon after a conflict, and later after other errors, such as an exceeded quota."""
    tries: list[str] = []
    pauses: list[float] = []
    errors: list[Exception] = [RuntimeError("not yet"), StatusError(403, "Forbidden", "no"), conflict("pods", "a", "b")]

    class FailingController(Controller):
        resource = "configmaps"

        async def sync(self, key: str) -> float | None:
            tries.append(key)
            if errors:
                raise errors.pop(0)
            return None

    cluster = Cluster(registry, Settings())
    controller = FailingController(cluster)

    def add_after(key: str, delay: float) -> None:
        pauses.append(delay)
        controller.queue.add(key)

    controller.queue.add_after = add_after  # type: ignore[method-assign]
    await cluster.start()
    await controller.start()
    await driver.objects.create("configmaps", {"metadata": {"name": "one"}}, "default")

    async def done() -> bool:
        return tries == ["default/one"] * 4

    await driver.eventually(done)
    assert pauses == [1, 2, 0.04]
    await controller.stop()
    await cluster.stop()


async def test_repeated_events_are_counted(registry: Any, driver: ClusterDriver) -> None:
    recorder = EventRecorder(registry)
    await recorder.start()
    pod = await driver.create_pod("noisy")
    for _ in range(3):
        recorder.record_event("job-controller", pod, "Warning", "Again", "It happened again")
    first = await driver.wait_for_event("Again", "noisy")
    recorder.record_event("job-controller", pod, "Warning", "Again", "It happened again")
    recorder.record_event("job-controller", pod, "Warning", "Again", "Something else")

    async def counted() -> bool:
        return sorted(each["count"] for each in await driver.events("Again")) == [1, first["count"] + 1]

    await driver.eventually(counted)
    assert first["involvedObject"]["resourceVersion"] == pod["metadata"]["resourceVersion"]
    node = await driver.create_node()
    recorder.record_event("node-controller", node, "Normal", "Hello", "A node")
    assert (await driver.wait_for_event("Hello"))["metadata"]["namespace"] == "default"
    await recorder.stop()


async def test_a_flush_waits_for_events_that_are_being_written(registry: Any, driver: ClusterDriver) -> None:
    answer = asyncio.Event()
    asked = asyncio.Event()

    class SlowServer:
        async def create(self, *args: Any) -> Any:
            asked.set()
            await answer.wait()
            return await registry.create(*args)

    recorder = EventRecorder(SlowServer())  # type: ignore[arg-type]
    await recorder.start()
    recorder.record_event("job-controller", await driver.create_pod("noisy"), "Normal", "Slow", "It takes a while")
    await asked.wait()
    flushing = asyncio.create_task(recorder.flush())
    await asyncio.sleep(0.1)
    assert not flushing.done()
    answer.set()
    await flushing
    assert len(await driver.events("Slow")) == 1
    await recorder.stop()


async def test_restarts_converge(registry: Any, driver: ClusterDriver) -> None:
    """Changes made while the controllers are stopped are handled when they start again."""
    await driver.create_node("node-a")
    first = await driver.create_pod("first", gpus=1)
    controllers = ControllerManager(registry, Settings(time_scale=0.001))
    await controllers.start()
    await driver.wait_until_bound("first")
    await driver.create_job(
        "job", pod={"containers": [{"name": "m", "image": "b", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]}
    )

    async def waits() -> list[dict[str, Any]]:
        return await driver.pods("job", bound=False)

    [waiting] = await driver.eventually(waits)
    await controllers.stop()
    await driver.end_pod(first)
    await driver.create_job("other")
    await controllers.start()
    assert await driver.wait_until_bound(waiting["metadata"]["name"]) == "node-a"
    await driver.wait_for_event("SuccessfulCreate", "other")
    await controllers.stop()
    await driver.end_pod(waiting)
    await driver.objects.delete("jobs", "other", "default", propagation_policy="Background")
    await controllers.start()

    async def done() -> bool:
        job = await driver.objects.get("jobs", "job", "default")
        return job["status"].get("succeeded") == 1 and not await driver.pods("other")

    await driver.eventually(done)
    await controllers.stop()
    left = [str(task.get_coro()) for task in asyncio.all_tasks() if "Informer" in str(task) or "Worker" in str(task)]
    assert left == []
