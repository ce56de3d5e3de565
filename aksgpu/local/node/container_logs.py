"""Reads a container's CRI log, and follows it.

:mod:`aksgpu.local.node.shim` writes the files as segments ``PATH.0``, ``PATH.1`` and so on. The segment with the
highest number is the current one. As on a kubelet, a log begins with the current segment: text from before the last
rotation can no longer be read. A reader that follows the log continues with the next segment.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

CHUNK_BYTES = 256 * 1024
POLL_SECONDS = 0.05
_SECOND = 1_000_000_000


def _first_timestamp(since_time: str | None, since_seconds: int | None) -> bytes:
    """Return the first timestamp to show. All timestamps have the same length, so they can be compared as text."""
    if since_seconds is None:
        return (since_time or "").rstrip("Z").encode()
    seconds, nanoseconds = divmod(max(0, time.time_ns() - since_seconds * _SECOND), _SECOND)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % nanoseconds


class _LogReader:
    """Reads the segments of a log in order, up to what has been written so far."""

    def __init__(self, path: Path, since: bytes, timestamps: bool) -> None:
        self._path = path
        self._since = since
        self._timestamps = timestamps
        self._segment = max(self._segments(), default=-1)
        self._offset = 0
        self._in_line = False  # whether the next entry continues a line

    def _segments(self) -> list[int]:
        return [int(name.suffix[1:]) for name in self._path.parent.glob(self._path.name + ".*")]

    def read(self) -> Iterator[bytes]:
        """Yield the text of the entries that have not been read yet, in chunks."""
        while True:
            # Find the next segment before reading. Nothing is added to a segment once the next one exists.
            next_segment = min((number for number in self._segments() if number > self._segment), default=None)
            # A segment that does not exist has been rotated away.
            with contextlib.suppress(FileNotFoundError), Path(f"{self._path}.{self._segment}").open("rb") as file:
                while True:
                    file.seek(self._offset)
                    data = file.read(CHUNK_BYTES)
                    end = data.rfind(b"\n") + 1
                    if not end:
                        break
                    self._offset += end
                    # bytes.splitlines() would also split at carriage returns.
                    entries = data[:end].split(b"\n")[:-1]
                    yield b"".join(map(self._format, entries))
            if next_segment is None:
                return
            self._segment = next_segment
            self._offset = 0

    def _format(self, entry: bytes) -> bytes:
        timestamp, _, tag, text = entry.split(b" ", 3)
        if timestamp < self._since:
            return b""
        prefix = timestamp + b" " if self._timestamps and not self._in_line else b""
        self._in_line = tag == b"P"
        return prefix + text + (b"" if self._in_line else b"\n")


def _last_lines(text: bytes, count: int) -> bytes:
    splits = count + text.endswith(b"\n")
    parts = text.rsplit(b"\n", splits)
    return b"\n".join(parts[1:]) if len(parts) > splits else text


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
    """Yield the text of a log.

    Args:
        path: the log's path without the number of a segment.
        ended: returns whether nothing more will be written.
        follow: whether to continue until the container ends.
        since_time: the first time to show, in UTC and RFC 3339.
        since_seconds: the first time to show, in seconds before now.
        tail_lines: the number of lines to show from the end of what has been written so far.
        limit_bytes: the number of bytes to show.
        timestamps: whether to begin each line with its time.
    """
    log = _LogReader(path, _first_timestamp(since_time, since_seconds), timestamps)
    remaining = sys.maxsize if limit_bytes is None else limit_bytes
    while True:
        last = not follow or ended()  # checked before reading, so that no text is missed
        chunks = log.read() if tail_lines is None else [_last_lines(b"".join(log.read()), tail_lines)]
        tail_lines = None
        for chunk in chunks:
            shown = chunk[:remaining]
            if shown:
                yield shown
            remaining -= len(shown)
            if not remaining:
                return
            await asyncio.sleep(0)
        if last:
            return
        await asyncio.sleep(POLL_SECONDS)
