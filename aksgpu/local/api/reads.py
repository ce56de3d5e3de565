"""Reads: objects, consistent pages of lists, and watches, all from memory.

Every read waits until what it returns is on disk, so that a crash cannot undo it.
"""

from __future__ import annotations

import base64
from bisect import bisect_right
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import orjson

from aksgpu.local.api.store import Entry, Event, Key, Store, encode
from aksgpu.local.kinds import Kind, get_kind
from aksgpu.local.selectors import ObjectFilter
from aksgpu.local.status_error import StatusError, bad_request, not_found, version_too_large

_CURRENT = -1
"""The version in a continue token that continues with the current state of the list."""


class Page(NamedTuple):
    """A list, or one page of it."""

    entries: list[Entry]
    resource_version: str
    token: str
    """The continue token for the next page; empty on the last page."""
    remaining: int | None
    """The number of objects after this page; None if it is not known."""


class Reader:
    """Reads objects from a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def entry(self, resource: str, name: str, namespace: str | None = None) -> Entry:
        """Return an object with its JSON; raises NotFound."""
        kind = get_kind(resource)
        found = self.store.get(resource, (namespace or "", name))
        await self.store.durable(found.rv if found else self.store.revision)
        if found is None:
            raise not_found(kind.plural, name, kind.group)
        return found

    async def list_page(
        self,
        resource: str,
        namespace: str | None = None,
        match: ObjectFilter | None = None,
        *,
        limit: int = 0,
        token: str = "",
    ) -> Page:
        """Return the objects that match, in the order of their keys; at most ``limit`` if that is not 0.

        Pages are consistent. A continue token contains the version of the first page, and later pages show the state at
        that version, which is computed by undoing newer events. Raises Expired if the token is older than the events
        that are kept.
        """
        rv, start = _parse_continue_token(token) if token else (_CURRENT, ("", ""))
        keys = self.store.keys(resource, namespace)
        older: dict[Key, Entry | None] = {}
        if rv == _CURRENT:
            rv = self.store.revision
        else:
            older = self._changes_since(resource, rv, start)
        if older:
            keys = sorted({*keys, *(key for key in older if namespace is None or key[0] == namespace)})
        entries: list[Entry] = []
        position = bisect_right(keys, start)
        while position < len(keys) and not (limit and len(entries) == limit):
            key = keys[position]
            entry = older[key] if key in older else self.store.get(resource, key)
            if entry is not None and (match is None or match(entry.obj)):
                entries.append(entry)
            position += 1
        remaining = len(keys) - position
        next_token = continue_token(rv, keys[position - 1]) if remaining else ""
        await self.store.durable(self.store.revision)
        return Page(entries, str(rv), next_token, remaining if remaining and match is None else None)

    def _changes_since(self, resource: str, rv: int, start: Key) -> dict[Key, Entry | None]:
        """Return the changes from the store. An Expired error also tells the client how to continue."""
        try:
            return self.store.changes_since(resource, rv)
        except StatusError as error:
            if start == ("", ""):  # The request is for a list at an exact version, not for a later page.
                error.status |= {"metadata": {}, "message": "The resourceVersion for the provided list is too old."}
            else:
                # As in Kubernetes, the client can continue with the current state of the list.
                error.status["metadata"] = {"continue": continue_token(_CURRENT, start)}
            raise

    async def stream(
        self,
        resource: str,
        namespace: str | None = None,
        match: ObjectFilter | None = None,
        *,
        resource_version: int = 0,
        bookmark_seconds: float = 60.0,
        initial_events: bool = False,
    ) -> AsyncGenerator[list[Event], None]:
        """Yield the events of a watch, without end. Events that arrive together are yielded together.

        Without a version, the existing objects come first, as ADDED. A BOOKMARK follows each ``bookmark_seconds``
        without events and, with ``initial_events``, the existing objects. An object that no longer matches the
        selectors is DELETED, with its last content that matched.
        """
        kind = get_kind(resource)
        position = resource_version
        first: list[Entry] = []
        if initial_events and position > self.store.revision:
            raise version_too_large(position, self.store.revision)
        if not position or initial_events:
            first = list(self.store.entries(resource, namespace))
            position = self.store.revision
            await self.store.durable(position)
        subscription = self.store.subscribe(resource, namespace, position)
        try:
            initial = [Event("ADDED", entry, None) for entry in first if match is None or match(entry.obj)]
            if initial_events:
                initial.append(bookmark_event(kind, position, initial=True))
            if initial:
                yield initial
            while (events := await subscription.next(bookmark_seconds)) is not None:
                if not events:
                    yield [bookmark_event(kind, self.store.durable_revision)]
                    continue
                newer = [event for event in events if event.entry.rv > position]
                matching = newer if match is None else _matching_events(newer, match)
                if matching:
                    yield matching
        finally:
            subscription.end()


def _matching_events(events: list[Event], match: ObjectFilter) -> list[Event]:
    """Return the events for a watch with selectors."""
    filtered = [_filtered_event(event, match) for event in events]
    return [event for event in filtered if event is not None]


def _filtered_event(event: Event, match: ObjectFilter) -> Event | None:
    """Return the event for a watch with selectors, or None if it does not concern the watch."""
    matched = event.before is not None and match(event.before.obj)
    matches = event.type != "DELETED" and match(event.entry.obj)
    if matched and matches:
        return event._replace(type="MODIFIED")
    if matches:
        return event._replace(type="ADDED")
    if not matched:
        return None
    return event if event.type == "DELETED" else _left_event(event)


def _left_event(event: Event) -> Event:
    """Return the event for an object that no longer matches: as it was when it matched, with the new version."""
    assert event.before is not None
    kind = event.entry.kind
    rv = event.entry.rv
    obj = event.before.obj
    last = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(rv)}}
    return Event("DELETED", encode(kind, last, rv), event.before)


def bookmark_event(kind: Kind, rv: int, *, initial: bool = False) -> Event:
    """Return a BOOKMARK event at a version. With ``initial``, it ends the initial events."""
    metadata: dict[str, Any] = {"resourceVersion": str(rv), "creationTimestamp": None}
    if initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    obj = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
    return Event("BOOKMARK", Entry(kind, obj, orjson.dumps(obj), rv), None)


def continue_token(rv: int, key: Key = ("", "")) -> str:
    """Return the token that continues a list at a version after a key, or from its beginning."""
    data = {"v": "meta.k8s.io/v1", "rv": rv, "start": "/".join(filter(None, key)) + "\0"}
    return base64.urlsafe_b64encode(orjson.dumps(data)).decode().rstrip("=")


def _parse_continue_token(token: str) -> tuple[int, Key]:
    try:
        data = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, _, name = data["start"].removesuffix("\0").rpartition("/")
        if type(data["rv"]) is not int or not _CURRENT <= data["rv"] < 2**63:
            raise ValueError(data["rv"])
        return data["rv"], (namespace, name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise bad_request("continue key is not valid: illegal base64 data") from error
