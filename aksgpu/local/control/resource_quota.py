"""The ResourceQuota controller: writes what a namespace uses into the status of its quotas.

:mod:`aksgpu.local.api.quota` computes what an object uses, and refuses an object that would exceed a quota.
"""

from __future__ import annotations

from decimal import Decimal
from functools import partial

from aksgpu.common import quantities
from aksgpu.local.api import quota
from aksgpu.local.api.admission import Amounts
from aksgpu.local.api.quota_scopes import matches
from aksgpu.local.control.controller_runtime import Cluster, Controller
from aksgpu.local.control.informer import Index, object_key
from aksgpu.local.kinds import KINDS, Kind
from aksgpu.local.objects import Object

_SYNC_DELAY = 0.1
"""Seconds for which changes in a namespace are collected before its usage is computed."""
_KINDS = [kind for kind in KINDS if kind.namespaced and "watch" in kind.verbs and kind.plural != "events"]
"""The kinds that quotas count."""


class QuotaController(Controller):
    """Keeps the status of ResourceQuotas up to date."""

    resource = "resourcequotas"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._quotas = self.informer.index(_namespace)
        self._objects: dict[str, Index] = {}
        for kind in _KINDS:
            informer = cluster.informer(kind.plural)
            self._objects[kind.plural] = informer.index(_namespace)
            informer.on_change(partial(self._changed, kind))

    def _changed(self, kind: Kind, old: Object | None, new: Object | None) -> None:
        """Queue the quotas in the namespace of an object whose usage or scopes have changed."""
        for each in self._quotas[_namespace(new or old or {})]:
            if _usage(each, kind, old) != _usage(each, kind, new):
                self.queue.add_after(object_key(each), _SYNC_DELAY)

    async def sync(self, key: str) -> float | None:
        """Compute the usage of one quota."""
        found = self.informer.get(key)
        if found is None or found["metadata"].get("deletionTimestamp"):
            return None
        spec = found.get("spec") or {}
        hard = spec.get("hard") or {}
        total = self._total(found)
        used: dict[str, str] = {}
        for name, limit in hard.items():
            if quota.is_measured(name, spec):
                used[name] = _format_like(total[name], str(limit))
        await self.cluster.update_status("resourcequotas", found, {"hard": dict(hard), "used": used})
        return None

    def _total(self, found: Object) -> Amounts:
        total = Amounts(Decimal)
        for kind in _KINDS:
            for obj in self._objects[kind.plural][_namespace(found)]:
                for name, amount in _usage(found, kind, obj).items():
                    total[name] += amount
        return total


def _usage(found: Object, kind: Kind, obj: Object | None) -> Amounts:
    """Return what an object uses of a quota: nothing if it does not exist or the quota does not apply to it."""
    if obj is None or not matches(found.get("spec") or {}, kind.plural, obj):
        return Amounts(Decimal)
    return quota.usage(kind, obj)


def _format_like(value: Decimal, like: str) -> str:
    """Format an amount with the suffixes that the quota's limit uses."""
    if like.endswith("i") and value and not value % 1024:
        return quantities.canonical(f"{int(value) // 1024}Ki")
    return quantities.canonical(str(value))


def _namespace(obj: Object) -> str:
    return str(obj.get("metadata", {}).get("namespace") or "")
