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
PATIENCE = 30.0
HURRY = 1.0
"""Seconds in which the first request has to arrive, TLS handshake included; and while others wait to be let in."""


class Door:
    """Accepts connections for a server.

    Args:
        listener: a bound socket.
        server: makes the protocol of a connection.
        context: the TLS settings.
    """

    def __init__(self, listener: socket.socket, server: web.Server, context: ssl.SSLContext) -> None:
        self._listener = listener
        self._server = server
        self._context = context
        listener.listen(128)
        listener.setblocking(False)
        self._strangers: dict[asyncio.Task[None], float] = {}
        self._waiting: dict[RequestHandler, asyncio.Event] = {}

    def heard(self, request: web.Request) -> None:
        """A connection asks for something: it may stay."""
        if waiting := self._waiting.pop(request.protocol, None):
            waiting.set()

    async def accept(self) -> None:
        """Accept until cancelled; connections that have asked stay."""
        loop = asyncio.get_running_loop()
        try:
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
        finally:
            self._listener.close()
            for stranger in self._strangers:
                stranger.cancel()

    async def _make_room(self) -> None:
        """Wait until a stranger has asked or left; the oldest has to leave when it has had its time."""
        oldest, since = next(iter(self._strangers.items()))
        left = since + HURRY - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.wait(self._strangers, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        else:
            del self._strangers[oldest]
            oldest.cancel()

    async def _admit(self, connection: socket.socket) -> None:
        """Stay with a connection until its first request."""
        protocol = self._server()
        asked = asyncio.Event()
        self._waiting[protocol] = asked
        try:
            with suppress(OSError):  # no TLS, or the client left, or took too long
                async with asyncio.timeout(PATIENCE):
                    loop = asyncio.get_running_loop()
                    await loop.connect_accepted_socket(lambda: protocol, connection, ssl=self._context)
                    await asked.wait()
        finally:
            self._waiting.pop(protocol, None)
            if not asked.is_set():
                protocol.force_close()
