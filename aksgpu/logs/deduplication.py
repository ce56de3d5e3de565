"""Find the new lines of a container's log, as opposed to those that were read before.

The log endpoint has no positions. It filters by ``sinceTime``, which the API server truncates to seconds, and serves
only the newest file of the newest run. A line is therefore identified by its timestamp in nanoseconds, its text, and
the number of times that both occurred. :class:`SeenLines` remembers the lines of one run. :class:`Response` compares
one response with them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

__all__ = [
    "LogGap",
    "LogLine",
    "Response",
    "SeenLines",
    "format_since",
    "has_timestamp",
    "marker",
    "parse",
    "seconds_of",
]

REMEMBERED_LINES = 1_000_000
"""Minimum number of lines of a run that are remembered, at eight bytes each."""
SHORT_LOG_BYTES = 1 << 20
"""A log up to this size is requested almost from its beginning after an interruption."""
SHORT_LOG_MARGIN = 3600
"""Seconds before the last line from which a short log is requested again. A node's clock may be set back by as much."""
MARGIN = 60
"""The same for a log that is larger than :data:`SHORT_LOG_BYTES`."""
PIECE_BYTES = 16_000
"""Container runtimes store a longer line in pieces of 16 KiB, each with its own timestamp."""


class LogGap(NamedTuple):
    """A part of a log that could not be read."""

    reason: str
    """A sentence that says what is missing, and why."""
    container: str = ""
    """Name of the container; empty if whole pods are missing."""
    runs: tuple[int, ...] = ()
    """The affected runs of the container, counted from 0; empty if they are not known."""
    since: str = ""
    """Timestamp of the last line before the gap (RFC 3339); empty if no line was read before it."""
    until: str = ""
    """Timestamp of the first line after the gap; empty if it is not known."""

    @property
    def seconds(self) -> float | None:
        """Length of the gap in seconds by the node's clock; None if ``since`` or ``until`` is not known."""
        if not self.since or not self.until:
            return None
        return (datetime.fromisoformat(self.until) - datetime.fromisoformat(self.since)).total_seconds()


class LogLine(NamedTuple):
    """One line of a container's log, or a marker instead of missing lines."""

    timestamp: str
    """When the node stored the line, RFC 3339 with nanoseconds; empty for a marker."""
    text: str
    """The line without its newline. The text of a marker is ``[aksgpu: ...]``."""
    gap: LogGap | None = None
    """What is missing here; None for a line of the program."""


def marker(gap: LogGap) -> LogLine:
    """Return the line that shows a gap."""
    return LogLine("", f"[aksgpu: {gap.reason}]", gap)


