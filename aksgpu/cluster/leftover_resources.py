"""Deleting a cluster with its resource group and files, and finding what still costs money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from aksgpu.azure import resources
from aksgpu.azure.calls import call, warn
from aksgpu.azure.saved_operation import SavedOperation
from aksgpu.azure.subscription import Azure
from aksgpu.azure.throttling import READ_TIMEOUT
from aksgpu.cluster import credentials, expiry, node_pool_model, unmanaged
from aksgpu.cluster.cluster_model import Cluster, azure_of
from aksgpu.common.frames import frame
from aksgpu.errors import AzureNotFound
from aksgpu.sizes import skus_and_quota
from aksgpu.waiting import Timeout

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Deletion", "delete", "delete_within_call", "leftovers"]

_DEFAULT_DISK_GB = 128
"""Size in GB of a node's OS disk if AKS does not report it."""


@dataclass(frozen=True)
class Deletion:
    """What :func:`delete` deleted. It is true if anything was deleted.

    Attributes:
        cluster: name of the cluster; None if it did not exist.
        resource_group: name of the resource group; None if it was not deleted.
        reason: why the resource group was not deleted; empty if it was.
    """

    cluster: str | None
    resource_group: str | None
    reason: str = ""

    def __bool__(self) -> bool:
        return self.cluster is not None or self.resource_group is not None

    def __repr__(self) -> str:
        deleted = []
        if self.cluster is not None:
            deleted.append(f"cluster {self.cluster}")
        if self.resource_group is not None:
            deleted.append(f"resource group {self.resource_group}")
        text = f"deleted {' and '.join(deleted)}" if deleted else "nothing deleted"
        return f"Deletion({text}; {self.reason})" if self.reason else f"Deletion({text})"


@call("deleting cluster {}", continues="the deletion")
def delete(
    aks: Cluster,
    *,
    delete_group: bool | None = None,
    missing: Literal["warn", "error"] = "warn",
    timeout: Timeout = 1800,
    progress: bool | None = None,
) -> Deletion:
    """Delete a cluster with all its nodes, and its resource group if that has no other use.

    The resource group is deleted if this library created it and nothing else is in it. The files that this library
    keeps about the cluster, including its credentials, are deleted too. The user's own kubeconfig does not change. If
    Azure does not manage the cluster, nothing is deleted.

    Args:
        aks: the cluster.
        delete_group: True deletes the resource group with everything in it; False keeps it; None decides as above.
        missing: ``warn`` issues a Python warning if the cluster does not exist, so that a cell may be run twice and a
            typo is visible; ``error`` raises.
        timeout: seconds, or text such as ``"30m"``, for the whole call; None for no limit.
        progress: False hides the progress bar; None reads ``AKSGPU_PROGRESS``.

    Returns:
        What was deleted; it is false if nothing was.

    Raises:
        AzureNotFound: the cluster does not exist, with ``missing="error"``.
        AzureError: Azure refused.
        WaitTimeout: the time is up; the deletion continues in Azure.
    """
    if not aks.has_azure:
        return Deletion(None, None, unmanaged.not_deleted(aks))
    azure = azure_of(aks)
    if missing == "error" and resources.find_cluster(azure, aks.resource_group, aks.name) is None:
        raise resources.cluster_not_found(azure, aks.resource_group, aks.name)
    deletion = delete_within_call(aks, delete_group)
    if deletion.cluster is None:
        error = resources.cluster_not_found(azure, aks.resource_group, aks.name)
        warn(f"{error.message}, so nothing was deleted. {error.hint}")
    return deletion


def delete_within_call(aks: Cluster, delete_group: bool | None = None) -> Deletion:
    """Delete a cluster like :func:`delete`, within a call that has its own time limit, and without a warning."""
    azure = azure_of(aks)
    read = partial(resources.find_cluster, azure, aks.resource_group, aks.name)
    existing = read()
    if existing is not None:
        _delete_cluster(azure, aks, read)
    expiry.cancel(aks)  # not earlier: if Azure refuses, the timer still has to delete the cluster
    _delete_files(azure, aks, existing or {})
    deleted = aks.name if existing is not None else None
    group = resources.find_group(azure, aks.resource_group)
    if group is None:
        return Deletion(deleted, None, f"resource group {aks.resource_group} no longer exists")
    reason = _reason_to_keep(azure, aks, group, delete_group)
    if reason:
        return Deletion(deleted, None, f"resource group {aks.resource_group} was kept: {reason}")
    resources.delete_group(azure, aks.resource_group)
    return Deletion(deleted, aks.resource_group)


def _delete_cluster(azure: Azure, aks: Cluster, read: resources.Read) -> None:
    what = f"deleting cluster {aks.name}"

    def is_gone() -> dict[str, Any] | None:
        found = read()
        if found is None:
            return {}
        if resources.state_of(found) == "Deleting":
            resources.wait_until_gone(read, what)
            return {}
        return None

    if is_gone() is not None:
        return
    begin = partial(azure.client.managed_clusters.begin_delete, aks.resource_group, aks.name)
    try:
        resources.operate(azure, begin, what, resource=aks.id, read=read, reached=is_gone)
    except AzureNotFound:
        return  # another caller deleted it


