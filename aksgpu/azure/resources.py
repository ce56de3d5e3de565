"""Resource groups, clusters and node pools as Resource Manager keeps them: named, read, and operated on one at a time.

The private floor under :mod:`aksgpu.cluster`. What a caller wishes for is decided there; here are the rules for names,
the reads, and the one way in which long-running operations are begun, waited for, and picked up again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

from aksgpu.azure import resource_names, throttling
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

GROUPS_API = "2021-04-01"
MADE_BY = {"aksgpu": "created"}
"""The tag of resource groups that this library made, and may delete again when they are empty."""

SETTLED = {"Succeeded", "Failed", "Canceled"}
_INTERVAL = 1.0  # seconds between the first two reads of a resource whose operation has no address to poll
# AKS takes one read of a cluster a second from all who read it
_GROWTH = 1.5
_LONGEST_INTERVAL = 10.0
_LONGEST_PAUSE = 30.0  # seconds between two attempts to begin an operation while another one runs

_BUSY_HINT = "Run the cell again later, or end that operation: cluster.abort(cluster.get(azure, name, resource_group))."


def group_path(azure: Azure, group: str) -> str:
    """A resource group's address."""
    resource_names.check(resource_names.GROUP, group, "resource_group")
    return f"/subscriptions/{azure.subscription_id}/resourcegroups/{group}"


def cluster_id(azure: Azure, group: str, name: str) -> str:
    """A cluster's id."""
    resource_names.check(resource_names.GROUP, group, "resource_group")
    resource_names.check(resource_names.CLUSTER, name, "name")
    base = f"/subscriptions/{azure.subscription_id}/resourceGroups/{group}"
    return f"{base}/providers/Microsoft.ContainerService/managedClusters/{name}"


def find_group(azure: Azure, group: str) -> dict[str, Any] | None:
    """A resource group, or None."""
    try:
        return azure.request("GET", group_path(azure, group), api_version=GROUPS_API, what=f"resource group {group}")
    except AzureNotFound as error:
        if error.code in ("SubscriptionNotFound", "InvalidSubscriptionId"):
            raise
        return None


def make_group(azure: Azure, group: str, location: str) -> None:
    """Create a resource group, tagged as this library's own."""
    body = {"location": location, "tags": MADE_BY}
    what = f"creating resource group {group}"
    put = partial(azure.request, "PUT", group_path(azure, group), api_version=GROUPS_API, body=body, what=what)
    until_settled(put, partial(find_group, azure, group), what)


def group_contents(azure: Azure, group: str) -> list[str]:
    """Ids of the resources in a group."""
    path = f"{group_path(azure, group)}/resources"
    return [str(item["id"]) for item in azure.pages(path, api_version=GROUPS_API, what=f"resource group {group}")]


def delete_group(azure: Azure, group: str) -> None:
    """Delete a resource group and all that is in it."""
    what = f"deleting resource group {group}"
    read = partial(find_group, azure, group)
    begin = partial(azure.begin, "DELETE", group_path(azure, group), api_version=GROUPS_API, what=what)
    shown = read()
    if shown is None:
        return
    if state_of(shown) == "Deleting":
        wait_until_gone(read, what)
        return

    def is_gone() -> bool | None:
        found = read()
        if found is not None and state_of(found) == "Deleting":
            wait_until_gone(read, what)
            return True
        return True if found is None else None

    def delete() -> bool:
        try:
            follow(begin(), what)
        except AzureNotFound:
            return True  # another caller was faster
        return True

    until_settled(delete, is_gone, what)


def find_cluster(azure: Azure, group: str, name: str) -> dict[str, Any] | None:
    """A cluster as Resource Manager shows it, or None."""
    cluster_id(azure, group, name)  # checks the names
    try:
        with translated(f"cluster {name}"):
            return _plain(azure.client.managed_clusters.get(group, name))
    except AzureNotFound as error:
        if error.code in ("SubscriptionNotFound", "InvalidSubscriptionId"):
            raise
        return None


def clusters_there_are(azure: Azure, name: str) -> str:
    """A hint with the clusters that there are, the one first whose name resembles this one."""
    with translated("listing clusters"):
        found = {str(each.name): str(each.id).split("/")[4] for each in azure.client.managed_clusters.list()}
    if not found:
        return "There are no clusters: cluster.create makes one."
    near = get_close_matches(name, found, n=1)
    guess = f"Did you mean {near[0]!r}? " if near and near[0] != name else ""
    return f"{guess}There are: {', '.join(f'{each} ({group})' for each, group in sorted(found.items()))}."


def find_pool(azure: Azure, group: str, cluster: str, name: str) -> dict[str, Any] | None:
    """A node pool as Resource Manager shows it, or None."""
    cluster_id(azure, group, cluster)  # checks the names
    resource_names.check(resource_names.POOL, name, "name")
    try:
        with translated(f"node pool {name}"):
            return _plain(azure.client.agent_pools.get(group, cluster, name))
    except AzureNotFound:
        return None


def _plain(model: Any) -> dict[str, Any]:
    """The SDK's model as the dict that came over the wire."""
    return dict(model.as_dict())


def state_of(resource: Mapping[str, Any]) -> str:
    """Provisioning state; a resource without one is done."""
    return str(resource.get("properties", {}).get("provisioningState") or "Succeeded")


def power_of(resource: Mapping[str, Any]) -> str:
    """Whether it runs: ``Running`` or ``Stopped``."""
    return str((resource.get("properties", {}).get("powerState") or {}).get("code") or "Running")


def failure_of(resource: Mapping[str, Any], what: str) -> AzureError:
    """Why a resource is in a failed state, as it says itself."""
    from aksgpu.azure import error_parsing

    properties = resource.get("properties", {})
    error = (properties.get("status") or {}).get("provisioningError")
    return error_parsing.recognise(error or f"the state is {state_of(resource)}, without a reason", what=what)


