"""Node pools: added, scaled, stopped, deleted. Private; :mod:`aksgpu.cluster` is the face."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from aksgpu.azure import resource_names, resources
from aksgpu.azure.calls import call, warn
from aksgpu.cluster import pool_fields as fields
from aksgpu.cluster import unmanaged
from aksgpu.cluster.cluster_model import Cluster, azure_of
from aksgpu.cluster.node_pool_model import NodePool, with_price
from aksgpu.cluster.provisioning_detail import PoolNodes
from aksgpu.errors import AzureNotFound, InvalidInput
from aksgpu.sizes.offered_sizes import require_available

_READ_ONLY = {"provisioningState", "currentOrchestratorVersion", "nodeImageVersion", "powerState", "eTag", "status"}


@call("adding node pool {}", goes_on="the creation")
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
    timeout: float | None = 1800,
    progress: bool | None = None,
) -> NodePool:
    """Add a pool of GPU nodes to a cluster, and wait until it is there.

    On a cluster that Azure does not manage, the GPU nodes that are there are returned, with a warning that says so.

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
        timeout: seconds to wait for all of it; None for no limit. The pool goes on being made in Azure when they are
            over.
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
    resource_names.check(resource_names.POOL, name, "name")
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
    if not aks.has_azure:
        there, said = unmanaged.gpu_pool(aks, name)
        warn(said)
        return there
    azure = azure_of(aks)
    target = _Target(aks, name)
    existing = target.ready(wish)
    if existing is None:
        if preflight and not target.failed:  # of a failed pool's nodes nobody knows how many count already
            most = count if max_count is None else max(count, max_count)
            wished_zones = tuple(wish.get("availabilityZones", ()))
            require_available(azure, aks.location, vm_size, most, spot=spot, zones=wished_zones)
        existing = target.put(wish, target.adding, partial(target.ready, wish))
    return with_price(azure, aks, existing)


