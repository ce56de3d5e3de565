"""Measure the laptop AKS with 1,000 nodes and 10,000 pods: start, memory, lists, kubectl, and scheduling.

    python benchmarks/scale.py

The start is measured until the first response, and compared with that of a laptop with one node. A list is the client's
time for the bytes over TLS, compared with orjson that serializes the same objects. The scheduling rate is that of
scheduler and API in one process without a node agent, which would start 10,000 processes. Its lower bound is the same
number of writes without a scheduler. Each value is the best of three, except for scheduling.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import orjson
from crowd import NODES, PODS, crowded_cluster, node, pod
from load import RUNS, Api, Connection, best, small_cluster

from aksgpu import local
from aksgpu.local import Settings
from aksgpu.local.api.registry import Registry
from aksgpu.local.api.store import Store
from aksgpu.local.control import ControllerManager


def start(api: Api) -> float:
    """Return the seconds of a start, best of three. The laptop keeps running."""

    def once() -> float:
        local.stop(home=api.home)
        begin = time.perf_counter()
        local.start(api.home)
        asyncio.run(whole(api, "/api/v1/nodes?limit=1"))
        return time.perf_counter() - begin

    return min(once() for _ in range(RUNS))


def memory(api: Api) -> float:
    """Return the resident memory of the laptop in MB."""
    pages = int(Path(f"/proc/{local.status(api.home)['pid']}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


async def whole(api: Api, path: str) -> bytes:
    """Read one response."""
    connection = await Connection.open(api)
    try:
        return await connection.send(connection.request("GET", path))
    finally:
        connection.close()


async def paged(api: Api, size: int) -> int:
    """Read all pods, page by page."""
    connection = await Connection.open(api)
    found = 0
    more = ""
    while True:
        token = f"&continue={quote(more)}" if more else ""
        page = orjson.loads(await connection.send(connection.request("GET", f"/api/v1/pods?limit={size}{token}")))
        found += len(page["items"])
        more = page["metadata"].get("continue", "")
        if not more:
            connection.close()
            return found


async def scheduling() -> tuple[float, float]:
    """Return pods per second: created, and created and bound."""
    rates = []
    with small_cluster() as api:
        like = orjson.loads(await whole(api, "/api/v1/nodes"))["items"][0]
    for parts in ((), None):
        with tempfile.TemporaryDirectory() as folder:
            registry = Registry(Store(Path(folder) / "kube.db"))
            await registry.open()
            for number in range(NODES):
                made = await registry.create("nodes", node(number, like))
                status = {**node(number, like)["status"], "conditions": [{"type": "Ready", "status": "True"}]}
                await registry.update("nodes", {**made, "status": status}, subresource="status")
            controllers = ControllerManager(registry, Settings(), *([()] if parts == () else []))
            await controllers.start()
            begin = time.perf_counter()
            numbers = itertools.count()

            async def lane(registry: Registry = registry, numbers: itertools.count[int] = numbers) -> None:
                while (number := next(numbers)) < PODS:
                    await registry.create("pods", pod(number, None), "default")

            await asyncio.gather(*(lane() for _ in range(32)))
            while parts is None and any(
                not each.obj["spec"].get("nodeName") for each in registry.store.entries("pods")
            ):
                await asyncio.sleep(0.05)
            rates.append(PODS / (time.perf_counter() - begin))
            await controllers.stop()
            await registry.close()
    return rates[0], rates[1]


def main() -> None:
    """Measure and print."""
    with small_cluster() as small:
        bare = start(small)
        little = memory(small)
    with crowded_cluster() as api:
        took = start(api)
        print(f"{'start':<34}{took:>8.2f} s   {took / bare:>6.1f} x one node ({bare:.2f} s)")
        print(f"{'memory':<34}{memory(api):>8.0f} MB  {memory(api) / little:>6.1f} x one node ({little:.0f} MB)")
        pods = asyncio.run(whole(api, "/api/v1/pods"))
        loaded = orjson.loads(pods)
        floor = best(lambda: orjson.dumps(loaded))

        def row(what: str, took: float) -> None:
            print(f"{what:<34}{took:>8.3f} s   {took / floor:>6.1f} x orjson alone ({floor:.3f} s)", flush=True)

        print(f"{'size of all pods':<34}{len(pods) / 1e6:>8.1f} MB")
        row("list of all pods", best(lambda: asyncio.run(whole(api, "/api/v1/pods"))))
        row("... in pages of 500, decoded", best(lambda: asyncio.run(paged(api, 500))))
        kubectl = shutil.which("kubectl")
        if kubectl:
            command = [
                kubectl,
                "--kubeconfig",
                str(api.kubeconfig),
                "--cache-dir",
                str(api.home / "cache"),
                "get",
                "pods",
                "-A",
            ]
            row("kubectl get pods -A", best(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)))
        print(f"{'memory after that':<34}{memory(api):>8.0f} MB")
    alone, bound = asyncio.run(scheduling())
    print(f"{'pods created and bound':<34}{bound:>8.0f}/s   {alone / bound:>6.1f} x creating alone ({alone:.0f}/s)")


if __name__ == "__main__":
    main()
