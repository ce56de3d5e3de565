"""The core of the API server: every verb for every kind, on dicts.

The laptop's other parts use :class:`Registry` in the same process, through :class:`aksgpu.local.objects.Objects`. The
HTTP interface translates requests into calls of its methods.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson

from aksgpu.common.times import now
from aksgpu.local import api_data, objects
from aksgpu.local.api import schema
from aksgpu.local.api.mutations import Change, WriteOptions, Writer
from aksgpu.local.api.patch import json_patch, merge_patch, strategic_patch
from aksgpu.local.api.reads import Page, Reader
from aksgpu.local.api.store import Entry, Key, Store
from aksgpu.local.kinds import Kind, get_kind
from aksgpu.local.objects import APPLY_PATCH, MERGE_PATCH, Object, Objects, Request, WatchEvent
from aksgpu.local.selectors import ObjectFilter, object_filter
from aksgpu.local.status_error import bad_request

__all__ = ["SUCCESS", "Registry", "WriteOptions"]

SUCCESS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
_EVENT_TTL = 3600
"""Seconds for which Events are kept."""


class Registry(Reader, Objects):
    """All objects of one cluster, with the rules of the API."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._writer = Writer(store)
        self._manager = "aksgpu"
        self._expiry_task: asyncio.Task[None] | None = None

    def with_manager(self, manager: str) -> Registry:
        """Return a view of the registry that writes as another field manager, such as ``kubelet``."""
        other = copy.copy(self)
        other._manager = manager
        return other

    async def open(self) -> None:
        """Open the store and create the objects that every cluster has."""
        await self.store.open()
        for resource, rows in api_data.load("rules.yaml")["initialObjects"].items():
            for name, obj in rows.items():
                if self.store.get(resource, ("", name)) is None:
                    metadata = {**obj.get("metadata", {}), "name": name}
                    await self.create(resource, {**obj, "metadata": metadata})
        self._expiry_task = asyncio.create_task(self._expire_events())

    async def close(self) -> None:
        """Commit pending writes, close the store and end all watches."""
        if self._expiry_task is not None:
            self._expiry_task.cancel()
        await self.store.close()

    async def _expire_events(self) -> None:
        while True:
            oldest = now(-_EVENT_TTL)
            for entry in list(self.store.entries("events")):
                if (entry.obj.get("lastTimestamp") or entry.obj["metadata"]["creationTimestamp"]) < oldest:
                    self._writer.delete(entry.kind, entry.key, {}, self._options())
            await asyncio.sleep(_EVENT_TTL / 12)

    async def call(self, request: Request) -> Object:
        """Execute one request of :class:`~aksgpu.local.objects.Objects`."""
        verb, resource, name, namespace, body, subresource, media = request
        if verb == "get":
            return (await self.entry(resource, name or "", namespace)).obj
        entry, _ = await self.write(verb, resource, body, name, namespace, subresource=subresource, content_type=media)
        return entry.obj

    async def list(
        self, resource: str, namespace: str | None = None, *, field_selector: str = ""
    ) -> tuple[list[Object], str]:
        """Return all objects that match, and the resourceVersion to watch from."""
        page = await self.list_page(resource, namespace, object_filter(get_kind(resource), "", field_selector))
        return [entry.obj for entry in page.entries], page.resource_version

    async def watch(
        self, resource: str, namespace: str | None = None, *, resource_version: str
    ) -> AsyncGenerator[WatchEvent, None]:
        """Yield the changes after ``resource_version``, without end; raises Expired (410) if that is too old."""
        async with aclosing(self.stream(resource, namespace, resource_version=int(resource_version))) as batches:
            async for events in batches:
                for event in events:
                    yield WatchEvent(event.type, event.entry.obj)

    async def write(
        self,
        verb: str,
        resource: str,
        body: Any,
        name: str | None = None,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        content_type: str = MERGE_PATCH,
        options: WriteOptions | None = None,
    ) -> tuple[Entry, bool]:
        """Change one object.

        Args:
            verb: ``create`` (also for subresources of ``name``), ``update``, ``patch`` or ``delete``.
            resource: The plural.
            body: The object, the patch, or DeleteOptions.
            name: The object's name.
            namespace: The object's namespace.
            subresource: The subresource to write.
            content_type: The media type of a patch.
            options: Options of the request.

        Returns:
            The object as written, or the response for something that is not stored, such as a binding. The second value
            is whether the object was created or, for ``delete``, whether it is gone.
        """
        options = options or self._options()
        entry, done = self._write(
            verb, get_kind(resource), (namespace or "", name or ""), body, subresource or "", content_type, options
        )
        # The deletion of a pod writes twice, and returns the entry of the first write.
        written = 0 if verb == "delete" else entry.rv
        await self.store.durable(written or self.store.revision)
        return entry, done

    def _write(
        self, verb: str, kind: Kind, key: Key, body: Any, subresource: str, media: str, options: WriteOptions
    ) -> tuple[Entry, bool]:
        match verb, subresource:
            case "create", "binding":
                self._writer.bind(kind, key, body, options)
                return _success_entry(kind), True
            case "create", "eviction":
                self._writer.evict(kind, key, body, options)
                return _success_entry(kind), True
            case "create", _ if "get" not in kind.verbs:
                return self._writer.review(kind, body, options), True
            case "create", _:
                return self._writer.create(kind, body, key[0], options), True
            case "delete", _:
                return self._writer.delete(kind, key, body or {}, options)
            case "patch", _ if media == APPLY_PATCH:
                return self._writer.apply(kind, key, body, subresource, options)
        change = _patch_function(kind, body, media) if verb == "patch" else lambda _: body
        return self._writer.update(kind, key, change, subresource, options), False

    async def remove_collection(
        self,
        resource: str,
        namespace: str | None,
        match: ObjectFilter | None,
        delete_options: Object,
        options: WriteOptions,
        *,
        limit: int = 0,
        token: str = "",
    ) -> Page:
        """Delete all objects that match, or one page of them, and return them as they were.

        ``delete_options`` is a DeleteOptions object. ``limit`` and ``token`` choose the page, as in a list.
        """
        page = await self.list_page(resource, namespace, match, limit=limit, token=token)
        for entry in page.entries:
            if self.store.get(resource, entry.key) is not None:
                self._writer.delete(entry.kind, entry.key, delete_options, options)
        await self.store.durable(self.store.revision)
        return page

    def _options(self) -> WriteOptions:
        return WriteOptions(manager=self._manager)


def _success_entry(kind: Kind) -> Entry:
    status = {**SUCCESS, "code": 201}
    return Entry(kind, status, orjson.dumps(status), 0)


def _patch_function(kind: Kind, patch: Any, media: str) -> Change:
    """Return a patch as a function from the old object to the new one."""

    def change(old: Object) -> Object:
        try:
            match media:
                case objects.JSON_PATCH:
                    new = json_patch(old, patch)
                case objects.MERGE_PATCH:
                    new = merge_patch(old, patch)
                case _:
                    new = strategic_patch(schema.schema_for(kind), old, patch)
        except RecursionError as error:
            raise bad_request("error decoding patch: exceeded max depth") from error
        if not isinstance(new, dict):
            raise bad_request("the patch does not result in an object")
        return new

    return change
