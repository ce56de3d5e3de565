"""What of a log was already given: enough of it to drop repeats after a resumed stream, and no more.

Servers cut ``sinceTime`` down to the second, and one instant can carry several equal lines. So the lines of the last
few seconds are remembered, each (time, text) with how often it came, and a resumed stream is compared with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

SECONDS_KEPT = 3
"""A container's two output streams are stamped apart, so that times may step back a little between lines."""


class LogLine(NamedTuple):
    """One line of a container's log."""

    timestamp: str
    """The node's time of the line, RFC 3339 with nanoseconds; empty where the server gave none."""
    text: str
    """Without the newline."""


class Window:
    """The recent lines of one run of a container.

    Attributes:
        unfinished: what stood after the last newline of the latest answer: the connection may have broken there, or
            the program ended without a newline.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, Counter[LogLine]] = {}
        self.unfinished: LogLine | None = None

    @property
    def since(self) -> str | None:
        """Where to resume; None before the first line."""
        stamps = [second for second in self._seconds if second]
        if not stamps:
            return None
        oldest = min(datetime.fromisoformat(stamp) for stamp in stamps)
        return oldest.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def fresh(self, lines: Iterable[bytes]) -> Iterator[LogLine]:
        """Those whole lines of one answer that were not given before; :meth:`add` them when they are."""
        given: Counter[LogLine] = Counter()
        for second in self._seconds.values():
            given.update(second)
        self.unfinished = None
        for raw in lines:
            line = _parse(raw)
            if given[line] > 0:
                given[line] -= 1
            elif raw.endswith(b"\n"):
                yield line
            else:
                self.unfinished = line

    def add(self, line: LogLine) -> LogLine:
        """Count a line as given."""
        second = _second(line.timestamp) if line.timestamp else next(reversed(self._seconds), "")
        if second not in self._seconds:
            self._seconds[second] = Counter()
            if len(self._seconds) > SECONDS_KEPT:
                del self._seconds[next(iter(self._seconds))]
        self._seconds[second][line] += 1
        return line


def _parse(raw: bytes) -> LogLine:
    line = raw.removesuffix(b"\n").decode("utf-8", "replace")
    stamp, _, text = line.partition(" ")
    if len(stamp) >= 20 and stamp[4] == "-" and stamp[10] == "T":
        return LogLine(stamp, text)
    return LogLine("", line)  # the kubelet's own words, such as that it cannot find the log


def _second(stamp: str) -> str:
    zone = stamp[19:].lstrip(".0123456789")
    return stamp[:19] + zone
