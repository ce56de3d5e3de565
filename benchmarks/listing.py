"""Measure the library with 1,000 nodes and 10,000 pods, and with a long log, with lower bounds.

    python benchmarks/listing.py

The lower bound of a list is reading the same bytes over one TLS connection and decoding them with orjson while the
garbage collector is off. That of ``capacity.gpus`` is the same for all nodes. The lower bound of ``metrics.parse`` is
``re.findall`` on the same 100 MB. Each value is the best of three.
"""

from __future__ import annotations

import asyncio
import gc
import re
from types import SimpleNamespace
from typing import Any

import orjson
from crowd import crowded_cluster
from load import Api, best
from scale import whole

from aksgpu import capacity, local, metrics
from aksgpu.kube import Kube

LOG_BYTES = 100_000_000


def alone(api: Api, path: str) -> None:
    """Read and decode one response."""
    gc.disable()
    try:
        orjson.loads(asyncio.run(whole(api, path)))
    finally:
        gc.enable()


def row(what: str, took: float, against: str, floor: float) -> None:
    """Print one line of the table."""
    print(f"{what:<34}{took:>8.3f} s   {took / floor:>5.2f} x {against} ({floor:.3f} s)", flush=True)


def log(share: float) -> bytes:
    """Return a log. The given share of its lines contain an accuracy."""
    every = round(1 / share)
    filler = b"2019-05-16 16:08:31.258328: I tensorflow/core/common_runtime/gpu/gpu_device.cc:1084] Created device\n"
    block = b"Accuracy at step 10: 0.7457\n" + filler * (every - 1)
    return block * (LOG_BYTES // len(block))


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
        floor = best(lambda: alone(api, "/api/v1/nodes"))
        row("capacity.gpus", best(lambda: capacity.gpus(aks)), "reading the nodes alone", floor)
    pattern = re.compile(rb"\nAccuracy at step (\d+): (\d+\.\d+)")
    for share in (0.5, 0.01):
        text = log(share)
        floor = best(lambda text=text: pattern.findall(text))
        row(f"metrics.parse, {share:.0%} of lines", best(lambda text=text: metrics.parse(text)), "re.findall", floor)


if __name__ == "__main__":
    main()
