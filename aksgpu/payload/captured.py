"""What a function captures: the code that is sent with it, the variables that it reads, and their sizes."""

from __future__ import annotations

import dis
import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle

from aksgpu.payload.codes import class_body_names, nested_codes
from aksgpu.payload.dispatchers import implementations
from aksgpu.payload.modules import MAIN

__all__ = [
    "imported_names",
    "is_imported",
    "largest_captured",
    "reachable",
    "reachable_functions",
    "variables",
]

_GLOBAL_LOADS = ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL")
"""Instructions that name a variable of the module."""


def is_imported(value: Any, modules: Mapping[str, ModuleType]) -> bool:
    """Return whether the pod imports a function or class, instead of getting its code.

    Args:
        value: the function or class.
        modules: the modules that are sent by value, besides ``__main__``.
    """
    name = getattr(value, "__module__", None)
    if not isinstance(name, str) or name in MAIN or name in modules:
        return False
    found: Any = sys.modules.get(name)
    for part in str(getattr(value, "__qualname__", "")).split("."):
        found = getattr(found, part, None)
    return found is value


def reachable_functions(function: object, modules: Mapping[str, ModuleType]) -> list[FunctionType]:
    """Return a function and those that it refers to, directly or not, except those that the pod imports.

    Args:
        function: the function, or another callable.
        modules: the modules that are sent by value, besides ``__main__``.
    """
    return [each for each in reachable(function, modules) if isinstance(each, FunctionType)]


def reachable(function: object, modules: Mapping[str, ModuleType]) -> list[Any]:
    """Return a function, and the functions and classes that it refers to, except those that the pod imports.

    Args:
        function: the function, or another callable.
        modules: the modules that are sent by value, besides ``__main__``.
    """
    found: dict[int, Any] = {}
    waiting: list[Any] = [function]
    while waiting:
        each = waiting.pop()
        if is_imported(each, modules):
            continue
        waiting += implementations(each).values()
        each = inspect.unwrap(each)
        each = getattr(each, "__func__", each)
        if hasattr(each, "func") and not isinstance(each, FunctionType):
            waiting.append(each.func)  # functools.partial
        if not isinstance(each, FunctionType | type) or id(each) in found:
            continue
        found[id(each)] = each
        waiting += _members(each) if isinstance(each, type) else [value for _, value in variables(each)]
    return list(found.values())


def _members(cls: type) -> list[Any]:
    """Return the bases of a class and the values of its attributes."""
    values = [_function_of(value) for value in vars(cls).values()]
    return [*cls.__bases__, *values]


def _function_of(member: Any) -> Any:
    """Return the function of a property, a cached property or a method with implementations; else the member."""
    if isinstance(member, functools.cached_property):
        return member.func
    if isinstance(member, functools.singledispatchmethod):
        return member.dispatcher
    return getattr(member, "fget", member)


def variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the variables of its module and of enclosing functions that a function uses."""
    for name in _global_names(function.__code__):
        if name in function.__globals__:
            yield name, function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:
            continue  # a variable without a value yet


def _global_names(code: CodeType) -> list[str]:
    """Return the names of variables of the module that a function uses, and functions and classes inside it."""
    found: dict[str, None] = {}
    for each in nested_codes(code):
        for instruction in dis.get_instructions(each):
            if instruction.opname in _GLOBAL_LOADS:
                found[instruction.argval] = None
    return list(found | dict.fromkeys(class_body_names(code)))


def imported_names(function: object, modules: Mapping[str, ModuleType]) -> list[str]:
    """Return the modules that a function and those that are sent with it import while they run."""
    found: dict[str, None] = {}
    for each in reachable_functions(function, modules):
        for code in nested_codes(each.__code__):
            for instruction in dis.get_instructions(code):
                if instruction.opname == "IMPORT_NAME" and instruction.argval:
                    found[str(instruction.argval)] = None
    return list(found)


def largest_captured(
    function: object, args: tuple[Any, ...], kwargs: Mapping[str, Any], modules: Mapping[str, ModuleType]
) -> tuple[str, int] | None:
    """Return the argument or captured variable with the largest pickle, in words, and the bytes of its pickle."""
    named = [(f"argument {number + 1}", value) for number, value in enumerate(args)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for each in reachable_functions(function, modules):
        named += [
            (f"the variable {name!r}", value)
            for name, value in variables(each)
            if not callable(value) and not isinstance(value, ModuleType)
        ]
    sizes = {name: _size(value) for name, value in named}
    if not sizes:
        return None
    return max(sizes.items(), key=lambda pair: pair[1])


def _size(value: object) -> int:
    try:
        return len(cloudpickle.dumps(value))
    except Exception:
        return 0
