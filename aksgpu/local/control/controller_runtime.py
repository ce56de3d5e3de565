"""What every controller stands on: shared informers, writes that they learn of at once, and work queues.

A :class:`Controller` names the keys that need a look, in a queue that holds each key once, and brings one object at a
time to what it should be. Controllers are level-triggered: they look at how things are, never at what happened.

Nothing here knows a kind.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, ClassVar

from aksgpu.common.times import now
from aksgpu.local.control.event_recorder import EventRecorder
from aksgpu.local.control.informer import Informer, object_key
from aksgpu.local.objects import STRATEGIC_PATCH, Object, Objects
from aksgpu.local.settings import Settings
from aksgpu.local.status_error import StatusError, ignoring

log = logging.getLogger(__name__)

_WORKERS = 4
"""Keys that one controller looks at at the same time."""


def is_finished(pod: Object) -> bool:
    """Whether none of the pod's containers will run again."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def get_condition(obj: Object, kind: str) -> dict[str, Any]:
    """A condition of an object's status; empty when it is not there."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((dict(each) for each in conditions if each["type"] == kind), {})


class WorkQueue:
    """Keys that need a look, each at most once, and never the same key in two hands."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()
        self._busy: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def add(self, key: str) -> None:
        """Look at this key soon; when it is being looked at, once more after that."""
        if key not in self._waiting:
            self._waiting.add(key)
            if key not in self._busy:
                self._ready.put_nowait(key)

    def add_after(self, key: str, delay: float) -> None:
        """Look at this key after ``delay`` seconds, or earlier when it is due earlier."""
        loop = asyncio.get_running_loop()
        if timer := self._timers.get(key):
            if timer.when() <= loop.time() + delay:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(delay, self._due, key)

    def _due(self, key: str) -> None:
        del self._timers[key]
        self.add(key)

    async def get(self) -> str:
        """The next key; say :meth:`done` afterwards."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._busy.add(key)
        return key

    def done(self, key: str) -> None:
        """The key is out of hand."""
        self._busy.discard(key)
        if key in self._waiting:
            self._ready.put_nowait(key)

    def close(self) -> None:
        """Drop what is due later."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


class Tasks:
    """Background tasks that end together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` in the background; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a background task ended", exc_info=error)

    async def cancel(self) -> None:
        """End them all, and wait until they have ended."""
        while tasks := list(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


class Cluster:
    """The cluster as controllers see it: shared informers to read from, and writes that informers learn of at once."""

    def __init__(self, objects: Objects, settings: Settings) -> None:
        self.objects = objects
        self.settings = settings
        self.events = EventRecorder(objects)
        self._informers: dict[str, Informer] = {}
        self._tasks = Tasks()

    def informer(self, resource: str) -> Informer:
        """The one informer of a resource."""
        if resource not in self._informers:
            self._informers[resource] = Informer(self.objects, resource)
        return self._informers[resource]

    async def start(self) -> None:
        """Start the informers asked for so far, and wait until each has listed."""
        await self.events.start()
        for informer in self._informers.values():
            self._tasks.spawn(informer.run())
        for informer in self._informers.values():
            await informer.synced.wait()

    async def stop(self) -> None:
        """Stop the informers."""
        await self._tasks.cancel()
        await self.events.stop()

    async def create(self, resource: str, obj: Object) -> Object:
        """Create an object."""
        return self._note(resource, await self.objects.create(resource, obj, obj["metadata"].get("namespace")))

    async def update_status(self, resource: str, obj: Object, status: dict[str, Any]) -> Object:
        """Replace the status of an object, if it is another one."""
        if status == obj.get("status"):
            return obj
        made = await self.objects.update(resource, {**obj, "status": status}, subresource="status")
        return self._note(resource, made)

    async def patch(self, resource: str, obj: Object, patch: Object, **how: Any) -> Object:
        """Patch exactly this object: the server refuses when another one bears its name."""
        meta = obj["metadata"]
        patch = {**patch, "metadata": {"uid": meta["uid"], **patch.get("metadata", {})}}
        made = await self.objects.patch(resource, meta["name"], patch, meta.get("namespace"), **how)
        return self._note(resource, made)

    async def delete(self, resource: str, obj: Object, **how: Any) -> None:
        """Delete exactly this object; it is no error when it is gone or another one bears its name."""
        meta = obj["metadata"]
        with ignoring(404, 409):
            left = await self.objects.delete(resource, meta["name"], meta.get("namespace"), uid=meta["uid"], **how)
            if (left.get("metadata") or {}).get("deletionTimestamp"):
                self._note(resource, left)

    async def set_condition(self, pod: Object, state: dict[str, Any], **status: Any) -> None:
        """Set one condition in the status of exactly this pod, and more of its status, if it is still there."""
        patch = {"status": {**status, "conditions": [state]}}
        with ignoring(404, 409):
            await self.patch("pods", pod, patch, content_type=STRATEGIC_PATCH, subresource="status")

    async def disrupt(self, pod: Object, reason: str, message: str, **status: Any) -> None:
        """Say in a pod's status that the cluster, not the pod, is why it ends."""
        state = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
        await self.set_condition(pod, {**state, "lastTransitionTime": now()}, **status)

    async def remove_finalizer(self, resource: str, obj: Object, finalizer: str) -> None:
        """Take one finalizer off exactly this object, if it is there."""
        meta = obj["metadata"]
        left = [name for name in meta.get("finalizers") or () if name != finalizer]
        # With its resourceVersion the server refuses when its finalizers have changed.
        head = {"resourceVersion": meta["resourceVersion"], "finalizers": left}
        with ignoring(404):
            await self.patch(resource, obj, {"metadata": head})

    def _note(self, resource: str, obj: Object) -> Object:
        if informer := self._informers.get(resource):
            informer.note(obj)
        return obj


