"""A TLS socket that one thread reads while another writes.

OpenSSL allows only one call at a time on a connection. If a thread reads and finds nothing while another thread's write
ends, the read may report the end of the connection.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["LockedSocket"]

T = TypeVar("T")


class LockedSocket:
    """Reads and writes in turns, and waits without keeping the other thread from its turn.

    All other attributes are those of the socket.

    Args:
        connection: the socket.
    """

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._socket = connection
        self._timeout = connection.gettimeout()
        self._send_timeout: float | None = None
        self._turn = threading.Lock()
        connection.setblocking(False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def gettimeout(self) -> float | None:
        """Return how long a call may wait, in seconds; None means no limit."""
        return self._timeout

    def settimeout(self, timeout: float | None) -> None:
        """Set how long a call may wait, in seconds; None means no limit."""
        self._timeout = timeout

    def set_send_timeout(self, timeout: float) -> None:
        """Set how long :meth:`send` may wait, in seconds, however long other calls may wait."""
        self._send_timeout = timeout

    def recv(self, size: int) -> bytes:
        """Return received bytes; none at the end of the connection.

        Raises:
            TimeoutError: nothing came in time.
            OSError: the connection is broken.
        """
        return self._call(lambda: self._socket.recv(size), self._timeout)

    def send(self, data: bytes) -> int:
        """Send some of the bytes, and return how many.

        Raises:
            TimeoutError: nothing could be sent in time.
            OSError: the connection is broken.
        """
        timeout = self._timeout if self._send_timeout is None else self._send_timeout
        return self._call(lambda: self._socket.send(data), timeout)

    def shutdown(self, how: int) -> None:
        """Shut down the connection; a call that waits ends.

        The method of :class:`ssl.SSLSocket` would also end TLS, and a waiting read would then return encrypted bytes.

        Raises:
            OSError: the connection is broken.
        """
        socket.socket.shutdown(self._socket, how)

    def _call(self, operation: Callable[[], T], timeout: float | None) -> T:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._turn:
                try:
                    return operation()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as waiting:
                    if timeout == 0:
                        raise
                    is_write = isinstance(waiting, ssl.SSLWantWriteError)
            self._wait(end, is_write=is_write)

    def _wait(self, end: float | None, *, is_write: bool) -> None:
        """Wait until the socket is ready; raises TimeoutError after the time ``end``."""
        from urllib3.util import wait_for_read, wait_for_write

        wait = wait_for_write if is_write else wait_for_read
        remaining = None if end is None else max(end - time.monotonic(), 0)
        try:
            is_ready = wait(self._socket, remaining)
        except ValueError as closed:
            raise OSError(errno.EBADF, "the socket was closed") from closed
        if not is_ready:
            raise TimeoutError("timed out")
