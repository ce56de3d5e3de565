"""Why is it pending, why did it fail: one verdict, the evidence, and the call that fixes it.

    diagnose.job(aks, "samples-tf-mnist-demo")
    job.why()

Joins what no single object says: the pod's state, its events, the nodes with their taints and GPUs, who holds those
GPUs, and the end of the log. It reads and changes nothing; where a right is missing, it says less.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

from aksgpu._frames import frame
from aksgpu._kube import pods as _pods
from aksgpu._kube.gpu_failures import of_event, of_log
from aksgpu._kube.nodes import GPU, Node, read
from aksgpu._kube.placement import Obstacle, obstacles
from aksgpu.capacity import Usage, usage_or_none
from aksgpu.errors import AksGpuError, Forbidden, GpuNotAdvertised, KubernetesError, NoScaleUp, NotFound, PodPending
from aksgpu.kube import HasKube, Object
from aksgpu.logs import job_pods
from aksgpu.logs import read as read_log

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Diagnosis", "job", "pod"]

Rows = tuple[tuple[str, str], ...]

_TAIL = 20
"""Lines of log that are evidence."""


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, how that is known, and what to do.

    Attributes:
        verdict: one sentence.
        fix: what to do, as an action; empty where nothing needs doing.
        rows: the evidence as (what, says) pairs.
        error: the exception that stands for it, such as :class:`~aksgpu.errors.PodPending`; None where nothing is wrong
            or no class of its own stands for it.
    """

    verdict: str
    fix: str = ""
    rows: Rows = field(default=(), repr=False)
    error: AksGpuError | None = field(default=None, repr=False, compare=False)

    @property
    def evidence(self) -> pd.DataFrame:
        """The evidence: ``what`` (string), such as ``node x`` or ``event FailedScheduling``, ``says`` (string)."""
        rows = [{"what": what, "says": says} for what, says in self.rows]
        return frame(rows, {"what": "string", "says": "string"})

    def __str__(self) -> str:
        return f"{self.verdict}\nFix: {self.fix}" if self.fix else self.verdict

    def _repr_html_(self) -> str:
        fix = f"<p><b>Fix:</b> {escape(self.fix)}</p>" if self.fix else ""
        table = "".join(
            f"<tr><td style='text-align:left;vertical-align:top'>{escape(what)}</td>"
            f"<td style='text-align:left;white-space:pre-wrap'>{escape(says)}</td></tr>"
            for what, says in self.rows
        )
        return f"<p><b>{escape(self.verdict)}</b></p>{fix}" + (f"<table>{table}</table>" if table else "")


def job(aks: HasKube, name: str, namespace: str | None = None) -> Diagnosis:
    """Why a Job stands where it stands.

    Args:
        aks: the cluster.
        name: of the Job.
        namespace: of the Job.

    Raises:
        NotFound: no such Job.
    """
    obj = aks.kube.get("Job", name, namespace)
    conditions = {c["type"]: c for c in (obj.get("status") or {}).get("conditions") or () if c["status"] == "True"}
    pods = job_pods(aks.kube, obj)
    if "Complete" in conditions:
        return Diagnosis(f"Job {name} is complete: nothing is wrong.")
    if failed := conditions.get("Failed"):
        return _failed_job(aks, obj, failed, pods)
    if obj["spec"].get("suspend"):
        return Diagnosis(
            f"Job {name} is suspended: it makes no pods.",
            f'aks.kube.patch("Job", "{name}", {{"spec": {{"suspend": False}}}}, "{obj["metadata"]["namespace"]}")',
        )
    if not pods:
        return _no_pods(aks, obj)
    alive = [p for p in pods if not _pods.ended(p)]
    return _pod(aks, (alive or pods)[-1])


def pod(aks: HasKube, name: str, namespace: str | None = None) -> Diagnosis:
    """Why a pod stands where it stands.

    Args:
        aks: the cluster.
        name: of the pod.
        namespace: of the pod.

    Raises:
        NotFound: no such pod.
    """
    return _pod(aks, aks.kube.get("Pod", name, namespace))


# Jobs


def _failed_job(aks: HasKube, obj: Object, condition: Object, pods: list[Object]) -> Diagnosis:
    name, reason = obj["metadata"]["name"], condition.get("reason") or "Failed"
    said = ((f"Job {name}", f"{reason}: {condition.get('message') or ''}"),)
    if reason == "DeadlineExceeded":
        seconds = obj["spec"].get("activeDeadlineSeconds")
        return Diagnosis(
            f"Job {name} failed: it ran longer than the {seconds} s that activeDeadlineSeconds allows.",
            "Raise spec.activeDeadlineSeconds, or have the program do less; then jobs.apply(..., replace=True).",
            said,
        )
    bad = [p for p in pods if _pods.last_failure(p) or (p.get("status") or {}).get("phase") == "Failed"]
    if not bad:
        return Diagnosis(
            f"Job {name} failed: {condition.get('message') or reason}. Its pods are gone, with their logs.",
            "Run it again with jobs.apply(..., replace=True), and follow it from the start.",
            said,
        )
    found = _pod(aks, bad[-1])
    return Diagnosis(f"Job {name} failed ({reason}): {found.verdict}", found.fix, said + found.rows, found.error)


