"""Namespace deletion: empties a namespace that is being deleted, then lets it go."""

from __future__ import annotations

from aksgpu.local.api.kinds import KINDS
from aksgpu.local.control.runtime import Controller, all_of
from aksgpu.local.status import ignoring

_AGAIN = 0.2
"""Seconds between two looks at a namespace that is not empty yet: pods take their grace period."""
# Pods last: before, their controllers would only make new ones.
_EMPTIED = sorted(
    (kind.plural for kind in KINDS if kind.namespaced and {"list", "delete"} <= set(kind.verbs)),
    key=lambda plural: plural == "pods",
)


class NamespaceController(Controller):
    """Ends namespaces."""

    resource = "namespaces"

    async def sync(self, key: str) -> float | None:
        """Delete everything in one namespace, and the namespace when nothing is left."""
        namespace = self.informer.get(key)
        if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
            return None
        left = 0
        for plural in _EMPTIED:
            found, _ = await self.cluster.objects.list(plural, key)
            left += len(found)
            doomed = [obj for obj in found if not obj["metadata"].get("deletionTimestamp")]
            await all_of(self.cluster.delete(plural, obj, propagation_policy="Background") for obj in doomed)
        if left:
            return _AGAIN
        with ignoring(404):
            empty = {**namespace, "spec": {**(namespace.get("spec") or {}), "finalizers": []}}
            await self.cluster.objects.update("namespaces", empty, subresource="finalize")
        return None
