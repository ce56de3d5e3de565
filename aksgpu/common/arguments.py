"""Numbers among a caller's arguments, checked before anything is sent."""

from __future__ import annotations

from typing import Any

from aksgpu.errors import InvalidInput


def whole(name: str, value: Any, least: int, most: int | None = None, *, of: str = "") -> int:
    """Return the integer, which must be within limits.

    Args:
        name: of the argument.
        value: what the caller gave. Integers of other libraries (NumPy's) are accepted. Text, fractions and booleans
            are not.
        least: the smallest that is accepted.
        most: the largest that is accepted; None for no limit.
        of: what limits the number, for the error.

    Raises:
        InvalidInput: names the argument, what it must be and what it was.
    """
    wanted = f"from {least} to {most}" if most is not None else f"of {least} or more"
    hint = f"For example: {name}={max(least, 1)}."
    because = f" ({of})" if of else ""
    number = None if isinstance(value, bool) else _index(value)
    if number is None:
        raise InvalidInput(f"`{name}` must be an integer {wanted}, got {shown(value)}{because}", hint=hint)
    if number < least or (most is not None and number > most):
        raise InvalidInput(f"`{name}` must be an integer {wanted}, got {shown(number)}{because}", hint=hint)
    return number


def _index(value: Any) -> int | None:
    try:
        return int(value.__index__())
    except (AttributeError, TypeError):
        return None


def shown(value: object) -> str:
    """A value as an error shows it: short, whatever it is."""
    if isinstance(value, int) and abs(value) >= 10**30:  # Python refuses to print very long integers
        return "a very large integer"
    text = ascii(value) if isinstance(value, (str, bytes, int, float, type(None))) else ""
    if not text:
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
