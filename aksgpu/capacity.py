"""GPUs of a cluster, as DataFrames: what each node has, who uses it, and when one more Job would fit.

Numbers come from the nodes' status, as the scheduler sees it: a node whose device plugin does not run has no GPUs,
whatever its VM size. What keeps one pod from being scheduled is :mod:`aksgpu.diagnose`'s question.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aksgpu._frames import frame
from aksgpu._kube import names, pods
from aksgpu._kube.nodes import GPU, Node, read, taint_text
from aksgpu._numbers import whole
from aksgpu.errors import Forbidden
from aksgpu.kube import HasKube
from aksgpu.waiting import wait_until

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
        - capacity (Int64): GPUs that the device plugin counts; 0 where none runs.
        - allocatable (Int64): those of them that are healthy.
        - used (Int64): GPUs promised to pods; NA where you may not list the pods of all namespaces.
        - free (Int64): allocatable less used; NA with used.
        - ready (boolean): the node's Ready condition.
        - schedulable (boolean): ready and not cordoned. Taints do not count here.
        - taints (string): such as ``sku=gpu:NoSchedule``, comma-separated.
        - used_by (string): Jobs (or pods without one) that hold GPUs, with their number where it is not 1; NA with
          used.

    Raises:
        Forbidden: you may not list nodes.
    """
    return _frame(_gpu_nodes(aks), usage_or_none(aks))


def _frame(found: Iterable[Node], using: Mapping[str, Usage] | None) -> pd.DataFrame:
    rows = [
        _row(node, resource, None if using is None else using.get(node.name, Usage()))
        for node in sorted(found, key=lambda node: (node.pool, node.name))
        for resource in sorted(node.capacity) or [GPU]
    ]
    return frame(rows, _GPU_COLUMNS)


def _row(node: Node, resource: str, use: Usage | None) -> dict[str, Any]:
    allocatable = node.allocatable.get(resource, 0)
    return {
        "node": node.name,
        "pool": node.pool,
        "vm_size": node.vm_size,
        "model": node.model or None,
        "simulated": node.simulated,
        "resource": resource,
        "capacity": node.capacity.get(resource, 0),
        "allocatable": allocatable,
        "used": None if use is None else use.taken[resource],
        "free": None if use is None else max(0, allocatable - use.taken[resource]),
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
        kubelet), all string; gpus (Int64, allocatable, all kinds together); ready and schedulable (boolean).

    Raises:
        Forbidden: you may not list nodes.
    """
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
                "gpus": sum(node.allocatable.values()),
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
        Forbidden: you may not list the pods of all namespaces.
    """
    using: defaultdict[str, Usage] = defaultdict(Usage)
    for node, owner, wants in aks.kube.list("Pod", field_selector=_ON_NODES, pick=_picked):
        for resource, count in wants.items():
            using[node].taken[resource] += count
            using[node].by[resource][owner] += count
    return dict(using)


def _picked(pod: dict[str, Any]) -> tuple[str, str, dict[str, int]]:
    return pod["spec"]["nodeName"], pods.owner(pod), pods.gpus(pod["spec"])


def usage_or_none(aks: HasKube) -> dict[str, Usage] | None:
    """GPUs in use, by node; None where one may not list the pods of all namespaces."""
    try:
        return usage(aks)
    except Forbidden:
        return None


def _gpu_nodes(aks: HasKube) -> list[Node]:
    return [node for node in aks.kube.list("Node", pick=read) if node.gpu]


def wait_schedulable(
    aks: HasKube, gpus: int = 1, *, timeout: float | None = 600, progress: bool | None = None
) -> pd.DataFrame:
    """Wait until one node has so many GPUs free that a pod asking for them would be scheduled there.

    Args:
        aks: the cluster.
        gpus: GPUs of one pod.
        timeout: seconds; None means no limit.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.

    Returns:
        As :func:`gpus`. Where used is NA, allocatable counted as free.

    Raises:
        WaitTimeout: with what is there instead.
        Unreachable: time ran out while the API server gave no answer; with its last one.
        Forbidden: you may not list nodes.
    """
    whole("gpus", gpus, 1)

    def poll() -> tuple[pd.DataFrame | None, str]:
        found = _frame(_gpu_nodes(aks), usage_or_none(aks))
        free = found["free"].fillna(found["allocatable"])
        if bool((found["schedulable"] & (free >= gpus)).any()):
            return found, ""
        return None, _lack(found, free[found["schedulable"]].max())

    hint = (
        "cluster.add_gpu_pool(aks) adds GPU nodes, plugin.install(aks) makes their GPUs schedulable; "
        "capacity.gpus(aks) shows who uses them."
    )
    what = "a schedulable GPU" if gpus == 1 else f"{gpus} schedulable GPUs on one node"
    return wait_until(
        poll,
        what,
        timeout=timeout,
        interval=1.0,
        progress=progress,
        hint=hint,
        on_interrupt="Nothing was changed; capacity.wait_schedulable(aks) waits again.",
    )


def _lack(found: pd.DataFrame, most: int) -> str:
    if found.empty:
        return "no GPU node"
    if not found["schedulable"].any():
        return f"no GPU node of {len(found)} is ready"
    if not found["allocatable"].sum():
        return "the GPU nodes advertise no GPU: no device plugin"
    return f"{found['allocatable'].sum()} GPUs on {found['node'].nunique()} nodes, {most} free on one node at most"


def advertise(aks: HasKube, node: str, gpus: int = 1) -> None:
    """Write GPUs into a node's status, as Kubernetes documents for extended resources. Nothing is behind them.

    For test clusters without a GPU (kind, k3d, minikube), so that pods that ask for one are scheduled. A node whose
    device plugin runs tells its own number instead, and again after each change.

    Args:
        aks: the cluster.
        node: name of the node.
        gpus: how many; 0 takes them away.
    """
    names.check_name("Node", node, "node")
    whole("gpus", gpus, 0)
    resources = {GPU: str(gpus) if gpus else None}
    aks.kube.patch("Node", node, {"status": {"capacity": resources, "allocatable": resources}}, subresource="status")
