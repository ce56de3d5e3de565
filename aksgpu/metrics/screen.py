"""Apply the carriage returns, backspaces and ANSI escapes in a line, as a terminal does."""

from __future__ import annotations

import re

__all__ = ["states"]

_ESCAPE = re.compile(
    r"\x1b(?:"
    r"\[[0-?]{0,32}[ -/]{0,4}[@-~]"
    r"|\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)"
    r"|[()][0-9A-Za-z]"
    r"|[=>78DEHMc])"
)
"""ANSI escapes: CSI sequences (colours, cursor moves), OSC sequences (titles, links), character sets, letters."""
_CURSOR_UP = re.compile(r"\x1b\[\d{0,3}A")
"""tqdm and rich move the cursor up to draw several bars. What follows is another line of the screen."""
_BACKSPACES = re.compile("\b+")
_CONTROL = ("\r", "\b", "\x1b")


def states(line: str) -> list[str]:
    """Return the states of a line that was redrawn, in order.

    A program that draws a progress bar writes its states into one line, separated by carriage returns or by as many
    backspaces as the state has characters. All states are returned. The reader of the bar decides which of them were
    replaced by later ones, and which ended an epoch.

    Args:
        line: a line without its newline.
    """
    if not any(mark in line for mark in _CONTROL):
        return [line]
    if "\x1b" in line:
        line = _ESCAPE.sub("", _CURSOR_UP.sub("\r", line))
    shown = []
    for drawn in line.split("\r"):
        shown.extend(_without_backspaces(drawn) if "\b" in drawn else [drawn])
    return [text for text in shown if text.strip()]


def _without_backspaces(text: str) -> list[str]:
    """Apply backspaces. A run that reaches the line's start begins a new state."""
    states = []
    parts: list[str] = []
    length = 0
    position = 0
    for run in _BACKSPACES.finditer(text):
        if run.start() > position:
            parts.append(text[position : run.start()])
            length += run.start() - position
        position = run.end()
        count = run.end() - run.start()
        if count >= length:
            states.append("".join(parts))
            parts = []
            length = 0
            continue
        length -= count
        _erase(parts, count)
    states.append("".join(parts) + text[position:])
    return states


def _erase(parts: list[str], count: int) -> None:
    """Remove the last characters of a string that is stored in parts."""
    while count:
        last = parts.pop()
        if len(last) > count:
            parts.append(last[:-count])
            return
        count -= len(last)
