"""Clusters that are deleted after a while.

Azure has no such thing. A tag says when a cluster is to go; this process deletes it then if it still lives, and
:func:`aksgpu.cluster.leftovers` shows it as overdue later.
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
from aksgpu.waiting import parse_duration

if TYPE_CHECKING:
    from aksgpu.azure.subscription import Azure

TAG = "aksgpu-delete-after"
"""Azure tag with the time, in ISO 8601 and UTC, after which a cluster is to be deleted."""

TEMPORARY = {"aksgpu-temporary": "true"}
"""Azure tag of clusters that :func:`aksgpu.cluster.temporary` made."""

BLOCK = "aksgpu-block"
"""Azure tag that tells which block made a temporary cluster."""

log = logging.getLogger(__name__)

_LONGEST = 30 * 86400  # seconds; a longer life is not a temporary one, and timers have limits
# seconds until a deletion that failed is tried again
_PAUSE = 60.0
_LONGEST_PAUSE = 1800.0
_timers: dict[str, tuple[threading.Timer, str]] = {}
"""By id of the cluster: what deletes it, and after how long, in words."""


def parse(text: str | timedelta) -> timedelta:
    """Return a duration such as ``90m``, ``2h``, ``1h30m`` or ``1d`` (see :func:`aksgpu.waiting.parse_duration`).

    Raises:
        InvalidInput: the text is not a duration, or is out of range.
    """
    if isinstance(text, timedelta):
        seconds: float | None = text.total_seconds()
    else:
        seconds = parse_duration(text) if isinstance(text, str) else None
    if seconds is None:
        raise InvalidInput(
            f"`delete_after` must be a duration such as '90m', '2h' or '1d', or a timedelta, got {shown(text)}",
            hint='For example: delete_after="2h".',
        )
    if not 0 < seconds <= _LONGEST:
        raise InvalidInput(
            f"`delete_after` must be more than 0 and at most 30 days, got {shown(str(text))}",
            hint='For example: delete_after="2h".',
        )
    return timedelta(seconds=seconds)


def words(life: timedelta) -> str:
    """A duration in its largest whole unit: ``90 min``, ``2 h``."""
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if life.total_seconds() % seconds == 0:
            return f"{life.total_seconds() / seconds:g} {unit}"
    return f"{life.total_seconds():g} s"


def tag(life: timedelta) -> dict[str, str]:
    """The tag for a cluster that lives so long from now."""
    return {TAG: (datetime.now(UTC) + life).isoformat(timespec="seconds")}


def due(tags: Mapping[str, Any] | None) -> datetime | None:
    """When a cluster with these tags is to be deleted; None for never."""
    try:
        found = datetime.fromisoformat(str((tags or {})[TAG]))
    except (KeyError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def set_timer(aks: Cluster, life: timedelta, delete: Callable[..., Any], *, begun: float | None = None) -> None:
    """Delete the cluster after this time, if this process still lives then; a later call replaces an earlier one.

    Args:
        aks: the cluster, which may not be there yet.
        life: how long it lives.
        delete: deletes it.
        begun: since when, by the monotonic clock; by default now.
    """
    cancel(aks)
    aks.life = words(life)
    spent = 0.0 if begun is None else time.monotonic() - begun
    _arm(aks, delete, max(0.0, life.total_seconds() - spent), aks.life, _PAUSE)


def _arm(aks: Cluster, delete: Callable[..., Any], seconds: float, life: str, pause: float) -> None:
    timer = threading.Timer(seconds, _expire, (aks, delete, life, pause))
    timer.name = f"aksgpu-delete-{aks.name}"
    timer.daemon = True
    _timers[aks.id.lower()] = timer, life
    timer.start()


def life_of(aks: Cluster) -> str:
    """After how long this process deletes the cluster, in words; empty for never."""
    return _timers[aks.id.lower()][1] if aks.id.lower() in _timers else ""


def cancel(aks: Cluster) -> None:
    """Forget the timer, if there is one."""
    aks.life = ""
    if found := _timers.pop(aks.id.lower(), None):
        found[0].cancel()


def _expire(aks: Cluster, delete: Callable[..., Any], life: str, pause: float) -> None:
    key = aks.id.lower()
    if key in _timers and _timers[key][0] is threading.current_thread():
        del _timers[key]
    try:
        shown = resources.find_cluster(azure_of(aks), aks.resource_group, aks.name)
        at = due((shown or {}).get("tags"))
        if at is None or at > datetime.now(UTC) + timedelta(seconds=5):
            return  # gone, or somebody gave it more time
        delete(aks, progress=False)
    except Exception as error:  # nobody waits for this thread: the log is the only place to say it
        log.error("cluster %s was to be deleted and was not, next try in %g s: %s", aks.name, pause, error)
        if key not in _timers:  # a newer one goes on in its own time
            _arm(aks, delete, pause, life, min(2 * pause, _LONGEST_PAUSE))


def extend(azure: Azure, aks: Cluster, life: timedelta) -> None:
    """Write a new time into an existing cluster's tag."""
    read = partial(resources.find_cluster, azure, aks.resource_group, aks.name)
    tags = {**((read() or {}).get("tags") or {}), **tag(life)}
    what = f"tagging cluster {aks.name}"

    def is_tagged() -> dict[str, Any] | None:
        shown = resources.settle(read, what) or {}
        return shown if (shown.get("tags") or {}).get(TAG) == tags[TAG] else None

    begin = partial(azure.client.managed_clusters.begin_update_tags, aks.resource_group, aks.name, {"tags": tags})
    resources.operate(azure, begin, what, resource=aks.id, read=read, reached=is_tagged)
