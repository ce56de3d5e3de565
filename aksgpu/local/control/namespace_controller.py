"""The namespace controller: deletes everything in a namespace that is being deleted, then the namespace itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

from aksgpu.common.times import now
from aksgpu.local.control.controller_runtime import Controller, get_condition, run_all
from aksgpu.local.control.node_lifecycle import LEASE_NAMESPACE
from aksgpu.local.kinds import KINDS
from aksgpu.local.objects import Object
from aksgpu.local.status_error import ignoring

_RETRY_DELAY = 0.2
"""Seconds between two syncs of a namespace that is not empty yet. Pods take their grace period to end."""
_RESOURCES = sorted(
    ((kind.plural, kind.group) for kind in KINDS if kind.namespaced and {"list", "delete"} <= set(kind.verbs)),
    key=lambda resource: resource[0] == "pods",
)
"""Plural and group of the resources to delete. Pods come last, because their controllers would replace them."""
_DELETED = "All content successfully deleted, may be waiting on finalization"
_CLEAR_CONDITIONS = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    "NamespaceDeletionContentFailure": ("ContentDeleted", _DELETED),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}
"""Reason and message of a namespace's conditions while nothing prevents its deletion."""


class NamespaceController(Controller):
    """Completes the deletion of namespaces, and creates the one of the nodes' leases again."""

    resource = "namespaces"

    async def sync(self, key: str) -> float | None:
        """Delete everything in one namespace that is being deleted, and the namespace once it is empty."""
        namespace = self.informer.get(key)
        if namespace is None and key == LEASE_NAMESPACE:
            with ignoring(409):
                await self.cluster.objects.create("namespaces", {"metadata": {"name": key}})
        if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
            return None
        is_empty = True
        remaining = Counter[str]()
        finalizers = Counter[str]()
        for plural, group in _RESOURCES:
            objects, _ = await self.cluster.objects.list(plural, key)
            if not objects:
                continue
            is_empty = False
            terminating = [obj for obj in objects if obj["metadata"].get("deletionTimestamp")]
            if terminating:
                remaining[f"{plural}.{group}"] = len(terminating)
            for obj in terminating:
                finalizers.update(obj["metadata"].get("finalizers") or ())
            others = [obj for obj in objects if not obj["metadata"].get("deletionTimestamp")]
            await run_all(self.cluster.delete(plural, obj, propagation_policy="Background") for obj in others)
        if remaining:
            conditions = _conditions(namespace, remaining, finalizers)
            status = {**(namespace.get("status") or {}), "conditions": conditions}
            await self.cluster.update_status("namespaces", namespace, status)
        if not is_empty:
            return _RETRY_DELAY
        with ignoring(404):
            empty = {**namespace, "spec": {**(namespace.get("spec") or {}), "finalizers": []}}
            await self.cluster.objects.update("namespaces", empty, subresource="finalize")
        return None


def _conditions(namespace: Object, remaining: Counter[str], finalizers: Counter[str]) -> list[dict[str, Any]]:
    """Return the conditions of a namespace that still contains objects.

    Args:
        namespace: The namespace.
        remaining: The number of objects that are being deleted, by resource.
        finalizers: The number of objects that have a finalizer, by finalizer.
    """
    resources = ", ".join(f"{name} has {number} resource instances" for name, number in sorted(remaining.items()))
    true = {"NamespaceContentRemaining": ("SomeResourcesRemain", f"Some resources are remaining: {resources}")}
    if finalizers:
        holders = ", ".join(f"{name} in {number} resource instances" for name, number in sorted(finalizers.items()))
        message = f"Some content in the namespace has finalizers remaining: {holders}"
        true["NamespaceFinalizersRemaining"] = ("SomeFinalizersRemain", message)
    conditions: list[dict[str, Any]] = []
    for kind, clear in _CLEAR_CONDITIONS.items():
        reason, message = true.get(kind, clear)
        status = str(kind in true)
        old = get_condition(namespace, kind)
        since = old["lastTransitionTime"] if old.get("status") == status else now()
        conditions.append(
            {"type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message}
        )
    return conditions
