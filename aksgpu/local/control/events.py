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
from typing import Any, NamedTuple

from aksgpu.local.control import times
from aksgpu.local.objects import Object, Objects
from aksgpu.local.status import StatusError

log = logging.getLogger(__name__)

MAX_WAITING = 20_000
MAX_REMEMBERED = 4_096
MAX_MESSAGE = 1_024
_BATCH = 64
"""Events on their way at the same time."""


class _News(NamedTuple):
    """What makes two events the same."""

    about: tuple[tuple[str, str], ...]
    component: str
    type: str
    reason: str
    message: str
    action: str
    host: str


class Recorder:
    """Writes events. One serves all controllers of a cluster."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        # How often, and of which version of the object.
        self._waiting: dict[_News, tuple[int, str]] = {}
        # The event on the server: its name, and how often it was told.
        self._told: OrderedDict[_News, tuple[str, int]] = OrderedDict()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def tell(
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
        told = tuple((name, value) for name, value in about.items() if value)
        news = _News(told, component, kind, reason, message[:MAX_MESSAGE], action, host)
        if len(self._waiting) < MAX_WAITING or news in self._waiting:
            times_told, _ = self._waiting.get(news, (0, ""))
            self._waiting[news] = times_told + 1, meta.get("resourceVersion", "")
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
        while self._waiting:
            batch = [(news, *self._waiting.pop(news)) for news in list(itertools.islice(self._waiting, _BATCH))]
            await asyncio.gather(*(self._write(*each) for each in batch))

    async def _write(self, news: _News, more: int, version: str) -> None:
        try:
            name, before = self._told.pop(news, ("", 0))
            count = before + more
            if not name or not await self._repeat(news, name, count):
                event = _event(news, version, count := more)
                name = event["metadata"]["name"]
                await self._objects.create("events", event, event["metadata"]["namespace"])
            self._told[news] = name, count
            if len(self._told) > MAX_REMEMBERED:
                self._told.popitem(last=False)
        except StatusError as error:  # such as a namespace that is being deleted
            log.debug("event %s: %s", news.reason, error)
        except Exception:  # one event's trouble is not the others'
            log.exception("event %s", news.reason)

    async def _repeat(self, news: _News, name: str, count: int) -> bool:
        """Raise the count of an event; False when it is gone."""
        patch: dict[str, Any] = {"count": count, "lastTimestamp": times.now()}
        if news.action:
            patch = {"series": {"count": count, "lastObservedTime": times.now_micro()}}
        try:
            await self._objects.patch("events", name, patch, dict(news.about).get("namespace", "default"))
        except StatusError as error:
            if error.code != 404:
                raise
            return False
        return True


async def write(objects: Objects, component: str, obj: Object, kind: str, reason: str, message: str) -> None:
    """Write one event at once, for those who rarely tell anything; see :meth:`Recorder.tell`."""
    recorder = Recorder(objects)
    recorder.tell(component, obj, kind, reason, message)
    await recorder.flush()


# Event names end in a time in nanoseconds; counting on from the start keeps two of one moment apart.
_numbers = itertools.count(time.time_ns(), 1_000)


def _event(news: _News, version: str, count: int) -> Object:
    about, host = dict(news.about), news.host
    name, namespace = f"{about['name']}.{next(_numbers):016x}", about.get("namespace", "default")
    event: Object = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": about | ({"resourceVersion": version} if version else {}),
        "reason": news.reason,
        "message": news.message,
        "type": news.type,
        "reportingComponent": news.component,
    }
    if news.action:
        moment, instance = times.now_micro(), f"{news.component}-{socket.gethostname()}"
        event |= {"source": {}, "eventTime": moment, "action": news.action, "reportingInstance": instance}
        return event | ({"series": {"count": count, "lastObservedTime": moment}} if count > 1 else {})
    source = {"component": news.component} | ({"host": host} if host else {})
    moments = dict.fromkeys(("firstTimestamp", "lastTimestamp"), times.now())
    return event | moments | {"source": source, "count": count, "eventTime": None, "reportingInstance": host}
