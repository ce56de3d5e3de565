"""How the lines of a watch are put together into pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import orjson

from aksgpu.local.api.responses import ResponseFormat, event_encoder
from aksgpu.local.api.store import Event, encode
from aksgpu.local.api.streaming import Watch
from aksgpu.local.kinds import get_kind


def added(name: str, size: int) -> Event:
    obj = {"metadata": {"name": name}, "data": {"text": "x" * size}}
    return Event("ADDED", encode(get_kind("configmaps"), obj, 1), None)


async def pieces(*batches: list[Event]) -> list[list[str]]:
    """Return the names of the objects in each piece."""

    async def events() -> AsyncGenerator[list[Event], None]:
        for batch in batches:
            yield batch

    watch = Watch(event_encoder(ResponseFormat()), bookmarks=False)
    found = []
    async for piece in watch.lines(events()):
        assert piece.endswith(b"}\n")
        found.append([orjson.loads(line)["object"]["metadata"]["name"] for line in piece.splitlines()])
    return found


async def test_events_that_arrive_together_are_sent_together() -> None:
    assert await pieces([added("a", 10), added("b", 10)], [added("c", 10)]) == [["a", "b"], ["c"]]


async def test_a_piece_has_a_limited_size() -> None:
    assert await pieces([added(name, 40_000) for name in "abcde"]) == [["a", "b"], ["c", "d"], ["e"]]
