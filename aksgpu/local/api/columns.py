"""The columns of each kind's table, as data, and the cells that fill them: what kubectl's users see.

A kind without a row here gets name and creation time, as real API servers do for kinds they have no printer for.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from aksgpu.local.api.humanize import human_duration, labels_text, moment, selector_text, since
from aksgpu.local.api.podcells import pod_cells, pod_conditions

Object = dict[str, Any]
Cells = Callable[[Object, datetime], list[Any]]
About = str | tuple[str, str]
"""A column's description: a text, or the definition and field of the published schema whose text it is."""


class Column(NamedTuple):
    """One column; priority 1 is shown with ``-o wide`` only."""

    name: str
    about: About
    type: str = "string"
    priority: int = 0


class Table(NamedTuple):
    """The columns of a kind and the function that fills them."""

    columns: tuple[Column, ...]
    cells: Cells
    conditions: Callable[[Object], list[Object]] | None = None


_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_CORE = "io.k8s.api.core.v1."
_NAME = Column("Name", (_META, "name"))
_AGE = Column("Age", (_META, "creationTimestamp"))
_CREATED = Column("Created At", (_META, "creationTimestamp"))
_TEMPLATE = (
    Column("Containers", "Names of each container in the template.", priority=1),
    Column("Images", "Images referenced by each container in the template.", priority=1),
)
_SUBJECTS = (
    Column("Users", "Users in the roleBinding", priority=1),
    Column("Groups", "Groups in the roleBinding", priority=1),
    Column("ServiceAccounts", "ServiceAccounts in the roleBinding", priority=1),
)


def _name(obj: Object) -> str:
    return str(obj["metadata"].get("name", ""))


def _age(obj: Object, now: datetime) -> str:
    return since(obj["metadata"].get("creationTimestamp"), now)


def _created(obj: Object, now: datetime) -> list[Any]:
    return [_name(obj), obj["metadata"].get("creationTimestamp") or "<unknown>"]


def _template(obj: Object) -> list[str]:
    containers = obj["spec"]["template"]["spec"].get("containers") or []
    return [",".join(c.get(field, "") for c in containers) for field in ("name", "image")]


