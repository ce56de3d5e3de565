"""Reads a container's CRI log as ``kubectl logs`` asks for it: a part of it, then what follows.

The files are written by :mod:`aksgpu.local.node.shim`: segments ``PATH.0``, ``PATH.1``..., of which the highest is the
current one. Whether pod and container exist is not asked here.
"""

from __future__ import annotations

import asyncio
import calendar
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CHUNK = 256 * 1024
POLL = 0.05


@dataclass(frozen=True)
class LogOptions:
    """What to show of a log, in the terms of the pods/log endpoint.

    Attributes:
        follow: go on until the container ends.
        since: nanoseconds since 1970; earlier entries are left out.
        tail_lines: only so many lines from the end, of those there are at first.
        limit_bytes: stop after so many bytes.
        timestamps: begin each line with its time.
    """

    follow: bool = False
    since: int = 0
    tail_lines: int | None = None
    limit_bytes: int | None = None
    timestamps: bool = False


def since_nanoseconds(since_time: str | None, since_seconds: int | None) -> int:
    """Where a log begins, from the two parameters that say so.

    A sinceTime is cut to whole seconds, as the API server does with every time that it parses.
    """
    if since_seconds is not None:
        return time.time_ns() - since_seconds * 1_000_000_000
    if since_time is None:
        return 0
    return _seconds(since_time) * 1_000_000_000


def _seconds(text: str) -> int:
    whole = calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
    zone = text[19:].lstrip(".0123456789")
    if zone in ("Z", "z", ""):
        return whole
    hours, minutes = zone[1:].split(":")
    offset = int(hours) * 3600 + int(minutes) * 60
    return whole - offset if zone[0] == "+" else whole + offset


class _Segments:
    """The log's entries in order, over its segments, as far as they are written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number: int | None = None
        self._offset = 0

    def numbers(self) -> list[int]:
        """Of the segments that are there, oldest first."""
        names = self._path.parent.glob(self._path.name + ".*")
        return sorted(int(name.suffix[1:]) for name in names if name.suffix[1:].isdigit())

    def read(self) -> Iterator[bytes]:
        """Complete entries not read yet, a list of lines at a time joined."""
        while True:
            if self._number is None:
                numbers = self.numbers()
                if not numbers:
                    return
                self._number = numbers[0]
            # Asked before reading: nothing is added to a segment once the next one is there.
            later = [number for number in self.numbers() if number > self._number]
            yield from self._rest(Path(f"{self._path}.{self._number}"))
            if not later:
                return
            self._number, self._offset = later[0], 0

    def _rest(self, path: Path) -> Iterator[bytes]:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return  # rotated away while nobody read
        with file:
            while True:
                file.seek(self._offset)
                data = file.read(CHUNK)
                end = data.rfind(b"\n") + 1
                if end == 0:
                    return
                self._offset += end
                yield data[:end]


class _Format:
    """Entries to the bytes shown; keeps whether a partial line is open."""

    def __init__(self, timestamps: bool) -> None:
        self._timestamps = timestamps
        self._open = False

    def __call__(self, entry: bytes) -> bytes:
        stamp, _, tag, text = entry.split(b" ", 3)
        head = stamp + b" " if self._timestamps and not self._open else b""
        self._open = tag == b"P"
        return head + (text[:-1] if self._open else text)


def _after(data: bytes, since: int) -> list[bytes]:
    """The entries of a chunk that are not before ``since``."""
    entries = [line + b"\n" for line in data.split(b"\n")[:-1]]  # splitlines would also cut at carriage returns
    if since <= 0:
        return entries
    seconds, nanos = divmod(since, 1_000_000_000)
    bound = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % nanos
    # Timestamps have one width, so that text order is time order.
    return [entry for entry in entries if entry[:30] >= bound]


def _last_lines(segments: _Segments, options: LogOptions, lines: int) -> list[bytes]:
    """The entries of the last so many lines; a line may consist of several entries."""
    kept: deque[list[bytes]] = deque(maxlen=lines)
    current: list[bytes] = []
    for data in segments.read():
        for entry in _after(data, options.since):
            current.append(entry)
            if entry.split(b" ", 3)[2] != b"P":
                kept.append(current)
                current = []
    if current:
        kept.append(current)
    return [entry for line in kept for entry in line]


def last_words(path: Path, *, lines: int, limit: int) -> str:
    """The end of a log: so many lines and bytes at most, of its newest segment."""
    segments = _Segments(path).numbers()
    if not segments:
        return ""
    with Path(f"{path}.{segments[-1]}").open("rb") as file:
        cut = max(0, file.seek(0, os.SEEK_END) - CHUNK)
        file.seek(cut)
        entries = _after(file.read(), 0)
    text = b"".join(map(_Format(timestamps=False), entries[1:] if cut else entries))
    return b"".join(text.splitlines(keepends=True)[-lines:])[-limit:].decode(errors="replace")


async def read(path: Path, options: LogOptions, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Show a log.

    Args:
        path: the log's path without a segment's number.
        options: what to show.
        ended: whether nothing more will be written; asked before each look when following.
    """
    segments, shape = _Segments(path), _Format(options.timestamps)
    left = options.limit_bytes

    def cut(entries: list[bytes]) -> bytes:
        nonlocal left
        text = b"".join(map(shape, entries))
        if left is not None:
            text = text[:left]
            left -= len(text)
        return text

    if options.tail_lines is not None:
        over = not options.follow or ended()
        if text := cut(_last_lines(segments, options, options.tail_lines)):
            yield text
        if over:
            return
    while left is None or left > 0:
        over = not options.follow or ended()
        for data in segments.read():
            if text := cut(_after(data, options.since)):
                yield text
            await asyncio.sleep(0)
        if over:
            return
        await asyncio.sleep(POLL)
