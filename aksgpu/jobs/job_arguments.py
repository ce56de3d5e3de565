"""Check the arguments of :mod:`aksgpu.jobs` before any request is sent.

Every function returns the value as it is sent, or raises :class:`~aksgpu.errors.InvalidInput` with the argument, what
it must be, what it was, and a value that would do.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

from aksgpu.common.arguments import integer
from aksgpu.errors import InvalidInput

_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NAMESPACE = re.compile(_LABEL)
LONGEST_JOB_NAME = 63
"""Characters of a Job's name: it becomes a label of its pods."""
_LONGEST_NAMESPACE = 63
"""Characters of a namespace's name."""

_HOST = r"(?:[a-zA-Z0-9](?:[-a-zA-Z0-9.]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_PATH = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
_IMAGE = re.compile(rf"(?:{_HOST}/)?{_PATH}(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?")

_LONGEST_IMAGE = 500
"""Characters of an image's reference."""

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?[0-9]+)?")
_LOOSE_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([a-zA-Z]*)")
_UNITS: dict[str, int | Decimal] = {
    "": 1,
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "E": 10**18,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
    "Ei": 2**60,
}
_LEAST_MEMORY = 2**20
"""Bytes. No container runs with less memory, so a smaller amount has the wrong unit."""
_MOST_CORES = 10_000
"""Cores. No machine has more, so a larger amount has the wrong unit."""
_LEAST_CORES = Decimal("0.001")
"""Cores. Kubernetes counts in thousandths."""
_MEMORY_RESOURCES = ("memory", "ephemeral-storage", "storage", "sizeLimit")


def flag(argument: str, value: object) -> bool:
    """Return True or False."""
    if isinstance(value, bool):
        return value
    raise InvalidInput(f"`{argument}` must be True or False, got {_shown(value)}", hint=f"Write {argument}=True.")


def count(argument: str, value: object, least: int, *, of: str = "") -> int:
    """Return an integer of at least ``least``."""
    if isinstance(value, bool):
        raise InvalidInput(
            f"`{argument}` must be an integer, got {value}", hint=f"Write {argument}={max(least, int(value))}."
        )
    return integer(argument, value, least)


def job_name(value: object, argument: str = "name", *, new: bool = True) -> str:
    """Return the name of a Job.

    Args:
        value: the name.
        argument: whose it is.
        new: whether a Job of this name is to be created.
    """
    longest = LONGEST_JOB_NAME if new else 253
    rule = f"lower case letters, digits, '-' and '.', at most {longest} characters"
    return _name(argument, value, _SUBDOMAIN, longest, rule, "training-1")


def namespace(value: object, argument: str = "namespace") -> str:
    """Return the name of a namespace."""
    rule = f"lower case letters, digits and '-', at most {_LONGEST_NAMESPACE} characters"
    return _name(argument, value, _NAMESPACE, _LONGEST_NAMESPACE, rule, "default")


def _name(argument: str, value: object, pattern: re.Pattern[str], longest: int, rule: str, example: str) -> str:
    if isinstance(value, str) and len(value) <= longest and pattern.fullmatch(value):
        return value
    better = ""
    if isinstance(value, str):
        better = re.sub(r"[^a-z0-9]+", "-", value[:1000].lower()).strip("-")[:LONGEST_JOB_NAME].strip("-")
    raise InvalidInput(
        f"`{argument}` must be a name of {rule}, got {_shown(value)}",
        hint=f"{argument}={better or example!r} would do.",
    )


def image(value: object) -> str:
    """Return the reference of a container image."""
    example = "For example image='docker.io/library/python:3.13'."
    if not isinstance(value, str):
        raise InvalidInput(f"`image` must be the name of a container image, got {_shown(value)}", hint=example)
    if len(value) <= _LONGEST_IMAGE and _IMAGE.fullmatch(value):
        return value
    better = re.sub(r"^[a-z]+://", "", value[:_LONGEST_IMAGE].strip())
    path, at, digest = better.partition("@")
    head, colon, tag = path.rpartition(":")
    if not colon or "/" in tag:
        head = path
        tag = ""
    better = f"{head.lower()}{f':{tag}' if tag else ''}{at}{digest}"
    raise InvalidInput(
        f"`image` must be the name of a container image (REGISTRY/NAME:TAG), got {_shown(value)}",
        hint=f"Did you mean image={better!r}?" if _IMAGE.fullmatch(better) else example,
    )


