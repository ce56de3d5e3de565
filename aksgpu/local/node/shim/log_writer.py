"""Writes a container's output to log files, which :mod:`aksgpu.local.node.container_logs` reads."""

# ruff: noqa: PTH108, PTH110

from __future__ import annotations

import os
import time

LINE_LIMIT = 16 * 1024
"""Maximum bytes of an entry's text. Longer lines are split into several entries."""


class LogWriter:
    """Writes CRI log files with entries ``TIMESTAMP STREAM F|P TEXT``.

    The segment with the highest number is the current one. Timestamps strictly increase, so that readers can
    distinguish any two lines.

    Args:
        path: the log's path, without the number of a segment.
        max_bytes: size of a segment.
        max_files: number of segments that are kept.
    """

    def __init__(self, path: str, max_bytes: int, max_files: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._segment = 0
        self._last_time = 0
        self._formatted_second = 0
        self._formatted = b""
        self._rest = {b"stdout": b"", b"stderr": b""}  # the incomplete line of each stream
        self._open()

    def _open(self) -> None:
        name = f"{self._path}.{self._segment}"
        self._fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = 0

    def feed(self, stream: bytes, data: bytes) -> None:
        """Write output. Empty data means the end of the stream."""
        lines = (self._rest[stream] + data).split(b"\n")
        rest = lines.pop()
        out: list[bytes] = []
        for line in lines:
            line = line.removesuffix(b"\r")  # as containerd does
            while len(line) > LINE_LIMIT:
                out.append(self._entry(stream, b"P", line[:LINE_LIMIT]))
                line = line[LINE_LIMIT:]
            out.append(self._entry(stream, b"F", line))
        while len(rest) > LINE_LIMIT or (rest and not data):
            out.append(self._entry(stream, b"P", rest[:LINE_LIMIT]))
            rest = rest[LINE_LIMIT:]
        self._rest[stream] = rest
        if out:
            self._write(b"".join(out))

    def _entry(self, stream: bytes, tag: bytes, text: bytes) -> bytes:
        self._last_time = max(time.time_ns(), self._last_time + 1)
        seconds, nanoseconds = divmod(self._last_time, 1_000_000_000)
        if seconds != self._formatted_second:  # formatting is slow, and most lines share a second with others
            self._formatted_second = seconds
            self._formatted = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode()
        return b"%s.%09dZ %s %s %s\n" % (self._formatted, nanoseconds, stream, tag, text)

    def _write(self, data: bytes) -> None:
        if self._size and self._size + len(data) > self._max_bytes:
            full = self._fd
            self._segment += 1
            self._open()
            os.close(full)
            old = f"{self._path}.{self._segment - self._max_files}"
            if os.path.exists(old):
                os.unlink(old)
        self._size += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
