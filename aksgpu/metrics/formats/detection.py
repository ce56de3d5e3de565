"""Object detection: Darknet, and the evaluations that pycocotools and Detectron2 print."""

from __future__ import annotations

import re

from aksgpu.metrics.formats.model import Context, Format, Row
from aksgpu.metrics.values import NUMBER

__all__ = ["FORMATS", "read_coco", "read_darknet", "read_detectron2"]

_DARKNET = re.compile(
    rf"(?P<step>\d{{1,15}}): (?P<loss>{NUMBER}), (?P<average>{NUMBER}) avg(?: loss)?, (?P<rate>{NUMBER}) rate, "
    rf"{NUMBER} seconds, \d{{1,15}} images"
)
_DARKNET_MAP = re.compile(rf"mean average precision \((?P<name>mAP(?:@[\d.]{{1,8}})?)\) = (?P<value>{NUMBER})")
_COCO = re.compile(
    r"Average (?:Precision|Recall) {1,8}\((?P<kind>A[PR])\) @\[ IoU=(?P<iou>\d\.\d\d(?::\d\.\d\d)?) {0,8}"
    rf"\| area= {{0,8}}(?P<area>\w{{1,8}}) \| maxDets= {{0,4}}(?P<most>\d{{1,4}}) \] = (?P<value>{NUMBER})\s{{0,8}}"
)
_IOU = {"0.50:0.95": "", "0.50": "50", "0.75": "75"}
_COPYPASTE = re.compile(r"copypaste: (?:Task: (?P<task>\w{1,40})|(?P<cells>[\w.,+\-]{2,800}))")
_CELL = re.compile(NUMBER)
_TASK = "detectron2"


def read_darknet(text: str, context: Context) -> list[Row] | None:
    """Read an iteration of Darknet, and its mean average precision."""
    found = _DARKNET.match(text)
    if found:
        values = {
            "loss": float(found["loss"]),
            "avg_loss": float(found["average"]),
            "rate": float(found["rate"]),
        }
        return [Row(values, int(found["step"]))]
    found = _DARKNET_MAP.match(text)
    return [Row({found["name"]: float(found["value"])})] if found else None


def read_coco(text: str, context: Context) -> list[Row] | None:
    """Read a line of the evaluation that pycocotools prints: ``AP``, ``AP50``, ``AP_small``, ``AR@100`` ...

    A value of -1 means that there are no such objects. It is not a metric.
    """
    found = _COCO.fullmatch(text)
    if not found:
        return None
    value = float(found["value"])
    name = found["kind"] + _IOU.get(found["iou"], f"_{found['iou']}")
    if found["kind"] == "AR":
        name = f"{name}@{found['most']}"
    if found["area"] != "all":
        name = f"{name}_{found['area']}"
    return [Row({name: value}, epoch=context.epoch)] if value >= 0 else []


def read_detectron2(text: str, context: Context) -> list[Row] | None:
    """Read the lines of an evaluation by Detectron2: the task, then names, then percentages."""
    found = _COPYPASTE.fullmatch(text)
    if not found:
        return None
    if found["task"]:
        context.header = (_TASK, found["task"])
        context.header_kind = _TASK
        return []
    if context.header_kind != _TASK:
        return None
    cells = found["cells"].split(",")
    _, task, *names = context.header
    if not names:
        context.header = (_TASK, task, *cells)
        return []
    if len(cells) != len(names) or not all(_CELL.fullmatch(cell) for cell in cells):
        return None
    values = {f"{task}/{name}": float(cell) for name, cell in zip(names, cells, strict=True)}
    return [Row(values, epoch=context.epoch, is_percent=tuple(values))]


FORMATS = (
    Format(
        "darknet",
        (" images", "mean average precision"),
        read_darknet,
        "957: 0.660188, 0.689227 avg loss, 0.000839 rate, 3.315456 seconds, 61248 images",
    ),
    Format(
        "pycocotools",
        ("maxDets=",),
        read_coco,
        " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.405",
    ),
    Format("detectron2", ("copypaste: ",), read_detectron2, "copypaste: Task: bbox"),
)
