"""A cluster's objects whose watches can be interrupted, so that the watcher misses what happens in between."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

from aksgpu.local.objects import Object, Objects, Request, WatchEvent
from aksgpu.local.status_error import expired


class InterruptedWatches(Objects):
    """Passes everything on to other objects, except lists and watches of the resources that are interrupted.

    The next event of an interrupted watch is lost, and the watch ends with status 410. A list waits until the resource
    is resumed. An object that is created and deleted in between is therefore never seen.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._resumed: dict[str, asyncio.Event] = {}
        self._lists: defaultdict[str, int] = defaultdict(int)
        self.read: set[tuple[str, str | None]] = set()
        """The resource and the name of each object that was read."""

    def interrupt(self, resource: str) -> None:
        """Interrupt the lists and watches of a resource."""
        self._resumed[resource] = asyncio.Event()

    def resume(self, resource: str) -> None:
        """Let the lists of a resource continue."""
        self._resumed.pop(resource).set()

    def lists(self, resource: str) -> int:
        """Return how many lists of a resource have been started."""
        return self._lists[resource]

    async def call(self, request: Request) -> Object:
        response = await self._objects.call(request)
        if request.verb == "get":
            self.read.add((request.resource, request.name))
        return response

    async def list(
        self, resource: str, namespace: str | None = None, *, field_selector: str = ""
    ) -> tuple[list[Object], str]:
        self._lists[resource] += 1
        if resource in self._resumed:
            await self._resumed[resource].wait()
        return await self._objects.list(resource, namespace, field_selector=field_selector)

    async def watch(
        self, resource: str, namespace: str | None = None, *, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        async for event in self._objects.watch(resource, namespace, resource_version=resource_version):
            if resource in self._resumed and event.type != "BOOKMARK":
                raise expired("too old resource version")
            yield event
