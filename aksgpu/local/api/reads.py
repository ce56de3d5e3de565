"""The read path: objects, consistent pages of lists, and watches, all from memory.

Nothing is returned that a crash could take back: each read waits until what it saw is on disk.
"""

from __future__ import annotations

import base64
from bisect import bisect_right
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import orjson

from aksgpu.local.api.store import Entry, Event, Key, Store
from aksgpu.local.kinds import Kind, get_kind
from aksgpu.local.selectors import ObjectFilter
from aksgpu.local.status_error import StatusError, bad_request, not_found

_CURRENT = -1
"""In a continue token: the rest of the list as it is by now, not as it was."""


class Page(NamedTuple):
    """A list, or a part of one."""

    entries: list[Entry]
    resource_version: str
    cont: str
    """The token for the next page; empty on the last."""
    remaining: int | None
    """Objects after this page, where that is known."""


class Reader:
    """Reads a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def entry(self, resource: str, name: str, namespace: str | None = None) -> Entry:
        """The object with its JSON; raises NotFound."""
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
        cont: str = "",
    ) -> Page:
        """Objects that match, in the order of their keys, at most ``limit`` of them when that is not 0.

        Pages are consistent: a token holds the version of the first page, and a later page is what stood then, found
        by undoing the ring's newer events. A token older than the ring raises Expired.
        """
        rv, start = _parse_continue_token(cont) if cont else (_CURRENT, ("", ""))
        keys = self.store.keys(resource, namespace)
        older: dict[Key, Entry | None] = {}
        try:
            if rv == _CURRENT:
                rv = self.store.revision
            else:
                older = self.store.changes_since(resource, rv)
        except StatusError as error:
            # The way on that the API offers: the rest of the list as it is now.
            error.status["metadata"] = {"continue": continue_token(_CURRENT, start)}
            if start == ("", ""):  # a list at an exact version, and no later page
                error.status |= {"metadata": {}, "message": "The resourceVersion for the provided list is too old."}
            raise
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
        after = continue_token(rv, keys[place - 1]) if left else ""
        await self.store.durable(self.store.revision)
        return Page(found, str(rv), after, left if left and match is None else None)

    async def stream(
        self,
        resource: str,
        namespace: str | None = None,
        match: ObjectFilter | None = None,
        *,
        resource_version: int = 0,
        bookmark_seconds: float = 60.0,
        initial_events: bool = False,
    ) -> AsyncGenerator[Event, None]:
        """Events as a watch over HTTP sends them, for ever.

        Without a version, the objects that exist come first as ADDED. A BOOKMARK comes after each
        ``bookmark_seconds`` of silence, and with ``initial_events`` once they are through. What an object's change
        means to a selector is worked out: one that stops matching is DELETED.
        """
        kind = get_kind(resource)
        position = resource_version
        first: list[Entry] = []
        if not position or initial_events:
            first = list(self.store.entries(resource, namespace))
            position = self.store.revision
            await self.store.durable(position)
        subscription = self.store.subscribe(resource, namespace, position)
        try:
            for entry in first:
                if match is None or match(entry.obj):
                    yield Event("ADDED", entry, None)
            if initial_events:
                yield bookmark_event(kind, position, initial=True)
            while (events := await subscription.next(bookmark_seconds)) is not None:
                if not events:
                    yield bookmark_event(kind, self.store.durable_revision)
                for event in events:
                    seen = _filtered_event(event, match) if event.entry.rv > position else None
                    if seen is not None:
                        yield seen
        finally:
            subscription.end()


def _filtered_event(event: Event, match: ObjectFilter | None) -> Event | None:
    """What an event is to a watcher with a selector; None when it does not concern them."""
    if match is None:
        return event
    was = event.before is not None and match(event.before.obj)
    matches = event.type != "DELETED" and match(event.entry.obj)
    if not was and not matches:
        return None
    return event._replace(type="MODIFIED" if was and matches else "ADDED" if matches else "DELETED")


def bookmark_event(kind: Kind, rv: int, *, initial: bool = False) -> Event:
    """An event that says how far a watch has come, and perhaps that its ``initial`` events are through."""
    metadata: dict[str, Any] = {"resourceVersion": str(rv), "creationTimestamp": None}
    if initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    obj = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
    return Event("BOOKMARK", Entry(kind, obj, orjson.dumps(obj), rv), None)


def continue_token(rv: int, key: Key = ("", "")) -> str:
    """What continues a list as it was at a version, behind a key; from its beginning where none is given."""
    data = {"v": "meta.k8s.io/v1", "rv": rv, "start": "/".join(filter(None, key)) + "\0"}
    return base64.urlsafe_b64encode(orjson.dumps(data)).decode().rstrip("=")


def _parse_continue_token(continue_token: str) -> tuple[int, Key]:
    try:
        data = orjson.loads(base64.urlsafe_b64decode(continue_token + "=" * (-len(continue_token) % 4)))
        namespace, _, name = data["start"].removesuffix("\0").rpartition("/")
        if type(data["rv"]) is not int or not _CURRENT <= data["rv"] < 2**63:
            raise ValueError(data["rv"])
        return data["rv"], (namespace, name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise bad_request("continue key is not valid: illegal base64 data") from error
