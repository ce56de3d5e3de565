"""The API server's core: every verb on every kind, on dicts.

:class:`Registry` is what the laptop's own parts use in process (it implements
:class:`aksgpu.local.objects.Objects`) and what the HTTP face is a thin translation of. Reads come from memory, writes
go through validation to the store. Not here: HTTP, authentication, tables, discovery.
"""

from __future__ import annotations

import base64
import copy
import secrets
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from aksgpu.local.api import selectors
from aksgpu.local.api.kinds import Kind, by_plural
from aksgpu.local.api.store import Entry, Event, Store
from aksgpu.local.objects import MERGE_PATCH, Object, WatchEvent
from aksgpu.local.status import already_exists, bad_request, conflict, not_found


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """What a client may ask for with a write."""

    manager: str = "aksgpu"
    """The field manager that metadata.managedFields names."""
    field_validation: str = "Strict"
    """``Strict``, ``Warn`` or ``Ignore``: what unknown and repeated fields lead to."""
    dry_run: bool = False
    force: bool = False
    """Apply: take fields over from other managers."""
    warnings: list[str] = field(default_factory=list)
    """Filled by the call: texts for Warning headers."""


class Page(NamedTuple):
    """A list, or a part of one."""

    entries: list[Entry]
    resource_version: str
    cont: str
    """The token for the next page; empty on the last."""
    remaining: int | None
    """Objects after this page, where that is known."""


def now() -> str:
    """The time as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Registry:
    """All objects of one cluster, with the rules of the API."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def open(self) -> None:
        """Open the store and see to the objects that every cluster has."""
        await self.store.open()
        for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            if self.store.get("namespaces", ("", name)) is None:
                await self.create("namespaces", {"metadata": {"name": name}})

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
            keys = sorted({*keys, *(k for k in older if namespace is None or k[0] == namespace)})
        found: list[Entry] = []
        after = ""
        remaining = 0
        for key in keys:
            if key <= start:
                continue
            entry = older[key] if key in older else self.store.get(resource, key)
            if entry is None or (match is not None and not match(entry.obj)):
                continue
            if limit and len(found) == limit:
                remaining += 1
            else:
                found.append(entry)
        if remaining:
            after = _token(rv, found[-1].key)
        await self.store.durable(self.store.revision)
        return Page(found, str(rv), after, remaining if remaining and match is None else None)

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
        kind = by_plural(resource)
        if subresource == "binding":
            return await self._bind(obj, name or "", namespace)
        obj = copy.deepcopy(obj)
        metadata = obj.setdefault("metadata", {})
        if kind.namespaced:
            metadata["namespace"] = namespace or metadata.get("namespace") or "default"
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + secrets.token_hex(4)[:5]
        key = (metadata.get("namespace", ""), metadata["name"])
        if self.store.get(resource, key):
            raise already_exists(kind.plural, key[1], kind.group)
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
        if kind.generation:
            metadata["generation"] = 1
        return await self._stored(self.store.write(kind, obj))

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
        return await self._replace(resource, copy.deepcopy(obj), name, namespace, subresource)

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
        kind = by_plural(resource)
        found = self.store.get(resource, (namespace or "", name))
        if found is None:
            raise not_found(kind.plural, name, kind.group)
        return await self._replace(resource, merge(found.obj, patch), name, namespace, subresource), False

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
        kind = by_plural(resource)
        found = self.store.get(resource, (namespace or "", name))
        if found is None:
            raise not_found(kind.plural, name, kind.group)
        obj = {**found.obj, "metadata": {**found.obj["metadata"]}}
        return await self._stored(self.store.write(kind, obj, delete=True)), True

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
        for entry in page.entries:
            await self.remove(resource, entry.key[1], entry.key[0], delete_options=delete_options, options=options)
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

    async def _replace(
        self, resource: str, obj: Object, name: str, namespace: str | None, subresource: str | None
    ) -> Entry:
        kind = by_plural(resource)
        found = self.store.get(resource, (namespace or "", name))
        if found is None:
            raise not_found(kind.plural, name, kind.group)
        old = found.obj
        given = obj["metadata"].get("resourceVersion")
        if given and given != old["metadata"]["resourceVersion"]:
            why = "the object has been modified; please apply your changes to the latest version and try again"
            raise conflict(kind.plural, name, why, kind.group)
        if subresource == "status":
            obj = {**old, "metadata": {**old["metadata"]}, "status": obj.get("status", {})}
        else:
            if "status" in kind.subresources and "status" in old:
                obj["status"] = old["status"]
            for fixed in ("uid", "creationTimestamp", "generation", "deletionTimestamp"):
                if fixed in old["metadata"]:
                    obj["metadata"][fixed] = old["metadata"][fixed]
            if kind.generation and obj.get("spec") != old.get("spec"):
                obj["metadata"]["generation"] += 1
        return await self._stored(self.store.write(kind, obj))

    async def _bind(self, binding: Object, name: str, namespace: str | None) -> Entry:
        found = await self.entry("pods", name, namespace)
        pod = copy.deepcopy(found.obj)
        pod["spec"]["nodeName"] = binding["target"]["name"]
        return await self._stored(self.store.write(found.kind, pod))


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


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


def _token(rv: int, key: tuple[str, str]) -> str:
    start = "/".join(filter(None, key)) + "\0"
    return (
        base64.urlsafe_b64encode(orjson.dumps({"v": "meta.k8s.io/v1", "rv": rv, "start": start})).decode().rstrip("=")
    )


def _read_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        data = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, _, name = data["start"].removesuffix("\0").rpartition("/")
        return int(data["rv"]), (namespace, name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise bad_request("continue key is not valid: illegal base64 data") from error