def _no_pods(aks: HasKube, obj: Object) -> Diagnosis:
    events = _events(aks, obj)
    verdict, fix = " yet: the Job controller has not made one.", "Wait a moment."
    for reason, message in events:
        if reason == "FailedCreate" and "exceeded quota" in message:
            verdict = ": the namespace's ResourceQuota is used up."
            fix = "Delete a Job that holds what is limited (jobs.list(aks)), or have the quota raised."
        elif reason == "FailedCreate":
            verdict = f": the API server refuses it: {message}"
            fix = "Correct what the message names; then jobs.apply(..., replace=True)."
    return Diagnosis(f"Job {obj['metadata']['name']} has no pod{verdict}", fix, _event_rows(events))


# Pods


def _pod(aks: HasKube, obj: Object) -> Diagnosis:
    word, message = _pods.state(obj)
    events = _events(aks, obj)
    rows = ((f"pod {obj['metadata']['name']}", f"{word}: {message}" if message else word), *_event_rows(events))
    phase = (obj.get("status") or {}).get("phase")
    if word in _pods.UNPULLABLE:
        said = re.sub(r"^Back-off pulling image .*?: (ErrImagePull: )?", "", message)
        # A cluster that provides images in its own way says with this event what to do.
        advice = [text for reason, text in events if reason == "ImageUnavailable"]
        fix = advice[-1] if advice else _IMAGE_FIX
        return Diagnosis(f"The image {_waiting_image(obj)} cannot be pulled: {said}", fix, rows)
    if word in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        verdict = f"The container cannot be started: {message}"
        if known := of_log(message):
            return Diagnosis(verdict, known.fix, (*rows, *_node_image(aks, obj)), known.error(verdict))
        return Diagnosis(verdict, _CONFIG_FIX, rows)
    failure = _pods.last_failure(obj)
    if failure and word not in ("Running", "Completed"):
        return _crashed(aks, obj, failure, rows)
    if phase == "Failed":
        verdict, known = f"The pod failed: {word}: {message}", of_log(message)
        fix = _EVICTED_FIX.get(word) or (known.fix if known else "Run it again.")
        return Diagnosis(verdict, fix, rows, known.error(verdict) if known else None)
    if not obj["spec"].get("nodeName"):
        return _unscheduled(aks, obj, rows)
    if lost := _node_problem(aks, obj["spec"]["nodeName"]):
        return Diagnosis(f"The pod's node {lost}.", _NODE_FIX, rows)
    if phase == "Running":
        before = f" It was started again {_times(obj)}." if _pods.restarts(obj) else ""
        return Diagnosis(f"The pod is running: nothing is wrong.{before}", "", rows)
    if phase == "Succeeded":
        return Diagnosis("The pod has succeeded: nothing is wrong.", "", rows)
    if word == "Terminating":
        return Diagnosis("The pod is being deleted.", "Wait until it has ended.", rows)
    if told := [message for reason, message in events if reason in ("FailedMount", "FailedAttachVolume")]:
        return Diagnosis(f"The pod waits for a volume: {told[-1]}", _MOUNT_FIX, rows)
    return Diagnosis(
        f"The pod is being started on {obj['spec']['nodeName']}: its image is pulled, or its volumes are mounted.",
        "Wait: a GPU image has several GB, and its first pull on a node takes minutes.",
        rows,
    )


_IMAGE_FIX = "Check the image's name and tag. A private registry needs its pull secret, or az aks update --attach-acr."
_CONFIG_FIX = "Make what the message names (a ConfigMap, a Secret, a key in one), or correct the manifest."
_MEMORY_FIX = "Raise resources.limits.memory, or have the program use less; then jobs.apply(..., replace=True)."
_COMMAND_FIX = "Correct command and args: the program must be in the image; then jobs.apply(..., replace=True)."
_MOUNT_FIX = "Make what the message names (a Secret, a ConfigMap, a claim), or correct the manifest's volumes."
_NODE_FIX = "capacity.nodes(aks) shows the nodes; Kubernetes starts the pod elsewhere after five minutes."
_EVICTED_FIX = {
    "Evicted": "Ask for the memory or disk that it uses (resources.requests), so that it is not the first to go.",
    "UnexpectedAdmissionError": "The node's GPU was lost meanwhile: plugin.verify(aks).",
}


