"""Check the arguments of :mod:`aksgpu.jobs` before any request is sent.

Each function returns the value as it is sent, or raises :class:`~aksgpu.errors.InvalidInput` with the argument, what it
must be, what it was, and a value that is valid.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

from aksgpu.common.arguments import integer, shown
from aksgpu.common.quantities import parse
from aksgpu.errors import InvalidInput
from aksgpu.kube import path_names

__all__ = [
    "count",
    "cpu",
    "image",
    "memory",
    "new_job_name",
    "pairs",
    "quantities",
    "sequence_of_texts",
    "text",
    "texts",
]

_NEW_JOB = path_names.Rule(
    path_names.SUBDOMAIN.pattern,
    63,
    "lower case letters, digits, '-' and '.', at most 63 characters, beginning and ending with a letter or digit",
)
"""The rule for the name of a new Job. It is shorter than other names because it becomes a label of the Job's pods."""
_LONGEST_IMAGE = 500
"""Characters of an image's reference."""

_MIN_MEMORY = 2**20
"""Bytes. No container runs with less memory, so a smaller amount has the wrong unit."""
_MAX_CORES = 10_000
"""Cores. No machine has more, so a larger amount has the wrong unit."""
_MIN_CORES = Decimal("0.001")
"""Cores. Kubernetes counts in thousandths."""

_HOST = r"(?:[a-zA-Z0-9](?:[-a-zA-Z0-9.]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_PATH = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
_IMAGE = re.compile(rf"(?:{_HOST}/)?{_PATH}(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?")

_LOOSE_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([a-zA-Z]*)")
"""A number and a unit as people write them, such as ``8 GB``."""
_LONGEST_LOOSE_QUANTITY = 40
"""Number of characters of such a string that are read."""
_MILLICORES = ("m", "mcpu", "mi", "milli", "millicores", "mcores")
"""Units that mean thousandths of a core."""

_QUANTITY_LISTS = ("limits", "requests", "overhead")
"""Fields of a manifest that hold quantities by resource name."""
_BYTE_RESOURCES = ("memory", "ephemeral-storage", "storage", "sizeLimit")
"""Resources that are counted in bytes."""


def count(argument: str, value: object) -> int:
    """Return an integer of at least 0."""
    return integer(argument, value, 0)


# Names


def new_job_name(value: object, argument: str = "name") -> str:
    """Return the name of a Job that is to be created."""
    return path_names.check_rule(_NEW_JOB, value, argument, "the name of a new Job")


def image(value: object) -> str:
    """Return the reference of a container image."""
    if isinstance(value, str) and _is_image(value):
        return value
    hint = "For example image='docker.io/library/python:3.13'."
    if isinstance(value, str):
        proposal = _proposed_image(value)
        if _is_image(proposal):
            hint = f"Did you mean image={proposal!r}?"
    raise InvalidInput(
        f"`image` must be the name of a container image (REGISTRY/NAME:TAG), got {shown(value)}", hint=hint
    )


def _is_image(value: str) -> bool:
    return len(value) <= _LONGEST_IMAGE and _IMAGE.fullmatch(value) is not None


def _proposed_image(value: str) -> str:
    """Return an image reference without a scheme, and with the repository in lower case."""
    reference = re.sub(r"^[a-z]+://", "", value[:_LONGEST_IMAGE].strip())
    path, at, digest = reference.partition("@")
    repository, colon, tag = path.rpartition(":")
    if not colon or "/" in tag:
        # The colon, if there is one, belongs to the registry's port.
        return f"{path.lower()}{at}{digest}"
    return f"{repository.lower()}:{tag}{at}{digest}"


# Strings


def texts(argument: str, values: object, hint: str = "") -> list[str] | None:
    """Return the strings of a sequence of strings and numbers; None for None."""
    if values is None:
        return None
    hint = hint or f'For example {argument}=["--steps", 500].'
    if isinstance(values, str | bytes | Mapping | set | frozenset) or not hasattr(values, "__iter__"):
        raise InvalidInput(f"`{argument}` must be a list of strings and numbers, got {shown(values)}", hint=hint)
    return [text(f"{argument}[{index}]", each, hint) for index, each in enumerate(values)]


def pairs(argument: str, values: object) -> dict[str, str]:
    """Return the strings of a mapping from names to strings and numbers; empty for None."""
    if values is None:
        return {}
    hint = f'For example {argument}={{"NAME": "value"}}.'
    if not isinstance(values, Mapping):
        raise InvalidInput(f"`{argument}` must be a dict of names and values, got {shown(values)}", hint=hint)
    found = {}
    for name, value in values.items():
        if not isinstance(name, str) or not name or "=" in name or not name.isprintable():
            raise InvalidInput(f"`{argument}` must have names as keys, got {shown(name)}", hint=hint)
        found[name] = text(f"{argument}[{name!r}]", value, hint)
    return found


def text(argument: str, value: object, hint: str = "") -> str:
    """Return a string, or the string of a number or path."""
    if isinstance(value, bool):
        choices = f"{str(value).lower()!r}, {str(value)!r} or {str(int(value))!r}"
        raise InvalidInput(
            f"`{argument}` must be a string or a number, got {value}",
            hint=f"Write the string that the program expects: {choices}.",
        )
    found = _as_string(value)
    if found is None:
        raise InvalidInput(f"`{argument}` must be a string or a number, got {shown(value)}", hint=hint)
    try:
        found.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"`{argument}` must be valid Unicode, got {shown(value)}", hint=hint) from None
    if "\0" in found:
        raise InvalidInput(f"`{argument}` must not have NUL characters, got {shown(value)}", hint=hint)
    return found


