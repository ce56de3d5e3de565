"""What the library sends to Azure Resource Manager, against the least that could do.

    python benchmarks/resource_manager.py

The least is: the request itself, one poll of its operation, the final read. Polls are counted apart, because their
number is Azure's to say (Retry-After). Runs on a private laptop AKS.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from azure.core.pipeline.transport import RequestsTransport

import aksgpu
from aksgpu import cluster, local

LEAST = 3


class Counting:
    """Counts what goes over the wire while it is switched on."""

    def __init__(self) -> None:
        self.polls = self.others = 0
        send = RequestsTransport.send

        def counted(transport: Any, request: Any, **options: Any) -> Any:
            if "/operations/" in request.url or "/operationresults/" in request.url:
                self.polls += 1
            else:
                self.others += 1
            return send(transport, request, **options)

        RequestsTransport.send = counted

    def row(self, what: str, call: Callable[[], Any]) -> Any:
        """Run a call and print a line of the table."""
        self.polls = self.others = 0
        result = call()
        least = LEAST if self.polls else 1
        sent = self.others + min(self.polls, 1)
        print(f"{what:<34}{self.others:>4} requests {self.polls:>4} polls {sent / least:>6.2f} x the least ({least})")
        return result


def main() -> None:
    """Measure and print."""
    os.environ["AKSGPU_PROGRESS"] = "0"
    counting = Counting()
    with local.laptop() as endpoint:
        azure = aksgpu.connect(endpoint)
        wish = {"resource_group": "count", "location": "eastus"}
        aks = counting.row("create", lambda: cluster.create(azure, "count", **wish))
        counting.row("create again", lambda: cluster.create(azure, "count", **wish))
        counting.row("add_gpu_pool", lambda: cluster.add_gpu_pool(aks))
        counting.row("add_gpu_pool again", lambda: cluster.add_gpu_pool(aks))
        counting.row("add_gpu_pool without preflight", lambda: cluster.add_gpu_pool(aks, "two", preflight=False))
        counting.row("leftovers", lambda: cluster.leftovers(azure))
        counting.row("delete", lambda: cluster.delete(aks))


if __name__ == "__main__":
    main()
