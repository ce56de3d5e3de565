"""The subresources ``exec`` and ``attach``: a command in a container, or the container's own one, over a WebSocket.

It supports versions 5 and 4 of Kubernetes' remote command protocol. A message consists of a channel number and data.
The channels are standard input (0), output (1), error output (2), the final Status (3) and the terminal's size (4).
Version 5 adds a message that closes a channel (255). The older protocol over SPDY, which kubectl up to 1.29 uses by
default, is not supported.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

import orjson
from aiohttp import WSMsgType, web

from aksgpu.local.api.pod_logs import container_status, select_container
from aksgpu.local.api.request_bodies import query_flag
from aksgpu.local.api.streaming import run_until_one_ends
from aksgpu.local.objects import Object
from aksgpu.local.selectors import get_path
from aksgpu.local.status_error import StatusError, bad_request

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN = 0
ERROR = 3
RESIZE = 4
CLOSE = 255
OUTPUTS = {"stdout": 1, "stderr": 2}
_HEARTBEAT = 60
"""Seconds between pings."""
_NO_SPDY = (
    "Upgrade request required: exec and attach are only supported over WebSockets. Use kubectl 1.30 or later, or "
    "kubectl 1.29 with KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true"
)


class Command(Protocol):
    """A running command."""

    def output(self, stream: str) -> AsyncIterator[bytes]:
        """Yield what the command writes to ``stdout`` or ``stderr``, until it ends."""

    async def write(self, data: bytes) -> None:
        """Write to the command's input."""

    def end_input(self) -> None:
        """Close the command's input."""

    def resize(self, width: int, height: int) -> None:
        """Set the size of the command's terminal, in characters."""

    async def code(self) -> int:
        """Wait until the command has ended, and return its exit code."""

    async def close(self) -> None:
        """Release the command's resources."""


class PodExec(Protocol):
    """The part of the node agent that runs commands in containers."""

    async def execute(self, namespace: str, pod: str, container: str, argv: Sequence[str], *, tty: bool) -> Command:
        """Start a command; raises StatusError if it cannot be started."""

    async def attach(self, namespace: str, pod: str, container: str, *, stdin: bool) -> Command:
        """Connect to the container's own command; raises StatusError if that is not possible."""


class _Options(NamedTuple):
    """What a request asks for."""

    container: str
    stdin: bool
    streams: list[str]
    """The output streams that the client wants: ``stdout``, ``stderr`` or both."""
    tty: bool


def _parse_options(pod: Object, request: web.Request, missing: str) -> _Options:
    """Return the options of a request.

    Args:
        pod: The pod.
        request: The request.
        missing: The error if the container does not run, with a place for its name.

    Raises:
        StatusError: The request is not valid, or the container does not run.
    """
    query = request.query
    tty = query_flag(query, "tty")
    options = _Options(
        container=select_container(pod, query.get("container", "")),
        stdin=query_flag(query, "stdin"),
        streams=[each for each in OUTPUTS if query_flag(query, each) and not (tty and each == "stderr")],
        tty=tty,
    )
    if not pod["spec"].get("nodeName"):
        raise bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
    if not options.streams and not options.stdin:
        raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
    if get_path(container_status(pod, options.container), "state.running") is None:
        reason = f"unable to upgrade connection: {missing.format(options.container)}"
        raise StatusError(500, "InternalError", f"Internal error occurred: {reason}")
    return options


async def serve_exec(runner: PodExec, pod: Object, request: web.Request) -> web.StreamResponse:
    """Answer a request for ``exec``.

    Raises:
        StatusError: The command cannot run, or the request is not one for a WebSocket.
    """
    argv = request.query.getall("command", [])
    options = _parse_options(pod, request, 'container not found ("{}")')
    if not argv:
        raise bad_request("you must specify at least 1 word of a command")
    meta = pod["metadata"]

    async def start() -> Command:
        return await runner.execute(meta["namespace"], meta["name"], options.container, argv, tty=options.tty)

    return await _serve(request, options, start, argv)


async def serve_attach(runner: PodExec, pod: Object, request: web.Request) -> web.StreamResponse:
    """Answer a request for ``attach``.

    Raises:
        StatusError: The container does not run, or the request is not one for a WebSocket.
    """
    meta = pod["metadata"]
    options = _parse_options(pod, request, f"container {{}} not found in pod {meta['name']}_{meta['namespace']}")

    async def start() -> Command:
        return await runner.attach(meta["namespace"], meta["name"], options.container, stdin=options.stdin)

    return await _serve(request, options, start, None)


async def _serve(
    request: web.Request, options: _Options, start: Callable[[], Awaitable[Command]], argv: Sequence[str] | None
) -> web.StreamResponse:
    """Connect the client to a command until it ends or the client leaves.

    Args:
        request: The request.
        options: The request's options.
        start: Returns the command.
        argv: Its words, or None for a container's own command, whose exit code is the pod's concern.
    """
    socket = web.WebSocketResponse(protocols=PROTOCOLS, heartbeat=_HEARTBEAT)
    if not socket.can_prepare(request):
        raise bad_request(_NO_SPDY)
    # A container's own command is connected before the handshake, so that a connected client misses no output. A new
    # command is started after it: clients limit the time of the handshake, and the start may take longer. `prepare`
    # does nothing if it was called before.
    if argv is not None:
        await socket.prepare(request)
    try:
        command = await start()
    except StatusError as error:
        await socket.prepare(request)
        await _send_status(socket, error.status)
        await socket.close()
        return socket
    try:
        await socket.prepare(request)
        await run_until_one_ends(
            _receive_input(socket, command, options.stdin),
            _send_output(socket, command, options.streams, argv),
        )
    finally:
        await command.close()
    # The connection stays open until the client has answered the closing message.
    await socket.close()
    return socket


async def _send_output(
    socket: web.WebSocketResponse, command: Command, streams: Sequence[str], argv: Sequence[str] | None
) -> None:
    """Send what the command writes and, at the end, its exit status."""

    async def send(stream: str) -> None:
        async for data in command.output(stream):
            await socket.send_bytes(bytes((OUTPUTS[stream],)) + data)

    await asyncio.gather(*map(send, streams))
    status: Object = {"metadata": {}, "status": "Success"}
    exit_code = await command.code()
    if exit_code and argv is not None:
        head = "command terminated with non-zero exit code: error executing command"
        message = f"{head} [{' '.join(argv)}], exit code {exit_code}"
        status |= {"status": "Failure", "reason": "NonZeroExitCode", "message": message}
        status["details"] = {"causes": [{"reason": "ExitCode", "message": str(exit_code)}]}
    await _send_status(socket, status)


async def _send_status(socket: web.WebSocketResponse, status: Object) -> None:
    await socket.send_bytes(bytes((ERROR,)) + orjson.dumps(status))


async def _receive_input(socket: web.WebSocketResponse, command: Command, stdin: bool) -> None:
    """Pass the client's messages to the command, until the connection is closed."""
    if not stdin:
        command.end_input()
    async for message in socket:
        data: bytes = message.data.encode() if message.type is WSMsgType.TEXT else message.data
        channel = data[0] if data else ERROR
        data = data[1:]
        if channel == STDIN and stdin:
            await command.write(data)
        elif channel == CLOSE and data[:1] == bytes((STDIN,)):
            command.end_input()
        elif channel == RESIZE:
            _resize(command, data)


def _resize(command: Command, data: bytes) -> None:
    try:
        size = orjson.loads(data)
        width, height = (min(max(int(size[key]), 0), 0xFFFF) for key in ("Width", "Height"))
    except (ValueError, TypeError, KeyError):
        return
    command.resize(width, height)
