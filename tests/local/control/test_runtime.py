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
    from tests.local.control.conftest import World


def _object(name: str, version: int, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name, **more, "resourceVersion": str(version)}}


class Forgetful:
    """An API server whose watches expire: what happens meanwhile is seen in the next list only."""

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


async def test_lists_again_when_the_watch_expired(world: World) -> None:
    server = Forgetful()
    seen = []
    informer = Informer(server, "things")  # type: ignore[arg-type]
    informer.on_change(lambda old, new: seen.append(((old or new or {})["metadata"]["name"], bool(old), bool(new))))
    tasks = Tasks()
    tasks.spawn(informer.run())
    await asyncio.wait_for(informer.synced.wait(), 5)

    async def modified() -> bool:
        return len(seen) == 3

    await world.eventually(modified)
    server.items = {"a": _object("a", 3), "c": _object("c", 9)}
    server.version = 9
    server.expire.set()

    async def listed() -> bool:
        return {obj["metadata"]["name"] for obj in informer} == {"a", "c"}

    await world.eventually(listed)
    await tasks.cancel()
    assert seen == [("a", False, True), ("b", False, True), ("a", True, True), ("b", True, False), ("c", False, True)]


async def test_own_writes_are_known_at_once_and_never_come_back_from_the_dead(world: World) -> None:
    server = Forgetful()
    informer = Informer(server, "things")  # type: ignore[arg-type]
    tasks = Tasks()
    tasks.spawn(informer.run())

    async def modified() -> bool:
        return (informer.get("a") or {"metadata": {}})["metadata"].get("resourceVersion") == "3"

    await world.eventually(modified)
    informer.note(_object("new", 4))
    assert informer.get("new")
    informer.note(_object("late", 3))  # the watch has been there: it was created and is gone
    assert informer.get("late") is None
    await tasks.cancel()


async def test_another_object_of_the_same_name_is_an_end_and_a_beginning() -> None:
    # type: ignore[arg-type]
    informer = Informer(Forgetful(), "things")
    seen = []
    informer.on_change(lambda old, new: seen.append(((old or {}).get("metadata"), (new or {}).get("metadata"))))
    first = _object("a", 4, uid="first")
    second = _object("a", 6, uid="second")
    for each in (first, second, _object("a", 5, uid="first")):
        informer.note(each)
    assert seen == [(None, first["metadata"]), (first["metadata"], None), (None, second["metadata"])]


async def test_queue_holds_a_key_once_and_in_one_hand() -> None:
    queue = WorkQueue()
    queue.add("a")
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")  # while it is worked on
    queue.add("b")
    assert await queue.get() == "b"
    queue.done("a")
    assert await asyncio.wait_for(queue.get(), 1) == "a"
    queue.add_after("c", 0.01)
    queue.add_after("c", 60)  # the earlier time holds
    assert await asyncio.wait_for(queue.get(), 5) == "c"
    queue.add_after("d", 60)
    queue.add_after("d", 0.01)
    assert await asyncio.wait_for(queue.get(), 5) == "d"
    queue.close()


async def test_what_fails_is_tried_again(registry: Any, world: World) -> None:
    """At once where only the cache was behind; at leisure where somebody has to change something, as a quota."""
    tries: list[str] = []
    pauses: list[float] = []
    errors: list[Exception] = [RuntimeError("not yet"), StatusError(403, "Forbidden", "no"), conflict("pods", "a", "b")]

    class Stubborn(Controller):
        resource = "configmaps"

        async def sync(self, key: str) -> float | None:
            tries.append(key)
            if errors:
                raise errors.pop(0)
            return None

    cluster = Cluster(registry, Settings())
    controller = Stubborn(cluster)

    def add_after(key: str, delay: float) -> None:
        pauses.append(delay)
        controller.queue.add(key)

    controller.queue.add_after = add_after  # type: ignore[method-assign]
    await cluster.start()
    await controller.start()
    await world.objects.create("configmaps", {"metadata": {"name": "one"}}, "default")

    async def done() -> bool:
        return tries == ["default/one"] * 4

    await world.eventually(done)
    assert pauses == [1, 2, 0.04]
    await controller.stop()
    await cluster.stop()


async def test_repeated_events_are_counted(registry: Any, world: World) -> None:
    recorder = EventRecorder(registry)
    await recorder.start()
    pod = await world.pod("noisy")
    for _ in range(3):
        recorder.record_event("job-controller", pod, "Warning", "Again", "It happened again")
    first = await world.told("Again", "noisy")
    recorder.record_event("job-controller", pod, "Warning", "Again", "It happened again")
    recorder.record_event("job-controller", pod, "Warning", "Again", "Something else")

    async def counted() -> bool:
        return sorted(each["count"] for each in await world.events("Again")) == [1, first["count"] + 1]

    await world.eventually(counted)
    assert first["involvedObject"]["resourceVersion"] == pod["metadata"]["resourceVersion"]
    node = await world.node()
    recorder.record_event("node-controller", node, "Normal", "Hello", "A node")
    assert (await world.told("Hello"))["metadata"]["namespace"] == "default"
    await recorder.stop()


async def test_restarts_converge(registry: Any, world: World) -> None:
    """Stop, change, start: what happened while nobody looked is made good."""
    await world.node("node-a")
    first = await world.pod("first", gpus=1)
    controllers = ControllerManager(registry, Settings(time_scale=0.001))
    await controllers.start()
    await world.placed("first")
    await world.job(
        "job", pod={"containers": [{"name": "m", "image": "b", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]}
    )

    async def waits() -> list[dict[str, Any]]:
        return await world.pods("job", placed=False)

    [waiting] = await world.eventually(waits)
    await controllers.stop()
    await world.end(first)
    await world.job("other")
    await controllers.start()
    assert await world.placed(waiting["metadata"]["name"]) == "node-a"
    await world.told("SuccessfulCreate", "other")
    await controllers.stop()
    await world.end(waiting)
    await world.objects.delete("jobs", "other", "default", propagation_policy="Background")
    await controllers.start()

    async def done() -> bool:
        job = await world.objects.get("jobs", "job", "default")
        return job["status"].get("succeeded") == 1 and not await world.pods("other")

    await world.eventually(done)
    await controllers.stop()
    left = [str(task.get_coro()) for task in asyncio.all_tasks() if "Informer" in str(task) or "Worker" in str(task)]
    assert left == []
