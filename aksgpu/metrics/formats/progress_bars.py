"""Progress bars of tqdm, Lightning and rich, with the numbers before and after the bar, and Lightning's tables."""

from __future__ import annotations

import re
from typing import NamedTuple

from aksgpu.metrics.formats import key_values
from aksgpu.metrics.formats.model import Bar, Context, Format, Row
from aksgpu.metrics.values import EPOCH_NAMES, NUMBER, PAIR, STEP_NAMES, is_metric, names_a_measure, share

__all__ = ["FORMATS", "OVER_EPOCHS", "Drawn", "find", "read", "read_table", "rows", "without_replaced"]

_COUNT = r"(?P<done>\d{1,15})(?:\.\d{0,3})?[kMG]?/(?P<total>\d{1,15})(?:\.\d{0,3})?[kMG]?"
_POSTFIX_END = r"\](?=\s|$|\[|\{|[^,\w.\]])"
_TQDM = re.compile(
    r"(?P<name>(?:\d{1,15}\|\d{1,15}\|)?[^|\n]{0,200}?)(?: \|\|)?:?\s{0,8}\d{1,3}%\|[^|\n]{0,400}\|\s{0,12}"
    rf"{_COUNT}\s{{0,4}}(?:\[(?P<postfix>[^\n]{{0,2000}}?){_POSTFIX_END})?"
)
_WITHOUT_TOTAL = re.compile(
    rf"(?P<name>(?:[^|\[\n]{{0,200}}?: )?)(?P<done>\d{{1,15}})(?:it|step|batch|ex|sample|epoch) "
    rf"\[(?P<postfix>\d{{2}}:\d{{2}}[^\n]{{0,2000}}?){_POSTFIX_END}"
)
"""tqdm over something without a length: ``120it [00:03, 38.1it/s, loss=0.3]``."""
_RICH = re.compile(
    r"(?P<name>[^\u2501\u2578\u257a\u2500\n]{0,200}?)\s{0,4}[\u2501\u2578\u257a\u2500 ]{3,400}\s{0,4}"
    r"(?P<done>\d{1,15})/(?P<total>\d{1,15})\s(?P<postfix>[^\n]{0,2000})"
)
_IGNITE = re.compile(
    r"(?P<name>[^|\n\[]{0,200}(?:\[\d{1,15}/\d{1,15}\])?:?\s)\[(?P<done>\d{1,15})/(?P<total>\d{1,15})\]\s{1,4}\d{1,3}%\|"
    r"[^,|\n\[]{0,400}\|?\s{0,8}(?:, ?(?P<postfix>[^\n\[]{0,2000}))? \[[\d:?]{1,16}<[\d:?]{1,16}\]"
)
"""Ignite's bar, whose numbers come before the times: ``[50/100]  50%|#####     , loss=0.5 [00:10<00:10]``."""
_EPOCH = re.compile(r"(?i:(?<![A-Za-z])epochs?)[ :=#]{0,3}[\[(]?(?P<epoch>\d{1,15})")
_TORCHTUNE = re.compile(r"(?P<epoch>\d{1,15})\|(?P<step>\d{1,15})\|")
OVER_EPOCHS = "over epochs"
"""Key of a bar whose steps are epochs."""
_OVER_EPOCHS = re.compile(r"(?i:(?:train(?:ing)?\s)?epochs?)")
"""Description of a bar whose steps are epochs."""
_FRACTION = re.compile(r"\s{0,12}(?P<done>\d{1,15})/(?P<total>\d{1,15})(?![\d.kMG])")
_KERAS = re.compile(r"\s{0,12}(?P<done>\d{1,15})/(?P<total>\d{1,15})\s{1,4}[\[\u2501]")
_DRAWN = str.maketrans("", "", "0123456789 .=>#\u2501\u2500\u2578\u257a" + "".join(map(chr, range(0x2588, 0x2590))))
"""Characters that a bar draws, and those of numbers."""
_DIGITS = re.compile(r"\d{1,40}")
_CELLS = re.compile(
    r"\u2502\s{1,80}(?P<name>[A-Za-z][\w@/.\- ]{0,80}?)\s{1,80}\u2502"
    rf"\s{{1,80}}(?P<value>{NUMBER})\s{{1,80}}\u2502"
)
_TABLE = re.compile(r"\s{0,80}(?:Test|Validate|Runningstage\.\w{1,20}) metric\s{1,80}DataLoader \d{1,6}\s{0,80}$")
_TABLE_ROW = re.compile(rf"\s{{0,80}}(?P<name>[A-Za-z][\w@/.\-]{{0,80}})\s{{2,80}}(?P<value>{NUMBER})\s{{0,80}}$")


class Drawn(NamedTuple):
    """A bar as a line shows it.

    Attributes:
        bar: its key and its progress.
        epoch: the epoch in its description, or None.
        name: its description.
        postfix: the text after it, with the numbers.
        rest: the text after the postfix in the same line.
    """

    bar: Bar
    epoch: float | None
    name: str
    postfix: str
    rest: str


