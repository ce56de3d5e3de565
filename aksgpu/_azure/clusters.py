"""Clusters created, found, stopped and started. Private to :mod:`aksgpu.cluster`."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from aksgpu import sizes
from aksgpu._azure import clusterfields, expiry, names, resources, unmanaged
from aksgpu._azure import poolfields as fields
from aksgpu._azure.awaited import pools_ready
from aksgpu._azure.calls import call, warn
from aksgpu._azure.handle import Cluster, azure_of, cluster_of
from aksgpu._azure.leftovers import delete
from aksgpu._azure.nodepool import with_costs
from aksgpu._azure.patience import READ_TIMEOUT, until_settled
from aksgpu._frames import frame
from aksgpu.azure import Azure, KubeconfigTarget, follow, translated
from aksgpu.errors import AzureError, AzureNotFound, AzureUnreachable, InvalidInput, WaitTimeout

if TYPE_CHECKING:
    import pandas as pd


DEFAULT_VM_SIZE = "Standard_D2s_v5"
"""Of the system pool when no size is asked for: the smallest that AKS takes (2 vCPUs, 4 GB and more)."""


@call("creating cluster {}", goes_on="the creation")
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
    delete_after: str | timedelta | None = None,
    preflight: bool = True,
    timeout: float | None = 1800,
    progress: bool | None = None,
) -> Cluster:
    """Create a cluster, with its resource group where that is missing, and wait until it is ready.

    On a kubeconfig's target, the cluster of the kubeconfig is returned as it is, with a warning that says so.

    Safe to run twice: a cluster that exists and matches is returned, one that is still being created is waited for (by
    the next kernel too), one whose creation failed is created again.

    Args:
        azure: the subscription.
        name: 1 to 63 letters, digits, ``-`` and ``_``.
        resource_group: its resource group.
        location: such as ``eastus``; by default the resource group's, which has to exist then.
        vm_size: of its one pool, ``nodepool1``. A GPU size gives the shape of the 2020 tutorial: one GPU pool, without
            a taint. By default a small CPU size; :func:`add_gpu_pool` then adds the GPUs.
        node_count: nodes of that pool, 1 to 1000.
        kubernetes_version: such as ``1.36`` or ``1.36.2``; by default AKS' own default.
        tags: Azure tags of the cluster.
        delete_after: deletes the cluster this long from now, such as ``"2h"`` (``s``, ``m``, ``h``, ``d``): by this
            process, as long as it lives. A tag keeps the time; :func:`leftovers` shows clusters that are overdue.
            On a cluster that exists, the time counts anew.
        preflight: look at size and quota first, and refuse what cannot be had; False leaves that to AKS.
        timeout: seconds to wait for all of it; None for no limit. Creation goes on in Azure when they are over.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.

    Returns:
        The cluster.

    Raises:
        InvalidInput: a name against the rules, or no location.
        AzureConflict: a cluster of this name exists and differs; ``.differences`` has the fields.
        SizeNotAvailable: a size that is unknown, retired, or not offered.
        QuotaExceeded: the quota does not suffice.
        LocationNotAvailable: no such location.
        AllocationFailed: Azure has no capacity.
        AzureError: another refusal by Azure.
        WaitTimeout: time ran out.
    """
    names.check(names.CLUSTER, name, "name")
    names.check(names.GROUP, resource_group, "resource_group")
    fields.check_size(vm_size)
    fields.texts("tags", tags)
    clusterfields.check_version(kubernetes_version)
    fields.integer("node_count", node_count, 1, 1000)
    location = names.check_location(location) if location is not None else None
    life = expiry.parse(delete_after) if delete_after is not None else None
    if isinstance(azure, KubeconfigTarget):
        there, said = unmanaged.cluster_at(azure, name)
        warn(said)
        return there
    wish = clusterfields.wish(location, vm_size, node_count, kubernetes_version, tags)
    target = _Target(azure, resource_group, name, wish)
    existing = target.find()
    if existing is not None:
        try:
            ready = target.ready(existing)
        except (WaitTimeout, KeyboardInterrupt):
            if life is not None:  # what was waited for goes on in Azure, and the cluster is to go in time all the same
                expiry.set_timer(target.handle(), life, delete)
            raise
        if ready is not None:
            return _taken(azure, ready, life)
    place, group_exists = target.place(location)
    size = vm_size or DEFAULT_VM_SIZE
    if preflight and existing is None:
        sizes.require_available(azure, place, size, node_count, gpu=False)
    if not group_exists:
        resources.make_group(azure, resource_group, place)
    all_tags = {**(tags or {}), **(expiry.tag(life) if life is not None else {})}
    body = clusterfields.body(azure, name, resource_group, place, size, node_count, kubernetes_version, all_tags)
    begun = time.monotonic()
    if life is not None:  # before anything can interrupt: the making goes on in Azure when nobody waits for it
        expiry.set_timer(target.handle(), life, delete)
    created = target.put(body)
    aks = cluster_of(azure, created)
    if life is not None:
        expiry.set_timer(aks, life, delete, begun=begun)
    return with_costs(aks, created)


def _taken(azure: Azure, ready: dict[str, Any], life: timedelta | None) -> Cluster:
    """The object for a cluster that was there already; its life counts anew."""
    aks = with_costs(cluster_of(azure, ready), ready)
    if life is not None:
        expiry.extend(azure, aks, life)
        expiry.set_timer(aks, life, delete)
    return aks


class _Target:
    """The place of one cluster in a subscription, whether it exists or not.

    Args:
        azure: the subscription.
        group: the resource group.
        name: of the cluster.
        wish: what is asked for; see :func:`aksgpu._azure.clusterfields.wish`.
    """

    def __init__(self, azure: Azure, group: str, name: str, wish: Mapping[str, Any] | None = None) -> None:
        self.azure = azure
        self.group = group
        self.name = name
        self.wish = wish or {}
        self.id = resources.cluster_id(azure, group, name)
        self.creating = f"creating cluster {name}"

    def find(self) -> dict[str, Any] | None:
        return resources.find_cluster(self.azure, self.group, self.name)

    def handle(self) -> Cluster:
        """The object for it, before Azure shows it."""
        return Cluster(self.name, resource_group=self.group, azure=self.azure, id=self.id)

    def put(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make it, and forget its timer where Azure refuses to begin."""
        accepted = False

        def begin(**options: Any) -> Any:
            nonlocal accepted
            poller = self.azure.client.managed_clusters.begin_create_or_update(self.group, self.name, body, **options)
            accepted = True
            return poller

        def made() -> dict[str, Any] | None:
            found = self.find()
            return None if found is None else self.ready(found)

        try:
            return self.operate(begin, self.creating, made)
        except AzureError as error:
            # Without an answer nobody knows whether it arrived; the timer looks before it deletes.
            if not accepted and not isinstance(error, AzureUnreachable):
                expiry.cancel(self.handle())
            raise

    def operate(self, begin: Any, what: str, reached: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
        return resources.operate(
            self.azure,
            begin,
            what,
            resource=self.id,
            read=self.find,
            reached=reached,
            look=partial(pools_ready, self.find),
        )

    def ready(self, existing: dict[str, Any]) -> dict[str, Any] | None:
        """The existing cluster, if it matches, once nothing runs on it; None when it has to be created (again)."""
        state = resources.state_of(existing)
        if state == "Deleting":
            resources.wait_until_gone(self.find, f"waiting until the old cluster {self.name} is deleted")
            return None
        if differences := clusterfields.differences(existing, self.wish):
            hint = (
                "Take it as it is with cluster.get(azure, name, resource_group), take another name, or delete it first."
            )
            if differences.keys() == {"node_count"}:
                hint = f"cluster.scale(aks, {clusterfields.SYSTEM_POOL!r}, count) changes the number of nodes."
            raise resources.differs(f"cluster {self.name}", differences, hint)
        if state == "Succeeded":
            return existing
        if state in resources.SETTLED:
            return None  # the creation failed: the same request repairs what is there
        begin = partial(self.azure.client.managed_clusters.begin_create_or_update, self.group, self.name, {})
        return resources.resume(
            self.azure,
            begin,
            self.creating,
            resource=self.id,
            read=self.find,
            look=partial(pools_ready, self.find),
        )

    def place(self, location: str | None) -> tuple[str, bool]:
        """Where to create it, and whether its resource group exists."""
        read = partial(resources.find_group, self.azure, self.group)
        group = read()
        if group is not None and resources.state_of(group) == "Deleting":
            resources.wait_until_gone(read, f"waiting until the old resource group {self.group} is deleted")
            group = None
        if location is None and group is None:
            raise InvalidInput(
                f"`location` must be given, because resource group {self.group} does not exist",
                hint='Give location="eastus", for example.',
            )
        return location or names.check_location(str((group or {})["location"])), group is not None


@call("reading cluster {}")
def get(azure: Azure, name: str, resource_group: str, *, timeout: float | None = READ_TIMEOUT) -> Cluster:
    """A cluster that exists.

    Args:
        azure: the subscription.
        name: of the cluster.
        resource_group: of the cluster.
        timeout: seconds to go on trying while Azure gives no usable answer; None for no limit.

    Raises:
        InvalidInput: a name against the rules.
        AzureNotFound: there is none; the error names those that there are.
        AzureUnreachable: Azure gave no usable answer in time.
    """
    names.check(names.CLUSTER, name, "name")
    names.check(names.GROUP, resource_group, "resource_group")
    if isinstance(azure, KubeconfigTarget):
        there, said = unmanaged.cluster_at(azure, name)
        warn(said)
        return there
    shown = resources.find_cluster(azure, resource_group, name)
    if shown is not None:
        return with_costs(cluster_of(azure, shown), shown)
    raise AzureNotFound(
        f"no cluster {name!r} in resource group {resource_group!r}",
        code="ResourceNotFound",
        status=404,
        hint=resources.clusters_there_are(azure, name),
    )


@call("listing clusters")
def list_clusters(azure: Azure, *, timeout: float | None = READ_TIMEOUT) -> pd.DataFrame:
    """All clusters of the subscription.

    Args:
        azure: the subscription.
        timeout: seconds to go on trying while Azure gives no usable answer; None for no limit.

    Returns:
        A DataFrame, one row a cluster, sorted by resource group and name: ``cluster``, ``resource_group``,
        ``location``, ``kubernetes`` (version), ``state`` (provisioning state), ``power`` (``Running`` or ``Stopped``),
        all string; ``pools`` and ``nodes`` (Int64, counts).

    Raises:
        AzureUnreachable: Azure gave no usable answer in time.
    """
    with translated("listing clusters"):
        found = builtins.list(azure.client.managed_clusters.list())
    rows = []
    for shown in (dict(model.as_dict()) for model in found):
        properties = shown["properties"]
        pools = properties.get("agentPoolProfiles") or []
        rows.append(
            {
                "cluster": shown["name"],
                "resource_group": shown["id"].split("/")[4],
                "location": shown["location"],
                "kubernetes": properties.get("currentKubernetesVersion") or properties.get("kubernetesVersion"),
                "state": resources.state_of(shown),
                "power": resources.power_of(shown),
                "pools": len(pools),
                "nodes": sum(int(pool.get("count") or 0) for pool in pools),
            }
        )
    text = dict.fromkeys(("cluster", "resource_group", "location", "kubernetes", "state", "power"), "string")
    table = frame(rows, {**text, "pools": "Int64", "nodes": "Int64"})
    return table.sort_values(["resource_group", "cluster"], ignore_index=True)


@call("stopping cluster {}", goes_on="stopping it")
def stop(aks: Cluster, *, timeout: float | None = 1800, progress: bool | None = None) -> None:
    """Stop a cluster: control plane and nodes go, its objects stay, and only disks and addresses still cost money.

    Azure does not keep the GPUs: starting again may fail for want of capacity. Pods without a controller are gone.
    A cluster that is stopped already is left as it is.

    Args:
        aks: the cluster.
        timeout: seconds to wait; None for no limit.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.

    Raises:
        AzureError: Azure refused.
        WaitTimeout: time ran out; stopping goes on in Azure.
    """
    _switch(aks, "Stopped", "stopping", "begin_stop")


@call("starting cluster {}", goes_on="starting it")
def start(aks: Cluster, *, timeout: float | None = 1800, progress: bool | None = None) -> None:
    """Start a stopped cluster; one that runs is left as it is. Arguments and errors as for :func:`stop`."""
    _switch(aks, "Running", "starting", "begin_start")


def _switch(aks: Cluster, power: str, doing: str, method: str) -> None:
    azure = azure_of(aks)
    target = _Target(azure, aks.resource_group, aks.name)
    what = f"{doing} cluster {aks.name}"

    def switched() -> dict[str, Any] | None:
        shown = resources.settle(target.find, what)
        if shown is None:
            raise AzureNotFound(
                f"no cluster {aks.name!r} in resource group {aks.resource_group!r}",
                code="ResourceNotFound",
                status=404,
                hint=resources.clusters_there_are(azure, aks.name),
            )
        return shown if resources.power_of(shown) == power else None

    shown = switched()
    if shown is None:
        begin = partial(getattr(azure.client.managed_clusters, method), aks.resource_group, aks.name)
        target.operate(begin, what, switched)
        shown = target.find()
    if shown is not None:
        with_costs(aks, shown)


@call("aborting the operation on cluster {}", goes_on="aborting it")
def abort(aks: Cluster, *, timeout: float | None = 600, progress: bool | None = None) -> None:
    """Abort the operation that runs on a cluster, where AKS still can. Without one, nothing happens.

    The cluster is then in the state ``Canceled``: create it again with the same arguments, or delete it.

    Args:
        aks: the cluster.
        timeout: seconds to wait; None for no limit.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.

    Raises:
        AzureError: AKS refused, because the operation is too far.
        WaitTimeout: time ran out.
    """
    azure = azure_of(aks)
    what = f"aborting the operation on cluster {aks.name}"
    read = partial(resources.find_cluster, azure, aks.resource_group, aks.name)

    def abort_it() -> bool:
        with translated(what):
            poller = azure.client.managed_clusters.begin_abort_latest_operation(
                aks.resource_group, aks.name, polling=azure.polling()
            )
        follow(poller, what)
        return True

    def is_aborted() -> bool | None:
        shown = read()
        return True if shown is None or resources.state_of(shown) in resources.SETTLED else None

    until_settled(abort_it, is_aborted, what)