def _as_string(value: object) -> str | None:
    """Return a string, number or path as a string; None for other values."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return value
    is_number = isinstance(value, Real) or (hasattr(value, "__index__") and not isinstance(value, bytes))
    if not is_number:
        return None
    try:
        return str(value)
    except ValueError:  # an integer of thousands of digits
        return None


def sequence_of_texts(path: str, values: object) -> None:
    """Check that ``command`` or ``args`` of a manifest is a list of strings, as the API requires."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InvalidInput(
            f"`{path}` must be a list of strings, got {shown(values)}", hint='For example ["--steps", "5"].'
        )
    for index, each in enumerate(values):
        if not isinstance(each, str):
            raise InvalidInput(
                f"`{path}[{index}]` must be a string, got {shown(each)}", hint=f'Write it in quotes: "{each}".'
            )
        text(f"{path}[{index}]", each)


# Quantities


def cpu(value: object, argument: str = "cpu") -> str | None:
    """Return a quantity of cores; None for None. Numbers are rounded up to thousandths."""
    if value is None:
        return None
    if isinstance(value, str) and _MIN_CORES <= _amount(value) <= _MAX_CORES:
        return value
    if type(value) is not bool and isinstance(value, Real):
        cores = _finite(value)
        if _MIN_CORES <= cores <= _MAX_CORES:
            millicores = math.ceil(round(cores * 1000, 6))
            return str(millicores // 1000) if millicores % 1000 == 0 else f"{millicores}m"
    raise InvalidInput(
        f"`{argument}` must be cores, from 0.001 to {_MAX_CORES:,}, such as 2 or '500m', got {shown(value)}",
        hint=f"Did you mean {_proposed_cores(value)!r}?",
    )


def memory(value: object, argument: str = "memory") -> str | None:
    """Return a quantity of bytes; None for None."""
    if value is None:
        return None
    amount = Decimal(-1) if isinstance(value, bool) else _amount(_as_text(value))
    if isinstance(value, str) and amount >= _MIN_MEMORY:
        return value
    meaning = f", which is {amount:f} bytes" if 0 <= amount < _MIN_MEMORY else ""
    raise InvalidInput(
        f"`{argument}` must be a quantity with a unit, such as '8Gi', got {shown(value)}{meaning}",
        hint=f"Did you mean {_proposed_bytes(value)!r}?",
    )


def quantities(value: Any, path: str = "") -> None:
    """Check the quantities of cores and bytes in a manifest."""
    if isinstance(value, list):
        for index, inner in enumerate(value):
            quantities(inner, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_field(str(key), inner, path)


def _check_field(key: str, value: Any, path: str) -> None:
    """Check a field of a manifest, and the fields below it.

    Args:
        key: the field's name.
        value: its value.
        path: the path of the mapping that has the field.
    """
    field = f"{path}.{key}" if path else key
    in_list = path.rpartition(".")[2] in _QUANTITY_LISTS
    is_cores = key == "cpu" and in_list
    is_bytes = key == "sizeLimit" or (key in _BYTE_RESOURCES and in_list)
    if not is_cores and not is_bytes:
        quantities(value, field)
        return
    if value is None or str(value) == "0":
        # A manifest uses zero for "no request".
        return
    quantity = str(value) if type(value) in (int, float) else value
    if is_cores:
        cpu(quantity, field)
    else:
        memory(quantity, field)


def _finite(value: Real) -> float:
    """Return a number as a float; -1 for one that is not finite."""
    try:
        number = float(value)
    except OverflowError:
        return -1.0
    return number if math.isfinite(number) else -1.0


def _amount(value: str) -> Decimal:
    """Return the number that a quantity means; -1 for a string that is not a quantity."""
    try:
        return parse(value)
    except ValueError:
        return Decimal(-1)


def _loose_quantity(value: object) -> tuple[str, str] | None:
    """Return the number and the unit of a wrong quantity; None if it has no number above 0."""
    if isinstance(value, bool):
        return None
    match = _LOOSE_QUANTITY.match(_as_text(value)[:_LONGEST_LOOSE_QUANTITY])
    if match is None or float(match[1]) <= 0:
        return None
    return match[1], match[2]


def _proposed_bytes(value: object) -> str:
    """Return a quantity of bytes that resembles a wrong one."""
    found = _loose_quantity(value)
    if found is None:
        return "8Gi"
    number, unit = found
    prefix = unit[:1].upper()
    if prefix and prefix in "KMGTP":
        return f"{number}{prefix}i"
    if prefix or float(number) < _MIN_MEMORY:
        return f"{number}Gi"
    size = int(float(number))
    return f"{size // 2**30}Gi" if size % 2**30 == 0 else f"{math.ceil(size / 2**20)}Mi"


def _proposed_cores(value: object) -> str:
    """Return a quantity of cores that resembles a wrong one."""
    found = _loose_quantity(value)
    if found is None:
        return "2"
    number, unit = found
    if float(number) > _MAX_CORES * 1000:
        return "2"
    if float(number) > _MAX_CORES or unit.lower() in _MILLICORES:
        return f"{number}m"
    return number if float(number) >= _MIN_CORES else "1m"


def _as_text(value: object) -> str:
    """Return a value as text, even an integer that is too long for Python to convert."""
    try:
        return value if isinstance(value, str) else repr(value)
    except ValueError:
        return "a very large integer"
