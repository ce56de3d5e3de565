"""``name=value`` lines (logfmt, Katib's text format), and sentences such as ``train loss 1.03, val acc 0.9``.

A line is read from left to right, number by number. The words before a number are its label. A line is claimed if at
least one label names a measure, such as a loss or an accuracy. Other numbers of the line are used only if they have a
simple name.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from aksgpu.metrics import positions
from aksgpu.metrics.formats.model import Context, Format, Row
from aksgpu.metrics.values import (
    EPOCH_NAMES,
    MEASURES,
    NUMBER,
    RATES,
    SETTINGS,
    STEP_NAMES,
    integer,
    is_metric,
    names_a_measure,
    of_percent,
)

__all__ = ["FORMATS", "numbers", "read", "unwrapped"]

_NUMBER = re.compile(rf"(?<![\w.@])(?<![A-Za-z]-){NUMBER}")
_WRAPPED = re.compile(
    rf"(?:np\.|numpy\.|torch\.)?(?:float\d{{0,2}}|[tT]ensor|[aA]rray)\(\[?({NUMBER})\]?(?:,[^()\n]{{0,120}})?\)"
)
"""``tensor(0.41, device='cuda:0')`` and ``np.float64(0.41)``."""
_IN_BRACKETS = re.compile(rf"(?<=\w[=:])\s?\[({NUMBER})\]")
"""``episodic_return=[21.]``: an array of one number."""
_AT = re.compile(r"(?<=\w) @ (?=\d{1,3}(?!\d))")
"""``precision @ 1``."""
_FULL_WIDTH = str.maketrans("\uff1a\uff1d\uff0c\uff1b\uff08\uff09\uff3b\uff3d\uff05\u3001", ":=,;()[]%,")
"""Punctuation of Chinese and Japanese text, with the characters that patterns expect."""
_MEASURE = re.compile(rf"(?i:{MEASURES})(?:@\d{{1,3}}|[@_]?\d{{1,2}})?")
_SECONDARY = re.compile(rf"(?i:{SETTINGS}|{RATES}|cost)")
_CASE_MATTERS = frozenset({"map", "ap"})
"""Words that name a measure only with capitals: ``mAP``, ``AP``."""
_SPLIT = re.compile(
    r"(?<![\w./\-])(?i:(?P<word>train(?:ing)?|val(?:id(?:ation)?)?|eval(?:uation)?|test(?:ing)?|dev))(?![\w/]|\.\w)"
)
_QUALIFIERS = frozenset(
    (
        "train",
        "training",
        "val",
        "val.",
        "valid",
        "validation",
        "eval",
        "evaluation",
        "test",
        "testing",
        "dev",
        "total",
        "mean",
        "average",
        "avg",
        "avg.",
        "running",
        "final",
        "best",
        "batch",
        "epoch",
        "step",
        "macro",
        "micro",
        "weighted",
        "smoothed",
        "top-1",
        "top-5",
        "top1",
        "top5",
        "global",
        "episode",
    )
)
"""Words that belong to a measure's name in any position before it."""
_STOP_WORDS = frozenset(
    (
        "a",
        "an",
        "the",
        "and",
        "with",
        "has",
        "had",
        "have",
        "got",
        "get",
        "gets",
        "of",
        "to",
        "is",
        "was",
        "in",
        "on",
        "at",
        "by",
        "for",
        "from",
        "new",
        "current",
        "its",
        "our",
        "my",
        "your",
        "this",
        "that",
        "set",
        "results",
        "result",
        "metrics",
        "reached",
        "achieved",
        "obtained",
        "reports",
        "info",
        "done",
        "finished",
        "complete",
        "s",
        "ms",
        "sec",
    )
)
"""Words that end a measure's name, read backwards."""
_PREPOSITIONS = frozenset(("from", "to", "in", "on", "at", "by", "for", "is", "was"))
_OTHER_LOSSES = frozenset(
    (
        "packet",
        "packets",
        "connection",
        "data",
        "power",
        "heat",
        "signal",
        "weight",
        "target",
        "expected",
        "desired",
        "required",
        "threshold",
        "minimum",
        "min",
        "max",
        "maximum",
        "no",
        "not",
        "without",
        "if",
        "when",
        "until",
        "than",
        "below",
        "above",
        "http",
        "server",
        "exit",
        "syntax",
        "fatal",
        "board",
        "status",
        "rounding",
        "mixed",
        "credit",
    )
)
"""Words before a measure's name with which it means something else: ``packet loss``, ``target accuracy``."""
_CONNECTIVES = frozenset({"is", "was", "of", "now", "equals", "at", "=", "~", "->", "=>"})
_WITHOUT_WHOLE_NUMBERS = re.compile(
    r"(?i:(?:.{0,60}[_ ])?(?:err|error|return|precision|prec|top[1-9]|score|norm|map|ap))"
)
"""Names for which a whole number mostly means something else: ``error: 404``, ``precision: 16``."""
_UNIT_AFTER = re.compile(
    r"\s{0,2}(?i:ms|s|secs?|seconds?|mins?|minutes?|hours?|h|days?|[KMGT]i?B|bytes?|bits?|decimals?|digits?|places?|px"
    r"|points?|files?|items?|errors?|tests?|USD|EUR|dollars?|x|times|packets?)(?![\w/]|\s?[=:])"
)
_FRACTION = re.compile(r"\s?/\s?(?P<all>\d{1,15})(?![\w.])")
_PERCENT = re.compile(r"\s?%")
_BROKEN = re.compile(r"\w|[/:\-]\d|[.,]\d|[.:/]\w")
_REST_OF_TOKEN = re.compile(r"[\w:./,\-]{0,64}")
_END_OF_ITEM = re.compile(r"\s{0,4}(?:$|[,;|)\]}\t])|\s{2}|\s-\s|\s(?=[A-Za-z])")
_WHOLE_NUMBER = re.compile(r"[-+]?\d{1,40}")
_NEEDS_SIGN = re.compile(r"(?i:score|return|err|error|norm|cost|momentum|prec|it/s|steps?/s)")
"""Words that name a measure only before ``=`` or ``:``."""
_AMBIGUOUS = re.compile(r"(?i:precision|error|return|score|map|ap)")
_SHARE = re.compile(r"(?i:acc|correct)")
_POSITIONS = STEP_NAMES | EPOCH_NAMES
_COLUMN = re.compile(r"[A-Za-z][\w@/.\-]{0,63}")
_ADJECTIVE = re.compile(r"[A-Za-z][\w/\-]{0,30}")
_DELIMITERS = re.compile(r"[,;|()\[\]{}<>\"'\t=:\u2022\u00b7]|\s-{1,3}\s|->")
_CONFIGURATION = re.compile(
    r"\s{0,8}\w{0,40}(?i:namespace|config|cfg|args|arguments|params|options|settings|hyperparameters|optimizer|scheduler)"
    r"\w{0,20}\s?[(:={]|[A-Z]\w{0,60}\s?\("
)
"""A line that prints settings, or an object with its fields: ``Namespace(lr=0.1)``, ``SGD (lr: 0.1)``."""
_LOADED = re.compile(r"[^A-Za-z]{0,8}(?i:load|resum|restor)(?i:e|ed|ing)\b")
"""A line about a checkpoint of an earlier run, whose numbers are those of that run."""
_KATIB = re.compile(
    rf"\"?metricName\"?\s?: ?\"?(?P<name>[\w@/.\-]{{1,64}})\"?[;,] ?\"?metricValue\"?\s?: ?\"?(?P<value>{NUMBER})"
)
_SENTENCE = re.compile(r"[A-Za-z']{2,40}")
_LONGEST_LABEL = 80
"""Characters before a number that may contain its label."""
_MAX_WORDS = 14
"""Words of a line, apart from those that its metrics need. A longer line is a sentence that mentions a number."""


