"""Frames of SPDY/3.1, as far as ``kubectl port-forward`` uses them. This is a codec without input or output.

Sources: https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["DATA", "FIN", "GOAWAY", "PING", "RST_STREAM", "SYN_STREAM", "Decoder", "Encoder", "Frame", "SpdyError"]

VERSION = 3
DATA = 0
SYN_STREAM = 1
SYN_REPLY = 2
RST_STREAM = 3
PING = 6
GOAWAY = 7
FIN = 1
"""The flag of the last frame that one side sends on a stream."""
MAX_HEADER_BYTES = 1 << 16
_CONTROL = 1 << 31
_HEAD_BYTES = 8

_NAMES = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
)
_MORE_NAMES = "version HTTP/1.1 url public set-cookie keep-alive origin"
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _sized(text: str) -> bytes:
    return len(text).to_bytes(4, "big") + text.encode()


DICTIONARY = b"".join(map(_sized, (*_NAMES.split(), "200 OK", *_MORE_NAMES.split()))) + _TEXT.encode()
"""The dictionary of the compression of headers."""


class SpdyError(Exception):
    """The other side does not speak SPDY/3.1."""


class Frame(NamedTuple):
    """A frame."""

    kind: int
    """:data:`DATA`, :data:`SYN_STREAM` or another number of a control frame."""
    flags: int
    stream: int
    """The number of the stream, or of the ping."""
    data: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})
    """The headers of a SYN_STREAM."""


class Decoder:
    """Finds the frames in what the other side sends."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that these bytes complete; raises SpdyError for anything else."""
        self._buffer += data
        while len(self._buffer) >= _HEAD_BYTES:
            head, sizes = struct.unpack_from(">II", self._buffer)
            end = _HEAD_BYTES + (sizes & 0xFFFFFF)
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEAD_BYTES:end])
            del self._buffer[:end]
            yield self._frame(head, sizes >> 24, body)

    def _frame(self, head: int, flags: int, body: bytes) -> Frame:
        if not head & _CONTROL:
            return Frame(DATA, flags, head, body)
        version = (head & ~_CONTROL) >> 16
        kind = head & 0xFFFF
        if version != VERSION or len(body) < 4:
            raise SpdyError(f"unexpected frame: version {version}, type {kind}, {len(body)} bytes")
        stream = int.from_bytes(body[:4], "big") & 0x7FFFFFFF
        if kind == SYN_STREAM:
            return Frame(kind, flags, stream, headers=self._headers(body[10:]))
        return Frame(kind, flags, stream, body[4:])

    def _headers(self, compressed: bytes) -> dict[str, str]:
        try:
            block = self._inflate.decompress(compressed, MAX_HEADER_BYTES)
            if self._inflate.unconsumed_tail:
                raise SpdyError(f"the headers of a stream have more than {MAX_HEADER_BYTES} bytes")
            (count,) = struct.unpack_from(">I", block)
            texts: list[str] = []
            position = 4
            for _ in range(2 * count):
                (size,) = struct.unpack_from(">I", block, position)
                position += 4 + size
                texts.append(block[position - size : position].decode())
        except (zlib.error, struct.error, UnicodeDecodeError) as error:
            raise SpdyError(f"the headers of a stream cannot be read: {error}") from error
        return dict(zip(texts[::2], texts[1::2], strict=True))


class Encoder:
    """Makes the frames of a server."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def reply(self, stream: int) -> bytes:
        """Return the frame that accepts a stream. It has no headers."""
        block = self._deflate.compress(bytes(4)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _control(SYN_REPLY, stream.to_bytes(4, "big") + block)

    @staticmethod
    def data(stream: int, data: bytes, *, last: bool = False) -> bytes:
        """Return a frame with data."""
        return struct.pack(">II", stream, (FIN if last else 0) << 24 | len(data)) + data

    @staticmethod
    def ping(number: int) -> bytes:
        """Return the answer to a ping."""
        return _control(PING, number.to_bytes(4, "big"))


def _control(kind: int, body: bytes) -> bytes:
    return struct.pack(">II", _CONTROL | VERSION << 16 | kind, len(body)) + body