class Controller(ABC):
    """Does what is missing for one key at a time."""

    resource: ClassVar[str] = ""
    """The resource whose objects' keys these are, if they are: each is looked at when it changes."""
    component: ClassVar[str] = ""
    """The name in its events."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.queue = WorkQueue()
        self._tasks = Tasks()
        self._failures: dict[str, int] = {}
        if self.resource:
            self.informer = self.follow(self.resource, object_key)

    def follow(self, resource: str, key: Callable[[Object], str]) -> Informer:
        """Look at an object's ``key`` whenever it comes, changes or goes; at none where that is empty."""

        def changed(old: Object | None, new: Object | None) -> None:
            for each in {key(obj) for obj in (old, new) if obj}:
                if each:
                    self.queue.add(each)

        informer = self.cluster.informer(resource)
        informer.on_change(changed)
        return informer

    @abstractmethod
    async def sync(self, key: str) -> float | None:
        """Look at one key and do what is missing. The answer is the number of seconds until the next look, if any.

        What it raises is tried again, with growing delay.
        """

    def record_event(self, obj: Object, kind: str, reason: str, message: str) -> None:
        """Write an event; see :meth:`aksgpu.local.control.event_recorder.Recorder.tell`."""
        self.cluster.events.record_event(self.component, obj, kind, reason, message)

    async def start(self) -> None:
        """Start to work; the cluster's informers have listed."""
        for _ in range(_WORKERS):
            self._tasks.spawn(self._work())

    async def stop(self) -> None:
        """Stop, in the middle of whatever it does: the next start goes on from how things are."""
        self.queue.close()
        await self._tasks.cancel()

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            failures = self._failures.pop(key, 0)
            later = None
            try:
                later = await self.sync(key)
            except Exception as error:
                # A conflict or a missing object means that the cache was behind: the next look knows better.
                # What is refused otherwise, as by a quota, needs somebody to change something.
                behind = isinstance(error, StatusError) and error.code in (404, 409)
                if not behind:
                    unforeseen = not isinstance(error, StatusError)
                    log.warning("%s %s: %s", type(self).__name__, key, error, exc_info=unforeseen)
                self._failures[key] = failures + 1
                later = min(60.0, (0.01 if behind else 1.0) * 2 ** min(failures, 13))
            if later is not None and math.isfinite(later):
                self.queue.add_after(key, max(0.0, later))
            self.queue.done(key)


async def run_all(work: Iterable[Awaitable[Any]], limit: int = 32, *, slowly: bool = False) -> None:
    """Do all works, ``limit`` at a time; the first error is raised when its batch has ended.

    With ``slowly`` the batches grow from one: what is refused, perhaps for all, is not asked for many times.

    Give a generator: a work is made only when its turn has come.
    """
    rest = iter(work)
    size = 1 if slowly else limit
    while batch := list(itertools.islice(rest, size)):
        size = min(2 * size, limit)
        for result in await asyncio.gather(*batch, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
