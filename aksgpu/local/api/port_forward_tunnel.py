"""``kubectl port-forward``: a SPDY connection inside a WebSocket.

For each connection to a local port, kubectl opens two streams with the same ``requestid``: one for errors, on which
only the server writes, and one for data.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from aiohttp import WSMsgType, web

from aksgpu.local.api import spdy
from aksgpu.local.api.port_forward_channels import PodPorts, describe_error
from aksgpu.local.status_error import StatusError

PROTOCOL = "SPDY/3.1+portforward.k8s.io"
CHUNK_BYTES = 32 * 1024
MAX_STREAMS = 2000
"""Open streams of one client."""


async def serve_tunnel(socket: web.WebSocketResponse, ports: PodPorts, pod: Mapping[str, Any]) -> None:
    """Forward ports for one kubectl, until it leaves.

    Args:
        socket: The WebSocket.
        ports: Connects to ports of pods.
        pod: The pod's metadata.
    """
    tunnel = _Tunnel(socket, ports, pod)
    try:
        await tunnel.receive()
    except (spdy.SpdyError, ConnectionError):
        pass  # The other side does not speak SPDY, or has left. The connection ends either way.
    finally:
        await tunnel.close()


class _Forward:
    """One connection to a port, with its two streams."""

    def __init__(self, port: int, data: int, errors: int) -> None:
        self.port = port
        self.data = data
        self.errors = errors
        self.writer: asyncio.Future[asyncio.StreamWriter | None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None]


class _Tunnel:
    def __init__(self, socket: web.WebSocketResponse, ports: PodPorts, pod: Mapping[str, Any]) -> None:
        self._socket = socket
        self._ports = ports
        self._pod = pod
        self._decoder = spdy.Decoder()
        self._encoder = spdy.Encoder()
        self._waiting: dict[str, dict[str, tuple[int, str]]] = {}  # streams without their partner, by request
        self._forwards: dict[int, _Forward] = {}  # by stream of data

    async def receive(self) -> None:
        """Handle the frames of the client until it leaves."""
        async for message in self._socket:
            if message.type is not WSMsgType.BINARY:
                continue
            for frame in self._decoder.feed(message.data):
                if frame.kind == spdy.GOAWAY:
                    return
                await self._handle(frame)

    async def _handle(self, frame: spdy.Frame) -> None:
        if frame.kind == spdy.SYN_STREAM:
            await self._open(frame)
        elif frame.kind == spdy.PING:
            await self._socket.send_bytes(self._encoder.ping(frame.stream))
        elif frame.kind == spdy.RST_STREAM and frame.stream in self._forwards:
            await self._abort(self._forwards[frame.stream])
        elif frame.kind == spdy.DATA and frame.stream in self._forwards:
            await self._write(self._forwards[frame.stream], frame)

    async def _open(self, frame: spdy.Frame) -> None:
        headers = frame.headers
        if len(self._waiting) + len(self._forwards) >= MAX_STREAMS:
            raise spdy.SpdyError("too many streams")
        await self._socket.send_bytes(self._encoder.reply(frame.stream))
        request = headers.get("requestid", "")
        pair = self._waiting.setdefault(request, {})
        pair[headers.get("streamtype", "")] = (frame.stream, headers.get("port", ""))
        if {"data", "error"} <= pair.keys():
            del self._waiting[request]
            stream, port = pair["data"]
            if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
                raise spdy.SpdyError(f"a port must be a number from 1 to 65535, got {port}")
            forward = _Forward(int(port), stream, pair["error"][0])
            self._forwards[stream] = forward
            forward.task = asyncio.create_task(self._run(forward))

    async def _run(self, forward: _Forward) -> None:
        """Connect, and send what the pod sends until it closes the connection."""
        error = b""
        try:
            reader, writer = await self._ports.connect(self._pod["namespace"], self._pod["name"], forward.port)
            forward.writer.set_result(writer)
            try:
                with contextlib.suppress(ConnectionError):
                    while data := await reader.read(CHUNK_BYTES):
                        await self._socket.send_bytes(self._encoder.data(forward.data, data))
            finally:
                writer.close()
        except (OSError, StatusError) as problem:
            error = describe_error(self._pod, forward.port, problem).encode()
        finally:
            del self._forwards[forward.data]
            if not forward.writer.done():
                forward.writer.set_result(None)
            # kubectl waits for the end of both streams, also after it has reset the stream of data.
            with contextlib.suppress(ConnectionError):
                await self._socket.send_bytes(self._encoder.data(forward.errors, error, last=True))
                await self._socket.send_bytes(self._encoder.data(forward.data, b"", last=True))

    async def _write(self, forward: _Forward, frame: spdy.Frame) -> None:
        """Send data to the pod, once it is connected. Data for a closed connection is dropped."""
        writer = await asyncio.shield(forward.writer)
        if writer is None or writer.is_closing():
            return
        with contextlib.suppress(ConnectionError, RuntimeError):
            writer.write(frame.data)
            await writer.drain()
            if frame.flags & spdy.FIN and writer.can_write_eof():
                writer.write_eof()

    @staticmethod
    async def _abort(forward: _Forward) -> None:
        """Close the connection to the pod, so that both streams end."""
        writer = await asyncio.shield(forward.writer)
        if writer is not None:
            writer.transport.abort()

    async def close(self) -> None:
        """Close all connections to the pod."""
        tasks = [forward.task for forward in self._forwards.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
