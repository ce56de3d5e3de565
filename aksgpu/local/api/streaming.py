"""Streaming responses: watches and followed logs, sent in chunks.

A client may read slowly, stop reading or disappear. Data is sent to a slow client as fast as it reads, and its watch
ends when it falls too far behind. The connection is checked every :data:`CHECK_SECONDS`, so a client that has
disappeared is noticed even if there is nothing to send. A client that has stopped reading is disconnected when its time
is up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing
from math import inf
from typing import Any

import orjson
from aiohttp import web

from aksgpu.local.api.reads import bookmark_event
from aksgpu.local.api.responses import JSON, NO_CACHE
from aksgpu.local.api.store import Entry, Event
from aksgpu.local.status_error import StatusError

log = logging.getLogger(__name__)

CHECK_SECONDS = 5.0
"""Seconds without data after which the connection is checked."""
BOOKMARK_SECONDS = 45.0
"""Seconds between bookmarks. Many clients close a connection after a minute without data."""
_PIECE_BYTES = 1 << 16
"""Bytes of events that are sent together."""
_STUCK_BYTES = 1 << 16
"""A client with more unsent bytes than this is assumed to have stopped reading."""


class Watch:
    """One watch of one client, as lines of JSON.

    Args:
        encode: Returns an event's object as JSON.
        bookmarks: Whether the client wants bookmarks, from time to time and at the end.
    """

    def __init__(self, encode: Callable[[Event], bytes], *, bookmarks: bool) -> None:
        self._encode = encode
        self._bookmarks = bookmarks
        self._newest: Entry | None = None
        self._marked = time.monotonic()
        """When the last bookmark was sent, or the watch began."""

    async def lines(self, batches: AsyncGenerator[list[Event], None]) -> AsyncGenerator[bytes, None]:
        """Yield a line per event, those of events that arrived together in one piece of limited size.

        Most bookmarks in ``batches`` are dropped, because clients need fewer of them.
        """
        try:
            async with aclosing(batches):
                async for events in batches:
                    for piece in self._pieces(events):
                        yield piece
        except StatusError as error:
            yield b'{"type":"ERROR","object":' + orjson.dumps(error.status) + b"}\n"

    def _pieces(self, events: list[Event]) -> Iterator[bytes]:
        lines: list[bytes] = []
        size = 0
        for event in events:
            self._newest = event.entry
            if event.type == "BOOKMARK" and not self._is_due(event):
                continue
            line = self._line(event)
            lines.append(line)
            size += len(line)
            if size >= _PIECE_BYTES:
                yield b"".join(lines)
                lines = []
                size = 0
        if lines:
            yield b"".join(lines)

    def _is_due(self, bookmark: Event) -> bool:
        """Return whether a bookmark is sent. The one after the initial events has an annotation and is sent at once."""
        if not self._bookmarks:
            return False
        now = time.monotonic()
        if now - self._marked < BOOKMARK_SECONDS and "annotations" not in bookmark.entry.obj["metadata"]:
            return False
        self._marked = now
        return True

    def last_line(self) -> bytes:
        """Return the bookmark that ends a watch whose time is up."""
        if self._newest is None or not self._bookmarks:
            return b""
        return self._line(bookmark_event(self._newest.kind, self._newest.rv))

    def _line(self, event: Event) -> bytes:
        return b'{"type":"' + event.type.encode() + b'","object":' + self._encode(event) + b"}\n"


async def send(
    request: web.Request,
    pieces: AsyncGenerator[bytes, None],
    *,
    media: str = JSON,
    seconds: float = inf,
    last: Callable[[], bytes] = bytes,
) -> web.StreamResponse:
    """Send pieces as they arrive, until the last one, a timeout or the end of the connection.

    Args:
        request: The client's request.
        pieces: What to send. It is closed at the end.
        media: The media type of the response.
        seconds: The maximum duration of the response.
        last: Returns the data to send when the time is up.
    """
    response = web.StreamResponse(headers={**NO_CACHE, "Content-Type": media})
    try:
        await response.prepare(request)
        if await _write_pieces(request, response, pieces, seconds):
            return response
        if request.transport is not None and request.transport.get_write_buffer_size() > _STUCK_BYTES:
            request.transport.abort()
            return response
        line = last()
        if line:
            await response.write(line)
    except ConnectionError:
        pass  # The client has disconnected.
    except Exception:
        # The client must notice the error, so the connection is aborted instead of closed.
        log.exception("%s %s failed while sending", request.method, request.path)
        if request.transport is not None:
            request.transport.abort()
    return response


async def _write_pieces(
    request: web.Request, response: web.StreamResponse, pieces: AsyncGenerator[bytes, None], seconds: float
) -> bool:
    """Write all pieces. Return False if the time is up or the client has disconnected before the end."""

    async def write() -> None:
        async with aclosing(pieces):
            async for piece in pieces:
                await response.write(piece)

    end = time.monotonic() + seconds
    writing = asyncio.create_task(write())
    try:
        while not _is_disconnected(request) and time.monotonic() < end:
            done, _ = await asyncio.wait((writing,), timeout=min(end - time.monotonic(), CHECK_SECONDS))
            if done:
                await writing
                return True
        return False
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


def _is_disconnected(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


async def run_until_one_ends(*directions: Coroutine[Any, Any, None]) -> None:
    """Run the directions of a connection until one of them ends, and cancel the others.

    An error means that the client has disconnected, so it cannot be reported.
    """
    tasks = [asyncio.create_task(direction) for direction in directions]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
