"""The three streams of a container's own command, and the clients that are attached to them.

A client that attaches gets what the command writes from then on. The first one also gets what an interactive command
has written before, so that ``kubectl run -i`` loses nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from typing import Any

REPLAY_BYTES = 64 * 1024
"""Output that is kept for the first client. A pipe holds as much."""
STALL_MILLISECONDS = 1000
"""How long a client may not read. Then it is detached, so that it does not stop the command."""


class ContainerStreams:
    """The streams of one command.

    Args:
        spec: the specification, with ``stdin``, ``stdin_once`` and ``tty``.

    Attributes:
        child: the file descriptors for the command.
        outputs: the file descriptors to read, with their names in the log.
        tty: whether the streams are a terminal.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.tty = bool(spec.get("tty"))
        self._interactive = bool(spec.get("stdin"))
        self._once = bool(spec.get("stdin_once"))
        self._replay: dict[bytes, bytes] | None = {} if self._interactive else None
        self._clients: dict[socket.socket, dict[bytes, int]] = {}
        self._stdin = -1
        self.child: tuple[int, int, int]
        self.outputs: dict[int, bytes]
        if self.tty:
            self._open_terminal()
        else:
            self._open_pipes()

    def _open_terminal(self) -> None:
        master, slave = os.openpty()
        self.child = (slave, slave, slave)
        self.outputs = {master: b"stdout"}
        if self._interactive:
            self._stdin = os.dup(master)

    def _open_pipes(self) -> None:
        if self._interactive:
            stdin, self._stdin = os.pipe()
        else:
            stdin = os.open("/dev/null", os.O_RDONLY)
        stdout, stdout_end = os.pipe()
        stderr, stderr_end = os.pipe()
        self.child = (stdin, stdout_end, stderr_end)
        self.outputs = {stdout: b"stdout", stderr: b"stderr"}

    def close_child(self) -> None:
        """Close the command's ends, once the command has them."""
        for fd in set(self.child):
            os.close(fd)

    def attach(self, connection: socket.socket, streams: tuple[int, int], *, stdin: bool) -> None:
        """Attach a client, and send it a file descriptor of the command's input if it wants one.

        Args:
            connection: the connection of the client.
            streams: file descriptors for the command's output and error output.
            stdin: whether the client writes to the command's input.
        """
        given = [self._stdin] if stdin and self._stdin >= 0 else []
        socket.send_fds(connection, [json.dumps({"error": "", "tty": self.tty}).encode()], given)
        if given and self._once and not self.tty:
            os.close(self._stdin)  # The input ends when the client closes it.
            self._stdin = -1
        client = {b"stdout": os.dup(streams[0]), b"stderr": os.dup(streams[1])}
        for fd in client.values():
            os.set_blocking(fd, False)
        self._clients[connection] = client
        replay = self._replay or {}
        self._replay = None
        for stream, data in replay.items():
            self._send(connection, stream, data)

    def feed(self, stream: bytes, data: bytes) -> None:
        """Send output to all clients."""
        if self._replay is not None:
            self._replay[stream] = (self._replay.get(stream, b"") + data)[-REPLAY_BYTES:]
        for connection in list(self._clients):
            self._send(connection, stream, data)

    def _send(self, connection: socket.socket, stream: bytes, data: bytes) -> None:
        fd = self._clients[connection][stream]
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(fd, view) :]
            except BlockingIOError:
                poller = select.poll()
                poller.register(fd, select.POLLOUT)
                if not poller.poll(STALL_MILLISECONDS):
                    self._detach(connection)
                    return
            except OSError:  # the client has left
                self._detach(connection)
                return

    def _detach(self, connection: socket.socket) -> None:
        for fd in self._clients.pop(connection).values():
            os.close(fd)
        connection.close()

    def end(self, code: int) -> None:
        """Send the clients the end of the output and the exit code."""
        for connection in list(self._clients):
            with contextlib.suppress(OSError):
                connection.send(json.dumps({"code": code}).encode())
            self._detach(connection)