class SeenLines:
    """The lines of one run of a container that were read before.

    Attributes:
        lines: number of lines.
        size: number of bytes.
        first: timestamp of the first line; empty before it.
        last: timestamp of the last line; empty before it.
    """

    def __init__(self) -> None:
        self.lines = 0
        self.size = 0
        self.first = ""
        self.last = ""
        self._hashes = array("q")
        # One entry for each line whose second differs from that of the line before it.
        self._seconds = array("q")
        self._starts = array("q")
        self._second_text = ""
        self._long: list[bytes] = []

    def add(self, raw: bytes, digest: int) -> LogLine:
        """Add a line.

        Args:
            raw: the line with its timestamp, without its newline.
            digest: ``hash(raw)``.
        """
        line = parse(raw)
        timestamp = line.timestamp
        if timestamp[:19] != self._second_text:
            self._second_text = timestamp[:19]
            self._seconds.append(_epoch(timestamp))
            self._starts.append(len(self._hashes))
            if len(self._hashes) > 2 * REMEMBERED_LINES or len(self._seconds) > 2 * REMEMBERED_LINES:
                self._forget()
        self._hashes.append(digest)
        if not self.lines:
            self.first = timestamp
        self.lines += 1
        self.size += len(raw) + 1
        self.last = timestamp
        if len(raw) >= PIECE_BYTES:
            self._long = [*self._long[-3:], raw]
        return line

    def _forget(self) -> None:
        """Forget the older lines, in whole seconds."""
        keep = max(len(self._seconds) // 2, bisect_left(self._starts, len(self._hashes) - REMEMBERED_LINES))
        keep = min(keep, len(self._seconds) - 1)
        dropped = self._starts[keep]
        del self._hashes[:dropped]
        del self._seconds[:keep]
        del self._starts[:keep]
        for index in range(len(self._starts)):
            self._starts[index] -= dropped

    @property
    def remembers_all(self) -> bool:
        """Whether no line was forgotten, so that the whole log can be compared."""
        return len(self._hashes) == self.lines

    @property
    def resume_time(self) -> datetime | None:
        """The ``sinceTime`` with which a response includes the last line; None before the first line."""
        return self.resume_time_with(SHORT_LOG_MARGIN if self.size <= SHORT_LOG_BYTES else MARGIN)

    def resume_time_with(self, margin: int) -> datetime | None:
        """Return the ``sinceTime`` that is a number of seconds before the last line; None before the first line."""
        if not self.lines:
            return None
        seconds = self._seconds[-1] - margin
        if not self.remembers_all:
            seconds = max(seconds, self._seconds[0] + 1)
        return datetime.fromtimestamp(seconds, UTC)

    def count(self, since: datetime | None) -> Counter[int]:
        """Return the hashes of the lines since a time, with the number of times that each line occurred."""
        if since is None:
            return Counter(self._hashes)
        earliest = since.timestamp()
        found: Counter[int] = Counter()
        ends = [*self._starts[1:], len(self._hashes)]
        for second, start, end in zip(self._seconds, self._starts, ends, strict=True):
            if second >= earliest:
                found.update(self._hashes[start:end])
        return found

    def __contains__(self, digest: int) -> bool:
        return digest in self._hashes

    @property
    def last_digest(self) -> int | None:
        """Hash of the last line; None before the first line."""
        return self._hashes[-1] if self.lines else None

    def ends_long_line(self, raw: bytes) -> bool:
        """Return whether this is the end of a long line that was seen: ``sinceTime`` fell between its pieces."""
        text = raw.partition(b" ")[2] if has_timestamp(raw) else raw
        if not text:
            return False
        return any(line.endswith(text) and not line.endswith(b" " + raw) for line in self._long)

    def ends_last_line(self, raw: bytes) -> bool:
        """Return whether this is the end of the last line that was seen."""
        return bool(self._long) and hash(self._long[-1]) == self.last_digest and self.ends_long_line(raw)


class Response:
    """Compares one response of the log endpoint with the lines that were seen.

    Args:
        seen: the lines of the run that were seen.
        since: the requested ``sinceTime``; None for the whole log.

    Attributes:
        matched: number of lines in the response that had been seen.
        new: number of lines in the response that had not been seen.
        has_last: whether the response has the last line seen before it, as often as it had been seen.
        ends_with_last: whether the newest line of the response is the last one seen before it.
        unfinished: what follows the last newline. Either the connection broke there, or the program ended without a
            newline.
        kubelet_message: the kubelet's own text instead of the log, or after it; empty if there is none.
    """

    def __init__(self, seen: SeenLines, since: datetime | None) -> None:
        self._seen = seen
        self._since = since
        self.matched = 0
        self.new = 0
        self.has_last = False
        self.ends_with_last = False
        self.unfinished = b""
        self.kubelet_message = ""

    def new_lines(self, lines: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
        """Yield the complete lines that had not been seen, with timestamp and without newline, each with its hash."""
        seen = self._seen
        expected = seen.count(self._since)
        left = expected.total()
        last = seen.last_digest
        fragment = b""
        for raw in lines:
            if raw[-1:] != b"\n":
                self._end(raw)
                break
            raw = raw[:-1]
            if not has_timestamp(raw):
                # Without a timestamp, the first line is the end of one that began before sinceTime. Any other is the
                # kubelet's own message.
                if self.matched or self.new or self._since is None:
                    self.kubelet_message = _text(raw)
                else:
                    fragment = raw
                continue
            digest = hash(raw)
            if left and expected.get(digest, 0):
                expected[digest] -= 1
                left -= 1
                self.matched += 1
                self.ends_with_last = digest == last
                if digest == last and not expected[digest]:
                    self.has_last = True
                continue
            if left and not self.matched and seen.ends_long_line(raw):
                self.ends_with_last = seen.ends_last_line(raw)
                continue
            self.new += 1
            yield raw, digest
        if fragment and not self.matched and not self.new and not seen.ends_long_line(fragment):
            self.kubelet_message = _text(fragment)

    def _end(self, raw: bytes) -> None:
        """Classify what follows the last newline."""
        if has_timestamp(raw) or raw[:1].isdigit():
            self.unfinished = raw  # a line, or a part of a timestamp
        elif not self._seen.ends_long_line(raw):
            self.kubelet_message = _text(raw)


def has_timestamp(raw: bytes) -> bool:
    """Return whether a line begins with a timestamp, as each line of a program does with ``timestamps=true``."""
    return raw[4:5] == b"-" and raw[10:11] == b"T" and raw[:4].isdigit() and raw.find(b" ", 19, 40) > 0


def parse(raw: bytes) -> LogLine:
    """Parse a line with its timestamp and without its newline."""
    timestamp, _, text = raw.decode("utf-8", "replace").partition(" ")
    return LogLine(timestamp, text)


def format_since(since: datetime | None) -> str | None:
    """Format a time as the log endpoint accepts it."""
    return None if since is None else since.strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(timestamp: str) -> float:
    """Return an RFC 3339 timestamp as seconds since 1970."""
    return datetime.fromisoformat(timestamp).timestamp()


def _epoch(timestamp: str) -> int:
    """Return the same in whole seconds, even for fractions that ``datetime`` does not parse."""
    zone = timestamp[19:].lstrip(".0123456789")
    return int(datetime.fromisoformat(timestamp[:19] + zone).timestamp())


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").strip()
