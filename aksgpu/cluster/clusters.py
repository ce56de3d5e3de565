"""Clusters: create, get, list, stop and start them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from aksgpu.azure import resource_names, resources
from aksgpu.azure.azure_arguments import check_text_mapping
from aksgpu.azure.calls import call, warn
from aksgpu.azure.subscription import Azure, KubeconfigTarget, follow, translated
from aksgpu.azure.throttling import READ_TIMEOUT, until_settled
from aksgpu.cluster import cluster_fields, expiry, unmanaged
from aksgpu.cluster.cluster_fields import ClusterRequest
from aksgpu.cluster.cluster_model import Cluster, azure_of, from_resource
from aksgpu.cluster.leftover_resources import delete
from aksgpu.cluster.pool_fields import MAX_NODES, check_size
from aksgpu.cluster.provisioning_detail import pools_ready
from aksgpu.common.arguments import integer
from aksgpu.common.frames import frame
from aksgpu.errors import AzureError, AzureUnreachable, InvalidInput, WaitTimeout
from aksgpu.sizes.offered_sizes import require_available
from aksgpu.waiting import Timeout

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["abort", "create", "get", "list_clusters", "start", "stop"]

DEFAULT_VM_SIZE = "Standard_D2s_v5"
"""Default VM size of the first pool: the smallest that AKS allows for system pools (2 vCPUs, 4 GB or more)."""


@call("creating cluster {}", continues="the creation")
def create(
    azure: Azure,
    name: str,
    *,
    resource_group: str,
    location: str | None = None,
    vm_size: str | None = None,
    node_count: int = 1,
    kubernetes_version: str | None = None,
    tags: Mapping[str, str] | None = None,
    delete_after: str | float | timedelta | None = None,
    preflight: bool = True,
    timeout: Timeout = 1800,
    progress: bool | None = None,
) -> Cluster:
    """Create a cluster, and its resource group if that does not exist, and wait until it is ready.

    The call may be repeated. If the cluster exists and matches, it is returned. If it is still being created, the call
    waits for it, even after a restart of the kernel. If its creation failed, it is created again. With a kubeconfig as
    target, the cluster of the kubeconfig is returned, with a warning.

    Args:
        azure: the subscription.
        name: 1 to 63 letters, digits, ``-`` and ``_``.
        resource_group: name of the resource group.
        location: such as ``eastus``; by default that of the resource group, which must then exist.
        vm_size: VM size of the only pool, ``nodepool1``. By default a small CPU size; :func:`add_gpu_pool` adds the
            GPUs. A GPU size creates the cluster of the 2020 tutorial: one GPU pool, without a taint.
        node_count: number of nodes of that pool, 1 to 1000.
        kubernetes_version: such as ``1.36`` or ``1.36.2``; by default AKS' default.
        tags: Azure tags of the cluster.
        delete_after: time until the cluster is deleted: seconds, or text such as ``"2h"``. This process deletes the
            cluster, as long as it runs. A tag stores the time, and :func:`leftovers` shows clusters that are overdue.
            For an existing cluster, the time starts again.
        preflight: check size and quota first, and refuse what is not available; False leaves the check to AKS.
        timeout: seconds, or text such as ``"30m"``, for the whole call; None for no limit. When the time is up, the
            creation continues in Azure.
        progress: False hides the progress bar; None reads ``AKSGPU_PROGRESS``.

    Returns:
        The cluster.

    Raises:
        InvalidInput: an argument is not valid, or the location is missing.
        AzureConflict: a cluster of this name exists and differs; ``.differences`` has the fields.
        SizeNotAvailable: the size is unknown, retired, or not offered.
        QuotaExceeded: the quota is too small.
        LocationNotAvailable: the location does not exist.
        AllocationFailed: Azure has no capacity.
        AzureError: Azure refused for another reason.
        WaitTimeout: the time is up.

    Example:
        >>> cluster.create(azure, "myAKSCluster", resource_group="myResourceGroup", location="eastus")
        Cluster(myAKSCluster in myResourceGroup (eastus))
    """
    resource_names.check(resource_names.CLUSTER, name, "name")
    resource_names.check(resource_names.GROUP, resource_group, "resource_group")
    if vm_size is not None:
        check_size(vm_size)
    all_tags = check_text_mapping(tags, "tags")
    cluster_fields.check_version(kubernetes_version)
    integer("node_count", node_count, 1, MAX_NODES)
    if location is not None:
        location = resource_names.check_location(location)
    lifetime = None if delete_after is None else expiry.check_lifetime(delete_after)
    if isinstance(azure, KubeconfigTarget):
        aks, warning = unmanaged.cluster_at(azure, name)
        warn(warning)
        return aks
    request = ClusterRequest(location, vm_size, node_count, kubernetes_version, all_tags)
    target = _ClusterTarget(azure, resource_group, name, request)
    existing = target.find()
    if existing is not None:
        ready = _wait_for_existing(target, existing, lifetime)
        if ready is not None:
            return ready
    return _create_new(target, lifetime, preflight=preflight and existing is None)


def _wait_for_existing(target: _ClusterTarget, existing: dict[str, Any], lifetime: timedelta | None) -> Cluster | None:
    """Return the existing cluster once it is ready, with a new lifetime; None if it has to be created."""
    try:
        ready = target.ready(existing)
    except (WaitTimeout, KeyboardInterrupt):
        if lifetime is not None:  # the creation continues in Azure, and the cluster has to be deleted in time
            expiry.set_timer(target.cluster(), lifetime, delete)
        raise
    if ready is None:
        return None
    aks = from_resource(target.azure, ready)
    if lifetime is not None:
        expiry.extend(target.azure, aks, lifetime)
        expiry.set_timer(aks, lifetime, delete)
    return aks


def _create_new(target: _ClusterTarget, lifetime: timedelta | None, *, preflight: bool) -> Cluster:
    """Create a cluster that does not exist, or whose creation failed."""
    location, group_exists = target.find_location()
    vm_size = target.request.vm_size or DEFAULT_VM_SIZE
    node_count = target.request.node_count or 1
    if preflight:
        require_available(target.azure, location, vm_size, node_count, needs_gpu=False)
    if not group_exists:
        resources.create_group(target.azure, target.group, location)
    tags = dict(target.request.tags or {})
    if lifetime is not None:
        tags |= expiry.tag(lifetime)
    request = ClusterRequest(location, vm_size, node_count, target.request.kubernetes_version, tags)
    body = cluster_fields.request_body(target.azure.subscription_id, target.name, target.group, request)
    started = time.monotonic()
    if lifetime is not None:  # before an interrupt is possible: the creation continues in Azure without this call
        expiry.set_timer(target.cluster(), lifetime, delete)
    aks = from_resource(target.azure, target.put(body))
    if lifetime is not None:
        expiry.set_timer(aks, lifetime, delete, started=started)
    return aks


class _ClusterTarget:
    """One cluster of a subscription, which may not exist.

    Args:
        azure: the subscription.
        group: name of the resource group.
        name: name of the cluster.
        request: the requested properties of the cluster.
    """

    def __init__(self, azure: Azure, group: str, name: str, request: ClusterRequest | None = None) -> None:
        self.azure = azure
        self.group = group
        self.name = name
        self.request = request or ClusterRequest()
        self.id = resources.cluster_id(azure, group, name)
        self.creating = f"creating cluster {name}"

    def find(self) -> dict[str, Any] | None:
        return resources.find_cluster(self.azure, self.group, self.name)

    def require(self, what: str) -> dict[str, Any]:
        """Return the cluster once no operation runs on it.

        Raises:
            AzureNotFound: it does not exist.
        """
        found = resources.settle(self.find, what)
        if found is None:
            raise resources.cluster_not_found(self.azure, self.group, self.name)
        return found

    def cluster(self) -> Cluster:
        """Return the object for the cluster before it exists."""
        return Cluster(self.name, resource_group=self.group, azure=self.azure, id=self.id)

    def put(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create the cluster, and return it. Cancel its deletion if Azure refuses to begin."""
        is_accepted = False

        def begin(**options: Any) -> Any:
            nonlocal is_accepted
            poller = self.azure.client.managed_clusters.begin_create_or_update(self.group, self.name, body, **options)
            is_accepted = True
            return poller

        def created() -> dict[str, Any] | None:
            found = self.find()
            return None if found is None else self.ready(found)

        try:
            return self.operate(begin, self.creating, created)
        except AzureError as error:
            # Without a response the request may have arrived. The timer reads the cluster before it deletes it.
            if not is_accepted and not isinstance(error, AzureUnreachable):
                expiry.cancel(self.cluster())
            raise

    def operate(self, begin: Callable[..., Any], what: str, reached: resources.Read) -> dict[str, Any]:
        """Begin an operation on the cluster and follow it."""
        return resources.operate(
            self.azure,
            begin,
            what,
            resource=self.id,
            read=self.find,
            reached=reached,
            detail=partial(pools_ready, self.find),
        )

    def ready(self, existing: dict[str, Any]) -> dict[str, Any] | None:
        """Return the existing cluster if it matches, once no operation runs on it; None if it has to be created.

        Raises:
            AzureConflict: it differs from the request.
        """
        state = resources.state_of(existing)
        if state == "Deleting":
            resources.wait_until_gone(self.find, f"waiting until the old cluster {self.name} is deleted")
            return None
        differences = cluster_fields.differences(existing, self.request)
        if differences:
            raise resources.conflict(f"cluster {self.name}", differences, _remedy(differences))
        if state == "Succeeded":
            return existing
        if state in resources.SETTLED:
            return None  # the creation failed, and the same request repairs the cluster
        begin = partial(self.azure.client.managed_clusters.begin_create_or_update, self.group, self.name, {})
        return resources.resume(
            self.azure,
            begin,
            self.creating,
            resource=self.id,
            read=self.find,
            detail=partial(pools_ready, self.find),
        )

    def find_location(self) -> tuple[str, bool]:
        """Return where to create the cluster, and whether its resource group exists."""
        read = partial(resources.find_group, self.azure, self.group)
        group = read()
        if group is not None and resources.state_of(group) == "Deleting":
            resources.wait_until_gone(read, f"waiting until the old resource group {self.group} is deleted")
            group = None
        if self.request.location is not None:
            return self.request.location, group is not None
        if group is None:
            raise InvalidInput(
                f"`location` must be given, because resource group {self.group} does not exist",
                hint='For example: location="eastus".',
            )
        return resource_names.check_location(str(group["location"])), True


