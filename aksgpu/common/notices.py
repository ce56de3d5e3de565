"""Warnings that point at the line of the user's program that called the library."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path

__all__ = ["warn"]

_PACKAGE = str(Path(__file__).parents[1])
"""Folder of this package."""


def warn(message: str) -> None:
    """Issue a warning that points at the line of the user's program that called the library."""
    stacklevel = 1
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        stacklevel += 1
        frame = frame.f_back
    warnings.warn(message, stacklevel=stacklevel)
