"""What Go's types know beyond the published schemas: defaults, and how empty fields are written.

A row names a definition (the last part of its name). ``zero`` are fields that are always written, ``pointers``
optional strings, lists or maps that are kept when empty, ``omit_zero`` numbers and booleans that are left out when 0
or false, ``defaults`` constants, ``hook`` what takes a little thought. The rules are those of the API machinery's
``SetDefaults`` functions and of the types' JSON tags; the recordings in the tests' data show them at work.

Not here: what depends on other objects or on the request, which is admission's business.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Hook = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Rules:
    """One row."""

    zero: tuple[str, ...] = ()
    pointers: tuple[str, ...] = ()
    omit_zero: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    hook: Hook | None = None


NO_RULES = Rules()
_RBAC = "rbac.authorization.k8s.io"
_MODE = {"defaultMode": 0o644}


def _container(container: dict[str, Any]) -> None:
    if "imagePullPolicy" not in container:
        image = str(container.get("image", ""))
        tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
        latest = "@" not in image and tag in ("", "latest")
        container["imagePullPolicy"] = "Always" if latest else "IfNotPresent"


def _pod_requests(spec: dict[str, Any]) -> None:
    """A pod's containers request what they limit, where they do not say otherwise; a Job's template keeps as it is."""
    for container in (*spec.get("initContainers", ()), *(spec.get("containers") or ())):
        resources = container["resources"]
        requests = {**resources.get("limits", {}), **resources.get("requests", {})}
        if requests != resources.get("requests", {}):
            resources["requests"] = requests


def _pod(pod: dict[str, Any]) -> None:
    spec = pod["spec"]
    _pod_requests(spec)
    spec.setdefault("enableServiceLinks", True)


def _daemon_set(daemon_set: dict[str, Any]) -> None:
    annotations = daemon_set["metadata"].setdefault("annotations", {})
    annotations.setdefault("deprecated.daemonset.template.generation", "1")


def _job(spec: dict[str, Any]) -> None:
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    # With a podFailurePolicy only pods that have failed for good may be replaced.
    replacement = "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    spec.setdefault("podReplacementPolicy", replacement)


def _rolling(strategy: dict[str, Any]) -> None:
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)


def _volume(volume: dict[str, Any]) -> None:
    if len(volume) == 1 and "name" in volume:
        volume["emptyDir"] = {}


def _namespace(namespace: dict[str, Any]) -> None:
    if name := namespace["metadata"].get("name"):
        namespace["metadata"].setdefault("labels", {}).setdefault("kubernetes.io/metadata.name", name)


def _subject(subject: dict[str, Any]) -> None:
    if subject.get("kind") in ("User", "Group"):
        subject.setdefault("apiGroup", _RBAC)


def _role_ref(ref: dict[str, Any]) -> None:
    ref["apiGroup"] = ref.get("apiGroup") or _RBAC


def _secret(secret: dict[str, Any]) -> None:
    if strings := secret.pop("stringData", None):
        data = secret.setdefault("data", {})
        for key, text in strings.items():
            data[key] = base64.b64encode(text.encode()).decode()


def _service(spec: dict[str, Any]) -> None:
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    for port in spec.get("ports", ()):
        port.setdefault("targetPort", port.get("port"))


_TIMES = ("lastProbeTime", "lastTransitionTime")
_TOP = ("metadata", "spec", "status")
_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_LOG = {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}
_POD = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "securityContext": {},
    "schedulerName": "default-scheduler",
}
_NODE_INFO = (
    "machineID systemUUID bootID kernelVersion osImage containerRuntimeVersion kubeletVersion kubeProxyVersion "
    "operatingSystem architecture"
)
_EVENT = "metadata involvedObject source firstTimestamp lastTimestamp eventTime reportingComponent reportingInstance"
_CONTAINER_STATUS = ("name", "state", "lastState", "ready", "restartCount", "image", "imageID")
_COUNTS = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")


def _omit(*names: str) -> frozenset[str]:
    return frozenset(names)


_CONTAINER = Rules(("name", "resources"), (), _omit("stdin", "stdinOnce", "tty"), _LOG, _container)

# fmt: off
RULES: dict[str, Rules] = {
    # Whole objects.
    "ObjectMeta": Rules(("creationTimestamp",), omit_zero=_omit("generation")),
    "ConfigMap": Rules(("metadata",)),
    "ControllerRevision": Rules(("metadata", "revision")),
    "ClusterRole": Rules(("metadata", "rules")),
    "ClusterRoleBinding": Rules(("metadata", "roleRef")),
    "DaemonSet": Rules(_TOP, hook=_daemon_set),
    "Event": Rules(tuple(_EVENT.split()), omit_zero=_omit("count")),
    "Job": Rules(_TOP),
    "Lease": Rules(("metadata", "spec")),
    "Namespace": Rules(_TOP, hook=_namespace),
    "Node": Rules(_TOP),
    "PersistentVolumeClaim": Rules(_TOP),
    "Pod": Rules(_TOP, hook=_pod),
    "PriorityClass": Rules(("metadata", "value"), omit_zero=_omit("globalDefault"),
                           defaults={"preemptionPolicy": "PreemptLowerPriority"}),
    "ResourceQuota": Rules(_TOP),
    "Role": Rules(("metadata", "rules")),
    "RoleBinding": Rules(("metadata", "roleRef")),
    "Secret": Rules(("metadata",), defaults={"type": "Opaque"}, hook=_secret),
    "SelfSubjectAccessReview": Rules(_TOP),
    "Service": Rules(_TOP),
    "ServiceAccount": Rules(("metadata",)),
    # Pods and what they are made of.
    "PodTemplateSpec": Rules(("metadata", "spec")),
    "PodSpec": Rules(("containers",), omit_zero=_omit("hostNetwork", "hostPID", "hostIPC"), defaults=_POD),
    "Container": _CONTAINER,
    "EphemeralContainer": _CONTAINER,
    "ContainerPort": Rules(omit_zero=_omit("hostPort"), defaults={"protocol": "TCP"}),
    "ObjectFieldSelector": Rules(defaults={"apiVersion": "v1"}),
    "HTTPGetAction": Rules(defaults={"path": "/", "scheme": "HTTP"}),
    "Probe": Rules(omit_zero=_omit("initialDelaySeconds"), defaults=_PROBE),
    "VolumeMount": Rules(omit_zero=_omit("readOnly")),
    "PersistentVolumeClaimVolumeSource": Rules(omit_zero=_omit("readOnly")),
    "Volume": Rules(hook=_volume),
    "ConfigMapVolumeSource": Rules(defaults=_MODE),
    "SecretVolumeSource": Rules(defaults=_MODE),
    "DownwardAPIVolumeSource": Rules(defaults=_MODE),
    "ProjectedVolumeSource": Rules(defaults=_MODE),
    "HostPathVolumeSource": Rules(pointers=("type",), defaults={"type": ""}),
    "ServiceAccountTokenProjection": Rules(defaults={"expirationSeconds": 3600}),
    "PodStatus": Rules(defaults={"phase": "Pending"}),
    "PodCondition": Rules(_TIMES),
    "ContainerStatus": Rules(_CONTAINER_STATUS),
    "ContainerStateRunning": Rules(("startedAt",)),
    "ContainerStateTerminated": Rules(("exitCode", "startedAt", "finishedAt"), omit_zero=_omit("signal")),
    # Controllers.
    "JobSpec": Rules(("template",), hook=_job,
                     defaults={"completionMode": "NonIndexed", "suspend": False, "manualSelector": False}),
    "JobStatus": Rules(omit_zero=_omit("active", "succeeded", "failed")),
    "JobCondition": Rules(_TIMES),
    "PodFailurePolicyOnPodConditionsPattern": Rules(defaults={"status": "True"}),
    "DaemonSetSpec": Rules(("template", "updateStrategy"), omit_zero=_omit("minReadySeconds"),
                           defaults={"revisionHistoryLimit": 10}),
    "DaemonSetUpdateStrategy": Rules(hook=_rolling),
    "DaemonSetStatus": Rules(_COUNTS, omit_zero=_omit("observedGeneration", "updatedNumberScheduled",
                                                      "numberAvailable", "numberUnavailable")),
    "DaemonSetCondition": Rules(("lastTransitionTime",)),
    # The rest.
    "NodeSpec": Rules(omit_zero=_omit("unschedulable")),
    "NodeStatus": Rules(("daemonEndpoints", "nodeInfo")),
    "NodeDaemonEndpoints": Rules(("kubeletEndpoint",)),
    "DaemonEndpoint": Rules(("Port",)),
    "NodeSystemInfo": Rules(tuple(_NODE_INFO.split())),
    "NodeCondition": Rules(("lastHeartbeatTime", "lastTransitionTime")),
    "PersistentVolumeClaimSpec": Rules(("resources",), ("storageClassName",), defaults={"volumeMode": "Filesystem"}),
    "PersistentVolumeClaimStatus": Rules(defaults={"phase": "Pending"}),
    "PolicyRule": Rules(("verbs",)),
    "RoleRef": Rules(("apiGroup", "kind", "name"), hook=_role_ref),
    "Subject": Rules(hook=_subject),
    "ServiceSpec": Rules(defaults={"type": "ClusterIP", "sessionAffinity": "None"}, hook=_service),
    "ServiceStatus": Rules(("loadBalancer",)),
    "ServicePort": Rules(omit_zero=_omit("nodePort"), defaults={"protocol": "TCP"}),
    "SubjectAccessReviewStatus": Rules(("allowed",)),
}
# fmt: on
