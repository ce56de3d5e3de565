"""ResourceQuotas: measures what objects use, and refuses an object that would exceed a quota."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from aksgpu.common import quantities
from aksgpu.local import name_formats
from aksgpu.local.api.admission import Amounts, forbidden, pod_resources
from aksgpu.local.api.quota_scopes import has_scopes, matches, requirements
from aksgpu.local.api.store import Store
from aksgpu.local.kinds import Kind
from aksgpu.local.objects import Object
from aksgpu.local.status_error import StatusError

_COUNTED_BY_PLURAL = ("configmaps", "persistentvolumeclaims", "resourcequotas", "secrets", "services")
"""Resources that a quota can also count by their plain name, without ``count/``.

Pods are not among them, because pods that have ended do not count.
"""
_STORAGE_CLASS = "storageclass.storage.k8s.io"

# Usage


def usage(kind: Kind, obj: Object) -> Amounts:
    """Return what one object uses, by the names of a ResourceQuota."""
    total = Amounts(Decimal)
    total[f"count/{kind.qualified}"] = Decimal(1)
    if kind.plural in _COUNTED_BY_PLURAL:
        total[kind.plural] = Decimal(1)
    match kind.plural:
        case "pods" if (obj.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            _add_pod(obj, total)
        case "services":
            _add_service(obj["spec"], total)
        case "persistentvolumeclaims":
            _add_claim(obj["spec"], total)
    return total


def _add_pod(pod: Object, total: Amounts) -> None:
    total["pods"] += 1
    for field in ("requests", "limits"):
        for name, amount in pod_resources(pod["spec"], field).items():
            total[f"{field}.{name}"] += amount
            if field == "requests" and not name_formats.is_extended_resource(name):
                total[name] += amount


def _add_service(spec: Object, total: Amounts) -> None:
    kind = spec.get("type")
    if kind == "LoadBalancer":
        total["services.loadbalancers"] += 1
    if kind in ("LoadBalancer", "NodePort"):
        total["services.nodeports"] += len(spec.get("ports") or ())


def _add_claim(spec: Object, total: Amounts) -> None:
    storage = quantities.parse(((spec.get("resources") or {}).get("requests") or {}).get("storage", 0))
    prefix = f"{spec.get('storageClassName')}.{_STORAGE_CLASS}"
    total["requests.storage"] += storage
    total[f"{prefix}/requests.storage"] += storage
    total[f"{prefix}/persistentvolumeclaims"] += 1


def is_measured(name: str, spec: Object) -> bool:
    """Return whether a quota measures and reports the usage of a resource that it limits."""
    if not has_scopes(spec):
        return True
    return not name.startswith(("count/", "services", "requests.storage")) and name not in _COUNTED_BY_PLURAL


# Admission


def admit(store: Store, kind: Kind, obj: Object) -> None:
    """Raise Forbidden if a new object would exceed a ResourceQuota of its namespace.

    The usage is computed from the objects themselves, so it is right even if a quota's status is out of date.
    """
    if not kind.namespaced:
        return
    namespace = obj["metadata"]["namespace"]
    name = obj["metadata"].get("name", "")
    quotas = list(store.entries("resourcequotas", namespace))
    if not quotas:
        return
    requested = usage(kind, obj)
    for entry in quotas:
        quota = entry.key[1]
        spec = entry.obj["spec"]
        hard = spec.get("hard", {})
        if not matches(spec, kind.plural, obj):
            continue
        missing = _missing_quantities(obj["spec"], hard) if kind.plural == "pods" else ""
        if missing:
            raise forbidden(kind, name, f"failed quota: {quota}: must specify {missing}")
        limited = [resource for resource in sorted(hard) if requested[resource]]
        if not limited:
            continue
        used = _namespace_usage(store, kind, namespace, spec)
        exceeded = [
            resource for resource in limited if used[resource] + requested[resource] > quantities.parse(hard[resource])
        ]
        if exceeded:
            why = (
                f"requested: {_format_amounts(exceeded, requested)}, used: {_format_amounts(exceeded, used)}, "
                f"limited: {','.join(f'{resource}={hard[resource]}' for resource in exceeded)}"
            )
            raise forbidden(kind, name, f"exceeded quota: {quota}, {why}")


def _format_amounts(resources: list[str], amounts: Amounts) -> str:
    return ",".join(f"{resource}={quantities.canonical(str(amounts[resource]))}" for resource in resources)


def _missing_quantities(spec: Object, hard: Mapping[str, Any]) -> str:
    """Return which containers lack a request or limit that a quota requires; empty if none does."""
    containers = (*spec["containers"], *spec.get("initContainers", ()))
    missing: list[str] = []
    for limited in sorted(hard):
        field, _, name = limited.rpartition(".")
        if name not in ("cpu", "memory") or field not in ("", "requests", "limits"):
            continue
        names = {each["name"] for each in containers if name not in each["resources"].get(field or "requests", {})}
        if names:
            missing.append(f"{limited} for: {','.join(sorted(names))}")
    return "; ".join(missing)


def _namespace_usage(store: Store, kind: Kind, namespace: str, spec: Object) -> Amounts:
    """Return the usage in a namespace, added up over the objects of a kind to which a quota applies.

    The result is cached in the store. Later calls only add the changes since then, so the cost does not grow with the
    number of objects.
    """

    def add(obj: Object | None, sign: int) -> None:
        if obj is not None and matches(spec, kind.plural, obj):
            for name, amount in usage(kind, obj).items():
                used[name] += sign * amount

    cache_key = f"quota usage of {kind.plural} in {namespace} {json.dumps(requirements(spec), sort_keys=True)}"
    used = Amounts(Decimal)
    try:
        since, used = store.derived[cache_key]
        changed = store.changes_since(kind.plural, since)
    except (KeyError, StatusError):  # Not computed yet, or the later changes are no longer kept.
        used = Amounts(Decimal)
        changed = {}
        for entry in store.entries(kind.plural, namespace):
            add(entry.obj, 1)
    for key, before in changed.items():
        if key[0] == namespace:
            after = store.get(kind.plural, key)
            add(before.obj if before else None, -1)
            add(after.obj if after else None, 1)
    store.derived[cache_key] = (store.revision, used)
    return used
