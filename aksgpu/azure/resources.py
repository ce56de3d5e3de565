"""Resource groups, clusters and node pools in Resource Manager: their paths, reads and long-running operations.

:mod:`aksgpu.cluster` decides what to request. This module begins operations, waits for them and resumes
earlier ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

from aksgpu.azure import error_parsing, resource_names, throttling
from aksgpu.azure.saved_operation import SavedOperation
from aksgpu.azure.subscription import follow, translated
from aksgpu.azure.throttling import until_settled
from aksgpu.errors import (
    AzureConflict,
    AzureError,
    AzureNotFound,
    AzureUnreachable,
    OperationInProgress,
    Throttled,
    WaitTimeout,
)

if TYPE_CHECKING:
    from aksgpu.azure.subscription import Azure

__all__ = [
    "GROUPS_API",
    "OWN_GROUP_TAG",
    "SETTLED",
    "Read",
    "cluster_id",
    "cluster_not_found",
    "conflict",
    "create_group",
    "delete_group",
    "failure_of",
    "find_cluster",
    "find_group",
    "find_pool",
    "group_contents",
    "list_clusters",
    "operate",
    "power_of",
    "resume",
    "settle",
    "state_of",
    "wait_until_gone",
]

Read = Callable[[], dict[str, Any] | None]
"""Reads a resource; returns None if it does not exist."""

GROUPS_API = "2021-04-01"

OWN_GROUP_TAG = {"aksgpu": "created"}
"""The tag of resource groups that this library created, and may delete when they are empty."""

SETTLED = frozenset({"Succeeded", "Failed", "Canceled"})
"""Provisioning states in which no operation runs."""

_INTERVAL = 1.0
"""Seconds between the first two reads of a resource. AKS allows one read of a cluster per second for all callers."""

_INTERVAL_GROWTH = 1.5
"""Factor by which the interval grows after each read."""

_LONGEST_INTERVAL = 10.0
"""Longest interval in seconds between two reads."""

_LONGEST_PAUSE = 30.0
"""Longest pause in seconds between two attempts to begin an operation while another one runs."""

_CONTINUES_HINT = "The operation continues in Azure. Run the cell again to continue waiting."
_BUSY_HINT = (
    "Run the cell again later, or abort the other operation: "
    "cluster.abort(cluster.get(azure, name, resource_group=...))."
)


def _group_path(azure: Azure, group: str) -> str:
    resource_names.check(resource_names.GROUP, group, "resource_group")
    return f"/subscriptions/{azure.subscription_id}/resourcegroups/{group}"


def cluster_id(azure: Azure, group: str, name: str) -> str:
    """Return the resource id of a cluster.

    Raises:
        InvalidInput: a name is not valid.
    """
    resource_names.check(resource_names.GROUP, group, "resource_group")
    resource_names.check(resource_names.CLUSTER, name, "name")
    base = f"/subscriptions/{azure.subscription_id}/resourceGroups/{group}"
    return f"{base}/providers/Microsoft.ContainerService/managedClusters/{name}"


def find_group(azure: Azure, group: str) -> dict[str, Any] | None:
    """Return a resource group, or None if it does not exist."""
    try:
        return azure.request("GET", _group_path(azure, group), api_version=GROUPS_API, what=f"resource group {group}")
    except AzureNotFound as error:
        _raise_without_subscription(error)
        return None


def _raise_without_subscription(error: AzureNotFound) -> None:
    """Raise the error if it is the subscription that does not exist, rather than a resource in it."""
    if error.code in ("SubscriptionNotFound", "InvalidSubscriptionId"):
        raise error


def create_group(azure: Azure, group: str, location: str) -> None:
    """Create a resource group, with the tag of this library."""
    body = {"location": location, "tags": OWN_GROUP_TAG}
    what = f"creating resource group {group}"
    put = partial(azure.request, "PUT", _group_path(azure, group), api_version=GROUPS_API, body=body, what=what)
    until_settled(put, partial(find_group, azure, group), what)


def group_contents(azure: Azure, group: str) -> list[str]:
    """Return the ids of the resources in a group."""
    path = f"{_group_path(azure, group)}/resources"
    return [str(item["id"]) for item in azure.pages(path, api_version=GROUPS_API, what=f"resource group {group}")]


def delete_group(azure: Azure, group: str) -> None:
    """Delete a resource group and everything in it."""
    what = f"deleting resource group {group}"
    read = partial(find_group, azure, group)
    begin = partial(azure.begin, "DELETE", _group_path(azure, group), api_version=GROUPS_API, what=what)
    found = read()
    if found is None:
        return
    if state_of(found) == "Deleting":
        wait_until_gone(read, what)
        return

    def is_gone() -> bool | None:
        found = read()
        if found is None:
            return True
        if state_of(found) == "Deleting":
            wait_until_gone(read, what)
            return True
        return None

    def delete() -> bool:
        try:
            follow(begin(), what)
        except AzureNotFound:
            return True  # another caller deleted it
        return True

    until_settled(delete, is_gone, what)


def find_cluster(azure: Azure, group: str, name: str) -> dict[str, Any] | None:
    """Return a cluster as Resource Manager represents it, or None if it does not exist."""
    cluster_id(azure, group, name)  # checks the names
    try:
        with translated(f"cluster {name}"):
            return _as_dict(azure.client.managed_clusters.get(group, name))
    except AzureNotFound as error:
        _raise_without_subscription(error)
        return None


def list_clusters(azure: Azure) -> list[dict[str, Any]]:
    """Return all clusters of the subscription as Resource Manager represents them."""
    with translated("listing clusters"):
        return [_as_dict(model) for model in azure.client.managed_clusters.list()]


def cluster_not_found(azure: Azure, group: str, name: str) -> AzureNotFound:
    """Return the error for a cluster that does not exist. Its hint lists the existing clusters."""
    groups = {str(found["name"]): str(found["id"]).split("/")[4] for found in list_clusters(azure)}
    hint = "The subscription has no clusters. cluster.create(...) creates one."
    if groups:
        listed = ", ".join(f"{cluster} ({its_group})" for cluster, its_group in sorted(groups.items()))
        hint = f"Existing clusters: {listed}."
        similar = get_close_matches(name, groups, n=1)
        if similar and similar[0] != name:
            hint = f"Did you mean {similar[0]!r}? {hint}"
    return AzureNotFound(
        f"cluster {name!r} does not exist in resource group {group!r}",
        code="ResourceNotFound",
        http_status=404,
        hint=hint,
    )


def find_pool(azure: Azure, group: str, cluster: str, name: str) -> dict[str, Any] | None:
    """Return a node pool as Resource Manager represents it, or None if it does not exist."""
    cluster_id(azure, group, cluster)  # checks the names
    resource_names.check(resource_names.POOL, name, "name")
    try:
        with translated(f"node pool {name}"):
            return _as_dict(azure.client.agent_pools.get(group, cluster, name))
    except AzureNotFound:
        return None


def _as_dict(model: Any) -> dict[str, Any]:
    """Return the SDK's model as the JSON object that was received."""
    return dict(model.as_dict())


