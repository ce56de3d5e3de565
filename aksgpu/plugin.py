"""The NVIDIA device plugin: install, verify, remove.

AKS installs the driver, and the plugin makes the kubelet advertise the GPUs as ``nvidia.com/gpu``. It is a DaemonSet
in the namespace ``gpu-resources``, except on managed GPU pools, where it is a service of the node. So what counts here
is what the nodes advertise, and a second GPU stack on top of a first one is refused. The manifests are
:mod:`aksgpu.manifests`'.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aksgpu._frames import frame
from aksgpu._kube import names
from aksgpu._kube import pods as _pods
from aksgpu._kube.gpu_failures import of_log
from aksgpu._kube.nodes import Node, add_tolerations, read, taint_text, tolerates, tolerations
from aksgpu.errors import (
    Conflict,
    Forbidden,
    GpuNotAdvertised,
    GpuStackError,
    InvalidInput,
    KubernetesError,
    NotFound,
    PluginFailed,
    PluginNotScheduled,
    SecondGpuStack,
    Unreachable,
    WaitTimeout,
)
from aksgpu.kube import HasKube, Object
from aksgpu.logs import read as read_log
from aksgpu.waiting import Timer, deadline, wait_until

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Plugin", "install", "remove", "verify"]

NAMESPACE = "gpu-resources"
NAME = "nvidia-device-plugin-daemonset"
_IMAGE = "k8s-device-plugin"
_OPERATOR = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/clusterpolicies.nvidia.com"
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
        name: of the DaemonSet.
        namespace: that it lives in.
        image: of its container.
        nodes: GPU nodes that it serves.
        gpus: GPUs that they advertise.
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
    timeout: float | None = 600,
    progress: bool | None = None,
    force: bool = False,
) -> Plugin:
    """Install the plugin and wait until every ready GPU node advertises its GPUs. Twice is fine.

    The manifest's pods also tolerate the taints that the cluster's GPU nodes have.

    Args:
        aks: the cluster.
        manifest: objects, YAML text or a file of it with one DaemonSet; None for today's of the tutorial.
        namespace: to install into; made where it is missing.
        timeout: seconds; None means no limit.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.
        force: install beside another GPU stack, on a cluster without GPU nodes, and over fields that another program
            manages.

    Raises:
        GpuStackError: the cluster has no GPU node, has another GPU stack, or the plugin does not come up; says why.
        Unreachable: time ran out while the API server gave no answer; with its last one.
    """
    names.check_namespace(namespace)
    timer = Timer(timeout)
    objects = _prepared(_loaded(manifest), namespace)

    def send() -> tuple[Object, str]:
        return _apply(aks, objects, force), ""

    daemon = wait_until(send, "device plugin: applying its manifest", timeout=timer, progress=progress)
    return _wait(aks, daemon, timer, progress)


def _apply(aks: HasKube, objects: list[Object], force: bool) -> Object:
    """Apply the objects, and return the DaemonSet among them with the tolerations that it got."""
    (daemon,) = [obj for obj in objects if obj["kind"] == "DaemonSet"]
    nodes = aks.kube.list("Node", pick=read)
    if not force:
        _refuse_second(aks, daemon, nodes)
    add_tolerations(daemon["spec"]["template"]["spec"], tolerations(nodes, system=True))
    for obj in objects:
        try:
            aks.kube.apply(obj, force=force)
        except Conflict as taken:
            raise GpuStackError(
                f"{obj['kind']} {obj['metadata']['name']} is managed by another program: {taken.message}",
                hint="plugin.install(aks, force=True) takes it over.",
            ) from taken
    return daemon


def _loaded(manifest: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | Path | None) -> list[Object]:
    from aksgpu import manifests
    from aksgpu._kube.documents import documents

    objects = manifests.device_plugin() if manifest is None else documents(manifest)
    if [obj.get("kind") for obj in objects].count("DaemonSet") != 1:
        raise InvalidInput("a device plugin's manifest has exactly one DaemonSet")
    return objects


def _prepared(objects: list[Object], namespace: str) -> list[Object]:
    """The objects in that namespace, which comes first."""
    rest = [copy.deepcopy(obj) for obj in objects if obj["kind"] != "Namespace"]
    for obj in rest:
        obj["metadata"]["namespace"] = namespace
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, *rest]


# Other stacks


def _refuse_second(aks: HasKube, daemon: Object, nodes: list[Node]) -> None:
    own = _key(daemon)
    there = _daemons(aks)
    again = "plugin.install(aks, force=True) installs nevertheless."
    others = ["/".join(_key(d)) for d in there if _key(d) != own]
    if others:
        raise SecondGpuStack(
            f"another device plugin is installed: DaemonSet {', '.join(others)}",
            hint=f"Use it as it is, or delete it first. {again}",
        )
    if _has_operator(aks):
        raise SecondGpuStack("the NVIDIA GPU Operator is installed; it brings its own device plugin", hint=again)
    if any(_key(d) == own for d in there):
        return
    serving = [node.name for node in nodes if node.nvidia and any(node.allocatable.values())]
    if serving:
        raise SecondGpuStack(
            f"nodes advertise GPUs already, without a DaemonSet: {', '.join(sorted(serving))}",
            nodes=tuple(sorted(serving)),
            hint=f"A managed GPU pool needs no plugin: go on with capacity.gpus(aks). {again}",
        )
    if not any(node.nvidia for node in nodes):
        raise GpuStackError(
            "the cluster has no NVIDIA GPU node", hint=f"cluster.add_gpu_pool(aks) adds some. Before that, {again}"
        )


def _key(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _daemons(aks: HasKube) -> list[Object]:
    """DaemonSets that run a device plugin, as far as one may see them."""
    try:
        found = aks.kube.list("DaemonSet")
    except Forbidden:
        return []
    return [d for d in found if _key(d) == (NAMESPACE, NAME) or any(_IMAGE in image for image in _images(d))]


def _images(daemon: Object) -> list[str]:
    return [container["image"] for container in daemon["spec"]["template"]["spec"]["containers"]]


def _has_operator(aks: HasKube) -> bool:
    try:
        aks.kube.request("GET", _OPERATOR)
    except (NotFound, Forbidden):
        return False
    return True


# Waiting


def _wait(aks: HasKube, daemon: Object, timer: Timer, progress: bool | None) -> Plugin:
    namespace, name = _key(daemon)
    image = daemon["spec"]["template"]["spec"]["containers"][0]["image"]

    def poll() -> tuple[Plugin | None, str]:
        there = [node for node in aks.kube.list("Node", pick=read) if node.nvidia]
        nodes = [node for node in there if node.ready]
        pods = _pods_by_node(aks, daemon)
        for pod in pods.values():
            _refuse_stuck(aks, pod)
        current = _observed(aks, namespace, name)
        ready = [node for node in nodes if node.name in pods and _ready(pods[node.name])]
        gpus = sum(sum(node.allocatable.values()) for node in nodes)
        served = [node for node in ready if any(node.allocatable.values())]
        if current and len(served) == len(nodes) and (nodes or not there):
            return Plugin(name, namespace, image, len(nodes), gpus), ""
        return None, f"{len(ready)}/{len(nodes)} pods ready, {gpus} GPUs on {len(served)} nodes"

    try:
        return wait_until(
            poll,
            "device plugin",
            timeout=timer,
            progress=progress,
            on_interrupt="The installation goes on; plugin.install(aks) waits again.",
        )
    except WaitTimeout as late:
        try:
            with deadline(_EXPLAINING):
                explained = _too_late(aks, daemon, late.message)
        except Unreachable:
            raise late from None
        raise explained from late


_EXPLAINING = 5.0
"""Seconds that finding a reason may take after the wait has run out of time."""
_LATE_HINT = "plugin.verify(aks) shows each node; plugin.install(aks) goes on waiting."


def _too_late(aks: HasKube, daemon: Object, message: str) -> GpuStackError:
    """Why it does not serve: its pods, and their logs (with FAIL_ON_INIT_ERROR=false it stays up without serving)."""
    pods = _pods_by_node(aks, daemon)
    wanting = [node for node in aks.kube.list("Node", pick=read) if node.nvidia and not any(node.allocatable.values())]
    names = tuple(sorted(node.name for node in wanting))
    if absent := [node for node in wanting if node.name not in pods]:
        have = daemon["spec"]["template"]["spec"].get("tolerations") or ()
        against = {taint_text(taint) for node in absent for taint in node.taints if not tolerates(have, taint)}
        untolerated = f"it does not tolerate {', '.join(sorted(against))}"
        why = untolerated if against else "its nodeSelector or affinity does not fit"
        said = f"{message}. No pod of it came onto {', '.join(node.name for node in absent)}: {why}."
        hint = "plugin.install(aks) adds the tolerations of nodes that are there: run it again."
        return PluginNotScheduled(said, hint=hint, nodes=names, taints=tuple(sorted(against)))
    tails = {node: _tail(aks, pod) for node, pod in sorted(pods.items()) if node in names}
    told = [" ".join(filter(None, (node, *_pods.state(pods[node]), tail))) for node, tail in tails.items()]
    failure = of_log("\n".join(tails.values()))
    kind = failure.kind if failure and issubclass(failure.kind, GpuStackError) else GpuNotAdvertised
    said = "\n".join([f"{message}.", *told])
    return kind(said, hint=failure.fix if failure else _LATE_HINT, nodes=names, **(failure.facts if failure else {}))


def _observed(aks: HasKube, namespace: str, name: str) -> bool:
    """Whether the controller has seen the newest DaemonSet and renewed its pods (on CPU nodes, ready or not)."""
    daemon = aks.kube.get("DaemonSet", name, namespace)
    status = daemon.get("status") or {}
    desired = status.get("desiredNumberScheduled", 0)
    return bool(
        status.get("observedGeneration", 0) >= daemon["metadata"].get("generation", 0)
        and status.get("updatedNumberScheduled", 0) >= desired
    )


def _pods_by_node(aks: HasKube, daemon: Object) -> dict[str, Object]:
    labels = daemon["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    pods = aks.kube.list("Pod", daemon["metadata"]["namespace"], label_selector=selector)
    alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    return {_node_of(pod): pod for pod in alive}


def _node_of(pod: Object) -> str:
    """The node that a DaemonSet's pod is for; before it is scheduled, its node affinity tells."""
    if name := pod["spec"].get("nodeName"):
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
    word, message = _pods.state(pod)
    if word in _pods.STUCK and word != "ErrImagePull":  # that one is tried again at once
        tail = _tail(aks, pod)
        said = f"\nIts log ends:\n{tail}" if tail else ""
        failure = of_log(tail or message)
        kind = failure.kind if failure and issubclass(failure.kind, GpuStackError) else PluginFailed
        hint = "An image that cannot be pulled needs another manifest=; after a crash, read the log."
        raise kind(
            f"the device plugin's pod on {_node_of(pod)} does not run: {word}: {message}{said}",
            hint=failure.fix if failure else hint,
            nodes=(_node_of(pod),),
            **(failure.facts if failure else {}),
        )


