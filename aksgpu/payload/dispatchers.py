"""Functions that functools.singledispatch makes: which implementation runs depends on the class of an argument."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["dispatch_caches", "implementations"]


def _example(_: object) -> None:
    """Any function."""


_CODE = functools.singledispatch(_example).__code__  # type: ignore[attr-defined]  # it is a function
"""The code of each function that functools.singledispatch makes."""


def implementations(value: object) -> Mapping[type, Callable[..., Any]]:
    """Return the implementations of a function of functools.singledispatch by class; empty for any other object."""
    if not isinstance(value, FunctionType) or value.__code__ is not _CODE:
        return {}
    found: Mapping[type, Callable[..., Any]] = value.registry  # type: ignore[attr-defined]  # what singledispatch sets
    return found


def dispatch_caches(value: object) -> set[int]:
    """Return the ids of the caches of a function of functools.singledispatch; empty for any other object.

    Such a cache has weak references, which cannot be pickled. It may be empty in the pod.
    """
    if not implementations(value):
        return set()
    dispatch: FunctionType = value.dispatch  # type: ignore[attr-defined]  # what singledispatch sets
    contents = [cell.cell_contents for cell in dispatch.__closure__ or ()]
    return {id(content) for content in contents if isinstance(content, WeakKeyDictionary)}
