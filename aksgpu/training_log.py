"""Print metrics from a training program so that every reader of its log finds them.

This module imports the standard library only, so that a training program starts as fast as without it.
"""

from __future__ import annotations

import json
import math
import sys
import threading
from typing import Any, SupportsFloat, SupportsIndex

__all__ = ["log"]

_LOCK = threading.Lock()
_POSITIONS = frozenset({"step", "epoch"})


def log(**values: SupportsFloat | SupportsIndex) -> None:
    """Print one line with metrics, as JSON, to standard output.

    ``job.metrics()`` reads the line. A program in an image without aksgpu can print the same line itself.

    Args:
        values: metrics by name. ``step`` or ``epoch`` says where in the training they belong; with one of them, any
            other name counts as a metric. A value is a number, or a scalar of NumPy, PyTorch, TensorFlow or JAX. NaN
            and infinity are printed as ``"nan"``, ``"inf"`` and ``"-inf"``, because JSON has no such numbers.

    Raises:
        TypeError: a value is not a number.
        ValueError: no value is given.

    Example:
        >>> log(step=3, loss=0.41)
        {"step": 3, "loss": 0.41}
    """
    if not values:
        raise ValueError("`log` needs at least one value, such as `log(step=3, loss=0.41)`")
    line = json.dumps({name: _number(name, value) for name, value in values.items()}) + "\n"
    # One write for the whole line, so that the lines of several threads or processes do not mix.
    with _LOCK:
        sys.stdout.write(line)
        sys.stdout.flush()


def _number(name: str, value: Any) -> int | float | str:
    """Return a value that JSON can represent."""
    if isinstance(value, (bool, str, bytes)):
        raise TypeError(f"`{name}` must be a number, got {value!r}")
    if isinstance(value, int):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` must be a number, got {type(value).__name__}: {error}") from None
    if math.isnan(number):
        return "nan"
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    if name in _POSITIONS and number.is_integer():
        return int(number)
    return number
