"""Records events about objects, which ``kubectl describe`` shows.

Repeating an event increases the count of the existing one. Events are written in the background, in batches. An event
is lost if the server refuses it or too many are pending, as on a real cluster.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import time
from collections import OrderedDict
from contextlib import suppress

import orjson

from aksgpu.common import times
from aksgpu.local.objects import Object, Objects
from aksgpu.local.status_error import StatusError, ignoring

log = logging.getLogger(__name__)

MAX_PENDING = 20_000
"""Maximum number of events that wait to be written. Further events are dropped."""
MAX_REMEMBERED = 4_096
"""Number of written events that are remembered, so that a repetition increases their count."""
MAX_MESSAGE = 1_024
"""Maximum characters of a message."""
_BATCH = 8
"""Events that are written at the same time."""

_name_suffixes = itertools.count(time.time_ns(), 1_000)
"""Suffixes of event names. They start at the current time in nanoseconds, and a counter makes them unique."""


class EventRecorder:
    """Writes events. All controllers of a cluster share one."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        # The event, how many times it occurred, and the version of its object; by the JSON of the event.
        self._pending: dict[bytes, tuple[Object, int, str]] = {}
        # The name and the count of events that are on the server.
        self._written: OrderedDict[bytes, tuple[str, int]] = OrderedDict()
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def record_event(
        self,
        component: str,
        obj: Object,
        kind: str,
        reason: str,
        message: str,
        *,
        action: str = "",
        host: str = "",
        field: str = "",
    ) -> None:
        """Record an event about an object.

        Args:
            component: The reporting component, such as ``job-controller``.
            obj: The object. It needs apiVersion and kind unless it is a pod.
            kind: ``Normal`` or ``Warning``.
            reason: One CamelCase word.
            message: A sentence for people.
            action: What was done. Only components that use the newer events API set it, such as the scheduler.
            host: The reporting node. Only node agents set it.
            field: The part of the object that the event is about, such as ``spec.containers{main}``.
        """
        meta = obj["metadata"]
        event: Object = {
            "involvedObject": _reference(obj, field),
            "type": kind,
            "reason": reason,
            "message": message[:MAX_MESSAGE],
            "reportingComponent": component,
            **_source(component, action, host),
        }
        key = orjson.dumps(event)
        if len(self._pending) >= MAX_PENDING and key not in self._pending:
            return
        _, count, _ = self._pending.get(key, (event, 0, ""))
        self._pending[key] = (event, count + 1, meta.get("resourceVersion", ""))
        self._wake.set()

    async def start(self) -> None:
        """Start the task that writes events."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop. Pending events are lost."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write all pending events, and wait for those that are being written."""
        async with self._writing:
            while self._pending:
                keys = list(itertools.islice(self._pending, _BATCH))
                await asyncio.gather(*(self._write(key, *self._pending.pop(key)) for key in keys))

    async def _write(self, key: bytes, event: Object, new_count: int, version: str) -> None:
        about = event["involvedObject"]
        namespace = about.get("namespace", "default")
        name, old_count = self._written.pop(key, ("", 0))
        count = old_count + new_count
        patch: Object = {"count": count, "lastTimestamp": times.now()}
        if "action" in event:
            patch = {"series": {"count": count, "lastObservedTime": times.now_micro()}}
        try:
            if name:
                with ignoring(404):
                    await self._objects.patch("events", name, patch, namespace)
                    self._remember(key, name, count)
                    return
            name = f"{about['name']}.{next(_name_suffixes):016x}"
            await self._objects.create("events", _new_event(event, name, namespace, version, new_count), namespace)
            self._remember(key, name, new_count)
        except StatusError as error:  # For example, the namespace is being deleted.
            log.debug("event %s: %s", event["reason"], error)
        except Exception:  # An error with one event must not stop the others.
            log.exception("event %s", event["reason"])

    def _remember(self, key: bytes, name: str, count: int) -> None:
        self._written[key] = name, count
        if len(self._written) > MAX_REMEMBERED:
            self._written.popitem(last=False)


async def write_event(objects: Objects, component: str, obj: Object, kind: str, reason: str, message: str) -> None:
    """Write one event at once. For code that rarely records events; see :meth:`EventRecorder.record_event`."""
    recorder = EventRecorder(objects)
    recorder.record_event(component, obj, kind, reason, message)
    await recorder.flush()


def _reference(obj: Object, field: str) -> Object:
    """Return the reference to the object that an event is about."""
    meta = obj["metadata"]
    reference = {
        "kind": obj.get("kind", "Pod"),
        "apiVersion": obj.get("apiVersion", "v1"),
        "fieldPath": field,
        "namespace": meta.get("namespace", ""),
        "name": meta.get("name", ""),
        "uid": meta.get("uid", ""),
    }
    return {name: value for name, value in reference.items() if value}


def _source(component: str, action: str, host: str) -> Object:
    """Return the fields of an event about its origin, in the form of the newer or the older events API."""
    if action:
        return {"source": {}, "action": action, "reportingInstance": f"{component}-{socket.gethostname()}"}
    source = {"component": component}
    if host:
        source["host"] = host
    return {"source": source, "reportingInstance": host}


def _new_event(event: Object, name: str, namespace: str, version: str, count: int) -> Object:
    """Return the Event object for an event that is not on the server yet."""
    obj = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace}, **event}
    if version:
        obj["involvedObject"] = {**event["involvedObject"], "resourceVersion": version}
    if "action" in event:
        obj["eventTime"] = times.now_micro()
        if count > 1:
            obj["series"] = {"count": count, "lastObservedTime": obj["eventTime"]}
        return obj
    return obj | {"firstTimestamp": times.now(), "lastTimestamp": times.now(), "count": count, "eventTime": None}
