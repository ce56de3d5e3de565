"""Reads a log as it grows: pieces of text in, a DataFrame out, no line read twice."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from aksgpu.errors import InvalidInput
from aksgpu.metrics import prefixes, screen, templates
from aksgpu.metrics.facts import FactsReader
from aksgpu.metrics.formats import FORMATS, Bar, Context, Format, Row, progress_bars
from aksgpu.metrics.table import NO_STEP, Place, Rows
from aksgpu.metrics.templates import Reading, Template
from aksgpu.metrics.values import canonical

LONGEST_LINE = 16 * 1024
"""Characters of one state of a line that are read. What lies beyond is not."""
MOST_NAMES = 200
"""Columns of metrics. Values of further names are counted in ``attrs["dropped_names"]``."""
SHOWN_UNREAD = 5
"""Unread lines that are kept verbatim."""
SHOWN_CHARACTERS = 200
"""Characters of an unread line that are kept."""

_DIGIT = re.compile(r"\d")
_WRITTEN_INTO_BARS: tuple[Format, ...] = tuple(
    form for form in FORMATS if form.name in ("huggingface", "deepspeed", "json", "tensorflow tutorial")
)
"""Formats that a program prints behind a bar that it did not end with a newline."""


_NODE_MESSAGE = re.compile(
    r"failed to create fsnotify watcher: |unable to retrieve container logs for |rpc error: code = \w+ desc = "
)
"""Texts that the kubelet writes into the answer of the log endpoint."""


class _Source(NamedTuple):
    """What the caller says of the lines that it feeds."""

    pod: str | None
    index: int | None
    attempt: int | None


class _Stream:
    """The state of one source of lines: a run of a container, and a rank within it."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.context = Context()
        self.pending: dict[str, _Pending] = {}
        self.counts: Counter[str] = Counter()


@dataclasses.dataclass(slots=True)
class _Pending:
    """The newest state of a progress bar, which the next state replaces."""

    bar: Bar
    order: int
    time: str | None
    step: int
    kind: str
    epoch: float
    values: dict[str, float]


