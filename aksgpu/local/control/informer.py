"""Informers: caches that hold all objects of a resource, filled by one list and one watch.

The response to a request is put into the cache at once (:meth:`Informer.update_cache`), so that later reads include it,
and so that its deletion is noticed even if the watch misses its creation. A response that is older than the last watch
event is ignored, because the versions of a resource arrive in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from aksgpu.local.objects import Object, Objects
from aksgpu.local.status_error import StatusError

log = logging.getLogger(__name__)

_FIRST_DELAY = 0.02
"""Half of the first pause before listing again, in seconds. The pause doubles with each failure."""
_MAX_DELAY = 30.0
"""Longest pause before listing again, in seconds."""

Change = Callable[[Object | None, Object | None], None]
"""Callback with the old and new state of an object; None if it did not or does not exist. It must not block."""


def object_key(obj: Object) -> str:
    """Return ``namespace/name``, or ``name`` for a cluster-scoped object."""
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def version_of(obj: Object) -> int:
    """Return the version of an object; a later version is greater."""
    return int(obj["metadata"].get("resourceVersion") or 0)


class Index:
    """Finds an informer's objects by a value computed from them, such as the name of their node."""

    def __init__(self, value: Callable[[Object], str]) -> None:
        self._value = value
        self._groups: dict[str, dict[str, Object]] = {}

    def __getitem__(self, value: str) -> list[Object]:
        return list(self._groups.get(value, {}).values())

    def change(self, old: Object | None, new: Object | None) -> None:
        """Update the index after one object has changed."""
        old_value = self._value(old) if old else ""
        new_value = self._value(new) if new else ""
        if old and old_value:
            self._groups[old_value].pop(object_key(old), None)
            if not self._groups[old_value]:
                del self._groups[old_value]
        if new and new_value:
            self._groups.setdefault(new_value, {})[object_key(new)] = new


class Informer:
    """All objects of one resource, as of the last watch event."""

    def __init__(self, objects: Objects, resource: str) -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        self._objects = objects
        self._items: dict[str, Object] = {}
        self._seen = 0
        self._changes: list[Change] = []

    def get(self, key: str) -> Object | None:
        """Return the object with this key, or None."""
        return self._items.get(key)

    def __iter__(self) -> Iterator[Object]:
        return iter(list(self._items.values()))

    def on_change(self, change: Change) -> None:
        """Call ``change`` for every object that exists, and for every later change."""
        self._changes.append(change)
        for obj in self:
            change(None, obj)

    def index(self, value: Callable[[Object], str]) -> Index:
        """Return an index by a value of the objects. Objects whose value is ``""`` are left out."""
        index = Index(value)
        self.on_change(index.change)
        return index

    def update_cache(self, obj: Object) -> None:
        """Store the response to a request, unless the watch has already delivered a later version."""
        if version_of(obj) > self._seen:
            self._set(object_key(obj), obj)

    async def run(self) -> None:
        """List and watch without end. List again if the server no longer keeps the position of the watch."""
        failures = 0
        while True:
            try:
                version = await self._list()
                async for event in self._objects.watch(self.resource, resource_version=version):
                    failures = 0
                    self._seen = max(self._seen, version_of(event.object))
                    if event.type == "DELETED":
                        self._remove(object_key(event.object), version_of(event.object))
                    elif event.type != "BOOKMARK":
                        self._set(object_key(event.object), event.object)
            except StatusError as error:
                log.info("watch of %s: %s", self.resource, error)
            except Exception:
                log.exception("watch of %s", self.resource)
            failures += 1
            await asyncio.sleep(min(_MAX_DELAY, _FIRST_DELAY * 2 ** min(failures, 11)))

    async def _list(self) -> str:
        items, version = await self._objects.list(self.resource)
        found = {object_key(obj): obj for obj in items}
        self._seen = max(self._seen, int(version or 0))
        for key in [key for key in self._items if key not in found]:
            self._remove(key, int(version or 0))
        for key, obj in found.items():
            self._set(key, obj)
        self.synced.set()
        return version

    def _remove(self, key: str, version: int) -> None:
        """Remove an object that does not exist at a version, unless the response to a write is newer."""
        obj = self._items.get(key)
        if obj is not None and version_of(obj) <= version:
            self._set(key, None)

    def _set(self, key: str, new: Object | None) -> None:
        old = self._items.get(key)
        if old is new or (old and new and version_of(new) <= version_of(old)):
            return
        if old and new and old["metadata"].get("uid") != new["metadata"].get("uid"):
            self._set(key, None)  # The object was deleted and another one was created with its name.
            old = None
        if new is None:
            del self._items[key]
        else:
            self._items[key] = new
        for change in self._changes:
            try:
                change(old, new)
            except Exception:  # An error in one callback must not keep the others from being called.
                log.exception("%s %s", self.resource, key)
