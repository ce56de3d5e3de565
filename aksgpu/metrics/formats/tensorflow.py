"""TensorFlow: the tutorial's MNIST, Estimators, and tf_cnn_benchmarks."""

from __future__ import annotations

import re

from aksgpu.metrics.formats.model import Context, Format, Row
from aksgpu.metrics.values import NUMBER, PAIR, is_metric

_TUTORIAL = re.compile(rf"Accuracy at step (?P<step>\d{{1,15}}):\s{{0,4}}(?P<value>{NUMBER})\s*$")
_TRAIN = re.compile(rf"(?P<pairs>loss = {NUMBER}.{{0,400}}?),? step = (?P<step>\d{{1,15}})")
_EVAL = re.compile(r"Saving dict for global step (?P<step>\d{1,15}): ")
_RATE = re.compile(rf"global_step/sec: (?P<value>{NUMBER})\s*$")
_BENCHMARK_HEADER = re.compile(r"Step\s{1,8}Img/sec\s{1,8}(?P<names>[\w\s@]{1,80})$")
_BENCHMARK = re.compile(
    rf"(?P<step>\d{{1,12}})\s{{1,8}}images/sec: (?P<rate>{NUMBER}) \+/- {NUMBER} \(jitter = {NUMBER}\)(?P<rest>[\s\d.eE+\-nainf]{{0,200}})$"
)


def read_tutorial(text: str, context: Context) -> list[Row] | None:
    """Read the tutorial's form. Its column is ``accuracy``."""
    found = _TUTORIAL.fullmatch(text.strip())
    if not found:
        return None
    return [Row({"accuracy": float(found["value"])}, int(found["step"]))]


def read_estimator(text: str, context: Context) -> list[Row] | None:
    """Read what an Estimator logs while it trains and after it evaluated."""
    rate = _RATE.match(text)
    if rate:
        return [Row({"global_step/sec": float(rate["value"])})]
    found = _EVAL.match(text)
    split = "eval_"
    if not found:
        found = _TRAIN.match(text)
        split = ""
    if not found:
        return None
    values = {}
    for pair in PAIR.finditer(text, found.end() if split else 0):
        if is_metric(pair["name"]) and pair["name"] not in ("step", "global_step"):
            values[split + pair["name"]] = float(pair["value"])
    return [Row(values, int(found["step"]))] if values else []


def read_benchmark(text: str, context: Context) -> list[Row] | None:
    """Read tf_cnn_benchmarks' table."""
    header = _BENCHMARK_HEADER.match(text)
    if header:
        context.header = tuple(header["names"].split())
        context.header_kind = "tf_cnn_benchmarks"
        return []
    found = _BENCHMARK.match(text)
    if not found:
        return None
    names = context.header if context.header_kind == "tf_cnn_benchmarks" else ("total_loss",)
    values = {"images/sec": float(found["rate"])}
    for name, value in zip(names, found["rest"].split(), strict=False):
        values[name] = float(value)
    return [Row(values, int(found["step"]))]


FORMATS = (
    Format("tensorflow tutorial", ("Accuracy at step ",), read_tutorial, "Accuracy at step 10: 0.7457"),
    Format(
        "tensorflow estimator", ("step = ", "global step", "global_step/sec"), read_estimator, "loss = 0.5, step = 100"
    ),
    Format(
        "tf_cnn_benchmarks",
        ("images/sec", "Img/sec"),
        read_benchmark,
        "1\timages/sec: 52.3 +/- 0.0 (jitter = 0.0)\t8.1",
    ),
)
