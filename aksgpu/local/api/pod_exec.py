"""The ``exec`` subresource: a command in a running container, over a WebSocket.

Kubernetes' remote command protocol, versions 5 and 4: each message is a channel's number and data. The channels are
standard input (0), output (1) and error output (2), the final Status (3) and the terminal's size (4); version 5 adds
the end of a channel (255). The older one over SPDY, which kubectl up to 1.29 speaks unless told otherwise, is not
served.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import orjson
from aiohttp import WSMsgType, web

from aksgpu.local.api.pod_logs import container_status, select_container
from aksgpu.local.api.request_bodies import query_flag
from aksgpu.local.selectors import get_path
from aksgpu.local.status_error import StatusError, bad_request

Object = dict[str, Any]
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN = 0
ERROR = 3
RESIZE = 4
CLOSE = 255
OUTPUTS = {"stdout": 1, "stderr": 2}
_NO_SPDY = (
    "Upgrade request required: exec is served over WebSockets alone. kubectl speaks them from 1.30 on, and 1.29 with "
    "KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true"
)


class Command(Protocol):
    """A running command."""

    def output(self, stream: str) -> AsyncIterator[bytes]:
        """What it writes to ``stdout`` or ``stderr``, until it ends."""

    async def write(self, data: bytes) -> None:
        """Give it input."""

    def end_input(self) -> None:
        """There is no more input."""

    def resize(self, width: int, height: int) -> None:
        """The size of its terminal, in characters."""

    async def code(self) -> int:
        """Its exit code, once it has ended."""

    async def close(self) -> None:
        """Let go of it."""


class PodExec(Protocol):
    """Where commands run: the node agent."""

    async def execute(self, namespace: str, pod: str, container: str, argv: Sequence[str], *, tty: bool) -> Command:
        """Start a command; raises StatusError when that cannot be done."""


async def serve_exec(runner: PodExec, pod: Object, request: web.Request) -> web.StreamResponse:
    """Answer a request for ``exec``.

    Raises:
        StatusError: nothing can be run there, or the request is no WebSocket's.
    """
    query = request.query
    name = pod["metadata"]["name"]
    container = select_container(pod, query.get("container", ""))
    argv = query.getall("command", [])
    tty = query_flag(query, "tty")
    stdin = query_flag(query, "stdin")
    wanted = [stream for stream in OUTPUTS if query_flag(query, stream) and not (tty and stream == "stderr")]
    if not pod["spec"].get("nodeName"):
        raise bad_request(f"pod {name} does not have a host assigned")
    if not argv:
        raise bad_request("you must specify at least 1 word of a command")
    if not wanted and not stdin:
        raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
    if get_path(container_status(pod, container), "state.running") is None:
        message = f'Internal error occurred: unable to upgrade connection: container not found ("{container}")'
        raise StatusError(500, "InternalError", message)
    socket = web.WebSocketResponse(protocols=PROTOCOLS, heartbeat=60)
    if not socket.can_prepare(request):
        raise bad_request(_NO_SPDY)
    await socket.prepare(request)
    try:
        command = await runner.execute(pod["metadata"]["namespace"], name, container, argv, tty=tty)
    except StatusError as error:
        await _send_status(socket, error.status)
        return socket
    ways = _receive_input(socket, command, stdin), _send_output(socket, command, wanted, argv)
    parts = [asyncio.create_task(each) for each in ways]
    try:
        await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for part in parts:
            part.cancel()
        # What fails here fails as the client leaves: nobody is there to be told.
        await asyncio.gather(*parts, return_exceptions=True)
        await command.close()
    return socket


async def _send_output(
    socket: web.WebSocketResponse, command: Command, streams: Sequence[str], argv: Sequence[str]
) -> None:
    """Pass on what the command writes and, last, how it ended."""

    async def send(stream: str) -> None:
        async for data in command.output(stream):
            await socket.send_bytes(bytes((OUTPUTS[stream],)) + data)

    await asyncio.gather(*map(send, streams))
    status: Object = {"metadata": {}, "status": "Success"}
    if exit_code := await command.code():
        head = "command terminated with non-zero exit code: error executing command"
        message = f"{head} [{' '.join(argv)}], exit code {exit_code}"
        status |= {"status": "Failure", "reason": "NonZeroExitCode", "message": message}
        status["details"] = {"causes": [{"reason": "ExitCode", "message": str(exit_code)}]}
    await _send_status(socket, status)


async def _send_status(socket: web.WebSocketResponse, status: Object) -> None:
    await socket.send_bytes(bytes((ERROR,)) + orjson.dumps(status))
    await socket.close()


async def _receive_input(socket: web.WebSocketResponse, command: Command, stdin: bool) -> None:
    """Pass on what the client sends, until it closes the connection."""
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
