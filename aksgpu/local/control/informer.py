"""Informers: all objects of a resource, kept in memory by one list and one watch.

After a write, the answer is put into the informer at once (:meth:`Informer.note`), so that whoever looks next already
knows it. An answer that the watch has passed is ignored: within one resource, versions arrive in order.

Nothing here knows a kind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from aksgpu.local.objects import Object, Objects
from aksgpu.local.status_error import StatusError

log = logging.getLogger(__name__)

Change = Callable[[Object | None, Object | None], None]
"""Called with an object's old and new state, of one uid; None where there is none. Must not block."""


def object_key(obj: Object) -> str:
    """``namespace/name``, or ``name`` for what belongs to no namespace."""
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def _version(obj: Object) -> int:
    return int(obj["metadata"].get("resourceVersion") or 0)


class Index:
    """Finds an informer's objects by a value that they have, such as their node's name."""

    def __init__(self, value: Callable[[Object], str]) -> None:
        self._value = value
        self._groups: dict[str, dict[str, Object]] = {}

    def __getitem__(self, value: str) -> list[Object]:
        return list(self._groups.get(value, {}).values())

    def change(self, old: Object | None, new: Object | None) -> None:
        """Follow a change of one object."""
        if old and (value := self._value(old)):
            self._groups[value].pop(object_key(old), None)
            if not self._groups[value]:
                del self._groups[value]
        if new and (value := self._value(new)):
            self._groups.setdefault(value, {})[object_key(new)] = new


class Informer:
    """All objects of one resource, as the last watch event left them."""

    def __init__(self, objects: Objects, resource: str) -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        self._objects = objects
        self._items: dict[str, Object] = {}
        self._seen = 0
        self._changes: list[Change] = []

    def get(self, key: str) -> Object | None:
        """The object of a key, or None."""
        return self._items.get(key)

    def __iter__(self) -> Iterator[Object]:
        return iter(list(self._items.values()))

    def on_change(self, change: Change) -> None:
        """Call ``change`` for every object there is, and for each change from now on."""
        self._changes.append(change)
        for obj in self:
            change(None, obj)

    def index(self, value: Callable[[Object], str]) -> Index:
        """An index by a value of the objects; those of value ``""`` are left out."""
        made = Index(value)
        self.on_change(made.change)
        return made

    def note(self, obj: Object) -> None:
        """Remember the answer to a write, unless the watch has already been there."""
        if _version(obj) > self._seen:
            self._set(object_key(obj), obj)

    async def run(self) -> None:
        """List, watch, and list again when the server no longer keeps our position; for ever."""
        failures = 0
        while True:
            try:
                version = await self._list()
                async for event in self._objects.watch(self.resource, resource_version=version):
                    failures = 0
                    self._seen = max(self._seen, _version(event.object))
                    if event.type != "BOOKMARK":
                        self._set(object_key(event.object), None if event.type == "DELETED" else event.object)
            except StatusError as error:
                log.info("watch of %s: %s", self.resource, error)
            except Exception:
                log.exception("watch of %s", self.resource)
            failures += 1
            await asyncio.sleep(min(30.0, 0.02 * 2 ** min(failures, 11)))

    async def _list(self) -> str:
        items, version = await self._objects.list(self.resource)
        found = {object_key(obj): obj for obj in items}
        self._seen = max(self._seen, int(version or 0))
        for key in [key for key in self._items if key not in found]:
            self._set(key, None)
        for key, obj in found.items():
            self._set(key, obj)
        self.synced.set()
        return version

    def _set(self, key: str, new: Object | None) -> None:
        old = self._items.get(key)
        if old is new or (old and new and _version(new) <= _version(old)):
            return
        if old and new and old["metadata"].get("uid") != new["metadata"].get("uid"):
            self._set(key, None)  # another object that bears its name
            old = None
        if new is None:
            del self._items[key]
        else:
            self._items[key] = new
        for change in self._changes:
            try:
                change(old, new)
            except Exception:  # one listener's trouble with one object is not the others'
                log.exception("%s %s", self.resource, key)
