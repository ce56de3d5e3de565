"""A fast path for lines that differ from an earlier line only in their digits.

Most lines of a log have one of a few shapes. When a shape has occurred several times, the formats read the line with
other digits in it. If each value in the result is one of these numbers, the shape becomes a template: a pattern whose
groups are the numbers. Later lines of the shape are read with that pattern alone.

A template accepts runs of digits of other lengths only if the formats read lines with these lengths in the same way.
Digits within a word, as in ``Acc@1``, belong to the shape.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from aksgpu.metrics.formats.model import Row
from aksgpu.metrics.values import of_percent

__all__ = [
    "CONSTANT",
    "CONTEXT_EPOCH",
    "DIGITS",
    "FROM_CONTEXT",
    "LEARN_AFTER",
    "MAX_SHAPES",
    "MAX_TEMPLATES",
    "MAX_VARIANTS",
    "NO_NUMBERS",
    "Read",
    "Reading",
    "Source",
    "Template",
    "learn",
]

DIGITS = b"0123456789"
LEARN_AFTER = 4
"""Lines of one shape after which a template is tried."""
MAX_SHAPES = 4096
"""Maximum number of shapes that are remembered. In a log with more shapes, few of them repeat."""
MAX_TEMPLATES = 512
"""Maximum number of templates that are tried. Each takes some milliseconds."""
MAX_VARIANTS = 24
"""Maximum number of templates of one shape, which differ in the lengths of their numbers."""
CONTEXT_EPOCH = 918273.6455
"""The epoch of earlier lines while a template is tried. A row with this epoch takes its epoch from them."""
NO_NUMBERS = "no numbers"
"""Format of lines that no format claims and that have no numbers after their prefixes. They are not counted."""
FROM_CONTEXT = -2
"""Group of a value that comes from earlier lines."""
CONSTANT = -1
"""Group of a value that is the same in each line of the shape."""

_RUN = re.compile(rb"[0-9]+")
_NUMBER = re.compile(rb"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_WORD = re.compile(rb"[A-Za-z_@]")
_LONGEST_FRACTION = 24
"""Digits after the decimal point that a template accepts."""
_LONGEST_RUN = 15
"""Digits in a row that a template accepts. A line with a longer run is read with the formats."""
_GROUP_BEFORE = re.compile(rb"[0-9][-:/,T]")
_GROUP_AFTER = re.compile(rb"[-:/,T][0-9]")
"""A digit and a separator of dates and times, before and after a run of digits."""
_LENGTHS = (1, 2, 3, 4, 5, 8, 15)
"""Lengths of a whole number that are tried."""
_FRACTION_LENGTHS = (1, 2, 3, 6, 17, 24)
"""Numbers of digits after the decimal point that are tried."""
_PROBES = 3
"""Lines with other digits from which a template is made."""


class Reading(NamedTuple):
    """The result of the formats for a line: its only row, or None if no format claims the line.

    Attributes:
        row: the row.
        format: name of the format that claimed the line; empty if none did.
        sets_epoch: whether the line's epoch is the epoch of the lines after it.
    """

    row: Row | None
    format: str
    sets_epoch: bool


class Source(NamedTuple):
    """Where a value comes from: a number of the line, or a constant.

    Attributes:
        group: ordinal of the number in the line, or :data:`CONSTANT` or :data:`FROM_CONTEXT`.
        constant: the value if no group has it.
        is_percent: whether the value has a percent sign.
    """

    group: int
    constant: float
    is_percent: bool


@dataclass(frozen=True)
class Template:
    """How to read lines of one shape.

    Attributes:
        pattern: matches such a line; each number is a group.
        format: name of the format; empty if no format claims such a line.
        step: where the step comes from, or None.
        step_kind: what the step counts.
        epoch: where the epoch comes from, or None.
        sets_epoch: whether the line's epoch is the epoch of the lines after it.
        names: the metrics' printed names.
        sources: where each metric's value comes from.
        is_percent: names whose values are percentages.
        bar_key: key of the bar that the line shows, or None.
        done: where the bar's steps come from.
        total: where the bar's length comes from, or None.
    """

    pattern: re.Pattern[bytes]
    format: str
    step: Source | None = None
    step_kind: str = "step"
    epoch: Source | None = None
    sets_epoch: bool = False
    names: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    is_percent: tuple[str, ...] = ()
    bar_key: str | None = None
    done: Source | None = None
    total: Source | None = None

    @cached_property
    def step_group(self) -> int:
        """The group of the step of a line that is a row by itself; -1 if the line has no step, or is a bar."""
        return self.step.group if self.step is not None and self.bar_key is None else -1

    @cached_property
    def groups(self) -> tuple[int, ...] | None:
        """The groups of the metrics' values, or None if one is a percentage or a constant."""
        if any(source.is_percent or source.group < 0 for source in self.sources):
            return None
        return tuple(source.group for source in self.sources)


