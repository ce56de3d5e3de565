"""Values that the API server computes, in addition to the constant defaults in ``data/rules.yaml``.

The functions in :data:`DEFAULTERS` complete a part of an object whenever a client sends it, like the ``SetDefaults``
functions of Kubernetes. :func:`prepare_create` and :func:`prepare_update` complete a whole object before it is
validated and stored. Values that depend on other objects are set by admission.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from decimal import Decimal

from aksgpu.common import quantities
from aksgpu.local.objects import Object

Defaulter = Callable[[Object], None]

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
_MAX_INT32 = 2**31 - 1
"""The default backoffLimit of a Job with backoffLimitPerIndex."""
_NAME_LABEL = "kubernetes.io/metadata.name"
_GATED = {
    "type": "PodScheduled",
    "status": "False",
    "lastProbeTime": None,
    "lastTransitionTime": None,
    "reason": "SchedulingGated",
    "message": "Scheduling is blocked due to non-empty scheduling gates",
}


def _container(container: Object) -> None:
    if "imagePullPolicy" not in container:
        image = str(container.get("image", ""))
        tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
        latest = "@" not in image and tag in ("", "latest")
        container["imagePullPolicy"] = "Always" if latest else "IfNotPresent"


def _containers(spec: Object) -> list[Object]:
    return [*spec.get("initContainers", ()), *(spec.get("containers") or ())]


def _pod(pod: Object) -> None:
    # Limits are the default for requests, in pods but not in templates.
    for container in _containers(pod["spec"]):
        resources = container["resources"]
        requests = {**resources.get("limits", {}), **resources.get("requests", {})}
        if requests:
            resources["requests"] = requests
    pod["spec"].setdefault("enableServiceLinks", True)


def _daemon_set(daemon_set: Object) -> None:
    daemon_set["metadata"].setdefault("annotations", {}).setdefault(TEMPLATE_GENERATION, "1")


def _job(spec: Object) -> None:
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", _MAX_INT32 if "backoffLimitPerIndex" in spec else 6)
    # With a podFailurePolicy, only pods that have ended may be replaced.
    replacement = "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    spec.setdefault("podReplacementPolicy", replacement)


def _update_strategy(strategy: Object) -> None:
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        strategy["rollingUpdate"] = {"maxUnavailable": 1, "maxSurge": 0} | strategy.get("rollingUpdate", {})


def _volume(volume: Object) -> None:
    if len(volume) == 1 and "name" in volume:
        volume["emptyDir"] = {}


def _namespace(namespace: Object) -> None:
    name = namespace["metadata"].get("name")
    if name:
        namespace["metadata"].setdefault("labels", {}).setdefault(_NAME_LABEL, name)


def _subject(subject: Object) -> None:
    if subject.get("kind") in ("User", "Group"):
        subject.setdefault("apiGroup", "rbac.authorization.k8s.io")


def _secret(secret: Object) -> None:
    strings = secret.pop("stringData", None)
    if strings:
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in strings.items()}
        secret["data"] = secret.get("data", {}) | encoded


def _service(spec: Object) -> None:
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    for port in spec.get("ports", ()):
        port.setdefault("targetPort", port.get("port"))


DEFAULTERS: dict[str, Defaulter] = {
    "Container": _container,
    "DaemonSet": _daemon_set,
    "DaemonSetUpdateStrategy": _update_strategy,
    "EphemeralContainer": _container,
    "JobSpec": _job,
    "Namespace": _namespace,
    "Pod": _pod,
    "Secret": _secret,
    "ServiceSpec": _service,
    "Subject": _subject,
    "Volume": _volume,
}
"""The function that completes a part, by the name of its definition."""


def prepare_create(plural: str, obj: Object) -> None:
    """Complete a new object in place."""
    spec = obj.get("spec", {})
    metadata = obj["metadata"]
    match plural:
        case "jobs" if not spec["manualSelector"] and "selector" not in spec:
            uid = metadata["uid"]
            name = metadata.get("name", "")
            template = spec["template"]["metadata"]
            template["labels"] = {
                **template.get("labels", {}),
                "batch.kubernetes.io/controller-uid": uid,
                "batch.kubernetes.io/job-name": name,
                "controller-uid": uid,
                "job-name": name,
            }
            spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
        case "namespaces":
            _namespace(obj)  # A generated name was not known when the defaults were set.
            spec.setdefault("finalizers", ["kubernetes"])
        case "persistentvolumeclaims":
            spec.setdefault("storageClassName", "default")
        case "pods":
            obj["status"]["qosClass"] = qos_class(spec)
            if "schedulingGates" in spec:
                obj["status"]["conditions"] = [{**_GATED}]
        case "services" if spec["type"] != "ExternalName":
            spec.setdefault("clusterIP", f"10.0.{secrets.randbelow(255)}.{secrets.randbelow(254) + 1}")
            spec.setdefault("clusterIPs", [spec["clusterIP"]])
            spec.setdefault("ipFamilies", ["IPv4"])
            spec.setdefault("ipFamilyPolicy", "SingleStack")


def prepare_update(plural: str, obj: Object, old: Object) -> None:
    """Complete an object that replaces ``old``, in place."""
    match plural:
        case "daemonsets":
            generation = old["metadata"].get("annotations", {}).get(TEMPLATE_GENERATION, "1")
            if obj["spec"]["template"] != old["spec"]["template"] and generation.isdigit():
                generation = str(int(generation) + 1)
            obj["metadata"].setdefault("annotations", {})[TEMPLATE_GENERATION] = generation
        case "namespaces":
            obj["spec"]["finalizers"] = old["spec"].get("finalizers", [])
        case "services":
            for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                if field in old["spec"]:
                    obj["spec"].setdefault(field, old["spec"][field])


def qos_class(spec: Object) -> str:
    """Return BestEffort, Burstable or Guaranteed. Only CPU and memory count."""
    pairs: list[tuple[Decimal, Decimal]] = []
    for container in _containers(spec):
        resources = container["resources"]
        for name in ("cpu", "memory"):
            limit = quantities.parse(resources.get("limits", {}).get(name, 0))
            request = quantities.parse(resources.get("requests", {}).get(name, 0))
            pairs.append((limit, request))
    if all(limit == 0 and request == 0 for limit, request in pairs):
        return "BestEffort"
    if all(limit > 0 and limit == request for limit, request in pairs):
        return "Guaranteed"
    return "Burstable"