def _remedy(differences: Mapping[str, object]) -> str:
    """Return the hint for a cluster that exists and differs."""
    if differences.keys() == {"node_count"}:
        pool = cluster_fields.SYSTEM_POOL
        return f"Change the number of nodes with cluster.scale_pool(aks, {pool!r}, count)."
    return (
        "Use the existing cluster with cluster.get(azure, name, resource_group=...), choose another name, "
        "or delete the existing cluster first."
    )


@call("reading cluster {}")
def get(azure: Azure, name: str, *, resource_group: str, timeout: Timeout = READ_TIMEOUT) -> Cluster:
    """Return an existing cluster.

    Args:
        azure: the subscription.
        name: name of the cluster.
        resource_group: name of its resource group.
        timeout: seconds, or text such as ``"2m"``, to keep trying while Azure gives no usable response; None for no
            limit.

    Raises:
        InvalidInput: an argument is not valid.
        AzureNotFound: the cluster does not exist; the error lists the existing clusters.
        AzureUnreachable: Azure gave no usable response in time.

    Example:
        >>> aks = cluster.get(azure, "myAKSCluster", resource_group="myResourceGroup")
    """
    resource_names.check(resource_names.CLUSTER, name, "name")
    resource_names.check(resource_names.GROUP, resource_group, "resource_group")
    if isinstance(azure, KubeconfigTarget):
        aks, warning = unmanaged.cluster_at(azure, name)
        warn(warning)
        return aks
    found = resources.find_cluster(azure, resource_group, name)
    if found is None:
        raise resources.cluster_not_found(azure, resource_group, name)
    return from_resource(azure, found)


