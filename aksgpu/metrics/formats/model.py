"""The types of formats and of the rows that they return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Bar", "Context", "Format", "Row"]


class Bar(NamedTuple):
    """A state of a progress bar, which a later state of the same bar replaces.

    Attributes:
        key: distinguishes the bars of one program, such as a bar's description.
        done: number of steps that are done.
        total: number of all steps, or None if the bar does not show it.
        run: distinguishes bars with the same key, if a line before them announces a new one.
    """

    key: str
    done: int
    total: int | None
    run: int = 0


@dataclass(slots=True)
class Row:
    """The numbers of one line, and their position in the training.

    Attributes:
        values: numbers by printed name.
        step: as printed; None if the line does not have it.
        step_kind: what the step counts: ``step``, ``batch``, ``samples`` or ``bar``.
        epoch: as printed, so it starts at 0 or 1 as in the program; None if the line does not have it.
        bar: set if a later line replaces this one.
        is_percent: printed names whose values are percentages although they have no percent sign.
    """

    values: dict[str, float]
    step: int | None = None
    step_kind: str = "step"
    epoch: float | None = None
    bar: Bar | None = None
    is_percent: tuple[str, ...] = ()


@dataclass(slots=True)
class Context:
    """What earlier lines of one stream say about later ones.

    Attributes:
        epoch: the newest epoch that a line named.
        position: step, its kind and the epoch from the newest line with a position and no numbers.
        bar: the newest bar, for formats that need the previous bar.
        run: number of headers of bars.
        bar_is_final: whether that bar had values that only its last state has.
        header: column names of a table that has begun.
        header_kind: the format that the table belongs to.
        columns: names of the values in a second table within the first.
        box: names and values of a box that has begun.
    """

    epoch: float | None = None
    position: tuple[int, str, float | None] | None = None
    bar: Bar | None = None
    bar_is_final: bool = False
    run: int = 0
    header: tuple[str, ...] = ()
    header_kind: str = ""
    columns: tuple[str, ...] = ()
    box: tuple[tuple[str, float | None], ...] = ()


@dataclass(frozen=True)
class Format:
    """A family of log lines.

    Attributes:
        name: as ``attrs["formats"]`` of a frame shows it.
        signs: substrings of which each line of the family has at least one, so that other lines are skipped quickly.
        read: returns the rows of a line; an empty list for a line of this family that has no numbers to keep; None for
            a line of another family.
        example: a line of the family.
    """

    name: str
    signs: tuple[str, ...]
    read: Callable[[str, Context], list[Row] | None] = field(repr=False)
    example: str = ""
