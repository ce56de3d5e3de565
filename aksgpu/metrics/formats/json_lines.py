"""JSON lines: one object a line, such as those of ``aksgpu.log``, fairseq, timm and many loggers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from aksgpu.metrics.formats.model import Context, Format, Row
from aksgpu.metrics.values import EPOCH_NAMES, NUMBER, STEP_NAMES, integer, is_metric

_NUMERIC_TEXT = re.compile(rf"\s*({NUMBER})\s*(%?)\s*")
_DEEPEST = 4
"""Levels of nested objects that are read; ``{"train": {"loss": 1}}`` becomes ``train/loss``."""


def read(text: str, context: Context) -> list[Row] | None:
    """Read a line that is one JSON object."""
    if not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    row = Row({})
    for name, value in _numbers(found, "", 0):
        leaf = name.rpartition("/")[2].lower()
        if leaf in EPOCH_NAMES:
            row.epoch = value
        elif leaf in STEP_NAMES or name.lower() in STEP_NAMES:
            row.step = integer(value)
        elif is_metric(leaf):
            row.values[name] = value
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
                yield name, float(match[1]) / (100 if match[2] else 1)
        elif isinstance(value, dict) and level < _DEEPEST:
            yield from _numbers(value, name, level + 1)


FORMATS = (Format("json", ("{",), read, '{"epoch": 1, "step": 10, "loss": 0.5}'),)
