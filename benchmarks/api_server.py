"""Measure the laptop's API server: durable creates, reads and watches, with lower bounds.

    python benchmarks/api_server.py

Creates and reads are acknowledged requests per second over TLS, from 1, 8 and 64 connections of one client process. The
lower bound of a create is SQLite alone, which commits the same bytes with the same durability, as many at a time as
there are connections. That of a read is orjson alone, which serializes the object. The latency of a watch is measured
from before the write is sent until a watcher has read the event. Its lower bound is the write's own acknowledgement.
Each value is the best of three.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from load import CONFIG_MAPS, RUNS, Api, Connection, config_map, encoded, small_cluster

SECONDS = 1.5
EVENTS = 60
CONNECTIONS = (1, 8, 64)
WATCHERS = (1, 20, 200)


async def rate(api: Api, connections: int, make: Callable[[Connection], bytes]) -> float:
    """Return responses per second."""
    opened = [await Connection.open(api) for _ in range(connections)]
    for connection in opened:
        await connection.send(make(connection))
    end = time.perf_counter() + SECONDS

    async def work(connection: Connection) -> int:
        done = 0
        while time.perf_counter() < end:
            await connection.send(make(connection))
            done += 1
        return done

    begin = time.perf_counter()
    done = sum(await asyncio.gather(*map(work, opened)))
    took = time.perf_counter() - begin
    for connection in opened:
        connection.close()
    return done / took


def sqlite_alone(path: Path, data: bytes, together: int) -> float:
    """Return the rows per second that SQLite commits, ``together`` in each transaction."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE IF NOT EXISTS floor (name TEXT PRIMARY KEY, data BLOB)")
    numbers = itertools.count(time.time_ns())
    begin = time.perf_counter()
    done = 0
    while time.perf_counter() - begin < SECONDS / 3:
        db.execute("BEGIN IMMEDIATE")
        for _ in range(together):
            db.execute("INSERT INTO floor VALUES (?, ?)", (str(next(numbers)), data))
        db.execute("COMMIT")
        done += together
    took = time.perf_counter() - begin
    db.close()
    return done / took


def orjson_alone(obj: dict[str, Any]) -> float:
    """Return the objects per second that orjson serializes."""
    begin = time.perf_counter()
    for _ in range(100_000):
        orjson.dumps(obj)
    return 100_000 / (time.perf_counter() - begin)


async def latency(api: Api, watchers: int) -> tuple[float, float, float]:
    """Return medians in seconds: until a write is acknowledged, until one watcher and until all watchers have it."""
    writer = await Connection.open(api)
    seen = asyncio.Semaphore(0)
    version = orjson.loads(await writer.send(writer.request("GET", CONFIG_MAPS + "?limit=1")))["metadata"]
    path = f"{CONFIG_MAPS}?watch=true&resourceVersion={version['resourceVersion']}"
    watches = []
    tasks = []
    arrivals: list[float] = []

    async def follow(reader: asyncio.StreamReader) -> None:
        async for line in reader:
            if line.startswith(b"{"):
                arrivals.append(time.perf_counter())
                seen.release()

    for _ in range(watchers):
        watches.append(await Connection.open(api))
        tasks.append(asyncio.create_task(follow(await watches[-1].watch(path))))
    acknowledged = []
    typical = []
    last = []
    for number in range(EVENTS):
        request = writer.request("POST", CONFIG_MAPS, encoded(f"watched-{time.time_ns()}-{number}"))
        arrivals.clear()
        begin = time.perf_counter()
        await writer.send(request)
        acknowledged.append(time.perf_counter() - begin)
        for _ in range(watchers):
            await seen.acquire()
        typical.append(statistics.median(arrivals) - begin)
        last.append(max(arrivals) - begin)
        await asyncio.sleep(0.005)
    for connection in (writer, *watches):
        connection.close()
    await asyncio.gather(*tasks, return_exceptions=True)
    return statistics.median(acknowledged), statistics.median(typical), statistics.median(last)


def row(what: str, got: float, against: str, floor: float) -> None:
    """Print one line of the table."""
    print(f"{what:<26}{got:>10,.0f}/s   {floor / got:>7.1f} x the time of {against} ({floor:,.0f}/s)", flush=True)


def main() -> None:
    """Measure and print."""
    numbers = itertools.count()
    with small_cluster() as api:
        for connections in CONNECTIONS:

            def create(connection: Connection) -> bytes:
                return connection.request("POST", CONFIG_MAPS, encoded(f"bench-{next(numbers)}"))

            got = max(asyncio.run(rate(api, connections, create)) for _ in range(RUNS))
            stored = orjson.dumps(config_map("x"))
            floor = max(sqlite_alone(api.home / "floor.db", stored, connections) for _ in range(RUNS))
            row(f"creates, {connections} connections", got, "SQLite alone", floor)
        for connections in CONNECTIONS:
            got = max(
                asyncio.run(rate(api, connections, lambda one: one.request("GET", f"{CONFIG_MAPS}/bench-0")))
                for _ in range(RUNS)
            )
            row(f"reads, {connections} connections", got, "orjson alone", orjson_alone(config_map("bench-0")))
        for watchers in WATCHERS:
            best = min((asyncio.run(latency(api, watchers)) for _ in range(RUNS)), key=lambda each: each[1])
            acknowledged, typical, last = (1000 * each for each in best)
            print(
                f"watch, {watchers} watchers".ljust(26)
                + f"{typical:>8.2f} ms   {typical / acknowledged:>7.1f} x the write's acknowledgement "
                f"({acknowledged:.2f} ms); the last watcher {last:.2f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
