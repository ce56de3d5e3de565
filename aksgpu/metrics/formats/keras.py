"""Keras 1, 2 and 3: progress bars (``verbose=1``) and one line per epoch (``verbose=2``)."""

from __future__ import annotations

import re

from aksgpu.metrics.formats.model import Bar, Context, Format, Row
from aksgpu.metrics.values import NUMBER, is_metric

__all__ = ["FORMATS", "read_bar", "read_epoch"]

_EPOCH = re.compile(r"Epoch (?P<epoch>\d{1,15})(?:/\d{1,15})?\s{0,8}")
_BAR = re.compile(
    r"\s{0,16}(?P<done>\d{1,15})/(?P<total>\d{1,15}|Unknown)\s{0,4}"
    r"(?P<drawn>\[[=>. ]{1,64}\]|[\u2501\u2578\u257a][\u2501\u2578\u257a ]{0,63}|(?= - ))"
)
_NO_BAR = re.compile(r" ?- (?:ETA: )?\d{1,15}s(?:/epoch)?(?= - )")
"""Keras 1 with ``verbose=2``: ``- 21s - loss: 0.24``."""
_ITEM = re.compile(rf"(?: - |\s)(?P<name>[A-Za-z_][\w@./ -]{{0,60}}?): (?P<value>{NUMBER})(?=\s|$)")
_MESSAGE = re.compile(
    r"Epoch (?P<epoch>\d{1,15}): (?:\S{1,64} (?:improved from|did not improve)|early stopping|ReduceLROnPlateau"
    r"|finished|saving model|LearningRateScheduler)"
)
"""Callbacks with ``verbose=1``. The checkpoint's numbers repeat those of the bar."""


def read_epoch(text: str, context: Context) -> list[Row] | None:
    """Read the header of an epoch."""
    found = _EPOCH.fullmatch(text)
    if found:
        context.epoch = float(found["epoch"])
        context.bar = None
        context.run += 1
        return []
    return [] if _MESSAGE.match(text) else None


def read_bar(text: str, context: Context) -> list[Row] | None:
    """Read a state of an epoch's bar, or the only line of an epoch.

    ``model.evaluate`` draws a bar that looks the same. It has no header, so a bar that begins after another one has
    ended is an evaluation. Its names get the prefix ``eval_``.
    """
    found = _BAR.match(text) or _NO_BAR.match(text)
    if not found:
        return None
    values = {}
    for item in _ITEM.finditer(text, found.end()):
        name = item["name"].strip()
        if is_metric(name):
            values[name] = float(item["value"])
    if found.re is _NO_BAR:
        if not values:
            return None
        context.bar = Bar("", 1, 1)
        context.bar_is_final = True
        context.run += 1
        return [Row(values, epoch=context.epoch)]
    done = int(found["done"])
    total = None if found["total"] == "Unknown" else int(found["total"])
    state = Bar(" ".join(sorted(name for name in values if not name.startswith("val_"))), done, total)
    if _is_evaluation(state, values, context):
        values = {f"eval_{name}": value for name, value in values.items()}
        bar = Bar("keras evaluation", done, total, context.run)
        return [Row(values, step=done, step_kind="bar", epoch=None, bar=bar)] if values else []
    if values:
        context.bar = state
        context.bar_is_final = any(name.startswith("val_") for name in values) or not found["drawn"]
    return (
        [Row(values, step=done, step_kind="bar", epoch=context.epoch, bar=Bar("keras", done, total, context.run))]
        if values
        else []
    )


def _is_evaluation(state: Bar, values: dict[str, float], context: Context) -> bool:
    """Return whether a bar belongs to ``model.evaluate``: the bar of an epoch ended before it."""
    before = context.bar
    if before is None or not values:
        return False
    has_validation = any(name.startswith("val_") for name in values)
    if has_validation or (before.total is not None and before.done < before.total):
        return False
    if context.epoch is None and not context.bar_is_final and state.total == before.total:
        return False
    begins_again = state.total != before.total or state.done < before.done
    return begins_again or context.bar_is_final


FORMATS = (
    Format("keras", ("Epoch ",), read_epoch, "Epoch 1/5"),
    Format("keras", ("/", "s - "), read_bar, "1875/1875 [====] - 3s 2ms/step - loss: 0.29 - accuracy: 0.91"),
)
