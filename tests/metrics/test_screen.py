"""The text that a terminal shows for a line."""

from __future__ import annotations

import pytest

from aksgpu.metrics import screen


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain", ["plain"]),
        ("1/2\r2/2", ["1/2", "2/2"]),
        ("1/2\r2/2\r", ["1/2", "2/2"]),
        ("abc\b\bX", ["aX"]),
        ("abc\b\b\bX", ["abc", "X"]),
        ("a\b\b\bX\b", ["a", "X"]),
        ("ab\bc\b\bd", ["ac", "d"]),
        ("\x1b[1;32mgreen\x1b[0m", ["green"]),
        ("\x1b]0;title\x07text", ["text"]),
        ("inner\x1b[Aouter", ["inner", "outer"]),
        ("", [""]),
        ("\r", []),
    ],
)
def test_states_of_a_line(line: str, shown: list[str]) -> None:
    assert screen.states(line) == shown
