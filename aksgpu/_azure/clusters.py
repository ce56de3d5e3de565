"""Clusters created, found, stopped and started. Private to :mod:`aksgpu.cluster`."""

from __future__ import annotations

import builtins
import re
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from aksgpu import sizes
from aksgpu._azure import expiry, resources
from aksgpu._azure.awaited import pools_ready
from aksgpu._azure.handle import Cluster, azure_of, cluster_of
from aksgpu._azure.leftovers import delete
from aksgpu._azure.nodepool import with_costs
from aksgpu._frames import frame
from aksgpu._numbers import whole
from aksgpu.azure import Azure, follow, translated
from aksgpu.errors import AzureNotFound, InvalidInput

if TYPE_CHECKING:
    import pandas as pd


DEFAULT_VM_SIZE = "Standard_D2s_v5"
"""Of the system pool when no size is asked for: the smallest that AKS takes (2 vCPUs, 4 GB and more)."""

SYSTEM_POOL = "nodepool1"
"""Name of a new cluster's first pool, as the Azure CLI calls it."""


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
    whole("node_count", node_count, 1, 1000, of="AKS takes 1 to 1000 nodes in a system pool")
    location = sizes.canonical_location(location) if location is not None else None
    life = expiry.parse(delete_after) if delete_after is not None else None
    deadline = time.monotonic() + timeout
    target = _Target(azure, resource_group, name)
    existing = target.find()
    if existing is not None:
        wish = _wish(location, vm_size, node_count, kubernetes_version, tags)
        if (ready := target.ready(existing, wish, timeout, progress)) is not None:
            aks = with_costs(cluster_of(azure, ready), ready)
            if life is not None:
                expiry.extend(azure, aks, life, timeout=timeout, progress=progress)
                expiry.set_timer(aks, life, delete)
            return aks
    place, group_exists = target.place(location, timeout, progress)
    size = vm_size or DEFAULT_VM_SIZE
    if preflight and existing is None:
        sizes.preflight(azure, place, size, node_count, gpu=False).raise_if_no()
    if not group_exists:
        resources.make_group(azure, resource_group, place)
    tags = {**(tags or {}), **(expiry.tag(life) if life is not None else {})}
    body = _body(azure, name, resource_group, place, size, node_count, kubernetes_version, tags)
    created = target.operate(
        partial(azure.client.managed_clusters.begin_create_or_update, resource_group, name, body),
        target.creating,
        timeout=max(1.0, deadline - time.monotonic()),
        progress=progress,
    )
    shown = dict(created.as_dict())
    aks = with_costs(cluster_of(azure, shown), shown)
    if life is not None:
        expiry.set_timer(aks, life, delete)
    return aks


class _Target:
    """The place of one cluster in a subscription, whether it exists or not."""

    def __init__(self, azure: Azure, group: str, name: str) -> None:
        self.azure, self.group, self.name = azure, group, name
        self.id = resources.cluster_id(azure, group, name)
        self.creating = f"creating cluster {name}"

    def find(self) -> dict[str, Any] | None:
        return resources.find_cluster(self.azure, self.group, self.name)

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
        if differences := _differences(existing, wish):
            hint = (
                "Take it as it is with cluster.get(azure, name, resource_group), take another name, or delete it first."
            )
            if differences.keys() == {"node_count"}:
                hint = f"cluster.scale(aks, {SYSTEM_POOL!r}, count) changes the number of nodes."
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


def _wish(
    location: str | None,
    vm_size: str | None,
    node_count: int,
    kubernetes_version: str | None,
    tags: Mapping[str, str] | None,
) -> dict[str, Any]:
    return {
        "location": location,
        "vm_size": vm_size,
        "node_count": node_count,
        "kubernetes_version": kubernetes_version,
        "tags": dict(tags or {}),
    }


def _differences(existing: Mapping[str, Any], wish: Mapping[str, Any]) -> dict[str, tuple[object, object]]:
    properties = existing["properties"]
    pools = {pool["name"]: pool for pool in properties.get("agentPoolProfiles") or ()}
    pool = pools.get(SYSTEM_POOL, {})
    version = str(properties.get("kubernetesVersion") or "")
    found: dict[str, tuple[object, object]] = {}
    if wish["location"] and existing["location"].lower() != wish["location"]:
        found["location"] = (existing["location"], wish["location"])
    if wish["vm_size"] and str(pool.get("vmSize", "")).lower() != wish["vm_size"].lower():
        found["vm_size"] = (pool.get("vmSize"), wish["vm_size"])
    if pool and not pool.get("enableAutoScaling") and pool.get("count") != wish["node_count"]:
        found["node_count"] = (pool.get("count"), wish["node_count"])
    if (wanted := wish["kubernetes_version"]) and not f"{version}.".startswith(f"{wanted}."):
        found["kubernetes_version"] = (version, wanted)
    for key, value in wish["tags"].items():
        if (have := (existing.get("tags") or {}).get(key)) != value:
            found[f"tag {key}"] = (have, value)
    if resources.power_of(existing) == "Stopped":
        found["power"] = ("Stopped (cluster.start(aks) starts it)", "Running")
    return found


def _body(
    azure: Azure,
    name: str,
    group: str,
    location: str,
    vm_size: str,
    node_count: int,
    kubernetes_version: str | None,
    tags: Mapping[str, str] | None,
) -> dict[str, Any]:
    pool = {
        "name": SYSTEM_POOL,
        "mode": "System",
        "count": node_count,
        "vmSize": vm_size,
        "osType": "Linux",
        "type": "VirtualMachineScaleSets",
    }
    version = {"kubernetesVersion": kubernetes_version} if kubernetes_version else {}
    return {
        "location": location,
        "identity": {"type": "SystemAssigned"},
        "sku": {"name": "Base", "tier": "Free"},
        "tags": dict(tags or {}),
        "properties": {
            "dnsPrefix": _dns_prefix(name, group, azure.subscription_id),
            "agentPoolProfiles": [pool],
            # Without this an API version may still choose kubenet, which AKS retires.
            "networkProfile": {"networkPlugin": "azure", "networkPluginMode": "overlay"},
            **version,
        },
    }


def _dns_prefix(name: str, group: str, subscription: str) -> str:
    """As the Azure CLI makes it: letters, digits and hyphens, beginning with a letter."""
    plain = re.sub(r"[^A-Za-z0-9-]", "", name)[:10]
    if not re.match(r"[A-Za-z]", plain):
        plain = f"a{plain}"[:10]
    return f"{plain}-{re.sub(r'[^A-Za-z0-9-]', '', group)[:16]}-{subscription[:6]}"


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
