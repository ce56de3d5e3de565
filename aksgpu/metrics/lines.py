"""Split a log, in any of its forms, into pieces of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import AnyStr

import pandas as pd

from aksgpu.errors import InvalidInput

__all__ = ["PIECE", "Log", "pieces"]

Log = str | bytes | bytearray | memoryview | Iterable[str] | Iterable[bytes]
"""A whole log, or its lines with or without their newlines."""

PIECE = 4 << 20
"""Characters or bytes of a log that are read at once."""


def pieces(log: Log) -> Iterator[bytes]:
    """Yield a log in pieces of whole lines, so that reading takes the memory of one piece.

    Raises:
        InvalidInput: ``log`` is neither text nor lines of text.
    """
    if isinstance(log, bytearray | memoryview):
        log = bytes(log)
    if isinstance(log, str):
        for piece in _cut(log, "\n"):
            yield piece.encode("utf-8", "replace")
    elif isinstance(log, bytes):
        yield from _cut(log, b"\n")
    else:
        yield from _batches(log)


def _cut(log: AnyStr, newline: AnyStr) -> Iterator[AnyStr]:
    """Yield pieces of a log that end after a newline."""
    start = 0
    while start < len(log):
        stop = start + PIECE
        if stop < len(log):
            end = log.find(newline, stop)
            stop = end + 1 if end >= 0 else len(log)
        yield log[start:stop]
        start = stop


def _batches(lines: object) -> Iterator[bytes]:
    # Iterating a table or a mapping yields its column names or keys, which look like a log without metrics.
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
