"""The NVIDIA device plugin: install, status, remove.

AKS installs the driver, and the plugin lets the kubelet advertise the GPUs as ``nvidia.com/gpu``. It is a DaemonSet in
the namespace ``gpu-resources``, except on managed GPU pools, where it is a service of the node. A second GPU stack is
not installed on a cluster that has one. :mod:`aksgpu.manifests` has the manifests.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aksgpu import capacity, manifests
from aksgpu.capacity.dra_devices import DeviceUse, read_devices
from aksgpu.common.frames import frame
from aksgpu.diagnose.cluster_reader import has_azure
from aksgpu.diagnose.gpu_failures import from_log
from aksgpu.errors import (
    AksGpuError,
    Conflict,
    Forbidden,
    GpuNotAdvertised,
    GpuStackError,
    Invalid,
    InvalidInput,
    KubernetesError,
    NotFound,
    PluginFailed,
    PluginNotScheduled,
    SecondGpuStack,
    Unreachable,
    WaitTimeout,
)
from aksgpu.kube import path_names
from aksgpu.kube import pod_facts as _pods
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.kube.node_facts import GPU, Node, add_tolerations, read, taint_text, tolerates, tolerations
from aksgpu.logs.job_logs import read as read_log
from aksgpu.manifests.load import documents
from aksgpu.waiting import Timeout, Timer, deadline, wait_until

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Plugin", "install", "remove", "status"]

NAMESPACE = "gpu-resources"
"""Namespace of the DaemonSet."""
NAME = "nvidia-device-plugin-daemonset"
"""Name of the DaemonSet."""
_IMAGE = "k8s-device-plugin"
"""Part of the image's name of every NVIDIA device plugin."""
_OTHER_VENDORS = ("rocm/", "amd/")
"""Parts of the names of other vendors' images, which NVIDIA's plugin does not conflict with."""
_OTHER_PROGRAMS = ("gpu-feature-discovery", "mps-control-daemon", "config-manager")
"""Programs of the same image that are no device plugin."""
_CLUSTER_SCOPED = (
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "DeviceClass",
    "PriorityClass",
    "RuntimeClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)
"""Kinds without a namespace that manifests of device plugins have."""
_SAFEGUARDS = ("aks-managed-", "gatekeeper", "azurepolicy", "Deployment Safeguards", "PodSecurity")
"""Parts of the messages with which AKS Automatic, Azure Policy and Pod Security refuse objects."""
_OPERATOR = "/apis/nvidia.com/v1"
"""Path at which the API server lists the kinds of the GPU Operator."""
_COLUMNS = {
    "node": "string",
    "pool": "string",
    "plugin": "string",
    "state": "string",
    "allocatable": "Int64",
    "ok": "boolean",
    "problem": "string",
}


@dataclass(frozen=True)
class Plugin:
    """An installed device plugin.

    Attributes:
        name: name of the DaemonSet.
        namespace: its namespace.
        image: image of its container.
        nodes: number of GPU nodes that it serves.
        gpus: number of GPUs that they advertise.
    """

    name: str
    namespace: str
    image: str
    nodes: int
    gpus: int


def install(
    aks: HasKube,
    *,
    manifest: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | Path | None = None,
    namespace: str = NAMESPACE,
    timeout: Timeout = 600,
    progress: bool | None = None,
    force: bool = False,
) -> Plugin:
    """Install the plugin and wait until every ready GPU node advertises its GPUs.

    A second call, also one in another kernel at the same time, finds the plugin and waits for it too. Tolerations for
    the taints of the cluster's GPU nodes are added to the manifest. Its objects are applied in their order, in
    ``namespace``; bindings to its service accounts are adapted. Nodes without a GPU do not matter: NVIDIA's manifests
    run the plugin there too, and it fails there.

    GPUs that :func:`aksgpu.capacity.advertise` wrote are removed first, so that the nodes then advertise the GPUs that
    the plugin finds. If it finds none, they are written again and the call raises.

    Args:
        aks: the cluster.
        manifest: objects, YAML text or a YAML file, with one DaemonSet that runs a device plugin, such as those of
            NVIDIA; None uses ``manifests.device_plugin()``. A ConfigMap for time-slicing belongs into it.
        namespace: namespace to install into; created if it is missing.
        timeout: seconds, or text such as ``"10m"``; None means no limit.
        progress: False shows no progress; None reads ``AKSGPU_PROGRESS``.
        force: install beside another GPU stack, on a cluster without GPU nodes, and take over fields that another
            program manages.

    Raises:
        InvalidInput: an argument is wrong.
        GpuStackError: the cluster has no GPU node or has another GPU stack, or the plugin does not start. The message
            has the reason.
        Forbidden: you may not install it, or may not look for another GPU stack.

    Example:
        plugin.install(aks, timeout=600)
    """
    check_cluster(aks)
    path_names.check_namespace(namespace)
    timer = Timer(timeout)
    objects = _prepared(_load(manifest), namespace)
    daemon = _plugin_of(objects)
    _let_removal_end(aks, daemon, timer, progress)
    by_hand: dict[str, int] = {}

    def prepare() -> tuple[bool, str]:
        nodes = aks.kube.list("Node", pick=read)
        if not force:
            _refuse_second(aks, daemon, nodes)
        add_tolerations(daemon["spec"]["template"]["spec"], tolerations(nodes, system=True))
        _take_away(aks, daemon, nodes, by_hand)
        return True, ""

    try:
        wait_until(prepare, "device plugin", timeout=timer, progress=progress)
        uid = _applied(aks, objects, force, timer, progress)
        return _wait(aks, daemon, uid, timer, progress)
    except BaseException as failed:
        if by_hand:
            _put_back(aks, by_hand, failed)
        raise


_SETTLE_SECONDS = 20.0
"""Seconds until a kubelet has reported that a node has no GPU any more. It reports every 10 seconds."""


def _let_removal_end(aks: HasKube, daemon: Object, timer: Timer, progress: bool | None) -> None:
    """Wait until a removal of the plugin in progress has ended, such as one by another kernel."""
    namespace, name = _key(daemon)
    nodes: set[str] = set()

    def poll() -> tuple[bool | None, str]:
        ending = _removal(aks, daemon)
        nodes.update(ending or ())
        return (True if ending is None else None), f"{namespace}/{name} is being removed"

    wait_until(poll, "device plugin", timeout=timer, progress=progress, hint=_namespace_hint(namespace))
    if nodes:
        _await_no_gpus(aks, nodes, timer, progress)


def _removal(aks: HasKube, daemon: Object) -> set[str] | None:
    """Return the nodes with pods of a plugin that is being deleted; None if it is not being deleted."""
    namespace, name = _key(daemon)
    found = aks.kube.find("Namespace", namespace)
    if found is None:
        return None
    live = aks.kube.find("DaemonSet", name, namespace)
    if live is not None and not live["metadata"].get("deletionTimestamp"):
        return set() if found["metadata"].get("deletionTimestamp") else None
    pods = _pods_of(aks, daemon)
    ending = pods or live is not None or found["metadata"].get("deletionTimestamp")
    return {_node_of(pod) for pod in pods} if ending else None


def _await_no_gpus(aks: HasKube, nodes: set[str], timer: Timer, progress: bool | None) -> None:
    """Wait until nodes that lost the plugin advertise no GPU. The wait is short: another plugin may serve them."""

    def poll() -> tuple[bool | None, str]:
        found = [node for node in aks.kube.list("Node", pick=read) if node.name in nodes]
        serving = sorted(node.name for node in found if any(node.allocatable.values()))
        return (None if serving else True), f"{', '.join(serving)} still advertises GPUs"

    with suppress(WaitTimeout):
        wait_until(poll, "device plugin", timeout=min(timer.left, _SETTLE_SECONDS), progress=progress)


def _namespace_hint(namespace: str) -> str:
    return f"kubectl get namespace {namespace} -o yaml shows why it still exists. Then run plugin.install(aks) again."


def _take_away(aks: HasKube, daemon: Object, nodes: list[Node], taken: dict[str, int]) -> None:
    """Remove the GPUs that were written into the status of nodes without a pod of the plugin.

    Args:
        aks: the cluster.
        daemon: the plugin's DaemonSet.
        nodes: nodes of the cluster.
        taken: receives the number of GPUs that were removed from each node, by name.
    """
    written = {node.name: node.capacity.get(GPU, 0) for node in nodes if node.by_hand}
    if not written:
        return
    served = _pods_by_node(aks, daemon)
    for name, count in written.items():
        if name not in served:
            taken[name] = count
            capacity.advertise(aks, name, gpus=0)


def _put_back(aks: HasKube, by_hand: dict[str, int], failed: BaseException) -> None:
    """Write the GPUs again on nodes where the plugin advertises none, and add this to the error."""
    try:
        wanting = {node.name for node in aks.kube.list("Node", pick=read) if not any(node.allocatable.values())}
        for name in wanting & set(by_hand):
            capacity.advertise(aks, name, gpus=by_hand[name])
        outcome = "They have been restored."
    except KubernetesError:
        outcome = "They could not be written again: capacity.advertise(aks, node, gpus=1) does that."
    if isinstance(failed, AksGpuError):
        failed.message += (
            f"\nThe GPUs of {', '.join(sorted(by_hand))} had been written by capacity.advertise or another program, "
            f"which is not a device plugin. {outcome}"
        )
        failed.args = (failed.message,)
        hint = "A test cluster without GPUs needs no plugin: plugin.remove(aks) deletes it."
        failed.hint = f"{hint} {failed.hint}".strip()


def _applied(aks: HasKube, objects: list[Object], force: bool, timer: Timer, progress: bool | None) -> str:
    """Apply the objects, and return the uid of the DaemonSet.

    If the namespace is being deleted, such as by ``plugin.remove`` in another kernel, wait and create it again.
    """
    namespace = objects[0]["metadata"]["name"]
    uid = ""

    def poll() -> tuple[str | None, str]:
        nonlocal uid
        found = aks.kube.find("Namespace", namespace)
        if found and found["metadata"].get("deletionTimestamp"):
            return None, f"namespace {namespace} is being deleted"
        for obj in objects:
            try:
                live = _apply(aks, obj, force)
            except (NotFound, Forbidden) as refused:
                if not _namespace_ends(aks, namespace):
                    raise
                return None, f"namespace {namespace} is being deleted: {refused.message}"
            if obj["kind"] == "DaemonSet":
                uid = str(live["metadata"]["uid"])
        return uid, ""

    return wait_until(poll, "device plugin", timeout=timer, progress=progress, hint=_namespace_hint(namespace))


def _namespace_ends(aks: HasKube, namespace: str) -> bool:
    live = aks.kube.find("Namespace", namespace)
    return live is None or bool(live["metadata"].get("deletionTimestamp"))


def _apply(aks: HasKube, obj: Object, force: bool) -> Object:
    try:
        return aks.kube.apply(obj, force=force)
    except Conflict as taken:
        raise GpuStackError(
            f"{obj['kind']} {obj['metadata']['name']} is managed by another program: {taken.message}",
            hint="plugin.install(aks, force=True) takes it over.",
        ) from taken
    except (Forbidden, Invalid) as refused:
        if not any(part in refused.message for part in _SAFEGUARDS):
            raise
        raise GpuStackError(
            f"the cluster's policies refuse {obj['kind']} {obj['metadata']['name']}: {refused.message}",
            hint=_SAFEGUARDS_HINT,
        ) from refused


_SAFEGUARDS_HINT = (
    "AKS Automatic and policies refuse DaemonSets in system namespaces and hostPath volumes, which a device plugin "
    'needs. A managed GPU pool needs no DaemonSet: cluster.add_gpu_pool(aks, "gpunp", management_mode="Managed"). '
    "In a shell: az aks nodepool add --resource-group GROUP --cluster-name CLUSTER --name gpunp "
    "--node-vm-size Standard_NC4as_T4_v3 --enable-managed-gpu=true"
)


def _load(manifest: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | Path | None) -> list[Object]:
    objects = manifests.device_plugin() if manifest is None else documents(manifest)
    if not any(obj.get("kind") == "DaemonSet" for obj in objects):
        raise InvalidInput(
            "`manifest` must have exactly one DaemonSet, got none",
            hint="plugin.install(aks) uses manifests.device_plugin().",
        )
    for obj in objects:
        missing = _missing(obj)
        if missing:
            raise InvalidInput(
                f"`manifest` must have {missing} in each {obj.get('kind') or 'object'}, got none",
                hint="manifests.device_plugin() is a complete one.",
            )
    _plugin_of(objects)
    return objects


def _plugin_of(objects: list[Object]) -> Object:
    """Return the DaemonSet of a manifest that runs the device plugin.

    Raises:
        InvalidInput: it has none, or several.
    """
    daemons = [obj for obj in objects if obj["kind"] == "DaemonSet"]
    plugins = [obj for obj in daemons if _runs_plugin(obj)] or daemons
    if len(plugins) != 1:
        names = ", ".join(obj["metadata"]["name"] for obj in plugins)
        raise InvalidInput(
            f"`manifest` must have exactly one DaemonSet that runs a device plugin, got {names}",
            hint="plugin.install(aks) uses manifests.device_plugin().",
        )
    return plugins[0]


def _runs_plugin(daemon: Object) -> bool:
    """Return whether a DaemonSet runs NVIDIA's device plugin."""
    for container in daemon["spec"]["template"]["spec"]["containers"]:
        image = str(container.get("image"))
        words = [str(word) for word in (*(container.get("command") or ()), *(container.get("args") or ()))]
        is_other = any(vendor in image for vendor in _OTHER_VENDORS)
        is_other = is_other or any(program in word for program in _OTHER_PROGRAMS for word in words)
        if _IMAGE in image and not is_other:
            return True
    return False


def _missing(obj: Object) -> str:
    """Return the first required field that an object of the manifest lacks; empty if it is complete."""
    fields = ["kind", "apiVersion", "metadata.name"]
    if obj.get("kind") == "DaemonSet":
        fields += ["spec.selector.matchLabels", "spec.template.spec.containers"]
    for field in fields:
        value: Any = obj
        for part in field.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if not value:
            return field
    containers = obj["spec"]["template"]["spec"]["containers"] if obj["kind"] == "DaemonSet" else [{"image": "none"}]
    if not isinstance(containers, list) or not all(isinstance(c, Mapping) and c.get("image") for c in containers):
        return "an image for each container"
    return ""


def _prepared(objects: list[Object], namespace: str) -> list[Object]:
    """Return copies of the objects in the namespace, and the namespace itself as the first object.

    Bindings to service accounts of the manifest bind them in the new namespace.
    """
    rest = [copy.deepcopy(obj) for obj in objects if obj["kind"] != "Namespace"]
    accounts = {obj["metadata"]["name"] for obj in rest if obj["kind"] == "ServiceAccount"}
    for obj in rest:
        if obj["kind"] in _CLUSTER_SCOPED:
            obj["metadata"].pop("namespace", None)
        else:
            obj["metadata"]["namespace"] = namespace
        for subject in obj.get("subjects") or ():
            if subject.get("kind") == "ServiceAccount" and subject.get("name") in accounts:
                subject["namespace"] = namespace
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, *rest]