class _Label(NamedTuple):
    """The words before a number.

    Attributes:
        name: the name of the column; empty if the words name nothing.
        sign: ``=``, ``:`` or empty.
        is_measure: whether the name is that of a measure, such as a loss or an accuracy.
        is_word: whether the last word of the name is one of the measures' words.
        is_secondary: whether the name is that of a learning rate, a speed or similar.
    """

    name: str
    sign: str
    is_measure: bool
    is_word: bool
    is_secondary: bool


_NOTHING = _Label("", "", False, False, False)


def read(text: str, context: Context) -> list[Row] | None:
    """Read ``name=value`` pairs of which at least one names a measure, and sentences with measures."""
    if "metricName" in text:
        katib = {found["name"]: float(found["value"]) for found in _KATIB.finditer(text)}
        if katib:
            return [Row(katib, epoch=context.epoch)]
    if _CONFIGURATION.match(text) or _LOADED.match(text):
        return None
    text = unwrapped(text)
    position = positions.find(text)
    if position.alone:
        return _remember(position, context)
    row = Row({}, step=position.step, step_kind=position.step_kind, epoch=position.epoch)
    has_position = position.epoch is not None or position.step is not None
    if not _scan(text, row, has_position):
        return None
    if row.epoch is not None:
        context.epoch = row.epoch
    else:
        row.epoch = context.epoch
    return [row]


