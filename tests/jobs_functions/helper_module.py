"""A module of the tests' project that functions use."""

from __future__ import annotations

from math import prod

FACTOR = 10


def scaled(number: int) -> int:
    return inner(number) * FACTOR


def inner(number: int) -> int:
    return prod([number, 1])


class Scale:
    """A class with a base in the same module."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def apply(self, number: int) -> int:
        return self.factor * inner(number)
