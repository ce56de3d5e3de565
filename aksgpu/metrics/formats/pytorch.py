"""PyTorch's own examples and tutorials, torchvision's reference scripts, and timm."""

from __future__ import annotations

import re

from aksgpu.metrics.formats.model import Context, Format, Row
from aksgpu.metrics.values import NUMBER, is_metric, of_percent

__all__ = [
    "FORMATS",
    "read_language_model",
    "read_meters",
    "read_mnist",
    "read_mnist_test",
    "read_summary",
    "read_tutorials",
]

_MNIST = re.compile(
    r"Train Epoch: (?P<epoch>\d{1,15}) \[\s{0,8}(?P<done>\d{1,15})/\d{1,15} \(\s{0,4}[\d.]{1,8}%\)\]\s{0,8}"
    rf"(?P<name>[Ll]oss)[:=]\s?(?P<value>{NUMBER})(?=\s|$|,)"
)
_MNIST_TEST = re.compile(
    rf"(?P<set>Test|Validation|Train|Training) set: Average loss: (?P<loss>{NUMBER}), "
    rf"Accuracy: (?:(?P<right>\d{{1,15}})/(?P<all>\d{{1,15}})(?![\d.])|(?P<percent>{NUMBER})\s?%)"
)
_SETS = {"Test": "test", "Validation": "val", "Train": "train", "Training": "train"}
_VAE = re.compile(
    rf"====> (?:Epoch: (?P<epoch>\d{{1,15}}) Average loss|(?P<test>Test) set loss): (?P<value>{NUMBER})\s{{0,8}}$"
)
_QUICKSTART = re.compile(
    rf"loss: (?P<value>{NUMBER})\s{{1,4}}\[\s{{0,15}}(?P<done>\d{{1,15}})/\s{{0,15}}\d{{1,15}}\]\s{{0,8}}$"
)
_QUICKSTART_TEST = re.compile(rf"Accuracy: (?P<accuracy>{NUMBER})%, Avg loss: (?P<loss>{NUMBER})\s{{0,8}}$")
_CIFAR_TEST = re.compile(
    r"Accuracy of the (?:network|model) on the (?:\d{1,12} )?(?P<set>test|validation|train) images: "
    rf"(?P<value>{NUMBER}) ?%"
)
_LANGUAGE = re.compile(
    r"\|\s{1,8}epoch\s{1,8}(?P<epoch>\d{1,15})\s\|\s{1,12}(?P<done>\d{1,15})/\s{0,12}\d{1,15} batches \|"
)
_LANGUAGE_END = re.compile(r"\|\s{1,4}(?:end of epoch\s{1,8}(?P<epoch>\d{1,15})|End of training)\s\|")
_LANGUAGE_ITEM = re.compile(
    rf"(?<=\|)\s{{1,4}}(?P<name>(?:valid |test )?(?:loss|ppl|bpc)|lr)\s{{1,12}}(?P<value>{NUMBER})(?=\s|$)"
)
_POSITION = re.compile(
    r"(?P<kind>Epoch|Test|Val|Valid|Validation|Train)[a-z]{0,8}:\s{0,4}(?:\[?\s{0,8}(?P<epoch>\d{1,15})\]?\s{0,8})?"
    r"\[\s{0,12}(?P<done>\d{1,15})/\s{0,12}\d{1,15}(?:\s{0,4}\(\s{0,4}\d{1,3}%\))?\]\s"
)
_AVERAGED = re.compile(r"Averaged stats: ")
_METER = re.compile(
    rf"(?<!\S)(?P<name>[A-Za-z][\w@/]{{0,40}}):?\s{{1,8}}(?P<value>{NUMBER})\s{{0,4}}\(\s{{0,8}}(?P<average>{NUMBER})\)"
)
_LONE = re.compile(rf"(?<!\S)(?P<name>[A-Za-z][\w@/]{{0,40}}):?\s{{1,8}}(?P<value>{NUMBER})(?=\s|$)")
_TIMES = frozenset({"time", "data", "mem", "eta"})
_SUMMARY = re.compile(r"\s{0,8}(?:\*|Test:\s{0,8}(?:EMA )?\*?)\s{1,4}(?=(?:Acc|Prec)@1)")
_PERCENT = re.compile(r"(?i:acc|prec)\w{0,8}@?\d{1,2}")


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
    split = _SETS[found["set"]]
    values = {f"{split}_loss": float(found["loss"])}
    if found["percent"] is not None:
        values[f"{split}_accuracy"] = of_percent(float(found["percent"]))
    elif int(found["all"]):
        values[f"{split}_accuracy"] = int(found["right"]) / int(found["all"])
    return [Row(values, epoch=context.epoch)]


