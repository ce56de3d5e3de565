"""The base of every controller: shared informers, writes that update their caches, and work queues.

A :class:`Controller` has a queue of keys and reconciles one key at a time. Controllers are level-triggered: they act on
the current state, not on the change that put the key into the queue.
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

_MAX_DELAY = 60.0
"""Longest pause before a failed sync is repeated, in seconds."""
_CONFLICT_DELAY = 0.01
"""First pause after a conflict or a missing object, in seconds; it doubles with each failure."""
_ERROR_DELAY = 1.0
"""First pause after any other error, in seconds; it doubles with each failure."""
_WORKERS = 4
"""Worker tasks per controller."""


def is_finished(pod: Object) -> bool:
    """Return whether a pod has ended, so that none of its containers will run again."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_ready(obj: Object) -> bool:
    """Return whether the condition Ready of a pod or node is true."""
    return get_condition(obj, "Ready").get("status") == "True"


def get_condition(obj: Object, kind: str) -> dict[str, Any]:
    """Return a condition of an object's status, or an empty dict if it does not have it."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    for each in conditions:
        if each["type"] == kind:
            return dict(each)
    return {}


class WorkQueue:
    """Keys to reconcile. A key is in the queue at most once, and only one worker processes it at a time."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()
        self._busy: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def add(self, key: str) -> None:
        """Add a key. If a worker is processing it, it is processed again afterwards."""
        if key not in self._waiting:
            self._waiting.add(key)
            if key not in self._busy:
                self._ready.put_nowait(key)

    def add_after(self, key: str, delay: float) -> None:
        """Add a key after ``delay`` seconds, unless it is already due earlier."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + delay:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(delay, self._due, key)

    def _due(self, key: str) -> None:
        del self._timers[key]
        self.add(key)

    async def get(self) -> str:
        """Wait for a key. Call :meth:`done` when it has been processed."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._busy.add(key)
        return key

    def done(self, key: str) -> None:
        """Mark a key as processed."""
        self._busy.discard(key)
        if key in self._waiting:
            self._ready.put_nowait(key)

    def close(self) -> None:
        """Drop the keys that are due later."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


class Tasks:
    """A set of background tasks that are cancelled together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the background. An exception that it raises is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("a background task failed", exc_info=error)

    async def cancel(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        while tasks := list(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


class Cluster:
    """The parts that controllers share: informers to read from, and requests that update the informers' caches."""

    def __init__(self, objects: Objects, settings: Settings) -> None:
        self.objects = objects
        self.settings = settings
        self.events = EventRecorder(objects)
        self._informers: dict[str, Informer] = {}
        self._tasks = Tasks()

    def informer(self, resource: str) -> Informer:
        """Return the informer of a resource, creating it if necessary."""
        if resource not in self._informers:
            self._informers[resource] = Informer(self.objects, resource)
        return self._informers[resource]

    async def start(self) -> None:
        """Start the informers that exist so far, and wait until each has listed."""
        await self.events.start()
        for informer in self._informers.values():
            self._tasks.spawn(informer.run())
        for informer in self._informers.values():
            await informer.synced.wait()

    async def stop(self) -> None:
        """Stop the informers and the event recorder."""
        await self._tasks.cancel()
        await self.events.stop()

    async def read(self, resource: str, name: str, namespace: str | None = None) -> Object:
        """Read an object from the server. The cache may not have it yet."""
        return self._update_cache(resource, await self.objects.get(resource, name, namespace))

    async def read_all(self, resource: str, namespace: str | None = None) -> None:
        """Read all objects of a namespace from the server into the cache, which may not have them yet."""
        found, _ = await self.objects.list(resource, namespace)
        for obj in found:
            self._update_cache(resource, obj)

    async def create(self, resource: str, obj: Object) -> Object:
        """Create an object."""
        created = await self.objects.create(resource, obj, obj["metadata"].get("namespace"))
        return self._update_cache(resource, created)

    async def update_status(self, resource: str, obj: Object, status: dict[str, Any]) -> Object:
        """Replace the status of an object if it differs."""
        if status == obj.get("status"):
            return obj
        updated = await self.objects.update(resource, {**obj, "status": status}, subresource="status")
        return self._update_cache(resource, updated)

    async def patch(self, resource: str, obj: Object, patch: Object, **options: Any) -> Object:
        """Patch an object. The server refuses if another object now has its name."""
        meta = obj["metadata"]
        patch = {**patch, "metadata": {"uid": meta["uid"], **patch.get("metadata", {})}}
        patched = await self.objects.patch(resource, meta["name"], patch, meta.get("namespace"), **options)
        return self._update_cache(resource, patched)

    async def delete(self, resource: str, obj: Object, **options: Any) -> None:
        """Delete an object. It is not an error if it no longer exists or another object now has its name."""
        meta = obj["metadata"]
        with ignoring(404, 409):
            response = await self.objects.delete(
                resource, meta["name"], meta.get("namespace"), uid=meta["uid"], **options
            )
            if (response.get("metadata") or {}).get("deletionTimestamp"):
                self._update_cache(resource, response)

    async def set_condition(self, pod: Object, condition: dict[str, Any], **status: Any) -> None:
        """Set one condition of a pod, and other fields of its status, if the pod still exists."""
        patch = {"status": {**status, "conditions": [condition]}}
        with ignoring(404, 409):
            await self.patch("pods", pod, patch, content_type=STRATEGIC_PATCH, subresource="status")

    async def disrupt(self, pod: Object, reason: str, message: str, **status: Any) -> None:
        """Set a pod's condition DisruptionTarget, because the cluster is going to end the pod."""
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": now(),
        }
        await self.set_condition(pod, condition, **status)

    async def remove_finalizer(self, resource: str, obj: Object, finalizer: str) -> None:
        """Remove one finalizer from an object, if the object still exists."""
        meta = obj["metadata"]
        remaining = [name for name in meta.get("finalizers") or () if name != finalizer]
        # The resourceVersion makes the server refuse the patch if the finalizers have changed.
        patch = {"resourceVersion": meta["resourceVersion"], "finalizers": remaining}
        with ignoring(404):
            await self.patch(resource, obj, {"metadata": patch})

    def _update_cache(self, resource: str, obj: Object) -> Object:
        informer = self._informers.get(resource)
        if informer is not None:
            informer.update_cache(obj)
        return obj


class Controller(ABC):
    """Reconciles one key at a time."""

    resource: ClassVar[str] = ""
    """The resource whose objects are reconciled when they change. Empty if the keys are not those of one resource."""
    component: ClassVar[str] = ""
    """The name under which the controller records events."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.queue = WorkQueue()
        self._tasks = Tasks()
        self._failures: dict[str, int] = {}
        if self.resource:
            self.informer = self.follow(self.resource, object_key)

    def follow(self, resource: str, key: Callable[[Object], str]) -> Informer:
        """Return a resource's informer, and queue ``key(obj)`` whenever an object is added, changed or deleted.

        An empty key is not queued.
        """

        def changed(old: Object | None, new: Object | None) -> None:
            delay = self.change_delay(old, new)
            for each in {key(obj) for obj in (old, new) if obj}:
                if each and delay:
                    self.queue.add_after(each, delay)
                elif each:
                    self.queue.add(each)

        informer = self.cluster.informer(resource)
        informer.on_change(changed)
        return informer

    def change_delay(self, old: Object | None, new: Object | None) -> float:
        """Return the seconds to wait after a change before its key is queued."""
        return 0.0

    @abstractmethod
    async def sync(self, key: str) -> float | None:
        """Reconcile one key.

        Returns the seconds after which to sync the key again, or None. If it raises, the sync is repeated after a pause
        that grows with each failure.
        """

    def record_event(self, obj: Object, kind: str, reason: str, message: str) -> None:
        """Record an event. See :meth:`aksgpu.local.control.event_recorder.EventRecorder.record_event`."""
        self.cluster.events.record_event(self.component, obj, kind, reason, message)

    async def start(self) -> None:
        """Start the workers. The cluster's informers must have listed their objects."""
        for _ in range(_WORKERS):
            self._tasks.spawn(self._work())

    async def stop(self) -> None:
        """Stop at once, even in the middle of a sync. A later start continues from the state of the cluster."""
        self.queue.close()
        await self._tasks.cancel()

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            failures = self._failures.pop(key, 0)
            try:
                delay = await self.sync(key)
            except Exception as error:
                delay = self._delay_after(error, key, failures)
                self._failures[key] = failures + 1
            if delay is not None and math.isfinite(delay):
                self.queue.add_after(key, max(0.0, delay))
            self.queue.done(key)

    def _delay_after(self, error: Exception, key: str, failures: int) -> float:
        """Log an error of a sync and return the seconds to wait before the next one."""
        # A conflict or a missing object means that the cache is out of date. It will be updated soon.
        # Other errors, such as an exceeded quota, usually need a user to change something.
        first = _CONFLICT_DELAY
        if not (isinstance(error, StatusError) and error.code in (404, 409)):
            first = _ERROR_DELAY
            is_unexpected = not isinstance(error, StatusError)
            log.warning("%s %s: %s", type(self).__name__, key, error, exc_info=is_unexpected)
        return min(_MAX_DELAY, first * 2.0 ** min(failures, 13))


async def run_all(work: Iterable[Awaitable[Any]], limit: int = 32, *, slow_start: bool = False) -> None:
    """Await all, at most ``limit`` at a time. The first error is raised after its batch has ended.

    With ``slow_start``, the size of the batches starts at one and doubles, so that few requests are made if the server
    refuses everything. Pass a generator, so that each coroutine is created only when it is awaited.
    """
    remaining = iter(work)
    size = 1 if slow_start else limit
    while batch := list(itertools.islice(remaining, size)):
        size = min(2 * size, limit)
        for result in await asyncio.gather(*batch, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