# Other stacks


def _refuse_second(aks: HasKube, daemon: Object, nodes: list[Node]) -> None:
    """Raise an error if another program provides the GPUs of the cluster, or if it has no node for the plugin.

    Args:
        aks: the cluster.
        daemon: the DaemonSet to install.
        nodes: nodes of the cluster.

    Raises:
        SecondGpuStack: another device plugin, DRA driver or operator is installed, or nodes advertise GPUs already.
        GpuStackError: the cluster has no node with an NVIDIA GPU.
        Forbidden: you may not list what the check needs.
    """
    own = _key(daemon)
    again = "plugin.install(aks, force=True) installs it anyway."
    try:
        daemons = _daemons(aks)
        operator = _has_operator(aks)
    except Forbidden as refused:
        refused.hint = (
            "The check for another GPU stack needs this right. Ask for it, or skip the check: "
            "plugin.install(aks, force=True)."
        )
        raise
    others = ["/".join(_key(d)) for d in daemons if _key(d) != own]
    if others:
        raise SecondGpuStack(
            f"another device plugin is installed: DaemonSet {', '.join(others)}",
            hint=f"Use it as it is, or delete it first. {again}",
        )
    by_driver = sorted(read_devices(aks))
    if by_driver:
        raise SecondGpuStack(
            f"GPUs are allocated through dynamic resource allocation (DRA) on {', '.join(by_driver)}",
            nodes=tuple(by_driver),
            hint=f"Such GPUs need no device plugin: capacity.gpus(aks) shows them. {again} In a shell: "
            "kubectl get resourceslices",
        )
    if operator:
        raise SecondGpuStack("the NVIDIA GPU Operator is installed; it brings its own device plugin", hint=again)
    if any(_key(d) == own for d in daemons):
        return
    serving = [node.name for node in nodes if node.nvidia and not node.by_hand and any(node.allocatable.values())]
    if serving:
        raise SecondGpuStack(
            f"nodes advertise GPUs already, without a DaemonSet: {', '.join(sorted(serving))}",
            nodes=tuple(sorted(serving)),
            hint=f"A managed GPU pool needs no plugin: capacity.gpus(aks) shows its GPUs. {again}",
        )
    if not any(node.nvidia for node in nodes):
        raise GpuStackError("the cluster has no NVIDIA GPU node", hint=f"{_add_nodes(aks)} Before that, {again}")


