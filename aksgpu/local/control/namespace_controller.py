"""Namespace deletion: empties a namespace that is being deleted, then lets it go."""

from __future__ import annotations

from collections import Counter
from typing import Any

from aksgpu.common.times import now
from aksgpu.local.control.controller_runtime import Controller, get_condition, run_all
from aksgpu.local.kinds import KINDS
from aksgpu.local.objects import Object
from aksgpu.local.status_error import ignoring

_RETRY_DELAY = 0.2
"""Seconds between two looks at a namespace that is not empty yet: pods take their grace period."""
# Pods last: before, their controllers would only make new ones.
_RESOURCES = sorted(
    ((kind.plural, kind.group) for kind in KINDS if kind.namespaced and {"list", "delete"} <= set(kind.verbs)),
    key=lambda kind: kind[0] == "pods",
)
_DELETED = "All content successfully deleted, may be waiting on finalization"
_CLEAR_CONDITIONS = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    "NamespaceDeletionContentFailure": ("ContentDeleted", _DELETED),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}
"""The conditions of a namespace that goes, with what they say where nothing is in its way."""


class NamespaceController(Controller):
    """Ends namespaces."""

    resource = "namespaces"

    async def sync(self, key: str) -> float | None:
        """Delete everything in one namespace, and the namespace when nothing is left."""
        namespace = self.informer.get(key)
        if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
            return None
        more = False
        counts = Counter[str]()
        holding = Counter[str]()
        for plural, group in _RESOURCES:
            found, _ = await self.cluster.objects.list(plural, key)
            more |= bool(found)
            staying = [obj for obj in found if obj["metadata"].get("deletionTimestamp")]
            counts[f"{plural}.{group}"] = len(staying)
            holding.update(name for obj in staying for name in obj["metadata"].get("finalizers") or ())
            doomed = [obj for obj in found if not obj["metadata"].get("deletionTimestamp")]
            await run_all(self.cluster.delete(plural, obj, propagation_policy="Background") for obj in doomed)
        if +counts:
            status = {**(namespace.get("status") or {}), "conditions": _conditions(namespace, +counts, holding)}
            await self.cluster.update_status("namespaces", namespace, status)
        if more:
            return _RETRY_DELAY
        with ignoring(404):
            empty = {**namespace, "spec": {**(namespace.get("spec") or {}), "finalizers": []}}
            await self.cluster.objects.update("namespaces", empty, subresource="finalize")
        return None


def _conditions(namespace: Object, counts: Counter[str], holding: Counter[str]) -> list[dict[str, Any]]:
    """What keeps a namespace: how many objects of each resource, and how many of them each finalizer."""
    left = ", ".join(f"{name} has {number} resource instances" for name, number in sorted(counts.items()))
    held = ", ".join(f"{name} in {number} resource instances" for name, number in sorted(holding.items()))
    said = {"NamespaceContentRemaining": ("SomeResourcesRemain", f"Some resources are remaining: {left}")}
    if held:
        text = f"Some content in the namespace has finalizers remaining: {held}"
        said["NamespaceFinalizersRemaining"] = "SomeFinalizersRemain", text
    made = []
    for kind, fine in _CLEAR_CONDITIONS.items():
        (reason, message) = said.get(kind, fine)
        status = str(kind in said)
        before = get_condition(namespace, kind)
        since = before["lastTransitionTime"] if before.get("status") == status else now()
        what = {"type": kind, "status": status, "lastTransitionTime": since}
        made.append({**what, "reason": reason, "message": message})
    return made
