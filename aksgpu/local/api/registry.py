"""The API server's core: every verb on every kind, on dicts.

:class:`Registry` is what the laptop's own parts use in process (it implements
:class:`aksgpu.local.objects.Objects`) and what the HTTP face is a thin translation of. Reads come from memory, writes
go through validation to the store. Not here: HTTP, authentication, tables, discovery.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from aksgpu.local.api import schema
from aksgpu.local.api.kinds import Kind, by_plural
from aksgpu.local.api.patch import json_patch, merge_patch, strategic_patch, with_empty_details
from aksgpu.local.api.reading import Page, Reader
from aksgpu.local.api.store import Entry, Store
from aksgpu.local.api.writes import WriteOptions, Writer, decode_part, now
from aksgpu.local.objects import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, Object, WatchEvent
from aksgpu.local.status import StatusError, bad_request

__all__ = ["Page", "Registry", "WriteOptions", "now"]

_EVENT_SECONDS = 3600
"""How long Events are kept."""
_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_PRIORITIES = {
    "system-cluster-critical": (
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    "system-node-critical": (
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
}


class Registry(Reader):
    """All objects of one cluster, with the rules of the API."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._writer = Writer(store)
        self._manager = "aksgpu"
        self._janitor: asyncio.Task[None] | None = None

    def by(self, manager: str) -> Registry:
        """The same registry, whose plain verbs write as another field manager, such as ``kubelet``."""
        other = copy.copy(self)
        other._manager = manager
        return other

    async def open(self) -> None:
        """Open the store and see to the objects that every cluster has."""
        await self.store.open()
        for name in _NAMESPACES:
            if self.store.get("namespaces", ("", name)) is None:
                await self.create("namespaces", {"metadata": {"name": name}})
        for name, (value, description) in _PRIORITIES.items():
            if self.store.get("priorityclasses", ("", name)) is None:
                obj = {"metadata": {"name": name}, "value": value, "description": description}
                await self.create("priorityclasses", obj)
        self._janitor = asyncio.create_task(self._expire_events())

    async def close(self) -> None:
        """Write what is pending and close the store; watches end."""
        if self._janitor is not None:
            self._janitor.cancel()
        await self.store.close()

    async def _expire_events(self) -> None:
        while True:
            oldest = (datetime.now(UTC) - timedelta(seconds=_EVENT_SECONDS)).strftime("%Y-%m-%dT%H:%M:%SZ")
            for entry in list(self.store.entries("events")):
                if (entry.obj.get("lastTimestamp") or entry.obj["metadata"]["creationTimestamp"]) < oldest:
                    self._writer.delete(entry.kind, entry.key, {}, self._options())
            await asyncio.sleep(_EVENT_SECONDS / 12)

    async def get(self, resource: str, name: str, namespace: str | None = None) -> Object:
        """The object; raises NotFound."""
        return (await self.entry(resource, name, namespace)).obj

    async def list(
        self, resource: str, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> tuple[list[Object], str]:
        """All objects that match (every namespace when None), and the resourceVersion to watch from."""
        page = await self.page(resource, namespace, label_selector=label_selector, field_selector=field_selector)
        return [entry.obj for entry in page.entries], page.resource_version

    async def watch(
        self, resource: str, namespace: str | None = None, *, resource_version: str, field_selector: str = ""
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes after ``resource_version``, for ever; raises Expired (410) when that is too old."""
        stream = self.stream(
            resource, namespace, resource_version=resource_version, field_selector=field_selector, bookmarks=True
        )
        async with aclosing(stream):
            async for event in stream:
                yield WatchEvent(event.type, event.entry.obj)

    # Writing: each verb with all that HTTP can ask for, then the plain form of the Objects protocol.

    async def post(
        self,
        resource: str,
        obj: Object,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
        options: WriteOptions | None = None,
    ) -> Entry:
        """Create an object, or post to a subresource of ``name``.

        For virtual kinds and subresources the entry holds the answer, which is not stored.
        """
        kind, options = by_plural(resource), options or self._options()
        if subresource == "binding":
            self._writer.bind(kind, (namespace or "", name or ""), obj, options)
            return await self._answer(kind)
        if subresource == "eviction":
            body = decode_part("policy.v1.Eviction", obj).get("deleteOptions", {})
            self._writer.delete(kind, (namespace or "", name or ""), body, options)
            return await self._answer(kind)
        if "get" not in kind.verbs:
            return self._writer.review(kind, obj, options)
        return await self._stored(self._writer.create(kind, obj, namespace, options))

    async def put(
        self,
        resource: str,
        obj: Object,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        options: WriteOptions | None = None,
    ) -> Entry:
        """Replace the object, or only its status; raises Conflict when its resourceVersion is stale."""
        key = (namespace or "", name)
        options = options or self._options()
        return await self._stored(self._writer.replace(by_plural(resource), key, lambda _: obj, subresource, options))

    async def modify(
        self,
        resource: str,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        content_type: str = MERGE_PATCH,
        subresource: str | None = None,
        options: WriteOptions | None = None,
    ) -> tuple[Entry, bool]:
        """Patch the object, or only its status; apply creates what is absent. Second: whether it was created."""
        kind, key, options = by_plural(resource), (namespace or "", name), options or self._options()
        if content_type == APPLY_PATCH:
            if not isinstance(patch, dict):
                raise bad_request("error decoding YAML: the patch must be an object")
            entry, created = self._writer.apply(kind, key, patch, subresource, options)
            return await self._stored(entry), created
        change = _change(kind, patch, content_type)
        return await self._stored(self._writer.replace(kind, key, change, subresource, options)), False

    async def remove(
        self,
        resource: str,
        name: str,
        namespace: str | None = None,
        *,
        delete_options: Mapping[str, Any] | None = None,
        options: WriteOptions | None = None,
    ) -> tuple[Entry, bool]:
        """Delete the object with the body of a DELETE (DeleteOptions). Second: whether it is gone already."""
        kind, options = by_plural(resource), options or self._options()
        entry, gone = self._writer.delete(kind, (namespace or "", name), delete_options or {}, options)
        return await self._stored(entry), gone

    async def remove_collection(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        delete_options: Mapping[str, Any] | None = None,
        options: WriteOptions | None = None,
    ) -> Sequence[Entry]:
        """Delete all objects that match; returns them as they were."""
        page = await self.page(resource, namespace, label_selector=label_selector, field_selector=field_selector)
        kind, options = by_plural(resource), options or self._options()
        for entry in page.entries:
            if self.store.get(resource, entry.key) is not None:
                self._writer.delete(kind, entry.key, delete_options or {}, options)
        await self.store.durable(self.store.revision)
        return page.entries

    async def create(
        self,
        resource: str,
        obj: Object,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
    ) -> Object:
        """Create the object, or post to a subresource of ``name``."""
        return (await self.post(resource, obj, namespace, name=name, subresource=subresource)).obj

    async def update(self, resource: str, obj: Object, *, subresource: str | None = None) -> Object:
        """Replace the object, or only its ``status``; raises Conflict when its resourceVersion is stale."""
        metadata = obj["metadata"]
        return (await self.put(resource, obj, metadata["name"], metadata.get("namespace"), subresource=subresource)).obj

    async def patch(
        self,
        resource: str,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        content_type: str = MERGE_PATCH,
        subresource: str | None = None,
    ) -> Object:
        """Patch the object, or only its ``status``."""
        entry, _ = await self.modify(
            resource, name, patch, namespace, content_type=content_type, subresource=subresource
        )
        return entry.obj

    async def delete(
        self,
        resource: str,
        name: str,
        namespace: str | None = None,
        *,
        propagation_policy: str | None = None,
        grace_period_seconds: int | None = None,
        uid: str | None = None,
    ) -> Object:
        """Delete the object as the API does: finalizers and a pod's grace period are respected."""
        body: dict[str, Any] = {}
        if propagation_policy is not None:
            body["propagationPolicy"] = propagation_policy
        if grace_period_seconds is not None:
            body["gracePeriodSeconds"] = grace_period_seconds
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        return (await self.remove(resource, name, namespace, delete_options=body))[0].obj

    async def _stored(self, entry: Entry) -> Entry:
        await self.store.durable(entry.rv)
        return entry

    async def _answer(self, kind: Kind) -> Entry:
        await self.store.durable(self.store.revision)
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        return Entry(kind, status, orjson.dumps(status), 0)

    def _options(self) -> WriteOptions:
        return WriteOptions(manager=self._manager)


def _change(kind: Kind, patch: Any, content_type: str) -> Callable[[Object], Object]:
    """A patch as a function from the old object to the new one."""

    def change(old: Object) -> Object:
        try:
            new = _patched(kind, old, patch, content_type)
        except RecursionError as error:
            raise bad_request("error decoding patch: exceeded max depth") from error
        if not isinstance(new, dict) or not isinstance(new.get("metadata", {}), dict):
            raise bad_request("the patched object is no object")
        return new

    return change


def _patched(kind: Kind, old: Object, patch: Any, content_type: str) -> Any:
    if content_type == JSON_PATCH:
        return json_patch(old, patch)
    if content_type not in (MERGE_PATCH, STRATEGIC_PATCH):
        raise with_empty_details(StatusError(415, "UnsupportedMediaType", "415: Unsupported Media Type"))
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: the patch must be an object")
    if content_type == MERGE_PATCH:
        return merge_patch(old, patch)
    return strategic_patch(schema.of(kind), old, patch)
