"""Which lines of a container's log were given already.

The log end point has no positions. It filters by ``sinceTime``, which the API server truncates to seconds, and serves
the newest file of the newest run only. So a line is identified by what the server says of it: its stamp in
nanoseconds, its text, and how often the two came. A :class:`Window` remembers the lines of one run, a
:class:`Reading` compares one answer with it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

REMEMBERED = 1_000_000
"""Lines of a run that are remembered at least; eight bytes each."""
WHOLE_BYTES = 1 << 20
"""A log up to this size is asked for again almost whole after a break."""
LONG_MARGIN = 3600
"""Seconds before the last line from which a short log is asked for again: a node's clock may be set back by that."""
MARGIN = 60
"""The same for a log that is larger than :data:`WHOLE_BYTES`."""
PIECE = 16_000
"""Container runtimes store a line in pieces of 16 KiB with a stamp each. Shorter lines have one stamp."""


class LogGap(NamedTuple):
    """What could not be read of a log."""

    reason: str
    """What is missing, and why, in a sentence."""
    container: str = ""
    """Name of the container; empty where whole pods are missing."""
    runs: tuple[int, ...] = ()
    """The container's runs that are concerned, counted from 0. Empty where that is not known."""
    since: str = ""
    """Stamp of the last line before the gap (RFC 3339); empty where no line was read before it."""
    until: str = ""
    """Stamp of the first line after the gap; empty where that is not known."""

    @property
    def seconds(self) -> float | None:
        """Length of the gap in seconds by the node's clock; None where an end is not known."""
        if not self.since or not self.until:
            return None
        return (datetime.fromisoformat(self.until) - datetime.fromisoformat(self.since)).total_seconds()


class LogLine(NamedTuple):
    """One line of a container's log, or a marker where lines are missing."""

    timestamp: str
    """The node's time of the line, RFC 3339 with nanoseconds; empty for a marker."""
    text: str
    """Without the newline. A marker's text is ``[aksgpu: ...]``."""
    gap: LogGap | None = None
    """What is missing here; None for a line of the program."""


def marker(gap: LogGap) -> LogLine:
    """The line that shows a gap."""
    return LogLine("", f"[aksgpu: {gap.reason}]", gap)


