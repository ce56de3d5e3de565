"""TensorFlow: the tutorial's MNIST, Estimators, tf_cnn_benchmarks and Horovod's benchmarks."""

from __future__ import annotations

import re

from aksgpu.metrics.formats.model import Context, Format, Row
from aksgpu.metrics.values import END, NUMBER, is_metric, names_a_measure, share

__all__ = ["FORMATS", "read_benchmark", "read_estimator", "read_tutorial"]

_TUTORIAL = re.compile(rf"Accuracy at step (?P<step>\d{{1,15}}):\s{{0,4}}(?P<value>{NUMBER})")
_AT_STEP = re.compile(
    r"(?P<name>[A-Za-z][A-Za-z_]{0,40}(?: [A-Za-z]{1,40}){0,2}?)"
    r"(?: \(for (?:one|\d{1,6}) batch(?:es)?\))? (?:at step (?P<step>\d{1,15})|over epoch)\s?: {0,4}"
    rf"(?P<value>{NUMBER})(?P<unit>\s?%)?\s{{0,8}}$"
)
"""Lines of guides: ``Training loss (for one batch) at step 200: 1.2``, ``Training acc over epoch: 0.7``."""
_ITEM = re.compile(rf"(?<!\S)(?P<name>[A-Za-z][\w@/.\-]{{0,63}}) = (?P<value>{NUMBER}){END}")
_TRAIN = re.compile(r"(?=[A-Za-z][\w@/.\-]{0,63} = [-+\d.ni])")
_STEP = re.compile(r"(?<!\w)(?:global_)?step = (?P<step>\d{1,15})(?![\d.])")
_EVAL = re.compile(r"Saving dict for global step (?P<step>\d{1,15}): ")
_FINAL = re.compile(rf"Loss for final step: (?P<value>{NUMBER})\.?\s{{0,8}}$")
_RATE = re.compile(rf"global_step/sec: (?P<value>{NUMBER})\s{{0,8}}$")
_BENCHMARK_HEADER = re.compile(r"Step\s{1,8}Img/sec\s{1,8}(?P<names>[\w\s@]{1,80})$")
_BENCHMARK = re.compile(
    rf"(?P<step>\d{{1,15}})\s{{1,8}}images/sec: (?P<rate>{NUMBER}) \+/- {NUMBER} \(jitter = {NUMBER}\)"
    r"(?P<rest>[\s\d.eE+\-nainf]{0,200})$"
)
_BENCHMARK_TOTAL = re.compile(
    rf"(?P<name>total images/sec|Total img/sec on \d{{1,6}} GPU\(s\)|Img/sec per GPU): (?P<rate>{NUMBER})"
)
_HOROVOD = re.compile(rf"Iter #(?P<step>\d{{1,15}}): (?P<rate>{NUMBER}) (?P<name>img/sec per \w{{1,8}})")


def read_tutorial(text: str, context: Context) -> list[Row] | None:
    """Read the lines of the tutorial and of TensorFlow's guides. The column of the tutorial is ``accuracy``."""
    found = _TUTORIAL.fullmatch(text.strip())
    if found:
        return [Row({"accuracy": float(found["value"])}, int(found["step"]))]
    found = _AT_STEP.match(text)
    if not found or not names_a_measure(found["name"]):
        return None
    step = None if found["step"] is None else int(found["step"])
    values = {found["name"].replace(" ", "_"): share(float(found["value"]), found["unit"])}
    return [Row(values, step, epoch=context.epoch)]


def read_estimator(text: str, context: Context) -> list[Row] | None:
    """Read the lines that an Estimator logs during training and after evaluation."""
    rate = _RATE.match(text)
    if rate:
        return [Row({"global_step/sec": float(rate["value"])})]
    final = _FINAL.match(text)
    if final:
        return [Row({"final_loss": float(final["value"])})]
    found = _EVAL.match(text)
    if found:
        step = int(found["step"])
        return _items(text, found.end(), "eval_", step)
    named = _STEP.search(text)
    if not named or not _TRAIN.match(text):
        return None
    return _items(text, 0, "", int(named["step"]))


def _items(text: str, start: int, prefix: str, step: int) -> list[Row]:
    values = {}
    for pair in _ITEM.finditer(text, start):
        if is_metric(pair["name"]) and pair["name"] not in ("step", "global_step"):
            values[prefix + pair["name"]] = float(pair["value"])
    return [Row(values, step)] if values else []


def read_benchmark(text: str, context: Context) -> list[Row] | None:
    """Read the tables of tf_cnn_benchmarks and the lines of Horovod's synthetic benchmarks."""
    header = _BENCHMARK_HEADER.match(text)
    if header:
        context.header = tuple(header["names"].split())
        context.header_kind = "tf_cnn_benchmarks"
        return []
    total = _BENCHMARK_TOTAL.match(text)
    if total:
        return [Row({total["name"]: float(total["rate"])})]
    iteration = _HOROVOD.match(text)
    if iteration:
        return [Row({iteration["name"]: float(iteration["rate"])}, int(iteration["step"]))]
    found = _BENCHMARK.match(text)
    if not found:
        return None
    names = context.header if context.header_kind == "tf_cnn_benchmarks" else ("total_loss",)
    values = {"images/sec": float(found["rate"])}
    for name, cell in zip(names, found["rest"].split(), strict=False):
        if not re.fullmatch(NUMBER, cell):
            return None
        values[name] = float(cell)
    return [Row(values, int(found["step"]))]


FORMATS = (
    Format("tensorflow tutorial", (" at step ", " over epoch"), read_tutorial, "Accuracy at step 10: 0.7457"),
    Format(
        "tensorflow estimator",
        ("step = ", "global step", "global_step/sec", "final step"),
        read_estimator,
        "loss = 0.5, step = 100 (0.5 sec)",
    ),
    Format(
        "tf_cnn_benchmarks",
        ("images/sec", "mg/sec"),
        read_benchmark,
        "1\timages/sec: 52.3 +/- 0.0 (jitter = 0.0)\t8.169",
    ),
)
