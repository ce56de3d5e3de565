"""Node pools: add, get, scale, stop, start and delete them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from aksgpu.azure import resource_names, resources
from aksgpu.azure.calls import call, warn
from aksgpu.azure.size_rules import complete_allocation
from aksgpu.azure.throttling import READ_TIMEOUT
from aksgpu.cluster import pool_fields, unmanaged
from aksgpu.cluster.cluster_model import Cluster, azure_of
from aksgpu.cluster.node_pool_model import NodePool, priced_pool
from aksgpu.cluster.pool_fields import GpuPoolRequest
from aksgpu.cluster.provisioning_detail import PoolNodes
from aksgpu.errors import AllocationFailed, AzureNotFound, InvalidInput
from aksgpu.sizes.offered_sizes import require_available
from aksgpu.waiting import Timeout

__all__ = ["add_gpu_pool", "delete_pool", "get_pool", "scale_pool", "start_pool", "stop_pool"]

_READ_ONLY = frozenset(
    {
        "provisioningState",
        "currentOrchestratorVersion",
        "nodeImageVersion",
        "powerState",
        "eTag",
        "status",
    }
)
"""Properties that Azure returns and does not accept."""


@call("adding node pool {}", continues="the creation")
@pool_fields.takes_fields_of(GpuPoolRequest)
def add_gpu_pool(aks: Cluster, request: GpuPoolRequest) -> NodePool:
    """Add a pool of GPU nodes to a cluster, and wait until it is ready.

    The call may be repeated. If the pool exists and matches, it is returned. If it is still being created, the call
    waits for it. On a cluster that Azure does not manage, the existing GPU nodes are returned, with a warning.

    Args:
        aks: the cluster.
        request: the arguments below.

    Returns:
        The pool.

    Raises:
        InvalidInput: an argument is not valid.
        AzureConflict: a pool of this name exists and differs; ``.differences`` has the fields.
        SizeNotAvailable: the size is unknown, retired, without GPU, or not offered.
        QuotaExceeded: the quota is too small.
        AllocationFailed: Azure has no capacity.
        NodeBootstrapFailed: the set-up of the nodes failed, GPU driver included.
        AzureError: Azure refused for another reason.
        WaitTimeout: the time is up.

    Example:
        >>> cluster.add_gpu_pool(aks, "gpunp", vm_size="Standard_NC4as_T4_v3", count=1)
    """
    resource_names.check(resource_names.POOL, request.name, "name")
    properties = request.azure_properties()
    if not aks.has_azure:
        pool, warning = unmanaged.gpu_pool(aks, request.name)
        warn(warning)
        return pool
    target = _PoolTarget(aks, request.name)
    existing = target.ready(request)
    if existing is None:
        # Nodes of a failed pool may already count against the quota, so the check could fail wrongly.
        if request.preflight and not target.has_failed:
            require_available(
                target.azure,
                aks.location,
                request.vm_size,
                request.max_nodes,
                spot=request.spot,
                zones=tuple(properties.get("availabilityZones", ())),
            )
        try:
            existing = target.put(properties, target.adding, partial(target.ready, request))
        except AllocationFailed as refused:
            is_reserved = request.capacity_reservation_group is not None
            complete_allocation(refused, request.vm_size, aks.location, is_reserved=is_reserved)
            raise
    return priced_pool(aks, existing)


class _PoolTarget:
    """One pool of a cluster, which may not exist.

    Attributes:
        has_failed: whether the pool exists, but its creation failed.
    """

    def __init__(self, aks: Cluster, name: str) -> None:
        self.aks = aks
        self.name = name
        self.azure = azure_of(aks)
        cluster = resources.cluster_id(self.azure, aks.resource_group, aks.name)
        self.id = f"{cluster}/agentPools/{name}"
        self.adding = f"adding node pool {name} to {aks.name}"
        self.has_failed = False

    def find(self) -> dict[str, Any] | None:
        return resources.find_pool(self.azure, self.aks.resource_group, self.aks.name, self.name)

    def read_cluster(self) -> dict[str, Any] | None:
        return resources.find_cluster(self.azure, self.aks.resource_group, self.aks.name)

    def require(self, what: str) -> dict[str, Any]:
        """Return the pool once no operation runs on it.

        Raises:
            AzureNotFound: it does not exist.
        """
        found = resources.settle(self.find, what)
        if found is None:
            raise self.not_found()
        return found

    def not_found(self) -> AzureNotFound:
        """Return the error for a pool that does not exist. Its hint lists the existing pools."""
        return AzureNotFound(
            f"node pool {self.name!r} does not exist in cluster {self.aks.name}",
            code="NotFound",
            http_status=404,
            hint=self._existing_pools(),
        )

    def _existing_pools(self) -> str:
        found = self.read_cluster()
        if found is None:
            return f"Cluster {self.aks.name} does not exist. cluster.list(azure) lists the clusters."
        profiles = found["properties"].get("agentPoolProfiles") or ()
        return resource_names.describe_existing(self.name, sorted(str(profile["name"]) for profile in profiles))

    def begin(self, properties: Mapping[str, Any]) -> Callable[..., Any]:
        """Return the SDK's method that creates or updates the pool, with all arguments except ``polling``."""
        begin = self.azure.client.agent_pools.begin_create_or_update
        return partial(begin, self.aks.resource_group, self.aks.name, self.name, {"properties": dict(properties)})

    def put(self, properties: Mapping[str, Any], what: str, reached: resources.Read) -> dict[str, Any]:
        """Create or update the pool, and return it."""
        return resources.operate(
            self.azure,
            self.begin(properties),
            what,
            resource=self.id,
            read=self.read_cluster,
            reached=reached,
            detail=self._detail(properties),
        )

    def delete(self, what: str) -> None:
        """Delete the pool. Another caller may delete it at the same time."""

        def is_gone() -> dict[str, Any] | None:
            found = self.find()
            if found is None:
                return {}
            if resources.state_of(found) == "Deleting":
                resources.wait_until_gone(self.find, what)
                return {}
            return None

        if is_gone() is not None:
            return
        begin = self.azure.client.agent_pools.begin_delete
        try:
            resources.operate(
                self.azure,
                partial(begin, self.aks.resource_group, self.aks.name, self.name),
                what,
                resource=self.id,
                read=self.read_cluster,
                reached=is_gone,
                detail=PoolNodes(self.aks, self.name).left,
            )
        except AzureNotFound:
            return

    def _detail(self, properties: Mapping[str, Any]) -> Callable[[], str]:
        """Return the function that describes the pool's nodes while an operation runs."""
        nodes = PoolNodes(self.aks, self.name)
        if resources.power_of({"properties": properties}) == "Stopped":
            return nodes.left
        return partial(nodes.ready, int(properties.get("count") or 0))

    def ready(self, request: GpuPoolRequest) -> dict[str, Any] | None:
        """Return the pool if it exists and matches, once no operation runs on it; None if it has to be created.

        Raises:
            AzureConflict: it exists and differs.
        """
        existing = self.find()
        if existing is None:
            return None
        state = resources.state_of(existing)
        if state == "Deleting":
            resources.wait_until_gone(self.find, f"waiting until the old node pool {self.name} is deleted")
            return None
        differences = pool_fields.differences(existing["properties"], request)
        if differences:
            hint = pool_fields.remedy(differences, self.name)
            raise resources.conflict(f"node pool {self.name}", differences, hint)
        if state == "Succeeded":
            return existing
        if state in resources.SETTLED:
            self.has_failed = True
            return None  # the same request repairs it
        return resources.resume(
            self.azure,
            self.begin({}),
            self.adding,
            resource=self.id,
            read=self.find,
            detail=self._detail(existing["properties"]),
        )

    def change(self, changes: Mapping[str, Any], properties: Mapping[str, Any], what: str) -> dict[str, Any]:
        """Change some properties of an existing pool, and return it.

        Args:
            changes: the new values of properties; None removes a property.
            properties: all existing properties.
            what: what is being done, for progress and errors.
        """

        def changed() -> dict[str, Any] | None:
            found = self.require(what)
            is_changed = all(_property_of(found, name) == value for name, value in changes.items())
            return found if is_changed else None

        body = {name: value for name, value in properties.items() if name not in _READ_ONLY} | dict(changes)
        return self.put({name: value for name, value in body.items() if value is not None}, what, changed)


