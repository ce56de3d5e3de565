"""The GPUs and the nodes of a cluster, as DataFrames."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from aksgpu.capacity.dra_devices import DeviceUse, read_devices
from aksgpu.capacity.gpu_usage import Usage, holders, usage, usage_or_none
from aksgpu.common.arguments import shown
from aksgpu.common.frames import frame
from aksgpu.errors import InvalidInput
from aksgpu.kube.client import HasKube
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.kube.node_facts import Node, read, taint_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "By", "gpu_nodes", "gpu_table", "gpus", "nodes"]

By = Literal["pool", "model", "namespace"]
"""What :func:`gpus` groups by."""

COLUMNS = {
    "node": "string",
    "pool": "string",
    "nap": "boolean",
    "vm_size": "string",
    "gpu_model": "string",
    "simulated": "boolean",
    "resource": "string",
    "capacity": "Int64",
    "allocatable": "Int64",
    "used": "Int64",
    "free": "Int64",
    "health": "string",
    "problem": "string",
    "ready": "boolean",
    "schedulable": "boolean",
    "taints": "string",
    "used_by": "string",
}
"""The columns of :func:`gpus` and their dtypes."""
_COUNTS = {
    "nodes": "Int64",
    "capacity": "Int64",
    "allocatable": "Int64",
    "used": "Int64",
    "free": "Int64",
    "unhealthy": "Int64",
    "used_by": "string",
}
_NAMESPACE_COLUMNS = {
    "namespace": "string",
    "resource": "string",
    "used": "Int64",
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


def gpus(aks: HasKube, *, by: By | None = None) -> pd.DataFrame:
    """Return the GPUs of all GPU nodes, sorted by pool and node. Tainted and cordoned nodes are included.

    A notebook shows a shortened table with the totals. ``table.totals()`` returns the totals as a DataFrame.

    Args:
        aks: the cluster.
        by: ``"pool"``, ``"model"`` or ``"namespace"`` sums the GPUs; None returns one row for each node and resource.

    Returns:
        With ``by=None``, one row for each node and GPU resource:

        - node (string): name of the node.
        - pool (string): AKS node pool, or the NodePool of node auto-provisioning; empty on other clusters.
        - nap (boolean): whether node auto-provisioning created the node.
        - vm_size (string): such as ``Standard_NC4as_T4_v3``.
        - gpu_model (string): from a label such as ``nvidia.com/gpu.product``, or else from the VM size; NA if neither
          has it.
        - simulated (boolean): whether the node's GPUs are simulated.
        - resource (string): ``nvidia.com/gpu``, ``amd.com/gpu``, that of a MIG slice such as ``nvidia.com/mig-1g.5gb``,
          or for GPUs of dynamic resource allocation its driver, such as ``gpu.nvidia.com``.
        - capacity (Int64): number of GPUs that the device plugin or the driver reports; 0 without a plugin; NA if the
          node has not reported its resources yet.
        - allocatable (Int64): number of healthy GPUs; NA if capacity is.
        - used (Int64): number of GPUs of scheduled pods; NA if you may not list the pods of all namespaces, or the
          claims.
        - free (Int64): allocatable minus used; NA if one of them is.
        - health (string): from the conditions of AKS' node problem detector: ``healthy``, ``unhealthy``, or ``unknown``
          if a check has no result yet; NA if the node has no such conditions.
        - problem (string): the conditions that are not healthy, with their messages; NA if there are none.
        - ready (boolean): the node's Ready condition.
        - schedulable (boolean): whether it is ready, not cordoned, and without a taint that Kubernetes added, such as
          for disk pressure. Taints of the pool are ignored.
        - taints (string): such as ``sku=gpu:NoSchedule``, comma-separated.
        - used_by (string): Jobs, or pods without a Job, that use GPUs, with the number of GPUs if it is not 1; NA if
          used is.

        With ``by="pool"`` or ``by="model"``, one row for each pool or model and resource: pool or gpu_model, resource
        (string), nodes, capacity, allocatable, used, free, unhealthy (Int64; the number of unhealthy nodes), and
        used_by (string). A sum is NA if a part of it is.

        With ``by="namespace"``, one row for each namespace that uses GPUs and resource: namespace, resource (string),
        used (Int64), used_by (string).

    Raises:
        InvalidInput: an argument is wrong.
        Forbidden: you may not list nodes, or with ``by="namespace"`` the pods of all namespaces.

    Example:
        capacity.gpus(aks, by="pool")
    """
    check_cluster(aks)
    if by is not None and by not in get_args(By):
        raise InvalidInput(
            f'`by` must be "pool", "model", "namespace" or None, got {shown(by)}', hint='For example by="pool".'
        )
    if by == "namespace":
        return _by_namespace(aks)
    table = gpu_table(aks, gpu_nodes(aks), usage_or_none(aks))
    return table if by is None else _grouped(table, {"pool": "pool", "model": "gpu_model"}[by])


def gpu_nodes(aks: HasKube) -> list[Node]:
    """Return the nodes with GPUs."""
    return [node for node in aks.kube.list("Node", pick=read) if node.gpu]


def gpu_table(aks: HasKube, found: Iterable[Node], using: Mapping[str, Usage] | None) -> pd.DataFrame:
    """Return the table of :func:`gpus` for nodes and their use.

    Args:
        aks: the cluster, of which the devices of dynamic resource allocation are read.
        found: the nodes.
        using: GPUs in use by node; None if unknown.
    """
    from aksgpu.capacity.capacity_display import GpuTable  # imports pandas, which takes half a second

    devices = read_devices(aks)
    rows = []
    for node in sorted(found, key=lambda node: (node.pool, node.name)):
        use = None if using is None else using.get(node.name, Usage())
        advertised = [name for name, count in sorted(node.capacity.items()) if count]
        through_driver = sorted(devices.get(node.name, {}))
        for resource in advertised or ([] if through_driver else sorted(node.capacity) or [node.resource]):
            rows.append(_row(node, resource, use))
        for driver in through_driver:
            rows.append(_device_row(node, driver, devices[node.name][driver]))
    return GpuTable(frame(rows, COLUMNS))


def _node_part(node: Node) -> dict[str, Any]:
    """Return the columns that describe the node."""
    return {
        "node": node.name,
        "pool": node.pool,
        "nap": node.auto_provisioned,
        "vm_size": node.vm_size,
        "gpu_model": node.gpu_model or None,
        "simulated": node.simulated,
        "health": node.health.state or None,
        "problem": node.health.text or None,
        "ready": node.ready,
        "schedulable": node.usable,
        "taints": ", ".join(map(taint_text, node.taints)),
    }


def _row(node: Node, resource: str, use: Usage | None) -> dict[str, Any]:
    capacity = node.capacity.get(resource, 0) if node.reported else None
    allocatable = node.allocatable.get(resource, 0) if node.reported else None
    free = None
    if use is not None and allocatable is not None:
        free = max(0, allocatable - use.taken[resource])
    return {
        **_node_part(node),
        "resource": resource,
        "capacity": capacity,
        "allocatable": allocatable,
        "used": None if use is None else use.taken[resource],
        "free": free,
        "used_by": None if use is None else holders(use, resource),
    }


def _device_row(node: Node, driver: str, devices: DeviceUse) -> dict[str, Any]:
    """Return the row for a node's GPUs of dynamic resource allocation."""
    part = _node_part(node)
    users = devices.users
    return {
        **part,
        "gpu_model": devices.model or part["gpu_model"],
        "resource": driver,
        "capacity": devices.count,
        "allocatable": devices.usable,
        "used": None if users is None else sum(users.values()),
        "free": None if users is None else max(0, devices.usable - sum(users.values())),
        "used_by": None if users is None else _names(users),
    }