Read = Callable[[str], Reading | None]


def learn(line: bytes, read: Read) -> Template | None:
    """Return a template for the lines of this shape, or None if none is possible.

    Args:
        line: one line of the shape.
        read: reads a line with the formats, without changing the reader; returns None if the line gives more than one
            row.
    """
    runs = _runs(line)
    if any(len(run.digits) > _LONGEST_FRACTION for run in runs):
        return None
    chooser = random.Random(line)
    first = read(line.decode("utf-8", "replace"))
    if first is None:
        return None
    probes = [_probe(line, runs, chooser) for _ in range(_PROBES)]
    template = _fit(probes, first, read)
    if template is None:
        return None
    kinds = [_kind(line, runs, run, template, first, read, chooser) for run in runs]
    return replace(template, pattern=_pattern(line, runs, kinds))


class _Run(NamedTuple):
    """A run of digits in a line.

    Attributes:
        start: index of its first digit.
        digits: the digits.
        is_word: whether it is a part of a word, and not of a number.
    """

    start: int
    digits: bytes
    is_word: bool


def _runs(line: bytes) -> list[_Run]:
    words: set[int] = set()
    for token in _NUMBER.finditer(line):
        if _WORD.match(line[token.start() - 1 : token.start()]):
            words.update(range(token.start(), token.end()))
    return [_Run(run.start(), run[0], run.start() in words) for run in _RUN.finditer(line)]


def _fit(probes: list[bytes], first: Reading, read: Read) -> Template | None:
    """Return the template that gives the formats' result for each probe. Its pattern is still empty."""
    readings = [read(probe.decode("utf-8", "replace")) for probe in probes]
    outline = _outline(first)
    rows = []
    for reading in readings:
        if reading is None or _outline(reading) != outline:
            return None
        if reading.row is not None:
            rows.append(reading.row)
    empty = re.compile(b"")
    if first.row is None:
        # A fraction is read if it is at most 1, which other digits may change.
        return None if b"/" in probes[0] else Template(empty, first.format)
    numbers = [[float(token) for token in _NUMBER.findall(probe)] for probe in probes]
    names = tuple(first.row.values)
    sources = [_source([row.values[name] for row in rows], numbers) for name in names]
    known = tuple(source for source in sources if source is not None)
    step = None if first.row.step is None else _source([float(row.step or 0) for row in rows], numbers)
    epoch = None if first.row.epoch is None else _source([row.epoch or 0.0 for row in rows], numbers)
    done = None
    total = None
    if first.row.bar is not None:
        done = _source([float(row.bar.done) for row in rows if row.bar], numbers)
        if first.row.bar.total is not None:
            total = _source([float(row.bar.total or 0) for row in rows if row.bar], numbers)
            if total is None:
                return None
        if done is None:
            return None
    if len(known) != len(names) or (first.row.step is not None and step is None):
        return None
    if first.row.epoch is not None and epoch is None:
        return None
    return Template(
        empty,
        first.format,
        step,
        first.row.step_kind,
        epoch,
        first.sets_epoch,
        names,
        known,
        first.row.is_percent,
        None if first.row.bar is None else first.row.bar.key,
        done,
        total,
    )


def _outline(reading: Reading) -> tuple[object, ...]:
    row = reading.row
    if row is None:
        return (reading.format,)
    return (
        reading.format,
        reading.sets_epoch,
        tuple(row.values),
        row.step is None,
        row.step_kind,
        row.epoch is None,
        row.is_percent,
        None if row.bar is None else (row.bar.key, row.bar.total is None),
    )


