"""A fast way for lines that differ from an earlier line in their digits only.

Most lines of a log have one of a few shapes. When a shape has come several times, the plain reader is asked what it
makes of the line with other digits in it. Where each result is one of those numbers again, the shape becomes a
template: a pattern whose groups are the numbers. Later lines of the shape are read by that pattern alone.

A run of digits may have another length in a later line only if the plain reader does not mind: that is tried as well.
Digits within a word, as in ``Acc@1``, belong to the shape.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from aksgpu.metrics.formats.model import Row

DIGITS = b"0123456789"
LEARN_AFTER = 4
"""Lines of one shape after which a template is tried."""
MOST_SHAPES = 4096
"""Shapes that are remembered. A log with more has no shapes worth remembering."""
MOST_TEMPLATES = 512
"""Shapes for which a template is tried. To try one takes some milliseconds."""
MOST_VARIANTS = 24
"""Templates of one shape, which differ in the lengths of their numbers."""
CONTEXT_EPOCH = 918273.6455
"""The epoch of the lines before, while a template is tried. A row that has it takes its epoch from there."""
FROM_CONTEXT = -2
"""Group of a value that comes from the lines before."""
CONSTANT = -1
"""Group of a value that is the same in each line of the shape."""

_RUN = re.compile(rb"[0-9]+")
_NUMBER = re.compile(rb"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_WORD = re.compile(rb"[A-Za-z_@]")
_LONGEST_RUN = 17
"""Digits in a row that a template takes. A line with a longer run is read by the plain reader."""
_LENGTHS = (1, 2, 3, 4, 5, 8, 15)
"""Lengths of a whole number that are tried."""
_FRACTION_LENGTHS = (1, 2, 3, 6, 17)
"""Lengths of digits behind a point that are tried."""
_PROBES = 3
_DIVISORS = (1.0, 100.0)


class Reading(NamedTuple):
    """What the plain reader makes of a line: the one row, or None where nobody claims the line.

    Attributes:
        row: the row.
        format: name of the format that claimed the line; empty where none did.
        sets_epoch: the line's epoch is the epoch of the lines after it.
    """

    row: Row | None
    format: str
    sets_epoch: bool


class Source(NamedTuple):
    """Where a value comes from: a number of the line, divided by ``divisor``; or a constant.

    Attributes:
        group: ordinal of the number in the line, or :data:`CONSTANT` or :data:`FROM_CONTEXT`.
        constant: the value where there is no group.
        divisor: 100 where a percent sign was seen, else 1.
    """

    group: int
    constant: float
    divisor: float


@dataclass(frozen=True)
class Template:
    """How to read lines of one shape.

    Attributes:
        pattern: matches such a line; each number is a group.
        format: name of the format; empty where no format claims such a line.
        step: where the step comes from, or None.
        step_kind: what the step counts.
        epoch: where the epoch comes from, or None.
        sets_epoch: the line's epoch is the epoch of the lines after it.
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


Read = Callable[[str], Reading | None]


def learn(line: bytes, read: Read) -> Template | None:
    """Return a template for the lines of this shape, or None where there can be none.

    Args:
        line: one line of the shape.
        read: what the plain reader makes of a line, without changing the reader; None where the line gives
            anything but one row or none.
    """
    runs = _runs(line)
    if any(len(run.digits) > _LONGEST_RUN for run in runs):
        return None
    chooser = random.Random(line)
    first = read(line.decode("utf-8", "replace"))
    if first is None:
        return None
    probes = [_probe(line, runs, chooser) for _ in range(_PROBES)]
    template = _fit(probes, first, read)
    if template is None:
        return None
    loose = [_may_vary(line, runs, run, template, first, read, chooser) for run in runs]
    return replace(template, pattern=_pattern(line, runs, loose))


class _Run(NamedTuple):
    """A run of digits in a line.

    Attributes:
        start: place of its first digit.
        digits: the digits.
        is_word: a part of a word, and not of a number.
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
    """Return the template that explains what the plain reader makes of each probe; its pattern is still empty."""
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
        return Template(empty, first.format)
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


def _may_vary(
    line: bytes,
    runs: list[_Run],
    run: _Run,
    template: Template,
    first: Reading,
    read: Read,
    chooser: random.Random,
) -> bool:
    """Return whether a run of digits may have any length, for all that the plain reader makes of the line."""
    if run.is_word:
        return False
    is_fraction = line[run.start - 1 : run.start] == b"."
    for length in _FRACTION_LENGTHS if is_fraction else _LENGTHS:
        probes = [_probe(line, runs, chooser, run, length) for _ in range(2)]
        fitted = _fit(probes, first, read)
        if fitted is None or fitted != template:
            return False
    return True


def _probe(line: bytes, runs: list[_Run], chooser: random.Random, varied: _Run | None = None, length: int = 0) -> bytes:
    """Return a line with other digits. The run ``varied`` gets another length."""
    parts = []
    position = 0
    for run in runs:
        parts.append(line[position : run.start])
        if run is varied:
            parts.append("".join(chooser.choice("123456789") for _ in range(length)).encode())
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


def _pattern(line: bytes, runs: list[_Run], loose: list[bool]) -> re.Pattern[bytes]:
    """Return the pattern of a line's shape, with a group for each number."""
    pieces = [re.escape(line[place : place + 1]) for place in range(len(line))]
    for run, may_vary in zip(runs, loose, strict=True):
        if run.is_word:
            continue
        length = b"{1,%d}" % _LONGEST_RUN if may_vary else b"{%d}" % len(run.digits)
        for place in range(run.start, run.start + len(run.digits)):
            pieces[place] = b""
        pieces[run.start] = b"[0-9]" + length
    for token in _NUMBER.finditer(line):
        pieces[token.start()] = b"(" + pieces[token.start()]
        pieces[token.end() - 1] += b")"
    return re.compile(b"".join(pieces))


def _source(values: list[float], numbers: list[list[float]]) -> Source | None:
    """Return the number that gives this value in each probe, or None where several or none do."""
    if all(value == CONTEXT_EPOCH for value in values):
        return Source(FROM_CONTEXT, 0.0, 1.0)
    if all(math.isnan(value) for value in values):
        return Source(CONSTANT, math.nan, 1.0)
    if all(math.isinf(value) for value in values) and len(set(values)) == 1:
        return Source(CONSTANT, values[0], 1.0)
    for divisor in _DIVISORS:
        fitting = [
            group
            for group in range(len(numbers[0]))
            if all(found[group] / divisor == value for found, value in zip(numbers, values, strict=True))
        ]
        if len(fitting) == 1:
            return Source(fitting[0], 0.0, divisor)
    return None
