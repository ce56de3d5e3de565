"""Port forwarding over a WebSocket with channels, as the Python packages ``kubernetes`` and ``kr8s`` use it.

Each message is the number of a channel and data. The first port has the channels 0 for data and 1 for errors, the
second 2 and 3, and so on. The first message of each channel is its port's number. The connection ends when the pod has
closed all of its ports, or when the client leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aiohttp import WSMsgType, web

from aksgpu.local.api.streaming import run_until_one_ends
from aksgpu.local.status_error import StatusError

PROTOCOL = "v4.channel.k8s.io"
CHUNK_BYTES = 64 * 1024

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class PodPorts(Protocol):
    """The part of the node agent that connects to ports of pods."""

    async def connect(self, namespace: str, pod: str, port: int) -> Streams:
        """Connect to a port; raises OSError if nothing in the pod listens there, and StatusError without the pod."""


async def serve_channels(
    socket: web.WebSocketResponse, ports: PodPorts, pod: Mapping[str, Any], numbers: Sequence[int]
) -> None:
    """Forward ports until the pod has closed all connections, or the client leaves.

    Args:
        socket: The WebSocket.
        ports: Connects to ports of pods.
        pod: The pod's metadata.
        numbers: The ports.
    """
    forwards = [_Forward(socket, index, ports, pod, number) for index, number in enumerate(numbers)]
    await run_until_one_ends(_receive(socket, forwards), _run_all(forwards))


class _Forward:
    """One port, with its two channels."""

    def __init__(
        self, socket: web.WebSocketResponse, index: int, ports: PodPorts, pod: Mapping[str, Any], port: int
    ) -> None:
        self._socket = socket
        self._data = bytes((2 * index,))
        self._errors = bytes((2 * index + 1,))
        self._ports = ports
        self._pod = pod
        self._port = port
        self._writer: asyncio.Future[asyncio.StreamWriter | None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Connect, and send what the pod sends until it closes the connection."""
        for channel in (self._data, self._errors):
            await self._socket.send_bytes(channel + self._port.to_bytes(2, "little"))
        try:
            reader, writer = await self._ports.connect(self._pod["namespace"], self._pod["name"], self._port)
        except (OSError, StatusError) as error:
            self._writer.set_result(None)
            await self._socket.send_bytes(self._errors + describe_error(self._pod, self._port, error).encode())
            return
        self._writer.set_result(writer)
        try:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(CHUNK_BYTES):
                    await self._socket.send_bytes(self._data + data)
        finally:
            writer.close()

    async def write(self, data: bytes) -> None:
        """Send data to the pod, once it is connected. Data for a closed connection is dropped."""
        writer = await asyncio.shield(self._writer)
        if writer is not None and not writer.is_closing():
            with contextlib.suppress(ConnectionError):
                writer.write(data)
                await writer.drain()


def describe_error(pod: Mapping[str, Any], port: int, error: Exception) -> str:
    """Return the text for a client about a port that cannot be reached. ``pod`` is the pod's metadata."""
    return f"error forwarding port {port} to pod {pod['uid']}, uid : {error}"


async def _run_all(forwards: list[_Forward]) -> None:
    await asyncio.gather(*(forward.run() for forward in forwards))


async def _receive(socket: web.WebSocketResponse, forwards: list[_Forward]) -> None:
    """Pass the client's messages to the pod until the connection is closed."""
    async for message in socket:
        data: bytes = message.data.encode() if message.type is WSMsgType.TEXT else message.data
        if len(data) > 1 and data[0] % 2 == 0 and data[0] // 2 < len(forwards):
            await forwards[data[0] // 2].write(data[1:])