def _crashed(aks: HasKube, obj: Object, failure: Mapping[str, Any], rows: Rows) -> Diagnosis:
    code = failure.get("exitCode")
    tail = _tail(aks, obj, failure["container"])
    rows = (*rows, ("log", tail)) if tail else rows
    again = f", and was started again {_times(obj)}" if _pods.restarts(obj) else ""
    if failure.get("reason") == "OOMKilled":
        return Diagnosis(f"The container used more memory than its limit (OOMKilled){again}.", _MEMORY_FIX, rows)
    if failure.get("reason") in ("StartError", "ContainerCannotRun"):
        return Diagnosis(f"The program cannot be started{again}: {failure.get('message')}", _COMMAND_FIX, rows)
    if known := of_log(tail):
        verdict = f"The program ended with exit code {code}{again}: {known.verdict}."
        return Diagnosis(verdict, known.fix, (*rows, *_node_image(aks, obj)), known.error(verdict))
    last = tail.splitlines()[-1].strip() if tail else ""
    init = "" if failure["container"] in {c["name"] for c in obj["spec"]["containers"]} else "init container's "
    return Diagnosis(
        f"The {init}program ended with exit code {code}{again}" + (f": {last}" if last else "."),
        "Read the end of its log in the evidence, correct the program, then jobs.apply(..., replace=True).",
        rows,
    )


def _times(obj: Object) -> str:
    count = _pods.restarts(obj)
    return "once" if count == 1 else f"{count} times"


def _unscheduled(aks: HasKube, obj: Object, rows: Rows) -> Diagnosis:
    wants = _pods.gpus(obj["spec"])
    try:
        nodes = sorted(aks.kube.list("Node", pick=read), key=lambda node: (node.pool, node.name))
    except Forbidden:
        words = _pods.state(obj).message or "the scheduler has not looked at it yet"
        return Diagnosis(f"The pod is not scheduled: {words}", "Ask somebody who may list nodes to run this.", rows)
    using = usage_or_none(aks)
    against = {
        node.name: obstacles(obj["spec"], wants, node, None if using is None else using.get(node.name, Usage()))
        for node in nodes
    }
    table = tuple((f"node {name}", "; ".join(o.text for o in found) or "would fit") for name, found in against.items())
    found = _placement(obj, wants, nodes, against, rows + table)
    return _with_events(found, against)


def _with_events(found: Diagnosis, against: Mapping[str, list[Obstacle]]) -> Diagnosis:
    """The diagnosis with what the scheduler and the autoscaler said, and the exception that stands for it."""
    said = [(what.removeprefix("event "), text) for what, text in found.rows if what.startswith("event ")]
    if any(reason == "TriggeredScaleUp" for reason, _ in said):
        fix = "Wait: the autoscaler is adding a node, which takes some minutes."
        return replace(found, fix=fix, error=PodPending(found.verdict, hint=fix))
    events = [event for reason, text in said if (event := of_event(reason, text))]
    scaling = next((event for event in reversed(events) if isinstance(event, NoScaleUp)), None)
    if scaling is not None:
        verdict = f"{found.verdict.rstrip('.')}; {scaling.message}."
        error: AksGpuError = NoScaleUp(verdict, hint=scaling.hint, causes=scaling.causes)
        return replace(found, verdict=verdict, fix=scaling.hint, error=error)
    unserved = sorted(name for name, obstacles in against.items() if any(o.kind == "no plugin" for o in obstacles))
    if found.fix == _INSTALL:
        return replace(found, error=GpuNotAdvertised(found.verdict, hint=found.fix, nodes=tuple(unserved)))
    causes, nodes = (events[-1].causes, events[-1].nodes) if events else ({}, len(against))
    return replace(found, error=PodPending(found.verdict, hint=found.fix, causes=causes, nodes=nodes))


_INSTALL = "plugin.install(aks)"


def _placement(
    obj: Object,
    wants: Mapping[str, int],
    nodes: list[Node],
    against: Mapping[str, list[Obstacle]],
    rows: Rows,
) -> Diagnosis:
    """The verdict, from what stands against the nodes that come nearest to fitting."""
    count, resource = max(((n, r) for r, n in wants.items()), default=(0, GPU))
    if wants and not any(node.gpu for node in nodes):
        return Diagnosis(
            f"The pod wants {count} {resource}, and the cluster has no GPU node.",
            "cluster.add_gpu_pool(aks, vm_size=..., count=1); an autoscaler may be adding one.",
            rows,
        )
    gpu_nodes = [node for node in nodes if node.gpu or not wants]
    fitting = any(not against[node.name] for node in gpu_nodes)  # then cpu, memory or the like is in the way
    for kinds, verdict, fix in () if fitting else _verdicts(count, resource, gpu_nodes):
        near = [node for node in gpu_nodes if against[node.name] and {o.kind for o in against[node.name]} <= kinds]
        if near:
            detail = "; ".join(dict.fromkeys(o.text for node in near for o in against[node.name]))
            return Diagnosis(f"The pod is not scheduled: {verdict or detail}.", fix, rows)
    message = _pods.state(obj).message or "the scheduler has not looked at it yet"
    return Diagnosis(f"The pod is not scheduled: {message}", _scheduler_fix(message), rows)


