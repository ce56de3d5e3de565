"""Read a log piece by piece into a DataFrame. Each line is read once."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from aksgpu.errors import InvalidInput
from aksgpu.metrics import positions, prefixes, screen, templates
from aksgpu.metrics.formats import FORMATS, Bar, Context, Row, json_lines, progress_bars
from aksgpu.metrics.gpu_facts import FactsReader
from aksgpu.metrics.table import NO_STEP, Place, Rows
from aksgpu.metrics.templates import Reading, Template
from aksgpu.metrics.values import canonical, of_percent

__all__ = ["MetricsReader"]

MAX_LINE = 16 * 1024
"""Characters of one state of a line that are read. The rest is ignored."""
MAX_NAMES = 200
"""Maximum number of columns of metrics. Values of further names are counted in ``attrs["dropped_names"]``."""
MAX_TEMPLATE = 1024
"""Bytes of the longest line for which a template is made."""
_MAX_HEADS = 4
"""Prefixes in bytes that are removed from one line."""
SHOWN_UNREAD = 5
"""Number of unread lines that are stored."""
SHOWN_CHARACTERS = 200
"""Characters of an unread line that are stored."""

_DIGIT = re.compile(r"\d")
_HEAD = re.compile(
    rb"\[pod/[a-z0-9.-]{1,253}/[a-z0-9.-]{1,253}\] "
    rb"|\[(?:rank|default)\d{1,5}\]: ?"
    rb"|\[\d{1,5}(?:,\d{1,5})?\]<std(?:out|err)>: ?"
    rb"|\[\d{1,5}\]: ?"
)
"""Prefixes that name the pod or the rank, in bytes. Each is parsed once and remembered."""
_NODE_MESSAGE = re.compile(
    r"failed to create fsnotify watcher: |unable to retrieve container logs for |rpc error: code = \w+ desc = "
)
"""Texts that the kubelet writes into the response of the log endpoint."""


class _Source(NamedTuple):
    """The source of lines, according to the caller."""

    pod: str | None
    number: int | None
    attempt: int | None


class _Origin(NamedTuple):
    """The source of a line.

    Attributes:
        source: the source according to the caller.
        pod: the pod that the line's prefix names, or None.
        rank: the rank that the line's prefix names, or None.
        time: the server's time of the line, or None.
    """

    source: _Source
    pod: str | None = None
    rank: int | None = None
    time: str | None = None


class _Stream:
    """The state of one source of lines: a run of a container, and a rank within it."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.context = Context()
        self.pending: dict[str, _Pending] = {}
        self.finished: dict[str, dict[str, float]] = {}
        self.counts: Counter[str] = Counter()
        self.newest_step = NO_STEP
        """The step of the newest row that has one of its own. Rows without a position after it have the same step."""
        self.stepped: tuple[str, ...] = ()
        """The names of that row's metrics."""
        self.last: Template | None = None
        """The template of the line before, which most often matches the next line too. None after a line without a
        template, which may begin a table."""

    def copy(self) -> _Stream:
        """Return an independent copy."""
        other = _Stream(self.place)
        other.context = dataclasses.replace(self.context)
        other.pending = dict(self.pending)
        other.finished = dict(self.finished)
        other.counts = self.counts.copy()
        other.newest_step = self.newest_step
        other.stepped = self.stepped
        return other


class _Pending(NamedTuple):
    """The newest state of a progress bar, which the next state replaces."""

    bar: Bar
    order: int
    time: str | None
    step: int
    kind: str
    epoch: float
    values: dict[str, float]


@dataclasses.dataclass(slots=True)
class _Shape:
    """Lines that differ only in their digits.

    Attributes:
        lines: number of lines that were read without a template since the last template was tried.
        tries: number of templates that were tried.
        templates: the templates, the most recently used one first.
    """

    lines: int = 0
    tries: int = 0
    templates: list[Template] = dataclasses.field(default_factory=list)


