"""A fast way for lines that differ from an earlier line in their digits only.

Most lines of a log have one of a few shapes. When a shape has come several times, the plain reader is asked what it makes
of the line with other digits in it. Where each result is one of those numbers again, the shape becomes a template: a
pattern whose groups are the numbers. Later lines of the shape are read by that pattern alone.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from aksgpu.metrics.formats.model import Row

DIGITS = b"0123456789"
_RUN = re.compile(rb"[0-9]+")
_LONGEST_RUN = 15
"""Digits in a row that a template takes. A longer run is read by the plain reader."""
LEARN_AFTER = 3
"""Lines of one shape after which a template is tried."""
MOST_SHAPES = 4096
"""Shapes that are remembered. A log with more has no shapes worth remembering."""
_PROBES = 3
CONTEXT_EPOCH = 918273.6455
"""The epoch of the lines before, while a template is tried. A row that has it takes its epoch from there."""
FROM_CONTEXT = -2
"""Group of a value that comes from the lines before."""


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
        group: ordinal of the number in the line, or -1 for a constant.
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
        format: name of the format.
        step: where the step comes from, or None.
        step_kind: what the step counts.
        epoch: where the epoch comes from, or None.
        sets_epoch: the line's epoch is the epoch of the lines after it.
        names: the metrics' printed names.
        sources: where each metric's value comes from.
        is_percent: names whose values are percentages.
    """

    pattern: re.Pattern[bytes]
    format: str
    step: Source | None
    step_kind: str
    epoch: Source | None
    sets_epoch: bool
    names: tuple[str, ...]
    sources: tuple[Source, ...]
    is_percent: tuple[str, ...]


_NUMBER = re.compile(rb"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


def shape(line: bytes) -> bytes:
    """Return what lines of one shape have in common: all but the digits."""
    return line.translate(None, DIGITS)


def learn(line: bytes, read: Callable[[str], Reading | None]) -> Template | None:
    """Return a template for the lines of this shape, or None where there can be none.

    Args:
        line: one line of the shape.
        read: what the plain reader makes of a line, without changing the reader; None where the line gives
            anything but one row or none.
    """
    if any(len(run) > _LONGEST_RUN for run in _RUN.findall(line)):
        return None
    chooser = random.Random(line)
    readings = []
    for probe in [line, *(_other_digits(line, chooser) for _ in range(_PROBES))]:
        reading = read(probe.decode("utf-8", "replace"))
        if reading is None:
            return None
        readings.append((probe, reading))
    first = readings[0][1]
    if any(_outline(reading) != _outline(first) for _, reading in readings):
        return None
    numbers = [[float(token) for token in _NUMBER.findall(probe)] for probe, _ in readings]
    if first.row is None:
        return Template(_pattern(line), first.format, None, "", None, False, (), (), ())
    numbers = numbers[1:]
    rows = [reading.row for _, reading in readings[1:] if reading.row is not None]
    names = tuple(first.row.values)
    sources = [_source([row.values[name] for row in rows], numbers) for name in names]
    step = None if first.row.step is None else _source([float(row.step or 0) for row in rows], numbers)
    epoch = None if first.row.epoch is None else _source([row.epoch or 0.0 for row in rows], numbers)
    known = [source for source in sources if source is not None]
    if len(known) != len(names) or (first.row.step is not None and step is None):
        return None
    if first.row.epoch is not None and epoch is None:
        return None
    return Template(
        _pattern(line),
        first.format,
        step,
        first.row.step_kind,
        epoch,
        first.sets_epoch,
        names,
        tuple(known),
        first.row.is_percent,
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
        row.bar is None,
    )


def _other_digits(line: bytes, chooser: random.Random) -> bytes:
    """Replace each run of digits by another one of the same length, all of them different."""

    def other(run: re.Match[bytes]) -> bytes:
        length = len(run[0])
        first = "0" if run[0][:1] == b"0" and length > 1 else chooser.choice("123456789")
        return (first + "".join(chooser.choice("0123456789") for _ in range(length - 1))).encode()

    return _RUN.sub(other, line)


def _pattern(line: bytes) -> re.Pattern[bytes]:
    """Return the pattern of a line's shape, with a group for each number."""
    parts = []
    position = 0
    for token in _NUMBER.finditer(line):
        parts.append(re.escape(line[position : token.start()]))
        parts.append(b"(" + _loose(token[0]) + b")")
        position = token.end()
    parts.append(re.escape(line[position:]))
    return re.compile(b"".join(parts))


def _loose(token: bytes) -> bytes:
    runs = _RUN.sub(b"\x00", re.escape(token))
    return runs.replace(b"\x00", b"[0-9]{1,%d}" % _LONGEST_RUN)


def _source(values: list[float], numbers: list[list[float]]) -> Source | None:
    """Return the number that gives this value in each probe, or None where several or none do."""
    if all(value == CONTEXT_EPOCH for value in values):
        return Source(FROM_CONTEXT, 0.0, 1.0)
    if all(math.isnan(value) for value in values):
        return Source(-1, math.nan, 1.0)
    if all(math.isinf(value) for value in values) and len(set(values)) == 1:
        return Source(-1, values[0], 1.0)
    for divisor in (1.0, 100.0):
        fitting = [
            group
            for group in range(len(numbers[0]))
            if all(found[group] / divisor == value for found, value in zip(numbers, values, strict=True))
        ]
        if len(fitting) == 1:
            return Source(fitting[0], 0.0, divisor)
    return None