def _property_of(pool: Mapping[str, Any], name: str) -> object:
    if name == "powerState":
        return {"code": resources.power_of(pool)}
    return pool["properties"].get(name)


@call("reading node pool {}")
def get_pool(aks: Cluster, name: str, *, timeout: Timeout = READ_TIMEOUT) -> NodePool:
    """Return a node pool of a cluster.

    Args:
        aks: the cluster.
        name: name of the pool.
        timeout: seconds, or text such as ``"2m"``, to keep trying while Azure gives no usable response; None for no
            limit.

    Raises:
        InvalidInput: an argument is not valid.
        AzureNotFound: the pool does not exist; the error lists the existing pools.
        AzureUnreachable: Azure gave no usable response in time.
    """
    target = _PoolTarget(aks, _check_pool(aks, name, "name"))
    found = target.find()
    if found is None:
        raise target.not_found()
    return priced_pool(aks, found)


@call("deleting node pool {}", continues="the deletion")
def delete_pool(
    aks: Cluster,
    name: str | NodePool,
    *,
    missing: Literal["warn", "error"] = "warn",
    timeout: Timeout = 1800,
    progress: bool | None = None,
) -> bool:
    """Delete a node pool and its nodes. Pods on the nodes are lost.

    Args:
        aks: the cluster.
        name: the pool, or its name.
        missing: ``warn`` issues a Python warning if the pool does not exist, so that a cell may be run twice and a typo
            is visible; ``error`` raises.
        timeout: seconds, or text such as ``"30m"``; None for no limit.
        progress: False hides the progress bar; None reads ``AKSGPU_PROGRESS``.

    Returns:
        True if the pool was deleted; False if it did not exist.

    Raises:
        InvalidInput: an argument is not valid.
        AzureNotFound: the pool does not exist, with ``missing="error"``.
        AzureError: Azure refused, for example for the last system pool.
        WaitTimeout: the time is up; the deletion continues in Azure.
    """
    pool = _check_pool(aks, name, "name")
    if not aks.has_azure:
        warn(f"{unmanaged.not_deleted(aks)}.")
        return False
    target = _PoolTarget(aks, pool)
    if target.find() is None:
        error = target.not_found()
        if missing == "error":
            raise error
        warn(f"{error.message}, so nothing was deleted. {error.hint}")
        return False
    target.delete(f"deleting node pool {pool} of {aks.name}")
    return True


