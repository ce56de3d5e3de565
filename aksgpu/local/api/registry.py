"""The API server's core: every verb on every kind, on dicts.

:class:`Registry` is what the laptop's own parts use in process (it implements
:class:`aksgpu.local.objects.Objects`) and what the HTTP face is a thin translation of. Reads come from memory, writes
go through validation to the store. Not here: HTTP, authentication, tables, discovery.
"""

from __future__ import annotations

import base64
import copy
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from aksgpu.local.api import schema, selectors
from aksgpu.local.api.kinds import Kind, by_plural
from aksgpu.local.api.patch import json_patch, merge_patch, strategic_patch, with_empty_details
from aksgpu.local.api.store import Entry, Event, Key, Store
from aksgpu.local.api.writes import WriteOptions, Writer, now
from aksgpu.local.objects import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, Object, WatchEvent
from aksgpu.local.status import StatusError, bad_request, not_found

__all__ = ["Page", "Registry", "WriteOptions", "now"]

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


class Page(NamedTuple):
    """A list, or a part of one."""

    entries: list[Entry]
    resource_version: str
    cont: str
    """The token for the next page; empty on the last."""
    remaining: int | None
    """Objects after this page, where that is known."""


class Registry:
    """All objects of one cluster, with the rules of the API."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._writer = Writer(store)
        self._manager = "aksgpu"

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

    async def close(self) -> None:
        """Write what is pending and close the store; watches end."""
        await self.store.close()

    # Reading.

    async def entry(self, resource: str, name: str, namespace: str | None = None) -> Entry:
        """The object with its JSON; raises NotFound."""
        kind = by_plural(resource)
        found = self.store.get(resource, (namespace or "", name))
        await self.store.durable(found.rv if found else self.store.latest(resource))
        if found is None:
            raise not_found(kind.plural, name, kind.group)
        return found

    async def page(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        cont: str = "",
    ) -> Page:
        """Objects that match, in the order of their keys, at most ``limit`` of them when that is not 0.

        Pages are consistent: a token holds the version of the first page, and a later page is what stood then, found
        by undoing the ring's newer events. A token older than the ring raises Expired.
        """
        kind = by_plural(resource)
        match = _matcher(kind, label_selector, field_selector)
        rv, start = _read_token(cont) if cont else (self.store.revision, ("", ""))
        keys = self.store.keys(resource, namespace)
        older = self.store.at(resource, rv) if cont else {}
        if older:
            keys = sorted({*keys, *(key for key in older if namespace is None or key[0] == namespace)})
        found: list[Entry] = []
        place = bisect_right(keys, start)
        while place < len(keys) and not (limit and len(found) == limit):
            key = keys[place]
            entry = older[key] if key in older else self.store.get(resource, key)
            if entry is not None and (match is None or match(entry.obj)):
                found.append(entry)
            place += 1
        left = len(keys) - place
        after = _token(rv, keys[place - 1]) if left else ""
        await self.store.durable(self.store.revision)
        return Page(found, str(rv), after, left if left and match is None else None)

    async def stream(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        bookmarks: bool = False,
        bookmark_seconds: float = 60.0,
        initial_events: bool = False,
    ) -> AsyncIterator[Event]:
        """Events as a watch over HTTP sends them, for ever.

        Without a version, or with ``0``, the objects that exist come first as ADDED. A BOOKMARK comes after each
        ``bookmark_seconds`` of silence when asked for, and with ``initial_events`` once they are through. What an
        object's change means to a selector is worked out: one that stops matching is DELETED.
        """
        kind = by_plural(resource)
        match = _matcher(kind, label_selector, field_selector)
        first: list[Entry] = []
        if resource_version in ("", "0") or initial_events:
            first, position = list(self.store.entries(resource, namespace)), self.store.revision
            await self.store.durable(position)
        else:
            position = _version(resource_version)
        subscription = self.store.subscribe(resource, namespace, position)
        try:
            for entry in first:
                if match is None or match(entry.obj):
                    yield Event("ADDED", entry, None)
            if initial_events and bookmarks:
                yield _bookmark(kind, position, initial=True)
            while (events := await subscription.next(bookmark_seconds if bookmarks else None)) is not None:
                if not events:
                    yield _bookmark(kind, self.store.durable_revision)
                for event in events:
                    seen = _seen(event, match) if event.entry.rv > position else None
                    if seen is not None:
                        yield seen
        finally:
            subscription.end()

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
    ) -> AsyncIterator[WatchEvent]:
        """Changes after ``resource_version``, for ever; raises Expired (410) when that is too old."""
        stream = self.stream(
            resource, namespace, resource_version=resource_version, field_selector=field_selector, bookmarks=True
        )
        async for event in stream:
            yield WatchEvent(event.type, event.entry.obj)

    # Writing. Each of these has a form that returns the stored entry, with the options that HTTP has, and the plain
    # form of the Objects protocol.

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
            body = obj.get("deleteOptions") or {}
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
        if content_type == JSON_PATCH:
            new = json_patch(old, patch)
        elif not isinstance(patch, dict):
            raise bad_request("error decoding patch: the patch must be an object")
        elif content_type == MERGE_PATCH:
            new = merge_patch(old, patch)
        elif content_type == STRATEGIC_PATCH:
            new = strategic_patch(schema.of(kind), old, patch)
        else:
            raise with_empty_details(StatusError(415, "UnsupportedMediaType", "415: Unsupported Media Type"))
        if not isinstance(new, dict) or not isinstance(new.get("metadata", {}), dict):
            raise bad_request("the patched object is no object")
        return new

    return change


def _matcher(kind: Kind, label_selector: str, field_selector: str) -> selectors.FieldMatcher | None:
    labels = selectors.parse_labels(label_selector)
    fields = selectors.parse_fields(field_selector, kind)
    if labels is None:
        return fields
    return lambda obj: labels(obj["metadata"].get("labels") or {}) and (fields is None or fields(obj))


def _seen(event: Event, match: selectors.FieldMatcher | None) -> Event | None:
    """What an event is to a watcher with a selector; None when it does not concern them."""
    if match is None:
        return event
    was = event.before is not None and match(event.before.obj)
    matches = event.type != "DELETED" and match(event.entry.obj)
    if not was and not matches:
        return None
    return event._replace(type="MODIFIED" if was and matches else "ADDED" if matches else "DELETED")


def _bookmark(kind: Kind, rv: int, *, initial: bool = False) -> Event:
    metadata: dict[str, Any] = {"resourceVersion": str(rv), "creationTimestamp": None}
    if initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    obj = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
    return Event("BOOKMARK", Entry(kind, obj, orjson.dumps(obj), rv), None)


def _version(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise bad_request(f'invalid resource version "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


def _token(rv: int, key: Key) -> str:
    start = "/".join(filter(None, key)) + "\0"
    return (
        base64.urlsafe_b64encode(orjson.dumps({"v": "meta.k8s.io/v1", "rv": rv, "start": start})).decode().rstrip("=")
    )


def _read_token(token: str) -> tuple[int, Key]:
    try:
        data = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, _, name = data["start"].removesuffix("\0").rpartition("/")
        return int(data["rv"]), (namespace, name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise bad_request("continue key is not valid: illegal base64 data") from error