def _kind(
    line: bytes,
    runs: list[_Run],
    run: _Run,
    template: Template,
    first: Reading,
    read: Read,
    chooser: random.Random,
) -> bytes:
    """Return the pattern of a run of digits: the digits with which the formats read the line in the same way."""
    if run.is_word:
        return run.digits

    def agrees(lengths: tuple[int, ...], starts: str) -> bool:
        for length in lengths:
            probes = [_probe(line, runs, chooser, run, length, starts) for _ in range(2)]
            if _fit(probes, first, read) != template:
                return False
        return True

    count = len(run.digits)
    is_fraction = line[run.start - 1 : run.start] == b"."
    has_zero = run.digits[:1] == b"0" and count > 1
    if template.format in ("", NO_NUMBERS):
        # Each of several numbers may be the reason why no format claims the line, so they are not tried one by one.
        if count == 1 or b"{" not in line:
            return b"[0-9]{%d}" % count
        return (b"0" if has_zero else b"[1-9]") + b"[0-9]{%d}" % (count - 1)
    may_begin_differently = count == 1 or agrees((count,), "123456789" if has_zero else "0")
    if _is_in_a_group(line, run) or not agrees(_FRACTION_LENGTHS if is_fraction else _LENGTHS, "123456789"):
        if may_begin_differently:
            return b"[0-9]{%d}" % count
        return (b"0" if has_zero else b"[1-9]") + b"[0-9]{%d}" % (count - 1)
    if has_zero and not may_begin_differently:
        return b"0[0-9]{%d}" % (count - 1)
    if is_fraction:
        return b"[0-9]{1,%d}" % _LONGEST_FRACTION
    if agrees((2, 5), "0"):
        return b"[0-9]{1,%d}" % _LONGEST_RUN
    return b"(?:0|[1-9][0-9]{0,%d})" % (_LONGEST_RUN - 1)


def _is_in_a_group(line: bytes, run: _Run) -> bool:
    """Return whether a run belongs to a date, a time or a similar value that has several numbers."""
    end = run.start + len(run.digits)
    return bool(_GROUP_BEFORE.match(line[run.start - 2 : run.start]) or _GROUP_AFTER.match(line[end : end + 2]))


def _probe(
    line: bytes,
    runs: list[_Run],
    chooser: random.Random,
    varied: _Run | None = None,
    length: int = 0,
    starts: str = "",
) -> bytes:
    """Return a line with other digits. The run ``varied`` gets another length and begins with one of ``starts``."""
    parts = []
    position = 0
    for run in runs:
        parts.append(line[position : run.start])
        if run is varied:
            others = "".join(chooser.choice("0123456789") for _ in range(length - 1))
            parts.append((chooser.choice(starts) + others).encode())
        elif run.is_word:
            parts.append(run.digits)
        else:
            parts.append(_digits_like(run.digits, chooser))
        position = run.start + len(run.digits)
    parts.append(line[position:])
    return b"".join(parts)


def _digits_like(run: bytes, chooser: random.Random) -> bytes:
    length = len(run)
    first = "0" if run[:1] == b"0" and length > 1 else chooser.choice("123456789")
    return (first + "".join(chooser.choice("0123456789") for _ in range(length - 1))).encode()


def _pattern(line: bytes, runs: list[_Run], kinds: list[bytes]) -> re.Pattern[bytes]:
    """Return the pattern of a line's shape, with a group for each number."""
    pieces = [re.escape(line[place : place + 1]) for place in range(len(line))]
    for run, kind in zip(runs, kinds, strict=True):
        for place in range(run.start, run.start + len(run.digits)):
            pieces[place] = b""
        pieces[run.start] = kind
    for token in _NUMBER.finditer(line):
        pieces[token.start()] = b"(" + pieces[token.start()]
        pieces[token.end() - 1] += b")"
    return re.compile(b"".join(pieces))


def _source(values: list[float], numbers: list[list[float]]) -> Source | None:
    """Return the source of a value: the number that equals it in each probe. None if there is not exactly one."""
    if all(value == CONTEXT_EPOCH for value in values):
        return Source(FROM_CONTEXT, 0.0, False)
    if all(math.isnan(value) for value in values):
        return Source(CONSTANT, math.nan, False)
    if all(math.isinf(value) for value in values) and len(set(values)) == 1:
        return Source(CONSTANT, values[0], False)
    for is_percent in (False, True):
        fitting = [
            group
            for group in range(len(numbers[0]))
            if all(
                (of_percent(found[group]) if is_percent else found[group]) == value
                for found, value in zip(numbers, values, strict=True)
            )
        ]
        if len(fitting) == 1:
            return Source(fitting[0], 0.0, is_percent)
    return None