class Window:
    """The lines of one run of a container that were given.

    Attributes:
        lines: number of lines given.
        size: bytes given.
        first: stamp of the first line given; empty before it.
        last: stamp of the last line given; empty before it.
    """

    def __init__(self) -> None:
        self.lines = 0
        self.size = 0
        self.first = ""
        self.last = ""
        self._hashes = array("q")
        # One entry each time the second changes from one line to the next.
        self._seconds = array("q")
        self._starts = array("q")
        self._second_text = ""
        self._long: list[bytes] = []

    def add(self, raw: bytes, digest: int) -> LogLine:
        """Count a stamped line as given.

        Args:
            raw: the line without its newline.
            digest: ``hash(raw)``.
        """
        line = parse(raw)
        stamp = line.timestamp
        if stamp[:19] != self._second_text:
            self._second_text = stamp[:19]
            self._seconds.append(_epoch(stamp))
            self._starts.append(len(self._hashes))
            if len(self._hashes) > 2 * REMEMBERED or len(self._seconds) > 2 * REMEMBERED:
                self._forget()
        self._hashes.append(digest)
        if not self.lines:
            self.first = stamp
        self.lines += 1
        self.size += len(raw) + 1
        self.last = stamp
        if len(raw) >= PIECE:
            self._long = [*self._long[-3:], raw]
        return line

    def _forget(self) -> None:
        """Drop the older lines, from the beginning of a second on."""
        keep = max(len(self._seconds) // 2, bisect_left(self._starts, len(self._hashes) - REMEMBERED))
        keep = min(keep, len(self._seconds) - 1)
        dropped = self._starts[keep]
        del self._hashes[:dropped]
        del self._seconds[:keep]
        del self._starts[:keep]
        for index in range(len(self._starts)):
            self._starts[index] -= dropped

    @property
    def remembers_all(self) -> bool:
        """Whether no line was forgotten, so that the whole log may be asked for."""
        return len(self._hashes) == self.lines

    @property
    def since(self) -> datetime | None:
        """From when to ask after a break, so that the last line given is in the answer; None before the first."""
        if not self.lines:
            return None
        margin = LONG_MARGIN if self.size <= WHOLE_BYTES else MARGIN
        wanted = self._seconds[-1] - margin
        if not self.remembers_all:
            wanted = max(wanted, self._seconds[0] + 1)
        return datetime.fromtimestamp(wanted, UTC)

    def given(self, since: datetime | None) -> Counter[int]:
        """The lines since a time, each with how often it was given."""
        if since is None:
            return Counter(self._hashes)
        earliest = since.timestamp()
        found: Counter[int] = Counter()
        ends = [*self._starts[1:], len(self._hashes)]
        for second, start, end in zip(self._seconds, self._starts, ends, strict=True):
            if second >= earliest:
                found.update(self._hashes[start:end])
        return found

    def holds(self, digest: int) -> bool:
        """Whether a line is among those that were given."""
        return digest in self._hashes

    @property
    def last_digest(self) -> int | None:
        """Hash of the last line given."""
        return self._hashes[-1] if self.lines else None

    def is_rest(self, raw: bytes) -> bool:
        """Whether this is the rest of a long line that was given: ``sinceTime`` fell between its pieces."""
        text = raw.partition(b" ")[2] if stamped(raw) else raw
        return bool(text) and any(line.endswith(text) and not line.endswith(b" " + raw) for line in self._long)

    def is_last_rest(self, raw: bytes) -> bool:
        """Whether this is the rest of the last line that was given."""
        return bool(self._long) and hash(self._long[-1]) == self.last_digest and self.is_rest(raw)


class Reading:
    """One answer of the log end point, compared with what was given.

    Args:
        window: what was given of the run.
        since: what was asked for; None for the whole log.

    Attributes:
        matched: lines of the answer that had been given.
        new: lines of the answer that had not been given.
        has_last: whether the last line given before this answer was in it, as often as it was given.
        ends_with_last: whether the latest line of the answer is the last one given before it.
        unfinished: what came after the last newline: the connection may have broken there, or the program ended
            without a newline.
        words: what the kubelet said in place of the log, or after it; empty where it served the log only.
    """

    def __init__(self, window: Window, since: datetime | None) -> None:
        self._window = window
        self._since = since
        self.matched = 0
        self.new = 0
        self.has_last = False
        self.ends_with_last = False
        self.unfinished = b""
        self.words = ""

    def fresh(self, lines: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
        """The stamped whole lines that were not given before, without their newline, each with its hash."""
        window = self._window
        given = window.given(self._since)
        left = given.total()
        last = window.last_digest
        fragment = b""
        for raw in lines:
            if raw[-1:] != b"\n":
                self._end(raw)
                break
            raw = raw[:-1]
            if not stamped(raw):
                # Without a stamp, the first line is the rest of one that began before sinceTime. Any other is the
                # kubelet's.
                if self.matched or self.new or self._since is None:
                    self.words = _text(raw)
                else:
                    fragment = raw
                continue
            digest = hash(raw)
            if left and given.get(digest, 0):
                given[digest] -= 1
                left -= 1
                self.matched += 1
                self.ends_with_last = digest == last
                if digest == last and not given[digest]:
                    self.has_last = True
                continue
            if left and not self.matched and window.is_rest(raw):
                self.ends_with_last = window.is_last_rest(raw)
                continue
            self.new += 1
            yield raw, digest
        if fragment and not self.matched and not self.new and not window.is_rest(fragment):
            self.words = _text(fragment)

    def _end(self, raw: bytes) -> None:
        """What stands after the last newline."""
        if stamped(raw) or raw[:1].isdigit():
            self.unfinished = raw  # a line, or a part of a stamp
        elif not self._window.is_rest(raw):
            self.words = _text(raw)


def stamped(raw: bytes) -> bool:
    """Whether a line begins with a time, as each line of a program does where stamps were asked for."""
    return raw[4:5] == b"-" and raw[10:11] == b"T" and raw[:4].isdigit() and (raw.find(b" ", 19, 40) > 0)


def parse(raw: bytes) -> LogLine:
    """A stamped line without its newline."""
    stamp, _, text = raw.decode("utf-8", "replace").partition(" ")
    return LogLine(stamp, text)


def since_text(since: datetime | None) -> str | None:
    """A time as the log end point takes it."""
    return None if since is None else since.strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(stamp: str) -> float:
    """Seconds since 1970 of an RFC 3339 time."""
    return datetime.fromisoformat(stamp).timestamp()


def _epoch(stamp: str) -> int:
    zone = stamp[19:].lstrip(".0123456789")
    return int(datetime.fromisoformat(stamp[:19] + zone).timestamp())


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").strip()