class MetricsReader:
    """Turns log lines into a DataFrame, piece by piece. The frame is the same whatever the pieces were.

    Args:
        patterns: forms to read before the built-in ones: a mapping from a metric's name to a regular expression with
            one group, or SageMaker's list of ``{"Name": ..., "Regex": ...}``.

    Raises:
        InvalidInput: a pattern is not a regular expression with exactly one group.

    Example:
        >>> reader = MetricsReader()
        >>> reader.feed_lines(["Accuracy at step 10: 0.7457"])
        >>> reader.frame()["accuracy"].tolist()
        [0.7457]
    """

    def __init__(self, patterns: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None) -> None:
        self._patterns = _compiled(patterns)
        self._streams: dict[tuple[_Source, str | None, int | None], _Stream] = {}
        self._places: list[Place] = []
        self._partial: dict[_Source, bytes] = {}
        self._facts = FactsReader()
        self._node_messages: list[str] = []
        self._rows = Rows()
        self._order = 0
        self._formats: Counter[str] = Counter()
        self._unread = 0
        self._unread_lines: list[str] = []
        self._names: dict[str, None] = {}
        self._dropped: Counter[str] = Counter()
        self._percent: set[str] = set()
        self._step_kinds: Counter[str] = Counter()
        self._templates: dict[tuple[bytes, tuple[str, ...]], Template | int | None] = {}

    def feed(
        self, text: str | bytes, *, pod: str | None = None, index: int | None = None, attempt: int | None = None
    ) -> None:
        """Read the next piece of a log. A line that is cut is completed by the next piece of the same source.

        Args:
            text: of any length; it may end within a line.
            pod: the pod's name, where it is known.
            index: of the pod within an Indexed Job.
            attempt: ordinal of the program's run, from 0.
        """
        source = _Source(pod, index, attempt)
        piece = text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
        self._facts.feed(piece)
        before = self._partial.get(source)
        lines = (before + piece if before else piece).split(b"\n")
        self._partial[source] = lines.pop()
        self._lines(lines, source)

    def feed_lines(
        self,
        lines: Iterable[str] | Iterable[bytes],
        *,
        pod: str | None = None,
        index: int | None = None,
        attempt: int | None = None,
    ) -> None:
        """Read whole lines, with or without their newlines. The arguments are those of :meth:`feed`."""
        source = _Source(pod, index, attempt)
        for line in lines:
            whole = line.encode("utf-8", "replace") if isinstance(line, str) else line
            self._facts.feed(whole if whole.endswith(b"\n") else whole + b"\n")
            self._lines(whole.removesuffix(b"\n").split(b"\n"), source)

    def frame(self) -> pd.DataFrame:
        """Return what was read so far. A last line without its newline counts if it reads as a whole one."""
        if not any(self._partial.values()) and not any(stream.pending for stream in self._streams.values()):
            return self._table()
        ended = copy.copy(self)
        for name, value in vars(self).items():
            setattr(ended, name, copy.deepcopy(value))
        for source, rest in ended._partial.items():
            if rest:
                ended._lines([rest], source)
        ended._partial = {}
        for stream in ended._streams.values():
            for pending in stream.pending.values():
                ended._finish(pending, stream)
            stream.pending = {}
        return ended._table()

    # Lines

    def _lines(self, lines: list[bytes], source: _Source) -> None:
        stream = self._stream(source, None, None)
        learned = self._templates
        context = stream.context
        for line in lines:
            self._order += 1
            time = None
            if line[4:5] == b"-":
                stamp = prefixes.server_time(line)
                if stamp:
                    time = stamp
                    line = line[len(stamp) + 1 :]
            key = (line.translate(None, templates.DIGITS), context.header)
            template = learned.get(key)
            if isinstance(template, Template):
                found = template.pattern.fullmatch(line)
                if found:
                    self._add_by_template(template, found, time, stream)
                    continue
            self._line(line.decode("utf-8", "replace"), time, source)
            if not isinstance(template, Template) and (template is not None or key not in learned):
                self._learn(key, line, template, stream)

    def _learn(self, key: tuple[bytes, tuple[str, ...]], line: bytes, seen: int | None, stream: _Stream) -> None:
        """Count the lines of a shape, and make a template when it has come often enough."""
        count = (seen or 0) + 1
        if count < templates.LEARN_AFTER:
            if len(self._templates) < templates.MOST_SHAPES:
                self._templates[key] = count
            return
        self._templates[key] = None
        if len(line) > LONGEST_LINE or len(self._names) >= MOST_NAMES:
            return
        self._templates[key] = templates.learn(line, lambda text: self._probe(text, stream.context))

    def _probe(self, text: str, context: Context) -> Reading | None:
        """Read a line as the plain reader does, and change nothing."""
        stripped = prefixes.strip(text)
        if stripped.pod is not None or stripped.rank is not None or stripped.time is not None:
            return None
        body = stripped.text.rstrip()
        if screen.states(body) != [body] or progress_bars.find(body) is not None:
            return None
        tried = dataclasses.replace(context, epoch=templates.CONTEXT_EPOCH)
        before = dataclasses.replace(tried)
        found, name = self._read(body, tried)
        epoch = tried.epoch
        tried.epoch = before.epoch
        if tried != before:
            return None
        changed = epoch != before.epoch
        if found is None:
            return Reading(None, "", False) if not changed and _DIGIT.search(body) else None
        if len(found) != 1 or found[0].bar is not None or (changed and epoch != found[0].epoch):
            return None
        return Reading(found[0], name, changed)

    def _add_by_template(self, template: Template, found: re.Match[bytes], time: str | None, stream: _Stream) -> None:
        if not template.format:
            self._note_unread(found[0])
            return
        groups = found.groups()
        context = stream.context
        values = {}
        for name, source in zip(template.names, template.sources, strict=True):
            values[name] = source.constant if source.group < 0 else float(groups[source.group]) / source.divisor
        epoch = math.nan
        if template.epoch is not None:
            if template.epoch.group == templates.FROM_CONTEXT:
                epoch = math.nan if context.epoch is None else context.epoch
            else:
                epoch = float(groups[template.epoch.group])
            if template.sets_epoch:
                context.epoch = epoch
        self._formats[template.format] += 1
        if template.step is not None:
            context.position = None
            step = int(groups[template.step.group])
            kind = template.step_kind
        else:
            step, kind = self._step(None, template.step_kind, epoch, values, stream)
        self._step_kinds[kind] += 1
        self._rows.append(self._order, stream.place, time, step, epoch, values)

    def _line(self, line: str, time: str | None, source: _Source) -> None:
        """Read one line by the plain way."""
        outer = prefixes.strip(line) if line[:1] != "\r" else prefixes.Prefixes(line)
        for state in screen.states(outer.text):
            self._state(state[:LONGEST_LINE], outer, time, source)

    def _state(self, text: str, outer: prefixes.Prefixes, time: str | None, source: _Source) -> None:
        """Read one state of a line."""
        own = prefixes.strip(text)
        body = own.text.rstrip()
        if not body:
            return
        if _NODE_MESSAGE.match(body):
            self._node_messages.append(body[:SHOWN_CHARACTERS])
            return
        rank = own.rank if own.rank is not None else outer.rank
        stream = self._stream(source, source.pod or outer.pod or own.pod, rank)
        found, name = self._read(body, stream.context)
        if found is None:
            if _DIGIT.search(body):
                self._note_unread(text)
            return
        self._formats[name] += 1
        for row in found:
            self._add(row, time or outer.time or own.time, stream)

    def _stream(self, source: _Source, pod: str | None, rank: int | None) -> _Stream:
        pod = pod or source.pod
        key = (source, pod, rank)
        stream = self._streams.get(key)
        if stream is None:
            place = Place(len(self._places), pod, source.index, rank, source.attempt)
            self._places.append(place)
            stream = _Stream(place.ordinal)
            self._streams[key] = stream
        return stream

    def _read(self, text: str, context: Context) -> tuple[list[Row] | None, str]:
        """Return the rows of a line and the name of the format that claims it; None where no format does."""
        for name, pattern in self._patterns:
            match = pattern.search(text)
            if match:
                return [Row({name: float(match[1])}, epoch=context.epoch)], "pattern"
        drawn = progress_bars.find(text)
        if drawn is not None:
            rest = prefixes.strip(drawn.rest).text
            for form in _WRITTEN_INTO_BARS if rest else ():
                found = form.read(rest, context)
                if found is not None:
                    return [_at_bar(row, drawn.bar) for row in found], form.name
            if context.header_kind != "ultralytics":
                return progress_bars.read(text, context), "progress bar"
        for form in FORMATS:
            for sign in form.signs:
                if sign in text:
                    found = form.read(text, context)
                    if found is not None:
                        return found, form.name
                    break
        return None, ""

    # Rows

    def _add(self, row: Row, time: str | None, stream: _Stream) -> None:
        values = {name: value for name, value in row.values.items() if self._keeps(name)}
        if not values:
            return
        self._percent.update(row.is_percent)
        epoch = math.nan if row.epoch is None else float(row.epoch)
        if row.step is not None and row.bar is None:
            stream.context.position = None
        step, kind = self._step(row.step, row.step_kind, epoch, values, stream)
        if row.bar is None:
            self._step_kinds[kind] += 1
            self._rows.append(self._order, stream.place, time, step, epoch, values)
            return
        before = stream.pending.get(row.bar.key)
        if before is not None and not _replaces(row.bar, epoch, before):
            self._finish(before, stream)
        stream.pending[row.bar.key] = _Pending(row.bar, self._order, time, step, kind, epoch, values)

    def _finish(self, pending: _Pending, stream: _Stream) -> None:
        """Keep the last state of a bar as a row."""
        self._step_kinds[pending.kind] += 1
        self._rows.append(pending.order, stream.place, pending.time, pending.step, pending.epoch, pending.values)

    def _step(
        self, step: int | None, kind: str, epoch: float, values: dict[str, float], stream: _Stream
    ) -> tuple[int, str]:
        """Return a row's step and what it counts: from the line, else the line before, else a running number."""
        if step is not None:
            return step, kind
        if stream.context.position is not None:
            return stream.context.position
        if not math.isnan(epoch):
            return NO_STEP, "none"
        first = next(iter(values))
        count = stream.counts[first]
        stream.counts[first] = count + 1
        return count, "count"

    def _keeps(self, name: str) -> bool:
        if name in self._names:
            return True
        if len(self._names) >= MOST_NAMES:
            self._dropped[name] += 1
            return False
        self._names[name] = None
        return True

    def _note_unread(self, text: str | bytes) -> None:
        self._unread += 1
        if len(self._unread_lines) < SHOWN_UNREAD:
            shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
            self._unread_lines.append(shown[:SHOWN_CHARACTERS])

    def _table(self) -> pd.DataFrame:
        frame = self._rows.frame(self._places, list(self._names))
        frame.attrs["formats"] = dict(self._formats.most_common())
        frame.attrs["unread"] = {"lines": self._unread, "first": list(self._unread_lines)}
        frame.attrs["canonical"] = {name: canonical(name) for name in self._names}
        frame.attrs["step_kind"] = {kind: count for kind, count in self._step_kinds.items() if kind != "none"}
        frame.attrs["percent"] = sorted(self._percent)
        frame.attrs["dropped_names"] = dict(self._dropped)
        frame.attrs["node_messages"] = list(self._node_messages)
        frame.attrs["facts"] = self._facts.facts()
        return frame


