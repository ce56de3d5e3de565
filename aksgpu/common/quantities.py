"""Kubernetes quantities such as ``500m`` or ``2Gi``: their value, and the spelling the API server gives back.

The rules are those of the API's ``resource.Quantity``: decimal and binary suffixes, an exponent, nothing finer than
a nano, and a canonical form without a fraction in the suffix family that was used.
"""

from __future__ import annotations

import re
from decimal import ROUND_UP, Context, Decimal, localcontext
from functools import lru_cache

_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_SUFFIXES = {power: suffix for suffix, power in _DECIMAL.items()}
_FORM = re.compile(
    r"([+-]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,3}))?", re.ASCII
)
_NANO = Decimal("1e-9")
_EXACT = Context(prec=100)
"""Digits enough for the largest number down to its nanos: the usual 28 are not."""

SYNTAX = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
"""The server's own words for a quantity that is none."""


def _split(text: str) -> tuple[Decimal, str, str]:
    match = _FORM.fullmatch(text)
    if match is None or len(text) > 64:
        raise ValueError(SYNTAX)
    number = Decimal(match[1])
    suffix = match[2] or ""
    exponent = match[3]
    if suffix in _BINARY:
        number *= Decimal(1024) ** _BINARY[suffix]
    else:
        number = number.scaleb(int(exponent) if exponent else _DECIMAL[suffix])
    if number != 0 and number.adjusted() < 40:
        number = number.quantize(_NANO, rounding=ROUND_UP) if number % _NANO else number
    elif number != 0:
        raise ValueError(SYNTAX)
    return number, suffix, exponent or ""


@lru_cache(maxsize=4096, typed=True)
def parse(value: str | int | float) -> Decimal:
    """The value of a quantity; ValueError when it is none."""
    with localcontext(_EXACT):
        return _split(str(value))[0]


@lru_cache(maxsize=4096, typed=True)
def canonical(value: str | int | float) -> str:
    """The spelling that the API server stores and returns: ``1`` for 1, ``500m`` for 0.5, ``1Gi`` for 1024Mi."""
    with localcontext(_EXACT):
        return _spell(*_split(str(value)))


def _spell(number: Decimal, suffix: str, exponent: str) -> str:
    if number == 0:
        return "0"
    # Binary spellings below 1024, or of no whole number, fall back to decimal ones, as in the API.
    if suffix in _BINARY and abs(number) >= 1024 and number == number.to_integral_value():
        whole = int(number)
        power = 0
        while power < 6 and whole % 1024 == 0:
            whole = whole // 1024
            power = power + 1
        return str(whole) + ("", *_BINARY)[power]
    power = -9 if number % 1 else 0
    while power < 18 and number.scaleb(-power) % 1000 == 0:
        power += 3
    while number.scaleb(-power) % 1:
        power -= 3
    mantissa = format(number.scaleb(-power).to_integral_value(), "f")
    if exponent:
        return f"{mantissa}e{power}" if power else mantissa
    return mantissa + _SUFFIXES[power]