def state_of(resource: Mapping[str, Any]) -> str:
    """Return the provisioning state. A resource without one is ``Succeeded``."""
    return str(resource.get("properties", {}).get("provisioningState") or "Succeeded")


def power_of(resource: Mapping[str, Any]) -> str:
    """Return the power state: ``Running`` or ``Stopped``."""
    return str((resource.get("properties", {}).get("powerState") or {}).get("code") or "Running")


def failure_of(resource: Mapping[str, Any], what: str) -> AzureError:
    """Return the error for a resource in a failed state, with the reason in its status."""
    properties = resource.get("properties", {})
    reason = (properties.get("status") or {}).get("provisioningError")
    if not reason:
        reason = f"the state is {state_of(resource)}, without a reason"
    return error_parsing.recognise(reason, what=what)


def settle(read: Read, what: str) -> dict[str, Any] | None:
    """Read a resource until no operation runs on it, and return it; None if it no longer exists."""
    return _read_until(lambda found: found is None or state_of(found) in SETTLED, read, what)


def wait_until_gone(read: Read, what: str) -> None:
    """Wait for a deletion that another caller began."""
    _read_until(lambda found: found is None, read, what)


def _read_until(is_done: Callable[[dict[str, Any] | None], bool], read: Read, what: str) -> dict[str, Any] | None:
    """Read a resource at growing intervals until ``is_done`` accepts it. Wait longer if Azure asks for it."""
    call = throttling.current()
    state = "unknown"
    interval = _INTERVAL
    with throttling.progress_bar(what) as bar:
        while True:
            wait = interval * random.uniform(0.8, 1.0)
            reason = ""
            try:
                found = read()
                if is_done(found):
                    return found
                state = "gone" if found is None else state_of(found)
                if not call.running:
                    call.running.append(what)
            except Throttled as throttled:
                wait = max(interval, throttling.retry_seconds(throttled.retry_after))
                reason = f", {throttling.throttled_state(wait)}"
            if call.left <= 0:
                raise WaitTimeout(
                    f"{what}: not done after {call.seconds:g} s; last state: {state}{reason}",
                    state=state,
                    timeout=call.seconds,
                    hint=_CONTINUES_HINT,
                )
            throttling.pause(bar, state + reason, min(wait, call.left))
            interval = min(interval * _INTERVAL_GROWTH, _LONGEST_INTERVAL)