def _at_bar(row: Row, bar: Bar) -> Row:
    if row.step is None:
        row.step = bar.done
        row.step_kind = "bar"
    return row


def _replaces(bar: Bar, epoch: float, before: _Pending) -> bool:
    """Return whether a bar's state replaces an older one: the same bar of the same epoch, no step back."""
    same_epoch = epoch == before.epoch or (math.isnan(epoch) and math.isnan(before.epoch))
    return same_epoch and bar.total == before.bar.total and bar.done >= before.bar.done


def _compiled(patterns: Mapping[str, str] | Sequence[Mapping[str, str]] | None) -> list[tuple[str, re.Pattern[str]]]:
    if patterns is None:
        return []
    if isinstance(patterns, Mapping):
        pairs = list(patterns.items())
    else:
        pairs = [(each["Name"], each["Regex"]) for each in patterns]
    compiled = []
    for name, pattern in pairs:
        try:
            expression = re.compile(pattern)
        except (re.error, TypeError) as wrong:
            raise InvalidInput(
                f"the pattern of {name!r} must be a regular expression, got {pattern!r}: {wrong}"
            ) from None
        if expression.groups != 1:
            raise InvalidInput(f"the pattern of {name!r} must have one group, got {expression.groups}: {pattern!r}")
        compiled.append((name, expression))
    return compiled
