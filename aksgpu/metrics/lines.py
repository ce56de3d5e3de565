"""The forms that a log comes in, as pieces of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pandas as pd

from aksgpu.errors import InvalidInput

Log = str | bytes | bytearray | memoryview | Iterable[str] | Iterable[bytes]
"""A whole log, or its lines with or without their newlines."""

PIECE = 4 << 20
"""Characters or bytes of a log that are read in one go."""


def pieces(log: Log) -> Iterator[bytes]:
    """Return a log in pieces, each of them whole lines. The memory that reading takes is a piece's, not the log's.

    Raises:
        InvalidInput: ``log`` is neither text nor lines of text.
    """
    if isinstance(log, bytearray | memoryview):
        log = bytes(log)
    if isinstance(log, str):
        yield from _cut(log)
    elif isinstance(log, bytes):
        yield from _cut_bytes(log)
    else:
        yield from _batches(log)


def _cut(log: str) -> Iterator[bytes]:
    start = 0
    while start < len(log):
        stop = start + PIECE
        if stop < len(log):
            newline = log.find("\n", stop)
            stop = newline + 1 if newline >= 0 else len(log)
        yield log[start:stop].encode("utf-8", "replace")
        start = stop


def _cut_bytes(log: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(log):
        stop = start + PIECE
        if stop < len(log):
            newline = log.find(b"\n", stop)
            stop = newline + 1 if newline >= 0 else len(log)
        yield log[start:stop]
        start = stop


def _batches(lines: object) -> Iterator[bytes]:
    # A table or a mapping would give its column names or keys, which read as a log without any metric.
    if not isinstance(lines, Iterable) or isinstance(lines, Mapping | pd.DataFrame | pd.Series):
        raise InvalidInput(
            f"`text` must be a log as str or bytes, or an iterable of its lines, got {_shown(lines)}",
            hint="For a Job: job.metrics(). For a file: metrics.parse(open(path)).",
        )
    batch: list[bytes] = []
    size = 0
    for number, line in enumerate(lines):
        if not isinstance(line, str | bytes):
            raise InvalidInput(
                f"`text` must have lines of str or bytes, got {_shown(line)} as line {number}",
                hint="Convert the lines first: metrics.parse(map(str, lines)).",
            )
        encoded = line.encode("utf-8", "replace") if isinstance(line, str) else line
        batch.append(encoded.rstrip(b"\n") + b"\n")
        size += len(encoded)
        if size >= PIECE:
            yield b"".join(batch)
            batch = []
            size = 0
    if batch:
        yield b"".join(batch)


def _shown(value: object) -> str:
    """Return a value that is not text, for an error."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    return f"an object of type {type(value).__name__}"
