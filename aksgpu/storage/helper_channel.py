"""The client's end of a connection to the helper program: frames over the streams of ``Kube.exec``."""

from __future__ import annotations

import contextlib
import time
from typing import Any, NoReturn, Protocol, Self

from aksgpu.errors import NotFound, StorageError, StorageFull, Unreachable
from aksgpu.kube.exec_stream import STDOUT
from aksgpu.kube.status_errors import UNREACHABLE_HINT
from aksgpu.storage.helper_program import Header, pack, split
from aksgpu.waiting import Timer

__all__ = ["Channel", "ConnectionCut", "Streams"]

SILENCE_SECONDS = 60.0
"""Seconds without a sign of life after which the connection counts as broken. The helper sends one every 5 s."""
_PING_SECONDS = 10.0
"""Seconds without a frame to the helper after which the client shows that it is there."""
_SENT_TOGETHER = 64 * 1024
"""Bytes of frames that are sent together."""
_LEAST_WAIT = 0.01
"""Seconds that a read waits at least."""
_STDERR_BYTES = 2000
"""Bytes of the error output that an error shows."""


class ConnectionCut(Unreachable):
    """The connection to the helper program broke, or the program ended early. The transfer can be resumed."""


class Streams(Protocol):
    """What a channel needs of :class:`~aksgpu.kube.exec_stream.ExecStream`."""

    def write(self, data: bytes) -> None:
        """Send input."""
        ...

    def read(self, timeout: float | None = None) -> tuple[int, bytes] | None:
        """Return the next piece of output."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Channel:
    """A connection to the helper program. A context manager.

    Attributes:
        free: bytes of free space in the claim when the connection was made.
    """

    def __init__(self, program: Streams, claim: str, timer: Timer | None = None) -> None:
        self._program = program
        self._claim = claim
        self._timer = timer or Timer(None)
        self._data = bytearray()
        self._stderr = b""
        self._to_send = bytearray()
        self._sent_at = time.monotonic()
        hello, _ = self.receive()
        self.free = int(hello["free"])

    def send(self, header: Header, body: bytes = b"") -> None:
        """Send a frame. Small frames are sent together, before the next one is received.

        Raises:
            ConnectionCut: the connection is broken.
        """
        self._to_send += pack(header, body)
        if len(self._to_send) >= _SENT_TOGETHER:
            self._flush()

    def _flush(self) -> None:
        data = bytes(self._to_send)
        if not data:
            return
        self._to_send.clear()
        try:
            self._program.write(data)
        except Unreachable as broken:
            self._raise_refusal()
            raise ConnectionCut(broken.message, hint=broken.hint) from broken
        self._sent_at = time.monotonic()

    def _raise_refusal(self) -> None:
        """Raise the error that the helper sent before it ended, if it did."""
        with contextlib.suppress(ConnectionCut, TimeoutError):
            while self._read_more():
                pass
        frame = self._next_frame()
        while frame is not None:
            if frame[0]["t"] == "error":
                self._fail(frame[0])
            frame = self._next_frame()

    def receive(self) -> tuple[Header, bytes]:
        """Return the next frame.

        Raises:
            ConnectionCut: the connection is broken, or the helper is silent.
            StorageError: the helper could not do what was asked.
        """
        silent_since = time.monotonic()
        self._flush()
        while True:
            frame = self._next_frame()
            if frame is not None:
                header, body = frame
                if header["t"] == "error":
                    self._fail(header)
                if header["t"] != "alive":
                    return header, body
            if time.monotonic() - self._sent_at > _PING_SECONDS:
                self.send({"t": "ping"})
                self._flush()
            if frame is None and self._read_more():
                silent_since = time.monotonic()
            if self._timer.left <= 0:
                raise ConnectionCut("the time was up")
            if time.monotonic() - silent_since > SILENCE_SECONDS:
                raise ConnectionCut(
                    f"claim {self._claim}: the helper pod was silent for {SILENCE_SECONDS:g} s", hint=UNREACHABLE_HINT
                )

    def _next_frame(self) -> tuple[Header, bytes] | None:
        try:
            return split(self._data)
        except ValueError as error:
            raise StorageError(
                f"claim {self._claim}: the helper pod sent something that this library does not understand: {error}",
                hint="Use the default image, which runs Python and prints nothing else.",
            ) from None

    def _read_more(self) -> bool:
        """Read output for some seconds, and return whether there was some."""
        try:
            piece = self._program.read(min(_PING_SECONDS, max(self._timer.left, _LEAST_WAIT)))
        except TimeoutError:
            return False
        except (Unreachable, NotFound) as broken:
            raise ConnectionCut(broken.message, hint=broken.hint) from broken
        if piece is None:
            message = f"claim {self._claim}: the program in the helper pod ended early"
            words = self._stderr.decode(errors="replace").strip()
            if words:
                raise StorageError(f"{message}: {words}", hint="Use an image with Python 3.8 or newer.")
            raise ConnectionCut(message)
        stream, data = piece
        if stream == STDOUT:
            self._data += data
        else:
            self._stderr = (self._stderr + data)[-_STDERR_BYTES:]
        return True

    def _fail(self, header: Header) -> NoReturn:
        """Raise the error that the helper reports."""
        text = str(header["text"])
        kind = header["kind"]
        message = f"claim {self._claim}: {text}"
        if kind == "later":
            raise ConnectionCut(message)
        if kind == "full":
            raise full(self._claim, text)
        if kind == "missing":
            raise NotFound(message, hint=f"storage.ls(aks, {self._claim!r}) lists what is there.")
        raise StorageError(message, hint=_HINTS.get(kind, ""))

    def close(self) -> None:
        """Close the connection. The helper program then ends."""
        self._program.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_HINTS: dict[str, Any] = {
    "denied": "The claim's file system does not allow it. A Job that runs as the owner of the files can change them.",
    "name": "Rename it, or choose another path in the claim.",
    "busy": "Wait until the other transfer has ended.",
    "url": "Check the URL. A signature (SAS) may have expired.",
    "checksum": "Check `sha256` and the URL.",
}
"""What to do after an error of this kind."""


def full(claim: str, text: str) -> StorageFull:
    """Return the error for a claim without space."""
    return StorageFull(
        f"claim {claim} has too little space left: {text}",
        hint='Delete files in a Job, or use a larger claim, such as storage.create(aks, "data2", size_gb=256).',
    )
