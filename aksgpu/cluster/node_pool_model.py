"""A node pool as it was read, and the table of a cluster's pools, with what they cost. Changes nothing in Azure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from aksgpu.azure import resources
from aksgpu.azure.calls import call
from aksgpu.azure.subscription import Azure, translated
from aksgpu.azure.throttling import READ_TIMEOUT
from aksgpu.cluster import expiry
from aksgpu.cluster.cluster_model import Cluster, azure_of
from aksgpu.common.frames import facts_html, frame
from aksgpu.common.gpu_size_table import lookup
from aksgpu.errors import SizeNotAvailable
from aksgpu.sizes import skus_and_quota

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class NodePool:
    """A node pool as it was when it was read.

    Attributes:
        name: of the pool.
        cluster: name of its cluster.
        vm_size: of its nodes.
        count: nodes.
        mode: ``System`` or ``User``.
        state: provisioning state, such as ``Succeeded``.
        power: ``Running`` or ``Stopped``.
        taints: such as ``sku=gpu:NoSchedule``.
        labels: of its nodes, as the pool sets them.
        min_count: least nodes when autoscaled, else None.
        max_count: most nodes when autoscaled, else None.
        spot: whether its nodes are spot VMs.
        zones: availability zones.
        usd_per_hour: what all its nodes cost in US dollars an hour; None when not known.
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
    def gpu(self) -> str:
        """GPU model; empty for CPU sizes and sizes newer than this package."""
        try:
            return str(lookup(self.vm_size).gpu)
        except SizeNotAvailable:
            return ""

    @property
    def gpus(self) -> int:
        """GPUs that Kubernetes counts on all its nodes together; 0 for sizes that are not known."""
        try:
            return int(lookup(self.vm_size).devices * self.count)
        except SizeNotAvailable:
            return 0

    def __repr__(self) -> str:
        gpu = f" ({self.gpu})" if self.gpu else ""
        scaled = f", autoscaled {self.min_count} to {self.max_count}" if self.max_count is not None else ""
        kind = ", spot" if self.spot else ""
        state = self.state if self.power == "Running" else f"{self.state}, {self.power}"
        cost = "" if self.usd_per_hour is None else f", USD {self.usd_per_hour:.3f} an hour"
        nodes = f"{self.count} x {self.vm_size}{gpu}{scaled}{kind}"
        return f"NodePool({self.name} of {self.cluster}: {nodes}, {state}{cost})"

    def _repr_html_(self) -> str:
        facts = {
            "nodes": f"{self.count} x {self.vm_size}",
            "GPUs": f"{self.gpus} x {self.gpu}" if self.gpu else "none",
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
    "gpu": "string",
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
def pools(aks: Cluster, *, timeout: float | None = READ_TIMEOUT) -> pd.DataFrame:
    """The cluster's node pools.

    Args:
        aks: the cluster.
        timeout: seconds to go on trying while Azure gives no usable answer; None for no limit.

    Returns:
        A DataFrame, one row a pool, sorted by name:

        - ``pool``, ``mode`` (``System`` or ``User``), ``vm_size``, ``gpu`` (GPU model; NA without) (string).
        - ``gpus`` (Int64): GPUs that Kubernetes counts on all its nodes together.
        - ``count`` (Int64): nodes; ``min_count``, ``max_count`` (Int64): limits when autoscaled, else NA.
        - ``spot`` (boolean).
        - ``taints`` (string): separated by commas; empty for none.
        - ``state`` (string): provisioning state; ``power`` (string): ``Running`` or ``Stopped``.
        - ``usd_per_hour`` (Float64): what all its nodes cost in US dollars an hour; NA when not known.

    Raises:
        AzureNotFound: no such cluster.
        AzureUnreachable: Azure gave no usable answer in time.
    """
    azure = azure_of(aks)
    with translated(f"node pools of {aks.name}"):
        shown = [dict(model.as_dict()) for model in azure.client.agent_pools.list(aks.resource_group, aks.name)]
    found = priced(azure, aks.location, [pool_of(aks.name, item["name"], item["properties"]) for item in shown])
    aks.costs = {pool.name: pool.usd_per_hour for pool in found}
    same = _COLUMNS.keys() - {"pool", "gpu", "taints"}
    rows = [
        {
            **{name: getattr(pool, name) for name in same},
            "pool": pool.name,
            "gpu": pool.gpu or None,
            "taints": ",".join(pool.taints),
        }
        for pool in found
    ]
    return frame(rows, _COLUMNS).sort_values("pool", ignore_index=True)


def pool_of(cluster: str, name: str, properties: Mapping[str, Any]) -> NodePool:
    """The object for a pool that Resource Manager shows, without its price."""
    scaled = bool(properties.get("enableAutoScaling"))
    shown = {"properties": properties}
    return NodePool(
        name=name,
        cluster=cluster,
        vm_size=str(properties.get("vmSize") or ""),
        count=int(properties.get("count") or 0),
        mode=str(properties.get("mode") or "User"),
        state=resources.state_of(shown),
        power=resources.power_of(shown),
        taints=tuple(properties.get("nodeTaints") or ()),
        labels=dict(properties.get("nodeLabels") or {}),
        min_count=properties.get("minCount") if scaled else None,
        max_count=properties.get("maxCount") if scaled else None,
        spot=properties.get("scaleSetPriority") == "Spot",
        zones=tuple(properties.get("availabilityZones") or ()),
    )


def priced(azure: Azure, location: str, found: Iterable[NodePool]) -> list[NodePool]:
    """The pools with what they cost at present: a stopped one has no nodes to pay for."""
    found = list(found)
    prices = skus_and_quota.prices(azure, location.lower(), [pool.vm_size for pool in found])
    result = []
    for pool in found:
        price = prices.get(pool.vm_size, skus_and_quota.Price())
        each = price.spot if pool.spot else price.on_demand
        nodes = pool.count if pool.power == "Running" else 0
        cost = round(each * nodes, 4) if each is not None else None if nodes else 0.0
        result.append(replace(pool, usd_per_hour=cost))
    return result


def with_price(azure: Azure, aks: Cluster, shown: Mapping[str, Any]) -> NodePool:
    """The object for a pool of the cluster; its cost becomes part of the cluster's."""
    (pool,) = priced(azure, aks.location, [pool_of(aks.name, str(shown["name"]), shown["properties"])])
    aks.costs[pool.name] = pool.usd_per_hour
    return pool


def with_costs(aks: Cluster, shown: Mapping[str, Any]) -> Cluster:
    """The cluster that Resource Manager shows, with what its pools cost."""
    stopped = resources.power_of(shown) == "Stopped"
    profiles = shown["properties"].get("agentPoolProfiles") or ()
    found = priced(azure_of(aks), aks.location, [pool_of(aks.name, str(each["name"]), each) for each in profiles])
    aks.costs = {pool.name: 0.0 if stopped else pool.usd_per_hour for pool in found}
    aks.life = expiry.life_of(aks)
    return aks
