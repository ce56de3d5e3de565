"""Clusters that are deleted after a given time.

Azure has no such feature. A tag has the time at which a cluster is due for deletion. This process deletes the cluster
then, if it still runs. :func:`aksgpu.cluster.leftovers` shows clusters that are overdue.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from aksgpu.azure import resources
from aksgpu.cluster.cluster_model import Cluster, azure_of
from aksgpu.common.arguments import shown
from aksgpu.errors import InvalidInput
from aksgpu.waiting import check_timeout

if TYPE_CHECKING:
    from aksgpu.azure.subscription import Azure

__all__ = ["BLOCK", "TAG", "TEMPORARY", "cancel", "check_lifetime", "due", "extend", "set_timer", "tag"]

TAG = "aksgpu-delete-after"
"""Azure tag with the time, in ISO 8601 and UTC, at which a cluster is due for deletion."""

TEMPORARY = {"aksgpu-temporary": "true"}
"""Azure tag of clusters that :func:`aksgpu.cluster.temporary` created."""

BLOCK = "aksgpu-block"
"""Azure tag with the id of the ``with`` block that created a temporary cluster."""

log = logging.getLogger(__name__)

_MAX_LIFETIME = 30 * 86400
"""Longest lifetime in seconds: 30 days. Python's timers have a limit."""

_CLOCK_TOLERANCE = timedelta(seconds=5)
"""How much earlier than the time in the tag a timer may delete the cluster."""

_PAUSE = 60.0
"""Seconds until a failed deletion is tried again; the pause doubles after each failure."""

_LONGEST_PAUSE = 1800.0
"""Longest pause in seconds between two attempts to delete a cluster."""

_timers: dict[str, threading.Timer] = {}
"""The timers that will delete a cluster, by its id in lower case."""


def check_lifetime(value: str | float | timedelta) -> timedelta:
    """Return the argument ``delete_after``.

    Args:
        value: seconds, text such as ``"2h"``, or a timedelta.

    Raises:
        InvalidInput: the value is none of these, or out of range.
    """
    hint = 'For example: delete_after="2h".'
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    else:
        try:
            seconds = check_timeout(value, "delete_after")
        except InvalidInput:
            raise InvalidInput(
                "`delete_after` must be a number of seconds, text such as '90m' or '2h', or a timedelta, "
                f"got {shown(value)}",
                hint=hint,
            ) from None
    if not 0 < seconds <= _MAX_LIFETIME:
        raise InvalidInput(
            f"`delete_after` must be more than 0 seconds and at most 30 days, got {shown(value)}",
            hint=hint,
        )
    return timedelta(seconds=seconds)


def tag(lifetime: timedelta) -> dict[str, str]:
    """Return the tag of a cluster with this lifetime from now."""
    return {TAG: (datetime.now(UTC) + lifetime).isoformat(timespec="seconds")}


def due(tags: Mapping[str, Any] | None) -> datetime | None:
    """Return when a cluster with these tags is due for deletion; None for never."""
    try:
        found = datetime.fromisoformat(str((tags or {})[TAG]))
    except (KeyError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def set_timer(aks: Cluster, lifetime: timedelta, delete: Callable[..., Any], *, started: float | None = None) -> None:
    """Delete the cluster after its lifetime, if this process still runs then. Replaces an earlier timer.

    Args:
        aks: the cluster, which may not exist yet.
        lifetime: how long the cluster exists.
        delete: the function that deletes it.
        started: when the lifetime began, in seconds of the monotonic clock; by default now.
    """
    cancel(aks)
    spent = 0.0 if started is None else time.monotonic() - started
    _start_timer(aks, delete, max(0.0, lifetime.total_seconds() - spent), _PAUSE)


def _start_timer(aks: Cluster, delete: Callable[..., Any], seconds: float, pause: float) -> None:
    timer = threading.Timer(seconds, _expire, (aks, delete, pause))
    timer.name = f"aksgpu-delete-{aks.name}"
    timer.daemon = True
    _timers[aks.id.lower()] = timer
    timer.start()


def cancel(aks: Cluster) -> None:
    """Cancel the timer of a cluster, if there is one."""
    timer = _timers.pop(aks.id.lower(), None)
    if timer is not None:
        timer.cancel()


def _expire(aks: Cluster, delete: Callable[..., Any], pause: float) -> None:
    """Delete a cluster that is due. Runs in the thread of a timer."""
    key = aks.id.lower()
    if _timers.get(key) is threading.current_thread():
        del _timers[key]
    try:
        found = resources.find_cluster(azure_of(aks), aks.resource_group, aks.name)
        time_due = due((found or {}).get("tags"))
        if time_due is None or time_due > datetime.now(UTC) + _CLOCK_TOLERANCE:
            return  # the cluster is gone, or its lifetime was extended
        delete(aks, progress=False)
    except Exception as error:  # no caller waits for this thread, so the log is the only place for the error
        log.error("cluster %s could not be deleted; next attempt in %g s: %s", aks.name, pause, error)
        if key not in _timers:  # a newer timer takes over
            _start_timer(aks, delete, pause, min(2 * pause, _LONGEST_PAUSE))


def extend(azure: Azure, aks: Cluster, lifetime: timedelta) -> None:
    """Write a new time into the tag of an existing cluster."""
    read = partial(resources.find_cluster, azure, aks.resource_group, aks.name)
    existing_tags = (read() or {}).get("tags") or {}
    tags = existing_tags | tag(lifetime)
    what = f"tagging cluster {aks.name}"

    def tagged() -> dict[str, Any] | None:
        found = resources.settle(read, what) or {}
        return found if (found.get("tags") or {}).get(TAG) == tags[TAG] else None

    begin = partial(azure.client.managed_clusters.begin_update_tags, aks.resource_group, aks.name, {"tags": tags})
    resources.operate(azure, begin, what, resource=aks.id, read=read, reached=tagged)