def _add_nodes(aks: HasKube) -> str:
    if getattr(aks, "azure", None) is not None:
        return 'cluster.add_gpu_pool(aks, "gpunp", vm_size="Standard_NC4as_T4_v3", count=1) adds some.'
    return "Add a node with a GPU to the cluster, and label it accelerator=nvidia."


def _key(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _daemons(aks: HasKube) -> list[Object]:
    """Return the DaemonSets that run a device plugin."""
    found = aks.kube.list("DaemonSet", all_namespaces=True)
    return [daemon for daemon in found if _key(daemon) == (NAMESPACE, NAME) or _runs_plugin(daemon)]


def _has_operator(aks: HasKube) -> bool:
    """Return whether the cluster has the GPU Operator's kind. Every user may list kinds."""
    try:
        served = aks.kube.request("GET", _OPERATOR)
    except NotFound:
        return False
    return any(resource.get("kind") == "ClusterPolicy" for resource in served.get("resources") or ())


# Waiting


def _wait(aks: HasKube, daemon: Object, uid: str, timer: Timer, progress: bool | None) -> Plugin:
    namespace, name = _key(daemon)
    image = daemon["spec"]["template"]["spec"]["containers"][0]["image"]

    def poll() -> tuple[Plugin | None, str]:
        gpu_nodes = [node for node in aks.kube.list("Node", pick=read) if node.nvidia]
        nodes = [node for node in gpu_nodes if node.ready]
        status = _observed_status(aks, namespace, name, uid)
        # When the controller reports that it has observed a new template, it has deleted the pods that did not start.
        # Until then, a pod that does not start may belong to the previous template.
        pods = _pods_by_node(aks, daemon)
        with_gpu = {node.name for node in gpu_nodes}
        for name_of_node, pod in pods.items():
            # A manifest without a node selector runs the plugin on nodes without a GPU too, where it fails.
            if status and name_of_node in with_gpu:
                _refuse_stuck(aks, pod)
        ready = [node for node in nodes if node.name in pods and _ready(pods[node.name])]
        gpus = sum(sum(node.allocatable.values()) for node in nodes)
        served = [node for node in ready if any(node.allocatable.values())]
        if _is_updated(status) and len(served) == len(nodes) and (nodes or not gpu_nodes):
            return Plugin(name, namespace, image, len(nodes), gpus), ""
        return None, f"{len(ready)}/{len(nodes)} pods ready, {gpus} GPUs on {len(served)} nodes"

    try:
        return wait_until(
            poll,
            "device plugin",
            timeout=timer,
            progress=progress,
            on_interrupt="The installation continues; plugin.install(aks) waits again.",
        )
    except WaitTimeout as late:
        try:
            with deadline(_EXPLAINING):
                explained = _too_late(aks, daemon, late.message)
        except Unreachable:
            raise late from None
        raise explained from late


_EXPLAINING = 5.0
"""Seconds for finding the reason after the wait ran out of time."""

_LATE_HINT = (
    "plugin.status(aks) shows each node; plugin.install(aks) continues the wait. "
    "In a shell: kubectl get pods --all-namespaces --selector name=nvidia-device-plugin-ds --output wide"
)


def _too_late(aks: HasKube, daemon: Object, message: str) -> GpuStackError:
    """Return the error for a plugin that did not start in time, with the reason from its pods and their logs."""
    pods = _pods_by_node(aks, daemon)
    nodes = aks.kube.list("Node", pick=read)
    unserved = [node for node in nodes if node.nvidia and not any(node.allocatable.values())]
    names = tuple(sorted(node.name for node in unserved))
    without_pod = [node for node in unserved if node.name not in pods]
    if without_pod:
        return _not_created(aks, daemon, names, message) or _not_scheduled(daemon, without_pod, names, message)
    tails = {node: _tail(aks, pod) for node, pod in sorted(pods.items()) if node in names}
    lines = [f"{message}."]
    for node, tail in tails.items():
        parts = (node, *_pods.state(pods[node]), tail)
        lines.append(" ".join(part for part in parts if part))
    text = "\n".join(lines)
    failure = from_log("\n".join(tails.values()))
    if failure is None:
        return GpuNotAdvertised(text, hint=_LATE_HINT, nodes=names)
    if not issubclass(failure.kind, GpuStackError):
        return GpuNotAdvertised(text, hint=failure.fix_for(has_azure(aks)), nodes=names)
    return failure.kind(text, hint=failure.fix_for(has_azure(aks)), nodes=names, **failure.facts)


def _not_created(aks: HasKube, daemon: Object, names: tuple[str, ...], message: str) -> GpuStackError | None:
    """Return the error for pods that the API server refuses to create; None if it does not."""
    namespace, name = _key(daemon)
    selector = f"involvedObject.kind=DaemonSet,involvedObject.name={name}"
    try:
        events = aks.kube.list("Event", namespace, field_selector=selector)
    except KubernetesError:
        return None
    refusals = [event.get("message") or "" for event in events if event.get("reason") == "FailedCreate"]
    if not refusals:
        return None
    hint = f"Correct what the message names. In a shell: kubectl describe daemonset {name} --namespace {namespace}"
    if any(part in refusals[-1] for part in _SAFEGUARDS):
        hint = _SAFEGUARDS_HINT
    return PluginNotScheduled(f"{message}. Its pods are refused: {refusals[-1]}", hint=hint, nodes=names)


def _not_scheduled(daemon: Object, without_pod: list[Node], names: tuple[str, ...], message: str) -> PluginNotScheduled:
    """Return the error for nodes on which the plugin has no pod."""
    tolerated = daemon["spec"]["template"]["spec"].get("tolerations") or ()
    against = {taint_text(taint) for node in without_pod for taint in node.taints if not tolerates(tolerated, taint)}
    reason = "its nodeSelector or affinity does not match"
    if against:
        reason = f"it does not tolerate {', '.join(sorted(against))}"
    nodes = ", ".join(node.name for node in without_pod)
    return PluginNotScheduled(
        f"{message}. It has no pod on {nodes}: {reason}.",
        hint=(
            "plugin.install(aks) adds the tolerations of the nodes that exist: run it again. "
            f"In a shell: kubectl describe daemonset {_key(daemon)[1]} --namespace {_key(daemon)[0]}"
        ),
        nodes=names,
        taints=tuple(sorted(against)),
    )


def _observed_status(aks: HasKube, namespace: str, name: str, uid: str) -> Object:
    """Return the DaemonSet's status; empty if the controller has not observed the newest DaemonSet yet.

    Raises:
        PluginFailed: the DaemonSet, or its namespace, was deleted.
    """
    daemon = aks.kube.find("DaemonSet", name, namespace)
    if daemon is None or daemon["metadata"].get("deletionTimestamp"):
        what = f"DaemonSet {namespace}/{name}"
        if _namespace_ends(aks, namespace):
            what = f"namespace {namespace}, and the DaemonSet {name} in it,"
        raise PluginFailed(
            f"{what} was deleted by another program or person while plugin.install waited for it",
            hint="plugin.install(aks) installs it again. If it is deleted again, find out what does so.",
        )
    if daemon["metadata"]["uid"] != uid:
        raise PluginFailed(
            f"DaemonSet {namespace}/{name} was deleted and created again while plugin.install waited for it",
            hint="plugin.install(aks) waits for the new one.",
        )
    status: Object = daemon.get("status") or {}
    if "desiredNumberScheduled" not in status:
        return {}
    is_observed = status.get("observedGeneration", 0) >= daemon["metadata"].get("generation", 1)
    return status if is_observed else {}


def _is_updated(status: Object) -> bool:
    """Return whether the controller has updated all pods, given the observed status."""
    return bool(status) and status.get("updatedNumberScheduled", 0) >= status["desiredNumberScheduled"]


def _pods_by_node(aks: HasKube, daemon: Object) -> dict[str, Object]:
    """Return the DaemonSet's pods that are not being deleted, by node."""
    alive = [pod for pod in _pods_of(aks, daemon) if not pod["metadata"].get("deletionTimestamp")]
    return {_node_of(pod): pod for pod in alive}


def _pods_of(aks: HasKube, daemon: Object) -> list[Object]:
    labels = daemon["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return aks.kube.list("Pod", daemon["metadata"]["namespace"], label_selector=selector)


def _node_of(pod: Object) -> str:
    """Return the node of a DaemonSet's pod. Before it is scheduled, its node affinity has the name."""
    name = pod["spec"].get("nodeName")
    if name:
        return str(name)
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    for term in terms:
        for field in term.get("matchFields") or ():
            if field["key"] == "metadata.name":
                return str(field["values"][0])
    return ""


def _ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _refuse_stuck(aks: HasKube, pod: Object) -> None:
    """Raise PluginFailed, or the error that its log names, for a pod that does not start by itself."""
    state, message = _pods.state(pod)
    if state not in _pods.STUCK or state == "ErrImagePull":  # Kubernetes pulls the image again
        return
    node = _node_of(pod)
    tail = _tail(aks, pod)
    text = f"the device plugin's pod on {node} does not run: {state}: {message}"
    if tail:
        text += f"\nThe end of its log:\n{tail}"
    failure = from_log(tail or message)
    if failure is None or not issubclass(failure.kind, GpuStackError):
        hint = "If the image cannot be pulled, use another `manifest`. If the container fails, read its log."
        raise PluginFailed(text, hint=failure.fix_for(has_azure(aks)) if failure else hint, nodes=(node,))
    raise failure.kind(text, hint=failure.fix_for(has_azure(aks)), nodes=(node,), **failure.facts)


def _tail(aks: HasKube, pod: Object) -> str:
    try:
        return read_log(aks, pod["metadata"]["name"], namespace=pod["metadata"]["namespace"], tail_lines=10).strip()
    except KubernetesError:
        return ""  # a missing log must not hide the failure itself


# Status and removal


def status(aks: HasKube) -> pd.DataFrame:
    """Return for each GPU node whether its GPUs are usable, and the problem if not.

    A node is ok if it advertises GPUs and the plugin's pod on it is ready.

    Args:
        aks: the cluster.

    Returns:
        One row for each NVIDIA GPU node:

        - node, pool (string).
        - plugin (string): the DaemonSet of the plugin's pod as namespace/name; ``service`` if the kubelet advertises
          GPUs without a pod, as on managed GPU pools; the driver, such as ``gpu.nvidia.com``, for GPUs of dynamic
          resource allocation; NA without a plugin.
        - state (string): state of the plugin's pod, such as ``Running`` or ``ImagePullBackOff``; NA without a pod.
        - allocatable (Int64): number of healthy GPUs of all resources; NA if the node has not reported its resources.
        - ok (boolean): whether the node is ready, and a ready plugin or service advertises its GPUs. GPUs that
          :func:`aksgpu.capacity.advertise` wrote are not ok, because they do not exist.
        - problem (string): what is wrong, and what to do; NA if ok.

    Raises:
        InvalidInput: ``aks`` is not a cluster.
        Forbidden: you may not list nodes, DaemonSets or the plugin's pods.
        Unreachable: the cluster did not respond.

    Example:
        plugin.status(aks)
    """
    check_cluster(aks)
    nodes = [node for node in aks.kube.list("Node", pick=read) if node.nvidia]
    pods: dict[str, dict[str, Object | None]] = {node.name: {} for node in nodes}
    for daemon in _daemons(aks):
        for node, pod in _pods_by_node(aks, daemon).items():
            pods.setdefault(node, {})["/".join(_key(daemon))] = pod
    devices = read_devices(aks)
    rows = [_verdict(node, pods[node.name], devices.get(node.name, {})) for node in nodes]
    return frame(sorted(rows, key=lambda row: (row["pool"], row["node"])), _COLUMNS)


def _verdict(node: Node, pods: Mapping[str, Object | None], devices: Mapping[str, DeviceUse]) -> dict[str, Any]:
    count = sum(node.allocatable.values()) if node.reported else None
    if devices and not count and not pods:
        return _driver_verdict(node, devices)
    states = {plugin: _pods.state(pod) for plugin, pod in pods.items() if pod is not None}
    failing = [plugin for plugin, pod in pods.items() if pod is not None and not _ready(pod)]
    plugin = ", ".join(sorted(states)) or None
    if plugin is None and count and not node.by_hand:
        plugin = "service"
    problem = _node_problem(node) or _pod_problem(count, states, failing)
    if problem is None and plugin is None:
        problem = (
            f"the {count} GPUs were written into the node's status by {node.by_hand}, which is not a device plugin: "
            "pods are scheduled and get no GPU; plugin.install(aks)"
        )
    return {
        "node": node.name,
        "pool": node.pool,
        "plugin": plugin,
        "state": ", ".join(states[plugin].word for plugin in sorted(states)) or None,
        "allocatable": count,
        "ok": problem is None,
        "problem": problem,
    }


def _driver_verdict(node: Node, devices: Mapping[str, DeviceUse]) -> dict[str, Any]:
    """Return the row of a node whose GPUs are allocated through dynamic resource allocation, without a plugin."""
    count = sum(use.usable for use in devices.values())
    problem = _node_problem(node)
    if problem is None and not count:
        problem = "its driver lists no healthy GPU: kubectl get resourceslices shows them"
    return {
        "node": node.name,
        "pool": node.pool,
        "plugin": ", ".join(sorted(devices)),
        "state": None,
        "allocatable": count,
        "ok": problem is None,
        "problem": problem,
    }


def _node_problem(node: Node) -> str | None:
    if not node.ready:
        return f"the node is not ready ({node.readiness})"
    if not node.reported:
        return "the node has not reported its resources yet"
    return None


def _pod_problem(count: int | None, states: Mapping[str, _pods.State], failing: list[str]) -> str | None:
    for plugin in failing:
        word, message = states[plugin]
        text = f"the plugin's pod ({plugin}) is not ready: {word} {message}".strip()
        if count:
            text += f"; the GPUs that the node advertises ({count}) are not served by it"
        return text
    if count:
        return None
    if not states:
        return "no device plugin on this node: plugin.install(aks)"
    return "the plugin runs and advertises no GPU: its log has the reason (driver, NVML)"


def remove(aks: HasKube, *, namespace: bool = True, timeout: Timeout = 300, progress: bool | None = None) -> None:
    """Delete the DaemonSet from ``gpu-resources``, and wait until its pods and the GPUs that they advertised are gone.

    A second call does nothing. A plugin that is installed again during the wait is not deleted.

    Args:
        aks: the cluster.
        namespace: whether to delete the namespace too. It is kept if it has other objects, or if you may not list them.
        timeout: seconds, or text such as ``"10m"``; None means no limit.
        progress: False shows no progress; None reads ``AKSGPU_PROGRESS``.

    Raises:
        InvalidInput: an argument is wrong.
        WaitTimeout: the pods or the namespace still exist.
        Forbidden: you may not delete them.
    """
    check_cluster(aks)
    timer = Timer(timeout)
    what = "removing the device plugin"
    found: list[Object] = []
    nodes: set[str] = set()

    def delete() -> tuple[bool, str]:
        daemon = aks.kube.find("DaemonSet", NAME, NAMESPACE)
        if daemon is not None:
            found[:] = [daemon]
            nodes.update(_node_of(pod) for pod in _pods_of(aks, daemon))
            with suppress(NotFound):
                aks.kube.delete("DaemonSet", NAME, NAMESPACE, propagation_policy="Foreground")
        return True, ""

    def gone() -> tuple[bool | None, str]:
        (daemon,) = found
        uid = daemon["metadata"]["uid"]
        left = [pod for pod in _pods_of(aks, daemon) if _owned_by(pod, uid)]
        live = aks.kube.find("DaemonSet", NAME, NAMESPACE)
        exists = live is not None and live["metadata"]["uid"] == uid
        return (None if left or exists else True), f"{len(left)} pods left"

    wait_until(delete, what, timeout=timer, progress=progress)
    if found:
        wait_until(gone, what, timeout=timer, progress=progress)
        _await_no_gpus(aks, nodes, timer, progress)
    if namespace:
        _remove_namespace(aks, timer, progress)


def _owned_by(pod: Object, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in pod["metadata"].get("ownerReferences") or ())


_CONTENTS = (
    "Pod",
    "DaemonSet",
    "Deployment",
    "StatefulSet",
    "ReplicaSet",
    "Job",
    "CronJob",
    "Service",
    "ConfigMap",
    "Secret",
    "PersistentVolumeClaim",
    "ResourceQuota",
)
"""Kinds whose objects keep the namespace from being deleted."""
_IN_EVERY_NAMESPACE = ("kube-root-ca.crt",)
"""Objects that Kubernetes creates in each namespace."""


def _remove_namespace(aks: HasKube, timer: Timer, progress: bool | None) -> None:
    uid = ""

    def poll() -> tuple[bool | None, str]:
        nonlocal uid
        live = aks.kube.find("Namespace", NAMESPACE)
        if live is None or uid not in ("", live["metadata"]["uid"]):
            return True, ""
        if not live["metadata"].get("deletionTimestamp"):
            if not _is_empty(aks):
                return True, ""
            # Another kernel may delete it at the same moment.
            with suppress(NotFound, Conflict):
                aks.kube.delete("Namespace", NAMESPACE)
        uid = live["metadata"]["uid"]
        return None, str((live.get("status") or {}).get("phase"))

    wait_until(poll, f"deleting namespace {NAMESPACE}", timeout=timer, progress=progress)


def _is_empty(aks: HasKube) -> bool:
    """Return whether the namespace has no other objects. A kind that may not be listed may have objects."""
    for kind in _CONTENTS:
        try:
            found = aks.kube.list(kind, NAMESPACE, pick=lambda obj: obj["metadata"]["name"])
        except Forbidden:
            return False
        except NotFound:  # the cluster does not have this kind
            continue
        if set(found) - set(_IN_EVERY_NAMESPACE):
            return False
    return True


def __dir__() -> list[str]:
    return list(__all__)
