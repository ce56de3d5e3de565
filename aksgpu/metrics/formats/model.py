"""What a format is: how it claims a line, and what it makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


class Bar(NamedTuple):
    """A state of a progress bar, which a later state of the same bar replaces.

    Attributes:
        key: tells the bars of one program apart, such as a bar's description.
        done: steps that are done.
        total: steps that the bar has, or None where it does not say.
        run: tells bars with the same key apart, where a line before them says that a new one begins.
    """

    key: str
    done: int
    total: int | None
    run: int = 0


@dataclass(slots=True)
class Row:
    """What one line tells: numbers by the printed names, and where in the training they belong.

    Attributes:
        values: numbers by printed name.
        step: as printed; None where the line does not say.
        step_kind: what the step counts: ``step``, ``batch``, ``samples`` or ``bar``.
        epoch: as printed, so it begins with 0 or 1 as the program does; None where the line does not say.
        bar: set where a later line replaces this one.
        is_percent: printed names whose values are percentages although no percent sign stands in the line.
    """

    values: dict[str, float]
    step: int | None = None
    step_kind: str = "step"
    epoch: float | None = None
    bar: Bar | None = None
    is_percent: tuple[str, ...] = ()


@dataclass(slots=True)
class Context:
    """What the lines before told about the ones after, for one stream of lines.

    Attributes:
        epoch: the newest epoch that a line named.
        position: step, its kind and the epoch from the newest line that gave a position and no numbers.
        bar: the newest bar, where a format tells its bars apart by the one before.
        run: how many headers of bars came.
        bar_is_final: that bar had values that only its last state has.
        header: column names of a table that has begun.
        header_kind: the format that the table belongs to.
        columns: names of the values in a second table, which comes and goes within the first.
    """

    epoch: float | None = None
    position: tuple[int, str, float | None] | None = None
    bar: Bar | None = None
    bar_is_final: bool = False
    run: int = 0
    header: tuple[str, ...] = ()
    header_kind: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """A family of log lines.

    Attributes:
        name: as ``attrs["formats"]`` of a frame shows it.
        signs: substrings of which a line has at least one, so that most lines are passed over quickly.
        read: returns the rows of a line; an empty list for a line of this family that has no numbers to keep; None for
            a line of another family.
        example: a line of the family.
    """

    name: str
    signs: tuple[str, ...]
    read: Callable[[str, Context], list[Row] | None] = field(repr=False)
    example: str = ""
