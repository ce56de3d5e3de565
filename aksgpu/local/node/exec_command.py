"""A command beside a container's own, for ``kubectl exec``: this end of it. The other is in the container's shim."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
import termios
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from aksgpu.local.images.device_plugin import short

DRAIN_SECONDS = 1.0
"""How long output is waited for after the command has ended: what it left behind may keep the pipe open."""


class ExecError(Exception):
    """The command could not be started."""


async def ready(watch: Callable[..., Any], forget: Callable[[int], Any], fd: int) -> None:
    """Wait until a descriptor can be read or written."""
    done = asyncio.Event()
    watch(fd, done.set)
    try:
        await done.wait()
    finally:
        forget(fd)


class Execution:
    """A running command; made by :func:`execute`."""

    def __init__(self, connection: socket.socket, stdin: int, outputs: dict[str, int], tty: bool) -> None:
        self._connection = connection
        self._stdin = stdin
        self._outputs = outputs
        self._tty = tty
        self._open = [stdin, *outputs.values()]
        self._code = asyncio.get_running_loop().create_task(self._ended())

    async def _ended(self) -> int:
        answer = await _receive(self._connection)
        return int(answer.get("code", 137))  # no answer: the container has ended, and all in it was killed

    async def output(self, stream: str) -> AsyncIterator[bytes]:
        """What it writes to ``stdout`` or ``stderr``, until its end; a terminal has ``stdout`` alone."""
        fd = self._outputs.get(stream, -1)
        loop = asyncio.get_running_loop()
        while fd in self._open:
            try:
                data = os.read(fd, 65536)
            except BlockingIOError:
                over = self._code.done()
                try:
                    async with asyncio.timeout(DRAIN_SECONDS):
                        await ready(loop.add_reader, loop.remove_reader, fd)
                except TimeoutError:
                    if over:
                        return
                continue
            except OSError:  # nobody has the terminal open any more
                return
            if not data:
                return
            yield data

    async def write(self, data: bytes) -> None:
        """Give it input; what it does not read any more is dropped."""
        view = memoryview(data)
        loop = asyncio.get_running_loop()
        while view and self._stdin in self._open:
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                await ready(loop.add_writer, loop.remove_writer, self._stdin)
            except OSError:
                return

    def end_input(self) -> None:
        """There is no more input; a terminal is told by its own control character."""
        if not self._tty and self._stdin in self._open:
            self._open.remove(self._stdin)
            os.close(self._stdin)

    def resize(self, width: int, height: int) -> None:
        """The size of the terminal, in characters."""
        if self._tty:
            fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    async def code(self) -> int:
        """Its exit code, once it has ended."""
        return await asyncio.shield(self._code)

    async def close(self) -> None:
        """Let go of it: a terminal hangs up; what runs without one goes on until it ends or its container does."""
        self._code.cancel()
        await asyncio.wait({self._code})
        self._connection.close()
        for fd in set(self._open):
            os.close(fd)
        self._open.clear()


async def _receive(connection: socket.socket) -> dict[str, Any]:
    with contextlib.suppress(ConnectionError):
        data = await asyncio.get_running_loop().sock_recv(connection, 1 << 16)
        if data:
            return dict(json.loads(data))
    return {}


async def execute(directory: Path, argv: Sequence[str], *, tty: bool) -> Execution:
    """Run a command in a container.

    Args:
        directory: of the container's present run.
        argv: program and arguments.
        tty: whether it gets a terminal.

    Raises:
        ExecError: it did not start.
    """
    ours, theirs = _terminal() if tty else _pipes()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setblocking(False)
    try:
        with short(directory / "exec.sock") as name:
            connection.connect(name)
        request = {"argv": list(argv), "env": {"TERM": "xterm"} if tty else {}, "tty": tty}
        socket.send_fds(connection, [json.dumps(request).encode()], theirs)
        answer = await _receive(connection)
        if error := answer.get("error", "the container has ended"):
            raise ExecError(error)
    except BaseException as error:
        connection.close()
        for fd in set(ours):
            os.close(fd)
        if isinstance(error, OSError):
            raise ExecError(str(error.strerror)) from error
        raise
    finally:
        for fd in set(theirs):
            os.close(fd)
    outputs = {"stdout": ours[1]} if tty else {"stdout": ours[1], "stderr": ours[2]}
    return Execution(connection, ours[0], outputs, tty)


def _terminal() -> tuple[list[int], list[int]]:
    master, slave = os.openpty()
    os.set_blocking(master, False)
    return [os.dup(master), master], [slave] * 3


def _pipes() -> tuple[list[int], list[int]]:
    (read_in, stdin), (stdout, write_out), (stderr, write_err) = os.pipe(), os.pipe(), os.pipe()
    for fd in (stdin, stdout, stderr):
        os.set_blocking(fd, False)
    return [stdin, stdout, stderr], [read_in, write_out, write_err]
