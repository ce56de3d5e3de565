"""What the API server itself writes into an object of a kind, before it is validated and stored."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from aksgpu.local.api import quantity

Object = dict[str, Any]

_GENERATION = "deprecated.daemonset.template.generation"
_GATED = {
    "type": "PodScheduled",
    "status": "False",
    "lastProbeTime": None,
    "lastTransitionTime": None,
    "reason": "SchedulingGated",
    "message": "Scheduling is blocked due to non-empty scheduling gates",
}


def prepare_create(plural: str, obj: Object) -> None:
    """Complete a new object in place."""
    if plural in _RESET:
        obj["status"] = {**_RESET[plural]}
    if rule := _CREATE.get(plural):
        rule(obj)


def prepare_update(plural: str, obj: Object, old: Object) -> None:
    """Complete an object that replaces ``old`` in place."""
    if rule := _UPDATE.get(plural):
        rule(obj, old)


def _job(job: Object) -> None:
    spec, metadata = job["spec"], job["metadata"]
    if spec["manualSelector"] or "selector" in spec:
        return
    uid, name = metadata["uid"], metadata.get("name", "")
    own = {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    template = spec["template"]["metadata"]
    template["labels"] = {**template.get("labels", {}), **own}
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}


def _daemon_set_update(daemon_set: Object, old: Object) -> None:
    generation = old["metadata"].get("annotations", {}).get(_GENERATION, "1")
    if daemon_set["spec"]["template"] != old["spec"]["template"] and generation.isdigit():
        generation = str(int(generation) + 1)
    daemon_set["metadata"].setdefault("annotations", {})[_GENERATION] = generation


def _pod(pod: Object) -> None:
    pod["status"] = {"phase": "Pending", "qosClass": qos_class(pod["spec"])}
    if pod["spec"].get("schedulingGates"):
        pod["status"]["conditions"] = [{**_GATED}]


def qos_class(spec: Object) -> str:
    """BestEffort, Burstable or Guaranteed; only cpu and memory count."""
    guaranteed, any_set = True, False
    for container in (*spec.get("initContainers", ()), *(spec.get("containers") or ())):
        limits = container["resources"].get("limits") or {}
        requests = container["resources"].get("requests") or {}
        for name in ("cpu", "memory"):
            limit, request = quantity.parse(limits.get(name, 0)), quantity.parse(requests.get(name, 0))
            any_set = any_set or limit > 0 or request > 0
            guaranteed = guaranteed and limit > 0 and limit == request
    return "BestEffort" if not any_set else "Guaranteed" if guaranteed else "Burstable"


def _service(service: Object) -> None:
    spec = service["spec"]
    if spec["type"] == "ExternalName":
        return
    spec.setdefault("clusterIP", f"10.0.{secrets.randbelow(255)}.{secrets.randbelow(254) + 1}")
    spec.setdefault("clusterIPs", [spec["clusterIP"]])
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")


def _service_update(service: Object, old: Object) -> None:
    for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if field in old["spec"]:
            service["spec"].setdefault(field, old["spec"][field])


def _namespace(namespace: Object) -> None:
    # A generated name was not known when defaults were put in.
    labels = namespace["metadata"].setdefault("labels", {})
    labels["kubernetes.io/metadata.name"] = namespace["metadata"].get("name", "")
    namespace["spec"].setdefault("finalizers", ["kubernetes"])


def _claim(claim: Object) -> None:
    claim["spec"].setdefault("storageClassName", "default")


def _namespace_update(namespace: Object, old: Object) -> None:
    namespace["spec"]["finalizers"] = old["spec"].get("finalizers", [])


def _pod_update(pod: Object, old: Object) -> None:
    pod["status"].setdefault("qosClass", old["status"].get("qosClass", "BestEffort"))


_RESET: dict[str, Object] = {
    "daemonsets": {
        "currentNumberScheduled": 0,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 0,
        "numberReady": 0,
    },
    "jobs": {},
    "namespaces": {"phase": "Active"},
    "persistentvolumeclaims": {"phase": "Pending"},
    "resourcequotas": {},
    "services": {"loadBalancer": {}},
}
_CREATE: dict[str, Callable[[Object], None]] = {
    "jobs": _job,
    "namespaces": _namespace,
    "persistentvolumeclaims": _claim,
    "pods": _pod,
    "services": _service,
}
_UPDATE: dict[str, Callable[[Object, Object], None]] = {
    "daemonsets": _daemon_set_update,
    "namespaces": _namespace_update,
    "pods": _pod_update,
    "services": _service_update,
}