def texts(argument: str, values: object) -> list[str] | None:
    """Return the texts of a sequence of texts and numbers; None for None."""
    if values is None:
        return None
    hint = f'For example {argument}=["--steps", 500].'
    if isinstance(values, str | bytes | Mapping | set | frozenset) or not hasattr(values, "__iter__"):
        raise InvalidInput(f"`{argument}` must be a list of texts and numbers, got {_shown(values)}", hint=hint)
    return [text(f"{argument}[{index}]", each, hint) for index, each in enumerate(values)]


def pairs(argument: str, values: object) -> dict[str, str]:
    """Return the texts of a mapping from names to texts and numbers; empty for None."""
    if values is None:
        return {}
    hint = f'For example {argument}={{"NAME": "value"}}.'
    if not isinstance(values, Mapping):
        raise InvalidInput(f"`{argument}` must be a dict of names and values, got {_shown(values)}", hint=hint)
    found = {}
    for name, value in values.items():
        if not isinstance(name, str) or not name or "=" in name or not name.isprintable():
            raise InvalidInput(f"`{argument}` must have texts as names, got {_shown(name)}", hint=hint)
        found[name] = text(f"{argument}[{name!r}]", value, hint)
    return found


def text(argument: str, value: object, hint: str = "") -> str:
    """Return a text, or the text of a number or path."""
    if isinstance(value, bool):
        choices = f"{str(value).lower()!r}, {str(value)!r} or {str(int(value))!r}"
        raise InvalidInput(
            f"`{argument}` must be a text or a number, got {value}",
            hint=f"Write the text that the program expects: {choices}.",
        )
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, Real) or (not isinstance(value, str | bytes) and hasattr(value, "__index__")):
        value = _written(value) if isinstance(value, int) else str(value)
    if not isinstance(value, str):
        raise InvalidInput(f"`{argument}` must be a text or a number, got {_shown(value)}", hint=hint)
    try:
        value.encode()
    except UnicodeEncodeError:
        wrong = "valid Unicode"
    else:
        wrong = "without NUL characters" if "\0" in value else ""
    if wrong:
        raise InvalidInput(f"`{argument}` must be a text that is {wrong}, got {_shown(value)}", hint=hint)
    return value


def cpu(value: object, argument: str = "cpu") -> str | None:
    """Return a quantity of cores; None for None. Numbers are rounded up to thousandths."""
    if value is None:
        return None
    if type(value) is not bool and isinstance(value, Real):
        cores = _float(value)
        if _LEAST_CORES <= cores <= _MOST_CORES:
            milli = math.ceil(round(cores * 1000, 6))
            return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"
    elif isinstance(value, str) and _LEAST_CORES <= _amount(value) <= _MOST_CORES:
        return value
    raise InvalidInput(
        f"`{argument}` must be cores, from 0.001 to {_MOST_CORES:,}, such as 2 or '500m', got {_shown(value)}",
        hint=f"Did you mean {_proposed_cores(value)!r}?",
    )


def _float(value: Real) -> float:
    """A number as a float; -1 for one that is not finite."""
    try:
        number = float(value)
    except OverflowError:
        return -1.0
    return number if math.isfinite(number) else -1.0


def memory(value: object, argument: str = "memory") -> str | None:
    """Return a quantity of bytes; None for None."""
    if value is None:
        return None
    if isinstance(value, str) and _amount(value) >= _LEAST_MEMORY:
        return value
    amount = f", which is {_amount(_written(value)):f} bytes" if _is_too_small(value) else ""
    raise InvalidInput(
        f"`{argument}` must be a quantity with a unit, such as '8Gi', got {_shown(value)}{amount}",
        hint=f"Did you mean {_proposed_bytes(value)!r}?",
    )