def read_tutorials(text: str, context: Context) -> list[Row] | None:
    """Read the lines of PyTorch's quickstart and CIFAR tutorials and of its VAE example."""
    found = _QUICKSTART.match(text)
    if found:
        return [Row({"loss": float(found["value"])}, int(found["done"]), "samples", context.epoch)]
    found = _QUICKSTART_TEST.match(text)
    if found:
        values = {"test_accuracy": of_percent(float(found["accuracy"])), "test_loss": float(found["loss"])}
        return [Row(values, epoch=context.epoch)]
    found = _CIFAR_TEST.match(text)
    if found:
        return [Row({f"{found['set']}_accuracy": of_percent(float(found["value"]))}, epoch=context.epoch)]
    found = _VAE.match(text)
    if found:
        if found["epoch"]:
            context.epoch = float(found["epoch"])
        name = "test_loss" if found["test"] else "average_loss"
        return [Row({name: float(found["value"])}, epoch=context.epoch)]
    return None


def read_language_model(text: str, context: Context) -> list[Row] | None:
    """Read the lines of PyTorch's word language model."""
    found = _LANGUAGE.match(text)
    row = Row({})
    if found:
        row.step = int(found["done"])
        row.step_kind = "batch"
    else:
        found = _LANGUAGE_END.match(text)
    if not found:
        return None
    if found["epoch"]:
        context.epoch = float(found["epoch"])
        row.epoch = context.epoch
    for item in _LANGUAGE_ITEM.finditer(text, found.end() - 1):
        row.values[item["name"].replace(" ", "_")] = float(item["value"])
    return [row] if row.values else []


def read_meters(text: str, context: Context) -> list[Row] | None:
    """Read the meters of the ImageNet example: the batch's value, and the average in brackets."""
    found = _POSITION.match(text)
    averaged = None if found else _AVERAGED.match(text)
    start = found or averaged
    if start is None:
        return None
    prefix = ""
    row = Row({}, step_kind="batch")
    if found:
        training = found["kind"] in ("Epoch", "Train")
        prefix = "" if training else "test_" if found["kind"] == "Test" else "val_"
        if training and found["epoch"] is not None:
            context.epoch = float(found["epoch"])
        row.step = int(found["done"])
    row.epoch = context.epoch
    for meter in _METER.finditer(text, start.end() - 1):
        if is_metric(meter["name"]):
            row.values[prefix + meter["name"]] = float(meter["value"])
            row.values[f"{prefix}{meter['name']}_avg"] = float(meter["average"])
    for alone in _LONE.finditer(_METER.sub(" ", text[start.end() - 1 :])):
        if is_metric(alone["name"]) and alone["name"] not in _TIMES:
            row.values.setdefault(prefix + alone["name"], float(alone["value"]))
    if not row.values:
        return []
    percent = [name for name in row.values if _PERCENT.fullmatch(name.removeprefix(prefix).removesuffix("_avg"))]
    row.is_percent = tuple(percent)
    return [row]


def read_summary(text: str, context: Context) -> list[Row] | None:
    """Read the line at the end of an epoch: `` * Acc@1 76.130 Acc@5 92.862``."""
    found = _SUMMARY.match(text)
    if not found:
        return None
    values = {f"test_{each['name']}": float(each["value"]) for each in _LONE.finditer(text, found.end() - 1)}
    percent = tuple(name for name in values if _PERCENT.fullmatch(name.removeprefix("test_")))
    return [Row(values, epoch=context.epoch, is_percent=percent)] if values else None


FORMATS = (
    Format("pytorch mnist", ("Train Epoch:",), read_mnist, "Train Epoch: 1 [640/60000 (1%)]\tLoss: 2.213470"),
    Format(
        "pytorch mnist", (" set: Average loss:",), read_mnist_test, "Test set: Average loss: 0.1, Accuracy: 9/10 (90%)"
    ),
    Format(
        "pytorch tutorials",
        ("loss: ", "Accuracy of", "====>"),
        read_tutorials,
        "loss: 2.301494  [ 6464/60000]",
    ),
    Format(
        "pytorch language model",
        ("| epoch ", "| end of epoch", "| End of training"),
        read_language_model,
        "| epoch   1 |   200/ 2983 batches | lr 20.00 | ms/batch 12.33 | loss  7.63 | ppl  2062.50",
    ),
    Format(
        "pytorch meters", ("/", "Averaged stats"), read_meters, "Epoch: [0][ 40/800]\tLoss 6.98 (7.08)\tAcc@1 0.0 (0.1)"
    ),
    Format("pytorch meters", ("@1",), read_summary, " * Acc@1 76.130 Acc@5 92.862"),
)
