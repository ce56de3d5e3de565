"""Reads a container's CRI log as ``kubectl logs`` asks for it: a part of it, then what follows.

The files are written by :mod:`aksgpu.local.node.shim`: segments ``PATH.0``, ``PATH.1``..., of which the highest is the
current one. Whether pod and container exist is not asked here.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

CHUNK = 256 * 1024
POLL = 0.05


def _since(since_time: str | None, since_seconds: int | None) -> bytes:
    """Where a log begins. Timestamps have one width, so that text order is time order."""
    if since_seconds is None:
        return (since_time or "").rstrip("Z").encode()
    seconds, nanos = divmod(max(0, time.time_ns() - since_seconds * 1_000_000_000), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % nanos


class _Log:
    """What is shown of a log, in order over its segments, as far as they are written."""

    def __init__(self, path: Path, since: bytes, timestamps: bool) -> None:
        self._path = path
        self._since = since
        self._timestamps = timestamps
        self._segment = -1
        self._offset = 0
        self._open = False  # whether a line has begun whose rest comes in the next entry

    def read(self) -> Iterator[bytes]:
        """The text of the entries not read yet, many at a time."""
        while True:
            # Asked before reading: nothing is added to a segment once the next one is there.
            numbers = (int(name.suffix[1:]) for name in self._path.parent.glob(self._path.name + ".*"))
            following = min((number for number in numbers if number > self._segment), default=None)
            # A segment that is not there was rotated away while nobody read.
            with contextlib.suppress(FileNotFoundError), Path(f"{self._path}.{self._segment}").open("rb") as file:
                file.seek(self._offset)
                while end := (data := file.read(CHUNK)).rfind(b"\n") + 1:
                    self._offset += end
                    file.seek(self._offset)
                    # splitlines would also cut at carriage returns
                    yield b"".join(map(self._shown, data[:end].split(b"\n")[:-1]))
            if following is None:
                return
            self._segment = following
            self._offset = 0

    def _shown(self, entry: bytes) -> bytes:
        stamp, _, tag, text = entry.split(b" ", 3)
        if stamp < self._since:
            return b""
        head = stamp + b" " if self._timestamps and not self._open else b""
        self._open = tag == b"P"
        return head + text + (b"" if self._open else b"\n")


def _tail(text: bytes, lines: int) -> bytes:
    cuts = lines + text.endswith(b"\n")
    parts = text.rsplit(b"\n", cuts)
    return b"\n".join(parts[1:]) if len(parts) > cuts else text


async def read(
    path: Path,
    ended: Callable[[], bool],
    *,
    follow: bool = False,
    since_time: str | None = None,
    since_seconds: int | None = None,
    tail_lines: int | None = None,
    limit_bytes: int | None = None,
    timestamps: bool = False,
) -> AsyncIterator[bytes]:
    """Show a log.

    Args:
        path: the log's path without a segment's number.
        ended: whether nothing more will be written; asked before each look when following.
        follow: go on until the container ends.
        since_time: RFC 3339 in whole seconds, UTC; earlier entries are left out.
        since_seconds: the same, counted from now.
        tail_lines: only so many lines from the end, of those there are at first.
        limit_bytes: stop after so many bytes.
        timestamps: begin each line with its time.
    """
    log = _Log(path, _since(since_time, since_seconds), timestamps)
    left = sys.maxsize if limit_bytes is None else limit_bytes
    while True:
        over = not follow or ended()
        pieces = log.read() if tail_lines is None else [_tail(b"".join(log.read()), tail_lines)]
        tail_lines = None
        for text in pieces:
            if text := text[:left]:
                yield text
            left -= len(text)
            if not left:
                return
            await asyncio.sleep(0)
        if over:
            return
        await asyncio.sleep(POLL)
