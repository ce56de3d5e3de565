"""Clusters created, found, stopped and started. Private to :mod:`aksgpu.cluster`."""

from __future__ import annotations

import builtins
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from aksgpu import sizes
from aksgpu._azure import clusterfields, expiry, resources
from aksgpu._azure import poolfields as fields
from aksgpu._azure.awaited import pools_ready
from aksgpu._azure.handle import Cluster, azure_of, cluster_of
from aksgpu._azure.leftovers import delete
from aksgpu._azure.nodepool import with_costs
from aksgpu._frames import frame
from aksgpu._numbers import whole
from aksgpu.azure import Azure, follow, translated
from aksgpu.errors import AzureError, AzureNotFound, AzureUnreachable, InvalidInput, WaitTimeout

if TYPE_CHECKING:
    import pandas as pd


DEFAULT_VM_SIZE = "Standard_D2s_v5"
"""Of the system pool when no size is asked for: the smallest that AKS takes (2 vCPUs, 4 GB and more)."""


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
    timeout: float = 1800,
    progress: bool | None = None,
) -> Cluster:
    """Create a cluster, with its resource group where that is missing, and wait until it is ready.

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
        kubernetes_version: such as ``1.33`` or ``1.33.5``; by default AKS' own default.
        tags: Azure tags of the cluster.
        delete_after: deletes the cluster this long from now, such as ``"2h"`` (``s``, ``m``, ``h``, ``d``): by this
            process, as long as it lives. A tag keeps the time; :func:`leftovers` shows clusters that are overdue.
            On a cluster that exists, the time counts anew.
        preflight: look at size and quota first, and refuse what cannot be had; False leaves that to AKS.
        timeout: seconds to wait for all of it. Creation goes on in Azure when they are over.
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
    resources.check_cluster_name(name)
    resources.check_group_name(resource_group)
    fields.check_size(vm_size)
    fields.texts("tags", tags)
    whole("node_count", node_count, 1, 1000, of="AKS takes 1 to 1000 nodes in a system pool")
    location = sizes.canonical_location(location) if location is not None else None
    life = expiry.parse(delete_after) if delete_after is not None else None
    deadline = time.monotonic() + timeout
    target = _Target(azure, resource_group, name)
    existing = target.find()
    if existing is not None:
        wish = clusterfields.wish(location, vm_size, node_count, kubernetes_version, tags)
        try:
            if (ready := target.ready(existing, wish, timeout, progress)) is not None:
                aks = with_costs(cluster_of(azure, ready), ready)
                if life is not None:
                    expiry.extend(azure, aks, life, timeout=timeout, progress=progress)
                    expiry.set_timer(aks, life, delete)
                return aks
        except (WaitTimeout, KeyboardInterrupt):
            if life is not None:  # what was waited for goes on in Azure, and the cluster is to go in time all the same
                expiry.set_timer(target.handle(), life, delete)
            raise
    place, group_exists = target.place(location, timeout, progress)
    size = vm_size or DEFAULT_VM_SIZE
    if preflight and existing is None:
        sizes.preflight(azure, place, size, node_count, gpu=False).raise_if_no()
    if not group_exists:
        resources.make_group(azure, resource_group, place)
    tags = {**(tags or {}), **(expiry.tag(life) if life is not None else {})}
    body = clusterfields.body(azure, name, resource_group, place, size, node_count, kubernetes_version, tags)
    begun = time.monotonic()
    if life is not None:  # before anything can interrupt: the making goes on in Azure when nobody waits for it
        expiry.set_timer(target.handle(), life, delete)
    created = target.put(body, max(1.0, deadline - begun), progress)
    aks = cluster_of(azure, created)
    if life is not None:
        expiry.set_timer(aks, life, delete, begun=begun)
    return with_costs(aks, created)


class _Target:
    """The place of one cluster in a subscription, whether it exists or not."""

    def __init__(self, azure: Azure, group: str, name: str) -> None:
        self.azure, self.group, self.name = azure, group, name
        self.id = resources.cluster_id(azure, group, name)
        self.creating = f"creating cluster {name}"

    def find(self) -> dict[str, Any] | None:
        return resources.find_cluster(self.azure, self.group, self.name)

    def handle(self) -> Cluster:
        """The object for it, before Azure shows it."""
        return Cluster(self.name, resource_group=self.group, azure=self.azure, id=self.id)

    def put(self, body: Mapping[str, Any], timeout: float, progress: bool | None) -> dict[str, Any]:
        """Make it, and forget its timer where Azure refuses to begin."""
        accepted = False

        def begin(**options: Any) -> Any:
            nonlocal accepted
            poller = self.azure.client.managed_clusters.begin_create_or_update(self.group, self.name, body, **options)
            accepted = True
            return poller

        try:
            return dict(self.operate(begin, self.creating, timeout=timeout, progress=progress).as_dict())
        except AzureError as error:
            # Without an answer nobody knows whether it arrived; the timer looks before it deletes.
            if not accepted and not isinstance(error, AzureUnreachable):
                expiry.cancel(self.handle())
            raise

    def operate(self, begin: Any, what: str, *, timeout: float, progress: bool | None) -> Any:
        return resources.operate(
            self.azure,
            begin,
            what,
            resource=self.id,
            read=self.find,
            timeout=timeout,
            progress=progress,
            look=partial(pools_ready, self.find),
        )

    def ready(
        self, existing: dict[str, Any], wish: Mapping[str, Any], timeout: float, progress: bool | None
    ) -> dict[str, Any] | None:
        """The existing cluster, if it matches, once nothing runs on it; None when it has to be created (again)."""
        state = resources.state_of(existing)
        if state == "Deleting":
            what = f"waiting until the old cluster {self.name} is deleted"
            resources.wait_until_gone(self.find, what, timeout=timeout, progress=progress)
            return None
        if differences := clusterfields.differences(existing, wish):
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
            timeout=timeout,
            progress=progress,
            look=partial(pools_ready, self.find),
        )

    def place(self, location: str | None, timeout: float, progress: bool | None) -> tuple[str, bool]:
        """Where to create it, and whether its resource group exists."""
        group = resources.find_group(self.azure, self.group)
        if group is not None and resources.state_of(group) == "Deleting":
            what = f"waiting until the old resource group {self.group} is deleted"
            read = partial(resources.find_group, self.azure, self.group)
            resources.wait_until_gone(read, what, timeout=timeout, progress=progress)
            group = None
        if location is None and group is None:
            raise InvalidInput(
                f"resource group {self.group} does not exist, so location is needed to create it",
                hint='Give location="eastus", for example.',
            )
        return location or sizes.canonical_location(str((group or {})["location"])), group is not None


def get(azure: Azure, name: str, resource_group: str) -> Cluster:
    """A cluster that exists.

    Args:
        azure: the subscription.
        name: of the cluster.
        resource_group: of the cluster.

    Raises:
        AzureNotFound: there is none; the error names those that there are.
    """
    shown = resources.find_cluster(azure, resource_group, name)
    if shown is not None:
        return with_costs(cluster_of(azure, shown), shown)
    with translated("listing clusters"):
        others = sorted(f"{c.name} ({str(c.id).split('/')[4]})" for c in azure.client.managed_clusters.list())
    there = f"There are: {', '.join(others)}." if others else "There are no clusters: cluster.create makes one."
    raise AzureNotFound(
        f"no cluster {name!r} in resource group {resource_group!r}", code="ResourceNotFound", status=404, hint=there
    )


def list_clusters(azure: Azure) -> pd.DataFrame:
    """All clusters of the subscription.

    Args:
        azure: the subscription.

    Returns:
        A DataFrame, one row a cluster, sorted by resource group and name: ``cluster``, ``resource_group``,
        ``location``, ``kubernetes`` (version), ``state`` (provisioning state), ``power`` (``Running`` or ``Stopped``),
        all string; ``pools`` and ``nodes`` (Int64, counts).
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


