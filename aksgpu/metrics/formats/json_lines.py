"""JSON lines: one object per line, such as those of ``aksgpu.log``, fairseq, timm and many loggers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from aksgpu.metrics import positions
from aksgpu.metrics.formats.model import Context, Format, Row
from aksgpu.metrics.values import EPOCH_NAMES, NUMBER, STEP_NAMES, integer, is_metric, names_a_measure, share

__all__ = ["FORMATS", "json_object", "message", "read"]

_NUMERIC_TEXT = re.compile(rf"\s{{0,8}}({NUMBER})\s{{0,4}}(%?)\s{{0,8}}")
_LONGEST_PREFIX = 200
"""Characters before an object in a line."""
_MAX_DEPTH = 4
"""Levels of nested objects that are read; ``{"train": {"loss": 1}}`` becomes ``train/loss``."""
_LOGGER_KEYS = frozenset({"level", "levelname", "severity", "msg", "message", "logger", "lvl", "log.level", "event"})
"""Names in structured logs of any program. From a line with one of them, only measures are read."""
_STRONG_STEPS = ("num_updates", "global_step")
"""Names of steps that take precedence over others in the same object."""


def read(text: str, context: Context) -> list[Row] | None:
    """Read a line that is one JSON object, or ends with one. The text before it may name its epoch and step."""
    start = text.find('{"') if text[:1] != "{" else 0
    if not 0 <= start <= _LONGEST_PREFIX:
        return None
    found = json_object(text[start:])
    if found is None:
        return None
    if not start:
        return _row(found, context)
    if not any(names_a_measure(name.rpartition("/")[2]) for name, _ in _numbers(found, "", 0)):
        return None
    rows = _row(found, context)
    position = positions.find(text[:start])
    for row in rows or []:
        row.epoch = position.epoch if row.epoch is None else row.epoch
        row.step = position.step if row.step is None else row.step
    return rows


def json_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a line is; None for any other line."""
    if not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _row(found: dict[str, Any], context: Context) -> list[Row] | None:
    row = Row({})
    has_measure = False
    others = []
    is_strong = False
    for name, value in _numbers(found, "", 0):
        leaf = name.rpartition("/")[2].lower()
        strong = leaf.endswith(_STRONG_STEPS)
        if leaf in EPOCH_NAMES:
            row.epoch = value
        elif strong or leaf in STEP_NAMES or name.lower() in STEP_NAMES:
            step = integer(value)
            if step is not None and (strong or not is_strong):
                row.step = step
                is_strong = strong
        elif is_metric(leaf) and is_metric(name.replace("/", "_")):
            row.values[name] = value
            if names_a_measure(leaf) or names_a_measure(name):
                has_measure = True
            else:
                others.append(name)
    if not has_measure and row.epoch is None and row.step is None:
        return None
    if not _LOGGER_KEYS.isdisjoint(found):
        for name in others:
            del row.values[name]
    if row.epoch is not None:
        context.epoch = row.epoch
    return [row] if row.values else []


def _numbers(found: Mapping[str, Any], path: str, level: int) -> Iterator[tuple[str, float]]:
    for key, value in found.items():
        name = f"{path}/{key}" if path else str(key)
        if isinstance(value, bool):
            continue
        if isinstance(value, int | float):
            try:
                yield name, float(value)
            except OverflowError:
                continue
        elif isinstance(value, str) and len(value) <= 64:
            match = _NUMERIC_TEXT.fullmatch(value)
            if match:
                yield name, share(float(match[1]), match[2])
        elif isinstance(value, dict) and level < _MAX_DEPTH:
            yield from _numbers(value, name, level + 1)


def message(text: str) -> str | None:
    """Return the message in a line of a structured log, or None."""
    found = json_object(text)
    if found is None:
        return None
    for name in ("message", "msg", "log", "event"):
        if isinstance(found.get(name), str):
            return str(found[name]).rstrip("\n")
    return None


FORMATS = (Format("json", ("{",), read, '{"epoch": 1, "step": 10, "loss": 0.5}'),)
