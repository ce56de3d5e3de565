"""Checks of arguments that are the same in every part of the library."""

from __future__ import annotations

from typing import Any

from aksgpu.errors import InvalidInput

__all__ = ["flag", "integer", "shown"]

_LONGEST_SHOWN = 60
"""Maximum number of characters of an invalid value in an error."""
_LARGEST_SHOWN = 10**30
"""Larger integers are not shown, because Python refuses to convert very large integers to text."""


def integer(argument: str, value: Any, minimum: int, maximum: int | None = None) -> int:
    """Return an integer argument that is within limits.

    Args:
        argument: the argument's name, for the error.
        value: the argument's value. Integers of other libraries such as NumPy are accepted; booleans, strings and
            fractions are not.
        minimum: the smallest value.
        maximum: the largest value; None means no limit.

    Raises:
        InvalidInput: the value is not an integer within the limits.
    """
    number = None if isinstance(value, bool) else _as_integer(value)
    if number is None or number < minimum or (maximum is not None and number > maximum):
        limits = f"{minimum} to {maximum}" if maximum is not None else f"{minimum} or more"
        raise InvalidInput(
            f"`{argument}` must be an integer, {limits}, got {shown(value if number is None else number)}",
            hint=f"For example: {argument}={max(minimum, 1)}.",
        )
    return number


def _as_integer(value: Any) -> int | None:
    try:
        return int(value.__index__())
    except (AttributeError, TypeError):
        return None


def flag(argument: str, value: object, *, optional: bool = False) -> None:
    """Raise InvalidInput unless an argument is True or False, or None if it is optional."""
    if isinstance(value, bool) or (optional and value is None):
        return
    wanted = "True, False or None" if optional else "True or False"
    raise InvalidInput(f"`{argument}` must be {wanted}, got {shown(value)}", hint=f"For example: {argument}=True.")


def shown(value: object) -> str:
    """Return the text of an invalid value in an error: its ASCII representation, shortened."""
    if isinstance(value, int) and abs(value) >= _LARGEST_SHOWN:
        return "a very large integer"
    try:
        text = " ".join(ascii(value).split())
    except Exception:  # another library's object, or an integer of thousands of digits in a list
        text = ""
    if not text or " at 0x" in text:
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."
