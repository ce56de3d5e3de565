"""The garbage collector: deletes what belongs to owners that are gone, and ends foreground and orphan deletions.

One worker for all kinds: an object's owner may be of any kind. A key is ``resource:namespace/name``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from aksgpu.local.control.controller_runtime import Cluster, Controller, run_all
from aksgpu.local.control.informer import object_key
from aksgpu.local.kinds import KINDS
from aksgpu.local.objects import Object
from aksgpu.local.status_error import ignoring

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
# Events own nothing and are owned by nobody, and there are many.
_KINDS = {(kind.group, kind.kind): kind for kind in KINDS if "watch" in kind.verbs and kind.plural != "events"}


def _owners(obj: Object | None) -> list[dict[str, Any]]:
    return list(obj["metadata"].get("ownerReferences") or ()) if obj else []


def _is_deleting_with(obj: Object, finalizer: str) -> bool:
    meta = obj["metadata"]
    return bool(meta.get("deletionTimestamp")) and finalizer in (meta.get("finalizers") or ())


class GarbageCollector(Controller):
    """Follows owner references."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        # By an owner's uid, the keys of what it owns.
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
                self.queue.add(_owner_key(owner, old or {}))  # it may have waited for this one to go
            for owner in _owners(new):
                self._dependents.setdefault(owner["uid"], set()).add(key)
                self.queue.add(key)
        if new and (_is_deleting_with(new, FOREGROUND) or _is_deleting_with(new, ORPHAN)):
            self.queue.add(key)

    def _get(self, key: str) -> Object | None:
        resource, _, name = key.partition(":")
        return self.cluster.informer(resource).get(name) if resource else None

    async def sync(self, key: str) -> float | None:
        """Delete one object whose owners are gone, or let go of one that waits for what it owns."""
        resource = key.partition(":")[0]
        if (obj := self._get(key)) is None:
            return None
        uid = obj["metadata"]["uid"]
        dependents = [each for each in self._dependents.get(uid, ()) if each != key]  # it does not wait for itself
        if _is_deleting_with(obj, ORPHAN):
            await run_all(self._remove_owners(each, {uid}) for each in dependents)
            await self.cluster.remove_finalizer(resource, obj, ORPHAN)
        elif _is_deleting_with(obj, FOREGROUND):
            owners = [owner for each in dependents for owner in _owners(self._get(each)) if owner["uid"] == uid]
            if not any(owner.get("blockOwnerDeletion") for owner in owners):
                await self.cluster.remove_finalizer(resource, obj, FOREGROUND)
            for each in dependents:
                self.queue.add(each)
        elif not obj["metadata"].get("deletionTimestamp"):
            found = {owner["uid"]: await self._get_owner(owner, obj) for owner in _owners(obj)}
            # Those that are gone, or wait for this one to go.
            leaving = {uid for uid, owner in found.items() if owner is None or _is_deleting_with(owner, FOREGROUND)}
            if leaving and len(leaving) < len(found):
                await self._remove_owners(key, leaving)
            elif leaving:
                # Who waits for this one waits for what it owns as well, unless they go round in a circle.
                owned = [one for each in dependents if (one := self._get(each))]
                deep = any(found.values()) and owned and not any(_is_deleting_with(each, FOREGROUND) for each in owned)
                await self.cluster.delete(resource, obj, propagation_policy="Foreground" if deep else "Background")
        return None

    async def _get_owner(self, owner: dict[str, Any], obj: Object) -> Object | None:
        """An owner, if it is there; what the cache lacks, the server is asked for."""
        if not (key := _owner_key(owner, obj)):
            return {"metadata": {}}  # what it owns is left alone
        found = self._get(key)
        if found is None or found["metadata"]["uid"] != owner["uid"]:
            namespace = obj["metadata"].get("namespace") if "/" in key else None
            with ignoring(404):
                found = await self.cluster.objects.get(key.partition(":")[0], owner["name"], namespace)
        return found if found and found["metadata"]["uid"] == owner["uid"] else None

    async def _remove_owners(self, key: str, uids: set[str]) -> None:
        if obj := self._get(key):
            left = [owner for owner in _owners(obj) if owner["uid"] not in uids]
            head = {"resourceVersion": obj["metadata"]["resourceVersion"], "ownerReferences": left}
            with ignoring(404):
                await self.cluster.patch(key.partition(":")[0], obj, {"metadata": head})


def _owner_key(owner: dict[str, Any], obj: Object) -> str:
    """The key of one of an object's owners; empty where it is of a kind that is not served, or cannot be its owner."""
    kind = _KINDS.get((owner["apiVersion"].rpartition("/")[0], owner["kind"]))
    namespace = obj["metadata"].get("namespace")
    if kind is None or (kind.namespaced and not namespace):
        return ""
    return f"{kind.plural}:{namespace + '/' if kind.namespaced else ''}{owner['name']}"
