"""A program that runs in a container, with its input and output (``pods/exec``)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from aksgpu.errors import KubernetesError, Unreachable
from aksgpu.kube.status_errors import UNREACHABLE_HINT, from_status
from aksgpu.kube.websockets import ChannelSocket

__all__ = ["PROTOCOLS", "STDERR", "STDOUT", "Completed", "ExecStream"]

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
"""Subprotocols, the better first. Only version 5 (Kubernetes 1.30) can end the program's input."""
STDIN = 0
STDOUT = 1
STDERR = 2
_STATUS = 3
_CLOSE = 255
_LONGEST_MESSAGE = 32 * 1024
"""Bytes of input that are sent in one message."""


@dataclass(frozen=True)
class Completed:
    """A program that has ended.

    Attributes:
        returncode: its exit code.
        stdout: its output.
        stderr: its error output.
    """

    returncode: int
    stdout: bytes
    stderr: bytes


class ExecStream:
    """A program that runs in a container. Returned by ``Kube.exec``; a context manager that closes the connection.

    Closing the connection does not end the program: a program that should end with the connection reads its input.

    Attributes:
        returncode: the exit code once the program has ended; None before.
    """

    def __init__(self, socket: ChannelSocket, where: str) -> None:
        self._socket = socket
        self._where = where
        self._rest = b""
        self.returncode: int | None = None

    @property
    def can_end_input(self) -> bool:
        """Whether :meth:`end_input` works."""
        return self._socket.protocol == PROTOCOLS[0]

    def set_write_timeout(self, timeout: float) -> None:
        """Set how long :meth:`write` may wait without progress, in seconds, while another thread reads."""
        self._socket.set_send_timeout(timeout)

    def write(self, data: bytes) -> None:
        """Send input to the program.

        Raises:
            Unreachable: the connection is broken.
        """
        for start in range(0, len(data), _LONGEST_MESSAGE):
            self._socket.send(STDIN, data[start : start + _LONGEST_MESSAGE])

    def end_input(self) -> None:
        """End the program's input, so that it reads an end of file.

        Raises:
            KubernetesError: the API server is older than Kubernetes 1.30 and cannot do this.
            Unreachable: the connection is broken.
        """
        if not self.can_end_input:
            raise KubernetesError(f"{self._where}: this API server cannot end a program's input (Kubernetes < 1.30)")
        self._socket.send(_CLOSE, bytes([STDIN]))

    def read(self, timeout: float | None = None) -> tuple[int, bytes] | None:
        """Return the next piece of output: its stream (1 or 2) and its bytes. None once the program has ended.

        Args:
            timeout: seconds to wait; None means no limit.

        Raises:
            TimeoutError: no output came in time. The program may still run.
            KubernetesError: the program could not be started, or the container is gone.
            Unreachable: the connection ended before the program did, as far as is known.
        """
        ends = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left = None if ends is None else max(ends - time.monotonic(), 0.001)
            message = self._socket.receive(left)
            if message is None:
                text = f"{self._where}: the connection ended before the program did"
                raise Unreachable(text, hint=UNREACHABLE_HINT)
            channel, data = message
            if channel == _STATUS:
                self.returncode = _exit_code(data, self._where)
            elif data:
                return channel, data
        return None

    def lines(self, timeout: float | None = None) -> Iterator[bytes]:
        """Yield the lines of the program's output without their newlines; the error output is left out.

        Args:
            timeout: seconds to wait for each line; None means no limit.

        Raises:
            TimeoutError: no line came in time.
            Unreachable: as for :meth:`read`.
        """
        while True:
            piece = self.read(timeout)
            if piece is None:
                break
            channel, data = piece
            if channel == STDOUT:
                *whole, self._rest = (self._rest + data).split(b"\n")
                yield from whole
        if self._rest:
            last = self._rest
            self._rest = b""
            yield last

    def communicate(self, data: bytes | None = None, timeout: float | None = None) -> Completed:
        """Send all input, and wait until the program ends.

        Args:
            data: the input, after which it ends; None sends nothing and leaves it open.
            timeout: seconds that the program may take; None means no limit.

        Raises:
            TimeoutError: the program did not end in time. It may still run.
        """
        ends = None if timeout is None else time.monotonic() + timeout
        if data is not None:
            self.write(data)
            self.end_input()
        output: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
        while True:
            left = None if ends is None else max(ends - time.monotonic(), 0.001)
            piece = self.read(left)
            if piece is None:
                break
            channel, content = piece
            output.setdefault(channel, []).append(content)
        return Completed(int(self.returncode or 0), b"".join(output[STDOUT]), b"".join(output[STDERR]))

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        self._socket.close()

    def abort(self) -> None:
        """End the connection at once, also while another thread reads or writes. A second call does nothing."""
        self._socket.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _exit_code(data: bytes, where: str) -> int:
    """Return the exit code in the Status object that ends a program.

    Raises:
        KubernetesError: the program was not run.
    """
    try:
        status: dict[str, Any] = json.loads(data)
    except ValueError:
        raise KubernetesError(f"{where}: the end of the program is not a Status object: {data[:200]!r}") from None
    if status.get("status") == "Success":
        return 0
    if status.get("reason") == "NonZeroExitCode":
        for cause in (status.get("details") or {}).get("causes") or ():
            if cause.get("reason") == "ExitCode":
                return int(cause["message"])
    raise from_status({**status, "message": f"{where}: {status.get('message') or 'the program was not run'}"})
