"""Reads a log as it grows: lines in, a DataFrame out, no line read twice."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from aksgpu.metrics import prefixes, screen
from aksgpu.metrics.formats import FORMATS, Context, Format, Row, progress_bars
from aksgpu.metrics.values import canonical

LONGEST_LINE = 16 * 1024
"""Characters of a line that are read. What lies beyond is counted in ``attrs["unread"]``."""
MOST_NAMES = 200
"""Columns of metrics. Values of further names are counted in ``attrs["dropped_names"]``."""
SHOWN_UNREAD = 5
"""Unread lines that are kept verbatim."""
POSITION_COLUMNS = ("step", "epoch", "time", "pod", "index", "rank", "attempt")
_TYPES: dict[Hashable, Any] = {
    "step": "Int64",
    "epoch": "Float64",
    "pod": "string",
    "index": "Int64",
    "rank": "Int64",
    "attempt": "Int64",
}
_DIGIT = re.compile(r"\d")
_LIVE = re.compile(r"\d[\d.]*\s*$|=\s*$")


class _Stream:
    """The state of one source of lines: a container's run, and a rank within it."""

    def __init__(self) -> None:
        self.context = Context()
        self.pending: dict[str, dict[str, Any]] = {}
        self.counts: Counter[str] = Counter()


class MetricsReader:
    """Turns log lines into a DataFrame, piece by piece.

    The frame is the same whatever the pieces were.

    Args:
        patterns: more forms to read, before the built-in ones: a mapping from a metric's name to a regular expression
            with one group, or SageMaker's list of ``{"Name": ..., "Regex": ...}``.

    Example:
        >>> reader = MetricsReader()
        >>> reader.feed("Accuracy at step 10: 0.7457\\n")
        >>> reader.frame()["accuracy"].tolist()
        [0.7457]
    """

    def __init__(self, patterns: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None) -> None:
        self._patterns = _compiled(patterns)
        self._streams: dict[tuple[Any, ...], _Stream] = {}
        self._partial: dict[tuple[Any, ...], str] = {}
        self._rows: list[dict[str, Any]] = []
        self._formats: Counter[str] = Counter()
        self._unread = 0
        self._unread_lines: list[str] = []
        self._names: dict[str, None] = {}
        self._dropped: Counter[str] = Counter()
        self._percent: set[str] = set()

    def feed(
        self, text: str | bytes, *, pod: str | None = None, index: int | None = None, attempt: int | None = None
    ) -> None:
        """Read the next piece of a log. A line that is cut is completed by the next piece of the same source.

        Args:
            text: of any length, also within a line.
            pod: the pod's name, where it is known.
            index: of the pod within an Indexed Job.
            attempt: ordinal of the run of the program, from 0.
        """
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        source = (pod, index, attempt)
        lines = (self._partial.get(source, "") + text).split("\n")
        self._partial[source] = lines.pop()
        for line in lines:
            self._line(line, source)

    def feed_lines(
        self,
        lines: Iterable[str] | Iterable[bytes],
        *,
        pod: str | None = None,
        index: int | None = None,
        attempt: int | None = None,
    ) -> None:
        """Read whole lines, with or without their newlines."""
        for line in lines:
            text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
            self._line(text.removesuffix("\n"), (pod, index, attempt))

    def frame(self) -> pd.DataFrame:
        """Return what was read so far. A last line without its newline counts if it reads as a whole one."""
        if any(self._partial.values()):
            whole = copy.deepcopy(self)
            for source, rest in self._partial.items():
                if rest:
                    whole._line(rest, source)
            whole._partial = {}
            return whole.frame()
        rows = list(self._rows)
        for stream in self._streams.values():
            rows.extend(stream.pending.values())
        rows.sort(key=lambda row: row["_order"])
        return self._table(rows)

    # Lines

    def _line(self, line: str, source: tuple[Any, ...]) -> None:
        if len(line) > LONGEST_LINE and not ("\r" in line or "\b" in line):
            self._note_unread(line[:200])
            line = line[:LONGEST_LINE]
        stripped = prefixes.strip(line) if line and line[0] != "\r" else prefixes.Prefixes(line)
        for state in screen.states(stripped.text):
            self._state(state[:LONGEST_LINE], stripped, source)

    def _state(self, text: str, outer: prefixes.Prefixes, source: tuple[Any, ...]) -> None:
        own = prefixes.strip(text)
        rank = own.rank if own.rank is not None else outer.rank
        time = outer.time or own.time
        pod = source[0] or outer.pod or own.pod
        stream = self._streams.setdefault((*source, pod, rank), _Stream())
        place = {"time": time, "pod": pod, "index": source[1], "rank": rank, "attempt": source[2]}
        body = own.text.rstrip()
        if not body:
            return
        found, name = self._read(body, stream.context)
        if found is None:
            drawn = progress_bars.find(body)
            if drawn is not None:
                found, name = [], "progress bar"
        if found is None:
            if _DIGIT.search(body):
                self._note_unread(text)
            return
        self._formats[name] += 1
        for row in found:
            self._add(row, place, stream)

    def _read(self, text: str, context: Context) -> tuple[list[Row] | None, str]:
        for name, pattern in self._patterns:
            values = {name: float(match[1]) for match in [pattern.search(text)] if match}
            if values:
                return [Row(values, epoch=context.epoch)], "pattern"
        drawn = progress_bars.find(text)
        if drawn is not None:
            if drawn.rest:
                rest = prefixes.strip(drawn.rest).text
                context.bar = drawn.bar
                for form in _WRITTEN_INTO_BARS:
                    found = form.read(rest, context)
                    if found is not None:
                        return [_at_bar(row, drawn.bar) for row in found], form.name
            found = progress_bars.read(text, context)
            return found, "progress bar"
        for form in FORMATS:
            if any(sign in text for sign in form.signs):
                found = form.read(text, context)
                if found is not None:
                    return found, form.name
        return None, ""

    def _add(self, row: Row, place: dict[str, Any], stream: _Stream) -> None:
        values = {name: value for name, value in row.values.items() if self._keeps(name)}
        if not values:
            return
        self._percent.update(row.is_percent)
        step = row.step
        kind = row.step_kind
        if step is not None:
            stream.context.position = None if row.bar is None else stream.context.position
        elif stream.context.position is not None:
            step, kind = stream.context.position
        elif row.epoch is None:
            first = next(iter(values))
            step = stream.counts[first]
            stream.counts[first] += 1
            kind = "count"
        else:
            kind = ""
        made = {
            **place,
            "step": step,
            "step_kind": kind,
            "epoch": row.epoch,
            "values": values,
            "_order": self._next_order(),
        }
        if row.bar is None:
            self._rows.append(made)
            return
        before = stream.pending.get(row.bar.key)
        if before is not None and not _replaces(row.bar, before["_bar"], row.epoch, before["epoch"]):
            self._rows.append(before)
        made["_bar"] = row.bar
        stream.pending[row.bar.key] = made

    def _next_order(self) -> int:
        self._ordinal = getattr(self, "_ordinal", 0) + 1
        return self._ordinal

    def _keeps(self, name: str) -> bool:
        if name in self._names:
            return True
        if len(self._names) >= MOST_NAMES:
            self._dropped[name] += 1
            return False
        self._names[name] = None
        return True

    def _note_unread(self, text: str) -> None:
        self._unread += 1
        if len(self._unread_lines) < SHOWN_UNREAD:
            self._unread_lines.append(text[:200])

    # The table

    def _table(self, rows: list[dict[str, Any]]) -> pd.DataFrame:
        columns: dict[str, Any] = {}
        for name in POSITION_COLUMNS:
            values = [row[name] for row in rows]
            if name == "time":
                columns[name] = pd.to_datetime(pd.Series(values, dtype="object"), utc=True, format="ISO8601")
            else:
                columns[name] = pd.array(values, dtype=_TYPES[name])
        nan = float("nan")
        for name in self._names:
            column = f"{name}_" if name in POSITION_COLUMNS else name
            columns[column] = [row["values"].get(name, nan) for row in rows]
        frame = pd.DataFrame(columns)
        frame.attrs["formats"] = dict(self._formats.most_common())
        frame.attrs["unread"] = {"lines": self._unread, "first": list(self._unread_lines)}
        frame.attrs["canonical"] = {name: canonical(name) for name in self._names}
        frame.attrs["step_kind"] = dict(Counter(row["step_kind"] for row in rows if row["step_kind"]))
        frame.attrs["percent"] = sorted(self._percent)
        frame.attrs["dropped_names"] = dict(self._dropped)
        return frame


_WRITTEN_INTO_BARS: tuple[Format, ...] = tuple(
    form for form in FORMATS if form.name in ("huggingface", "deepspeed", "json", "tensorflow tutorial")
)
"""Formats that a program prints behind a bar that it does not end with a newline."""


def _at_bar(row: Row, bar: Any) -> Row:
    if row.step is None:
        row.step = bar.done
        row.step_kind = "bar"
    return row


def _replaces(new: Any, old: Any, new_epoch: float | None, old_epoch: float | None) -> bool:
    """Return whether a bar's state replaces an older one: the same bar of the same epoch, no step back."""
    return new_epoch == old_epoch and new.total == old.total and new.done >= old.done


def _compiled(patterns: Mapping[str, str] | Sequence[Mapping[str, str]] | None) -> list[tuple[str, re.Pattern[str]]]:
    if patterns is None:
        return []
    if isinstance(patterns, Mapping):
        pairs = list(patterns.items())
    else:
        pairs = [(each["Name"], each["Regex"]) for each in patterns]
    return [(name, re.compile(pattern)) for name, pattern in pairs]
