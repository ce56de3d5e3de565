"""The garbage collector: deletes what belongs to owners that are gone, and ends foreground and orphan deletions.

One worker for all kinds: an object's owner may be of any kind. A key is ``resource:namespace/name``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from aksgpu.local.api.kinds import KINDS
from aksgpu.local.control.informer import key_of
from aksgpu.local.control.runtime import Cluster, Controller, all_of, ignoring
from aksgpu.local.objects import Object
from aksgpu.local.status import StatusError

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
# Events own nothing and are owned by nobody, and there are many.
_KINDS = {(kind.group, kind.kind): kind for kind in KINDS if "watch" in kind.verbs and kind.plural != "events"}


def _owners(obj: Object | None) -> list[dict[str, Any]]:
    return list(obj["metadata"].get("ownerReferences") or ()) if obj else []


def _leaving(obj: Object, finalizer: str) -> bool:
    meta = obj["metadata"]
    return bool(meta.get("deletionTimestamp")) and finalizer in (meta.get("finalizers") or ())


class GarbageCollector(Controller):
    """Follows owner references."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._living: dict[str, str] = {}
        self._dependents: dict[str, set[str]] = {}
        for kind in _KINDS.values():
            cluster.informer(kind.plural).on_change(partial(self._changed, kind.plural))

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
            self.queue.add(key)

    def _get(self, key: str) -> Object | None:
        resource, _, name = key.partition(":")
        return self.cluster.informer(resource).get(name)

    async def sync(self, key: str) -> float | None:
        """Delete one object whose owners are gone, or let go of one that waits for what it owns."""
        resource = key.partition(":")[0]
        if (obj := self._get(key)) is None:
            return None
        uid = obj["metadata"]["uid"]
        dependents = list(self._dependents.get(uid, ()))
        if _leaving(obj, ORPHAN):
            await all_of(self._disown(each, {uid}) for each in dependents)
            await self.cluster.remove_finalizer(resource, obj, ORPHAN)
        elif _leaving(obj, FOREGROUND):
            blocking = False
            for each in dependents:
                self.queue.add(each)
                owners = _owners(self._get(each))
                blocking |= any(owner["uid"] == uid and owner.get("blockOwnerDeletion") for owner in owners)
            if not blocking:
                await self.cluster.remove_finalizer(resource, obj, FOREGROUND)
        elif not obj["metadata"].get("deletionTimestamp"):
            await self._collect(key, obj)
        return None

    async def _collect(self, key: str, obj: Object) -> None:
        """Delete an object, or cut it off, whose owners are gone or wait for it to go."""
        leaving: set[str] = set()
        policy = "Background"
        for owner in _owners(obj):
            state = await self._owner(owner, obj["metadata"].get("namespace"))
            if state is None or _leaving(state, FOREGROUND):
                leaving.add(owner["uid"])
            if state is not None and _leaving(state, FOREGROUND) and self._dependents.get(obj["metadata"]["uid"]):
                policy = "Foreground"
        if leaving and len(leaving) < len(_owners(obj)):
            await self._disown(key, leaving)
        elif leaving:
            await self.cluster.delete(key.partition(":")[0], obj, propagation_policy=policy)

    async def _owner(self, owner: dict[str, Any], namespace: str | None) -> Object | None:
        """The owner, or None when it is gone for certain: what the cache lacks, the server is asked for."""
        if key := self._living.get(owner["uid"]):
            return self._get(key)
        kind = _KINDS.get((owner["apiVersion"].rpartition("/")[0], owner["kind"]))
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
        if obj := self._get(key):
            left = [owner for owner in _owners(obj) if owner["uid"] not in uids]
            head = {"resourceVersion": obj["metadata"]["resourceVersion"], "ownerReferences": left}
            with ignoring(404):
                await self.cluster.patch(key.partition(":")[0], obj, {"metadata": head})
