"""Type variables and new types: TypeVar, ParamSpec, TypeVarTuple and NewType.

pickle finds them by their names in their modules only, so those of a notebook are created again in the pod.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ForwardRef, NewType, ParamSpec, TypeVar, TypeVarTuple

__all__ = ["TypeName", "reduce_type_name"]

TypeName = TypeVar | ParamSpec | TypeVarTuple | NewType
"""A type variable or a new type."""


def reduce_type_name(obj: TypeName) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return how a type variable or new type is pickled by value, with the arguments that each supported Python has."""
    if isinstance(obj, NewType):
        return NewType, (obj.__name__, obj.__supertype__)
    if isinstance(obj, TypeVar):
        constraints = map(_unevaluated, obj.__constraints__)
        bound = _unevaluated(obj.__bound__)
        variance = {"covariant": obj.__covariant__, "contravariant": obj.__contravariant__}
        return functools.partial(TypeVar, obj.__name__, *constraints, bound=bound, **variance), ()
    return type(obj), (obj.__name__,)


def _unevaluated(value: object) -> object:
    """Return the text of a reference to a later class, or the value itself."""
    return value.__forward_arg__ if isinstance(value, ForwardRef) else value
