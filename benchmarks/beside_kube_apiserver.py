"""Measure the laptop's API server beside another one, such as a kube-apiserver with etcd on the same machine.

    python benchmarks/beside_kube_apiserver.py KUBECONFIG

The kubeconfig file must contain a bearer token of a cluster administrator and the certificate of the authority, and the
server must listen on 127.0.0.1. The benchmark creates objects in its namespace ``default`` and does not delete them, so
use a server that can be thrown away. It has no controllers and no scheduler, unless you start them: nodes and pods are
only stored there. On the laptop they are served by controllers, scheduler and node agent. The pods wait for a
scheduling gate on both.

Both servers run during the whole measurement, and are measured in turns. Rates and latencies are the best of three, and
the creation of nodes and pods is one run. At the end, ``kube.list`` reads the pods, and is compared with reading the
same list as one response that is not decoded.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from api_server import CONNECTIONS, WATCHERS, latency, rate
from creation import GATED, PODS, create_all, first_node, nodes, pods
from listing import seconds, unpaged
from load import CONFIG_MAPS, RUNS, Api, Connection, api, encoded, small_cluster

from aksgpu.kube import Kube
from aksgpu.kube.transport import Transport

POD_COUNT = 10_000


def creates(connections: int, one: Api) -> float:
    """Return the ConfigMaps that are created per second."""
    numbers = itertools.count(time.time_ns())

    def request(connection: Connection) -> bytes:
        return connection.request("POST", CONFIG_MAPS, encoded(f"created-{next(numbers)}"))

    return asyncio.run(rate(one, connections, request))


def reads(connections: int, one: Api) -> float:
    """Return the reads of a ConfigMap per second."""
    return asyncio.run(rate(one, connections, lambda each: each.request("GET", f"{CONFIG_MAPS}/read")))


async def prepare(one: Api) -> None:
    """Create the ConfigMap that is read."""
    connection = await Connection.open(one)
    await connection.send(connection.request("POST", CONFIG_MAPS, encoded("read")))
    connection.close()


def row(what: str, unit: str, measured: list[float]) -> None:
    """Print one line of the table: the laptop's value, the other server's and their ratio."""
    laptop, other = measured
    ratio = laptop / other if unit == "/s" else other / laptop
    print(f"{what:<34}{laptop:>9,.1f} {unit:<3}{other:>9,.1f} {unit:<3}{ratio:>7.1f}", flush=True)


def row_of_rates(what: str, servers: list[Api], measure: Callable[[Api], float]) -> None:
    """Print the highest rate of each server."""
    runs = [[measure(one) for one in servers] for _ in range(RUNS)]
    row(what, "/s", [max(each) for each in zip(*runs, strict=True)])


def rows_of_latency(watchers: int, servers: list[Api]) -> None:
    """Print the shortest times of each server until a create is acknowledged, and until watchers have the event."""
    runs = [[asyncio.run(latency(one, watchers)) for one in servers] for _ in range(RUNS)]
    for number, what in enumerate(
        (f"a create with {watchers} watchers", "... half of them have it", "... all have it")
    ):
        shortest = [min(run[which][number] for run in runs) for which in range(len(servers))]
        row(what, "ms", [1000 * seconds for seconds in shortest])


def row_of_lists(servers: list[Api]) -> None:
    """Print how long ``kube.list`` takes for all pods, and how often as long as reading one response."""
    for name, one in zip(("laptop", "other"), servers, strict=True):
        kube = Kube.from_kubeconfig(one.kubeconfig)
        transport = Transport(one.kubeconfig, None, None)
        took = []
        floor = []
        for _ in range(2 * RUNS):
            took.append(seconds(lambda kube=kube: kube.list("Pod", all_namespaces=True)))
            floor.append(seconds(lambda transport=transport: unpaged(transport)))
        what = f"kube.list of the pods, {name}"
        ratio = min(took) / min(floor)
        print(f"{what:<34}{min(took):>9.2f} s   {ratio:>5.2f} x reading the bytes ({min(floor):.2f} s)", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kubeconfig", type=Path)
    other = parser.parse_args().kubeconfig
    with small_cluster(time_scale=1) as laptop:
        servers = [laptop, api(other, laptop.home)]
        for one in servers:
            asyncio.run(prepare(one))
        print(f"{'':<34}{'laptop':>12}{'other':>13}   times as fast")
        for connections in CONNECTIONS:
            row_of_rates(f"creates, {connections} connections", servers, partial(creates, connections))
        for connections in CONNECTIONS:
            row_of_rates(f"reads, {connections} connections", servers, partial(reads, connections))
        for watchers in WATCHERS:
            rows_of_latency(watchers, servers)
        like = asyncio.run(first_node(laptop))
        for what, path, bodies in (
            ("1,000 nodes, 32 connections", "/api/v1/nodes", nodes(like)),
            ("10,000 pods, 32 connections", PODS, pods("gated", POD_COUNT, **GATED)),
        ):
            row(what, "/s", [asyncio.run(create_all(one, path, bodies)) for one in servers])
        row_of_lists(servers)


if __name__ == "__main__":
    main()
