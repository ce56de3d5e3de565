"""Hugging Face Trainer: a Python dict a line, numbers bare or quoted; and the progress table's final lines."""

from __future__ import annotations

import re

from aksgpu.metrics.formats.model import Context, Format, Row
from aksgpu.metrics.values import NUMBER, STEP_NAMES, integer, is_metric

_DICT = re.compile(r"\{'[^{}\n]{1,8000}\}")
_ITEM = re.compile(rf"'(?P<name>[^'\n]{{1,128}})': ?'?(?P<value>{NUMBER})'?(?=[,}}])")
_SUMMARY = re.compile(
    rf"(?P<name>(?:train|eval|test|predict|total)_\w{{1,64}}) {{1,40}}= {{1,40}}(?P<value>{NUMBER})\s*$"
)
"""``trainer.log_metrics`` prints ``  eval_loss      =     0.4321``; times there have units or colons."""


def read(text: str, context: Context) -> list[Row] | None:
    """Read a line that has a dict with quoted names."""
    found = _DICT.search(text)
    if not found:
        return None
    row = Row({})
    items = 0
    for item in _ITEM.finditer(found[0]):
        items += 1
        name = item["name"]
        value = float(item["value"])
        if name == "epoch":
            row.epoch = value
        elif name in STEP_NAMES:
            row.step = integer(value)
        elif is_metric(name):
            row.values[name] = value
    if not items:
        return None
    return [row] if row.values else []


def read_summary(text: str, context: Context) -> list[Row] | None:
    """Read one line of the summary that ``trainer.log_metrics`` prints."""
    found = _SUMMARY.match(text)
    if not found:
        return None
    if not is_metric(found["name"]):
        return []
    return [Row({found["name"]: float(found["value"])})]


FORMATS = (
    Format("huggingface", ("{'",), read, "{'loss': 0.6931, 'learning_rate': 5e-05, 'epoch': 0.5}"),
    Format("huggingface summary", ("_",), read_summary, "  eval_loss                 =     0.4321"),
)
