"""Answers that go on: watches and followed logs, sent in chunks as things happen.

A client may read slowly, stop reading or vanish. A slow one is held back by its socket and cut off by the store when
it falls too far behind; one that vanished is noticed within :data:`PULSE` seconds, also when nothing happens; one that
stopped reading is let go when its time is up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from math import inf

import orjson
from aiohttp import web

from aksgpu.local.api.reads import bookmark_event
from aksgpu.local.api.responses import JSON, NO_CACHE
from aksgpu.local.api.store import Entry, Event
from aksgpu.local.status_error import StatusError

log = logging.getLogger(__name__)

PULSE = 5.0
"""Seconds of silence after which it is checked whether the client is still there."""
BOOKMARK_SECONDS = 45.0
"""Below the minute of silence after which many clients give a connection up."""
_STUCK_BYTES = 1 << 16


class Watch:
    """One watch of one client, as lines of JSON.

    Args:
        encode: an event's object as JSON.
        bookmarks: whether the client wants bookmarks: one from time to time, and one at the end.
    """

    def __init__(self, encode: Callable[[Event], bytes], *, bookmarks: bool) -> None:
        self._encode = encode
        self._bookmarks = bookmarks
        self._newest: Entry | None = None

    async def lines(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
        """A line an event; ``events`` gives bookmarks more often than clients want them."""
        marked = time.monotonic()
        try:
            async with aclosing(events):
                async for event in events:
                    self._newest = event.entry
                    if event.type == "BOOKMARK":
                        # Those that end the initial events are annotated, and sent at once.
                        early = time.monotonic() - marked < BOOKMARK_SECONDS
                        if not self._bookmarks or (early and "annotations" not in event.entry.obj["metadata"]):
                            continue
                        marked = time.monotonic()
                    yield self._line(event)
        except StatusError as error:
            yield b'{"type":"ERROR","object":' + orjson.dumps(error.status) + b"}\n"

    def last_line(self) -> bytes:
        """The bookmark that ends a watch whose time is up."""
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
    """Send pieces as they come, until there are no more, time is up or the client leaves.

    Args:
        request: the client's.
        pieces: closed at the end.
        media: their media type.
        seconds: how long this may take.
        last: makes a piece to end with when time is up.
    """
    response = web.StreamResponse(headers={**NO_CACHE, "Content-Type": media})
    end = time.monotonic() + seconds

    async def write() -> None:
        async with aclosing(pieces):
            async for piece in pieces:
                await response.write(piece)

    try:
        await response.prepare(request)
        writing = asyncio.create_task(write())
        try:
            while not _client_left(request) and (left := end - time.monotonic()) > 0:
                if (await asyncio.wait((writing,), timeout=min(left, PULSE)))[0]:
                    await writing
                    return response
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        if request.transport is not None and request.transport.get_write_buffer_size() > _STUCK_BYTES:
            request.transport.abort()
        elif line := last():
            await response.write(line)
    except ConnectionError:
        pass  # the client left: nobody is there to be told
    except Exception:
        # An error of ours in the middle of an answer: a connection cut short says so, an orderly end would not.
        log.exception("%s %s broke off", request.method, request.path)
        if request.transport is not None:
            request.transport.abort()
    return response


def _client_left(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
