"""Namespace deletion: empties a namespace that is being deleted, then lets it go."""

from __future__ import annotations

from collections.abc import Iterable

from aksgpu.local.api.kinds import KINDS, Kind
from aksgpu.local.control.runtime import Cluster, Controller, all_of, suppress_gone
from aksgpu.local.objects import Object

_AGAIN = 0.2
"""Seconds between two looks at a namespace that is not empty yet: pods take their grace period."""


class NamespaceController(Controller):
    """Ends namespaces."""

    resource = "namespaces"

    def __init__(self, cluster: Cluster, kinds: Iterable[Kind] = KINDS) -> None:
        super().__init__(cluster)
        plurals = [kind.plural for kind in kinds if kind.namespaced and {"list", "delete"} <= set(kind.verbs)]
        # Pods last: before, their controllers would only make new ones.
        self._plurals = sorted(plurals, key=lambda plural: (plural == "pods", plural))

    async def sync(self, key: str) -> float | None:
        """Delete everything in one namespace, and the namespace when nothing is left."""
        namespace = self.informer.get(key)
        if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
            return None
        left = 0
        for plural in self._plurals:
            found, _ = await self.cluster.objects.list(plural, key)
            left += len(found)
            doomed = [obj for obj in found if not obj["metadata"].get("deletionTimestamp")]
            await all_of(self._delete(plural, obj) for obj in doomed)
        if left:
            return _AGAIN
        with suppress_gone():
            empty = {**namespace, "spec": {**(namespace.get("spec") or {}), "finalizers": []}}
            await self.cluster.update("namespaces", empty, subresource="finalize")
        return None

    async def _delete(self, plural: str, obj: Object) -> None:
        await self.cluster.delete(plural, obj, propagation_policy="Background")
