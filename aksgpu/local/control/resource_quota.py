"""What a namespace uses of its ResourceQuotas, written into their status.

Refusing a pod that would go beyond a quota is the API server's part, and so is what a pod costs.
"""

from __future__ import annotations

import re
from decimal import Decimal

from aksgpu.common import quantities
from aksgpu.local.api.admission import quota_usage
from aksgpu.local.control.controller_runtime import Cluster, Controller, is_finished
from aksgpu.local.control.informer import object_key
from aksgpu.local.objects import Object

_SYNC_DELAY = 0.1
"""Seconds that changes in a namespace are collected: its pods are summed up once for all of them."""
_POD_RESOURCES = re.compile(r"(count/)?pods|cpu|memory|ephemeral-storage|limits\..+|requests\.(?!storage$).+")
"""The names in which pods are summed up; of others nobody knows what is used."""


class QuotaController(Controller):
    """Keeps the status of ResourceQuotas."""

    resource = "resourcequotas"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._quotas = self.informer.index(_namespace)
        self._pods = cluster.informer("pods").index(_namespace)
        cluster.informer("pods").on_change(self._used_changed)

    def _used_changed(self, old: Object | None, new: Object | None) -> None:
        some = new or old
        if some and not (old and new and is_finished(old) == is_finished(new)):
            for quota in self._quotas[_namespace(some)]:
                self.queue.add_after(object_key(quota), _SYNC_DELAY)

    async def sync(self, key: str) -> float | None:
        """Sum up what the namespace of one quota uses."""
        quota = self.informer.get(key)
        if quota is None or quota["metadata"].get("deletionTimestamp"):
            return None
        hard = (quota.get("spec") or {}).get("hard") or {}
        namespace = _namespace(quota)
        sums = quota_usage(self._pods[namespace])
        used = {
            name: _format_like(sums[name], str(limit)) for name, limit in hard.items() if _POD_RESOURCES.fullmatch(name)
        }
        await self.cluster.update_status("resourcequotas", quota, {"hard": dict(hard), "used": used})
        return None


def _format_like(value: Decimal, like: str) -> str:
    """An amount, in the suffixes that the quota's limit uses."""
    if like.endswith("i") and value and not value % 1024:
        return quantities.canonical(f"{int(value) // 1024}Ki")
    return quantities.canonical(str(value))


def _namespace(obj: Object) -> str:
    return str(obj["metadata"].get("namespace") or "")
