"""Ultralytics (YOLO) tables, OpenMMLab (mmdetection, MMEngine), MXNet and fastai tables."""

from __future__ import annotations

import re

from aksgpu.metrics.formats.model import Bar, Context, Format, Row
from aksgpu.metrics.values import NUMBER, PAIR, is_metric, share

__all__ = ["FORMATS", "read_fastai", "read_mxnet", "read_openmmlab", "read_ultralytics"]

_FASTAI_NAMES = re.compile(r"epoch(?:\s{1,20}[A-Za-z_]\w{0,60}){1,30}\s{0,80}$")
_FASTAI_LIST = re.compile(
    rf"\[(?P<epoch>\d{{1,15}}), (?P<values>(?:(?:{NUMBER}|None), ){{1,20}})'(?:\d{{1,3}}:)?\d{{1,2}}:\d\d'\]"
)
"""fastai without its progress callback prints a list: epoch, losses, metrics, time."""
_DASHES = re.compile(r"[\s\-]{3,400}")
_CLOCK = re.compile(r"(?:\d{1,3}:)?\d{1,2}:\d\d$")
_OPENMMLAB = re.compile(
    r"(?P<kind>Epoch|Iter)\s?(?:\((?P<split>train|val|test)\))?\s{0,3}\[\s{0,8}(?P<first>\d{1,15})(?:/\d{1,15})?\]"
    r"(?:\s?\[\s{0,8}(?P<second>\d{1,15})(?:/\d{1,15})?\])?\s{1,8}(?!(?i:iter|batch|step))"
)
_OPENMMLAB_PERCENT = re.compile(r"(?:[\w.]{0,40}\.)?(?:acc|top\d_acc|accuracy/top\d|accuracy_top-\d)")
_MXNET = re.compile(
    r"Epoch\[(?P<epoch>\d{1,15})\](?: Batch \[(?:\d{1,15}-)?(?P<batch>\d{1,15})\])?\s{1,8}(?!Iteration)"
)
_ULTRALYTICS_EPOCH = re.compile(
    r"\s{0,16}(?P<epoch>\d{1,15})/(?P<last>\d{1,15})\s{1,16}[\d.]{1,12}[GM]?B?\s{1,16}"
    r"(?P<values>(?:(?:[\d.]{1,16}|nan|inf)\s{1,16}){1,12}?)"
    r"(?P<instances>\d{1,15})\s{1,16}(?P<size>\d{1,6}):(?P<bar>.{0,600})$"
)
_ULTRALYTICS_ALL = re.compile(
    r"\s{0,40}all(?:\s{1,16}\d{1,15}\s{1,16}\d{1,15}(?=(?:\s{1,16}\S{1,16}){4}))?(?P<values>(?:\s{1,16}(?:[\d.e\-]{1,16}|nan)){1,12})\s{0,80}$"
)
_ULTRALYTICS_KINDS = {"Box(P": "B", "Mask(P": "M", "Pose(P": "P", "OBB(P": "B"}
_ULTRALYTICS_DONE = re.compile(r"\d{1,15} epochs completed in [\d.]{1,12} hours")
"""After this line the best model is validated again."""
_DONE = re.compile(r"(?P<done>\d{1,15})/(?P<total>\d{1,15})\s?\[?")


def read_fastai(text: str, context: Context) -> list[Row] | None:
    """Read fastai's and skorch's tables: names, then a line of values per epoch."""
    listed = _FASTAI_LIST.fullmatch(text)
    if listed:
        return _fastai_list(listed, context)
    if text.startswith("epoch") and "loss" in text and "\t" not in text and _FASTAI_NAMES.match(text):
        context.header = tuple(text.split())
        context.header_kind = "fastai"
        return []
    if context.header_kind != "fastai":
        return None
    cells = [cell for cell in text.split() if cell != "+"]
    if _DASHES.fullmatch(text):
        return []
    # skorch marks the epochs of which it saved a checkpoint with a plus sign.
    names = [name for name in context.header if name != "cp"]
    if len(cells) != len(names) or not cells[0].isdigit():
        return None
    values = {}
    for name, cell in zip(names[1:], cells[1:], strict=True):
        if not is_metric(name) or _CLOCK.match(cell):
            continue
        if re.fullmatch(NUMBER, cell):
            values[name] = float(cell)
        elif cell not in ("#na#", "None"):
            return None
    context.epoch = float(cells[0])
    return [Row(values, epoch=context.epoch)] if values else []


