"""Keras 1, 2 and 3: progress bars (``verbose=1``) and one line an epoch (``verbose=2``)."""

from __future__ import annotations

import re

from aksgpu.metrics.formats.model import Bar, Context, Format, Row
from aksgpu.metrics.values import NUMBER, is_metric

_EPOCH = re.compile(r"Epoch (?P<epoch>\d{1,9})(?:/\d{1,9})?\s*$")
_BAR = re.compile(
    r"\s{0,12}(?P<done>\d{1,12})/(?P<total>\d{1,12}|Unknown)\s{0,4}(?P<drawn>\[[=>. ]{1,64}\]|[\u2501\u2578\u257a ]{1,64}|(?= - ))"
)
_NO_BAR = re.compile(r" ?- \d{1,9}s(?:/epoch)?(?= - )")
"""Keras 1 with ``verbose=2``: ``- 21s - loss: 0.24``."""
_ITEM = re.compile(rf"(?: - |\s)(?P<name>[A-Za-z_][\w@./ -]{{0,60}}?): (?P<value>{NUMBER})(?=\s|$)")
_MESSAGE = re.compile(r"Epoch (?P<epoch>\d{1,9}): (?P<name>\w{1,64}) (?:improved from|did not improve)")
"""ModelCheckpoint with ``verbose=1``. Its numbers repeat those of the bar."""


def read_epoch(text: str, context: Context) -> list[Row] | None:
    """Read the header of an epoch."""
    found = _EPOCH.fullmatch(text)
    if found:
        context.epoch = int(found["epoch"])
        return []
    return [] if _MESSAGE.match(text) else None


def read_bar(text: str, context: Context) -> list[Row] | None:
    """Read a state of an epoch's bar, or the one line of an epoch."""
    found = _BAR.match(text) or _NO_BAR.match(text)
    if not found:
        return None
    values = {}
    for item in _ITEM.finditer(text, found.end()):
        name = item["name"].strip()
        if is_metric(name):
            values[name] = float(item["value"])
    if not values:
        return []
    if found.re is _NO_BAR:
        return [Row(values, epoch=context.epoch)]
    done = int(found["done"])
    total = None if found["total"] == "Unknown" else int(found["total"])
    bar = Bar(f"keras {context.epoch}", done, total)
    return [Row(values, step=done, step_kind="bar", epoch=context.epoch, bar=bar)]


FORMATS = (
    Format("keras", ("Epoch ",), read_epoch, "Epoch 1/5"),
    Format("keras", ("/", "s - "), read_bar, "1875/1875 [====] - 3s 2ms/step - loss: 0.29 - accuracy: 0.91"),
)