class _Target:
    """The place of one pool in a cluster, whether it exists or not."""

    def __init__(self, aks: Cluster, name: str) -> None:
        self.aks = aks
        self.name = name
        self.azure = azure_of(aks)
        cluster = resources.cluster_id(self.azure, aks.resource_group, aks.name)
        self.id = f"{cluster}/agentPools/{name}"
        self.adding = f"adding node pool {name} to {aks.name}"
        self.failed = False  # whether a pool is there whose making failed

    def find(self) -> dict[str, Any] | None:
        return resources.find_pool(self.azure, self.aks.resource_group, self.aks.name, self.name)

    def read_cluster(self) -> dict[str, Any] | None:
        return resources.find_cluster(self.azure, self.aks.resource_group, self.aks.name)

    def require(self, what: str) -> dict[str, Any]:
        """The pool once nothing runs on it."""
        shown = resources.settle(self.find, what)
        if shown is None:
            raise self.missing()
        return shown

    def missing(self) -> AzureNotFound:
        """The error for a pool that does not exist."""
        return AzureNotFound(
            f"no node pool {self.name!r} in cluster {self.aks.name}",
            code="NotFound",
            status=404,
            hint=self.there_are(),
        )

    def there_are(self) -> str:
        """A hint with the pools that there are."""
        shown = self.read_cluster()
        if shown is None:
            return f"Cluster {self.aks.name} does not exist; cluster.list(azure) shows those that do."
        profiles = shown["properties"].get("agentPoolProfiles") or ()
        return resource_names.like(self.name, sorted(str(profile["name"]) for profile in profiles))

    def begin(self, properties: Mapping[str, Any]) -> Any:
        begin = self.azure.client.agent_pools.begin_create_or_update
        return partial(begin, self.aks.resource_group, self.aks.name, self.name, {"properties": dict(properties)})

    def put(
        self, properties: Mapping[str, Any], what: str, reached: Callable[[], dict[str, Any] | None]
    ) -> dict[str, Any]:
        return resources.operate(
            self.azure,
            self.begin(properties),
            what,
            resource=self.id,
            read=self.read_cluster,
            reached=reached,
            look=self._ready(properties),
        )

    def delete(self, what: str) -> None:
        """Delete it; nothing happens where another caller was faster."""

        def is_gone() -> dict[str, Any] | None:
            shown = self.find()
            if shown is not None and resources.state_of(shown) == "Deleting":
                resources.wait_until_gone(self.find, what)
                return {}
            return {} if shown is None else None

        if is_gone() is not None:
            return
        try:
            resources.operate(
                self.azure,
                partial(self.azure.client.agent_pools.begin_delete, self.aks.resource_group, self.aks.name, self.name),
                what,
                resource=self.id,
                read=self.read_cluster,
                reached=is_gone,
                look=PoolNodes(self.aks, self.name).left,
            )
        except AzureNotFound:
            return

    def _ready(self, properties: Mapping[str, Any]) -> Callable[[], str]:
        nodes = PoolNodes(self.aks, self.name)
        if resources.power_of({"properties": properties}) == "Stopped":
            return nodes.left
        return partial(nodes.ready, int(properties.get("count") or 0))

    def ready(self, wish: Mapping[str, Any]) -> dict[str, Any] | None:
        """The existing pool, if it matches, once nothing runs on it; None when it has to be made (again)."""
        existing = self.find()
        if existing is None:
            return None
        state = resources.state_of(existing)
        if state == "Deleting":
            resources.wait_until_gone(self.find, f"waiting until the old node pool {self.name} is deleted")
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
            look=self._ready(existing["properties"]),
        )

    def change(self, wanted: Mapping[str, Any], properties: Mapping[str, Any], what: str) -> dict[str, Any]:
        """Change some properties of an existing pool, and return it.

        Args:
            wanted: the properties as they are to be; None removes one.
            properties: all properties as they are.
            what: what is being done, for progress and errors.
        """

        def changed() -> dict[str, Any] | None:
            shown = self.require(what)
            return shown if all(_value(shown, key) == value for key, value in wanted.items()) else None

        body = {key: value for key, value in properties.items() if key not in _READ_ONLY} | dict(wanted)
        return self.put({key: value for key, value in body.items() if value is not None}, what, changed)


def _value(shown: Mapping[str, Any], key: str) -> object:
    if key == "powerState":
        return {"code": resources.power_of(shown)}
    return shown["properties"].get(key)


@call("deleting node pool {}", goes_on="the deletion")
def delete_pool(
    aks: Cluster,
    name: str | NodePool,
    *,
    missing: Literal["warn", "error"] = "warn",
    timeout: float | None = 1800,
    progress: bool | None = None,
) -> bool:
    """Delete a node pool and its nodes; pods on them are lost.

    Args:
        aks: the cluster.
        name: of the pool, or the pool.
        missing: ``warn`` issues a Python warning where there is no such pool, so that a cell may be run twice and a
            typo is visible; ``error`` raises.
        timeout: seconds to wait; None for no limit.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.

    Returns:
        True when the pool was deleted; False when there was no such pool.

    Raises:
        InvalidInput: a name against the rules.
        AzureNotFound: there is no such pool, with ``missing="error"``.
        AzureError: Azure refused, such as for the last system pool.
        WaitTimeout: time ran out; the deletion goes on in Azure.
    """
    pool = _name(aks, name, "name")
    if not aks.has_azure:
        warn(f"{unmanaged.not_deleted(aks)}.")
        return False
    target = _Target(aks, pool)
    existing = target.find()
    if existing is None:
        error = target.missing()
        if missing == "error":
            raise error
        warn(f"{error.message}, so none was deleted. {error.hint}")
    else:
        target.delete(f"deleting node pool {target.name} of {aks.name}")
    aks.costs.pop(target.name, None)
    return existing is not None


