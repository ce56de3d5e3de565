"""What every controller stands on: shared informers, writes that they learn of at once, and work queues.

A :class:`Worker` names the keys that need a look, in a queue that holds each key once, and brings one object at a
time to what it should be. Workers are level-triggered: they look at how things are, never at what happened.

Nothing here knows a kind.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, ClassVar, Protocol

from aksgpu.local.control.informer import Informer, key_of
from aksgpu.local.control.times import now
from aksgpu.local.objects import MERGE_PATCH, STRATEGIC_PATCH, Object, Objects
from aksgpu.local.status import StatusError

log = logging.getLogger(__name__)


class Timing(Protocol):
    """The part of the laptop's settings that controllers read."""

    @property
    def time_scale(self) -> float:
        """Multiplies pauses."""


def split_key(key: str) -> tuple[str | None, str]:
    """The namespace (or None) and the name of a key."""
    namespace, _, name = key.rpartition("/")
    return namespace or None, name


def controller_of(obj: Object) -> dict[str, Any]:
    """The owner reference of the controller that manages this object; empty when there is none."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return dict(owner)
    return {}


def finished(pod: Object) -> bool:
    """Whether none of the pod's containers will run again."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def condition(obj: Object, kind: str) -> dict[str, Any]:
    """A condition of an object's status; empty when it is not there."""
    for found in (obj.get("status") or {}).get("conditions") or ():
        if found["type"] == kind:
            return dict(found)
    return {}


class WorkQueue:
    """Keys that need a look, each at most once, and never the same key in two hands."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}

    def add(self, key: str) -> None:
        """Look at this key soon."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: str, delay: float) -> None:
        """Look at this key after ``delay`` seconds, or earlier when it is due earlier."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + delay:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(delay, self._due, key)

    def retry(self, key: str) -> None:
        """Look at this key again, the later the more often it failed."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self.add_after(key, min(60.0, 0.005 * 2 ** min(failures, 14)))

    def forget(self, key: str) -> None:
        """The key went well: its next failure is its first."""
        self._failures.pop(key, None)

    async def get(self) -> str:
        """The next key; say :meth:`done` afterwards."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._busy.add(key)
        return key

    def done(self, key: str) -> None:
        """The key is out of hand."""
        self._busy.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Drop what is due later."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _due(self, key: str) -> None:
        self._timers.pop(key, None)
        self.add(key)


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

    def __init__(self, objects: Objects, settings: Timing) -> None:
        self.objects = objects
        self.settings = settings
        self._informers: dict[str, Informer] = {}
        self._tasks = Tasks()

    def informer(self, resource: str) -> Informer:
        """The one informer of a resource."""
        if resource not in self._informers:
            self._informers[resource] = Informer(self.objects, resource)
        return self._informers[resource]

    async def start(self) -> None:
        """Start the informers asked for so far, and wait until each has listed."""
        for informer in self._informers.values():
            self._tasks.spawn(informer.run())
        for informer in self._informers.values():
            await informer.synced.wait()

    async def stop(self) -> None:
        """Stop the informers."""
        await self._tasks.cancel()

    async def create(self, resource: str, obj: Object, namespace: str | None = None) -> Object:
        """Create an object."""
        return self._note(resource, await self.objects.create(resource, obj, namespace))

    async def update(self, resource: str, obj: Object, *, subresource: str | None = None) -> Object:
        """Replace an object, or its status."""
        return self._note(resource, await self.objects.update(resource, obj, subresource=subresource))

    async def patch(
        self,
        resource: str,
        key: str,
        patch: Any,
        *,
        content_type: str = MERGE_PATCH,
        subresource: str | None = None,
    ) -> Object:
        """Patch an object, or its status."""
        namespace, name = split_key(key)
        return self._note(
            resource,
            await self.objects.patch(
                resource, name, patch, namespace, content_type=content_type, subresource=subresource
            ),
        )

    async def delete(self, resource: str, obj: Object, **how: Any) -> None:
        """Delete exactly this object; it is no error when it is gone or another one bears its name."""
        meta = obj["metadata"]
        try:
            left = await self.objects.delete(resource, meta["name"], meta.get("namespace"), uid=meta["uid"], **how)
            if (left.get("metadata") or {}).get("deletionTimestamp"):
                self._note(resource, left)
        except StatusError as error:
            if error.code not in (404, 409):
                raise

    async def set_condition(self, pod: Object, state: dict[str, Any]) -> None:
        """Set one condition in the status of exactly this pod, if it is still there."""
        patch = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"conditions": [state]}}
        try:
            await self.patch("pods", key_of(pod), patch, content_type=STRATEGIC_PATCH, subresource="status")
        except StatusError as error:
            if error.code not in (404, 409):
                raise

    async def disrupt(self, pod: Object, reason: str, message: str) -> None:
        """Say in a pod's status that the cluster, not the pod, is why it ends."""
        state = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
        await self.set_condition(pod, {**state, "lastTransitionTime": now()})

    async def remove_finalizer(self, resource: str, obj: Object, finalizer: str) -> None:
        """Take one finalizer off exactly this object, if it is there."""
        meta = obj["metadata"]
        left = [name for name in meta.get("finalizers") or () if name != finalizer]
        # uid and resourceVersion make the server refuse when the object is another one, or its finalizers changed.
        head = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], "finalizers": left}
        with suppress_gone():
            await self.patch(resource, key_of(obj), {"metadata": head})

    def _note(self, resource: str, obj: Object) -> Object:
        if (informer := self._informers.get(resource)) and "resourceVersion" in (obj.get("metadata") or {}):
            informer.note(obj)
        return obj


