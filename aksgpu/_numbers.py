"""Whole numbers among a caller's arguments, checked before anything is sent. What they count is the caller's."""

from __future__ import annotations

from typing import Any

from aksgpu.errors import InvalidInput


def whole(name: str, value: Any, least: int, most: int | None = None, *, of: str = "") -> int:
    """The number, which has to be a whole one, within limits.

    Args:
        name: the argument's.
        value: what was given. Whole numbers of other libraries (NumPy's) will do; texts and fractions will not.
        least: smallest that is taken.
        most: largest that is taken; None for any.
        of: what is counted and who says so, for the error.

    Raises:
        InvalidInput: says what was given and what is wanted.
    """
    wanted = f"{least} to {most}" if most is not None else f"{least} or more"
    hint = f"Give a whole number, {wanted}, such as {name}={max(least, 1)}."
    try:
        number = value.__index__()
    except (AttributeError, TypeError):
        raise InvalidInput(f"{name} is {value!r}, which is no whole number{of and f'; {of}'}", hint=hint) from None
    if number < least or (most is not None and number > most):
        raise InvalidInput(f"{name} is {number}; {of or f'it is {wanted}'}", hint=hint)
    return int(number)
