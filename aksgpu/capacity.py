"""GPUs of a cluster as DataFrames: what each node has, who uses it, and whether another Job would fit.

The numbers come from the status of the nodes, as for the scheduler: a node without a running device plugin has no GPUs,
whatever its VM size. :mod:`aksgpu.diagnose` explains why a pod is not scheduled.
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

POLL_SECONDS = 1.0
"""Seconds between two polls in :func:`wait_schedulable`."""
_ON_NODES = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
"""Field selector for pods that use resources of a node."""
_GPU_COLUMNS = {
    "node": "string",
    "pool": "string",
    "vm_size": "string",
    "gpu_model": "string",
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
        taken: number of GPUs by resource name.
        by: for each resource name, number of GPUs by user (``namespace/name`` of a Job or pod).
    """

    taken: Counter[str] = field(default_factory=Counter)
    by: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


def gpus(aks: HasKube) -> pd.DataFrame:
    """Return the GPUs of all GPU nodes, sorted by pool and node. Tainted and cordoned nodes are included.

    Args:
        aks: the cluster.

    Returns:
        One row for each node and GPU resource:

        - node (string): name of the node.
        - pool (string): AKS node pool; empty on other clusters.
        - vm_size (string): such as ``Standard_NC4as_T4_v3``.
        - gpu_model (string): from the label ``nvidia.com/gpu.product``, or else from the VM size; NA if neither has it.
        - simulated (boolean): whether the node's GPUs are simulated.
        - resource (string): ``nvidia.com/gpu``, or that of a MIG slice such as ``nvidia.com/mig-1g.5gb``.
        - capacity (Int64): number of GPUs that the device plugin reports; 0 without a plugin; NA if the node has not
          reported its resources yet.
        - allocatable (Int64): number of healthy GPUs; NA if capacity is.
        - used (Int64): number of GPUs of scheduled pods; NA if you may not list the pods of all namespaces.
        - free (Int64): allocatable minus used; NA if one of them is.
        - ready (boolean): the node's Ready condition.
        - schedulable (boolean): whether it is ready, not cordoned, and without a taint that Kubernetes added, such as
          for disk pressure. Taints of the pool are ignored.
        - taints (string): such as ``sku=gpu:NoSchedule``, comma-separated.
        - used_by (string): Jobs, or pods without a Job, that use GPUs, with the number of GPUs if it is not 1; NA if
          used is.

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
        "gpu_model": node.gpu_model or None,
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
    """Return the users of a node's GPUs as text: ``default/train, default/sweep (2)``."""
    texts = []
    for name, count in sorted(use.by[resource].items()):
        texts.append(name if count == 1 else f"{name} ({count})")
    return ", ".join(texts)


def nodes(aks: HasKube) -> pd.DataFrame:
    """Return all nodes of the cluster, sorted by pool and node.

    Args:
        aks: the cluster.

    Returns:
        One row for each node:

        - node, pool, vm_size, taints (string): as for :func:`gpus`.
        - mode (string): ``system`` or ``user``; NA on other clusters.
        - gpus (Int64): number of healthy GPUs of all resources; NA if the node has not reported its resources yet.
        - ready, schedulable (boolean): as for :func:`gpus`.
        - version (string): version of the kubelet.

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
    """Return the GPUs in use by node. Nodes without GPUs in use are omitted.

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
    """Return the GPUs in use by node; None if the user may not list the pods of all namespaces."""
    try:
        return usage(aks)
    except Forbidden:
        return None


def _gpu_nodes(aks: HasKube) -> list[Node]:
    return [node for node in aks.kube.list("Node", pick=read) if node.gpu]


