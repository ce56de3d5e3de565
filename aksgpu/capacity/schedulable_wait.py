"""Wait until a pod with a number of GPUs could be scheduled, and name what prevents it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aksgpu.capacity.dra_devices import DeviceUse, read_devices
from aksgpu.capacity.gpu_table import gpu_nodes, gpu_table
from aksgpu.capacity.gpu_usage import Usage, holders, usage_or_none
from aksgpu.common.arguments import integer
from aksgpu.errors import WaitTimeout
from aksgpu.kube.client import HasKube
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.kube.node_facts import Node, taint_text
from aksgpu.waiting import Timeout, check_timeout, wait_until

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["wait_schedulable"]

POLL_SECONDS = 1.0
"""Seconds between two polls in :func:`wait_schedulable`."""


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
        found = gpu_nodes(aks)
        using = usage_or_none(aks)
        without = any(not any(node.capacity.values()) for node in found)
        obstacles[:] = _obstacles(found, gpus, using, read_devices(aks) if without else {})
        if len(obstacles) < len(found):
            return gpu_table(aks, found, using), ""
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


def _obstacles(
    nodes: Iterable[Node],
    gpus: int,
    using: Mapping[str, Usage] | None,
    devices: Mapping[str, Mapping[str, DeviceUse]],
) -> list[_Obstacle]:
    """Return the obstacles of the nodes that cannot take a pod with that many GPUs."""
    found = []
    for node in sorted(nodes, key=lambda node: (node.pool, node.name)):
        use = None if using is None else using.get(node.name, Usage())
        obstacle = _obstacle(node, gpus, use, sorted(devices.get(node.name, ())))
        if obstacle is not None:
            found.append(obstacle)
    return found


def _obstacle(node: Node, gpus: int, use: Usage | None, drivers: list[str]) -> _Obstacle | None:
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
        wait = f"Kubernetes removes {taints} when the cause is gone: kubectl describe node {node.name} shows the cause."
        return _Obstacle(node.name, f"taint {taints}", wait)
    if not node.reported:
        return _Obstacle(node.name, "no resources reported yet", "Wait until its kubelet has started.")
    if drivers and not any(node.capacity.values()):
        return _Obstacle(
            node.name,
            f"its GPUs are allocated by {', '.join(drivers)} through resource claims, not as {node.resource}",
            "Ask for them with resourceClaims in the pod's spec: kubectl get deviceclasses shows the classes.",
        )
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
        healthy = node.allocatable.get(resource, 0)
        taken = use.taken[resource] if use is not None else 0
        if healthy - taken >= gpus:
            return None
        if not healthy:
            reasons.append(f"0 of {node.capacity[resource]} {resource} healthy")
            action = "plugin.status(aks) shows what is wrong with its GPUs."
        elif healthy < gpus:
            reasons.append(f"{healthy} {resource}, fewer than {gpus}")
            action = f"Ask for {healthy} or fewer, or add nodes of a larger size."
        else:
            holding = f" by {holders(use, resource)}" if use is not None else ""
            reasons.append(f"{taken} of {healthy} {resource} taken{holding}")
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
        return (
            'cluster.add_gpu_pool(aks, "gpunp", vm_size="Standard_NC4as_T4_v3", count=1) adds a GPU node. '
            "In a shell: az aks nodepool add --resource-group GROUP --cluster-name CLUSTER --name gpunp "
            "--node-count 1 --node-vm-size Standard_NC4as_T4_v3 --node-taints sku=gpu:NoSchedule"
        )
    return (
        "Add a node with a GPU to the cluster. In a test cluster without one, "
        "capacity.advertise(aks, node, gpus=1) makes pods that ask for a GPU schedulable."
    )
