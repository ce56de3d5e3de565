"""The result of a transfer, and its progress in words."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from aksgpu.progress import Progress
from aksgpu.waiting import Interrupted

__all__ = ["Meter", "Transfer", "escaped", "resumable", "size_text"]

_SHOW_SECONDS = 0.2
"""Seconds between two lines of progress."""
_SHOWN_NAMES = 5
"""Names of files that a warning lists."""


@dataclass(frozen=True)
class Transfer:
    """What an upload, a download or a fetch did.

    Attributes:
        path: where the files are now: in the claim after an upload or a fetch, on this machine after a download.
        files: number of files there.
        bytes: their size.
        sent: bytes that were moved. Files that were there already, with the same size and time, were not.
        seconds: how long it took, without the start of the helper pod.
        left_out: paths that were left out: sockets, pipes, devices, and links that lead elsewhere.
    """

    path: str
    files: int
    bytes: int
    sent: int
    seconds: float
    left_out: tuple[str, ...] = ()

    def __repr__(self) -> str:
        moved = "" if self.sent == self.bytes else f", {size_text(self.sent)} moved now"
        count = "1 file" if self.files == 1 else f"{self.files:,} files"
        return f"Transfer({self.path or '.'}: {count}, {size_text(self.bytes)}{moved})"


class Meter:
    """Counts what a transfer moves, and shows it.

    Args:
        progress: where it is shown.

    Attributes:
        moved: bytes moved by this call.
        files: files that are complete.
        total_files: files of the transfer.
        total: bytes to move; None if not known.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._shown = 0.0
        self._began = 0.0
        self.moved = 0
        self.files = 0
        self.total_files = 0
        self.total: int | None = None

    def start(self) -> None:
        """Begin to measure the time."""
        if not self._began:
            self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since :meth:`start`."""
        return time.monotonic() - self._began if self._began else 0.0

    def add(self, size: int) -> None:
        """Count bytes that were moved."""
        self.moved += size
        self.show()

    def show(self) -> None:
        """Show the progress, at most some times a second."""
        now = time.monotonic()
        if now - self._shown < _SHOW_SECONDS:
            return
        self._shown = now
        rate = f", {size_text(self.moved / self.seconds)}/s" if self.seconds > 1 else ""
        total = "" if self.total is None else f" of {size_text(self.total)}"
        files = f"{self.files:,} of {self.total_files:,} files, " if self.total_files > 1 else ""
        self._progress.say(f"{files}{size_text(self.moved)}{total}{rate}")


def size_text(size: float) -> str:
    """Return a number of bytes in words, such as ``12.3 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"


def escaped(paths: tuple[str, ...] | list[str]) -> str:
    """Return some paths for a message, in ASCII."""
    shown = ", ".join(ascii(path) for path in paths[:_SHOWN_NAMES])
    more = len(paths) - _SHOWN_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


@contextlib.contextmanager
def resumable(what: str) -> Iterator[None]:
    """Say after an interrupt that the next call continues."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"{what} was interrupted. The same call continues where it ended.") from None