def _tail(aks: HasKube, pod: Object) -> str:
    try:
        return read_log(aks.kube, pod["metadata"]["name"], pod["metadata"]["namespace"], tail=10).strip()
    except KubernetesError:
        return ""  # a log that cannot be had must not hide what went wrong


# Verify and remove


def verify(aks: HasKube) -> pd.DataFrame:
    """Whether each GPU node serves its GPUs, and what is wrong where not.

    Args:
        aks: the cluster.

    Returns:
        One row an NVIDIA GPU node: node and pool (string); plugin (string): the DaemonSet that runs there as
        namespace/name, ``service`` where the node advertises GPUs without one, NA where neither; state (string) of the
        plugin's pod; allocatable (Int64): GPUs, all kinds together; ok (boolean); problem (string): NA where ok.
    """
    nodes = [node for node in aks.kube.list("Node", pick=read) if node.nvidia]
    pods: dict[str, tuple[str, Object]] = {}
    for daemon in _daemons(aks):
        for node, pod in _pods_by_node(aks, daemon).items():
            pods[node] = "/".join(_key(daemon)), pod
    rows = [_verdict(node, *pods.get(node.name, ("", None))) for node in nodes]
    return frame(sorted(rows, key=lambda row: (row["pool"], row["node"])), _COLUMNS)


