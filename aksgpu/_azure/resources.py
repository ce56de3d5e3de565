"""Resource groups, clusters and node pools as Resource Manager keeps them: named, read, and operated on one at a time.

The private floor under :mod:`aksgpu.cluster`. What a caller wishes for is decided there; here are the rules for names,
the reads, and the one way in which long-running operations are begun, waited for, and picked up again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from aksgpu.azure import follow, translated
from aksgpu.errors import (
    AzureConflict,
    AzureError,
    AzureNotFound,
    AzureUnreachable,
    InvalidInput,
    OperationInProgress,
    Throttled,
    WaitTimeout,
)
from aksgpu.progress import Progress

if TYPE_CHECKING:
    from aksgpu.azure import Azure

GROUPS_API = "2021-04-01"
MADE_BY = {"aksgpu": "created"}
"""The tag of resource groups that this library made, and may delete again when they are empty."""

SETTLED = {"Succeeded", "Failed", "Canceled"}
_INTERVAL = 1.0  # seconds between the first two reads of a resource whose operation has no address to poll
_GROWTH, _LONGEST_INTERVAL = 1.5, 10.0  # AKS takes one read of a cluster a second from all who read it
_LONGEST_PAUSE = 30.0  # seconds between two attempts to begin an operation while another one runs

_BUSY_HINT = "Run the cell again later, or end that operation: cluster.abort(cluster.get(azure, name, resource_group))."

_POOL_NAME = re.compile(r"[a-z][a-z0-9]{0,11}")
_CLUSTER_NAME = re.compile(r"[a-zA-Z0-9](?:[-_a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")
_GROUP_NAME = re.compile(r"[-\w.()]{0,89}[-\w()]")


def check_pool_name(name: str) -> None:
    """AKS' rule for Linux node pools."""
    if not isinstance(name, str) or not _POOL_NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a node pool",
            hint="Take a text of 1 to 12 lower-case letters and digits, beginning with a letter, such as 'gpunp'.",
        )


def check_cluster_name(name: str) -> None:
    """AKS' rule for clusters."""
    if not isinstance(name, str) or not _CLUSTER_NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a cluster",
            hint="Take a text of 1 to 63 letters, digits, '-' and '_', beginning and ending with a letter or digit.",
        )


def check_group_name(name: str) -> None:
    """Resource Manager's rule for resource groups."""
    if not isinstance(name, str) or not _GROUP_NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a resource group",
            hint="Take a text of 1 to 90 letters, digits and '-_.()', not ending with '.'.",
        )


def group_path(azure: Azure, group: str) -> str:
    """A resource group's address."""
    return f"/subscriptions/{azure.subscription_id}/resourcegroups/{group}"


def cluster_id(azure: Azure, group: str, name: str) -> str:
    """A cluster's id."""
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
    azure.request("PUT", group_path(azure, group), api_version=GROUPS_API, body=body, what=what)


def group_contents(azure: Azure, group: str) -> list[str]:
    """Ids of the resources in a group."""
    path = f"{group_path(azure, group)}/resources"
    return [str(item["id"]) for item in azure.pages(path, api_version=GROUPS_API, what=f"resource group {group}")]


def delete_group(azure: Azure, group: str, *, timeout: float, progress: bool | None) -> None:
    """Delete a resource group and all that is in it."""
    from aksgpu._azure.patience import patiently

    what = f"deleting resource group {group}"
    deadline = time.monotonic() + timeout
    begin = partial(azure.begin, "DELETE", group_path(azure, group), api_version=GROUPS_API, what=what)
    poller = patiently(begin, what, deadline=deadline, progress=progress)
    follow(poller, what, timeout=max(1.0, deadline - time.monotonic()), progress=progress)


def find_cluster(azure: Azure, group: str, name: str) -> dict[str, Any] | None:
    """A cluster as Resource Manager shows it, or None."""
    try:
        with translated(f"cluster {name}"):
            return _plain(azure.client.managed_clusters.get(group, name))
    except AzureNotFound as error:
        if error.code in ("SubscriptionNotFound", "InvalidSubscriptionId"):
            raise
        return None


def find_pool(azure: Azure, group: str, cluster: str, name: str) -> dict[str, Any] | None:
    """A node pool as Resource Manager shows it, or None."""
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
    from aksgpu._azure import refusals

    properties = resource.get("properties", {})
    error = (properties.get("status") or {}).get("provisioningError")
    return refusals.recognise(error or f"the state is {state_of(resource)}, without a reason", what=what)