def wait_schedulable(
    aks: HasKube, *, gpus: int = 1, timeout: Timeout = 600, progress: bool | None = None
) -> pd.DataFrame:
    """Wait until a pod with that many GPUs could be scheduled.

    Args:
        aks: the cluster.
        gpus: number of GPUs of one pod.
        timeout: seconds, or text such as ``"10m"``; None means no limit.
        progress: False shows no progress; None reads ``AKSGPU_PROGRESS``.

    Returns:
        As :func:`gpus`. If ``used`` is NA because you may not list the pods of all namespaces, all allocatable GPUs
        counted as free, which is a guess.

    Raises:
        InvalidInput: an argument is wrong.
        WaitTimeout: the time ran out. The message has the reason for each GPU node, the hint what to do.
        Unreachable: the time ran out while the API server did not respond.
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
        obstacles[:] = _obstacles(found, gpus, using)
        if len(obstacles) < len(found):
            return _frame(found, using), ""
        return None, _in_words(obstacles)

    try:
        return wait_until(
            poll,
            "a schedulable GPU" if gpus == 1 else f"{gpus} schedulable GPUs on one node",
            timeout=limit,
            interval=POLL_SECONDS,
            progress=progress,
            on_interrupt="Nothing was changed; capacity.wait_schedulable(aks) waits again.",
        )
    except WaitTimeout as late:
        late.hint = _hint(aks, obstacles)
        raise


@dataclass(frozen=True)
class _Obstacle:
    """Why a pod cannot be scheduled onto a GPU node."""

    node: str
    reason: str
    action: str


def _obstacles(nodes: Iterable[Node], gpus: int, using: Mapping[str, Usage] | None) -> list[_Obstacle]:
    """Return the obstacles of the nodes that cannot take a pod with that many GPUs."""
    found = []
    for node in sorted(nodes, key=lambda node: (node.pool, node.name)):
        use = None if using is None else using.get(node.name, Usage())
        obstacle = _obstacle(node, gpus, use)
        if obstacle is not None:
            found.append(obstacle)
    return found


def _obstacle(node: Node, gpus: int, use: Usage | None) -> _Obstacle | None:
    """Return why a pod with that many GPUs cannot be scheduled onto a node; None if it can."""
    uncordon = f"kubectl uncordon {node.name} lets pods onto it again."
    describe = f"kubectl describe node {node.name} shows its conditions."
    if node.cordoned and not node.ready:
        return _Obstacle(node.name, f"cordoned and not ready ({node.readiness})", f"{uncordon} {describe}")
    if node.cordoned:
        return _Obstacle(node.name, "cordoned", uncordon)
    if not node.ready:
        return _Obstacle(node.name, f"not ready ({node.readiness})", describe)
    if node.temporary_taints:
        taints = ", ".join(map(taint_text, node.temporary_taints))
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
    """Return why a node that advertises GPUs has too few; None if it has enough."""
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
"""Nodes with the same obstacle that are named. The others are counted."""


def _in_words(obstacles: list[_Obstacle]) -> str:
    """Return the obstacles of all nodes as text, with the nodes of the same obstacle together."""
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
    """Return what to do about the obstacles, each action once."""
    if obstacles:
        return " ".join(dict.fromkeys(obstacle.action for obstacle in obstacles[:_NAMED_NODES]))
    if getattr(aks, "azure", None) is not None:
        return 'cluster.add_gpu_pool(aks, "gpunp", vm_size="Standard_NC4as_T4_v3", count=1) adds a GPU node.'
    return (
        "Add a node with a GPU to the cluster. In a test cluster without one, "
        "capacity.advertise(aks, node, gpus=1) makes pods that ask for a GPU schedulable."
    )


def advertise(aks: HasKube, node: str, *, gpus: int = 1) -> None:
    """Write GPUs that do not exist into a node's status, as Kubernetes documents it for extended resources.

    This is for test clusters without a GPU (kind, k3d, minikube): pods that request a GPU are scheduled. A device
    plugin on the node overwrites the number. :func:`aksgpu.plugin.install` removes these GPUs before it installs a
    plugin, and :func:`aksgpu.plugin.status` reports them.

    Args:
        aks: the cluster.
        node: name of the node.
        gpus: number of GPUs; 0 removes them.

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


def __dir__() -> list[str]:
    return list(__all__)
