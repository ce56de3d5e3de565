"""Outcome records: what a pod's runner reports about the run of a function, and how it is written as text.

The client and the runner use the same module. In the pod it is the file ``aksgpu_records.py`` beside ``runner.py``, so
it uses the standard library only, and works with Python 3.8.

A record has a header, which is a JSON object, and a body of bytes. As text it is ``aksgpu1.HEADER.MAC.BODY``, each part
in base64. The MAC is an HMAC-SHA256 of the header and the body. A record that is too long for a termination message is
written to a log in frames, one a line.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

__all__ = [
    "LARGEST_FRAMED_BODY",
    "LARGEST_MESSAGE",
    "MARK",
    "NO_OUTPUT",
    "NO_PACKAGES",
    "PAYLOAD_DAMAGED",
    "PYTHON_DIFFERS",
    "PYTHON_MISSING",
    "STOPPED",
    "TIMED_OUT",
    "VANISHED",
    "BadRecord",
    "Record",
    "decode",
    "encode",
    "from_file",
    "from_frames",
    "message",
    "output_file",
    "readable",
    "to_file",
    "to_frames",
]

MARK = "aksgpu1"
"""The first word of a record's text: the name of the format and its version."""
LARGEST_MESSAGE = 4000
"""Bytes of a termination message. Kubernetes cuts a message after 4,096 bytes without a warning."""
LARGEST_SUMMARY = 400
"""Bytes of the readable line before the record in a termination message."""
LARGEST_FRAMED_BODY = 4 * 1024 * 1024
"""Bytes of a compressed body that is written to the log in frames. Kubelets rotate a log at 10 MiB by default."""
CUT = b"..."
"""The end of a line that was cut."""
FRAME_CHARACTERS = 8000
"""Characters of the record in one frame. Container runtimes split lines of more than 16 KiB."""

PYTHON_DIFFERS = 213
"""Exit code: the pod's Python has another minor version than the one that pickled the function."""
NO_PACKAGES = 214
"""Exit code: the packages could not be installed."""
TIMED_OUT = 215
"""Exit code: the program ran longer than its limit."""
PAYLOAD_DAMAGED = 216
"""Exit code: the payload is incomplete, or the function could not be loaded from it."""
VANISHED = 217
"""Exit code: the function's process ended with exit code 0 before the function returned."""
PYTHON_MISSING = 218
"""Exit code: the image has no Python."""
STOPPED = 219
"""Exit code: the program was stopped by ``job.cancel()``."""

NO_OUTPUT = 220
"""Exit code: the claim for output cannot be written."""


class BadRecord(ValueError):
    """A text is not a complete record, or its MAC is wrong."""


class Record(NamedTuple):
    """An outcome.

    Attributes:
        header: ``kind`` says what the body is: ``value``, ``exception``, ``exit``, ``refused``, ``died`` and others.
        body: its bytes, not compressed. Empty in a record whose body is elsewhere; ``header["where"]`` says where.
    """

    header: dict[str, Any]
    body: bytes


def encode(header: dict[str, Any], body: bytes, key: bytes) -> str:
    """Return the text of a record. The body is compressed if that makes it shorter."""
    stored, encoding = compress(body)
    header_bytes = json.dumps({**header, "encoding": encoding}, sort_keys=True, separators=(",", ":")).encode()
    parts = (header_bytes, _mac(header_bytes, stored, key), stored)
    return ".".join([MARK, *(base64.urlsafe_b64encode(part).decode() for part in parts)])


def compress(body: bytes) -> tuple[bytes, str]:
    """Return a body as it is stored, and the name of its encoding."""
    compressed = zlib.compress(body, 6)
    if len(compressed) < len(body):
        return compressed, "zlib"
    return body, "raw"


def decode(text: str, key: bytes) -> Record:
    """Return the record of a text.

    Raises:
        BadRecord: the text is not a complete record, or its MAC is wrong.
    """
    parts = text.strip().split(".")
    if len(parts) != 4 or parts[0] != MARK:
        raise BadRecord("the text is not a record of this library")
    try:
        header_bytes, mac, stored = (base64.b64decode(part, altchars=b"-_", validate=True) for part in parts[1:])
    except (binascii.Error, ValueError) as error:
        raise BadRecord(f"the record is not valid base64: {error}") from None
    if not hmac.compare_digest(mac, _mac(header_bytes, stored, key)):
        raise BadRecord("the record's HMAC is wrong: it is incomplete or was changed in transit")
    header = json.loads(header_bytes)
    body = zlib.decompress(stored) if header["encoding"] == "zlib" else stored
    return Record(header, body)


def _mac(header: bytes, stored: bytes, key: bytes) -> bytes:
    return hmac.new(key, header + b"\n" + stored, hashlib.sha256).digest()


def message(summary: str, text: str) -> str:
    """Return a termination message: a line that people read, and the text of a record."""
    # A text of the program may have characters that UTF-8 cannot encode.
    line = " ".join(summary.encode("utf-8", "replace").decode().split()).encode()
    if len(line) > LARGEST_SUMMARY:
        line = line[: LARGEST_SUMMARY - len(CUT)].decode("utf-8", "ignore").encode() + CUT
    return line.decode() + "\n" + text


def readable(termination_message: str) -> str:
    """Return the part of a termination message that is written for people."""
    return termination_message.partition("\n" + MARK + ".")[0]


def record_text(termination_message: str) -> str:
    """Return the text of the record in a termination message; empty if it has none."""
    _, mark, rest = termination_message.partition("\n" + MARK + ".")
    return MARK + "." + rest if mark else ""


# Files


def output_file(key: bytes) -> str:
    """Return the name of the file with the outcome of a run, from the run's key."""
    return "outcome-" + hashlib.sha256(key).hexdigest()[:16]


def to_file(header: dict[str, Any], body: bytes, key: bytes) -> bytes:
    """Return the content of a file with a record: the record without its body in the first line, then the body."""
    whole = {**header, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    return encode(whole, b"", key).encode() + b"\n" + body


def from_file(content: bytes, key: bytes) -> Record:
    """Return the record of a file.

    Raises:
        BadRecord: the file is incomplete, or its MAC or checksum is wrong.
    """
    line, _, body = content.partition(b"\n")
    header = decode(line.decode(errors="replace"), key).header
    if hashlib.sha256(body).hexdigest() != header.get("sha256"):
        raise BadRecord("the checksum of the result's file is wrong")
    return Record(header, body)


# Frames


def to_frames(text: str) -> Iterator[str]:
    """Yield the lines that carry a record through a log."""
    pieces = [text[start : start + FRAME_CHARACTERS] for start in range(0, len(text), FRAME_CHARACTERS)]
    for number, piece in enumerate(pieces, 1):
        yield f"{MARK}-frame {number}/{len(pieces)} {piece}"


def from_frames(lines: Iterable[str]) -> str:
    """Return the text of the record in the lines of a log.

    Raises:
        BadRecord: a frame is missing, or one is wrong.
    """
    found: list[str] = []
    total = 0
    for line in lines:
        words = line.strip().split(" ")
        if len(words) != 3 or words[0] != MARK + "-frame":
            continue
        number, _, count = words[1].partition("/")
        if number == "1":
            found = []  # a sidecar that was started again begins anew
        if int(number) != len(found) + 1:
            raise BadRecord(f"frame {len(found) + 1} of the result is missing in the log")
        found.append(words[2])
        total = int(count)
    if not found or len(found) != total:
        raise BadRecord(f"the log has {len(found)} of {total} frames of the result")
    return "".join(found)
