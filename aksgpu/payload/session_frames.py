"""The messages between a session's process in the pod and its client.

Client and pod use the same module. In the pod it is the file ``aksgpu_frames.py``, so it uses the standard library
only, and works with Python 3.8.

A message is a header, which is a JSON object, and a body of bytes. Its field ``op`` says what it is.

The client sends:

- ``call``: run what the body holds. ``id`` is new for each call; a call whose id is known is not run again.
- ``attach``: send the output of call ``id`` from ``offset`` on, and its outcome.
- ``interrupt``: raise KeyboardInterrupt in call ``id``.
- ``ping``: answer with ``pong``.
- ``close``: end the session.

The session sends:

- ``hello``: its ``instance``, and its Python.
- ``output``: records of the call's output that begin at ``offset``; the body is a part of their text.
- ``outcome``: the call has ended. ``outcome`` and the body are those of :mod:`aksgpu.payload.records`.
- ``unknown``: the session does not know call ``id``.
- ``pong``, also from time to time while a large message arrives.

A record of the output is the number of the stream (1, 2, or 3 for objects to display), the length, and the bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

__all__ = ["DISPLAY", "Decoder", "RecordDecoder", "encode", "record"]

DISPLAY = 3
"""Stream of objects to display: each record is a JSON object of representations by MIME type."""
_HEAD = struct.Struct(">IQ")
"""Bytes of the header and bytes of the body."""
_RECORD = struct.Struct(">BI")
"""Stream and number of bytes."""


def encode(header: dict[str, Any], body: bytes = b"") -> bytes:
    """Return a message as bytes."""
    text = json.dumps(header).encode()
    return b"".join((_HEAD.pack(len(text), len(body)), text, body))


def record(stream: int, data: bytes) -> bytes:
    """Return a record of output as bytes."""
    return _RECORD.pack(stream, len(data)) + data


class Decoder:
    """Reads messages from pieces of bytes."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Yield the header and the body of each message that is complete with these bytes."""
        self._rest += data
        while len(self._rest) >= _HEAD.size:
            header_size, body_size = _HEAD.unpack_from(self._rest)
            start = _HEAD.size + header_size
            end = start + body_size
            if len(self._rest) < end:
                return
            header = json.loads(bytes(self._rest[_HEAD.size : start]))
            body = bytes(self._rest[start:end])
            del self._rest[:end]
            yield header, body


class RecordDecoder:
    """Reads records of output from pieces of bytes."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the stream and the bytes of each record that is complete with these bytes."""
        self._rest += data
        while len(self._rest) >= _RECORD.size:
            stream, size = _RECORD.unpack_from(self._rest)
            end = _RECORD.size + size
            if len(self._rest) < end:
                return
            content = bytes(self._rest[_RECORD.size : end])
            del self._rest[:end]
            yield stream, content
