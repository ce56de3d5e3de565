"""Kubernetes quantities such as ``500m`` or ``2Gi``: their value and their canonical form.

The rules are those of ``resource.Quantity`` in Kubernetes: decimal and binary suffixes, exponents, a precision of one
nano, and a canonical form that has no fraction and keeps the family of suffixes that was used.
"""

from __future__ import annotations

import re
from decimal import ROUND_UP, Context, Decimal, localcontext
from functools import lru_cache

__all__ = ["SYNTAX", "canonical", "parse"]

_BINARY_POWERS = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL_POWERS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIXES = {power: suffix for suffix, power in _DECIMAL_POWERS.items()}
_PATTERN = re.compile(
    r"([+-]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,3}))?", re.ASCII
)
_NANO = Decimal("1e-9")
_PRECISION = Context(prec=100)
"""The largest quantity has more digits than the 28 of the default context."""

SYNTAX = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
"""The API server's error text for an invalid quantity."""
_MAX_LENGTH = 64
"""Maximum number of characters of a quantity."""
_MAX_EXPONENT = 40
"""Numbers of 10**40 or more are rejected."""
_BINARY_MINIMUM = 1024
"""Smaller numbers are written with a decimal suffix, as Kubernetes does."""


def _split(text: str) -> tuple[Decimal, str, str]:
    """Return the number, its suffix and its exponent; the last two may be empty."""
    match = _PATTERN.fullmatch(text)
    if match is None or len(text) > _MAX_LENGTH:
        raise ValueError(SYNTAX)
    number = Decimal(match[1])
    suffix = match[2] or ""
    exponent = match[3]
    if suffix in _BINARY_POWERS:
        number *= Decimal(1024) ** _BINARY_POWERS[suffix]
    else:
        number = number.scaleb(int(exponent) if exponent else _DECIMAL_POWERS[suffix])
    if number != 0 and number.adjusted() >= _MAX_EXPONENT:
        raise ValueError(SYNTAX)
    if number % _NANO:
        number = number.quantize(_NANO, rounding=ROUND_UP)
    return number, suffix, exponent or ""


@lru_cache(maxsize=4096, typed=True)
def parse(value: str | int | float) -> Decimal:
    """Return the exact value of a quantity.

    Raises:
        ValueError: ``value`` is not a quantity.
    """
    with localcontext(_PRECISION):
        return _split(str(value))[0]


@lru_cache(maxsize=4096, typed=True)
def canonical(value: str | int | float) -> str:
    """Return the form that the API server stores: ``1`` for 1.0, ``500m`` for 0.5, ``1Gi`` for 1024Mi.

    Raises:
        ValueError: ``value`` is not a quantity.
    """
    with localcontext(_PRECISION):
        return _format(*_split(str(value)))


def _format(number: Decimal, suffix: str, exponent: str) -> str:
    if number == 0:
        return "0"
    is_whole = number == number.to_integral_value()
    if suffix in _BINARY_POWERS and is_whole and abs(number) >= _BINARY_MINIMUM:
        return _format_binary(int(number))
    return _format_decimal(number, exponent)


def _format_binary(number: int) -> str:
    suffixes = ("", *_BINARY_POWERS)
    power = 0
    while power < len(suffixes) - 1 and number % 1024 == 0:
        number //= 1024
        power += 1
    return f"{number}{suffixes[power]}"


def _format_decimal(number: Decimal, exponent: str) -> str:
    power = -9 if number % 1 else 0
    while power < 18 and number.scaleb(-power) % 1000 == 0:
        power += 3
    while number.scaleb(-power) % 1:
        power -= 3
    mantissa = format(number.scaleb(-power).to_integral_value(), "f")
    if exponent:
        return f"{mantissa}e{power}" if power else mantissa
    return mantissa + _DECIMAL_SUFFIXES[power]
