"""PyTorch's own examples: MNIST, ImageNet, and torchvision's reference scripts."""

from __future__ import annotations

import re

from aksgpu.metrics.formats.model import Context, Format, Row
from aksgpu.metrics.values import NUMBER, is_metric

_MNIST = re.compile(
    rf"Train Epoch: (?P<epoch>\d{{1,9}}) \[\s{{0,8}}(?P<done>\d{{1,15}})/\d{{1,15}} \(\s{{0,4}}[\d.]{{1,8}}%\)\]\s{{0,8}}"
    rf"(?P<name>[Ll]oss)[:=]\s?(?P<value>{NUMBER})"
)
_MNIST_TEST = re.compile(
    rf"(?P<set>Test|Validation|Train|Train(?:ing)?) set: Average loss: (?P<loss>{NUMBER}), "
    r"Accuracy: (?P<right>\d{1,15})/(?P<all>\d{1,15})"
)
_POSITION = re.compile(
    r"(?P<kind>Epoch|Test|Val|Valid|Validation)[a-z]{0,8}:\s{0,4}(?:\[\s{0,8}(?P<epoch>\d{1,9})\]\s{0,8})?"
    r"\[\s{0,12}(?P<done>\d{1,12})/\s{0,12}\d{1,12}\]\s"
)
_METER = re.compile(
    rf"(?<!\S)(?P<name>[A-Za-z][\w@]{{0,40}}):?\s{{1,8}}(?P<value>{NUMBER})\s{{0,4}}\(\s{{0,8}}(?P<average>{NUMBER})\)"
)
_LONE = re.compile(rf"(?<!\S)(?P<name>[A-Za-z][\w@]{{0,40}}):?\s{{1,8}}(?P<value>{NUMBER})(?=\s|$)")
_SUMMARY = re.compile(r"\s{0,4}(?:\*|Test:\s{0,4}\*?)\s(?=[A-Z][a-z]{2,4}@1)")
_PERCENT = re.compile(r"(?i:acc|prec)\w{0,8}@?\d{1,2}$")


def read_mnist(text: str, context: Context) -> list[Row] | None:
    """Read a line of the MNIST example while it trains."""
    found = _MNIST.match(text)
    if not found:
        return None
    context.epoch = float(found["epoch"])
    return [Row({found["name"]: float(found["value"])}, int(found["done"]), "samples", context.epoch)]


def read_mnist_test(text: str, context: Context) -> list[Row] | None:
    """Read the line that the MNIST example prints after each epoch."""
    found = _MNIST_TEST.match(text)
    if not found:
        return None
    split = {"Test": "test", "Validation": "val"}.get(found["set"], "train")
    values = {f"{split}_loss": float(found["loss"])}
    if int(found["all"]):
        values[f"{split}_accuracy"] = int(found["right"]) / int(found["all"])
    return [Row(values, epoch=context.epoch)]


def read_meters(text: str, context: Context) -> list[Row] | None:
    """Read the meters of the ImageNet example: the batch's value, and the average in brackets."""
    found = _POSITION.match(text)
    if not found:
        return None
    training = found["kind"] == "Epoch"
    prefix = "" if training else "test_" if found["kind"] == "Test" else "val_"
    if training and found["epoch"] is not None:
        context.epoch = float(found["epoch"])
    values = {}
    for meter in _METER.finditer(text, found.end()):
        if is_metric(meter["name"]):
            values[prefix + meter["name"]] = float(meter["value"])
            values[f"{prefix}{meter['name']}_avg"] = float(meter["average"])
    for alone in _LONE.finditer(_METER.sub(" ", text[found.end() :])):
        if is_metric(alone["name"]):
            values[prefix + alone["name"]] = float(alone["value"])
    if not values:
        return None
    percent = tuple(name for name in values if _PERCENT.search(name.removesuffix("_avg")))
    return [Row(values, int(found["done"]), "batch", context.epoch, is_percent=percent)]


def read_summary(text: str, context: Context) -> list[Row] | None:
    """Read the line at the end of an epoch: `` * Acc@1 76.130 Acc@5 92.862``."""
    found = _SUMMARY.match(text)
    if not found:
        return None
    values = {f"val_{each['name']}": float(each["value"]) for each in _LONE.finditer(text, found.end() - 1)}
    return [Row(values, epoch=context.epoch, is_percent=tuple(values))] if values else None


FORMATS = (
    Format("pytorch mnist", ("Train Epoch:",), read_mnist, "Train Epoch: 1 [640/60000 (1%)]\tLoss: 2.213470"),
    Format(
        "pytorch mnist", (" set: Average loss:",), read_mnist_test, "Test set: Average loss: 0.1, Accuracy: 9/10 (90%)"
    ),
    Format("pytorch meters", ("/",), read_meters, "Epoch: [0][ 40/800]\tLoss 6.98 (7.08)\tAcc@1 0.00 ( 0.08)"),
    Format("pytorch meters", ("@1",), read_summary, " * Acc@1 76.130 Acc@5 92.862"),
)