def unwrapped(text: str) -> str:
    """Return a text in which tensors, NumPy scalars and arrays of one number are replaced by their number."""
    if not text.isascii():
        text = text.translate(_FULL_WIDTH)
    if "(" in text:
        text = _WRAPPED.sub(r"\1", text)
    if " @ " in text:
        text = _AT.sub("@", text)
    return _IN_BRACKETS.sub(r"\1", text) if "[" in text else text


def numbers(text: str) -> Row | None:
    """Return the metrics in a part of a line, or None if it does not name a measure."""
    row = Row({})
    return row if _scan(unwrapped(text), row, False) else None


def _remember(position: positions.Position, context: Context) -> list[Row]:
    """Store the position in a line without metrics, such as ``Epoch 0/100, Batch 16/29316``."""
    context.position = None
    if position.epoch is not None:
        context.epoch = position.epoch
    if position.step is not None:
        context.position = (position.step, position.step_kind, context.epoch)
    return []


def _scan(text: str, row: Row, has_position: bool) -> bool:
    """Add the numbers of a line to a row, and return whether the line is about training."""
    claims = False
    split = ""
    before = 0
    for number in _NUMBER.finditer(text):
        if number.start() < before:
            continue
        region = text[max(before, number.start() - _LONGEST_LABEL) : number.start()]
        named = _SPLIT.search(region)
        label = _label(region)
        if named and label.name.lower() != named["word"].lower():
            split = named["word"].lower()
        value, before = _value(text, number, label, has_position)
        if not label.name:
            continue
        plain = label.name.lower()
        if plain in STEP_NAMES or plain in EPOCH_NAMES:
            has_position = _take_position(plain, label.sign, value, row) or has_position
            continue
        if value is None or not is_metric(label.name):
            continue
        name = label.name
        if split and label.is_measure and not label.is_secondary and not _SPLIT.search(name.replace("_", " ")):
            name = f"{split}_{name}"
        row.values.setdefault(name, value)
        claims = claims or (label.is_measure and not label.is_secondary) or has_position
    if not row.values or not claims:
        return False
    return len(_SENTENCE.findall(text)) <= _MAX_WORDS + 3 * len(row.values)


def _take_position(name: str, sign: str, value: float | None, row: Row) -> bool:
    """Store ``step=3`` or ``epoch=1`` of logfmt. Positions in other forms were found before."""
    if value is None or sign != "=":
        return False
    if name in EPOCH_NAMES:
        row.epoch = value
    else:
        row.step = integer(value)
    return True


