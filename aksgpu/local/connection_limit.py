"""Limits on the connections of a TLS server.

A TLS connection uses about 0.3 MB before its client has sent a request. Connections without a request are therefore
limited to a small number and a short time. Further clients wait to be accepted.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

MAX_CONNECTIONS = 1000
"""Maximum number of open connections. Further connections are closed at once."""
MAX_SILENT_CONNECTIONS = 100
"""Maximum number of connections that have not sent a request yet."""
FIRST_REQUEST_SECONDS = 30.0
"""Timeout for the first request, including the TLS handshake."""
FIRST_REQUEST_SECONDS_WHEN_FULL = 1.0
"""The same timeout while other clients wait to be accepted."""
RETRY_SECONDS = 0.05
"""Pause after a connection could not be accepted."""


class ConnectionLimiter:
    """Accepts connections for a server.

    Args:
        listener: a bound socket.
        server: creates the protocol of a connection.
        context: the TLS settings.
    """

    def __init__(self, listener: socket.socket, server: web.Server, context: ssl.SSLContext) -> None:
        self._listener = listener
        self._server = server
        self._context = context
        listener.listen(128)
        listener.setblocking(False)
        self._silent: dict[asyncio.Task[None], float] = {}  # value: when it was accepted
        self._first_request: dict[RequestHandler, asyncio.Event] = {}

    def request_received(self, request: web.Request) -> None:
        """Lift the time limit of the request's connection."""
        event = self._first_request.pop(request.protocol, None)
        if event is not None:
            event.set()

    async def accept(self) -> None:
        """Accept connections until cancelled. Connections that have sent a request stay open."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, _ = await loop.sock_accept(self._listener)
                except OSError:  # out of descriptors, or the client has disconnected
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                if len(self._silent) + len(self._server.connections) >= MAX_CONNECTIONS:
                    connection.close()
                    continue
                while len(self._silent) >= MAX_SILENT_CONNECTIONS:
                    await self._make_room()
                task = asyncio.create_task(self._wait_for_request(connection))
                self._silent[task] = loop.time()
                task.add_done_callback(lambda task: self._silent.pop(task, None))
        finally:
            self._listener.close()
            for task in self._silent:
                task.cancel()

    async def _make_room(self) -> None:
        """Wait until a silent connection sends a request or ends, or close the oldest one after its timeout."""
        oldest, accepted = next(iter(self._silent.items()))
        remaining = accepted + FIRST_REQUEST_SECONDS_WHEN_FULL - asyncio.get_running_loop().time()
        if remaining > 0:
            await asyncio.wait(self._silent, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
        else:
            del self._silent[oldest]
            oldest.cancel()

    async def _wait_for_request(self, connection: socket.socket) -> None:
        """Do the TLS handshake and wait for the first request. Close the connection if it does not arrive in time."""
        protocol = self._server()
        received = asyncio.Event()
        self._first_request[protocol] = received
        try:
            with suppress(OSError):  # no TLS, a disconnect, or a timeout
                async with asyncio.timeout(FIRST_REQUEST_SECONDS):
                    loop = asyncio.get_running_loop()
                    await loop.connect_accepted_socket(lambda: protocol, connection, ssl=self._context)
                    await received.wait()
        finally:
            self._first_request.pop(protocol, None)
            if not received.is_set():
                protocol.force_close()
