"""Tables: CSV, Markdown and aligned columns with an epoch or a step first, and boxes of names and values."""

from __future__ import annotations

import re

from aksgpu.metrics.formats.model import Context, Format, Row
from aksgpu.metrics.values import EPOCH_NAMES, NUMBER, STEP_NAMES, integer, is_metric, names_a_measure, share

__all__ = ["FORMATS", "read_box", "read_columns"]

_FIRST = re.compile(
    r"[|\s]{0,8}(?i:(?:current_|train_)?epoch|ep|iter(?:ation)?|(?:global_)?steps?|round)\s{0,80}[|,\t ]"
)
"""The beginning of a header, by which most other lines are recognised quickly."""
_NAME = re.compile(r"[A-Za-z][\w@/.:%()\-]{0,60}(?: [A-Za-z][\w@/.%()\-]{0,60}){0,3}")
_CELL = re.compile(rf"({NUMBER})\s?(%?)")
_EMPTY = frozenset({"", "-", "None", "none", "N/A", "n/a", "No log"})
"""Cells of a metric that has no value in a row."""
_RULE = re.compile(r"[\s|:+\-]{3,2000}")
_GAP = re.compile(r"\s{2,80}")
_OTHER_HEADER = re.compile(r"[A-Za-z_]\w{0,60}(?:,[A-Za-z_]\w{0,60}){1,100}\s{0,8}")
"""The header of another CSV, which ends a table."""
_COLUMN_LIMIT = 100
"""Columns of a table."""
_MIN_COLUMNS = 2
_KIND = "columns"
_MULTIPLE_STEPS = frozenset({"iter", "iteration", "step", "global_step", "steps", "round"})

_BOX_ROW = re.compile(
    r"\|\s{1,80}(?P<name>[A-Za-z][\w@/.\- ]{0,80}?)\s{1,80}\|"
    rf"\s{{1,80}}(?P<value>{NUMBER})?\s{{0,80}}\|"
    r"|\u2502\s{1,8}(?P<alone>[A-Za-z][\w@/.\-]{0,80})\s{2,80}"
    rf"(?P<number>{NUMBER})\s{{1,80}}\u2502"
)
_BOX_END = re.compile(r"[-=+\u2500\u256d\u256e\u2570\u256f\u2514\u2518\u2534]{8,400}")
_BOX_KIND = "box"
_SECTIONS = frozenset({"rollout/", "train/", "eval/"})
"""Headings in Stable-Baselines3's boxes. They show that the box is about training."""
_BOX_LIMIT = 200
"""Rows of a box."""
_TOTAL = "total_timesteps"
"""The step that takes precedence over others in a box."""


def read_columns(text: str, context: Context) -> list[Row] | None:
    """Read a table whose first column is an epoch or a step: names, then one line for each row."""
    named = _header(text) if _FIRST.match(text) else None
    if named is not None:
        context.header = named
        context.header_kind = _KIND
        return []
    if context.header_kind != _KIND:
        return None
    if _RULE.fullmatch(text):
        return []
    if _OTHER_HEADER.fullmatch(text):
        context.header = ()
        context.header_kind = ""
        return None
    delimiter, *names = context.header
    cells = _cells(text, delimiter)
    if len(cells) != len(names):
        return None
    return _column_row(names, cells, context)


def _column_row(names: list[str], cells: list[str], context: Context) -> list[Row] | None:
    """Return the row of a line of a table, or None if its cells are not numbers."""
    first = _CELL.fullmatch(cells[0])
    position = None if first is None else integer(float(first[1]))
    if position is None:
        return None
    row = Row({})
    if names[0].lower() in _MULTIPLE_STEPS:
        row.step = position
        row.epoch = context.epoch
    else:
        row.epoch = float(position)
    for name, cell in zip(names[1:], cells[1:], strict=True):
        if not is_metric(name) or cell in _EMPTY:
            continue
        found = _CELL.fullmatch(cell)
        if not found:
            return None
        value = share(float(found[1]), found[2])
        if name.lower() in EPOCH_NAMES:
            row.epoch = value
        elif name.lower() in STEP_NAMES:
            row.step = integer(value)
        else:
            row.values[name] = value
    if names[0].lower() in EPOCH_NAMES:
        context.epoch = row.epoch
    return [row] if row.values else []


def _header(text: str) -> tuple[str, ...] | None:
    """Return the delimiter and the names of a table's columns, or None if a line is not the header of one."""
    for delimiter in ("|", "\t", ",", " "):
        if delimiter not in text:
            continue
        names = _cells(text, delimiter)
        if not _MIN_COLUMNS <= len(names) <= _COLUMN_LIMIT:
            continue
        first = names[0].lower()
        if first not in EPOCH_NAMES and first not in _MULTIPLE_STEPS:
            continue
        if not all(_NAME.fullmatch(name) for name in names):
            continue
        if any(names_a_measure(name) for name in names[1:]):
            return (delimiter, *names)
    return None


def _cells(text: str, delimiter: str) -> list[str]:
    """Return the cells of a line. A space as delimiter means two or more spaces."""
    if delimiter == " ":
        return _GAP.split(text.strip(), _COLUMN_LIMIT)
    cells = [cell.strip() for cell in text.strip(" ").split(delimiter, _COLUMN_LIMIT)]
    if delimiter == "|" and len(cells) > _MIN_COLUMNS and cells[0] == "" and cells[-1] == "":
        return cells[1:-1]
    return cells


def read_box(text: str, context: Context) -> list[Row] | None:
    """Read a box of names and values, as Stable-Baselines, Spinning Up and Ray Tune print it.

    The line below the box gives one row with all its values.
    """
    found = _BOX_ROW.fullmatch(text)
    if found:
        if context.header_kind != _BOX_KIND:
            context.header = (_BOX_KIND,)
            context.header_kind = _BOX_KIND
            context.box = ()
        name = found["name"] or found["alone"]
        value = found["value"] or found["number"]
        if len(context.box) < _BOX_LIMIT:
            context.box = (*context.box, (name, None if value is None else float(value)))
        return []
    if context.header_kind != _BOX_KIND or not _BOX_END.fullmatch(text):
        return None
    box = context.box
    context.header = ()
    context.header_kind = ""
    context.box = ()
    return _box_row(box, context)


def _box_row(box: tuple[tuple[str, float | None], ...], context: Context) -> list[Row]:
    """Return the row of a box, or no row if nothing in it is about training."""
    row = Row({})
    claims = False
    total = None
    for name, value in box:
        plain = name.lower()
        if value is None:
            claims = claims or name in _SECTIONS
        elif plain == _TOTAL:
            total = integer(value)
        elif plain in EPOCH_NAMES:
            row.epoch = value
        elif plain in STEP_NAMES:
            row.step = integer(value)
        elif is_metric(name):
            row.values[name] = value
            claims = claims or names_a_measure(name)
    row.step = row.step if total is None else total
    if not claims or not row.values or (row.step is None and row.epoch is None):
        return []
    if row.epoch is not None:
        context.epoch = row.epoch
    return [row]


FORMATS = (
    Format("columns", ("|", "\t", ",", "  "), read_columns, "epoch,train_loss,val_loss,lr"),
    Format("box", ("|", "\u2502", "---", "===", "\u2500\u2500\u2500"), read_box, "|    ep_rew_mean     | 21.9     |"),
)
