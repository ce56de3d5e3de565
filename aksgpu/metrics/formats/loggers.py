"""Loggers with a syntax of their own: NVIDIA's DLLogger, MLPerf's logging and ESPnet."""

from __future__ import annotations

import re

from aksgpu.metrics import positions
from aksgpu.metrics.formats.json_lines import json_object
from aksgpu.metrics.formats.model import Context, Format, Row
from aksgpu.metrics.values import NUMBER, PAIR, integer, is_metric, names_a_measure, share

__all__ = ["FORMATS", "read_dllogger", "read_espnet", "read_mlperf"]

_DLLOGGER = re.compile(r"DLL \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})? - ")
_DLLOGGER_ITEM = re.compile(rf"(?<!\S)(?P<name>[A-Za-z][\w/@.\-]{{0,80}}) : (?P<value>{NUMBER})(?P<unit>\s?%)?(?=\s|$)")
_DLLOGGER_JSON = "DLLL "
_PARAMETER = "PARAMETER"
"""What DLLogger prints in place of the step before settings."""
_MLPERF = re.compile(r":::MLL(?:OG (?=\{)| [\d.]{1,24} (?P<key>\w{1,80}): (?=\{))")
_ESPNET = re.compile(
    r"(?P<epoch>\d{1,9})epoch(?::(?P<split>\w{1,40}):\d{1,15}-(?P<step>\d{1,15})batch: | results: (?=\[))"
)
_ESPNET_SECTION = re.compile(r"\[(?P<split>\w{1,40})\] ")


def read_dllogger(text: str, context: Context) -> list[Row] | None:
    """Read a line of DLLogger, as text or as JSON."""
    if text.startswith(_DLLOGGER_JSON):
        return _dllogger_json(text.removeprefix(_DLLOGGER_JSON), context)
    found = _DLLOGGER.match(text)
    if not found:
        return None
    if text.startswith(_PARAMETER, found.end()):
        return []
    items = list(_DLLOGGER_ITEM.finditer(text, found.end()))
    position = positions.find(text[found.end() : items[0].start()]) if items else None
    if position is None:
        return []
    row = Row({}, step=position.step, step_kind=position.step_kind, epoch=position.epoch)
    for item in items:
        if is_metric(item["name"]):
            row.values[item["name"]] = share(float(item["value"]), item["unit"])
    return _with_epoch(row, context)


def _dllogger_json(text: str, context: Context) -> list[Row] | None:
    found = json_object(text.strip())
    if found is None:
        return None
    place = found.get("step")
    data = found.get("data")
    if found.get("type") != "LOG" or not isinstance(data, dict) or not isinstance(place, list):
        return []
    row = Row({})
    numbers = [float(each) for each in place if isinstance(each, int) and not isinstance(each, bool)]
    if numbers:
        row.epoch = numbers[0]
        row.step = integer(numbers[1]) if len(numbers) > 1 else None
    for name, value in data.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and is_metric(name):
            row.values[str(name)] = float(value)
    return _with_epoch(row, context)


def read_mlperf(text: str, context: Context) -> list[Row] | None:
    """Read a line of MLPerf's logging. Only measures are read, because the others are settings and times."""
    start = _MLPERF.match(text)
    found = None if start is None else json_object(text[start.end() :].strip())
    if start is None or found is None:
        return None
    name = start["key"] or found.get("key")
    value = found.get("value")
    if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, int | float):
        return []
    if not names_a_measure(name):
        return []
    row = Row({name: float(value)})
    metadata = found.get("metadata")
    if isinstance(metadata, dict):
        epoch = metadata.get("epoch_num", metadata.get("epoch"))
        row.epoch = float(epoch) if isinstance(epoch, int | float) else None
        step = metadata.get("step_num", metadata.get("step"))
        row.step = step if isinstance(step, int) else None
    return _with_epoch(row, context)


def read_espnet(text: str, context: Context) -> list[Row] | None:
    """Read a line of ESPnet while it trains, or the results of an epoch."""
    found = _ESPNET.match(text)
    if not found:
        return None
    row = Row({}, epoch=float(found["epoch"]))
    if found["step"]:
        row.step = int(found["step"])
        row.step_kind = "batch"
    sections = list(_ESPNET_SECTION.finditer(text, found.end()))
    splits = [found["split"] or "", *(section["split"] for section in sections)]
    starts = [found.end(), *(section.end() for section in sections)]
    ends = [*(section.start() for section in sections), len(text)]
    for split, start, end in zip(splits, starts, ends, strict=True):
        for pair in PAIR.finditer(text, start, end):
            if is_metric(pair["name"]):
                row.values[f"{split}_{pair['name']}"] = share(float(pair["value"]), pair["unit"])
    return _with_epoch(row, context)


def _with_epoch(row: Row, context: Context) -> list[Row]:
    """Return a row if it has values. Its epoch is that of the lines after it."""
    if row.epoch is not None:
        context.epoch = row.epoch
    elif row.step is None:
        row.epoch = context.epoch
    return [row] if row.values else []


FORMATS = (
    Format(
        "dllogger",
        ("DLL ", _DLLOGGER_JSON),
        read_dllogger,
        "DLL 2020-11-27 12:39:38.592000 - Epoch: 3 Iteration: 10  train.loss : 6.91",
    ),
    Format(
        "mlperf",
        (":::MLL",),
        read_mlperf,
        ':::MLLOG {"key": "eval_accuracy", "value": 0.759, "metadata": {"epoch_num": 4}}',
    ),
    Format("espnet", ("epoch:", "epoch results:"), read_espnet, "1epoch:train:1-682batch: loss=123.9, acc=0.013"),
)
