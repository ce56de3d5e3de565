"""Find the epoch and the step in the words of a line."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Position", "find"]

_NUMBERED = r"(?:[ _]?(?:no\.?|number|num|\#)|\.\.\.)?\s{0,3}[:=#]?\s{0,4}[\[(]?\s{0,12}"
_OF = r"(?:\s{0,3}(?:/|\bof\b)\s{0,12}\d{1,15})"
_AFTER = r"(?![\w%]|[.:\-]\d)"
_EPOCH = re.compile(
    rf"(?<![\w/.\-])(?i:epoch|ep){_NUMBERED}(?P<epoch>\d{{1,15}}(?:\.\d{{1,15}})?){_OF}?{_AFTER}[\])]?"
    rf"|(?<![\w/.\-])(?i:epochs){_NUMBERED}(?P<several>\d{{1,15}}){_OF}{_AFTER}[\])]?"
)
_STEP = re.compile(
    r"(?<![\w/.\-])"
    r"(?i:(?P<kind>global[ _]?steps?|steps?|iters?|iterations?|batch(?:es)?|updates?|episodes?|rounds?|it))"
    rf"{_NUMBERED}(?P<step>\d{{1,15}})(?P<of>{_OF})?{_AFTER}[\])]?"
)
_GAN = re.compile(r"\s{0,4}\[\s{0,8}(?P<epoch>\d{1,15})/\d{1,15}\]\s?\[\s{0,8}(?P<step>\d{1,15})/\d{1,15}\]")
"""``[1/25][0/1583]`` as in PyTorch's DCGAN example: epoch, batch."""
_PAIR = re.compile(r"\s{0,4}\[(?P<epoch>\d{1,15}),\s{1,8}(?P<step>\d{1,15})\]")
"""``[1,  2000]`` as in PyTorch's CIFAR tutorial: epoch, batch."""
_NOT_THIS = re.compile(
    r"(?i:\b(?:best|per|each|every|max|total|last|resum\w{0,4}|from|until|after|num|number of|at|in)\s{0,4})$"
)
"""Words before an epoch that is not the one of the line: ``best epoch: 3``."""
_KINDS = {"batch": "batch", "batches": "batch", "episode": "episode", "episodes": "episode", "round": "round"}
_PLURALS = ("steps", "batches", "iterations", "updates", "rounds", "episodes")
"""Words before a total, unless the total follows the step: ``steps 3/100``."""
_LETTER = re.compile(r"[A-Za-z]")
_BEFORE_A_POSITION = re.compile(
    r"[^A-Za-z]{0,80}(?i:(?:start(?:ing)?|begin(?:ning)?)(?: of)? )?(?i:(?:learning|training|train) )?"
)
"""Words before the position in a line that has nothing else: ``Learning iteration 10/1500``, ``Start of epoch 3``."""
_AFTER_A_POSITION = re.compile(r", (?:Testing net \(#\d{1,4}\)|Total Micro Batches \d{1,15})\s{0,8}$")
"""Words after such a position: those of Caffe and DeepSpeed-Chat."""


class Position(NamedTuple):
    """The position in the training that a line names.

    Attributes:
        epoch: as printed, or None.
        step: as printed, or None.
        step_kind: what the step counts.
        alone: whether the line has nothing but its position.
    """

    epoch: float | None
    step: int | None
    step_kind: str
    alone: bool


def find(text: str) -> Position:
    """Return the epoch and the step that a line names."""
    double = _GAN.match(text) or _PAIR.match(text)
    if double:
        alone = not _LETTER.search(text, double.end())
        return Position(float(double["epoch"]), int(double["step"]), "batch", alone)
    epoch = _EPOCH.search(text)
    if epoch and _NOT_THIS.search(text[max(0, epoch.start() - 16) : epoch.start()]):
        epoch = None
    step = _STEP.search(text)
    if step and _NOT_THIS.search(text[max(0, step.start() - 16) : step.start()]):
        step = None
    kind = "step"
    if step:
        word = step["kind"].lower()
        kind = _KINDS.get(word, "step")
        if word in _PLURALS and not step["of"]:
            step = None
    return Position(
        float(epoch["epoch"] or epoch["several"]) if epoch else None,
        int(step["step"]) if step else None,
        kind if step else "step",
        _is_alone(text, epoch, step),
    )


def _is_alone(text: str, *found: re.Match[str] | None) -> bool:
    """Return whether a line has no words but those of its position."""
    spans = sorted(each.span() for each in found if each)
    if not spans:
        return False
    rest = []
    words = _BEFORE_A_POSITION.match(text)
    position = words.end() if words and words.end() == spans[0][0] else 0
    for start, end in spans:
        rest.append(text[position:start])
        position = max(position, end)
    rest.append(_AFTER_A_POSITION.sub("", text[position:]))
    return not _LETTER.search("".join(rest))