def _names(users: Mapping[str, int]) -> str:
    """Return users and their numbers of GPUs as text, as :func:`holders` does."""
    use = Usage(by=defaultdict(Counter, {"": Counter(users)}))
    return holders(use, "")


# Views


def _grouped(table: pd.DataFrame, key: str) -> pd.DataFrame:
    """Return the sums of a table by a column and by resource."""
    from aksgpu.capacity.capacity_display import GpuTable

    rows = []
    for (name, resource), part in table.groupby([key, "resource"], dropna=False, sort=True):
        rows.append({key: name, "resource": resource, **_sums(part)})
    dtypes = {key: "string", "resource": "string", **_COUNTS}
    return GpuTable(frame([_without_na(row) for row in rows], dtypes))


def _without_na(row: Mapping[str, Any]) -> dict[str, Any]:
    import pandas as pd

    return {name: None if pd.isna(value) else value for name, value in row.items()}


def _sums(part: pd.DataFrame) -> dict[str, Any]:
    counts = {name: part[name].sum(skipna=False) for name in ("capacity", "allocatable", "used", "free")}
    users = [text for text in part["used_by"].dropna() if text]
    return {
        "nodes": part["node"].nunique(),
        **counts,
        "unhealthy": part.loc[part["health"].eq("unhealthy").fillna(False), "node"].nunique(),
        "used_by": None if part["used_by"].isna().any() else ", ".join(dict.fromkeys(users)),
    }


def _by_namespace(aks: HasKube) -> pd.DataFrame:
    from aksgpu.capacity.capacity_display import GpuTable

    users: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for use in usage(aks).values():
        for resource, owners in use.by.items():
            for owner, count in owners.items():
                users[owner.partition("/")[0], resource][owner] += count
    for drivers in read_devices(aks).values():
        for driver, devices in drivers.items():
            for owner, count in (devices.users or {}).items():
                users[owner.partition("/")[0], driver][owner] += count
    rows = [
        {"namespace": namespace, "resource": resource, "used": sum(owners.values()), "used_by": _names(owners)}
        for (namespace, resource), owners in sorted(users.items())
    ]
    return GpuTable(frame(rows, _NAMESPACE_COLUMNS))


# Nodes


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