def _verdict(node: Node, plugin: str, pod: Object | None) -> dict[str, Any]:
    count = sum(node.allocatable.values())
    state = _pods.state(pod) if pod else None
    problem = None
    if not node.ready:
        problem = "the node is not ready"
    elif not count and state is None:
        problem = "no device plugin on this node: plugin.install(aks)"
    elif not count and state is not None and state.word != "Running":
        problem = f"the plugin's pod does not run: {state.word} {state.message}".strip()
    elif not count:
        problem = "the plugin runs and advertises no GPU: its log tells why (driver, NVML)"
    return {
        "node": node.name,
        "pool": node.pool,
        "plugin": plugin or ("service" if count else None),
        "state": state.word if state else None,
        "allocatable": count,
        "ok": problem is None,
        "problem": problem,
    }


def remove(aks: HasKube, *, namespace: bool = True, timeout: float | None = 300, progress: bool | None = None) -> None:
    """Delete the DaemonSet from ``gpu-resources``, and wait until its pods are gone. Twice is fine.

    Args:
        aks: the cluster.
        namespace: delete the namespace too, unless something else still lives in it.
        timeout: seconds; None means no limit.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.
    """
    timer = Timer(timeout)
    kube = aks.kube
    daemon: Object | None = None

    def gone() -> tuple[bool | None, str]:
        nonlocal daemon
        if daemon is None:
            found = kube.find("DaemonSet", NAME, NAMESPACE)
            if found is None:
                return True, ""
            with suppress(NotFound):
                kube.delete("DaemonSet", NAME, NAMESPACE, propagation_policy="Foreground")
            daemon = found
        left = len(_pods_by_node(aks, daemon))
        return (None if left or kube.find("DaemonSet", NAME, NAMESPACE) else True), f"{left} pods left"

    on_interrupt = "The removal goes on; plugin.remove(aks) waits again."
    what = "removing the device plugin"
    wait_until(gone, what, timeout=timer, progress=progress, on_interrupt=on_interrupt)
    if namespace:
        _remove_namespace(aks, timer, progress, on_interrupt)


def _remove_namespace(aks: HasKube, timer: Timer, progress: bool | None, on_interrupt: str) -> None:
    asked = False

    def gone() -> tuple[bool | None, str]:
        nonlocal asked
        there = aks.kube.find("Namespace", NAMESPACE)
        if there is None:
            return True, ""
        if not asked:
            if any(aks.kube.list(kind, NAMESPACE) for kind in ("DaemonSet", "Pod", "Job", "Service")):
                return True, ""
            with suppress(NotFound):
                aks.kube.delete("Namespace", NAMESPACE)
            asked = True
        return None, str(there.get("status", {}).get("phase"))

    what = f"deleting namespace {NAMESPACE}"
    wait_until(gone, what, timeout=timer, progress=progress, on_interrupt=on_interrupt)