def _delete_files(azure: Azure, aks: Cluster, existing: Mapping[str, Any]) -> None:
    """Delete the files that this library keeps about a cluster: credentials and running operations."""
    profiles = existing.get("properties", {}).get("agentPoolProfiles") or ()
    pools = [f"{aks.id}/agentPools/{profile['name']}" for profile in profiles]
    for resource in (aks.id, *pools):
        SavedOperation(azure.home, resource).delete()
    credentials.delete_files(aks)


def _reason_to_keep(azure: Azure, aks: Cluster, group: Mapping[str, Any], delete_group: bool | None) -> str:
    """Return why the resource group is kept; empty if it is to be deleted."""
    if delete_group is not None:
        return "" if delete_group else "as requested"
    if not resources.OWN_GROUP_TAG.items() <= (group.get("tags") or {}).items():
        return "it existed before"
    try:
        contents = resources.group_contents(azure, aks.resource_group)
    except AzureNotFound:
        return ""  # another caller deletes the group
    # Azure's list of a group's resources lags behind, and may still have the cluster that was just deleted.
    others = [resource for resource in contents if resource.lower() != aks.id.lower()]
    if not others:
        return ""
    return f"it has {len(others)} more resource{'s' if len(others) > 1 else ''}"


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
def leftovers(azure: Azure, *, timeout: Timeout = READ_TIMEOUT) -> pd.DataFrame:
    """Return what still costs money: every node pool of every cluster of the subscription, by any creator.

    Args:
        azure: the subscription.
        timeout: seconds, or text such as ``"2m"``, to keep trying while Azure gives no usable response; None for no
            limit.

    Returns:
        A DataFrame, one row per node pool, sorted by resource group, cluster and pool; without rows if nothing is left:

        - ``resource_group``, ``cluster``, ``pool``, ``vm_size`` (string).
        - ``count`` (Int64): nodes.
        - ``state`` (string): provisioning state, or ``Stopped``: then no node runs, and only its disks cost money.
          ``, overdue`` follows if the cluster should have been deleted already (``delete_after``).
        - ``usd_per_hour`` (Float64): price of the virtual machines in US dollars; NA if unknown.
        - ``disks_usd_per_day`` (Float64): price of the OS disks, those of a stopped pool included; 0 for ephemeral
          disks. The price is that of premium SSDs, which AKS prefers. NA for pools that keep the disks of deallocated
          nodes, which Azure does not count.
        - ``usd_per_day`` (Float64): both together; NA if either is. IP addresses and traffic are not included.

    Raises:
        AzureUnreachable: Azure gave no usable response in time.
        AzureError: Azure refused the request.

    Example:
        >>> cluster.leftovers(azure)["usd_per_day"].sum()
    """
    rows: list[dict[str, Any]] = []
    for found in resources.list_clusters(azure):
        rows += _rows(azure, found)
    return frame(rows, _COLUMNS).sort_values(["resource_group", "cluster", "pool"], ignore_index=True)


def _rows(azure: Azure, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of one cluster."""
    name = str(found["name"])
    location = str(found["location"]).lower()
    profiles = found["properties"].get("agentPoolProfiles") or ()
    pools = [node_pool_model.from_properties(name, str(profile["name"]), profile) for profile in profiles]
    is_cluster_stopped = resources.power_of(found) == "Stopped"
    due = expiry.due(found.get("tags"))
    overdue = ", overdue" if due is not None and due < datetime.now(UTC) else ""
    rows = []
    for pool, profile in zip(node_pool_model.priced(azure, location, pools), profiles, strict=True):
        is_stopped = is_cluster_stopped or pool.power == "Stopped"
        hourly = 0.0 if is_stopped else pool.usd_per_hour
        disks_daily = _disks_usd_per_day(azure, location, profile)
        rows.append(
            {
                "resource_group": str(found["id"]).split("/")[4],
                "cluster": name,
                "pool": pool.name,
                "vm_size": pool.vm_size,
                "count": pool.count,
                "state": f"{'Stopped' if is_stopped else pool.state}{overdue}",
                "usd_per_hour": hourly,
                "disks_usd_per_day": disks_daily,
                "usd_per_day": None if hourly is None or disks_daily is None else round(hourly * 24 + disks_daily, 2),
            }
        )
    return rows


def _disks_usd_per_day(azure: Azure, location: str, profile: Mapping[str, Any]) -> float | None:
    """Return the price of the OS disks of a pool in US dollars per day. Stopped nodes keep their disks."""
    if profile.get("osDiskType") == "Ephemeral":
        return 0.0
    is_spot = profile.get("scaleSetPriority") == "Spot"
    eviction_policy = profile.get("scaleSetEvictionPolicy") if is_spot else None
    if "Deallocate" in (profile.get("scaleDownMode"), eviction_policy):
        return None  # deallocated nodes keep their disks, and are not in the count
    count = int(profile.get("count") or 0)
    if not count:
        return 0.0
    per_disk = skus_and_quota.disk_price(azure, location, int(profile.get("osDiskSizeGB") or _DEFAULT_DISK_GB))
    return None if per_disk is None else round(per_disk * count, 2)