@call("scaling node pool {}", continues="scaling it")
def scale_pool(
    aks: Cluster,
    pool: str | NodePool,
    count: int | None = None,
    *,
    min_count: int | None = None,
    max_count: int | None = None,
    autoscaler: bool = True,
    timeout: Timeout = 1800,
    progress: bool | None = None,
) -> NodePool:
    """Change the number of nodes of a pool, or the limits of its autoscaler, and wait until the nodes are ready.

    Args:
        aks: the cluster.
        pool: the pool, or its name.
        count: number of nodes, 0 to 1000 (at least 1 for a system pool).
        min_count: minimum number of nodes; with ``max_count``, the cluster autoscaler chooses the number from now on.
        max_count: maximum number of nodes.
        autoscaler: False, with ``count``, turns the autoscaler off for this pool.
        timeout: seconds, or text such as ``"30m"``; None for no limit.
        progress: False hides the progress bar; None reads ``AKSGPU_PROGRESS``.

    Returns:
        The pool after the change.

    Raises:
        InvalidInput: an argument is not valid, or the autoscaler chooses the number of nodes.
        AzureNotFound: the pool does not exist.
        QuotaExceeded: the quota is too small.
        AllocationFailed: Azure has no capacity.
        WaitTimeout: the time is up; scaling continues in Azure.

    Example:
        >>> cluster.scale_pool(aks, "gpunp", 2)
        >>> cluster.scale_pool(aks, "gpunp", min_count=0, max_count=4)
    """
    if count is None and max_count is None:
        raise InvalidInput("`count` must be given, or `min_count` and `max_count`", hint="For example: count=2.")
    if not autoscaler and max_count is not None:
        raise InvalidInput("`max_count` must be omitted with autoscaler=False", hint="Pass only count.")
    name = _check_pool(aks, pool, "pool")
    pool_fields.check_counts(count if count is not None else min_count, min_count, max_count)
    target = _PoolTarget(aks, name)
    goal = str(count) if max_count is None else f"between {min_count} and {max_count}"
    what = f"scaling node pool {name} to {goal}"
    found = target.require(what)
    properties = found["properties"]
    changes = _count_changes(name, properties, count, min_count, max_count, autoscaler)
    if any(properties.get(field) != value for field, value in changes.items()):
        found = target.change(changes, properties, what)
    return priced_pool(aks, found)


