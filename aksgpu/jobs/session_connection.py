"""The connection to a session's process, through a program that runs in its container."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import Any, NamedTuple

from aksgpu.errors import KubernetesError, Unreachable
from aksgpu.kube.exec_stream import STDERR, ExecStream
from aksgpu.payload import session_frames

__all__ = ["Message", "SessionConnection"]

_PING_SECONDS = 10.0
"""Seconds between two messages that keep the connection open. Load balancers cut silent ones after minutes."""
_SILENCE_SECONDS = 40.0
"""Seconds without an answer after which the connection counts as broken."""
_READ_SECONDS = 5.0
"""Seconds after which a read looks whether the connection was closed."""
_ERROR_BYTES = 2000
"""Bytes of the program's error output that are kept for messages."""


class Message(NamedTuple):
    """A message of the session."""

    header: dict[str, Any]
    body: bytes


class SessionConnection:
    """Sends and receives messages. Threads read, and keep the connection open.

    Args:
        stream: the program in the container.
    """

    def __init__(self, stream: ExecStream) -> None:
        self._stream = stream
        stream.set_write_timeout(_SILENCE_SECONDS)
        self._received: queue.Queue[Message | Unreachable] = queue.Queue()
        self._last = time.monotonic()
        self._closed = threading.Event()
        self._expects_answers = False
        self._sending = threading.Lock()
        self._error_output = b""
        threading.Thread(target=self._read, name="aksgpu-session-reader", daemon=True).start()

    @property
    def is_broken(self) -> bool:
        """Whether the connection was closed or has ended."""
        return self._closed.is_set()

    def keep_open(self) -> None:
        """Send a message every few seconds from now on, and notice when no answer comes."""
        self._last = time.monotonic()
        self._expects_answers = True
        threading.Thread(target=self._ping, name="aksgpu-session-ping", daemon=True).start()

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Send a message.

        Raises:
            Unreachable: the connection is broken.
        """
        if self._closed.is_set():
            raise self._broken("the connection to the session has ended")
        try:
            with self._sending:
                self._stream.write(session_frames.encode(header, body))
        except BaseException:
            # A message that was sent in part, also by an interrupt, makes the connection useless.
            self.close()
            raise

    def receive(self, timeout: float | None = None) -> Message:
        """Return the next message.

        Args:
            timeout: seconds to wait; None means no limit.

        Raises:
            TimeoutError: no message came in time.
            Unreachable: the connection is broken.
        """
        try:
            found = self._received.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(found, Unreachable):
            self._received.put(found)
            raise found
        return found

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        if not self._closed.is_set():
            self._closed.set()
            self._stream.abort()

    def _read(self) -> None:
        decoder = session_frames.Decoder()
        failure = self._broken("the session has closed the connection")
        try:
            while not self._closed.is_set():
                try:
                    piece = self._stream.read(_READ_SECONDS)
                except TimeoutError:
                    if self._expects_answers and time.monotonic() - self._last > _SILENCE_SECONDS:
                        failure = self._broken("the session does not answer")
                        break
                    continue
                if piece is None:
                    break
                self._take(decoder, *piece)
        except KubernetesError as error:
            failure = error if isinstance(error, Unreachable) else self._broken(error.message)
        except Exception as error:  # a connection that is closed while it is read
            failure = self._broken(f"{type(error).__name__}: {error}")
        self.close()
        self._received.put(failure)

    def _take(self, decoder: session_frames.Decoder, channel: int, data: bytes) -> None:
        self._last = time.monotonic()
        if channel == STDERR:
            self._error_output = (self._error_output + data)[-_ERROR_BYTES:]
            return
        for header, body in decoder.feed(data):
            if header["op"] != "pong":
                self._received.put(Message(header, body))

    def _ping(self) -> None:
        while not self._closed.wait(_PING_SECONDS):
            # While a large message is sent, the session shows by itself that it receives.
            if not self._sending.locked():
                with contextlib.suppress(KubernetesError):
                    self.send({"op": "ping"})

    def _broken(self, text: str) -> Unreachable:
        output = self._error_output.decode(errors="replace").strip()
        return Unreachable(f"{text}: {output}" if output else text, hint="Call the session again: it reconnects.")
