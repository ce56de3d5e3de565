"""What a namespace uses of its ResourceQuotas, written into their status.

Refusing a pod that would go beyond a quota is the API server's part; :func:`pod_usage` says what a pod costs.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

from aksgpu.local.api import quantity
from aksgpu.local.control.informer import key_of
from aksgpu.local.control.runtime import Cluster, Controller, finished
from aksgpu.local.objects import Object

_COUNTED = ("configmaps", "persistentvolumeclaims", "secrets", "services")
_DELAY = 0.1
"""Seconds that changes in a namespace are collected: its pods are summed up once for all of them."""


def pod_usage(pod: Object) -> dict[str, Decimal]:
    """What a pod takes of a quota, by the quota's names; nothing when it has ended."""
    if finished(pod):
        return {}
    usage: dict[str, Decimal] = {"pods": Decimal(1), "count/pods": Decimal(1)}
    spec = pod["spec"]
    for part in ("requests", "limits"):
        total = _sum(spec.get("containers"), part)
        for container in spec.get("initContainers") or ():
            for name, value in _sum([container], part).items():
                total[name] = max(total.get(name, Decimal(0)), value)
        usage |= {f"{part}.{name}": value for name, value in total.items()}
    for name in ("cpu", "memory", "ephemeral-storage"):
        if f"requests.{name}" in usage:
            usage[name] = usage[f"requests.{name}"]
    return usage


def _sum(containers: list[dict[str, Any]] | None, part: str) -> dict[str, Decimal]:
    total: dict[str, Decimal] = {}
    for container in containers or ():
        resources = container.get("resources") or {}
        given = dict(resources.get(part) or {})
        if part == "requests":  # a limit without a request is a request as well
            given = {**(resources.get("limits") or {}), **given}
        for name, value in given.items():
            total[name] = total.get(name, Decimal(0)) + quantity.parse(value)
    return total


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
        sums: dict[str, Decimal] = {}
        for pod in self._counted["pods"][namespace]:
            for name, value in pod_usage(pod).items():
                sums[name] = sums.get(name, Decimal(0)) + value
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
