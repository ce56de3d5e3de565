"""Measure the library's lists with 1,000 nodes and 10,000 pods, with lower bounds.

    python benchmarks/listing.py

The lower bound of a list is reading the same bytes over one TLS connection and decoding them with orjson while the
garbage collector is off. That of ``capacity.gpus`` is the same for all nodes. The same pods are also listed from
``list_server.py``, which sends them as a kube-apiserver does. There, the lower bound is reading them as one response,
with the library's own connection and without decoding. Each value is the best of three, or of more runs if the work is
short.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
from crowd import crowded_cluster
from list_server import list_server
from load import RUNS, Api, best
from scale import whole

from aksgpu import capacity, local
from aksgpu.kube import Kube
from aksgpu.kube.transport import Transport

SERVER_RATE = 125
"""MB per second that the stand-in for a kube-apiserver encodes."""
LIST_RUNS = {10: 50, 600: 20, 10_000: 2 * RUNS + 1}
"""Measurements of a list for each number of pods. They take turns with those of the lower bound."""


def alone(api: Api, path: str) -> None:
    """Read and decode one response."""
    gc.disable()
    try:
        orjson.loads(asyncio.run(whole(api, path)))
    finally:
        gc.enable()


def row(what: str, took: float, against: str, floor: float) -> None:
    """Print one line of the table."""
    print(f"{what:<34}{took:>8.4f} s   {took / floor:>5.2f} x {against} ({floor:.4f} s)", flush=True)


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds of one run, without the time in which the result is freed."""
    begin = time.perf_counter()
    result = work()
    took = time.perf_counter() - begin
    del result
    return took


def unpaged(transport: Transport) -> bytes:
    """Read all pods as one response."""
    with transport.open("GET", "/api/v1/pods") as stream:
        return stream.read()


def lists_of_a_server(pods: list[Any], folder: Path) -> None:
    """Measure lists of several lengths from the stand-in for a kube-apiserver."""
    items = folder / "pods.json"
    for count, runs in LIST_RUNS.items():
        items.write_bytes(orjson.dumps(pods[:count]))
        with list_server(items, folder, SERVER_RATE) as kubeconfig:
            kube = Kube.from_kubeconfig(kubeconfig)
            transport = Transport(kubeconfig, None, None)
            took = []
            floor = []
            for _ in range(runs):
                took.append(seconds(lambda kube=kube: kube.list("Pod", all_namespaces=True)))
                floor.append(seconds(lambda transport=transport: unpaged(transport)))
        row(f"list_server.py, {count:,} pods", min(took), "reading the bytes", min(floor))


def main() -> None:
    """Measure and print."""
    with crowded_cluster() as api:
        local.start(api.home)
        kube = Kube.from_kubeconfig(api.kubeconfig)
        aks: Any = SimpleNamespace(kube=kube, name="bench")
        for kind, path in (("Node", "/api/v1/nodes"), ("Pod", "/api/v1/pods")):
            floor = best(lambda path=path: alone(api, path))
            row(
                f'kube.list("{kind}")',
                best(lambda kind=kind: kube.list(kind, all_namespaces=True)),
                "read and orjson.loads",
                floor,
            )
        pods = orjson.loads(asyncio.run(whole(api, "/api/v1/pods")))["items"]
        lists_of_a_server(pods, api.home)
        floor = best(lambda: alone(api, "/api/v1/nodes"))
        row("capacity.gpus", best(lambda: capacity.gpus(aks)), "reading the nodes alone", floor)


if __name__ == "__main__":
    main()
