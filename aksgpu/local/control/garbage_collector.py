"""The garbage collector: deletes objects whose owners are gone, and completes foreground and orphan deletions.

One controller serves all kinds, because an owner may be of any kind. Its keys are ``resource:namespace/name``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from aksgpu.local.api.deletion import FOREGROUND, ORPHAN
from aksgpu.local.control.controller_runtime import Cluster, Controller, run_all
from aksgpu.local.control.informer import object_key
from aksgpu.local.kinds import KINDS
from aksgpu.local.objects import Object
from aksgpu.local.status_error import ignoring

_KINDS = {(kind.group, kind.kind): kind for kind in KINDS if "watch" in kind.verbs and kind.plural != "events"}
"""Kinds that may have owners or dependents. Events have neither, and there are many of them."""


def _owners(obj: Object | None) -> list[dict[str, Any]]:
    return list(obj["metadata"].get("ownerReferences") or ()) if obj else []


def _is_deleting_with(obj: Object, finalizer: str) -> bool:
    meta = obj["metadata"]
    return bool(meta.get("deletionTimestamp")) and finalizer in (meta.get("finalizers") or ())


class GarbageCollector(Controller):
    """Follows owner references."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        # The keys of an owner's dependents, by the owner's uid.
        self._dependents: dict[str, set[str]] = {}
        for kind in _KINDS.values():
            cluster.informer(kind.plural).on_change(partial(self._changed, kind.plural))

    def _changed(self, resource: str, old: Object | None, new: Object | None) -> None:
        key = f"{resource}:{object_key(new or old or {})}"
        if old and new is None:
            for dependent in self._dependents.get(old["metadata"]["uid"], ()):
                self.queue.add(dependent)
        if _owners(old) != _owners(new):
            for owner in _owners(old):
                self._dependents[owner["uid"]].discard(key)
                if not self._dependents[owner["uid"]]:
                    del self._dependents[owner["uid"]]
                # The owner may be waiting for this object to be deleted.
                self.queue.add(_owner_key(owner, old or {}))
            for owner in _owners(new):
                self._dependents.setdefault(owner["uid"], set()).add(key)
                self.queue.add(key)
        if new and (_is_deleting_with(new, FOREGROUND) or _is_deleting_with(new, ORPHAN)):
            self.queue.add(key)

    def _get(self, key: str) -> Object | None:
        resource, _, name = key.partition(":")
        return self.cluster.informer(resource).get(name) if resource else None

    async def sync(self, key: str) -> float | None:
        """Delete one object if its owners are gone, or complete its deletion if it waits for its dependents."""
        obj = self._get(key)
        if obj is None:
            return None
        resource = key.partition(":")[0]
        if _is_deleting_with(obj, ORPHAN):
            await self._orphan_dependents(key, obj)
            return None
        uid = obj["metadata"]["uid"]
        dependents = self._other_dependents(key, uid)
        if _is_deleting_with(obj, FOREGROUND):
            if not self._is_blocked(uid, dependents):
                await self.cluster.remove_finalizer(resource, obj, FOREGROUND)
            for each in dependents:
                self.queue.add(each)
        elif not obj["metadata"].get("deletionTimestamp"):
            await self._check_owners(key, obj, dependents)
        return None

    def _other_dependents(self, key: str, uid: str) -> list[str]:
        """Return the keys of an object's dependents. An object that owns itself must not wait for itself."""
        return [each for each in self._dependents.get(uid, ()) if each != key]

    async def _orphan_dependents(self, key: str, owner: Object) -> None:
        """Remove the references to an owner, and then its finalizer."""
        # A dependent that the caches lack would keep its reference, and be deleted after its owner.
        for kind in _KINDS.values():
            await self.cluster.read_all(kind.plural, owner["metadata"].get("namespace"))
        uid = owner["metadata"]["uid"]
        await run_all(self._remove_owners(each, {uid}) for each in self._other_dependents(key, uid))
        await self.cluster.remove_finalizer(key.partition(":")[0], owner, ORPHAN)

    def _is_blocked(self, uid: str, dependents: list[str]) -> bool:
        """Return whether a dependent blocks the foreground deletion of its owner."""
        for key in dependents:
            for owner in _owners(self._get(key)):
                if owner["uid"] == uid and owner.get("blockOwnerDeletion"):
                    return True
        return False

    async def _check_owners(self, key: str, obj: Object, dependents: list[str]) -> None:
        """Delete an object that has no owner left, or remove the references to owners that are gone."""
        resource = key.partition(":")[0]
        owners = {owner["uid"]: await self._get_owner(owner, obj) for owner in _owners(obj)}
        # These owners are gone, or wait for this object to be deleted.
        gone = {uid for uid, owner in owners.items() if owner is None or _is_deleting_with(owner, FOREGROUND)}
        if not gone:
            return
        if len(gone) < len(owners):
            await self._remove_owners(key, gone)
            return
        # An owner in foreground deletion also waits for the dependents of its dependents. If one of these is itself in
        # foreground deletion, the references form a cycle.
        owned = [each for each in map(self._get, dependents) if each is not None]
        is_cycle = any(_is_deleting_with(each, FOREGROUND) for each in owned)
        policy = "Foreground" if any(owners.values()) and owned and not is_cycle else "Background"
        await self.cluster.delete(resource, obj, propagation_policy=policy)

    async def _get_owner(self, owner: dict[str, Any], obj: Object) -> Object | None:
        """Return an owner, or None if it does not exist.

        An owner that is not in the cache is read from the server and put into the cache. If the watch misses both its
        creation and its deletion, the next list finds that it is gone, and its dependents are checked again.
        """
        key = _owner_key(owner, obj)
        if not key:
            return {"metadata": {}}  # Of a kind that is not served: its dependents are kept.
        found = self._get(key)
        if found is None or found["metadata"]["uid"] != owner["uid"]:
            resource = key.partition(":")[0]
            namespace = obj["metadata"].get("namespace") if "/" in key else None
            with ignoring(404):
                await self.cluster.read(resource, owner["name"], namespace)
            found = self._get(key)
        return found if found and found["metadata"]["uid"] == owner["uid"] else None

    async def _remove_owners(self, key: str, uids: set[str]) -> None:
        obj = self._get(key)
        if obj is None:
            return
        remaining = [owner for owner in _owners(obj) if owner["uid"] not in uids]
        metadata = {"resourceVersion": obj["metadata"]["resourceVersion"], "ownerReferences": remaining}
        with ignoring(404):
            await self.cluster.patch(key.partition(":")[0], obj, {"metadata": metadata})


def _owner_key(owner: dict[str, Any], obj: Object) -> str:
    """Return the key of an object's owner; empty if its kind is not served or it cannot own the object."""
    kind = _KINDS.get((owner["apiVersion"].rpartition("/")[0], owner["kind"]))
    namespace = obj["metadata"].get("namespace")
    if kind is None or (kind.namespaced and not namespace):
        return ""
    name = f"{namespace}/{owner['name']}" if kind.namespaced else owner["name"]
    return f"{kind.plural}:{name}"