def stop(aks: Cluster, *, timeout: float = 1800, progress: bool | None = None) -> None:
    """Stop a cluster: control plane and nodes go, its objects stay, and only disks and addresses still cost money.

    Azure does not keep the GPUs: starting again may fail for want of capacity. Pods without a controller are gone.
    Twice is fine.

    Args:
        aks: the cluster.
        timeout: seconds to wait.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.

    Raises:
        AzureError: Azure refused.
        WaitTimeout: time ran out; stopping goes on in Azure.
    """
    _switch(aks, "Stopped", "stopping", "begin_stop", timeout, progress)


def start(aks: Cluster, *, timeout: float = 1800, progress: bool | None = None) -> None:
    """Start a stopped cluster. Twice is fine; arguments and errors as for :func:`stop`."""
    _switch(aks, "Running", "starting", "begin_start", timeout, progress)


def _switch(aks: Cluster, power: str, doing: str, method: str, timeout: float, progress: bool | None) -> None:
    azure = azure_of(aks)
    target = _Target(azure, aks.resource_group, aks.name)
    what = f"{doing} cluster {aks.name}"
    shown = resources.settle(target.find, what, timeout=timeout, progress=progress)
    if shown is None:
        raise AzureNotFound(f"no cluster {aks.name!r} in resource group {aks.resource_group!r}")
    if resources.power_of(shown) == power:
        with_costs(aks, shown)
        return
    begin = partial(getattr(azure.client.managed_clusters, method), aks.resource_group, aks.name)
    target.operate(begin, what, timeout=timeout, progress=progress)
    if (now := target.find()) is not None:
        with_costs(aks, now)


def abort(aks: Cluster, *, timeout: float = 600, progress: bool | None = None) -> None:
    """Abort the operation that runs on a cluster, where AKS still can. Without one, nothing happens.

    The cluster is then in the state ``Canceled``: create it again with the same arguments, or delete it.

    Args:
        aks: the cluster.
        timeout: seconds to wait.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.

    Raises:
        AzureError: AKS refused, because the operation is too far.
        WaitTimeout: time ran out.
    """
    azure = azure_of(aks)
    what = f"aborting the operation on cluster {aks.name}"
    with translated(what):
        poller = azure.client.managed_clusters.begin_abort_latest_operation(
            aks.resource_group, aks.name, polling=azure.polling()
        )
    follow(poller, what, timeout=timeout, progress=progress)
