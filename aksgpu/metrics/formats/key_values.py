"""``name=value`` lines (logfmt, Katib's text form), and guarded prose such as ``train loss 1.03, val acc 0.9``."""

from __future__ import annotations

import re

from aksgpu.metrics.formats.model import Context, Format, Row
from aksgpu.metrics.values import EPOCH_NAMES, NUMBER, PAIR, STEP_NAMES, integer, is_metric, share

_WORDS = (
    r"loss(?:es)?|acc(?:uracy)?|f1(?:[ _-]score)?|auc|auroc|precision|recall|mae|mse|rmse|nll|perplexity|ppl|bleu|rouge[\w-]{0,4}|iou|miou|m?ap(?:50)?|"
    r"dice|psnr|ssim|fid|wer|cer|error(?:[ _-]rate)?|reward|return|score|kl|entropy|lr|learning[ _-]rate|grad(?:ient)?[ _-]norm|gnorm|"
    r"throughput|(?:tokens|samples|images|steps|examples)(?:/s(?:ec)?|[ _-]per[ _-]sec(?:ond)?)"
)
"""Words that name a metric. Prose is read only where one stands before a number."""
_METRIC_WORD = re.compile(rf"(?i:(?:^|[\s_/\-.@(])(?:{_WORDS})(?:$|[\s_/\-.@)\d]))")
_PROSE = re.compile(
    rf"(?<![\w@/.\-])(?P<name>(?i:(?:(?:total|mean|average|avg|running|final|best|train(?:ing)?|val(?:id(?:ation)?)?|eval(?:uation)?|test|dev|batch|epoch|top-?[15])[ _-]){{0,3}}"
    rf"(?:[A-Za-z]\w{{0,30}}_)?(?:{_WORDS})(?:@\d{{1,3}})?))(?:\s(?:is|was|of|at))?\s?[:=]?\s{{0,6}}(?P<value>{NUMBER})(?P<unit>\s?%)?(?![\w/:])"
)
_PAIR_NAME = re.compile(r"(?i:(?:^|.*[_/\-.@])(?:" + _WORDS + r")(?:[_/\-.@\d]{1,3}\w{0,20})?$)")
_EPOCH = re.compile(
    r"(?<!\w)(?i:epochs?|ep)[ :=#]{0,3}[\[(]?\s{0,6}(?P<epoch>\d{1,9}(?:\.\d{1,9})?)(?:\s?(?:/|of)\s?\d{1,9})?[\])]?"
)
_STEP = re.compile(
    r"(?<!\w)(?i:(?P<kind>global[ _]step|steps?|iter(?:ation)?s?|batch(?:es)?|updates?))[ :=#]{0,3}[\[(]?\s{0,6}(?P<step>\d{1,15})(?:\s?(?:/|of)\s?\d{1,15})?[\])]?(?![.\w])"
)
_KATIB_JSON = re.compile(
    rf'"?metricName"?\s?: "?(?P<name>[\w@/.\-]{{1,64}})"?;?,? "?metricValue"?\s?: "?(?P<value>{NUMBER})'
)
_SENTENCE = re.compile(r"[A-Za-z']{2,}")
_MOST_WORDS = 14
"""Words of a line of guarded prose, apart from its numbers. A longer line is a sentence that mentions a number."""


def read(text: str, context: Context) -> list[Row] | None:
    """Read ``name=value`` pairs of which at least one has a metric's name, and guarded prose."""
    katib = _KATIB_JSON.search(text)
    if katib:
        return [Row({katib["name"]: float(katib["value"])}, epoch=context.epoch)]
    row = Row({})
    epoch = _EPOCH.search(text)
    step = _STEP.search(text)
    for pair in PAIR.finditer(text):
        _take(row, pair["name"], float(pair["value"]), pair["unit"], strict="=" not in pair["sign"])
    for found in _PROSE.finditer(text):
        name = _column(found["name"])
        if name not in row.values and found["name"] not in row.values and not _covered(name, row.values):
            row.values[name] = share(float(found["value"]), found["unit"])
    if epoch:
        row.epoch = float(epoch["epoch"])
    if step:
        row.step = int(step["step"])
        row.step_kind = "batch" if step["kind"].lower().startswith("batch") else "step"
    if not any(_PAIR_NAME.match(name) or _METRIC_WORD.search(f" {name} ") for name in row.values):
        return _position(text, row, context) if epoch or step else None
    if len(_SENTENCE.findall(text)) > _MOST_WORDS + 2 * len(row.values):
        return None
    if row.epoch is not None:
        context.epoch = row.epoch
    else:
        row.epoch = context.epoch
    return [row]


def _position(text: str, row: Row, context: Context) -> list[Row] | None:
    """Keep the place that a line without metrics names, such as ``Epoch 0/100, Batch 16/29316``."""
    if len(_SENTENCE.findall(text)) > 4:
        return None
    if row.epoch is not None:
        context.epoch = row.epoch
    if row.step is not None:
        context.position = (row.step, row.step_kind)
    return []


def _take(row: Row, name: str, value: float, unit: str | None, *, strict: bool) -> None:
    plain = name.lower()
    if plain in EPOCH_NAMES:
        row.epoch = value
    elif plain in STEP_NAMES:
        row.step = integer(value)
    elif is_metric(name) and (unit is None or unit.strip() == "%"):
        if strict and not _PAIR_NAME.match(name):
            return
        row.values[name] = share(value, unit)


def _column(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip()) if " " in name else name


def _covered(name: str, values: dict[str, float]) -> bool:
    """Return whether a pair already gave the last word of a prose name: ``train loss: 1`` has ``loss: 1`` in it."""
    last = name.rpartition("_")[2]
    if last in values and name != last:
        values[name] = values.pop(last)
        return True
    return False


FORMATS = (Format("key values", ("=", ":", " "), read, "epoch 3: loss=0.41 val_acc=0.91"),)