def find(text: str) -> Drawn | None:
    """Return the bar that a line begins with, or None."""
    if "%|" in text:
        found = _TQDM.match(text) or _IGNITE.match(text)
    elif "\u2501" in text or "\u2500\u2500\u2500" in text:
        found = _RICH.match(text)
    elif " [" in text and "/" in text:
        found = _WITHOUT_TOTAL.match(text)
    else:
        return None
    if not found:
        return None
    name = found["name"]
    done = int(found["done"])
    total = None if found.re is _WITHOUT_TOTAL else int(found["total"])
    described = name.strip(" :|[")
    epoch = None
    named = _EPOCH.search(name)
    if named:
        epoch = float(named["epoch"])
    key = _DIGITS.sub("0", described)
    if total is not None and _OVER_EPOCHS.fullmatch(described):
        epoch = float(done)
        key = OVER_EPOCHS
    return Drawn(Bar(key, done, total), epoch, name, found["postfix"] or "", text[found.end() :].strip())


def without_replaced(states: list[str]) -> list[str]:
    """Return the states of a line without those that a later state of the same bar replaces.

    The first state of each bar is kept, because it shows that the bar began again.
    """
    if len(states) < 3:
        return states
    kept = []
    before = None
    outline = _outline(states[0])
    for number, state in enumerate(states):
        after = _outline(states[number + 1]) if number + 1 < len(states) else None
        if not _is_later_state(before, outline) or not _is_later_state(outline, after):
            kept.append(state)
        before = outline
        outline = after
    return kept


def _is_later_state(one: tuple[str, str, str, int] | None, other: tuple[str, str, str, int] | None) -> bool:
    """Return whether the second state is a later state of the same bar."""
    return one is not None and other is not None and one[:3] == other[:3] and one[3] <= other[3]


def _outline(state: str) -> tuple[str, str, str, int] | None:
    """Return what is the same in two states of which one replaces the other, and the progress of the bar."""
    drawn = state.find("%|")
    if drawn > 0:
        description = state[:drawn].rstrip("0123456789 ")
        fraction = _FRACTION.match(state, state.find("|", drawn + 2) + 1)
    else:
        description = ""
        fraction = _KERAS.match(state)
    if not fraction:
        return None
    return description, fraction["total"], state.translate(_DRAWN), int(fraction["done"])


def read(text: str, context: Context) -> list[Row] | None:
    """Read a state of a bar, without the text after it."""
    drawn = find(text)
    return None if drawn is None else rows(drawn, context)


def rows(drawn: Drawn, context: Context) -> list[Row]:
    """Return the row of a bar, or no row if it has no metrics."""
    epoch = context.epoch if drawn.epoch is None else drawn.epoch
    row = Row({}, step=drawn.bar.done, step_kind="bar", epoch=epoch, bar=drawn.bar)
    name = drawn.name
    tune = _TORCHTUNE.match(name)
    if tune:
        row.epoch = float(tune["epoch"])
        row.step = int(tune["step"])
        row.step_kind = "step"
        name = name[tune.end() :]
    if drawn.epoch is not None or tune:
        context.epoch = row.epoch
    described = key_values.numbers(name)
    if described is not None:
        row.values.update(described.values)
    postfix = key_values.unwrapped(drawn.postfix)
    for pair in PAIR.finditer(postfix):
        plain = pair["name"].lower()
        value = float(pair["value"])
        if plain in EPOCH_NAMES:
            row.epoch = value if row.epoch is None else row.epoch
        elif plain not in STEP_NAMES and is_metric(plain):
            row.values[pair["name"]] = share(value, pair["unit"])
    return [row] if row.values else []


def read_table(text: str, context: Context) -> list[Row] | None:
    """Read the table that Lightning prints after a test: names and values."""
    found = _CELLS.fullmatch(text.strip())
    if found:
        name = found["name"].strip()
        return [Row({name: float(found["value"])})] if names_a_measure(name) or "_" in name else None
    if _TABLE.match(text):
        context.header = ("metric", "value")
        context.header_kind = "lightning"
        return []
    if context.header_kind != "lightning":
        return None
    found = _TABLE_ROW.match(text)
    if found:
        return [Row({found["name"]: float(found["value"])})]
    if "\u2500" not in text:
        context.header = ()
        context.header_kind = ""
    return None


FORMATS = (
    Format(
        "progress bar",
        ("%|", "\u2501", "\u2500\u2500\u2500", " ["),
        read,
        "Epoch 0: 100%|####| 10/10 [00:01<00:00, 8.0it/s, loss=0.22]",
    ),
    Format("lightning table", ("\u2502", "metric", "."), read_table, "\u2502  test_loss  \u2502  0.3271  \u2502"),
)