class MetricsReader:
    r"""Turns log lines into a DataFrame, piece by piece. The result does not depend on how the log is split.

    Args:
        patterns: additional formats, tried before the built-in ones: a mapping from a metric's name to a regular
            expression with one group, or SageMaker's list of ``{"Name": ..., "Regex": ...}``.

    Raises:
        InvalidInput: a pattern is not a regular expression with exactly one group.

    Example:
        >>> reader = MetricsReader()
        >>> reader.feed("Accuracy at step 10: 0.7457\n")
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
        self._counted: Template | None = None
        """The template of the newest row, and how many rows in succession it gave that are not in the counts yet."""
        self._count = 0
        self._unread = 0
        self._unread_lines: list[str] = []
        self._names: dict[str, None] = {}
        self._dropped: Counter[str] = Counter()
        self._percent: set[str] = set()
        self._step_kinds: Counter[str] = Counter()
        self._shapes: dict[tuple[bytes, tuple[str, ...], tuple[str, ...]], _Shape] = {}
        self._heads: dict[tuple[_Source, bytes], tuple[str | None, int | None]] = {}
        self._tries = 0

    def feed(
        self, text: str | bytes, *, pod: str | None = None, index: int | None = None, attempt: int | None = None
    ) -> None:
        """Read the next piece of a log. The next piece of the same source completes an incomplete line.

        Args:
            text: text of any length, which may end within a line.
            pod: the pod's name, if it is known.
            index: completion index of the pod in an Indexed Job.
            attempt: number of the program's run, from 0.
        """
        source = _Source(pod, index, attempt)
        piece = text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
        self._facts.feed(piece)
        before = self._partial.get(source)
        lines = (before + piece if before else piece).split(b"\n")
        self._partial[source] = lines.pop()
        self._lines(lines, source)

    def frame(self) -> pd.DataFrame:
        """Return the metrics that were read so far. A last line without a newline is read as if it were complete."""
        if not any(self._partial.values()) and not any(stream.pending for stream in self._streams.values()):
            return self._table()
        ended = self._copy()
        for source, rest in self._partial.items():
            if rest:
                ended._lines([rest], source)
        for stream in ended._streams.values():
            for pending in stream.pending.values():
                ended._finish(pending, stream)
            stream.pending = {}
        return ended._table()

    def _copy(self) -> MetricsReader:
        """Return an independent copy, which shares the templates."""
        self._add_count()
        other = copy.copy(self)
        other._streams = {key: stream.copy() for key, stream in self._streams.items()}
        other._places = self._places[:]
        other._partial = {}
        other._node_messages = self._node_messages[:]
        other._rows = self._rows.copy()
        other._formats = self._formats.copy()
        other._unread_lines = self._unread_lines[:]
        other._names = dict(self._names)
        other._dropped = self._dropped.copy()
        other._percent = set(self._percent)
        other._step_kinds = self._step_kinds.copy()
        return other

    # Lines

    def _lines(self, lines: list[bytes], source: _Source) -> None:
        plain = _Origin(source)
        usual = self._stream(source, None, None)
        for line in lines:
            self._order += 1
            origin = plain
            stream = usual
            if line[4:5] == b"-" or line[:1] == b"[":
                line, origin = self._without_head(line, source)
                if origin.pod is not None or origin.rank is not None:
                    stream = self._stream(source, origin.pod, origin.rank)
            if stream.last is not None:
                found = stream.last.pattern.fullmatch(line)
                if found:
                    self._add_by_template(stream.last, found, origin.time, stream)
                    continue
            if b"\r" in line or b"\x1b" in line or b"\b" in line:
                self._screened(line.decode("utf-8", "replace"), origin)
            else:
                self._text(line, None, origin, stream)

    def _without_head(self, line: bytes, source: _Source) -> tuple[bytes, _Origin]:
        """Remove the server's time and the prefixes that name a pod or a rank."""
        time = None
        pod = None
        rank = None
        for _ in range(_MAX_HEADS):
            stamp = prefixes.server_time(line)
            if stamp:
                time = time or stamp
                line = line[len(stamp) + 1 :]
            head = _HEAD.match(line)
            if not head:
                break
            key = (source, head[0])
            named = self._heads.get(key)
            if named is None:
                stripped = prefixes.strip(head[0].decode())
                named = (stripped.pod, stripped.rank)
                self._heads[key] = named
            pod = pod or named[0]
            rank = named[1] if rank is None else rank
            line = line[head.end() :]
        return line, _Origin(source, pod, rank, time)

    def _screened(self, line: str, origin: _Origin) -> None:
        """Read a line that a terminal would show in several states."""
        if line[:1] not in ("\r", "\x1b"):
            outer = prefixes.strip(line)
            line = outer.text
            origin = _joined(origin, outer)
        stream = self._stream(origin.source, origin.pod, origin.rank)
        for state in progress_bars.without_replaced(screen.states(line)):
            self._order += 1
            self._text(state[:MAX_LINE].encode("utf-8", "replace"), state, origin, stream)

    def _text(self, line: bytes, text: str | None, origin: _Origin, stream: _Stream) -> None:
        """Read a line, or one state of it, by a template if one matches, and otherwise with the formats."""
        context = stream.context
        key = (line.translate(None, templates.DIGITS), context.header, context.columns)
        shape = self._shapes.get(key)
        if shape is None:
            shape = _Shape()
            if len(self._shapes) < templates.MAX_SHAPES and not self._patterns:
                self._shapes[key] = shape
        for template in shape.templates:
            found = template.pattern.fullmatch(line)
            if found:
                if template is not shape.templates[0]:
                    shape.templates.remove(template)
                    shape.templates.insert(0, template)
                stream.last = template
                self._add_by_template(template, found, origin.time, stream)
                return
        stream.last = None
        self._plain(line.decode("utf-8", "replace") if text is None else text, origin)
        shape.lines += 1
        if key[1:] != (context.header, context.columns):
            # The line began or ended a table, which a template does not do.
            return
        if shape.lines >= templates.LEARN_AFTER and not self._patterns:
            self._learn(shape, line, context)

    def _learn(self, shape: _Shape, line: bytes, context: Context) -> None:
        """Try to make a template from a line whose shape has occurred often enough."""
        shape.lines = templates.LEARN_AFTER // 2
        if shape.tries >= templates.MAX_VARIANTS or self._tries >= templates.MAX_TEMPLATES:
            return
        if len(line) > MAX_TEMPLATE or len(self._names) >= MAX_NAMES:
            return
        template = templates.learn(line, lambda text: self._probe(text, context))
        self._tries += 1
        if template is None:
            shape.tries += templates.MAX_VARIANTS // 4
        else:
            shape.tries += 1
            shape.templates.insert(0, template)

    def _probe(self, text: str, context: Context) -> Reading | None:
        """Read a line with the formats, without changing the reader."""
        stripped = prefixes.strip(text)
        if stripped.pod is not None or stripped.rank is not None or stripped.time is not None:
            return None
        body = stripped.text.rstrip()
        if not body or _NODE_MESSAGE.match(body):
            return None
        tried = dataclasses.replace(context, epoch=templates.CONTEXT_EPOCH)
        if context.bar is not None:
            without = dataclasses.replace(tried, bar=None, bar_is_final=False)
            if self._read(body, without) != self._read(body, dataclasses.replace(tried)):
                return None
        before = dataclasses.replace(tried)
        found, name = self._read(body, tried)
        epoch = tried.epoch
        tried.epoch = before.epoch
        if tried != before:
            return None
        changed = epoch != before.epoch
        if found is None:
            return None if changed else Reading(None, "" if _DIGIT.search(body) else templates.NO_NUMBERS, False)
        if not found and not changed:
            return Reading(None, name, False)
        if len(found) != 1 or (changed and epoch != found[0].epoch):
            return None
        return Reading(found[0], name, changed)

    def _add_by_template(self, template: Template, found: re.Match[bytes], time: str | None, stream: _Stream) -> None:
        if not template.names:
            if template.format == "":
                self._note_unread(found[0])
            elif template.format != templates.NO_NUMBERS:
                self._formats[template.format] += 1
            return
        if template is self._counted:
            self._count += 1
        else:
            self._add_count()
            self._counted = template
            self._count = 1
        groups = found.groups()
        context = stream.context
        if template.groups is None:
            values = [_number(source, groups) for source in template.sources]
        else:
            values = [float(groups[group]) for group in template.groups]
        epoch = math.nan
        if template.epoch is not None:
            if template.epoch.group == templates.FROM_CONTEXT:
                epoch = math.nan if context.epoch is None else context.epoch
            else:
                epoch = float(groups[template.epoch.group])
            if template.sets_epoch:
                context.epoch = epoch
        if template.step_group >= 0:
            context.position = None
            step = int(groups[template.step_group])
            if template.step_kind == "step":
                stream.newest_step = step
                stream.stepped = template.names
            self._rows.append(self._order, stream.place, time, step, epoch, template.names, values)
            return
        step_or_none = None if template.step is None else int(groups[template.step.group])
        bar = None
        if template.bar_key is not None and template.done is not None:
            total = None if template.total is None else int(groups[template.total.group])
            bar = Bar(template.bar_key, int(groups[template.done.group]), total)
        self._place(step_or_none, template.step_kind, epoch, template.names, values, bar, time, stream)

    def _add_count(self) -> None:
        """Add the rows of the newest template to the counts. Doing this for each row would take 8 % of the time."""
        if self._counted is None:
            return
        self._formats[self._counted.format] += self._count
        if self._counted.step_group >= 0:
            self._step_kinds[self._counted.step_kind] += self._count
        self._counted = None

    def _plain(self, text: str, origin: _Origin) -> None:
        """Read one line, or one state of it, with the formats."""
        self._add_count()
        own = prefixes.strip(text[:MAX_LINE])
        body = own.text.rstrip()
        if not body:
            return
        if _NODE_MESSAGE.match(body):
            self._node_messages.append(body[:SHOWN_CHARACTERS])
            return
        origin = _joined(origin, own)
        stream = self._stream(origin.source, origin.pod, origin.rank)
        found, name = self._read(body, stream.context)
        if found is None:
            if _DIGIT.search(body):
                self._note_unread(text)
            return
        self._formats[name] += 1
        for row in found:
            self._order += 1
            self._add(row, origin.time, stream)

    def _stream(self, source: _Source, pod: str | None, rank: int | None) -> _Stream:
        pod = pod or source.pod
        key = (source, pod, rank)
        stream = self._streams.get(key)
        if stream is None:
            place = Place(len(self._places), pod, source.number, rank, source.attempt)
            self._places.append(place)
            stream = _Stream(place.ordinal)
            self._streams[key] = stream
        return stream

    def _read(self, text: str, context: Context) -> tuple[list[Row] | None, str]:
        """Return the rows of a line and the name of the format that claims it; None if no format does."""
        found, name = self._read_formats(text, context)
        own: dict[str, float] = {}
        for metric, pattern in self._patterns:
            match = pattern.search(text)
            if match:
                with contextlib.suppress(ValueError, TypeError):
                    own[metric] = float(match[1])
        if not own:
            return found, name
        if found:
            found[0].values.update(own)
            return found, name
        position = positions.find(text)
        epoch = context.epoch if position.epoch is None else position.epoch
        return [Row(own, position.step, position.step_kind, epoch)], "pattern"

    def _read_formats(self, text: str, context: Context) -> tuple[list[Row] | None, str]:
        drawn = progress_bars.find(text) if context.header_kind != "ultralytics" else None
        if drawn is not None:
            return self._read_bar(drawn, context)
        for form in FORMATS:
            for sign in form.signs:
                if sign in text:
                    found = form.read(text, context)
                    if found is not None:
                        return found, form.name
                    break
        inner = json_lines.message(text) if text[:1] == "{" else None
        if inner:
            return self._read_formats(prefixes.strip(inner).text.rstrip(), context)
        return None, ""

    def _read_bar(self, drawn: progress_bars.Drawn, context: Context) -> tuple[list[Row], str]:
        """Read a bar, and the text after it in the same line."""
        rest = prefixes.strip(drawn.rest).text
        after: list[Row] | None = None
        name = "progress bar"
        if rest:
            after, other = self._read_formats(rest, context)
            name = other if after else name
        rows = progress_bars.rows(drawn, context)
        for row in after or []:
            if row.step is None and row.bar is None:
                row.step = drawn.bar.done
                row.step_kind = "bar"
            rows.append(row)
        return rows, name

    # Rows

    def _add(self, row: Row, time: str | None, stream: _Stream) -> None:
        values = {name: value for name, value in row.values.items() if self._keeps(name)}
        if not values:
            return
        self._percent.update(row.is_percent)
        epoch = math.nan if row.epoch is None else float(row.epoch)
        self._place(row.step, row.step_kind, epoch, tuple(values), list(values.values()), row.bar, time, stream)

    def _place(
        self,
        step: int | None,
        kind: str,
        epoch: float,
        names: tuple[str, ...],
        values: list[float],
        bar: Bar | None,
        time: str | None,
        stream: _Stream,
    ) -> None:
        """Store the values of a line as a row, or as the newest state of its bar."""
        if step is not None and bar is None:
            stream.context.position = None
            if kind == "step":
                stream.newest_step = step
                stream.stepped = names
        if step is None:
            step, kind = self._step(epoch, names[0], stream)
        if bar is None:
            self._step_kinds[kind] += 1
            self._rows.append(self._order, stream.place, time, step, epoch, names, values)
            return
        before = stream.pending.get(bar.key)
        if before is not None and not _replaces(bar, epoch, before):
            self._finish(before, stream)
        found = dict(zip(names, values, strict=True))
        stream.pending[bar.key] = _Pending(bar, self._order, time, step, kind, epoch, found)

    def _finish(self, pending: _Pending, stream: _Stream) -> None:
        """Store the last state of a bar as a row."""
        bar = pending.bar
        values = pending.values
        before = stream.finished.get(bar.key)
        if before is not None:
            if bar.key == progress_bars.OVER_EPOCHS:
                # The bar advances after an epoch, and shows the epoch's values once more.
                values = {} if bar.done == bar.total and values == before else values
            elif bar.done != bar.total:
                # A bar that begins again shows values of the previous epoch until it has new ones.
                values = {name: value for name, value in values.items() if before.get(name) != value}
        if not values:
            return
        stream.finished[bar.key] = pending.values
        self._step_kinds[pending.kind] += 1
        names = tuple(values)
        self._rows.append(
            pending.order, stream.place, pending.time, pending.step, pending.epoch, names, values.values()
        )

    def _step(self, epoch: float, first: str, stream: _Stream) -> tuple[int, str]:
        """Return the step of a row that has none: that of the line before, or otherwise a count."""
        position = stream.context.position
        if position is not None and position[2] == stream.context.epoch:
            return position[0], position[1]
        if not math.isnan(epoch):
            return NO_STEP, "none"
        if stream.newest_step != NO_STEP and first not in stream.stepped:
            return stream.newest_step, "step"
        count = stream.counts[first]
        stream.counts[first] = count + 1
        return count, "count"

    def _keeps(self, name: str) -> bool:
        if name in self._names:
            return True
        if len(self._names) >= MAX_NAMES:
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
        self._add_count()
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


def _joined(origin: _Origin, stripped: prefixes.Prefixes) -> _Origin:
    """Return the source of a line, with the content of its own prefixes."""
    if stripped.pod is None and stripped.rank is None and stripped.time is None:
        return origin
    rank = stripped.rank if stripped.rank is not None else origin.rank
    return _Origin(origin.source, origin.pod or stripped.pod, rank, origin.time or stripped.time)


def _number(source: templates.Source, groups: tuple[Any, ...]) -> float:
    """Return a value of a line that a template matched."""
    if source.group < 0:
        return source.constant
    value = float(groups[source.group])
    return of_percent(value) if source.is_percent else value


def _replaces(bar: Bar, epoch: float, before: _Pending) -> bool:
    """Return whether a bar's state replaces an older one: same bar, same epoch, and no smaller step."""
    same_epoch = epoch == before.epoch or (math.isnan(epoch) and math.isnan(before.epoch))
    return same_epoch and bar.run == before.bar.run and bar.total == before.bar.total and bar.done >= before.bar.done


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