class suppress_gone(suppress):  # noqa: N801 - reads as a keyword, as contextlib.suppress does
    """Go on when the object is not there any more."""

    def __init__(self) -> None:
        super().__init__(StatusError)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        return isinstance(error, StatusError) and error.code == 404


class Worker(ABC):
    """Does what is missing for one key at a time."""

    workers: ClassVar[int] = 4

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.queue = WorkQueue()
        self._tasks = Tasks()

    @abstractmethod
    async def sync(self, key: str) -> float | None:
        """Look at one key and do what is missing. The answer is the number of seconds until the next look, if any.

        What it raises is tried again, with growing delay.
        """

    async def start(self) -> None:
        """Start to work; the cluster's informers have listed."""
        for _ in range(self.workers):
            self._tasks.spawn(self._work())

    async def stop(self) -> None:
        """Stop, in the middle of whatever it does: the next start goes on from how things are."""
        self.queue.close()
        await self._tasks.cancel()

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                later = await self.sync(key)
            except StatusError as error:
                # A conflict or a missing object means that the cache was behind: the next look knows better.
                level = logging.DEBUG if error.code in (404, 409) else logging.WARNING
                log.log(level, "%s %s: %s", type(self).__name__, key, error)
                self.queue.retry(key)
            except Exception:
                log.exception("%s %s", type(self).__name__, key)
                self.queue.retry(key)
            else:
                self.queue.forget(key)
                if later is not None and math.isfinite(later):
                    self.queue.add_after(key, max(0.0, later))
            finally:
                self.queue.done(key)


class Controller(Worker):
    """A worker whose keys are the objects of one resource: each is looked at when it changes."""

    resource: ClassVar[str]

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.informer = cluster.informer(self.resource)
        self.informer.on_change(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if obj := new or old:
            self.queue.add(key_of(obj))


async def all_of(work: Iterable[Awaitable[Any]], limit: int = 32) -> list[Any]:
    """The results of all works, ``limit`` at a time; the first error is raised when its batch has ended.

    Give a generator: a work is made only when its turn has come.
    """
    results: list[Any] = []
    rest = iter(work)
    while batch := list(itertools.islice(rest, limit)):
        done = await asyncio.gather(*batch, return_exceptions=True)
        for result in done:
            if isinstance(result, BaseException):
                raise result
        results += done
    return results
