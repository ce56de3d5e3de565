"""Node pools: added, scaled, stopped, deleted. Private; :mod:`aksgpu.cluster` is the face."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from aksgpu import sizes
from aksgpu._azure import poolfields as fields
from aksgpu._azure import resources
from aksgpu._azure.awaited import PoolNodes
from aksgpu._azure.handle import Cluster, azure_of
from aksgpu._azure.nodepool import NodePool, with_price
from aksgpu.errors import AzureNotFound, InvalidInput

_READ_ONLY = {"provisioningState", "currentOrchestratorVersion", "nodeImageVersion", "powerState", "eTag", "status"}


def add_gpu_pool(
    aks: Cluster,
    name: str = "gpunp",
    *,
    vm_size: str = "Standard_NC4as_T4_v3",
    count: int = 1,
    node_taints: Sequence[str] = ("sku=gpu:NoSchedule",),
    node_labels: Mapping[str, str] | None = None,
    min_count: int | None = None,
    max_count: int | None = None,
    spot: bool = False,
    eviction_policy: Literal["Delete", "Deallocate"] = "Delete",
    spot_max_price: float | None = None,
    zones: Sequence[str] = (),
    gpu_driver: Literal["install", "none"] | None = None,
    gpu_instance_profile: str | None = None,
    management_mode: Literal["Managed", "Unmanaged"] | None = None,
    os_sku: str | None = None,
    os_disk_type: Literal["Managed", "Ephemeral"] | None = None,
    os_disk_size_gb: int | None = None,
    scale_down_mode: Literal["Delete", "Deallocate"] | None = None,
    capacity_reservation_group: str | None = None,
    tags: Mapping[str, str] | None = None,
    preflight: bool = True,
    timeout: float = 1800,
    progress: bool | None = None,
) -> NodePool:
    """Add a pool of GPU nodes to a cluster, and wait until it is there.

    Safe to run twice: a pool that exists and matches is returned, one that is still being made is waited for.

    Args:
        aks: the cluster.
        name: 1 to 12 lower-case letters and digits, beginning with a letter.
        vm_size: a GPU size; see :func:`aksgpu.sizes.gpu_sizes`.
        count: nodes, 0 to 1000.
        node_taints: ``key=value:Effect``. The default keeps pods off that do not ask for GPUs;
            :mod:`aksgpu.plugin` and :mod:`aksgpu.jobs` add the tolerations.
        node_labels: further labels of its nodes.
        min_count: least nodes, with ``max_count``: the cluster autoscaler then chooses between them.
        max_count: most nodes.
        spot: spot VMs: cheaper, and taken away when Azure wants them back. AKS adds a taint of its own.
        eviction_policy: what happens to a spot node that is taken away.
        spot_max_price: most US dollars per node hour for spot VMs; None pays up to the price of other VMs.
        zones: availability zones, such as ``("1", "2")``.
        gpu_driver: ``install`` or ``none``; None leaves it to AKS, which installs it.
        gpu_instance_profile: splits each GPU (``MIG1g`` ... ``MIG7g``), for A100, H100 and H200.
        management_mode: ``Managed`` has AKS run driver, device plugin and monitoring on the nodes.
        os_sku: such as ``Ubuntu`` or ``AzureLinux``.
        os_disk_type: ``Managed`` or ``Ephemeral``.
        os_disk_size_gb: in GB.
        scale_down_mode: ``Deallocate`` keeps the nodes' disks, with the images on them, which cost money.
        capacity_reservation_group: resource id of a capacity reservation group.
        tags: Azure tags of the pool.
        preflight: look at size, zones and quota first, and refuse what cannot be had; False leaves that to AKS.
        timeout: seconds to wait for all of it. The pool goes on being made in Azure when they are over.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.

    Returns:
        The pool.

    Raises:
        InvalidInput: a name or number against the rules.
        AzureConflict: a pool of this name exists and differs; ``.differences`` has the fields.
        SizeNotAvailable: a size that is unknown, retired, without GPU, or not offered.
        QuotaExceeded: the quota does not suffice.
        AllocationFailed: Azure has no capacity.
        NodeBootstrapFailed: the GPU driver did not come up.
        AzureError: another refusal by Azure.
        WaitTimeout: time ran out.
    """
    azure = azure_of(aks)
    resources.check_pool_name(name)
    wish = fields.wish(
        vm_size=vm_size,
        count=count,
        node_taints=node_taints,
        node_labels=node_labels,
        min_count=min_count,
        max_count=max_count,
        spot=spot,
        eviction_policy=eviction_policy,
        spot_max_price=spot_max_price,
        zones=zones,
        gpu_driver=gpu_driver,
        gpu_instance_profile=gpu_instance_profile,
        management_mode=management_mode,
        os_sku=os_sku,
        os_disk_type=os_disk_type,
        os_disk_size_gb=os_disk_size_gb,
        scale_down_mode=scale_down_mode,
        capacity_reservation_group=capacity_reservation_group,
        tags=tags,
    )
    target = _Target(aks, name)
    deadline = time.monotonic() + timeout
    existing = target.ready(wish, timeout, progress)
    if existing is None:
        if preflight and not target.failed:  # of a failed pool's nodes nobody knows how many count already
            most = count if max_count is None else max(count, max_count)
            wished_zones = tuple(wish.get("availabilityZones", ()))
            sizes.preflight(azure, aks.location, vm_size, most, spot=spot, zones=wished_zones).raise_if_no()
        existing = target.put(wish, target.adding, max(1.0, deadline - time.monotonic()), progress)
    return with_price(azure, aks, existing)


class _Target:
    """The place of one pool in a cluster, whether it exists or not."""

    def __init__(self, aks: Cluster, name: str) -> None:
        self.aks, self.name, self.azure = aks, name, azure_of(aks)
        cluster = resources.cluster_id(self.azure, aks.resource_group, aks.name)
        self.id = f"{cluster}/agentPools/{name}"
        self.adding = f"adding node pool {name} to {aks.name}"
        self.failed = False  # whether a pool is there whose making failed

    def find(self) -> dict[str, Any] | None:
        return resources.find_pool(self.azure, self.aks.resource_group, self.aks.name, self.name)

    def read_cluster(self) -> dict[str, Any] | None:
        return resources.find_cluster(self.azure, self.aks.resource_group, self.aks.name)

    def require(self, what: str, timeout: float, progress: bool | None) -> dict[str, Any]:
        """The pool once nothing runs on it."""
        shown = resources.settle(self.find, what, timeout=timeout, progress=progress)
        if shown is None:
            raise AzureNotFound(
                f"no node pool {self.name!r} in cluster {self.aks.name}",
                code="NotFound",
                status=404,
                hint="cluster.pools(aks) lists them; cluster.add_gpu_pool(aks) adds one.",
            )
        return shown

    def begin(self, properties: Mapping[str, Any]) -> Any:
        begin = self.azure.client.agent_pools.begin_create_or_update
        return partial(begin, self.aks.resource_group, self.aks.name, self.name, {"properties": dict(properties)})

    def operate(self, begin: Any, what: str, timeout: float, progress: bool | None, look: Callable[[], str]) -> Any:
        return resources.operate(
            self.azure,
            begin,
            what,
            resource=self.id,
            read=self.read_cluster,
            timeout=timeout,
            progress=progress,
            look=look,
        )

    def put(self, properties: Mapping[str, Any], what: str, timeout: float, progress: bool | None) -> dict[str, Any]:
        return dict(self.operate(self.begin(properties), what, timeout, progress, self._ready(properties)).as_dict())

    def _ready(self, properties: Mapping[str, Any]) -> Callable[[], str]:
        nodes = PoolNodes(self.aks, self.name)
        if resources.power_of({"properties": properties}) == "Stopped":
            return nodes.left
        return partial(nodes.ready, int(properties.get("count") or 0))

    def ready(self, wish: Mapping[str, Any], timeout: float, progress: bool | None) -> dict[str, Any] | None:
        """The existing pool, if it matches, once nothing runs on it; None when it has to be made (again)."""
        existing = self.find()
        if existing is None:
            return None
        state = resources.state_of(existing)
        if state == "Deleting":
            what = f"waiting until the old node pool {self.name} is deleted"
            resources.wait_until_gone(self.find, what, timeout=timeout, progress=progress)
            return None
        if differences := fields.differences(existing["properties"], wish):
            hint = fields.remedy(differences, self.name)
            raise resources.differs(f"node pool {self.name}", differences, hint)
        if state == "Succeeded":
            return existing
        if state in resources.SETTLED:
            self.failed = True
            return None  # the same request repairs what is there
        return resources.resume(
            self.azure,
            self.begin({}),
            self.adding,
            resource=self.id,
            read=self.find,
            timeout=timeout,
            progress=progress,
            look=self._ready(existing["properties"]),
        )


def delete_pool(aks: Cluster, name: str | NodePool, *, timeout: float = 1800, progress: bool | None = None) -> None:
    """Delete a node pool and its nodes; pods on them are lost. Twice is fine.

    Args:
        aks: the cluster.
        name: of the pool, or the pool.
        timeout: seconds to wait.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.

    Raises:
        AzureError: Azure refused, such as for the last system pool.
        WaitTimeout: time ran out; the deletion goes on in Azure.
    """
    target = _Target(aks, _name(aks, name))
    what = f"deleting node pool {target.name} of {aks.name}"
    existing = target.find()
    aks.costs.pop(target.name, None)
    if existing is None:
        return
    if resources.state_of(existing) == "Deleting":
        resources.wait_until_gone(target.find, what, timeout=timeout, progress=progress)
        return
    begin = partial(target.azure.client.agent_pools.begin_delete, aks.resource_group, aks.name, target.name)
    target.operate(begin, what, timeout, progress, PoolNodes(aks, target.name).left)


def scale(
    aks: Cluster,
    pool: str | NodePool,
    count: int | None = None,
    *,
    min_count: int | None = None,
    max_count: int | None = None,
    autoscaler: bool = True,
    timeout: float = 1800,
    progress: bool | None = None,
) -> NodePool:
    """Change a pool's number of nodes, or who chooses it, and wait until they are there.

    Args:
        aks: the cluster.
        pool: the pool, or its name.
        count: nodes, 0 to 1000 (a system pool needs one).
        min_count: least nodes, with ``max_count``: the cluster autoscaler chooses from now on.
        max_count: most nodes.
        autoscaler: False, with ``count``, ends the autoscaler's choosing for this pool.
        timeout: seconds to wait.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.

    Returns:
        The pool as it is now.

    Raises:
        InvalidInput: a number is out of range, or the autoscaler chooses the count.
        AzureNotFound: no such pool.
        QuotaExceeded: the quota does not suffice.
        AllocationFailed: Azure has no capacity.
        WaitTimeout: time ran out; scaling goes on in Azure.
    """
    if count is None and max_count is None:
        raise InvalidInput("scale to what?", hint="Give count, or min_count and max_count.")
    if not autoscaler and max_count is not None:
        raise InvalidInput("max_count is the autoscaler's, which is to be off", hint="Give count alone.")
    target = _Target(aks, _name(aks, pool))
    # Before anything is sent; the pool's own count, where it is what goes on, lies within any limits.
    fields.check_counts(count if count is not None else min_count or 0, min_count, max_count)
    goal = str(count) if max_count is None else f"between {min_count} and {max_count}"
    what = f"scaling node pool {target.name} to {goal}"
    properties = target.require(what, timeout, progress)["properties"]
    if max_count is not None:
        now = count if count is not None else int(properties.get("count") or 0)
        wanted = {"enableAutoScaling": True, "minCount": min_count, "maxCount": max_count}
        wanted["count"] = min(max(now, min_count or 0), max_count)
    elif not autoscaler and properties.get("enableAutoScaling"):
        wanted = {"enableAutoScaling": False, "minCount": None, "maxCount": None, "count": count}
    elif properties.get("enableAutoScaling"):
        least, most = properties.get("minCount"), properties.get("maxCount")
        raise InvalidInput(
            f"the cluster autoscaler chooses the size of node pool {target.name}, between {least} and {most}",
            hint="Submit the work: nodes come with it, and go again. Or change the limits: min_count=, max_count=. "
            f"cluster.scale(aks, {target.name!r}, {count}, autoscaler=False) ends it and sets the count.",
        )
    else:
        wanted = {"count": count}
    if all(properties.get(key) == value for key, value in wanted.items()):
        return with_price(target.azure, aks, {"name": target.name, "properties": properties})
    changed = {key: value for key, value in properties.items() if key not in _READ_ONLY} | wanted
    changed = {key: value for key, value in changed.items() if value is not None}
    return with_price(target.azure, aks, target.put(changed, what, timeout, progress))


def stop_pool(aks: Cluster, pool: str | NodePool, *, timeout: float = 1800, progress: bool | None = None) -> NodePool:
    """Stop a user pool: its nodes go, its definition stays. Azure does not keep the GPUs. Twice is fine.

    Args:
        aks: the cluster.
        pool: the pool, or its name.
        timeout: seconds to wait.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.

    Returns:
        The pool as it is now.

    Raises:
        AzureNotFound: no such pool.
        AzureError: Azure refused, such as for a system pool.
        WaitTimeout: time ran out; stopping goes on in Azure.
    """
    return _switch(aks, pool, "Stopped", "stopping", timeout, progress)


def start_pool(aks: Cluster, pool: str | NodePool, *, timeout: float = 1800, progress: bool | None = None) -> NodePool:
    """Start a stopped pool. Twice is fine; arguments, result and errors as for :func:`stop_pool`."""
    return _switch(aks, pool, "Running", "starting", timeout, progress)


def _switch(
    aks: Cluster, pool: str | NodePool, power: str, doing: str, timeout: float, progress: bool | None
) -> NodePool:
    target = _Target(aks, _name(aks, pool))
    what = f"{doing} node pool {target.name}"
    shown = target.require(what, timeout, progress)
    if resources.power_of(shown) != power:
        changed = {key: value for key, value in shown["properties"].items() if key not in _READ_ONLY}
        shown = target.put(changed | {"powerState": {"code": power}}, what, timeout, progress)
    return with_price(target.azure, aks, shown)


def _name(aks: Cluster, pool: str | NodePool) -> str:
    if isinstance(pool, NodePool) and pool.cluster.lower() != aks.name.lower():
        raise InvalidInput(
            f"node pool {pool.name} belongs to cluster {pool.cluster}, not to {aks.name}",
            hint=f"Give the cluster it belongs to; or {pool.name!r} for the pool of {aks.name} that is called so too.",
        )
    name = pool.name if isinstance(pool, NodePool) else pool
    resources.check_pool_name(name)
    return name
