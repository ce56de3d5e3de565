"""Split a log into lines, clean them for display, and find the new ones."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["added", "clean", "split"]

_LINE_LENGTH = 300
"""Characters of a line that are shown."""
_ESCAPES = re.compile(r"\x1b\[[\d;?]*[A-Za-z]|\x1b\(B")
"""Colours and cursor movements of terminals."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def split(text: str) -> list[str]:
    """Return the lines of a log unchanged. Only a newline ends a line."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines


def clean(line: str) -> str:
    """Return a line as a terminal shows it: text after a carriage return replaces the text before it."""
    shown = line.rstrip("\r").rpartition("\r")[2]
    shown = _CONTROL.sub("", _ESCAPES.sub("", shown))
    return shown if len(shown) <= _LINE_LENGTH else shown[:_LINE_LENGTH] + "…"


def added(before: Sequence[str], now: Sequence[str]) -> list[str] | None:
    """Return the lines of ``now`` that follow those of ``before``.

    Args:
        before: lines read earlier.
        now: lines read later, which may begin later in the log.

    Returns:
        The new lines; None if ``now`` has no line of ``before``, so that lines between them may be missing.
    """
    before = list(before)
    now = list(now)
    if not before:
        return now
    for start in range(len(before)):
        common = len(before) - start
        if before[start:] == now[:common]:
            return now[common:]
    return None
