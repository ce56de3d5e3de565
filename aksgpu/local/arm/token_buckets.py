"""AKS' request limits as token buckets, with the values of its documentation.

Each kind of request has a bucket for each resource that its limit applies to. Buckets refill faster with a smaller time
scale.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aksgpu.local.arm import agent_pools, managed_clusters, operation_results
from aksgpu.local.arm.faults import throttled

_MAX_BUCKETS = 10_000


@dataclass(frozen=True)
class Limit:
    """The limit of a kind of request.

    Attributes:
        name: AKS' name of the kind.
        burst: number of requests that can be sent at once.
        per_second: requests per second after that.
        by: the placeholders of the path that select the bucket.
    """

    name: str
    burst: int
    per_second: float
    by: tuple[str, ...]


LIMITS: dict[Callable[..., Any], Limit] = {
    managed_clusters.put: Limit("PutManagedClusterHandler.PUT", 20, 1 / 60, ("group", "cluster")),
    managed_clusters.get: Limit("GetManagedClusterHandler.GET", 60, 1, ("group", "cluster")),
    managed_clusters.list_all: Limit("ListManagedClustersHandler.GET", 60, 1, ("group",)),
    agent_pools.put: Limit("PutAgentPoolHandler.PUT", 20, 1 / 60, ("group", "cluster", "pool")),
    operation_results.get_status: Limit("GetOperationStatusHandler.GET", 200, 2, ()),
}


def request_name(handler: Callable[..., Any], method: str) -> str:
    """Return AKS' name for the kind of request that a handler handles."""
    limit = LIMITS.get(handler)
    return limit.name if limit is not None else f"{method.capitalize()}Handler.{method}"


class Throttle:
    """The buckets of a subscription.

    Args:
        time_scale: the laptop's time scale.
        clock: returns monotonic seconds.
    """

    def __init__(self, time_scale: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._scale = time_scale
        self._clock = clock
        self._buckets: dict[tuple[str, ...], tuple[float, float]] = {}

    def check(self, handler: Callable[..., Any], path: Mapping[str, str]) -> None:
        """Take a token for a request; raises ArmError with status 429 if the bucket is empty."""
        limit = LIMITS.get(handler)
        if limit is None:
            return
        key = (limit.name, *(path.get(name, "").lower() for name in limit.by))
        now = self._clock()
        rate = limit.per_second / self._scale
        if len(self._buckets) > _MAX_BUCKETS:  # requests for names that do not exist create buckets too
            self._buckets.clear()
        tokens, then = self._buckets.get(key, (float(limit.burst), now))
        tokens = min(float(limit.burst), tokens + (now - then) * rate)
        if tokens < 1:
            self._buckets[key] = (tokens, now)
            raise throttled(limit.name, (1 - tokens) / rate)
        self._buckets[key] = (tokens - 1, now)