def _node(obj: Object, now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    ready = [c.get("status") for c in status.get("conditions") or () if c.get("type") == "Ready"]
    state = ("Ready" if ready[0] == "True" else "NotReady") if ready else "Unknown"
    if spec.get("unschedulable"):
        state += ",SchedulingDisabled"
    prefix, roles = "node-role.kubernetes.io/", set[str]()
    for key, value in (obj["metadata"].get("labels") or {}).items():
        if key.startswith(prefix) and len(key) > len(prefix):
            roles.add(key.removeprefix(prefix))
        elif key == "kubernetes.io/role" and value:
            roles.add(value)
    info = status.get("nodeInfo") or {}
    address = {a.get("type"): a.get("address") for a in reversed(status.get("addresses") or [])}
    return [
        _name(obj), state, ",".join(sorted(roles)) or "<none>", _age(obj, now), info.get("kubeletVersion", ""),
        *(address.get(kind) or "<none>" for kind in ("InternalIP", "ExternalIP")),
        *(info.get(field) or "<unknown>" for field in ("osImage", "kernelVersion", "containerRuntimeVersion")),
    ]  # fmt: skip


def _job(obj: Object, now: datetime) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    done, wanted, parallel = status.get("succeeded", 0), spec.get("completions"), spec.get("parallelism") or 0
    if wanted is not None:
        completions = f"{done}/{wanted}"
    else:
        completions = f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"
    duration = ""
    if started := status.get("startTime"):
        ended = status.get("completionTime")
        duration = human_duration(((moment(ended) if ended else now) - moment(started)).total_seconds())
    return [
        _name(obj), _job_status(obj, status), completions, duration, _age(obj, now), *_template(obj),
        selector_text(spec.get("selector")),
    ]  # fmt: skip


def _job_status(obj: Object, status: Object) -> str:
    true = {c["type"] for c in status.get("conditions") or () if c.get("status") == "True"}
    for condition in ("Complete", "Failed"):
        if condition in true:
            return condition
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return next((c for c in ("Suspended", "FailureTarget") if c in true), "Running")


_DAEMON_COUNTS = {
    "Desired": "desiredNumberScheduled",
    "Current": "currentNumberScheduled",
    "Ready": "numberReady",
    "Up-to-date": "updatedNumberScheduled",
    "Available": "numberAvailable",
}

_DAEMON_ABOUT = {
    "Ready": "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running "
    "and ready.",
    "Selector": "A label query over pods that are managed by the daemon set. Must match in order to be controlled. If "
    "empty, defaulted to labels on Pod template. More info: "
    "https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
}
"""Where the printer's texts are older than the schema's."""


def _daemon_set(obj: Object, now: datetime) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    return [
        _name(obj), *(status.get(field, 0) for field in _DAEMON_COUNTS.values()),
        labels_text(spec["template"]["spec"].get("nodeSelector")), _age(obj, now), *_template(obj),
        selector_text(spec.get("selector")),
    ]  # fmt: skip


def _event(obj: Object, now: datetime) -> list[Any]:
    about, series, source = obj.get("involvedObject") or {}, obj.get("series"), obj.get("source") or {}
    first = since(obj.get("firstTimestamp") or obj.get("eventTime"), now)
    last = since(obj["lastTimestamp"], now) if obj.get("lastTimestamp") else first
    count = obj.get("count") or 1
    if series:
        last, count = since(series.get("lastObservedTime"), now), series.get("count", 1)
    target = about.get("kind", "").lower() + (f"/{about['name']}" if about.get("name") else "")
    reporter = (source.get("component"), source.get("host")) if source else (
        obj.get("reportingComponent"), obj.get("reportingInstance"),
    )  # fmt: skip
    return [
        last, obj.get("type", ""), obj.get("reason", ""), target, about.get("fieldPath", ""),
        ", ".join(filter(None, reporter)), (obj.get("message") or "").strip(), first, count, _name(obj),
    ]  # fmt: skip


def _service(obj: Object, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    ports = ",".join(
        f"{p['port']}{':' + str(p['nodePort']) if p.get('nodePort') else ''}/{p.get('protocol', 'TCP')}"
        for p in spec.get("ports") or ()
    )
    kind = spec.get("type", "ClusterIP")
    external = {"ExternalName": spec.get("externalName"), "LoadBalancer": "<pending>"}.get(kind)
    ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    found = ",".join([*(i.get("ip") or i.get("hostname") or "" for i in ingress), *(spec.get("externalIPs") or ())])
    return [
        _name(obj), kind, spec.get("clusterIP") or "<none>", found or external or "<none>", ports or "<none>",
        _age(obj, now), labels_text(spec.get("selector")),
    ]  # fmt: skip


def _quota(obj: Object, now: datetime) -> list[Any]:
    status = obj.get("status") or {}
    hard, used = status.get("hard") or (obj.get("spec") or {}).get("hard") or {}, status.get("used") or {}
    shown: dict[bool, list[str]] = {True: [], False: []}
    for resource in sorted(hard):
        shown[resource.startswith("limits")].append(f"{resource}: {used.get(resource, '0')}/{hard[resource]}")
    return [_name(obj), ", ".join(shown[False]), ", ".join(shown[True]), _age(obj, now)]


_ACCESS_MODES = {
    "ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP",
}  # fmt: skip


def _claim(obj: Object, now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    bound = bool(spec.get("volumeName"))
    modes = [_ACCESS_MODES.get(mode, mode) for mode in status.get("accessModes") or ()] if bound else []
    return [
        _name(obj), "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", ""),
        spec.get("volumeName", ""), (status.get("capacity") or {}).get("storage", "") if bound else "",
        ",".join(modes), spec.get("storageClassName") or "", spec.get("volumeAttributesClassName") or "<unset>",
        _age(obj, now), spec.get("volumeMode") or "<unset>",
    ]  # fmt: skip


def _binding(obj: Object, now: datetime) -> list[Any]:
    role = obj.get("roleRef") or {}
    names: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in obj.get("subjects") or ():
        name = subject.get("name", "")
        if subject.get("kind") == "ServiceAccount":
            name = f"{subject.get('namespace', '')}/{name}"
        names.setdefault(subject.get("kind", ""), []).append(name)
    shown = [", ".join(names[kind]) for kind in ("User", "Group", "ServiceAccount")]
    return [_name(obj), f"{role.get('kind', '')}/{role.get('name', '')}", _age(obj, now), *shown]


def _revision(obj: Object, now: datetime) -> list[Any]:
    owner = next((o for o in obj["metadata"].get("ownerReferences") or () if o.get("controller")), None)
    group = owner["apiVersion"].rpartition("/")[0] if owner else ""
    kind = f"{owner['kind'].lower()}{'.' + group if group else ''}/{owner['name']}" if owner else "<none>"
    return [_name(obj), kind, obj.get("revision", 0), _age(obj, now)]


def _spec(obj: Object, field: str) -> str:
    return (obj.get("spec") or {}).get(field) or ""


def _data(obj: Object) -> int:
    return len(obj.get("data") or ()) + len(obj.get("binaryData") or ())


_BINDING = Table((_NAME, Column("Role", "The role that is bound"), _AGE, *_SUBJECTS), _binding)

DEFAULT = Table((_NAME, _CREATED), _created)

COLUMNS: dict[str, Table] = {
    "configmaps": Table(
        (_NAME, Column("Data", (_CORE + "ConfigMap", "data")), _AGE),
        lambda obj, now: [_name(obj), _data(obj), _age(obj, now)],
    ),
    "controllerrevisions": Table(
        (
            _NAME, Column("Controller", "Controller of the object"),
            Column("Revision", ("io.k8s.api.apps.v1.ControllerRevision", "revision")), _AGE,
        ),
        _revision,
    ),
    "daemonsets": Table(
        (
            _NAME,
            *(
                Column(name, _DAEMON_ABOUT.get(name, ("io.k8s.api.apps.v1.DaemonSetStatus", field)), "integer")
                for name, field in _DAEMON_COUNTS.items()
            ),
            Column("Node Selector", (_CORE + "PodSpec", "nodeSelector")), _AGE, *_TEMPLATE,
            Column("Selector", _DAEMON_ABOUT["Selector"], priority=1),
        ),
        _daemon_set,
    ),
    "events": Table(
        (
            Column("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
            Column("Type", (_CORE + "Event", "type")),
            Column("Reason", (_CORE + "Event", "reason")),
            Column("Object", (_CORE + "Event", "involvedObject")),
            Column("Subobject", (_CORE + "ObjectReference", "fieldPath"), priority=1),
            Column("Source", (_CORE + "Event", "source"), priority=1),
            Column("Message", (_CORE + "Event", "message")),
            Column("First Seen", (_CORE + "Event", "firstTimestamp"), priority=1),
            Column("Count", (_CORE + "Event", "count"), priority=1),
            _NAME._replace(priority=1),
        ),
        _event,
    ),
    "jobs": Table(
        (
            _NAME, Column("Status", "Status of the job."),
            Column("Completions", ("io.k8s.api.batch.v1.JobStatus", "succeeded")),
            Column("Duration", "Time required to complete the job."), _AGE, *_TEMPLATE,
            Column("Selector", ("io.k8s.api.batch.v1.JobSpec", "selector"), priority=1),
        ),
        _job,
    ),
    "leases": Table(
        (_NAME, Column("Holder", ("io.k8s.api.coordination.v1.LeaseSpec", "holderIdentity")), _AGE),
        lambda obj, now: [_name(obj), _spec(obj, "holderIdentity"), _age(obj, now)],
    ),
    "namespaces": Table(
        (_NAME, Column("Status", "The status of the namespace"), _AGE),
        lambda obj, now: [_name(obj), (obj.get("status") or {}).get("phase", ""), _age(obj, now)],
    ),
    "nodes": Table(
        (
            _NAME, Column("Status", "The status of the node"), Column("Roles", "The roles of the node"), _AGE,
            Column("Version", (_CORE + "NodeSystemInfo", "kubeletVersion")),
            Column("Internal-IP", (_CORE + "NodeStatus", "addresses"), priority=1),
            Column("External-IP", (_CORE + "NodeStatus", "addresses"), priority=1),
            Column("OS-Image", (_CORE + "NodeSystemInfo", "osImage"), priority=1),
            Column("Kernel-Version", (_CORE + "NodeSystemInfo", "kernelVersion"), priority=1),
            Column("Container-Runtime", (_CORE + "NodeSystemInfo", "containerRuntimeVersion"), priority=1),
        ),
        _node,
    ),
    "persistentvolumeclaims": Table(
        (
            _NAME, Column("Status", (_CORE + "PersistentVolumeClaimStatus", "phase")),
            Column("Volume", (_CORE + "PersistentVolumeClaimSpec", "volumeName")),
            Column("Capacity", (_CORE + "PersistentVolumeClaimStatus", "capacity")),
            Column("Access Modes", (_CORE + "PersistentVolumeClaimStatus", "accessModes")),
            Column("StorageClass", (_CORE + "PersistentVolumeClaimSpec", "storageClassName")),
            Column("VolumeAttributesClass", (_CORE + "PersistentVolumeClaimSpec", "volumeAttributesClassName")),
            _AGE, Column("VolumeMode", (_CORE + "PersistentVolumeClaimSpec", "volumeMode"), priority=1),
        ),
        _claim,
    ),
    "pods": Table(
        (
            _NAME, Column("Ready", "The aggregate readiness state of this pod for accepting traffic."),
            Column("Status", "The aggregate status of the containers in this pod."),
            Column(
                "Restarts",
                "The number of times the containers in this pod have been restarted and when the last container in "
                "this pod has restarted.",
            ),
            _AGE, Column("IP", (_CORE + "PodStatus", "podIP"), priority=1),
            Column("Node", (_CORE + "PodSpec", "nodeName"), priority=1),
            Column("Nominated Node", (_CORE + "PodStatus", "nominatedNodeName"), priority=1),
            Column("Readiness Gates", (_CORE + "PodSpec", "readinessGates"), priority=1),
        ),
        pod_cells,
        pod_conditions,
    ),
    "priorityclasses": Table(
        (
            _NAME, Column("Value", ("io.k8s.api.scheduling.v1.PriorityClass", "value"), "integer"),
            Column("Global-Default", ("io.k8s.api.scheduling.v1.PriorityClass", "globalDefault"), "boolean"), _AGE,
            Column("PreemptionPolicy", ("io.k8s.api.scheduling.v1.PriorityClass", "preemptionPolicy")),
        ),
        lambda obj, now: [
            _name(obj), obj.get("value", 0), bool(obj.get("globalDefault")), _age(obj, now),
            obj.get("preemptionPolicy") or "",
        ],
    ),
    "resourcequotas": Table(
        (
            _NAME,
            Column("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
            Column(
                "Limit",
                "Limits control the maximum amount of cpu/memory that a container may use independent of contention "
                "on the node.",
            ),
            _AGE,
        ),
        _quota,
    ),
    "rolebindings": _BINDING,
    "clusterrolebindings": _BINDING,
    "secrets": Table(
        (
            _NAME, Column("Type", (_CORE + "Secret", "type")), Column("Data", (_CORE + "Secret", "data")), _AGE,
        ),
        lambda obj, now: [_name(obj), obj.get("type", ""), _data(obj), _age(obj, now)],
    ),
    "serviceaccounts": Table(
        (_NAME, Column("Secrets", (_CORE + "ServiceAccount", "secrets")), _AGE),
        lambda obj, now: [_name(obj), len(obj.get("secrets") or ()), _age(obj, now)],
    ),
    "services": Table(
        (
            _NAME, Column("Type", (_CORE + "ServiceSpec", "type")),
            Column("Cluster-IP", (_CORE + "ServiceSpec", "clusterIP")),
            Column("External-IP", (_CORE + "ServiceSpec", "externalIPs")),
            Column("Port(s)", (_CORE + "ServiceSpec", "ports")), _AGE,
            Column("Selector", (_CORE + "ServiceSpec", "selector"), priority=1),
        ),
        _service,
    ),
}  # fmt: skip