def operate(
    azure: Azure,
    begin: Callable[..., Any],
    what: str,
    *,
    resource: str,
    read: Read,
    reached: Read,
    detail: Callable[[], str] | None = None,
) -> dict[str, Any]:
    """Begin a long-running operation and follow it. If another one runs on the cluster, wait for that first.

    Another caller may make the same change at the same time, and the response to the request may be lost. In both
    cases the resource is read before the request is sent again.

    Args:
        azure: the subscription.
        begin: a ``begin_...`` method of the SDK with all arguments except ``polling``.
        what: what is being done, for progress and errors.
        resource: id of the resource, under which the running operation is saved.
        read: reads the cluster, on which one operation runs at a time.
        reached: returns the resource if it already has the state that the operation leads to; otherwise None. It is
            called while no operation runs on the resource.
        detail: returns what is not ready yet, for progress.

    Returns:
        The resource as Resource Manager represents it; empty if the operation has no result.

    Raises:
        OperationInProgress: the time is up, and another operation still runs.
        AzureError: Azure refused, or the operation failed.
        WaitTimeout: the time is up.
    """

    def run() -> dict[str, Any]:
        with translated(what):
            poller = begin(polling=azure.polling())
        result = follow(poller, what, saved=SavedOperation(azure.home, resource), detail=detail)
        return _as_dict(result) if hasattr(result, "as_dict") else {}

    call = throttling.current()
    pause = _INTERVAL
    while True:
        try:
            return until_settled(run, reached, what)
        except OperationInProgress as busy:
            busy.hint = _BUSY_HINT
            if call.left <= 0:
                raise
            _wait_for_other_operation(busy, read, what)
        found = reached()
        if found is not None:
            return found
        # AKS' own operations do not always appear in the state, and AKS accepts about one such request per minute.
        with throttling.progress_bar(what) as bar:
            length = min(pause * random.uniform(0.5, 1.0), call.left)
            throttling.pause(bar, "another operation runs", length)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _wait_for_other_operation(busy: OperationInProgress, read: Read, what: str) -> None:
    """Wait until the operation that made Azure refuse has ended; raise ``busy`` when the time is up."""
    try:
        settle(read, f"{what}: waiting for another operation ({busy.operation or 'unknown'})")
    except WaitTimeout:
        # This call began nothing, so the hint of WaitTimeout would be wrong.
        raise busy from busy.__cause__


def resume(
    azure: Azure,
    begin: Callable[..., Any],
    what: str,
    *,
    resource: str,
    read: Read,
    detail: Callable[[], str] | None = None,
) -> dict[str, Any] | None:
    """Follow the operation that runs on a resource, which an earlier call or another caller began.

    The arguments are those of :func:`operate`; ``begin`` also takes ``continuation_token``.

    Returns:
        The resource, if the operation succeeded; None if the resource no longer exists.

    Raises:
        AzureError: the operation failed.
        WaitTimeout: the time is up.
    """
    saved = SavedOperation(azure.home, resource)
    token = saved.load(what)
    if token is not None:
        try:
            with translated(what):
                poller = begin(polling=azure.polling(), continuation_token=token)
            follow(poller, what, saved=saved, detail=detail)
        except (AzureNotFound, ValueError):
            pass  # Azure no longer knows the operation; the state is read from the resource
        except AzureUnreachable:
            if throttling.current().left <= 0:
                raise
    settled = settle(read, what)
    saved.delete()
    if settled is not None and state_of(settled) != "Succeeded":
        raise failure_of(settled, what)
    return settled


def conflict(what: str, differences: Mapping[str, tuple[object, object]], hint: str) -> AzureConflict:
    """Return the error for a resource that exists and differs from the request."""
    listed = "; ".join(
        f"{field} is {_describe(existing)}, requested {_describe(requested)}"
        for field, (existing, requested) in differences.items()
    )
    return AzureConflict(f"{what} exists and differs: {listed}", differences=dict(differences), hint=hint)


def _describe(value: object) -> str:
    if value is None or value == () or value == {}:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return repr(value) if isinstance(value, str) else str(value)
