"""Frames of SPDY. tests/local/whole uses them with kubectl."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aksgpu.local.api import spdy

NAMES = st.text(max_size=20)


def syn_stream(deflate: zlib._Compress, stream: int, headers: dict[str, str]) -> bytes:
    """Return what a client sends to open a stream."""
    texts = [text.encode() for pair in headers.items() for text in pair]
    block = struct.pack(">I", len(headers)) + b"".join(struct.pack(">I", len(text)) + text for text in texts)
    body = struct.pack(">IIH", stream, 0, 0) + deflate.compress(block) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return struct.pack(">II", 0x80030001, len(body)) + body


def test_the_dictionary_is_the_published_one() -> None:
    assert (len(spdy.DICTIONARY), zlib.adler32(spdy.DICTIONARY)) == (1423, 0xE3C6A7C2)


@given(st.lists(st.dictionaries(NAMES, NAMES, max_size=5), max_size=5), st.integers(1, 50))
def test_frames_in_pieces_of_any_size(opened: list[dict[str, str]], size: int) -> None:
    deflate = zlib.compressobj(zdict=spdy.DICTIONARY)
    sent = b""
    expected: list[spdy.Frame] = []
    for index, headers in enumerate(opened):
        stream = 2 * index + 1
        sent += syn_stream(deflate, stream, headers) + spdy.Encoder.data(stream, b"some data")
        sent += spdy.Encoder.ping(stream) + spdy.Encoder.data(stream, b"", last=True)
        expected += [
            spdy.Frame(spdy.SYN_STREAM, 0, stream, headers=headers),
            spdy.Frame(spdy.DATA, 0, stream, b"some data"),
            spdy.Frame(spdy.PING, 0, stream),
            spdy.Frame(spdy.DATA, spdy.FIN, stream),
        ]
    decoder = spdy.Decoder()
    found = [frame for at in range(0, len(sent), size) for frame in decoder.feed(sent[at : at + size])]
    assert found == expected


def test_a_reply_has_no_headers() -> None:
    encoder = spdy.Encoder()
    inflate = zlib.decompressobj(zdict=spdy.DICTIONARY)
    for stream in (1, 3):
        reply = encoder.reply(stream)
        head, size, number = struct.unpack_from(">III", reply)
        assert (head, size, number) == (0x80030002, len(reply) - 8, stream)
        assert inflate.decompress(reply[12:]) == bytes(4)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02\x00\x01\x00\x00\x00\x04\x00\x00\x00\x01",
        b"\x80\x03\x00\x01\x00\x00\x00\x00",
        b"\x80\x03\x00\x01\x00\x00\x00\x0e\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00none",
    ],
    ids=["SPDY/2", "short", "not compressed"],
)
def test_anything_else(data: bytes) -> None:
    with pytest.raises(spdy.SpdyError):
        list(spdy.Decoder().feed(data))


def test_too_long_headers() -> None:
    deflate = zlib.compressobj(zdict=spdy.DICTIONARY)
    with pytest.raises(spdy.SpdyError, match="more than 65536 bytes"):
        list(spdy.Decoder().feed(syn_stream(deflate, 1, {"port": "1" * 100_000})))
