"""Admission: what a new object may and must contain, given the other objects of the cluster.

It covers existing namespaces, priorities, default tolerations, service accounts and quotas, as the admission plug-ins
of those names do.
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
from aksgpu.local.objects import Object
from aksgpu.local.status_error import StatusError, details, not_found

Amounts = defaultdict[str, Decimal]
"""Amount by resource name."""

PROTECTED_NAMESPACES = ("default", "kube-system", "kube-public")
"""Namespaces that cannot be deleted."""
_LOST_NODE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_DEFAULT_TOLERATION_SECONDS = 300


def forbidden(kind: Kind, name: str, why: str, causes: list[dict[str, str]] | None = None) -> StatusError:
    """403: an admission plug-in refuses the object."""
    about = details(kind.plural, kind.group, name, **({"causes": causes} if causes else {}))
    return StatusError(403, "Forbidden", f'{kind.qualified} "{name}" is forbidden: {why}', about)


def admit_namespace(store: Store, kind: Kind, obj: Object) -> None:
    """Raise unless the namespace of a new object exists and is not being deleted."""
    if not kind.namespaced:
        return
    namespace = obj["metadata"]["namespace"]
    found = store.get("namespaces", ("", namespace))
    if found is None:
        raise not_found("namespaces", namespace)
    if "deletionTimestamp" in found.obj["metadata"]:
        message = f"namespace {namespace} is being terminated"
        cause = {"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        raise forbidden(kind, obj["metadata"].get("name", ""), why, [cause])


def admit_pod(store: Store, kind: Kind, pod: Object) -> None:
    """Add priority, service account and tolerations to a new pod, in place."""
    spec = pod["spec"]
    namespace = pod["metadata"]["namespace"]
    name = pod["metadata"].get("name", "")
    _priority(store, kind, spec, name)
    account = spec.setdefault("serviceAccountName", spec.get("serviceAccount", "default"))
    spec["serviceAccount"] = account
    if account != "default" and store.get("serviceaccounts", (namespace, account)) is None:
        missing = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
        raise forbidden(kind, name, missing)
    spec["tolerations"] = _with_default_tolerations(spec.get("tolerations", ()))


def _with_default_tolerations(tolerations: Iterable[Object]) -> list[Object]:
    """Return the tolerations, and a default one for each lost-node taint that they do not match."""
    result = list(tolerations)
    for key in _LOST_NODE_TAINTS:
        is_covered = any(
            each.get("key", key) == key and each.get("effect", "NoExecute") == "NoExecute" for each in tolerations
        )
        if not is_covered:
            default = {
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": _DEFAULT_TOLERATION_SECONDS,
            }
            result.append(default)
    return result


def _priority(store: Store, kind: Kind, spec: Object, name: str) -> None:
    """Set a pod's priority and preemption policy from its PriorityClass or the default one."""
    priority_class: Object = {"value": 0, "preemptionPolicy": "PreemptLowerPriority"}
    defaults = [each.obj for each in store.entries("priorityclasses") if each.obj.get("globalDefault")]
    if spec.get("priorityClassName"):
        entry = store.get("priorityclasses", ("", spec["priorityClassName"]))
        if entry is None:
            raise forbidden(kind, name, f"no PriorityClass with name {spec['priorityClassName']} was found")
        priority_class = entry.obj
    elif defaults:
        priority_class = max(defaults, key=lambda each: int(each["value"]))
        spec["priorityClassName"] = priority_class["metadata"]["name"]
    value = priority_class["value"]
    given = spec.get("priority", value)
    if given != value:
        why = f"the integer value of priority ({given}) must not be provided in pod spec; priority admission controller"
        raise forbidden(kind, name, f"{why} computed {value} from the given PriorityClass name")
    spec["priority"] = value
    spec.setdefault("preemptionPolicy", priority_class["preemptionPolicy"])


def admit_quota(store: Store, kind: Kind, pod: Object) -> None:
    """Raise Forbidden if a new pod would exceed a ResourceQuota of its namespace.

    The usage is computed from the pods themselves, so it is right even if a quota's status is out of date.
    """
    namespace = pod["metadata"]["namespace"]
    name = pod["metadata"]["name"]
    quotas = list(store.entries("resourcequotas", namespace))
    if not quotas:
        return
    used = _namespace_usage(store, namespace)
    requested = quota_usage([pod])
    for entry in quotas:
        quota = entry.key[1]
        hard = entry.obj["spec"].get("hard", {})
        missing = _missing_quantities(pod["spec"], hard)
        if missing:
            raise forbidden(kind, name, f"failed quota: {quota}: must specify {missing}")
        exceeded = [
            resource
            for resource, limit in sorted(hard.items())
            if requested[resource] and used[resource] + requested[resource] > quantities.parse(limit)
        ]
        if exceeded:
            why = (
                f"requested: {_format_amounts(exceeded, requested)}, used: {_format_amounts(exceeded, used)}, "
                f"limited: {','.join(f'{resource}={hard[resource]}' for resource in exceeded)}"
            )
            raise forbidden(kind, name, f"exceeded quota: {quota}, {why}")


def _format_amounts(resources: list[str], amounts: Amounts) -> str:
    return ",".join(f"{resource}={quantities.canonical(str(amounts[resource]))}" for resource in resources)


def _missing_quantities(spec: Object, hard: Object) -> str:
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


def _namespace_usage(store: Store, namespace: str) -> Amounts:
    """Return what the pods of a namespace use.

    The result is kept in the store and updated with the changes since, so that the cost does not grow with the number
    of pods.
    """
    cache_key = f"quota usage of {namespace}"
    used = Amounts(Decimal)
    try:
        since, used = store.derived[cache_key]
        changed = store.changes_since("pods", since)
    except (KeyError, StatusError):  # Not computed yet, or the changes since are no longer kept.
        used = quota_usage(entry.obj for entry in store.entries("pods", namespace))
        changed = {}
    for key, before in changed.items():
        if key[0] != namespace:
            continue
        after = store.get("pods", key)
        for name, amount in quota_usage([before.obj] if before else []).items():
            used[name] -= amount
        for name, amount in quota_usage([after.obj] if after else []).items():
            used[name] += amount
    store.derived[cache_key] = (store.revision, used)
    return used


def quota_usage(pods: Iterable[Object]) -> Amounts:
    """Return what pods use, by the names of a ResourceQuota. Pods that have ended use nothing."""
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
    """Return what a pod requests or is limited to; ``field`` is ``requests`` or ``limits``.

    A limit is also the request if no request is given. Containers add up. Init containers run one after the other
    before them, so only the largest counts. Init containers with ``restartPolicy: Always`` (sidecars) keep running and
    add to everything that starts later. The pod's overhead is added.
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
    values = dict(resources.get("limits") or {})
    if field == "requests":
        values |= resources.get("requests") or {}
    return {name: quantities.parse(value) for name, value in values.items()}