def _fastai_list(found: re.Match[str], context: Context) -> list[Row]:
    """Return the row of a list. fastai does not print the names of its metrics there, so they are numbered."""
    context.epoch = float(found["epoch"])
    cells = found["values"].rstrip(", ").split(", ")
    names = ["train_loss", "valid_loss", *(f"metric_{number}" for number in range(1, len(cells)))]
    values = {name: float(cell) for name, cell in zip(names, cells, strict=False) if cell != "None"}
    return [Row(values, epoch=context.epoch)] if values else []


def read_openmmlab(text: str, context: Context) -> list[Row] | None:
    """Read a line of mmdetection and its siblings."""
    found = _OPENMMLAB.match(text)
    if not found:
        return None
    row = Row({}, step_kind="batch")
    if found["kind"] == "Epoch":
        row.epoch = float(found["first"])
        context.epoch = row.epoch
        row.step = int(found["second"]) if found["second"] else None
    else:
        row.step = int(found["first"])
        row.step_kind = "step"
    split = found["split"] if found["split"] in ("val", "test") else ""
    if split:
        row.step = None
    percent = []
    for pair in PAIR.finditer(text, found.end() - 1):
        name = pair["name"]
        if not is_metric(name):
            continue
        column = f"{split}_{name}" if split else name
        row.values[column] = share(float(pair["value"]), pair["unit"])
        if _OPENMMLAB_PERCENT.fullmatch(name):
            percent.append(column)
    row.is_percent = tuple(percent)
    return [row] if row.values else []


def read_mxnet(text: str, context: Context) -> list[Row] | None:
    """Read MXNet's Module.fit and Speedometer."""
    found = _MXNET.match(text)
    if not found:
        return None
    context.epoch = float(found["epoch"])
    row = Row({}, epoch=context.epoch)
    if found["batch"]:
        row.step = int(found["batch"])
        row.step_kind = "batch"
    rest = text[found.end() :]
    if rest.startswith("Time cost"):
        return []
    for pair in PAIR.finditer(rest):
        if is_metric(pair["name"]):
            row.values[pair["name"]] = float(pair["value"])
    return [row] if row.values else None


def read_ultralytics(text: str, context: Context) -> list[Row] | None:
    """Read the two tables of Ultralytics: the losses in the bar of an epoch, then the metrics of the validation."""
    words = text.split()
    if words[:2] == ["Epoch", "GPU_mem"] or words[:2] == ["Epoch", "gpu_mem"]:
        context.header = tuple(words[2:-2])
        context.header_kind = "ultralytics"
        return []
    if words[:2] == ["Class", "Images"] or words[:2] == ["classes", "top1_acc"]:
        context.columns = _ultralytics_columns(words)
        return []
    if context.header_kind != "ultralytics":
        return None
    if _ULTRALYTICS_DONE.match(text):
        context.epoch = None
        return []
    found = _ULTRALYTICS_EPOCH.match(text)
    if found:
        cells = found["values"].split()
        if len(cells) != len(context.header):
            return None
        context.epoch = float(found["epoch"])
        values = dict(zip(context.header, map(float, cells), strict=True))
        drawn = _DONE.search(found["bar"])
        done = int(drawn["done"]) if drawn else 0
        bar = Bar("ultralytics", done, int(drawn["total"]) if drawn else None)
        return [Row(values, epoch=context.epoch, bar=bar)]
    found = _ULTRALYTICS_ALL.match(text)
    if not found:
        return None
    cells = found["values"].split()
    if len(cells) > len(context.columns):
        return None
    return [Row(dict(zip(context.columns, map(float, cells), strict=False)), epoch=context.epoch)]


def _ultralytics_columns(words: list[str]) -> tuple[str, ...]:
    """Return the names of a validation's columns in Ultralytics' own results."""
    if words[0] == "classes":
        return ("top1_acc", "top5_acc")
    kinds = [_ULTRALYTICS_KINDS[word] for word in words if word in _ULTRALYTICS_KINDS] or ["B"]
    return tuple(f"{name}({kind})" for kind in kinds for name in ("precision", "recall", "mAP50", "mAP50-95"))


FORMATS = (
    Format(
        "ultralytics",
        ("GPU_mem", "gpu_mem", "Class", "classes", ":", "all ", "completed"),
        read_ultralytics,
        "      1/3         0G      1.204      2.104      1.3         12        640: 100%|##| 4/4",
    ),
    Format("fastai", ("epoch", ".", "---"), read_fastai, "epoch     train_loss  valid_loss  accuracy  time"),
    Format("mxnet", ("Epoch[",), read_mxnet, "Epoch[12] Train-accuracy=0.999155"),
    Format("openmmlab", ("[",), read_openmmlab, "Epoch [1][2400/7517]\tlr: 0.00125, eta: 4:33:09, loss: 0.4890"),
)