def settle(
    read: Callable[[], dict[str, Any] | None], what: str, *, timeout: float, progress: bool | None
) -> dict[str, Any] | None:
    """Read a resource until no operation runs on it; None when it is gone."""
    return _read_until(lambda found: found is None or state_of(found) in SETTLED, read, what, timeout, progress)


def _read_until(
    done: Callable[[dict[str, Any] | None], bool],
    read: Callable[[], dict[str, Any] | None],
    what: str,
    timeout: float,
    progress: bool | None,
) -> dict[str, Any] | None:
    """Read a resource, less and less often, until it is as wanted; wait longer where Azure asks for it."""
    from aksgpu._azure.patience import patient, pause, seconds, words

    hint = "The operation goes on in Azure: run the cell again to go on waiting."
    deadline = time.monotonic() + timeout
    state, interval = "unknown", _INTERVAL
    try:
        with Progress(what, show=progress) as bar, patient():
            while True:
                wait, why = interval, ""
                try:
                    found = read()
                    if done(found):
                        return found
                    state = state_of(found) if found is not None else "gone"
                except Throttled as slow:
                    wait = max(interval, seconds(slow.retry_after))
                    why = f", {words(wait)}"
                if (left := deadline - time.monotonic()) <= 0:
                    text = f"{what}: not done after {timeout:g} s; last state: {state}{why}"
                    raise WaitTimeout(text, state=state, timeout=timeout, hint=hint)
                pause(bar, state + why, min(wait, left))
                interval = min(interval * _GROWTH, _LONGEST_INTERVAL)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"{what}: {hint}")
        raise


def operate(
    azure: Azure,
    begin: Callable[..., Any],
    what: str,
    *,
    resource: str,
    read: Callable[[], dict[str, Any] | None],
    timeout: float,
    progress: bool | None,
    look: Callable[[], str] | None = None,
) -> Any:
    """Begin a long-running operation and follow it; while another one runs on the cluster, wait for that first.

    Args:
        azure: the subscription.
        begin: a ``begin_...`` method of the SDK with all arguments but ``polling``.
        what: what is being done, for progress and errors.
        resource: id of the resource; the running operation is remembered under it.
        read: reads the cluster whose operations exclude each other.
        timeout: seconds for all of it.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.
        look: tells what is still waited for, for progress.

    Returns:
        The operation's result.
    """
    from aksgpu._azure.operations import Remembered
    from aksgpu._azure.patience import patiently

    def send() -> Any:
        with translated(what):
            return begin(polling=azure.polling())

    deadline = time.monotonic() + timeout
    pause = _INTERVAL
    while True:
        try:
            poller = patiently(send, what, deadline=deadline, progress=progress)
            break
        except OperationInProgress as busy:
            left = deadline - time.monotonic()
            busy.hint = _BUSY_HINT
            if left <= 0:
                raise
            waiting = f"{what}: waiting for another operation ({busy.operation or 'unknown'})"
            try:
                settle(read, waiting, timeout=left, progress=progress)
            except WaitTimeout:
                raise busy from busy.__cause__  # this call began nothing; the wait's hint would say otherwise
            # AKS' own operations do not always show in the state, and it takes about one such request a minute.
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(2 * pause, _LONGEST_PAUSE)
    left = max(1.0, deadline - time.monotonic())
    remember = Remembered(azure.home, resource)
    return follow(poller, what, timeout=left, progress=progress, remember=remember, look=look)


def resume(
    azure: Azure,
    begin: Callable[..., Any],
    what: str,
    *,
    resource: str,
    read: Callable[[], dict[str, Any] | None],
    timeout: float,
    progress: bool | None,
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
    from aksgpu._azure.operations import Remembered

    remember = Remembered(azure.home, resource)
    deadline = time.monotonic() + timeout
    if token := remember.load(what):
        try:
            with translated(what):
                poller = begin(polling=azure.polling(), continuation_token=token)
            follow(poller, what, timeout=timeout, progress=progress, remember=remember, look=look)
        except (AzureNotFound, AzureUnreachable, ValueError):
            pass  # the operation's address is not there any more; the resource tells its own state
    settled = settle(read, what, timeout=max(1.0, deadline - time.monotonic()), progress=progress)
    remember.forget()
    if settled is not None and state_of(settled) != "Succeeded":
        raise failure_of(settled, what)
    return settled


def wait_until_gone(
    read: Callable[[], dict[str, Any] | None], what: str, *, timeout: float, progress: bool | None
) -> None:
    """Wait for a deletion that somebody else began."""
    _read_until(lambda found: found is None, read, what, timeout, progress)


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
