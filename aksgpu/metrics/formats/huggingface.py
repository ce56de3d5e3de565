"""Hugging Face Trainer and Accelerate: one Python dict per line, with or without quoted numbers, and the summary."""

from __future__ import annotations

import re

from aksgpu.metrics import positions
from aksgpu.metrics.formats.model import Context, Format, Row
from aksgpu.metrics.values import EPOCH_NAMES, NUMBER, STEP_NAMES, integer, is_metric, names_a_measure

__all__ = ["FORMATS", "read", "read_summary"]

_DICT = re.compile(r"\{'[^{}\n]{1,8000}\}")
_ITEM = re.compile(
    rf"'(?P<name>[^'\n]{{1,128}})': ?(?:(?P<quote>')?|(?:np\.|numpy\.)?(?:float\d{{0,2}}|tensor|array)\()"
    rf"(?P<value>{NUMBER})(?(quote)'|(?:(?:, [^()'\n]{{0,60}}(?:'[\w:]{{1,20}}')?)?\))?)(?=[,}}])"
)
_SUMMARY = re.compile(
    rf"\s{{0,8}}(?P<name>epoch|perplexity|(?:train|eval|test|predict|total)_\w{{1,64}}) {{1,40}}= {{1,40}}"
    rf"(?P<value>{NUMBER})\s{{0,8}}$"
)
"""``trainer.log_metrics`` prints ``  eval_loss      =     0.4321``; times there have units or colons."""
_SUMMARY_OTHER = re.compile(
    r"\s{0,8}(?:train|eval|test|predict|total)_\w{1,64} {1,40}= {1,40}[\d,:.]{1,24}\w{0,2}\s{0,8}$"
)
_SPLIT = re.compile(
    r"(?<![\w./\-])(?i:(?P<word>train(?:ing)?|val(?:id(?:ation)?)?|eval(?:uation)?|test|dev))(?![\w/]|\.\w)[^{]{0,40}$"
)
_PREFIXED = re.compile(r"(?i:train|val|eval|test|dev)")


def read(text: str, context: Context) -> list[Row] | None:
    """Read a line that has a dict with quoted names. The text before the dict may name its epoch."""
    found = _DICT.search(text)
    if not found:
        return None
    row = Row({})
    is_training = False
    before = text[: found.start()].rstrip()
    split = _SPLIT.search(before)
    for item in _ITEM.finditer(found[0]):
        name = item["name"]
        value = float(item["value"])
        if name in EPOCH_NAMES:
            row.epoch = value
            is_training = True
        elif name in STEP_NAMES:
            row.step = integer(value) if row.step is None else row.step
            is_training = True
        elif is_metric(name):
            is_training = is_training or names_a_measure(name)
            prefix = f"{split['word'].lower()}_" if split and not _PREFIXED.match(name) and name != "lr" else ""
            row.values[prefix + name] = value
    if not is_training:
        return None
    if before:
        position = positions.find(before)
        row.epoch = position.epoch if row.epoch is None else row.epoch
        if row.step is None and position.step is not None:
            row.step = position.step
            row.step_kind = position.step_kind
    if row.epoch is not None:
        context.epoch = row.epoch
    elif row.step is None:
        row.epoch = context.epoch
    return [row] if row.values else []


def read_summary(text: str, context: Context) -> list[Row] | None:
    """Read one line of the summary that ``trainer.log_metrics`` prints."""
    found = _SUMMARY.match(text)
    if not found:
        return [] if _SUMMARY_OTHER.match(text) else None
    if found["name"] == "epoch":
        context.epoch = float(found["value"])
        return []
    if not is_metric(found["name"]):
        return []
    return [Row({found["name"]: float(found["value"])}, epoch=context.epoch)]


FORMATS = (
    Format("huggingface", ("{'",), read, "{'loss': 0.6931, 'learning_rate': 5e-05, 'epoch': 0.5}"),
    Format("huggingface summary", (" = ",), read_summary, "  eval_loss                 =     0.4321"),
)
