"""Progress bars of tqdm, Lightning and rich: the numbers that stand behind the bar."""

from __future__ import annotations

import re
from typing import NamedTuple

from aksgpu.metrics.formats.model import Bar, Context, Format, Row
from aksgpu.metrics.values import EPOCH_NAMES, NUMBER, PAIR, STEP_NAMES, is_metric, share

_TQDM = re.compile(
    r"(?P<name>[^|\n]{0,200}?):?\s{0,8}\d{1,3}%\|[^|\n]{0,400}\|\s{0,12}"
    r"(?P<done>\d{1,15})(?:\.\d{0,3})?[kMG]?/(?P<total>\d{1,15})(?:\.\d{0,3})?[kMG]?\s{0,4}(?:\[(?P<postfix>[^\n]{0,2000}?)\](?=\s|$|\[|\{|[^,\w.\]]))?"
)
_RICH = re.compile(
    r"(?P<name>[^\u2501\u2578\u257a\n]{0,200}?)\s{0,4}[\u2501\u2578\u257a ]{3,400}\s{0,4}(?P<done>\d{1,15})/(?P<total>\d{1,15})\s"
    r"(?P<postfix>[^\n]{0,2000})"
)
_EPOCH = re.compile(r"(?i:epochs?)[ :=]{0,3}\[?(?P<epoch>\d{1,9})")
_RATE = re.compile(rf"(?P<rate>{NUMBER})\s?(?P<unit>it|batch|sample|example|token|step)s?/s")


class Drawn(NamedTuple):
    """A bar as a line shows it.

    Attributes:
        bar: its key and how far it is.
        epoch: that its description names, or None.
        postfix: the text behind it, with the numbers.
        rest: what a program printed after it in the same line.
    """

    bar: Bar
    epoch: float | None
    postfix: str
    rest: str


def find(text: str) -> Drawn | None:
    """Return the bar that a line begins with, or None."""
    if "%|" in text:
        found = _TQDM.match(text)
    elif "\u2501" in text:
        found = _RICH.match(text)
    else:
        return None
    if not found:
        return None
    named = _EPOCH.search(found["name"])
    epoch = float(named["epoch"]) if named else None
    name = found["name"].strip(" :|[")
    bar = Bar(name, int(found["done"]), int(found["total"]))
    return Drawn(bar, epoch, found["postfix"] or "", text[found.end() :].strip())


def values(postfix: str) -> dict[str, float]:
    """Return the metrics in the text behind a bar."""
    found = {}
    for pair in PAIR.finditer(postfix):
        name = pair["name"]
        if is_metric(name) and name.lower() not in EPOCH_NAMES and name.lower() not in STEP_NAMES:
            found[name] = share(float(pair["value"]), pair["unit"])
    return found


def read(text: str, context: Context) -> list[Row] | None:
    """Read a state of a bar."""
    drawn = find(text)
    if drawn is None:
        return None
    if drawn.epoch is not None:
        context.epoch = drawn.epoch
    found = values(drawn.postfix) | values(drawn.rest)
    if not found:
        return []
    return [Row(found, step=drawn.bar.done, step_kind="bar", epoch=drawn.epoch, bar=drawn.bar)]


FORMATS = (
    Format("progress bar", ("%|", "\u2501"), read, "Epoch 0: 100%|####| 10/10 [00:01<00:00, 8.0it/s, loss=0.22]"),
)
