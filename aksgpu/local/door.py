"""Where connections come in: how many there may be, and how long one may stay before it has asked for anything.

A TLS connection costs 0.3 MB before its client has shown a token, so those who only connect are few. Others wait until
one of them has asked, or has had its time and is let go. What is asked is no business of this module.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

MAX_CONNECTIONS = 1000
"""Connections at the same time; further ones are closed at once."""
MAX_STRANGERS = 100
"""Connections that have not asked for anything yet."""
PATIENCE, HURRY = 30.0, 1.0
"""Seconds in which the first request has to arrive, TLS handshake included; and while others wait to be let in."""


class Door:
    """Accepts connections for a server.

    Args:
        listener: a bound socket.
        server: makes the protocol of a connection.
        context: the TLS settings.
    """

    def __init__(self, listener: socket.socket, server: web.Server, context: ssl.SSLContext) -> None:
        self._listener, self._server, self._context = listener, server, context
        self._strangers: dict[asyncio.Task[None], float] = {}
        self._waiting: dict[RequestHandler, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to accept."""
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._task = asyncio.create_task(self._accept())

    async def close(self) -> None:
        """Accept no more; connections that have asked stay."""
        tasks = [*self._strangers, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()

    def heard(self, request: web.Request) -> None:
        """A connection asks for something: it may stay."""
        if (waiting := self._waiting.pop(request.protocol, None)) and not waiting.done():
            waiting.set_result(None)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError:  # out of descriptors, or the client has left already
                await asyncio.sleep(0.05)
                continue
            if len(self._strangers) + len(self._server.connections) >= MAX_CONNECTIONS:
                connection.close()
                continue
            while len(self._strangers) >= MAX_STRANGERS:
                await self._make_room()
            task = asyncio.create_task(self._admit(connection))
            self._strangers[task] = loop.time()
            task.add_done_callback(lambda task: self._strangers.pop(task, None))

    async def _make_room(self) -> None:
        """Wait until a stranger has asked or left; the oldest has to leave when it has had its time."""
        oldest, since = next(iter(self._strangers.items()))
        left = since + HURRY - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.wait(self._strangers, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            return
        del self._strangers[oldest]
        oldest.cancel()

    async def _admit(self, connection: socket.socket) -> None:
        """Stay with a connection until its first request."""
        loop = asyncio.get_running_loop()
        waiting, protocol = loop.create_future(), self._server()

        def make() -> asyncio.BaseProtocol:
            self._waiting[protocol] = waiting
            return protocol

        try:
            with suppress(OSError):  # no TLS, or the client left
                async with asyncio.timeout(PATIENCE):
                    await loop.connect_accepted_socket(make, connection, ssl=self._context)
                    await waiting
        finally:
            self._waiting.pop(protocol, None)
            if not waiting.done() or waiting.cancelled():
                protocol.force_close()
