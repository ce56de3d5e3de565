"""Additional commands in a container, for ``kubectl exec``, and connections to its own one, for ``kubectl attach``.

The container's shim starts the commands and copies what its own one writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
import termios
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from aksgpu.local.images.device_plugin import short_path

DRAIN_SECONDS = 1.0
"""Time for which output is read after the command has ended. Its child processes may keep the pipe open."""
CHUNK_BYTES = 64 * 1024


_ENDED = "the container has ended"


class ExecError(Exception):
    """The command could not be started."""


async def wait_for_descriptor(add: Callable[..., Any], remove: Callable[[int], Any], fd: int) -> None:
    """Wait until a file descriptor can be read or written.

    Args:
        add: the event loop's ``add_reader`` or ``add_writer``.
        remove: the event loop's ``remove_reader`` or ``remove_writer``.
        fd: the file descriptor.
    """
    ready = asyncio.Event()
    add(fd, ready.set)
    try:
        await ready.wait()
    finally:
        remove(fd)


class Execution:
    """A running command. :func:`execute` starts it, and :func:`attach` connects to a container's own one."""

    def __init__(self, connection: socket.socket, stdin: int, outputs: dict[str, int], tty: bool) -> None:
        self._connection = connection
        self._stdin = stdin
        self._outputs = outputs
        self._tty = tty
        self._open = [fd for fd in (stdin, *outputs.values()) if fd >= 0]
        self._code = asyncio.get_running_loop().create_task(self._receive_code())

    async def _receive_code(self) -> int:
        message = await _receive(self._connection)
        # Without a message, the container has ended, so the command was killed.
        return int(message.get("code", 137))

    async def output(self, stream: str) -> AsyncIterator[bytes]:
        """Yield the output of ``stdout`` or ``stderr`` until the command ends. A terminal has only ``stdout``."""
        fd = self._outputs.get(stream, -1)
        loop = asyncio.get_running_loop()
        while fd in self._open:
            try:
                data = os.read(fd, CHUNK_BYTES)
            except BlockingIOError:
                ended = self._code.done()
                try:
                    async with asyncio.timeout(DRAIN_SECONDS):
                        await wait_for_descriptor(loop.add_reader, loop.remove_reader, fd)
                except TimeoutError:
                    if ended:
                        return
                continue
            except OSError:  # no process has the terminal open
                return
            if not data:
                return
            yield data

    async def write(self, data: bytes) -> None:
        """Write to the command's standard input. Input that it does not read is dropped."""
        view = memoryview(data)
        loop = asyncio.get_running_loop()
        while view and self._stdin in self._open:
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                await wait_for_descriptor(loop.add_writer, loop.remove_writer, self._stdin)
            except OSError:
                return

    def end_input(self) -> None:
        """Close the standard input. A terminal is not closed, because it has a control character for that."""
        if not self._tty and self._stdin in self._open:
            self._open.remove(self._stdin)
            os.close(self._stdin)

    def resize(self, width: int, height: int) -> None:
        """Set the size of the terminal in characters."""
        if self._tty and self._stdin in self._open:
            fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    async def code(self) -> int:
        """Wait until the command ends, and return its exit code."""
        return await asyncio.shield(self._code)

    async def close(self) -> None:
        """Disconnect from the command.

        A command with a terminal receives a hangup. Other commands keep running until they or their container end.
        """
        self._code.cancel()
        await asyncio.wait({self._code})
        self._connection.close()
        for fd in set(self._open):
            os.close(fd)
        self._open.clear()


async def _receive(connection: socket.socket) -> dict[str, Any]:
    with contextlib.suppress(ConnectionError):
        data = await asyncio.get_running_loop().sock_recv(connection, CHUNK_BYTES)
        if data:
            return dict(json.loads(data))
    return {}


async def execute(directory: Path, argv: Sequence[str], *, tty: bool) -> Execution:
    """Run a command in a container.

    Args:
        directory: the directory of the container's current run.
        argv: the program and its arguments.
        tty: whether it gets a terminal.

    Raises:
        ExecError: the command could not be started.
    """
    own_fds, command_fds = _open_terminal() if tty else _open_pipes()
    request = {"argv": list(argv), "env": {"TERM": "xterm"} if tty else {}, "tty": tty}
    with _closing_on_error(own_fds):
        connection, _, _ = await _request(directory, request, command_fds)
    outputs = {"stdout": own_fds[1]}
    if not tty:
        outputs["stderr"] = own_fds[2]
    return Execution(connection, own_fds[0], outputs, tty)


async def attach(directory: Path, *, stdin: bool) -> Execution:
    """Connect to a container's own command.

    Args:
        directory: the directory of the container's current run.
        stdin: whether to write to its input. A container without ``stdin`` has none.

    Raises:
        ExecError: the container has ended.
    """
    own_fds, command_fds = _open_pipes()
    os.close(own_fds.pop(0))
    with _closing_on_error(own_fds):
        connection, answer, received = await _request(directory, {"attach": True, "stdin": stdin}, command_fds)
    own_stdin = received[0] if received else -1
    if received:
        os.set_blocking(own_stdin, False)
    return Execution(connection, own_stdin, {"stdout": own_fds[0], "stderr": own_fds[1]}, bool(answer.get("tty")))


@contextlib.contextmanager
def _closing_on_error(fds: list[int]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for fd in set(fds):
            os.close(fd)
        raise


async def _request(
    directory: Path, request: dict[str, Any], fds: list[int]
) -> tuple[socket.socket, dict[str, Any], list[int]]:
    """Send a request with file descriptors, which are closed here, to a container's shim.

    Returns:
        The connection, the answer, and the file descriptors that came with it.

    Raises:
        ExecError: the shim refuses the request, or does not run any more.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setblocking(False)
    received: list[int] = []
    loop = asyncio.get_running_loop()
    try:
        with short_path(directory / "exec.sock") as path:
            connection.connect(path)
        socket.send_fds(connection, [json.dumps(request).encode()], fds)
        await wait_for_descriptor(loop.add_reader, loop.remove_reader, connection.fileno())
        data, received, _, _ = socket.recv_fds(connection, CHUNK_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        response: dict[str, Any] = dict(json.loads(data)) if data else {}
        error_text = response.get("error", _ENDED)
        if error_text:
            raise ExecError(error_text)
    except BaseException as error:
        connection.close()
        for fd in received:
            os.close(fd)
        if isinstance(error, ConnectionError | FileNotFoundError):  # nobody listens any more
            raise ExecError(_ENDED) from error
        if isinstance(error, OSError):
            raise ExecError(str(error.strerror)) from error
        raise
    finally:
        for fd in set(fds):
            os.close(fd)
    return connection, response, received


def _open_terminal() -> tuple[list[int], list[int]]:
    """Return the file descriptors for this process (stdin and stdout), and the three for the command."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    return [os.dup(master), master], [slave, slave, slave]


def _open_pipes() -> tuple[list[int], list[int]]:
    """Return the file descriptors for this process (stdin, stdout and stderr), and the three for the command."""
    command_stdin, stdin = os.pipe()
    stdout, command_stdout = os.pipe()
    stderr, command_stderr = os.pipe()
    for fd in (stdin, stdout, stderr):
        os.set_blocking(fd, False)
    return [stdin, stdout, stderr], [command_stdin, command_stdout, command_stderr]
