"""GPUs of a cluster, as DataFrames: what each node has, who uses it, and when one more Job would fit.

Numbers come from the nodes' status, as the scheduler sees it: a node whose device plugin does not run has no GPUs,
whatever its VM size. What keeps one pod from being scheduled is :mod:`aksgpu.diagnose`'s question.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aksgpu.common.arguments import integer
from aksgpu.common.frames import frame
from aksgpu.errors import Forbidden, WaitTimeout
from aksgpu.kube import path_names, pod_facts
from aksgpu.kube.client import HasKube
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.kube.node_facts import GPU, Node, read, taint_text
from aksgpu.waiting import Timeout, check_timeout, wait_until

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Usage", "advertise", "gpus", "nodes", "usage", "wait_schedulable"]

_ON_NODES = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
_GPU_COLUMNS = {
    "node": "string",
    "pool": "string",
    "vm_size": "string",
    "model": "string",
    "simulated": "boolean",
    "resource": "string",
    "capacity": "Int64",
    "allocatable": "Int64",
    "used": "Int64",
    "free": "Int64",
    "ready": "boolean",
    "schedulable": "boolean",
    "taints": "string",
    "used_by": "string",
}
_NODE_COLUMNS = {
    "node": "string",
    "pool": "string",
    "mode": "string",
    "vm_size": "string",
    "gpus": "Int64",
    "ready": "boolean",
    "schedulable": "boolean",
    "taints": "string",
    "version": "string",
}


@dataclass(frozen=True)
class Usage:
    """GPUs in use on one node.

    Attributes:
        taken: GPUs by resource name.
        by: for each resource name, GPUs by user (``namespace/name`` of a Job or pod).
    """

    taken: Counter[str] = field(default_factory=Counter)
    by: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


def gpus(aks: HasKube) -> pd.DataFrame:
    """GPUs of every GPU node, tainted and cordoned ones included, in the order of pool and node.

    Args:
        aks: the cluster.

    Returns:
        One row for each node and GPU resource:

        - node (string): its name.
        - pool (string): AKS node pool; empty elsewhere.
        - vm_size (string): such as ``Standard_NC4as_T4_v3``.
        - model (string): from the label ``nvidia.com/gpu.product``, or else from the VM size; NA where neither tells.
        - simulated (boolean): the node says that its GPUs are simulated.
        - resource (string): ``nvidia.com/gpu``, or that of a MIG slice such as ``nvidia.com/mig-1g.5gb``.
        - capacity (Int64): GPUs that the device plugin counts; 0 where none runs; NA where the node has not reported
          its resources yet.
        - allocatable (Int64): those of them that are healthy; NA with capacity.
        - used (Int64): GPUs promised to pods; NA where you may not list the pods of all namespaces.
        - free (Int64): allocatable less used; NA with either.
        - ready (boolean): the node's Ready condition.
        - schedulable (boolean): ready, not cordoned, and without a taint of Kubernetes' own, such as for disk pressure.
          Taints of the pool do not count here.
        - taints (string): such as ``sku=gpu:NoSchedule``, comma-separated.
        - used_by (string): Jobs (or pods without one) that hold GPUs, with their number where it is not 1; NA with
          used.

    Raises:
        InvalidInput: ``aks`` is not a cluster.
        Forbidden: you may not list nodes.
    """
    check_cluster(aks)
    return _frame(_gpu_nodes(aks), usage_or_none(aks))


def _frame(found: Iterable[Node], using: Mapping[str, Usage] | None) -> pd.DataFrame:
    rows = [
        _row(node, resource, None if using is None else using.get(node.name, Usage()))
        for node in sorted(found, key=lambda node: (node.pool, node.name))
        for resource in sorted(node.capacity) or [GPU]
    ]
    return frame(rows, _GPU_COLUMNS)


def _row(node: Node, resource: str, use: Usage | None) -> dict[str, Any]:
    capacity = node.capacity.get(resource, 0) if node.reported else None
    allocatable = node.allocatable.get(resource, 0) if node.reported else None
    free = None
    if use is not None and allocatable is not None:
        free = max(0, allocatable - use.taken[resource])
    return {
        "node": node.name,
        "pool": node.pool,
        "vm_size": node.vm_size,
        "model": node.model or None,
        "simulated": node.simulated,
        "resource": resource,
        "capacity": capacity,
        "allocatable": allocatable,
        "used": None if use is None else use.taken[resource],
        "free": free,
        "ready": node.ready,
        "schedulable": node.usable,
        "taints": ", ".join(map(taint_text, node.taints)),
        "used_by": None if use is None else holders(use, resource),
    }


def holders(use: Usage, resource: str) -> str:
    """Who holds GPUs of a node: ``default/train, default/sweep (2)``."""
    return ", ".join(f"{name} ({n})" if n != 1 else name for name, n in sorted(use.by[resource].items()))


def nodes(aks: HasKube) -> pd.DataFrame:
    """All nodes of the cluster, in the order of pool and node.

    Args:
        aks: the cluster.

    Returns:
        One row a node: node, pool, mode (``system`` or ``user``; NA elsewhere), vm_size, taints, version (of the
        kubelet), all string; gpus (Int64, allocatable, all kinds together; NA where the node has not reported its
        resources yet); ready and schedulable (boolean), as for :func:`gpus`.

    Raises:
        InvalidInput: ``aks`` is not a cluster.
        Forbidden: you may not list nodes.
    """
    check_cluster(aks)
    found = aks.kube.list("Node")
    rows = []
    for obj in found:
        node = read(obj)
        rows.append(
            {
                "node": node.name,
                "pool": node.pool,
                "mode": node.labels.get("kubernetes.azure.com/mode"),
                "vm_size": node.vm_size,
                "gpus": sum(node.allocatable.values()) if node.reported else None,
                "ready": node.ready,
                "schedulable": node.usable,
                "taints": ", ".join(map(taint_text, node.taints)),
                "version": (obj.get("status") or {}).get("nodeInfo", {}).get("kubeletVersion"),
            }
        )
    return frame(sorted(rows, key=lambda row: (row["pool"], row["node"])), _NODE_COLUMNS)


def usage(aks: HasKube) -> dict[str, Usage]:
    """GPUs in use, by node; nodes without any are left out.

    Args:
        aks: the cluster.

    Raises:
        InvalidInput: ``aks`` is not a cluster.
        Forbidden: you may not list the pods of all namespaces.
    """
    check_cluster(aks)
    using: defaultdict[str, Usage] = defaultdict(Usage)
    for node, owner, wants in aks.kube.list("Pod", all_namespaces=True, field_selector=_ON_NODES, pick=_picked):
        for resource, count in wants.items():
            using[node].taken[resource] += count
            using[node].by[resource][owner] += count
    return dict(using)


def _picked(pod: dict[str, Any]) -> tuple[str, str, dict[str, int]]:
    return pod["spec"]["nodeName"], pod_facts.owner(pod), pod_facts.gpus(pod["spec"])


def usage_or_none(aks: HasKube) -> dict[str, Usage] | None:
    """GPUs in use, by node; None where one may not list the pods of all namespaces."""
    try:
        return usage(aks)
    except Forbidden:
        return None


def _gpu_nodes(aks: HasKube) -> list[Node]:
    return [node for node in aks.kube.list("Node", pick=read) if node.gpu]


def wait_schedulable(
    aks: HasKube, *, gpus: int = 1, timeout: Timeout = 600, progress: bool | None = None
) -> pd.DataFrame:
    """Wait until one node has enough GPUs free that a pod asking for them would be scheduled there.

    Args:
        aks: the cluster.
        gpus: GPUs of one pod.
        timeout: seconds, or text such as ``"10m"``; None means no limit.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.

    Returns:
        As :func:`gpus`. Where ``used`` is NA because you may not list the pods of all namespaces, the wait took every
        allocatable GPU for a free one, which is a guess.

    Raises:
        InvalidInput: an argument is wrong.
        WaitTimeout: says of each GPU node what keeps a pod away, and what to do about it.
        Unreachable: time ran out while the API server gave no answer; with its last one.
        Forbidden: you may not list nodes.

    Example:
        capacity.wait_schedulable(aks, gpus=1, timeout=600)
    """
    check_cluster(aks)
    gpus = integer("gpus", gpus, 1)
    limit = check_timeout(timeout)
    obstacles: list[_Obstacle] = []

    def poll() -> tuple[pd.DataFrame | None, str]:
        found = _gpu_nodes(aks)
        using = usage_or_none(aks)
        obstacles[:] = []
        for node in sorted(found, key=lambda node: (node.pool, node.name)):
            obstacle = _obstacle(node, gpus, None if using is None else using.get(node.name, Usage()))
            if obstacle is None:
                return _frame(found, using), ""
            obstacles.append(obstacle)
        return None, _in_words(obstacles)

    what = "a schedulable GPU" if gpus == 1 else f"{gpus} schedulable GPUs on one node"
    try:
        return wait_until(
            poll,
            what,
            timeout=limit,
            interval=1.0,
            progress=progress,
            on_interrupt="Nothing was changed; capacity.wait_schedulable(aks) waits again.",
        )
    except WaitTimeout as late:
        late.hint = _hint(aks, obstacles)
        raise


@dataclass(frozen=True)
class _Obstacle:
    """What keeps a pod off one GPU node."""

    node: str
    reason: str
    action: str


def _obstacle(node: Node, gpus: int, use: Usage | None) -> _Obstacle | None:
    """What keeps a pod with that many GPUs off a node; None where nothing does."""
    uncordon = f"kubectl uncordon {node.name} lets pods onto it again."
    describe = f"kubectl describe node {node.name} shows its conditions."
    if node.cordoned and not node.ready:
        return _Obstacle(node.name, f"cordoned and not ready ({node.readiness})", f"{uncordon} {describe}")
    if node.cordoned:
        return _Obstacle(node.name, "cordoned", uncordon)
    if not node.ready:
        return _Obstacle(node.name, f"not ready ({node.readiness})", describe)
    if node.passing_taints:
        taints = ", ".join(map(taint_text, node.passing_taints))
        wait = f"Kubernetes removes {taints} when its cause is gone: kubectl describe node {node.name} shows it."
        return _Obstacle(node.name, f"taint {taints}", wait)
    if not node.reported:
        return _Obstacle(node.name, "no resources reported yet", "Wait until its kubelet has started.")
    if not any(node.capacity.values()):
        return _Obstacle(
            node.name,
            "no GPU advertised, because no device plugin serves it yet",
            "plugin.status(aks) shows the plugin on each node; plugin.install(aks) installs it.",
        )
    return _shortage(node, gpus, use)


def _shortage(node: Node, gpus: int, use: Usage | None) -> _Obstacle | None:
    """How a node that advertises GPUs has too few; None where it has enough of one resource."""
    reasons: list[str] = []
    action = "capacity.gpus(aks) shows who uses the GPUs."
    for resource in sorted(node.capacity):
        there = node.allocatable.get(resource, 0)
        taken = use.taken[resource] if use is not None else 0
        if there - taken >= gpus:
            return None
        if not there:
            reasons.append(f"0 of {node.capacity[resource]} {resource} healthy")
            action = "plugin.status(aks) shows what is wrong with its GPUs."
        elif there < gpus:
            reasons.append(f"{there} {resource}, fewer than {gpus}")
            action = f"Ask for {there} or fewer, or add nodes of a larger size."
        else:
            holding = f" by {holders(use, resource)}" if use is not None else ""
            reasons.append(f"{taken} of {there} {resource} taken{holding}")
    return _Obstacle(node.name, ", ".join(reasons), action)


_NAMED_NODES = 3
"""Nodes with the same obstacle that a text names; it counts the others."""


def _in_words(obstacles: list[_Obstacle]) -> str:
    """The obstacles of all nodes, those with the same one together."""
    if not obstacles:
        return "no GPU node"
    by_reason: dict[str, list[str]] = {}
    for obstacle in obstacles:
        by_reason.setdefault(obstacle.reason, []).append(obstacle.node)
    texts = []
    for reason, nodes in by_reason.items():
        more = f" and {len(nodes) - _NAMED_NODES} more" if len(nodes) > _NAMED_NODES else ""
        noun = "node" if len(nodes) == 1 else "nodes"
        texts.append(f"{noun} {', '.join(nodes[:_NAMED_NODES])}{more}: {reason}")
    return "; ".join(texts)


def _hint(aks: HasKube, obstacles: list[_Obstacle]) -> str:
    """What to do about the obstacles, each action once."""
    if obstacles:
        return " ".join(dict.fromkeys(obstacle.action for obstacle in obstacles[:_NAMED_NODES]))
    if getattr(aks, "azure", None) is not None:
        return 'cluster.add_gpu_pool(aks, "gpunp", vm_size="Standard_NC4as_T4_v3", count=1) adds a GPU node.'
    return (
        "Add a node with a GPU to the cluster. In a test cluster without one, "
        "capacity.advertise(aks, node, gpus=1) makes pods that ask for a GPU schedulable."
    )


def advertise(aks: HasKube, node: str, *, gpus: int = 1) -> None:
    """Write GPUs into a node's status, as Kubernetes documents for extended resources. Nothing is behind them.

    This is for test clusters without a GPU (kind, k3d, minikube), so that pods that ask for one are scheduled. A device
    plugin on the node overwrites the number with its own. :func:`aksgpu.plugin.install` takes away what was written
    here before it installs a plugin, and :func:`aksgpu.plugin.status` names such GPUs.

    Args:
        aks: the cluster.
        node: name of the node.
        gpus: how many; 0 takes them away.

    Raises:
        InvalidInput: an argument is wrong.
        NotFound: the cluster has no such node.
        Forbidden: you may not change the status of nodes.

    Example:
        capacity.advertise(aks, "kind-control-plane", gpus=2)
    """
    check_cluster(aks)
    path_names.check_name("Node", node, "node")
    gpus = integer("gpus", gpus, 0, 10**9)
    resources = {GPU: str(gpus) if gpus else None}
    aks.kube.patch("Node", node, {"status": {"capacity": resources, "allocatable": resources}}, subresource="status")
