"""The ResourceQuota controller: writes what a namespace uses into the status of its quotas.

Refusing a pod that would exceed a quota is part of admission, and so is computing what a pod uses.
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
"""Seconds for which changes in a namespace are collected before its pods are summed up once."""
_POD_RESOURCES = re.compile(r"(count/)?pods|cpu|memory|ephemeral-storage|limits\..+|requests\.(?!storage$).+")
"""The resources that are summed up over pods. For others, no usage is reported."""


class QuotaController(Controller):
    """Keeps the status of ResourceQuotas up to date."""

    resource = "resourcequotas"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._quotas = self.informer.index(_namespace)
        self._pods = cluster.informer("pods").index(_namespace)
        cluster.informer("pods").on_change(self._used_changed)

    def _used_changed(self, old: Object | None, new: Object | None) -> None:
        pod = new or old
        if pod is None or (old and new and is_finished(old) == is_finished(new)):
            return
        for quota in self._quotas[_namespace(pod)]:
            self.queue.add_after(object_key(quota), _SYNC_DELAY)

    async def sync(self, key: str) -> float | None:
        """Sum up what the namespace of one quota uses."""
        quota = self.informer.get(key)
        if quota is None or quota["metadata"].get("deletionTimestamp"):
            return None
        hard = (quota.get("spec") or {}).get("hard") or {}
        namespace = _namespace(quota)
        usage = quota_usage(self._pods[namespace])
        used: dict[str, str] = {}
        for name, limit in hard.items():
            if _POD_RESOURCES.fullmatch(name):
                used[name] = _format_like(usage[name], str(limit))
        await self.cluster.update_status("resourcequotas", quota, {"hard": dict(hard), "used": used})
        return None


def _format_like(value: Decimal, like: str) -> str:
    """Format an amount with the suffixes that the quota's limit uses."""
    if like.endswith("i") and value and not value % 1024:
        return quantities.canonical(f"{int(value) // 1024}Ki")
    return quantities.canonical(str(value))


def _namespace(obj: Object) -> str:
    return str(obj["metadata"].get("namespace") or "")
