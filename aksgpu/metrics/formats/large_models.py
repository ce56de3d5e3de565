"""Programs that train large models: nanoGPT, llama2.c, LitGPT, CLU, Megatron, DeepSpeed and fairseq."""

from __future__ import annotations

import re

from aksgpu.metrics.formats.model import Context, Format, Row
from aksgpu.metrics.values import EPOCH_NAMES, NUMBER, PAIR, STEP_NAMES, is_metric, names_a_measure, share

__all__ = [
    "FORMATS",
    "read_clu",
    "read_deepspeed",
    "read_fairseq",
    "read_litgpt",
    "read_megatron",
    "read_nanogpt",
]

_NANOGPT = re.compile(
    rf"iter (?P<step>\d{{1,15}}): loss (?P<loss>{NUMBER})(?:, time (?P<time>{NUMBER})\s?ms)?"
    rf"(?:, mfu (?P<mfu>{NUMBER})(?P<unit>\s?%)?)?"
)
_NANOGPT_EVAL = re.compile(
    rf"step (?P<step>\d{{1,15}}): train loss (?P<train>{NUMBER}), val loss (?P<val>{NUMBER})(?=\s|$)"
)
_LLAMA2_C = re.compile(
    rf"(?P<step>\d{{1,15}}) \| loss (?P<loss>{NUMBER}) \| lr (?P<lr>{NUMBER}) \| [\d.]{{1,20}}ms"
    rf"(?: \| mfu (?P<mfu>{NUMBER})(?P<unit>\s?%)?)?"
)
_LITGPT = re.compile(
    r"Epoch (?P<epoch>\d{1,15}) \| iter (?P<step>\d{1,15}) step \d{1,15} \| "
    rf"loss train: (?P<train>{NUMBER}), val: (?:(?P<val>{NUMBER})|n/a) \|"
)
_CLU = re.compile(rf"\[(?P<step>\d{{1,15}})\] (?=[\w/@.\-]{{1,80}}={NUMBER}(?:,|\s{{0,80}}$))")
_CLU_ITEM = re.compile(rf"(?<=[\s,])(?P<name>[A-Za-z][\w/@.\-]{{0,79}})=(?P<value>{NUMBER})(?=,|\s|$)")
_MEGATRON = re.compile(r"(?:samples/sec: [\d.]{1,20} \| )?iteration\s{1,12}(?P<step>\d{1,15})/\s{0,12}\d{1,12} \|")
_MEGATRON_ITEM = re.compile(rf"(?<=\|)\s(?P<name>[A-Za-z][\w /().\-]{{0,60}}?):\s{{1,12}}(?P<value>{NUMBER})\s(?=\|)")
_MEGATRON_EVAL = re.compile(r"validation (?:loss|results) at iteration (?P<step>\d{1,15})[^|]{0,80}\|")
_MEGATRON_SKIPPED = ("consumed", "batch size", "iterations", "elapsed time", "tokens per global")
_DEEPSPEED = re.compile(r"step=(?P<step>\d{1,15}), skipped=\d{1,15}, lr=\[(?P<lr>[^\]]{0,2000})\]")
_DEEPSPEED_RATE = re.compile(
    rf"(?:(?:epoch=)?\d{{1,15}}/(?:micro_step=\d{{1,15}}/global_step=)?)?(?P<step>\d{{1,15}}), "
    rf"(?:RunningAvgSamplesPerSec=(?P<running>{NUMBER}), )?(?:CurrSamplesPerSec|SamplesPerSec)=(?P<rate>{NUMBER})"
)
_FAIRSEQ = re.compile(r"(?:train_inner \| )?\|?\s?epoch (?P<epoch>\d{1,15}):\s{1,12}\d{1,15} / \d{1,15}\s")
_FAIRSEQ_EPOCH = re.compile(r"(?:(?:train|valid|test|\w{1,20}) \| )?\|?\s?epoch (?P<epoch>\d{1,15}) \| ")
_FAIRSEQ_SUBSET = re.compile(r"valid on '(?P<subset>\w{1,40})' subset")
_FAIRSEQ_ITEM = re.compile(
    rf"\|\s(?P<name>(?:(?:train|valid|test) )?[A-Za-z]\w{{0,60}})\s{{1,8}}(?P<value>{NUMBER})(?P<unit>%?)(?=\s|$)"
)


def read_nanogpt(text: str, context: Context) -> list[Row] | None:
    """Read iterations and evaluations of nanoGPT and llama2.c. ``time_ms`` is in milliseconds."""
    found = _NANOGPT_EVAL.match(text)
    if found:
        values = {"train_loss": float(found["train"]), "val_loss": float(found["val"])}
        return [Row(values, int(found["step"]))]
    found = _LLAMA2_C.match(text)
    if found:
        values = {"loss": float(found["loss"]), "lr": float(found["lr"])}
        if found["mfu"] is not None:
            values["mfu"] = share(float(found["mfu"]), found["unit"])
        return [Row(values, int(found["step"]))]
    found = _NANOGPT.match(text)
    if not found:
        return None
    values = {"loss": float(found["loss"])}
    if found["time"] is not None:
        values["time_ms"] = float(found["time"])
    if found["mfu"] is not None:
        values["mfu"] = share(float(found["mfu"]), found["unit"])
    return [Row(values, int(found["step"]))]


