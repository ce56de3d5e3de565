"""The NodePool object, the table of a cluster's pools, and their prices. Changes nothing in Azure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from aksgpu.azure import resources
from aksgpu.azure.calls import call
from aksgpu.azure.subscription import Azure, translated
from aksgpu.azure.throttling import READ_TIMEOUT
from aksgpu.cluster.cluster_model import Cluster, azure_of
from aksgpu.common.frames import facts_html, frame
from aksgpu.common.gpu_size_table import GpuSize, is_gpu_size, lookup
from aksgpu.sizes import skus_and_quota
from aksgpu.waiting import Timeout

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NodePool", "from_properties", "list_pools", "priced", "priced_pool", "read_pools", "usd_per_hour"]


@dataclass(frozen=True)
class NodePool:
    """A node pool as it was when it was read.

    Attributes:
        name: name of the pool.
        cluster: name of its cluster.
        vm_size: VM size of its nodes.
        count: number of nodes.
        mode: ``System`` or ``User``.
        state: provisioning state, such as ``Succeeded``.
        power: ``Running`` or ``Stopped``.
        taints: such as ``sku=gpu:NoSchedule``.
        labels: labels that the pool sets on its nodes.
        min_count: minimum number of nodes if autoscaled, otherwise None.
        max_count: maximum number of nodes if autoscaled, otherwise None.
        spot: whether its nodes are spot VMs.
        zones: availability zones.
        usd_per_hour: price of all its nodes in US dollars per hour; None if unknown.
    """

    name: str
    cluster: str
    vm_size: str
    count: int
    mode: str = "User"
    state: str = "Succeeded"
    power: str = "Running"
    taints: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    min_count: int | None = None
    max_count: int | None = None
    spot: bool = False
    zones: tuple[str, ...] = ()
    usd_per_hour: float | None = None

    @property
    def gpu_model(self) -> str:
        """Model of the GPUs; empty for CPU sizes and for sizes newer than this package."""
        size = self._gpu_size()
        return "" if size is None else size.gpu_model

    @property
    def gpus(self) -> int:
        """GPUs that Kubernetes counts on all nodes together; 0 for sizes that are not known."""
        size = self._gpu_size()
        return 0 if size is None else size.devices * self.count

    def _gpu_size(self) -> GpuSize | None:
        return lookup(self.vm_size) if is_gpu_size(self.vm_size) else None

    def __repr__(self) -> str:
        facts = [f"{self.count} x {self.vm_size}"]
        if self.gpu_model:
            facts[0] += f" ({self.gpu_model})"
        if self.max_count is not None:
            facts.append(f"autoscaled {self.min_count} to {self.max_count}")
        if self.spot:
            facts.append("spot")
        facts.append(self.state)
        if self.power != "Running":
            facts.append(self.power)
        if self.usd_per_hour is not None:
            facts.append(f"USD {self.usd_per_hour:.3f} an hour")
        return f"NodePool({self.name} of {self.cluster}: {', '.join(facts)})"

    def _repr_html_(self) -> str:
        facts = {
            "nodes": f"{self.count} x {self.vm_size}",
            "GPUs": f"{self.gpus} x {self.gpu_model}" if self.gpu_model else "none",
            "autoscaled": "" if self.max_count is None else f"{self.min_count} to {self.max_count} nodes",
            "spot": "yes" if self.spot else "",
            "state": f"{self.state}, {self.power}",
            "taints": ", ".join(self.taints) or "none",
            "zones": ", ".join(self.zones) or "none",
            "USD an hour": "price unknown" if self.usd_per_hour is None else f"{self.usd_per_hour:.3f}",
        }
        return facts_html(f"Node pool {self.name} of {self.cluster}", facts)


_COLUMNS = {
    "pool": "string",
    "mode": "string",
    "vm_size": "string",
    "gpu_model": "string",
    "gpus": "Int64",
    "count": "Int64",
    "min_count": "Int64",
    "max_count": "Int64",
    "spot": "boolean",
    "taints": "string",
    "state": "string",
    "power": "string",
    "usd_per_hour": "Float64",
}


@call("listing node pools of {}")
def list_pools(aks: Cluster, *, timeout: Timeout = READ_TIMEOUT) -> pd.DataFrame:
    """Return the node pools of a cluster.

    Args:
        aks: the cluster.
        timeout: seconds, or text such as ``"2m"``, to keep trying while Azure gives no usable response; None for no
            limit.

    Returns:
        A DataFrame, one row per pool, sorted by name:

        - ``pool`` (string): name of the pool.
        - ``mode`` (string): ``System`` or ``User``.
        - ``vm_size``, ``gpu_model`` (string); ``gpu_model`` is NA without GPU.
        - ``gpus`` (Int64): GPUs that Kubernetes counts on all nodes together.
        - ``count`` (Int64): nodes; ``min_count``, ``max_count`` (Int64): limits if autoscaled, otherwise NA.
        - ``spot`` (boolean).
        - ``taints`` (string): separated by commas; empty for none.
        - ``state`` (string): provisioning state; ``power`` (string): ``Running`` or ``Stopped``.
        - ``usd_per_hour`` (Float64): price of all nodes in US dollars per hour; NA if unknown.

    Raises:
        AzureNotFound: the cluster does not exist.
        AzureUnreachable: Azure gave no usable response in time.
    """
    rows = [_row(pool) for pool in priced(azure_of(aks), aks.location, read_pools(aks))]
    return frame(rows, _COLUMNS).sort_values("pool", ignore_index=True)


def read_pools(aks: Cluster) -> list[NodePool]:
    """Return the node pools of a cluster, without prices."""
    azure = azure_of(aks)
    with translated(f"node pools of {aks.name}"):
        found = [dict(model.as_dict()) for model in azure.client.agent_pools.list(aks.resource_group, aks.name)]
    return [from_properties(aks.name, item["name"], item["properties"]) for item in found]


def _row(pool: NodePool) -> dict[str, Any]:
    row = {column: getattr(pool, column) for column in _COLUMNS if column != "pool"}
    return row | {
        "pool": pool.name,
        "gpu_model": pool.gpu_model or None,
        "taints": ",".join(pool.taints),
    }


@call("reading the price of cluster {}")
def usd_per_hour(aks: Cluster, *, timeout: Timeout = READ_TIMEOUT) -> float | None:
    """Return what the nodes of a cluster cost at present, in US dollars per hour.

    :func:`list_pools` has the price of each pool, and :func:`leftovers` includes the disks.

    Args:
        aks: the cluster.
        timeout: seconds, or text such as ``"2m"``, to keep trying while Azure gives no usable response; None for no
            limit.

    Returns:
        The price of all nodes, 0 for a stopped cluster; None if the price of a pool is unknown.

    Raises:
        AzureNotFound: the cluster does not exist.
        AzureUnreachable: Azure gave no usable response in time.

    Example:
        >>> cluster.usd_per_hour(aks)
        0.622
    """
    azure = azure_of(aks)
    found = resources.find_cluster(azure, aks.resource_group, aks.name)
    if found is None:
        raise resources.cluster_not_found(azure, aks.resource_group, aks.name)
    if resources.power_of(found) == "Stopped":
        return 0.0
    profiles = found["properties"].get("agentPoolProfiles") or ()
    pools = [from_properties(aks.name, str(profile["name"]), profile) for profile in profiles]
    total = 0.0
    for pool in priced(azure, aks.location, pools):
        if pool.usd_per_hour is None:
            return None
        total += pool.usd_per_hour
    return round(total, 4)


def from_properties(cluster: str, name: str, properties: Mapping[str, Any]) -> NodePool:
    """Return the object for a pool as Resource Manager represents it, without its price."""
    autoscaled = bool(properties.get("enableAutoScaling"))
    resource = {"properties": properties}
    return NodePool(
        name=name,
        cluster=cluster,
        vm_size=str(properties.get("vmSize") or ""),
        count=int(properties.get("count") or 0),
        mode=str(properties.get("mode") or "User"),
        state=resources.state_of(resource),
        power=resources.power_of(resource),
        taints=tuple(properties.get("nodeTaints") or ()),
        labels=dict(properties.get("nodeLabels") or {}),
        min_count=properties.get("minCount") if autoscaled else None,
        max_count=properties.get("maxCount") if autoscaled else None,
        spot=properties.get("scaleSetPriority") == "Spot",
        zones=tuple(properties.get("availabilityZones") or ()),
    )


def priced(azure: Azure, location: str, pools: Iterable[NodePool]) -> list[NodePool]:
    """Return the pools with their current price. A stopped pool has no nodes to pay for."""
    pools = list(pools)
    prices = skus_and_quota.prices(azure, location.lower(), [pool.vm_size for pool in pools])
    return [replace(pool, usd_per_hour=_price(pool, prices)) for pool in pools]


def _price(pool: NodePool, prices: Mapping[str, skus_and_quota.Price]) -> float | None:
    nodes = pool.count if pool.power == "Running" else 0
    if nodes == 0:
        return 0.0
    price = prices.get(pool.vm_size, skus_and_quota.Price())
    per_node = price.spot if pool.spot else price.on_demand
    return None if per_node is None else round(per_node * nodes, 4)


def priced_pool(aks: Cluster, resource: Mapping[str, Any]) -> NodePool:
    """Return the object for one pool of a cluster, with its price."""
    pool = from_properties(aks.name, str(resource["name"]), resource["properties"])
    return priced(azure_of(aks), aks.location, [pool])[0]