@call("scaling node pool {}", goes_on="scaling it")
def scale(
    aks: Cluster,
    pool: str | NodePool,
    count: int | None = None,
    *,
    min_count: int | None = None,
    max_count: int | None = None,
    autoscaler: bool = True,
    timeout: float | None = 1800,
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
        timeout: seconds to wait; None for no limit.
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
        raise InvalidInput("`count` must be given, or `min_count` and `max_count`", hint="For example: count=2.")
    if not autoscaler and max_count is not None:
        raise InvalidInput("`max_count` must not be given with autoscaler=False", hint="Give count alone.")
    name = _name(aks, pool, "pool")
    # Before anything is sent; the pool's own count, where it is what goes on, lies within any limits.
    fields.check_counts(count if count is not None else min_count, min_count, max_count)
    target = _Target(aks, name)
    goal = str(count) if max_count is None else f"between {min_count} and {max_count}"
    what = f"scaling node pool {target.name} to {goal}"
    properties = target.require(what)["properties"]
    if max_count is not None:
        now = count if count is not None else int(properties.get("count") or 0)
        wanted = {"enableAutoScaling": True, "minCount": min_count, "maxCount": max_count}
        wanted["count"] = min(max(now, min_count or 0), max_count)
    elif not autoscaler and properties.get("enableAutoScaling"):
        wanted = {"enableAutoScaling": False, "minCount": None, "maxCount": None, "count": count}
    elif properties.get("enableAutoScaling"):
        least = properties.get("minCount")
        most = properties.get("maxCount")
        raise InvalidInput(
            f"the cluster autoscaler chooses the size of node pool {target.name}, between {least} and {most}",
            hint="Submit the work: nodes come with it, and go again. Or change the limits: min_count=, max_count=. "
            f"cluster.scale(aks, {target.name!r}, {count}, autoscaler=False) ends it and sets the count.",
        )
    else:
        wanted = {"count": count}
    if all(properties.get(key) == value for key, value in wanted.items()):
        return with_price(target.azure, aks, {"name": target.name, "properties": properties})
    return with_price(target.azure, aks, target.change(wanted, properties, what))


@call("stopping node pool {}", goes_on="stopping it")
def stop_pool(
    aks: Cluster, pool: str | NodePool, *, timeout: float | None = 1800, progress: bool | None = None
) -> NodePool:
    """Stop a user pool: its nodes go, its definition stays. Azure does not keep the GPUs.

    A pool that is stopped already is left as it is.

    Args:
        aks: the cluster.
        pool: the pool, or its name.
        timeout: seconds to wait; None for no limit.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.

    Returns:
        The pool as it is now.

    Raises:
        AzureNotFound: no such pool.
        AzureError: Azure refused, such as for a system pool.
        WaitTimeout: time ran out; stopping goes on in Azure.
    """
    return _switch(aks, pool, "Stopped", "stopping")


@call("starting node pool {}", goes_on="starting it")
def start_pool(
    aks: Cluster, pool: str | NodePool, *, timeout: float | None = 1800, progress: bool | None = None
) -> NodePool:
    """Start a stopped pool; one that runs is left as it is. Arguments, result and errors as for :func:`stop_pool`."""
    return _switch(aks, pool, "Running", "starting")


def _switch(aks: Cluster, pool: str | NodePool, power: str, doing: str) -> NodePool:
    target = _Target(aks, _name(aks, pool, "pool"))
    what = f"{doing} node pool {target.name}"
    shown = target.require(what)
    if resources.power_of(shown) != power:
        shown = target.change({"powerState": {"code": power}}, shown["properties"], what)
    return with_price(target.azure, aks, shown)


def _name(aks: Cluster, pool: str | NodePool, argument: str) -> str:
    if isinstance(pool, NodePool) and pool.cluster.lower() != aks.name.lower():
        raise InvalidInput(
            f"node pool {pool.name} belongs to cluster {pool.cluster}, not to {aks.name}",
            hint=f"Give the cluster it belongs to; or {pool.name!r} for the pool of {aks.name} that is called so too.",
        )
    return resource_names.check(resource_names.POOL, pool.name if isinstance(pool, NodePool) else pool, argument)
