"""What a namespace uses of its ResourceQuotas, written into their status.

Refusing a pod that would go beyond a quota is the API server's part, and so is what a pod costs.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from aksgpu.local.api import quantity
from aksgpu.local.api.admission import usage
from aksgpu.local.control.informer import key_of
from aksgpu.local.control.runtime import Cluster, Controller, finished
from aksgpu.local.objects import Object

_COUNTED = ("configmaps", "persistentvolumeclaims", "secrets", "services")
_DELAY = 0.1
"""Seconds that changes in a namespace are collected: its pods are summed up once for all of them."""


def spell(name: str, value: Decimal, like: str) -> str:
    """An amount, in the suffixes that the quota's limit uses."""
    if like.endswith("i") and value and not value % 1024:
        return quantity.canonical(f"{int(value) // 1024}Ki")
    return quantity.canonical(str(value))


class QuotaController(Controller):
    """Keeps the status of ResourceQuotas."""

    resource = "resourcequotas"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._quotas = self.informer.index("namespace", _namespace)
        self._counted = {
            plural: cluster.informer(plural).index("namespace", _namespace) for plural in ("pods", "jobs", *_COUNTED)
        }
        for plural in self._counted:
            cluster.informer(plural).on_change(self._used_changed)

    def _used_changed(self, old: Object | None, new: Object | None) -> None:
        if old and new and finished(old) == finished(new):
            return
        if some := new or old:
            for quota in self._quotas[_namespace(some)]:
                self.queue.add_after(key_of(quota), _DELAY)

    async def sync(self, key: str) -> float | None:
        """Sum up what the namespace of one quota uses."""
        quota = self.informer.get(key)
        if quota is None or quota["metadata"].get("deletionTimestamp"):
            return None
        hard, namespace = (quota.get("spec") or {}).get("hard") or {}, _namespace(quota)
        used: Counter[str] = Counter()
        sums = usage(self._counted["pods"][namespace])
        for plural in _COUNTED:
            used[plural] = used[f"count/{plural}"] = len(self._counted[plural][namespace])
        used["count/jobs.batch"] = len(self._counted["jobs"][namespace])
        used["resourcequotas"] = len(self._quotas[namespace])
        spelled = {name: spell(name, sums.get(name, Decimal(used[name])), str(hard[name])) for name in hard}
        status = {"hard": dict(hard), "used": spelled}
        if status != quota.get("status"):
            await self.cluster.update("resourcequotas", {**quota, "status": status}, subresource="status")
        return None


def _namespace(obj: Object) -> str:
    return str(obj["metadata"].get("namespace") or "")
