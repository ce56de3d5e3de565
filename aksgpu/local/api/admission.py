"""Admission: checks and completes a new object, based on the other objects of the cluster.

It covers namespaces, priorities, default tolerations and service accounts, as the admission plug-ins of those names do.
Quotas are in :mod:`aksgpu.local.api.quota`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from aksgpu.common import quantities
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
    """Return the error for an object that an admission plug-in refuses."""
    extra = {"causes": causes} if causes else {}
    message = f'{kind.qualified} "{name}" is forbidden: {why}'
    return StatusError(403, "Forbidden", message, details(kind.plural, kind.group, name, **extra))


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
    _set_priority(store, kind, spec, name)
    _refuse_unserved(kind, spec, name)
    account = spec.setdefault("serviceAccountName", spec.get("serviceAccount", "default"))
    spec["serviceAccount"] = account
    if account != "default" and store.get("serviceaccounts", (namespace, account)) is None:
        missing = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
        raise forbidden(kind, name, missing)
    spec["tolerations"] = _with_default_tolerations(spec.get("tolerations", ()))


def _refuse_unserved(kind: Kind, spec: Object, name: str) -> None:
    """Raise for fields that refer to objects of kinds that are not served. No such pod could run."""
    runtime = spec.get("runtimeClassName")
    if runtime:
        raise forbidden(kind, name, f'pod rejected: RuntimeClass "{runtime}" not found')
    claims = spec.get("resourceClaims")
    if claims:
        names = ", ".join(str(claim.get("name")) for claim in claims)
        why = f"spec.resourceClaims ({names}): the laptop AKS serves no resource claims. Request nvidia.com/gpu instead"
        raise forbidden(kind, name, why)


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


def _set_priority(store: Store, kind: Kind, spec: Object, name: str) -> None:
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


def pod_resources(spec: Mapping[str, Any], field: str) -> Amounts:
    """Return what a pod requests or is limited to; ``field`` is ``requests`` or ``limits``.

    If a container has a limit and no request, the limit is its request. The containers' amounts are added. Init
    containers run one after another before the containers, so only the largest amount counts. Init containers with
    ``restartPolicy: Always`` (sidecars) keep running, so their amounts are added to everything that starts later. The
    pod's overhead is added at the end.
    """
    total = Amounts(Decimal)
    init_peak = Amounts(Decimal)
    for container in spec.get("initContainers") or ():
        sidecar = container.get("restartPolicy") == "Always"
        for name, amount in _container_resources(container, field).items():
            init_peak[name] = max(init_peak[name], total[name] + amount)
            if sidecar:
                total[name] += amount
    for container in spec.get("containers") or ():
        for name, amount in _container_resources(container, field).items():
            total[name] += amount
    for name, amount in init_peak.items():
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