def _count_changes(
    name: str,
    properties: Mapping[str, Any],
    count: int | None,
    min_count: int | None,
    max_count: int | None,
    autoscaler: bool,
) -> dict[str, Any]:
    """Return the properties to change; the arguments are those of :func:`scale_pool`."""
    autoscales = bool(properties.get("enableAutoScaling"))
    if max_count is not None:
        nodes = count if count is not None else int(properties.get("count") or 0)
        return {
            "enableAutoScaling": True,
            "minCount": min_count,
            "maxCount": max_count,
            "count": min(max(nodes, min_count or 0), max_count),
        }
    if autoscales and autoscaler:
        minimum = properties.get("minCount")
        maximum = properties.get("maxCount")
        raise InvalidInput(
            f"`count` must be omitted: the cluster autoscaler chooses the size of node pool {name}, "
            f"between {minimum} and {maximum}",
            hint="Submit the work, and the autoscaler adds nodes for it. Or change the limits with min_count= and "
            f"max_count=. cluster.scale_pool(aks, {name!r}, {count}, autoscaler=False) turns the autoscaler off.",
        )
    if autoscales:
        return {"enableAutoScaling": False, "minCount": None, "maxCount": None, "count": count}
    return {"count": count}


@call("stopping node pool {}", continues="stopping it")
def stop_pool(aks: Cluster, pool: str | NodePool, *, timeout: Timeout = 1800, progress: bool | None = None) -> NodePool:
    """Stop a user pool: its nodes are removed, and its definition stays. Azure does not reserve the GPUs.

    A pool that is already stopped does not change.

    Args:
        aks: the cluster.
        pool: the pool, or its name.
        timeout: seconds, or text such as ``"30m"``; None for no limit.
        progress: False hides the progress bar; None reads ``AKSGPU_PROGRESS``.

    Returns:
        The pool after the change.

    Raises:
        AzureNotFound: the pool does not exist.
        AzureError: Azure refused, for example for a system pool.
        WaitTimeout: the time is up; stopping continues in Azure.
    """
    return _set_power(aks, pool, "Stopped", "stopping")


@call("starting node pool {}", continues="starting it")
def start_pool(
    aks: Cluster, pool: str | NodePool, *, timeout: Timeout = 1800, progress: bool | None = None
) -> NodePool:
    """Start a stopped pool. A pool that runs does not change.

    The arguments, the result and the errors are those of :func:`stop_pool`.
    """
    return _set_power(aks, pool, "Running", "starting")


def _set_power(aks: Cluster, pool: str | NodePool, power: str, doing: str) -> NodePool:
    target = _PoolTarget(aks, _check_pool(aks, pool, "pool"))
    what = f"{doing} node pool {target.name}"
    found = target.require(what)
    if resources.power_of(found) != power:
        found = target.change({"powerState": {"code": power}}, found["properties"], what)
    return priced_pool(aks, found)


def _check_pool(aks: Cluster, pool: str | NodePool, argument: str) -> str:
    """Return the name of a pool. The argument is the pool or its name."""
    if not isinstance(pool, NodePool):
        return resource_names.check(resource_names.POOL, pool, argument)
    if pool.cluster.lower() != aks.name.lower():
        raise InvalidInput(
            f"`{argument}` must be a node pool of cluster {aks.name}, got {pool.name} of cluster {pool.cluster}",
            hint=f"Pass the pool's cluster, or {pool.name!r} for the pool of this name in {aks.name}.",
        )
    return resource_names.check(resource_names.POOL, pool.name, argument)