_COLUMNS = {
    "cluster": "string",
    "resource_group": "string",
    "location": "string",
    "kubernetes": "string",
    "state": "string",
    "power": "string",
    "pools": "Int64",
    "nodes": "Int64",
    "delete_after": "datetime64[ns, UTC]",
}


@call("listing clusters")
def list_clusters(azure: Azure, *, timeout: Timeout = READ_TIMEOUT) -> pd.DataFrame:
    """Return all clusters of the subscription.

    Args:
        azure: the subscription.
        timeout: seconds, or text such as ``"2m"``, to keep trying while Azure gives no usable response; None for no
            limit.

    Returns:
        A DataFrame, one row per cluster, sorted by resource group and name:

        - ``cluster``, ``resource_group``, ``location`` (string).
        - ``kubernetes`` (string): version of the control plane.
        - ``state`` (string): provisioning state; ``power`` (string): ``Running`` or ``Stopped``.
        - ``pools``, ``nodes`` (Int64): number of node pools and nodes.
        - ``delete_after`` (datetime, UTC): when the cluster is due for deletion; NaT for never.

    Raises:
        AzureUnreachable: Azure gave no usable response in time.
        AzureError: Azure refused the request.
    """
    rows = [_row(found) for found in resources.list_clusters(azure)]
    return frame(rows, _COLUMNS).sort_values(["resource_group", "cluster"], ignore_index=True)


