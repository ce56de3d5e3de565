"""Admission: what a new object may and must be, given the other objects of the cluster.

Namespaces that must exist, priorities, default tolerations, service accounts and quotas, as the API server's plug-ins
of those names do it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from aksgpu.common import quantities
from aksgpu.local import name_formats
from aksgpu.local.api.store import Store
from aksgpu.local.kinds import Kind
from aksgpu.local.status_error import StatusError, details, not_found

Object = dict[str, Any]
Amounts = defaultdict[str, Decimal]
"""How much of each resource."""

PROTECTED_NAMESPACES = ("default", "kube-system", "kube-public")
"""Namespaces that cannot be deleted."""
_DELAY_KEYS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def forbidden(kind: Kind, name: str, why: str, causes: list[dict[str, str]] | None = None) -> StatusError:
    """403, as an admission plug-in says it."""
    about = details(kind.plural, kind.group, name, **({"causes": causes} if causes else {}))
    return StatusError(403, "Forbidden", f'{kind.qualified} "{name}" is forbidden: {why}', about)


def admit_namespace(store: Store, kind: Kind, obj: Object) -> None:
    """The namespace of a new object must exist and not be on its way out."""
    if not kind.namespaced:
        return
    namespace = obj["metadata"]["namespace"]
    found = store.get("namespaces", ("", namespace))
    if found is None:
        raise not_found("namespaces", namespace)
    if "deletionTimestamp" in found.obj["metadata"]:
        why = f"namespace {namespace} is being terminated"
        cause = {"reason": "NamespaceTerminating", "message": why, "field": "metadata.namespace"}
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        raise forbidden(kind, obj["metadata"].get("name", ""), why, [cause])


def admit_pod(store: Store, kind: Kind, pod: Object) -> None:
    """Complete a new pod in place: priority, service account, tolerations."""
    spec = pod["spec"]
    namespace = pod["metadata"]["namespace"]
    name = pod["metadata"].get("name", "")
    _priority(store, kind, spec, name)
    account = spec.setdefault("serviceAccountName", spec.get("serviceAccount", "default"))
    spec["serviceAccount"] = account
    if account != "default" and store.get("serviceaccounts", (namespace, account)) is None:
        missing = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
        raise forbidden(kind, name, missing)
    given = spec.get("tolerations", ())
    spec["tolerations"] = [*given] + [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
        for key in _DELAY_KEYS
        if not any(each.get("key", key) == key and each.get("effect", "NoExecute") == "NoExecute" for each in given)
    ]


def _priority(store: Store, kind: Kind, spec: Object, name: str) -> None:
    chosen: Object = {"value": 0, "preemptionPolicy": "PreemptLowerPriority"}
    if wanted := spec.get("priorityClassName"):
        entry = store.get("priorityclasses", ("", wanted))
        if entry is None:
            raise forbidden(kind, name, f"no PriorityClass with name {wanted} was found")
        chosen = entry.obj
    elif default := [each.obj for each in store.entries("priorityclasses") if each.obj.get("globalDefault")]:
        chosen = max(default, key=lambda each: int(each["value"]))
        spec["priorityClassName"] = chosen["metadata"]["name"]
    value = chosen["value"]
    if (given := spec.get("priority", value)) != value:
        why = f"the integer value of priority ({given}) must not be provided in pod spec; priority admission controller"
        raise forbidden(kind, name, f"{why} computed {value} from the given PriorityClass name")
    spec["priority"] = value
    spec.setdefault("preemptionPolicy", chosen["preemptionPolicy"])


def admit_quota(store: Store, kind: Kind, pod: Object) -> None:
    """Refuse a new pod that would take its namespace beyond a ResourceQuota.

    What is used comes from the objects themselves, so that it is right even while a quota's status lags behind.
    """
    namespace = pod["metadata"]["namespace"]
    name = pod["metadata"]["name"]
    quotas = list(store.entries("resourcequotas", namespace))
    if not quotas:
        return
    used = _namespace_usage(store, namespace)
    wanted = quota_usage([pod])
    for entry in quotas:
        asked = []
        taken = []
        limited = []
        hard = entry.obj["spec"].get("hard", {})
        if unsaid := _missing_quantities(pod["spec"], hard):
            raise forbidden(kind, name, f"failed quota: {entry.key[1]}: must specify {unsaid}")
        for each, limit in sorted(hard.items()):
            if wanted[each] and used[each] + wanted[each] > quantities.parse(limit):
                asked.append(f"{each}={quantities.canonical(str(wanted[each]))}")
                taken.append(f"{each}={quantities.canonical(str(used[each]))}")
                limited.append(f"{each}={limit}")
        if asked:
            why = f"requested: {','.join(asked)}, used: {','.join(taken)}, limited: {','.join(limited)}"
            raise forbidden(kind, name, f"exceeded quota: {entry.key[1]}, {why}")


def _missing_quantities(spec: Object, hard: Object) -> str:
    """Which containers do not say how much cpu or memory they take although a quota limits it; empty when all do."""
    lacking = []
    for limited in sorted(hard):
        field, _, name = limited.rpartition(".")
        if name in ("cpu", "memory") and field in ("", "requests", "limits"):
            containers = (*spec["containers"], *spec.get("initContainers", ()))
            silent = {each["name"] for each in containers if name not in each["resources"].get(field or "requests", {})}
            if silent:
                lacking.append(f"{limited} for: {','.join(sorted(silent))}")
    return "; ".join(lacking)


def _namespace_usage(store: Store, namespace: str) -> Amounts:
    """What the pods of a namespace take: counted once, then kept up with their changes, so that many cost no more."""
    place = f"used in {namespace}"
    used = Amounts(Decimal)
    try:
        since, used = store.derived[place]
        changed = store.changes_since("pods", since)
    except (KeyError, StatusError):  # never counted, or so long ago that the changes are not kept
        used = quota_usage(entry.obj for entry in store.entries("pods", namespace))
        changed = {}
    for key, before in changed.items():
        if key[0] == namespace:
            after = store.get("pods", key)
            for sign, entry in ((-1, before), (1, after)):
                for name, amount in quota_usage([entry.obj] if entry else []).items():
                    used[name] += sign * amount
    store.derived[place] = store.revision, used
    return used


def quota_usage(pods: Iterable[Object]) -> Amounts:
    """What pods take, in the names of a ResourceQuota; those that have ended take nothing."""
    total = Amounts(Decimal)
    for pod in pods:
        if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            continue
        total["pods"] += 1
        total["count/pods"] += 1
        for field in ("requests", "limits"):
            for name, amount in pod_resources(pod["spec"], field).items():
                total[f"{field}.{name}"] += amount
                if field == "requests" and not name_formats.is_extended_resource(name):
                    total[name] += amount
    return total


def pod_resources(spec: Mapping[str, Any], field: str) -> Amounts:
    """What a pod requests or is limited to, as ``field`` says; a limit stands for a request that is not given.

    Containers add up; init containers run one after the other before them, so the largest counts; init containers with
    ``restartPolicy: Always`` stay beside all that come later. Overhead comes on top.
    """
    total = Amounts(Decimal)
    start = Amounts(Decimal)
    for container in spec.get("initContainers") or ():
        sidecar = container.get("restartPolicy") == "Always"
        for name, amount in _container_resources(container, field).items():
            start[name] = max(start[name], total[name] + amount)
            total[name] += amount if sidecar else 0
    for container in spec.get("containers") or ():
        for name, amount in _container_resources(container, field).items():
            total[name] += amount
    for name, amount in start.items():
        total[name] = max(total[name], amount)
    for name, value in (spec.get("overhead") or {}).items():
        total[name] += quantities.parse(value)
    return total


def _container_resources(container: Mapping[str, Any], field: str) -> dict[str, Decimal]:
    resources = container.get("resources") or {}
    given = {**(resources.get("limits") or {}), **((resources.get("requests") or {}) if field == "requests" else {})}
    return {name: quantities.parse(value) for name, value in given.items()}
