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
from dataclasses import dataclass
from typing import Any

from aksgpu.local.control import times
from aksgpu.local.control.runtime import Tasks, all_of
from aksgpu.local.objects import Object, Objects
from aksgpu.local.status import StatusError

log = logging.getLogger(__name__)

MAX_WAITING = 20_000
MAX_REMEMBERED = 4_096
MAX_MESSAGE = 1_024


@dataclass(frozen=True)
class _News:
    """What makes two events the same."""

    namespace: str
    involved: tuple[tuple[str, str], ...]
    component: str
    type: str
    reason: str
    message: str
    action: str
    host: str


@dataclass
class _Told:
    """An event that is on the server."""

    name: str
    count: int


class Recorder:
    """Writes events. One serves all controllers of a cluster."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._waiting: OrderedDict[_News, int] = OrderedDict()
        self._versions: dict[_News, str] = {}
        self._told: OrderedDict[_News, _Told] = OrderedDict()
        self._wake = asyncio.Event()
        self._tasks = Tasks()

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
        involved = {
            "kind": obj.get("kind", "Pod"),
            "namespace": meta.get("namespace", ""),
            "name": meta["name"],
            "uid": meta.get("uid", ""),
            "apiVersion": obj.get("apiVersion", "v1"),
            "fieldPath": field,
        }
        about = tuple((key, value) for key, value in involved.items() if value)
        namespace = meta.get("namespace") or "default"
        news = _News(namespace, about, component, kind, reason, message[:MAX_MESSAGE], action, host)
        if len(self._waiting) < MAX_WAITING or news in self._waiting:
            self._waiting[news] = self._waiting.get(news, 0) + 1
            self._versions[news] = meta.get("resourceVersion", "")
            self._wake.set()

    async def start(self) -> None:
        """Begin to write."""
        self._tasks.spawn(self._run())

    async def stop(self) -> None:
        """Stop; what was not written is lost."""
        await self._tasks.cancel()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what waits."""
        while self._waiting:
            batch = [self._waiting.popitem(last=False) for _ in range(min(64, len(self._waiting)))]
            await all_of(self._write(news, more) for news, more in batch)

    async def _write(self, news: _News, more: int) -> None:
        version = self._versions.pop(news, "")
        try:
            told = self._told.get(news)
            if told is None or not await self._repeat(news, told, more):
                await self._objects.create("events", body := _event(news, version, more), news.namespace)
                self._told[news] = _Told(body["metadata"]["name"], more)
            self._told.move_to_end(news)
            while len(self._told) > MAX_REMEMBERED:
                self._told.popitem(last=False)
        except StatusError as error:  # such as a namespace that is being deleted
            log.debug("event %s: %s", news.reason, error)

    async def _repeat(self, news: _News, told: _Told, more: int) -> bool:
        """Raise the count of an event; False when it is gone."""
        told.count += more
        patch: dict[str, Any] = {"count": told.count, "lastTimestamp": times.now()}
        if news.action:
            patch = {"series": {"count": told.count, "lastObservedTime": times.now_micro()}}
        try:
            await self._objects.patch("events", told.name, patch, news.namespace)
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
    involved = dict(news.involved)
    body: Object = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{involved['name']}.{next(_numbers):016x}", "namespace": news.namespace},
        "involvedObject": {**involved, **({"resourceVersion": version} if version else {})},
        "reason": news.reason,
        "message": news.message,
        "type": news.type,
        "reportingComponent": news.component,
    }
    if news.action:
        instance = f"{news.component}-{socket.gethostname()}"
        series = {"count": count, "lastObservedTime": times.now_micro()}
        body |= {"source": {}, "eventTime": times.now_micro(), "action": news.action, "reportingInstance": instance}
        return body | ({"series": series} if count > 1 else {})
    now = times.now()
    source = {"component": news.component, **({"host": news.host} if news.host else {})}
    return body | {
        "source": source,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": count,
        "eventTime": None,
        "reportingInstance": news.host,
    }