def _label(region: str) -> _Label:
    """Return the label in the words before a number."""
    body = region.rstrip()
    sign = ""
    if body.endswith(("=", ":")):
        sign = body[-1]
        glued = body[-2:-1] not in (" ", "\t")
        body = body[:-1].rstrip()
    else:
        glued = False
    start = 0
    for delimiter in _DELIMITERS.finditer(body):
        start = delimiter.end()
    words = body[start:].split()
    while words and not sign and words[-1].lower() in _CONNECTIVES:
        words.pop()
    if not words:
        return _NOTHING
    count = 1
    if len(words) > 1 and _is_word(f"{words[-2]} {words[-1]}"):
        count = 2
    last = " ".join(words[-count:])
    is_word = _is_word(last) or _is_split_word(last)
    is_secondary = bool(_SECONDARY.fullmatch(last))
    is_measure = is_word or names_a_measure(last)
    if not sign and (_NEEDS_SIGN.fullmatch(last) or not (is_word or is_secondary)):
        return _NOTHING
    if sign == "=" and glued:
        if not _COLUMN.fullmatch(last.replace(" ", "_")):
            return _NOTHING
        return _Label(last.replace(" ", "_"), sign, is_measure, is_word, is_secondary)
    qualifiers = _qualifiers(words[:-count], free=bool(sign) or len(words) - count == 1)
    if qualifiers is None:
        return _NOTHING
    if not is_measure and not is_secondary and (len(words) > 1 or "." in last):
        return _NOTHING
    name = "_".join([*qualifiers, *words[-count:]]).replace("._", "_")
    if not _COLUMN.fullmatch(name):
        return _NOTHING
    return _Label(name, sign, is_measure, is_word, is_secondary)


def _is_word(text: str) -> bool:
    if text in _CASE_MATTERS:
        return False
    return bool(_MEASURE.fullmatch(text) or _SECONDARY.fullmatch(text))


def _is_split_word(text: str) -> bool:
    """Return whether a name is a measure with qualifiers before it: ``train_loss``, ``val_acc``."""
    *before, measure = text.split("_")
    return bool(before) and _QUALIFIERS.issuperset(part.lower() for part in before) and _is_word(measure)


def _qualifiers(words: list[str], *, free: bool) -> list[str] | None:
    """Return the words before a measure that belong to its name; None if they change its meaning."""
    found: list[str] = []
    others = 0
    for word in reversed(words):
        plain = word.lower()
        if plain in _OTHER_LOSSES:
            return None
        if plain in _STOP_WORDS or len(found) == 3:
            if plain in _PREPOSITIONS and free is False:
                return None
            break
        if plain not in _QUALIFIERS:
            others += 1
            if not free or others > 2 or not _ADJECTIVE.fullmatch(word):
                return None if not found and not free else found
        found.insert(0, word)
    return found


def _value(text: str, number: re.Match[str], label: _Label, has_position: bool) -> tuple[float | None, int]:
    """Return the value of a number (None if it is not a metric), and the index of the text after it."""
    end = number.end()
    printed = number[0]
    percent = _PERCENT.match(text, end)
    if percent:
        return (of_percent(float(printed)), percent.end()) if label.name else (None, percent.end())
    fraction = _FRACTION.match(text, end)
    if fraction:
        right = float(printed)
        everything = float(fraction["all"])
        is_share = _SHARE.search(label.name) and 0 <= right <= everything and everything > 0
        return (right / everything if is_share else None), fraction.end()
    if _BROKEN.match(text, end) and not _ends_sentence(text, end):
        skipped = _REST_OF_TOKEN.match(text, end)
        return None, skipped.end() if skipped else end
    if _UNIT_AFTER.match(text, end) and not label.is_secondary:
        return None, end
    if _WHOLE_NUMBER.fullmatch(printed):
        if not label.is_measure and not label.is_secondary and label.name.lower() not in _POSITIONS:
            return None, end
        ends = _END_OF_ITEM.match(text, end)
        if not label.sign and not (has_position and ends):
            return None, end
        if label.sign == ":" and _WITHOUT_WHOLE_NUMBERS.fullmatch(label.name) and not (has_position and ends):
            return None, end
        if label.sign == "=" and _AMBIGUOUS.fullmatch(label.name) and not has_position:
            return None, end
    return float(printed), end


def _ends_sentence(text: str, end: int) -> bool:
    return text[end : end + 1] == "." and text[end + 1 : end + 2].isspace()


FORMATS = (Format("key values", ("=", ":", " ", "\uff1a", "\uff1d"), read, "epoch 3: loss=0.41 val_acc=0.91"),)
