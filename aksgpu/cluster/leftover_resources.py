"""Deleting a cluster with what belongs to it, and finding what still costs money. Private to :mod:`aksgpu.cluster`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from aksgpu.azure import resources
from aksgpu.azure.calls import call, warn
from aksgpu.azure.subscription import Azure, translated
from aksgpu.azure.throttling import READ_TIMEOUT
from aksgpu.cluster import credentials, expiry, node_pool_model, unmanaged
from aksgpu.cluster.cluster_model import Cluster, azure_of
from aksgpu.common.frames import frame
from aksgpu.errors import AzureNotFound
from aksgpu.sizes import skus_and_quota

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Deletion:
    """What :func:`delete` deleted. It is true where anything was.

    Attributes:
        cluster: name of the cluster; None when there was none any more.
        resource_group: name of the resource group; None when it was left.
        left: why the resource group was left; empty when it was deleted.
    """

    cluster: str | None
    resource_group: str | None
    left: str = ""

    def __bool__(self) -> bool:
        return self.cluster is not None or self.resource_group is not None

    def __repr__(self) -> str:
        gone = [
            f"{kind} {name}"
            for kind, name in (("cluster", self.cluster), ("resource group", self.resource_group))
            if name
        ]
        said = f"deleted {' and '.join(gone)}" if gone else "nothing deleted"
        return f"Deletion({said}{f'; {self.left}' if self.left else ''})"


@call("deleting cluster {}", goes_on="the deletion")
def delete(
    aks: Cluster,
    *,
    delete_group: bool | None = None,
    missing: Literal["warn", "error"] = "warn",
    timeout: float | None = 1800,
    progress: bool | None = None,
) -> Deletion:
    """Delete a cluster with all its nodes, and its resource group when that has no other use.

    The resource group goes when this library made it and nothing else is in it. So do the files that this library kept
    about the cluster, credentials among them; the user's own kubeconfig stays as it is. Nothing is deleted
    of a cluster that Azure does not manage.

    Args:
        aks: the cluster.
        delete_group: True deletes the resource group with everything in it; False leaves it; None decides as above.
        missing: ``warn`` issues a Python warning where there is no such cluster, so that a cell may be run twice and a
            typo is visible; ``error`` raises.
        timeout: seconds to wait for all of it; None for no limit.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.

    Returns:
        What was deleted; it is false where nothing was.

    Raises:
        AzureNotFound: there is no such cluster, with ``missing="error"``.
        AzureError: Azure refused.
        WaitTimeout: time ran out; the deletion goes on in Azure.
    """
    if not aks.has_azure:
        return Deletion(None, None, unmanaged.not_deleted(aks))
    azure = azure_of(aks)
    if missing == "error" and resources.find_cluster(azure, aks.resource_group, aks.name) is None:
        raise AzureNotFound(
            f"no cluster {aks.name!r} in resource group {aks.resource_group!r}",
            code="ResourceNotFound",
            status=404,
            hint=resources.clusters_there_are(azure, aks.name),
        )
    deletion = delete_now(aks, delete_group)
    if deletion.cluster is None:
        there = resources.clusters_there_are(azure, aks.name)
        warn(f"no cluster {aks.name!r} in resource group {aks.resource_group!r}, so none was deleted. {there}")
    return deletion


def delete_now(aks: Cluster, delete_group: bool | None = None) -> Deletion:
    """The same within a call that has its own time, without a warning."""
    azure = azure_of(aks)
    read = partial(resources.find_cluster, azure, aks.resource_group, aks.name)
    existing = read()
    if existing is not None:
        _delete_cluster(azure, aks, read)
    expiry.cancel(aks)  # only now: after a refusal the timer still has to delete it
    _forget(azure, aks, existing or {})
    group = resources.find_group(azure, aks.resource_group)
    deleted = aks.name if existing is not None else None
    if group is None:
        return Deletion(deleted, None, f"resource group {aks.resource_group} is gone too")
    why = _why_left(azure, aks, group, delete_group)
    if why:
        return Deletion(deleted, None, f"resource group {aks.resource_group} stays: {why}")
    resources.delete_group(azure, aks.resource_group)
    return Deletion(deleted, aks.resource_group)


def _delete_cluster(azure: Azure, aks: Cluster, read: Callable[[], dict[str, Any] | None]) -> None:
    what = f"deleting cluster {aks.name}"

    def is_gone() -> dict[str, Any] | None:
        shown = read()
        if shown is not None and resources.state_of(shown) == "Deleting":
            resources.wait_until_gone(read, what)
            return {}
        return {} if shown is None else None

    if is_gone() is not None:
        return
    begin = partial(azure.client.managed_clusters.begin_delete, aks.resource_group, aks.name)
    try:
        resources.operate(azure, begin, what, resource=aks.id, read=read, reached=is_gone)
    except AzureNotFound:
        return  # another caller was faster


def _forget(azure: Azure, aks: Cluster, existing: Mapping[str, Any]) -> None:
    """Drop what this library keeps about a cluster that is gone: credentials, costs, operations begun on it."""
    from aksgpu.azure.operations import Remembered

    profiles = existing.get("properties", {}).get("agentPoolProfiles") or ()
    pools = {*aks.costs, *(str(profile["name"]) for profile in profiles)}
    for resource in (aks.id, *(f"{aks.id}/agentPools/{pool}" for pool in pools)):
        Remembered(azure.home, resource).forget()
    credentials.forget(aks)
    aks.costs = dict.fromkeys(aks.costs, 0.0)


def _why_left(azure: Azure, aks: Cluster, group: Mapping[str, Any], wish: bool | None) -> str:
    """Why the resource group is not to be deleted; empty when it is."""
    if wish is not None:
        return "" if wish else "as asked"
    if (group.get("tags") or {}).items() & resources.MADE_BY.items() != resources.MADE_BY.items():
        return "it was there before"
    # Azure's list of a group's resources lags behind: the cluster just deleted may still be in it.
    try:
        contents = resources.group_contents(azure, aks.resource_group)
    except AzureNotFound:
        return ""  # another caller deletes the group
    others = [item for item in contents if item.lower() != aks.id.lower()]
    return f"it holds {len(others)} more resource{'s' if len(others) > 1 else ''}" if others else ""


_COLUMNS = {
    "resource_group": "string",
    "cluster": "string",
    "pool": "string",
    "vm_size": "string",
    "count": "Int64",
    "state": "string",
    "usd_per_hour": "Float64",
    "disks_usd_per_day": "Float64",
    "usd_per_day": "Float64",
}


@call("reading what still costs money")
def leftovers(azure: Azure, *, timeout: float | None = READ_TIMEOUT) -> pd.DataFrame:
    """What still costs money: every node pool of every cluster of the subscription, whoever made it.

    Args:
        azure: the subscription.
        timeout: seconds to go on trying while Azure gives no usable answer; None for no limit.

    Returns:
        A DataFrame, one row a node pool, sorted by resource group, cluster and pool; no rows when nothing is left:

        - ``resource_group``, ``cluster``, ``pool``, ``vm_size`` (string).
        - ``count`` (Int64): nodes.
        - ``state`` (string): provisioning state, or ``Stopped``: then no node runs, and only its disks cost money.
          ``, overdue`` follows where ``delete_after`` is over.
        - ``usd_per_hour`` (Float64): what its virtual machines cost in US dollars; NA when not known.
        - ``disks_usd_per_day`` (Float64): what their OS disks cost, those of a stopped pool included; 0 for ephemeral
          ones. Counted as premium SSDs, which AKS takes where it can. NA for pools that keep the disks of nodes they
          deallocate, which Azure does not count.
        - ``usd_per_day`` (Float64): both together; NA where either is. Addresses and traffic are not in it.

    Raises:
        AzureUnreachable: Azure gave no usable answer in time.
        AzureError: Azure refused.
    """
    with translated("listing clusters"):
        found = [dict(model.as_dict()) for model in azure.client.managed_clusters.list()]
    rows = [row for shown in found for row in _rows(azure, shown)]
    return frame(rows, _COLUMNS).sort_values(["resource_group", "cluster", "pool"], ignore_index=True)


def _rows(azure: Azure, shown: Mapping[str, Any]) -> list[dict[str, Any]]:
    name = str(shown["name"])
    profiles = shown["properties"].get("agentPoolProfiles") or ()
    location = str(shown["location"]).lower()
    found = [node_pool_model.pool_of(name, str(profile["name"]), profile) for profile in profiles]
    disks = {str(profile["name"]): _disks(azure, location, profile) for profile in profiles}
    stopped = resources.power_of(shown) == "Stopped"
    due = expiry.due(shown.get("tags"))
    overdue = ", overdue" if due is not None and due < datetime.now(UTC) else ""
    rows = []
    for pool in node_pool_model.priced(azure, location, found):
        idle = stopped or pool.power == "Stopped"
        hourly = 0.0 if idle else pool.usd_per_hour
        daily = disks[pool.name]
        rows.append(
            {
                "resource_group": str(shown["id"]).split("/")[4],
                "cluster": name,
                "pool": pool.name,
                "vm_size": pool.vm_size,
                "count": pool.count,
                "state": f"{'Stopped' if idle else pool.state}{overdue}",
                "usd_per_hour": hourly,
                "disks_usd_per_day": daily,
                "usd_per_day": None if hourly is None or daily is None else round(hourly * 24 + daily, 2),
            }
        )
    return rows


def _disks(azure: Azure, location: str, profile: Mapping[str, Any]) -> float | None:
    """What the OS disks of a pool's nodes cost a day: nodes that are stopped keep theirs."""
    count = int(profile.get("count") or 0)
    if profile.get("osDiskType") == "Ephemeral":
        return 0.0
    spot = profile.get("scaleSetPriority") == "Spot"
    if "Deallocate" in (profile.get("scaleDownMode"), profile.get("scaleSetEvictionPolicy") if spot else None):
        return None  # nodes that are switched off keep their disks, and are not in the count
    if not count:
        return 0.0
    each = skus_and_quota.disk_price(azure, location, int(profile.get("osDiskSizeGB") or 128))  # 128: AKS' own default
    return None if each is None else round(each * count, 2)
