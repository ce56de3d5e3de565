"""Answers that go on: watches and followed logs, sent in chunks as things happen.

A client may read slowly, stop reading or vanish. A slow one is held back by its socket and cut off by the store when
it falls too far behind; one that vanished is noticed within :data:`PULSE` seconds, also when nothing happens; one that
stopped reading is let go when its time is up.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import cast

import orjson
from aiohttp import web

from aksgpu.local.api.store import Event
from aksgpu.local.status import StatusError

log = logging.getLogger(__name__)

PULSE = 5.0
"""Seconds of silence after which it is checked whether the client is still there."""
BOOKMARK_SECONDS = 45.0
"""Below the minute of silence after which many clients give a connection up."""
NO_CACHE = {"Cache-Control": "no-cache, private"}
_STUCK_BYTES = 1 << 16

Encode = Callable[[Event], bytes]


class Watch:
    """One watch of one client.

    Args:
        request: the client's.
        encode: an event's object as JSON.
        seconds: how long the watch lasts; 0 leaves that to the server, which takes 30 to 60 minutes.
        bookmarks: whether the client wants bookmarks: one from time to time, and one at the end.
    """

    def __init__(self, request: web.Request, encode: Encode, *, seconds: int, bookmarks: bool) -> None:
        self._request, self._encode, self._bookmarks = request, encode, bookmarks
        self._seconds = seconds or random.randint(1800, 3600)
        self._response = web.StreamResponse(headers={**NO_CACHE, "Content-Type": "application/json"})

    async def send(self, events: AsyncIterator[Event], closing: Callable[[int], Event]) -> web.StreamResponse:
        """Send events, a JSON line each, until time is up or the client leaves.

        Args:
            events: gives a BOOKMARK after each :data:`PULSE` seconds of silence.
            closing: a BOOKMARK for a version.
        """
        position = 0
        try:
            await self._response.prepare(self._request)
            try:
                async with (
                    asyncio.timeout(self._seconds),
                    aclosing(cast("AsyncGenerator[Event, None]", events)) as stream,
                ):
                    marked = time.monotonic()
                    async for event in stream:
                        position = event.entry.rv
                        if event.type != "BOOKMARK":
                            await self._response.write(self._line(event))
                        elif gone(self._request):
                            return self._response
                        elif self._bookmarks and self._due(event, marked):
                            await self._response.write(self._line(event))
                            marked = time.monotonic()
            except TimeoutError:
                await self._last(self._line(closing(position)) if self._bookmarks and position else b"")
            except StatusError as error:
                await self._last(b'{"type":"ERROR","object":' + orjson.dumps(error.status) + b"}\n")
        except ConnectionError:
            pass  # the client left: nobody is there to be told
        except Exception:
            _break_off(self._request)
        return self._response

    def _due(self, event: Event, marked: float) -> bool:
        """Whether a bookmark is sent: some time after the last one, or when it ends the initial events."""
        return "annotations" in event.entry.obj["metadata"] or time.monotonic() - marked >= BOOKMARK_SECONDS

    def _line(self, event: Event) -> bytes:
        return b'{"type":"' + event.type.encode() + b'","object":' + self._encode(event) + b"}\n"

    async def _last(self, line: bytes) -> None:
        transport = self._request.transport
        if transport is not None and transport.get_write_buffer_size() > _STUCK_BYTES:
            transport.abort()
        elif line:
            await self._response.write(line)


async def send_log(request: web.Request, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    """Send a log as it comes, until it ends or the client leaves."""
    response = web.StreamResponse(headers={**NO_CACHE, "Content-Type": "text/plain"})
    pending: asyncio.Future[bytes | None] | None = None
    try:
        await response.prepare(request)
        while not gone(request):
            pending = pending or asyncio.ensure_future(_next(pieces))
            done, _ = await asyncio.wait((pending,), timeout=PULSE)
            if not done:
                continue
            piece, pending = pending.result(), None
            if piece is None:
                break
            await response.write(piece)
    except ConnectionError:
        pass  # the client left: nobody is there to be told
    except Exception:
        _break_off(request)
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()
    return response


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)


def _break_off(request: web.Request) -> None:
    """An error of ours in the middle of an answer: a connection cut short says so, an orderly end would not."""
    log.exception("%s %s broke off", request.method, request.path)
    if request.transport is not None:
        request.transport.abort()


def gone(request: web.Request) -> bool:
    """Whether the client has closed the connection."""
    return request.transport is None or request.transport.is_closing()
