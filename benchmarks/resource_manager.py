"""Count the requests that the library sends to Azure Resource Manager, and compare its polling intervals.

    python benchmarks/resource_manager.py

The minimum is three requests for a long-running operation (the request, one poll, the final read), and one for any
other call. The table lists the kinds of all requests, such as reads before a creation, quota and prices. Polls are
counted separately, because Azure determines their number. The last column is the shortest pause before a poll, divided
by the pause that the previous response asked for (Retry-After). It must not be below 1. Each call uses a new connection
to a private laptop AKS, so that nothing is cached. The network is not measured.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from azure.core.pipeline.transport import RequestsTransport

import aksgpu
from aksgpu import cluster, local

LEAST = 3
POLLS = ("/operations/", "/operationresults/")


class Counting:
    """Counts requests, and measures the pause before each poll."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.polls = 0
        self.shortest_pause = float("inf")
        # when the last response arrived, and the pause that it asked for
        self._asked: tuple[float, float] | None = None
        send = RequestsTransport.send

        def counted(transport: Any, request: Any, **options: Any) -> Any:
            self._note(request)
            response = send(transport, request, **options)
            self._asked = time.monotonic(), _pause(response.headers)
            return response

        RequestsTransport.send = counted

    def _note(self, request: Any) -> None:
        path = urlsplit(request.url).path
        if not any(part in path for part in POLLS):
            self.kinds[f"{request.method} {_kind(path)}"] += 1
            return
        if self._asked and self._asked[1]:
            self.shortest_pause = min(self.shortest_pause, (time.monotonic() - self._asked[0]) / self._asked[1])
        self.polls += 1

    def row(self, what: str, call: Callable[[], Any]) -> Any:
        """Run a call and print a line of the table."""
        self.kinds = Counter()
        self.polls = 0
        self.shortest_pause = float("inf")
        result = call()
        least = LEAST if self.polls else 1
        others = sum(self.kinds.values())
        share = (others + min(self.polls, 1)) / least
        pause = f"{self.shortest_pause:5.2f}" if self.polls else "    -"
        print(f"{what:<32}{others:>3} requests {share:>5.2f} x the least {self.polls:>4} polls {pause}")
        print(f"    {', '.join(f'{kind} {count}' for kind, count in sorted(self.kinds.items()))}")
        return result


def _pause(headers: Any) -> float:
    return float(headers.get("retry-after-ms", 0)) / 1000 or float(headers.get("Retry-After", 0))


def _kind(path: str) -> str:
    """Return the kind of resource in a path: its last segment that is not a name."""
    words = ("prices", "skus", "usages", "agentpools", "listclusterusercredential", "managedclusters", "resources")
    found = [word for word in words if word in path.lower()]
    return found[0] if found else "resourcegroups"


def main() -> None:
    """Measure and print."""
    os.environ["AKSGPU_PROGRESS"] = "0"
    counting = Counting()
    with local.laptop() as endpoint:

        def fresh() -> Any:
            return aksgpu.connect(endpoint)

        def found() -> cluster.Cluster:
            aks = cluster.Cluster("count", resource_group="count", location="eastus", azure=fresh())
            aks.id = made.id
            return aks

        options = {"resource_group": "count", "location": "eastus"}
        made = counting.row("create", lambda: cluster.create(fresh(), "count", **options))
        counting.row("create again", lambda: cluster.create(fresh(), "count", **options))
        counting.row("add_gpu_pool", lambda: cluster.add_gpu_pool(found()))
        counting.row("add_gpu_pool again", lambda: cluster.add_gpu_pool(found()))
        counting.row("add_gpu_pool without preflight", lambda: cluster.add_gpu_pool(found(), "two", preflight=False))
        counting.row("add_gpu_pool with a bar", lambda: cluster.add_gpu_pool(found(), "three", progress=True))
        counting.row("leftovers", lambda: cluster.leftovers(fresh()))
        counting.row("delete", lambda: cluster.delete(found()))


if __name__ == "__main__":
    main()
