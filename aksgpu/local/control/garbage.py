"""The garbage collector: deletes what belongs to owners that are gone, and ends foreground and orphan deletions.

One worker for all kinds: an object's owner may be of any kind. A key is ``resource:namespace/name``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from aksgpu.local.api.kinds import KINDS, Kind
from aksgpu.local.control.informer import key_of
from aksgpu.local.control.runtime import Cluster, Worker, all_of, suppress_gone
from aksgpu.local.objects import Object
from aksgpu.local.status import StatusError

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


def _owners(obj: Object | None) -> list[dict[str, Any]]:
    return list(obj["metadata"].get("ownerReferences") or ()) if obj else []


def _leaving(obj: Object, finalizer: str) -> bool:
    meta = obj["metadata"]
    return bool(meta.get("deletionTimestamp")) and finalizer in (meta.get("finalizers") or ())


class GarbageCollector(Worker):
    """Follows owner references."""

    def __init__(self, cluster: Cluster, kinds: Iterable[Kind] = KINDS) -> None:
        super().__init__(cluster)
        # Events own nothing and are owned by nobody, and there are many.
        self._kinds = {kind.plural: kind for kind in kinds if "watch" in kind.verbs and kind.plural != "events"}
        self._living: dict[str, str] = {}
        self._dependents: dict[str, set[str]] = {}
        for plural in self._kinds:
            cluster.informer(plural).on_change(partial(self._changed, plural))

    def _changed(self, resource: str, old: Object | None, new: Object | None) -> None:
        key = f"{resource}:{key_of(new or old or {})}"
        gone = old["metadata"]["uid"] if old and (not new or new["metadata"]["uid"] != old["metadata"]["uid"]) else ""
        if gone:
            self._living.pop(gone, None)
            for dependent in self._dependents.get(gone, ()):
                self.queue.add(dependent)
        if new:
            self._living[new["metadata"]["uid"]] = key
        if _owners(old) != _owners(new) or gone:
            self._follow(key, old, new)
        if new and (_leaving(new, FOREGROUND) or _leaving(new, ORPHAN)):
            self.queue.add(key)

    def _follow(self, key: str, old: Object | None, new: Object | None) -> None:
        for owner in _owners(old):
            them = self._dependents.get(owner["uid"], set())
            them.discard(key)
            if not them:
                self._dependents.pop(owner["uid"], None)
            if living := self._living.get(owner["uid"]):
                self.queue.add(living)  # it may have waited for this one to go
        for owner in _owners(new):
            self._dependents.setdefault(owner["uid"], set()).add(key)
        if _owners(new):
            self.queue.add(key)

    def _get(self, key: str) -> Object | None:
        resource, _, name = key.partition(":")
        return self.cluster.informer(resource).get(name)

    async def sync(self, key: str) -> float | None:
        """Delete one object whose owners are gone, or let go of one that waits for what it owns."""
        resource = key.partition(":")[0]
        if (obj := self._get(key)) is None:
            return None
        if _leaving(obj, ORPHAN):
            await self._orphan(resource, obj)
        elif _leaving(obj, FOREGROUND):
            await self._foreground(resource, obj)
        elif not obj["metadata"].get("deletionTimestamp") and _owners(obj):
            await self._collect(resource, obj)
        return None

    async def _orphan(self, resource: str, obj: Object) -> None:
        uid = obj["metadata"]["uid"]
        await all_of(self._disown(key, {uid}) for key in list(self._dependents.get(uid, ())))
        await self.cluster.remove_finalizer(resource, obj, ORPHAN)

    async def _foreground(self, resource: str, obj: Object) -> None:
        uid = obj["metadata"]["uid"]
        blocked = False
        for key in list(self._dependents.get(uid, ())):
            self.queue.add(key)
            owners = _owners(self._get(key))
            blocked |= any(owner["uid"] == uid and owner.get("blockOwnerDeletion") for owner in owners)
        if not blocked:
            await self.cluster.remove_finalizer(resource, obj, FOREGROUND)

    async def _collect(self, resource: str, obj: Object) -> None:
        dangling, waiting = set(), set()
        for owner in _owners(obj):
            state = await self._owner(owner, obj["metadata"].get("namespace"))
            if state is None:
                dangling.add(owner["uid"])
            elif _leaving(state, FOREGROUND):
                waiting.add(owner["uid"])
        if not dangling and not waiting:
            return
        if len(dangling) + len(waiting) < len(_owners(obj)):
            await self._disown(f"{resource}:{key_of(obj)}", dangling | waiting)
            return
        has_own = waiting and self._dependents.get(obj["metadata"]["uid"])
        await self.cluster.delete(resource, obj, propagation_policy="Foreground" if has_own else "Background")

    async def _owner(self, owner: dict[str, Any], namespace: str | None) -> Object | None:
        """The owner, or None when it is gone for certain: what the cache lacks, the server is asked for."""
        if key := self._living.get(owner["uid"]):
            return self._get(key)
        group = owner["apiVersion"].rpartition("/")[0]
        kind = next((each for each in self._kinds.values() if (each.group, each.kind) == (group, owner["kind"])), None)
        if kind is None:
            return {"metadata": {}}  # of a kind that is not served here: leave what it owns alone
        try:
            found = await self.cluster.objects.get(kind.plural, owner["name"], namespace if kind.namespaced else None)
        except StatusError as error:
            if error.code == 404:
                return None
            raise
        return found if found["metadata"]["uid"] == owner["uid"] else None

    async def _disown(self, key: str, uids: set[str]) -> None:
        if (obj := self._get(key)) is None:
            return
        meta = obj["metadata"]
        left = [owner for owner in _owners(obj) if owner["uid"] not in uids]
        patch = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], "ownerReferences": left}
        with suppress_gone():
            await self.cluster.patch(key.partition(":")[0], key_of(obj), {"metadata": patch})
