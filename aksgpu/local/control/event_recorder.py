"""Events: what controllers tell the user about an object, as ``kubectl describe`` shows them.

Repeating an event raises the count of the first one. Events are written in the background and in batches; when the
server refuses one, or too many wait, it is lost, as on a real cluster: an event is news, never state.
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
MAX_REMEMBERED = 4_096
MAX_MESSAGE = 1_024
_BATCH = 64
"""Events on their way at the same time."""

# Event names end in a time in nanoseconds; counting on from the start keeps two of one moment apart.
_numbers = itertools.count(time.time_ns(), 1_000)


class EventRecorder:
    """Writes events. One serves all controllers of a cluster."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        # What is to be told, how often, and of which version of its object; by what makes two events the same.
        self._pending: dict[bytes, tuple[Object, int, str]] = {}
        # The event on the server: its name, and how often it was told.
        self._written: OrderedDict[bytes, tuple[str, int]] = OrderedDict()
        self._wake = asyncio.Event()
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
        """Tell something about an object.

        Args:
            component: who tells it, such as ``job-controller``.
            obj: what it is about; needs apiVersion and kind, or is a pod.
            kind: ``Normal`` or ``Warning``.
            reason: one CamelCase word.
            message: a sentence for people.
            action: what was done; given by components that use the newer events API, as the scheduler does.
            host: the node that tells it; given by node agents.
            field: which part of the object it is about, such as ``spec.containers{main}``.
        """
        meta = obj["metadata"]
        about = {"kind": obj.get("kind", "Pod"), "apiVersion": obj.get("apiVersion", "v1"), "fieldPath": field}
        about |= {each: meta.get(each, "") for each in ("namespace", "name", "uid")}
        event: Object = {"involvedObject": {name: value for name, value in about.items() if value}}
        event |= {"type": kind, "reason": reason, "message": message[:MAX_MESSAGE], "reportingComponent": component}
        if action:
            event |= {"source": {}, "action": action, "reportingInstance": f"{component}-{socket.gethostname()}"}
        else:
            source = {"component": component} | ({"host": host} if host else {})
            event |= {"source": source, "reportingInstance": host}
        key = orjson.dumps(event)
        if len(self._pending) < MAX_PENDING or key in self._pending:
            _, more, _ = self._pending.get(key, (event, 0, ""))
            self._pending[key] = event, more + 1, meta.get("resourceVersion", "")
            self._wake.set()

    async def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop; what was not written is lost."""
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
        """Write what waits."""
        while self._pending:
            batch = [(key, *self._pending.pop(key)) for key in list(itertools.islice(self._pending, _BATCH))]
            await asyncio.gather(*(self._write(*each) for each in batch))

    async def _write(self, key: bytes, event: Object, more: int, version: str) -> None:
        about = event["involvedObject"]
        namespace = about.get("namespace", "default")
        (name, before) = self._written.pop(key, ("", 0))
        count = before + more
        patch: Object = {"count": count, "lastTimestamp": times.now()}
        if "action" in event:
            patch = {"series": {"count": count, "lastObservedTime": times.now_micro()}}
        try:
            if name:
                with ignoring(404):
                    await self._objects.patch("events", name, patch, namespace)
                    self._remember(key, name, count)
                    return
            name = f"{about['name']}.{next(_numbers):016x}"
            await self._objects.create("events", _new_event(event, name, namespace, version, more), namespace)
            self._remember(key, name, more)
        except StatusError as error:  # such as a namespace that is being deleted
            log.debug("event %s: %s", event["reason"], error)
        except Exception:  # one event's trouble is not the others'
            log.exception("event %s", event["reason"])

    def _remember(self, key: bytes, name: str, count: int) -> None:
        self._written[key] = name, count
        if len(self._written) > MAX_REMEMBERED:
            self._written.popitem(last=False)


async def write_event(objects: Objects, component: str, obj: Object, kind: str, reason: str, message: str) -> None:
    """Write one event at once, for those who rarely tell anything; see :meth:`Recorder.tell`."""
    recorder = EventRecorder(objects)
    recorder.record_event(component, obj, kind, reason, message)
    await recorder.flush()


def _new_event(event: Object, name: str, namespace: str, version: str, count: int) -> Object:
    """An event that was not told before, as the API has it."""
    made = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace}, **event}
    if version:
        made["involvedObject"] = {**event["involvedObject"], "resourceVersion": version}
    if "action" in event:
        moment = times.now_micro()
        series = {"series": {"count": count, "lastObservedTime": moment}} if count > 1 else {}
        return made | {"eventTime": moment} | series
    return made | {"firstTimestamp": times.now(), "lastTimestamp": times.now(), "count": count, "eventTime": None}
