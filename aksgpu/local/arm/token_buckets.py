"""AKS' request limits: token buckets by kind of request, as its documentation gives them.

A bucket is kept for each resource that its row names. Refilling follows the laptop's time scale.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aksgpu.local.arm import agent_pools, async_operations, managed_clusters
from aksgpu.local.arm.faults import throttled

_MOST_BUCKETS = 10_000


@dataclass(frozen=True)
class Limit:
    """So many requests at once, and so many a second after that."""

    name: str
    burst: int
    per_second: float
    by: tuple[str, ...]


LIMITS: dict[Callable[..., Any], Limit] = {
    managed_clusters.put: Limit("PutManagedClusterHandler.PUT", 20, 1 / 60, ("group", "cluster")),
    managed_clusters.get: Limit("GetManagedClusterHandler.GET", 60, 1, ("group", "cluster")),
    managed_clusters.listed: Limit("ListManagedClustersHandler.GET", 60, 1, ("group",)),
    agent_pools.put: Limit("PutAgentPoolHandler.PUT", 20, 1 / 60, ("group", "cluster", "pool")),
    async_operations.get_status: Limit("GetOperationStatusHandler.GET", 200, 2, ()),
}


def name(handler: Callable[..., Any], method: str) -> str:
    """What AKS calls the requests that a handler answers."""
    limit = LIMITS.get(handler)
    return limit.name if limit is not None else f"{method.capitalize()}Handler.{method}"


class Throttle:
    """The buckets of a subscription.

    Args:
        time_scale: the laptop's.
        clock: seconds that only grow.
    """

    def __init__(self, time_scale: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._scale = time_scale
        self._clock = clock
        self._buckets: dict[tuple[str, ...], tuple[float, float]] = {}

    def check(self, handler: Callable[..., Any], path: Mapping[str, str]) -> None:
        """Take a token for this request; raises ArmError with 429 when there is none."""
        limit = LIMITS.get(handler)
        if limit is None:
            return
        key = (limit.name, *(path.get(name, "").lower() for name in limit.by))
        now = self._clock()
        rate = limit.per_second / self._scale
        if len(self._buckets) > _MOST_BUCKETS:  # of names that somebody thinks up
            self._buckets.clear()
        tokens, then = self._buckets.get(key, (float(limit.burst), now))
        tokens = min(float(limit.burst), tokens + (now - then) * rate)
        if tokens < 1:
            self._buckets[key] = (tokens, now)
            raise throttled(limit.name, (1 - tokens) / rate)
        self._buckets[key] = (tokens - 1, now)