def quantities(value: Any, path: str = "") -> None:
    """Check the quantities of cores and bytes in a manifest."""
    if isinstance(value, list):
        for index, inner in enumerate(value):
            quantities(inner, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, inner in value.items():
            here = f"{path}.{key}" if path else str(key)
            parent = path.rpartition(".")[2]
            if key == "cpu" and parent in ("limits", "requests", "overhead"):
                if not _is_zero(inner):
                    cpu(_as_written(inner), here)
            elif key == "sizeLimit" or (key in _MEMORY_RESOURCES and parent in ("limits", "requests", "overhead")):
                if not _is_zero(inner):
                    memory(_as_written(inner), here)
            else:
                quantities(inner, here)


def _as_written(value: object) -> object:
    """A quantity as text: a manifest may also hold a number."""
    return str(value) if type(value) in (int, float) else value


def _is_zero(value: object) -> bool:
    """Whether a quantity is zero, which a manifest uses for "no request"."""
    return value is None or str(value) == "0"


def _amount(value: str) -> Decimal:
    """The number that a quantity means; -1 for a text that is not a quantity."""
    found = _QUANTITY.fullmatch(value)
    if found is None or len(value) > 40:
        return Decimal(-1)
    number, unit = found.groups(default="")
    if unit[:1] in ("e", "E") and len(unit) > 1:
        return Decimal(f"{number}{unit}") if len(unit) < 5 else Decimal(-1)
    return Decimal(number) * _UNITS[unit]


def _is_too_small(value: object) -> bool:
    return not isinstance(value, bool) and 0 <= _amount(_written(value)) < _LEAST_MEMORY


def _proposed_bytes(value: object) -> str:
    """A quantity of bytes that resembles what was given."""
    found = None if isinstance(value, bool) else _LOOSE_QUANTITY.match(_written(value)[:40])
    if found is None or float(found[1]) <= 0:
        return "8Gi"
    number = found[1]
    letter = found[2][:1].upper()
    if letter and letter in "KMGTP":
        return f"{number}{letter}i"
    if not letter and float(number) >= _LEAST_MEMORY:
        size = int(float(number))
        return f"{size // 2**30}Gi" if size % 2**30 == 0 else f"{math.ceil(size / 2**20)}Mi"
    return f"{number}Gi"


def _proposed_cores(value: object) -> str:
    """A quantity of cores that resembles what was given."""
    found = None if isinstance(value, bool) else _LOOSE_QUANTITY.match(_written(value)[:40])
    if found is None or float(found[1]) <= 0:
        return "2"
    number = found[1]
    unit = found[2].lower()
    if float(number) > _MOST_CORES or unit in ("m", "mcpu", "mi", "milli", "millicores", "mcores"):
        return f"{number}m" if float(number) <= _MOST_CORES * 1000 else "2"
    return number if float(number) >= _LEAST_CORES else "1m"


def _shown(value: object) -> str:
    """A wrong value as an error shows it: short, whatever it is."""
    shown = ascii(value) if isinstance(value, str) else _written(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}... ({len(shown)} characters)"


def _written(value: object) -> str:
    """The text of a value, also of an integer that is too long for Python to write."""
    try:
        return value if isinstance(value, str) else repr(value)
    except ValueError:
        return "a very large integer"


def sequence_of_texts(path: str, values: object) -> None:
    """Check that ``command`` or ``args`` of a manifest holds texts, as the API wants them."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InvalidInput(
            f"`{path}` must be a list of texts, got {_shown(values)}", hint='For example ["--steps", "5"].'
        )
    for index, each in enumerate(values):
        if not isinstance(each, str):
            raise InvalidInput(
                f"`{path}[{index}]` must be a text, got {_shown(each)}", hint=f'Write it in quotes: "{each}".'
            )
        text(f"{path}[{index}]", each)
