"""The API server's core: every verb on every kind, on dicts.

:class:`Registry` is what the laptop's own parts use in process (it implements
:class:`aksgpu.local.objects.Objects`) and what the HTTP face is a thin translation of. Reads come from memory, writes
go through validation to the store. Not here: HTTP, authentication, tables, discovery.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import orjson

from aksgpu.common.times import now
from aksgpu.local import api_data, objects
from aksgpu.local.api import schema
from aksgpu.local.api.mutations import Change, WriteOptions, Writer
from aksgpu.local.api.patch import json_patch, merge_patch, strategic_patch
from aksgpu.local.api.reads import Reader
from aksgpu.local.api.store import Entry, Key, Store
from aksgpu.local.kinds import Kind, get_kind
from aksgpu.local.objects import APPLY_PATCH, MERGE_PATCH, Object, Objects, Request, WatchEvent
from aksgpu.local.selectors import ObjectFilter, object_filter
from aksgpu.local.status_error import bad_request

__all__ = ["SUCCESS", "Registry", "WriteOptions"]

SUCCESS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
_EVENT_TTL = 3600
"""How long Events are kept."""


class Registry(Reader, Objects):
    """All objects of one cluster, with the rules of the API."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._writer = Writer(store)
        self._manager = "aksgpu"
        self._expiry_task: asyncio.Task[None] | None = None

    def with_manager(self, manager: str) -> Registry:
        """The same registry, whose plain verbs write as another field manager, such as ``kubelet``."""
        other = copy.copy(self)
        other._manager = manager
        return other

    async def open(self) -> None:
        """Open the store and see to the objects that every cluster has."""
        await self.store.open()
        for resource, rows in api_data.load("rules.yaml")["first"].items():
            for name, obj in rows.items():
                if self.store.get(resource, ("", name)) is None:
                    await self.create(resource, {"metadata": {"name": name}, **obj})
        self._expiry_task = asyncio.create_task(self._expire_events())

    async def close(self) -> None:
        """Write what is pending and close the store; watches end."""
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
        """What the plain verbs of :class:`~aksgpu.local.objects.Objects` ask for."""
        verb, resource, name, namespace, body, subresource, media = request
        if verb == "get":
            return (await self.entry(resource, name or "", namespace)).obj
        entry, _ = await self.write(verb, resource, body, name, namespace, subresource=subresource, content_type=media)
        return entry.obj

    async def list(
        self, resource: str, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> tuple[list[Object], str]:
        """All objects that match (every namespace when None), and the resourceVersion to watch from."""
        list_page = await self.list_page(
            resource, namespace, object_filter(get_kind(resource), label_selector, field_selector)
        )
        return [entry.obj for entry in list_page.entries], list_page.resource_version

    async def watch(
        self, resource: str, namespace: str | None = None, *, resource_version: str, field_selector: str = ""
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes after ``resource_version``, for ever; raises Expired (410) when that is too old."""
        match = object_filter(get_kind(resource), "", field_selector)
        async with aclosing(self.stream(resource, namespace, match, resource_version=int(resource_version))) as events:
            async for event in events:
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
            verb: ``create`` (also posts to a subresource of ``name``), ``update``, ``patch`` or ``delete``.
            resource: the plural.
            body: the object, the patch, or DeleteOptions.
            name: the object's name.
            namespace: its namespace.
            subresource: the part that is written.
            content_type: of a patch.
            options: what else a client may ask for.

        Returns:
            The object as it is by then, or the answer of what is not stored, such as a binding; and whether the verb
            made it, or for ``delete`` whether it is gone already.
        """
        options = options or self._options()
        entry, done = self._write(
            verb, get_kind(resource), (namespace or "", name or ""), body, subresource or "", content_type, options
        )
        await self.store.durable(entry.rv or self.store.revision)
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
    ) -> Sequence[Entry]:
        """Delete all objects that match; returns them as they were. ``wishes`` are DeleteOptions."""
        list_page = await self.list_page(resource, namespace, match)
        for entry in list_page.entries:
            if self.store.get(resource, entry.key) is not None:
                self._writer.delete(entry.kind, entry.key, delete_options, options)
        await self.store.durable(self.store.revision)
        return list_page.entries

    def _options(self) -> WriteOptions:
        return WriteOptions(manager=self._manager)


def _success_entry(kind: Kind) -> Entry:
    status = {**SUCCESS, "code": 201}
    return Entry(kind, status, orjson.dumps(status), 0)


def _patch_function(kind: Kind, patch: Any, media: str) -> Change:
    """A patch as a function from the old object to the new one."""

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
            raise bad_request("the patched object is no object")
        return new

    return change