def read_litgpt(text: str, context: Context) -> list[Row] | None:
    """Read an iteration of LitGPT."""
    found = _LITGPT.match(text)
    if not found:
        return None
    context.epoch = float(found["epoch"])
    values = {"train_loss": float(found["train"])}
    if found["val"] is not None:
        values["val_loss"] = float(found["val"])
    return [Row(values, int(found["step"]), epoch=context.epoch)]


def read_clu(text: str, context: Context) -> list[Row] | None:
    """Read a line of CLU's metric writer, as Flax, T5X and Big Vision log it: ``[1900] loss=0.82, lr=0.1``."""
    found = _CLU.match(text)
    if not found:
        return None
    values = {}
    claims = False
    for item in _CLU_ITEM.finditer(text, found.end() - 1):
        name = item["name"]
        if name.lower() in STEP_NAMES or name.lower() in EPOCH_NAMES:
            return None
        if is_metric(name) and name != "uptime":
            values[name] = float(item["value"])
            claims = claims or names_a_measure(name) or name == "steps_per_sec"
    if not values:
        return []
    return [Row(values, int(found["step"]))] if claims else None


def read_megatron(text: str, context: Context) -> list[Row] | None:
    """Read Megatron's line per iteration."""
    found = _MEGATRON.match(text)
    prefix = ""
    if not found:
        found = _MEGATRON_EVAL.match(text)
        prefix = "validation "
    if not found:
        return None
    values = {}
    for item in _MEGATRON_ITEM.finditer(text, found.end() - 1):
        name = item["name"]
        if is_metric(name) and not any(word in name for word in _MEGATRON_SKIPPED):
            values[prefix + name] = float(item["value"])
    return [Row(values, int(found["step"]))] if values else []


def read_deepspeed(text: str, context: Context) -> list[Row] | None:
    """Read DeepSpeed's own lines: the learning rate of the first group, and the speed."""
    found = _DEEPSPEED.search(text)
    if found:
        first = found["lr"].partition(",")[0].strip()
        return [Row({"lr": float(first)}, int(found["step"]))] if re.fullmatch(NUMBER, first) else []
    rate = _DEEPSPEED_RATE.search(text)
    if not rate:
        return None
    return [Row({"SamplesPerSec": float(rate["rate"])}, int(rate["step"]))]


def read_fairseq(text: str, context: Context) -> list[Row] | None:
    """Read fairseq's lines within and after an epoch. The step is ``num_updates``.

    The names of a validation get its subset as prefix, unless fairseq prints it itself.
    """
    found = _FAIRSEQ.match(text)
    pattern = PAIR
    if not found:
        found = _FAIRSEQ_EPOCH.match(text)
        pattern = _FAIRSEQ_ITEM
    if not found:
        return None
    context.epoch = float(found["epoch"])
    row = Row({}, epoch=context.epoch)
    subset = _FAIRSEQ_SUBSET.match(text, found.end())
    prefix = f"{subset['subset']}_" if subset else ""
    for pair in pattern.finditer(text, found.end() - 2):
        name = pair["name"].replace(" ", "_")
        value = share(float(pair["value"]), pair["unit"])
        if name.endswith("num_updates"):
            row.step = int(value)
        elif is_metric(name):
            row.values[name if name.startswith(("valid", "test", prefix)) else prefix + name] = value
    return [row] if row.values else []


FORMATS = (
    Format("nanogpt", ("loss ",), read_nanogpt, "iter 10: loss 9.4020, time 1099.34ms, mfu 15.34%"),
    Format(
        "litgpt",
        ("loss train: ",),
        read_litgpt,
        "Epoch 4 | iter 961 step 240 | loss train: 1.062, val: 1.057 | iter time: 529.46 ms (step)",
    ),
    Format("clu", ("] ",), read_clu, "[1900] learning_rate=0.001, loss=0.82"),
    Format(
        "megatron", ("iteration",), read_megatron, "iteration 10/ 100 | learning rate: 1.5E-04 | lm loss: 6.1E+00 |"
    ),
    Format("deepspeed", ("skipped=", "SamplesPerSec="), read_deepspeed, "step=2000, skipped=5, lr=[0.001], mom=[0.0]"),
    Format(
        "fairseq", ("epoch ",), read_fairseq, "| epoch 001:    450 / 1891 loss=11.521, ppl=1886.05, num_updates=445"
    ),
)