def _verdicts(count: int, resource: str, nodes: list[Node]) -> list[tuple[set[str], str, str]]:
    """Obstacles that explain it when a node has no others; those that time alone removes come first."""
    most = max((node.allocatable.get(resource, 0) for node in nodes), default=0)
    pool = next((node.pool for node in nodes if node.pool), "gpunp")
    tolerate = (
        "jobs.apply(aks, manifest, replace=True) adds the tolerations; in a manifest for kubectl, add them under "
        "spec.template.spec.tolerations."
    )
    taken = f"Wait, delete the Job that holds it (jobs.attach(aks, name).delete()), or cluster.scale(aks, {pool!r}, n)."
    small = f"Ask for at most {most} a pod, or add a pool whose VM size has {count}: sizes.gpu_sizes(azure, location)."
    other = "Ask for what capacity.gpus(aks) shows, or add a pool that has it (slices: gpu_instance_profile=...)."
    return [
        ({"taken"}, "", taken),
        ({"taint"}, "", tolerate),
        ({"no plugin"}, f"no node advertises {resource}, for want of a device plugin", _INSTALL),
        ({"no plugin", "taint"}, f"no node advertises {resource}, for want of a device plugin", _INSTALL),
        ({"other gpu", "taint"}, f"no node has {resource}", other),
        ({"taken", "taint"}, "", tolerate),
        ({"selector", "taint"}, "", "Correct spec.template.spec.nodeSelector (or affinity): capacity.nodes(aks)."),
        ({"too small", "taint"}, f"no node has {count} {resource}; the largest has {most}", small),
        (
            {"cordoned", "not ready", "taint", "taken", "no plugin"},
            "",
            "kubectl uncordon NODE, or wait until it is ready.",
        ),
        (
            {"selector", "too small", "taken", "taint", "no plugin"},
            "",
            "Correct the nodeSelector, or add a fitting pool.",
        ),
    ]


def _scheduler_fix(message: str) -> str:
    if found := re.search(r"Insufficient (cpu|memory|ephemeral-storage|pods)", message):
        return f"Ask for less {found[1]}, wait until other pods end, or add nodes: cluster.scale(aks, pool, n)."
    if "persistentvolumeclaim" in message.lower():
        return _MOUNT_FIX
    if "scheduling gates" in message:
        return "Whatever set spec.schedulingGates, such as a queue, takes them away again; or leave them out."
    return "Wait a moment and ask again." if "not looked" in message else "capacity.nodes(aks) shows what there is."


# Reading


def _node_problem(aks: HasKube, name: str) -> str:
    try:
        node = read(aks.kube.get("Node", name))
    except Forbidden:
        return ""
    except NotFound:
        return f"{name} is gone"
    return "" if node.ready else f"{name} is not ready"


def _node_image(aks: HasKube, obj: Object) -> Rows:
    """The node's image, which the versions of driver and libraries come with."""
    try:
        labels = aks.kube.get("Node", obj["spec"]["nodeName"])["metadata"].get("labels") or {}
    except KubernetesError:
        return ()
    image = labels.get("kubernetes.azure.com/node-image-version")
    return (("node image", image),) if image else ()


def _waiting_image(obj: Object) -> str:
    for entry in _pods.containers(obj["status"]):
        if ((entry.get("state") or {}).get("waiting") or {}).get("reason") in _pods.UNPULLABLE and entry.get("image"):
            return str(entry["image"])
    return str(obj["spec"]["containers"][0]["image"])


def _events(aks: HasKube, obj: Object) -> list[tuple[str, str]]:
    """Warnings about an object as (reason, message), newest last, each once."""
    metadata = obj["metadata"]
    try:
        found = aks.kube.list("Event", metadata["namespace"], field_selector=f"involvedObject.uid={metadata['uid']}")
    except Forbidden:
        return []
    telling = [e for e in found if e.get("type") == "Warning" or "ScaleUp" in str(e.get("reason"))]
    telling.sort(key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or e["metadata"]["creationTimestamp"]))
    return list(dict.fromkeys((str(e.get("reason")), str(e.get("message"))) for e in telling))[-5:]


def _event_rows(events: list[tuple[str, str]]) -> Rows:
    return tuple((f"event {reason}", message) for reason, message in events)


def _tail(aks: HasKube, obj: Object, container: str) -> str:
    name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
    try:
        return read_log(aks.kube, name, namespace, container, tail=_TAIL).rstrip()
    except KubernetesError:
        return ""  # a log that cannot be had must not hide the rest