def _row(found: Mapping[str, Any]) -> dict[str, Any]:
    properties = found["properties"]
    pools = properties.get("agentPoolProfiles") or []
    return {
        "cluster": found["name"],
        "resource_group": found["id"].split("/")[4],
        "location": found["location"],
        "kubernetes": properties.get("currentKubernetesVersion") or properties.get("kubernetesVersion"),
        "state": resources.state_of(found),
        "power": resources.power_of(found),
        "pools": len(pools),
        "nodes": sum(int(pool.get("count") or 0) for pool in pools),
        "delete_after": expiry.due(found.get("tags")),
    }


@call("stopping cluster {}", continues="stopping it")
def stop(aks: Cluster, *, timeout: Timeout = 1800, progress: bool | None = None) -> None:
    """Stop a cluster: its control plane and nodes stop, its objects stay, and only disks and addresses cost money.

    Azure does not reserve the GPUs, so a later start may fail for lack of capacity. Pods without a controller are lost.
    A cluster that is already stopped does not change.

    Args:
        aks: the cluster.
        timeout: seconds, or text such as ``"30m"``; None for no limit.
        progress: False hides the progress bar; None reads ``AKSGPU_PROGRESS``.

    Raises:
        AzureNotFound: the cluster does not exist.
        AzureError: Azure refused.
        WaitTimeout: the time is up; stopping continues in Azure.
    """
    _set_power(aks, "Stopped", "stopping", "begin_stop")


@call("starting cluster {}", continues="starting it")
def start(aks: Cluster, *, timeout: Timeout = 1800, progress: bool | None = None) -> None:
    """Start a stopped cluster. A cluster that runs does not change.

    The arguments and the errors are those of :func:`stop`.
    """
    _set_power(aks, "Running", "starting", "begin_start")


def _set_power(aks: Cluster, power: str, doing: str, method: str) -> None:
    azure = azure_of(aks)
    target = _ClusterTarget(azure, aks.resource_group, aks.name)
    what = f"{doing} cluster {aks.name}"

    def reached() -> dict[str, Any] | None:
        found = target.require(what)
        return found if resources.power_of(found) == power else None

    if reached() is not None:
        return
    begin = partial(getattr(azure.client.managed_clusters, method), aks.resource_group, aks.name)
    target.operate(begin, what, reached)


@call("aborting the operation on cluster {}", continues="aborting it")
def abort(aks: Cluster, *, timeout: Timeout = 600, progress: bool | None = None) -> None:
    """Abort the operation that runs on a cluster, if AKS still can. Does nothing if no operation runs.

    The state of the cluster is ``Canceled`` afterwards. Create it again with the same arguments, or delete it.

    Args:
        aks: the cluster.
        timeout: seconds, or text such as ``"10m"``; None for no limit.
        progress: False hides the progress bar; None reads ``AKSGPU_PROGRESS``.

    Raises:
        AzureError: AKS refused, because the operation is nearly done.
        WaitTimeout: the time is up.
    """
    azure = azure_of(aks)
    what = f"aborting the operation on cluster {aks.name}"
    read = partial(resources.find_cluster, azure, aks.resource_group, aks.name)

    def send() -> bool:
        with translated(what):
            poller = azure.client.managed_clusters.begin_abort_latest_operation(
                aks.resource_group, aks.name, polling=azure.polling()
            )
        follow(poller, what)
        return True

    def is_aborted() -> bool | None:
        found = read()
        return True if found is None or resources.state_of(found) in resources.SETTLED else None

    until_settled(send, is_aborted, what)
