"""Measure how fast nodes and pods are created through the API server.

    python benchmarks/creation.py

32 connections of one client process create 1,000 nodes, and then pods of three sorts: with a scheduling gate, for a
node that does not exist, and pods whose program ends at once. Pods of the last sort are scheduled and started while
others are created. Objects per second are acknowledged requests. The lower bound is the creation of ConfigMaps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import orjson
from crowd import NODES, node, pod
from load import CONFIG_MAPS, Api, Connection, encoded, small_cluster

CONNECTIONS = 32
WAITING_PODS = 5_000
RUNNING_PODS = 1_000
PODS = "/api/v1/namespaces/default/pods"
GATED = {"schedulingGates": [{"name": "benchmark.example/wait"}]}
UNSCHEDULABLE = {"nodeSelector": {"no": "such-node"}}


async def create_all(api: Api, path: str, bodies: Iterable[bytes]) -> float:
    """Create objects, and return how many were created per second."""
    remaining = iter(bodies)
    opened = [await Connection.open(api) for _ in range(CONNECTIONS)]
    done = 0

    async def work(connection: Connection) -> None:
        nonlocal done
        for body in remaining:
            await connection.send(connection.request("POST", path, body))
            done += 1

    loop = asyncio.get_running_loop()
    begin = loop.time()
    await asyncio.gather(*map(work, opened))
    took = loop.time() - begin
    for connection in opened:
        connection.close()
    return done / took


async def first_node(api: Api) -> dict[str, Any]:
    """Return a node of the cluster."""
    connection = await Connection.open(api)
    found = orjson.loads(await connection.send(connection.request("GET", "/api/v1/nodes?limit=1")))
    connection.close()
    like: dict[str, Any] = found["items"][0]
    return like


def nodes(like: dict[str, Any]) -> list[bytes]:
    """Return nodes like another one, as JSON."""
    head = {"apiVersion": "v1", "kind": "Node"}
    return [orjson.dumps(head | node(number, like)) for number in range(NODES)]


def pods(sort: str, count: int, **spec: Any) -> list[bytes]:
    """Return pods as JSON.

    Args:
        sort: the beginning of their names.
        count: how many.
        **spec: further fields of their spec.
    """
    made = []
    for number in range(count):
        each = {"apiVersion": "v1", "kind": "Pod", **pod(number, None)}
        each["metadata"]["name"] = f"{sort}-{number}"
        each["spec"] |= spec
        each["spec"]["containers"][0]["command"] = ["true"]
        made.append(orjson.dumps(each))
    return made


def main() -> None:
    """Measure and print."""
    with small_cluster(time_scale=1) as api:
        maps = [encoded(f"created-{number}") for number in range(WAITING_PODS)]
        floor = asyncio.run(create_all(api, CONFIG_MAPS, maps))

        def row(what: str, path: str, bodies: list[bytes]) -> None:
            got = asyncio.run(create_all(api, path, bodies))
            print(f"{what:<34}{got:>6,.0f}/s   {floor / got:>5.1f} x ConfigMaps ({floor:,.0f}/s)", flush=True)

        row("1,000 nodes", "/api/v1/nodes", nodes(asyncio.run(first_node(api))))
        row("5,000 pods that wait for a gate", PODS, pods("gated", WAITING_PODS, **GATED))
        row("5,000 pods without a suitable node", PODS, pods("unschedulable", WAITING_PODS, **UNSCHEDULABLE))
        row("1,000 pods that run", PODS, pods("running", RUNNING_PODS))


if __name__ == "__main__":
    main()