def settle(read: Callable[[], dict[str, Any] | None], what: str) -> dict[str, Any] | None:
    """Read a resource until no operation runs on it; None when it is gone."""
    return _read_until(lambda found: found is None or state_of(found) in SETTLED, read, what)


def wait_until_gone(read: Callable[[], dict[str, Any] | None], what: str) -> None:
    """Wait for a deletion that somebody else began."""
    _read_until(lambda found: found is None, read, what)


def _read_until(
    done: Callable[[dict[str, Any] | None], bool], read: Callable[[], dict[str, Any] | None], what: str
) -> dict[str, Any] | None:
    """Read a resource, less and less often, until it is as wanted; wait longer where Azure asks for it."""
    hint = "The operation goes on in Azure: run the cell again to go on waiting."
    call = throttling.current()
    state = "unknown"
    interval = _INTERVAL
    with throttling.waiting(what) as bar:
        while True:
            wait = interval * random.uniform(0.8, 1.0)
            why = ""
            try:
                found = read()
                if done(found):
                    return found
                state = state_of(found) if found is not None else "gone"
                if not call.running:
                    call.running.append(what)
            except Throttled as slow:
                wait = max(interval, throttling.seconds(slow.retry_after))
                why = f", {throttling.words(wait)}"
            if call.left <= 0:
                text = f"{what}: not done after {call.seconds:g} s; last state: {state}{why}"
                raise WaitTimeout(text, state=state, timeout=call.seconds, hint=hint)
            throttling.pause(bar, state + why, min(wait, call.left))
            interval = min(interval * _GROWTH, _LONGEST_INTERVAL)


def operate(
    azure: Azure,
    begin: Callable[..., Any],
    what: str,
    *,
    resource: str,
    read: Callable[[], dict[str, Any] | None],
    reached: Callable[[], dict[str, Any] | None],
    look: Callable[[], str] | None = None,
) -> dict[str, Any]:
    """Begin a long-running operation and follow it; while another one runs on the cluster, wait for that first.

    Another caller may do the same at the same time, and the answer to the request may be lost. Both are settled by
    looking at the resource before the request is sent again.

    Args:
        azure: the subscription.
        begin: a ``begin_...`` method of the SDK with all arguments but ``polling``.
        what: what is being done, for progress and errors.
        resource: id of the resource; the running operation is remembered under it.
        read: reads the cluster whose operations exclude each other.
        reached: returns the resource when it is as the operation makes it, once nothing runs on it; None otherwise.
        look: tells what is still waited for, for progress.

    Returns:
        The resource as Resource Manager shows it; empty where nothing is shown.

    Raises:
        OperationInProgress: the call's time is up, and another operation still runs.
        AzureError: Azure refused, or the operation failed.
        WaitTimeout: the call's time is up.
    """
    from aksgpu.azure.operations import Remembered

    def send() -> Any:
        with translated(what):
            return begin(polling=azure.polling())

    def run() -> dict[str, Any]:
        poller = send()
        result = follow(poller, what, remember=Remembered(azure.home, resource), look=look)
        return _plain(result) if hasattr(result, "as_dict") else {}

    call = throttling.current()
    pause = _INTERVAL
    while True:
        try:
            return until_settled(run, reached, what)
        except OperationInProgress as busy:
            busy.hint = _BUSY_HINT
            if call.left <= 0:
                raise
            waiting = f"{what}: waiting for another operation ({busy.operation or 'unknown'})"
            try:
                settle(read, waiting)
            except WaitTimeout:
                raise busy from busy.__cause__  # this call began nothing; the wait's hint would say otherwise
        found = reached()
        if found is not None:
            return found
        # AKS' own operations do not always show in the state, and it takes about one such request a minute.
        with throttling.waiting(what) as bar:
            throttling.pause(bar, "another operation runs", min(pause * random.uniform(0.5, 1.0), call.left))
        pause = min(2 * pause, _LONGEST_PAUSE)


def resume(
    azure: Azure,
    begin: Callable[..., Any],
    what: str,
    *,
    resource: str,
    read: Callable[[], dict[str, Any] | None],
    look: Callable[[], str] | None = None,
) -> dict[str, Any] | None:
    """Follow the operation that runs on a resource, begun by an earlier call or by somebody else.

    Arguments as for :func:`operate`; ``begin`` also takes ``continuation_token``.

    Returns:
        The resource when the operation has ended well; None when it is gone.

    Raises:
        AzureError: the operation failed.
        WaitTimeout: time ran out.
    """
    from aksgpu.azure.operations import Remembered

    remember = Remembered(azure.home, resource)
    if token := remember.load(what):
        try:
            with translated(what):
                poller = begin(polling=azure.polling(), continuation_token=token)
            follow(poller, what, remember=remember, look=look)
        except (AzureNotFound, ValueError):
            pass  # the operation's address is not there any more; the resource tells its own state
        except AzureUnreachable:
            if throttling.current().left <= 0:
                raise
    settled = settle(read, what)
    remember.forget()
    if settled is not None and state_of(settled) != "Succeeded":
        raise failure_of(settled, what)
    return settled


def differs(what: str, differences: Mapping[str, tuple[object, object]], hint: str) -> AzureConflict:
    """The error for a thing that exists and is not as asked for."""
    listed = "; ".join(
        f"{field} is {_shown(have)}, asked for {_shown(want)}" for field, (have, want) in differences.items()
    )
    return AzureConflict(f"{what} exists and differs: {listed}", differences=dict(differences), hint=hint)


def _shown(value: object) -> str:
    if value is None or value == () or value == {}:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return repr(value) if isinstance(value, str) else str(value)
