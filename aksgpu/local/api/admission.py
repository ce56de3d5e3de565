"""Admission: what a new object may and must be, given the other objects of the cluster.

Namespaces that must exist, priorities, default tolerations, service accounts and quotas, as the API server's plug-ins
of those names do it.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from aksgpu.local.api import podspec, quantity
from aksgpu.local.api.kinds import Kind
from aksgpu.local.api.store import Store
from aksgpu.local.status import StatusError, not_found

Object = dict[str, Any]

PROTECTED = ("default", "kube-system", "kube-public")
"""Namespaces that cannot be deleted."""
_COUNTED = ("configmaps", "persistentvolumeclaims", "resourcequotas", "secrets", "services")
"""What a quota may count by its bare name, as well as by ``count/`` and the name."""
_SAID = {name: ("requests", name) for name in ("cpu", "memory")} | {
    f"{field}.{name}": (field, name) for field in ("requests", "limits") for name in ("cpu", "memory")
}
"""What every container must say once a quota limits it: the field and the name in its resources."""
_DELAY_KEYS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def forbidden(kind: Kind, name: str, why: str, causes: list[dict[str, str]] | None = None) -> StatusError:
    """403, as an admission plug-in says it."""
    details: Object = {"name": name} | ({"group": kind.group} if kind.group else {}) | {"kind": kind.plural}
    if causes:
        details["causes"] = causes
    return StatusError(403, "Forbidden", f'{kind.qualified} "{name}" is forbidden: {why}', details)


def admit_namespace(store: Store, kind: Kind, obj: Object) -> None:
    """The namespace of a new object must exist and not be on its way out."""
    if not kind.namespaced:
        return
    namespace = obj["metadata"]["namespace"]
    found = store.get("namespaces", ("", namespace))
    if found is None:
        raise not_found("namespaces", namespace)
    if "deletionTimestamp" in found.obj["metadata"]:
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {namespace} is being terminated",
            "field": "metadata.namespace",
        }
        raise forbidden(kind, obj["metadata"].get("name", ""), why, [cause])


def admit_pod(store: Store, kind: Kind, pod: Object) -> None:
    """Complete a new pod in place: priority, service account, tolerations."""
    spec, name = pod["spec"], pod["metadata"].get("name", "")
    _priority(store, kind, spec, name)
    account = spec.setdefault("serviceAccountName", spec.get("serviceAccount", "default"))
    spec["serviceAccount"] = account
    namespace = pod["metadata"]["namespace"]
    if account != "default" and store.get("serviceaccounts", (namespace, account)) is None:
        missing = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
        raise forbidden(kind, name, missing)
    tolerations = list(spec.get("tolerations") or ())
    for key in _DELAY_KEYS:
        if not any(
            each.get("key", key) == key and each.get("effect", "NoExecute") == "NoExecute" for each in tolerations
        ):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
    spec["tolerations"] = tolerations


def _priority(store: Store, kind: Kind, spec: Object, name: str) -> None:
    wanted = spec.get("priorityClassName")
    if wanted:
        entry = store.get("priorityclasses", ("", wanted))
        if entry is None:
            raise forbidden(kind, name, f"no PriorityClass with name {wanted} was found")
        chosen: Object | None = entry.obj
    else:
        every = (each.obj for each in store.entries("priorityclasses"))
        chosen = max(
            (each for each in every if each.get("globalDefault")), key=lambda each: each["value"], default=None
        )
        if chosen is not None:
            spec["priorityClassName"] = chosen["metadata"]["name"]
    value = chosen["value"] if chosen else 0
    if spec.get("priority", value) != value:
        why = (
            f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; priority admission "
            f"controller computed {value} from the given PriorityClass name"
        )
        raise forbidden(kind, name, why)
    spec["priority"] = value
    spec.setdefault("preemptionPolicy", chosen["preemptionPolicy"] if chosen else "PreemptLowerPriority")


def admit_quota(store: Store, kind: Kind, obj: Object) -> None:
    """Refuse a new object that would take its namespace beyond a ResourceQuota.

    What is used comes from the objects themselves, so that it is right even while a quota's status lags behind.
    """
    namespace = obj["metadata"].get("namespace", "")
    # Events are never counted, so that a full namespace can still say that it is.
    counted = kind.namespaced and kind.plural != "events"
    quotas = list(store.entries("resourcequotas", namespace)) if counted else []
    if not quotas:
        return
    name = obj["metadata"].get("name", "")
    if kind.plural == "pods":
        used, wanted = _used(store, namespace), usage([obj])
    else:
        count = Decimal(sum(1 for _ in store.entries(kind.plural, namespace)))
        called = [f"count/{kind.qualified}", *([kind.plural] if kind.plural in _COUNTED else [])]
        used, wanted = dict.fromkeys(called, count), dict.fromkeys(called, Decimal(1))
    for entry in quotas:
        hard = entry.obj["spec"].get("hard") or {}
        if kind.plural == "pods" and (unsaid := _unsaid(obj["spec"], hard)):
            raise forbidden(kind, name, f"failed quota: {entry.key[1]}: must specify {unsaid}")
        over = [
            each
            for each, limit in sorted(hard.items())
            if wanted.get(each) and used.get(each, Decimal(0)) + wanted[each] > quantity.parse(limit)
        ]
        if over:
            asked, taken, limited = (
                ",".join(f"{each}={value(each)}" for each in over)
                for value in (
                    lambda each: quantity.canonical(str(wanted[each])),
                    lambda each: quantity.canonical(str(used.get(each, 0))),
                    lambda each: hard[each],  # noqa: B023 - consumed within this turn
                )
            )
            why = f"exceeded quota: {entry.key[1]}, requested: {asked}, used: {taken}, limited: {limited}"
            raise forbidden(kind, name, why)


def _unsaid(spec: Object, hard: Object) -> str:
    """Which containers do not say how much they take of what a quota limits: a text, empty when all do."""
    lacking: list[str] = []
    for limited in sorted(_SAID.keys() & hard):
        field, name = _SAID[limited]
        containers = (*spec.get("containers", ()), *spec.get("initContainers", ()))
        silent = {each["name"] for each in containers if name not in (each["resources"].get(field) or {})}
        if silent:
            lacking.append(f"{limited} for: {','.join(sorted(silent))}")
    return "; ".join(lacking)


def _used(store: Store, namespace: str) -> dict[str, Decimal]:
    """What the pods of a namespace take: counted once, then kept up with their changes, so that many cost no more."""
    place, used = f"used in {namespace}", dict[str, Decimal]()
    try:
        since, used = store.derived[place]
        changed = store.at("pods", since)
    except (KeyError, StatusError):  # never counted, or so long ago that the changes are not kept
        used, changed = usage(entry.obj for entry in store.entries("pods", namespace)), {}
    for key, before in changed.items():
        if key[0] == namespace:
            after = store.get("pods", key)
            for sign, entry in ((-1, before), (1, after)):
                for name, amount in usage([entry.obj] if entry else []).items():
                    used[name] = used.get(name, Decimal(0)) + sign * amount
    store.derived[place] = store.revision, used
    return used


def usage(pods: Iterable[Object]) -> dict[str, Decimal]:
    """What pods take, in the names of a ResourceQuota; those that have ended take nothing."""
    total: dict[str, Decimal] = {}

    def add(name: str, amount: Decimal) -> None:
        total[name] = total.get(name, Decimal(0)) + amount

    for pod in pods:
        if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            continue
        add("pods", Decimal(1))
        add("count/pods", Decimal(1))
        for field in ("requests", "limits"):
            for name, amount in pod_resources(pod["spec"], field).items():
                add(f"{field}.{name}", amount)
                if field == "requests" and not podspec.extended(name):
                    add(name, amount)
    return total


def pod_resources(spec: Object, field: str = "requests") -> dict[str, Decimal]:
    """What a pod requests or is limited to: its containers together, or its largest init container, plus overhead."""
    total: dict[str, Decimal] = {}
    for container in spec.get("containers", ()):
        for name, value in (container.get("resources", {}).get(field) or {}).items():
            total[name] = total.get(name, Decimal(0)) + quantity.parse(value)
    for container in spec.get("initContainers", ()):
        for name, value in (container.get("resources", {}).get(field) or {}).items():
            total[name] = max(total.get(name, Decimal(0)), quantity.parse(value))
    for name, value in (spec.get("overhead") or {}).items():
        total[name] = total.get(name, Decimal(0)) + quantity.parse(value)
    return total
