"""What a function captures: the code that it calls, and the sizes of the variables that are sent with it."""

from __future__ import annotations

import dis
import hashlib
import inspect
import io
import pickle
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle

__all__ = ["class_body_names", "fingerprint", "imported_names", "largest_captured", "reachable_functions"]

_CLASS_BODY_LOADS = ("LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
"""Instructions that look for a name in the class first, and then in the module."""


def reachable_functions(function: object) -> list[FunctionType]:
    """Return a function and the functions that its globals and closures refer to, directly or not."""
    found: dict[int, FunctionType] = {}
    waiting: list[Any] = [function]
    while waiting:
        each = inspect.unwrap(waiting.pop())
        each = getattr(each, "__func__", each)
        if hasattr(each, "func") and not isinstance(each, FunctionType):
            waiting.append(each.func)  # functools.partial
        if not isinstance(each, FunctionType) or id(each) in found:
            continue
        found[id(each)] = each
        waiting += [value for _, value in _variables(each) if callable(value)]
    return list(found.values())


def _variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the variables of its module and of enclosing functions that a function uses."""
    for code in _nested(function.__code__):
        for name in code.co_names:
            if name in function.__globals__:
                yield name, function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:
            continue  # a variable without a value yet


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def class_body_names(code: CodeType) -> list[str]:
    """Return the names that the bodies of classes inside a function read before they assign them.

    Python looks for such a name in the module, by other instructions than those of functions.
    """
    found: dict[str, None] = {}
    for each in _nested(code):
        assigned: set[str] = set()
        for instruction in dis.get_instructions(each):
            if instruction.opname == "STORE_NAME":
                assigned.add(instruction.argval)
            elif instruction.opname in _CLASS_BODY_LOADS and instruction.argval not in assigned:
                found[instruction.argval] = None
    return list(found)


def imported_names(function: object) -> list[str]:
    """Return the modules that a function and those that it calls import while they run."""
    found: dict[str, None] = {}
    for each in reachable_functions(function):
        for code in _nested(each.__code__):
            for instruction in dis.get_instructions(code):
                if instruction.opname == "IMPORT_NAME" and instruction.argval:
                    found[str(instruction.argval)] = None
    return list(found)


def largest_captured(function: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return the argument or captured variable with the largest pickle, in words, and the bytes of its pickle."""
    named = [(f"argument {number + 1}", value) for number, value in enumerate(args)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for each in reachable_functions(function):
        named += [
            (f"the variable {name!r}", value)
            for name, value in _variables(each)
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


# The fingerprint


def fingerprint(function: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return a checksum of a call that does not depend on the kernel."""
    digest = hashlib.sha256()
    functions = reachable_functions(function)
    for each in functions:
        _add_code(digest, each.__code__)
    data = {name: value for each in functions for name, value in _variables(each) if _is_data(value)}
    for name in sorted(data):
        digest.update(name.encode())
        _add_value(digest, data[name])
    if not functions:
        _add_value(digest, function)
    for value in args:
        _add_value(digest, value)
    for name in sorted(kwargs):
        digest.update(name.encode())
        _add_value(digest, kwargs[name])
    return digest.hexdigest()


def _is_data(value: object) -> bool:
    return not callable(value) and not isinstance(value, ModuleType)


def _add_value(digest: Any, value: object) -> None:
    """Add a value to a checksum. Sets are sorted, because their order differs between kernels."""
    if isinstance(value, set | frozenset):
        digest.update(repr(sorted(map(repr, value))).encode())
        return
    if isinstance(value, FunctionType):
        _add_code(digest, value.__code__)
        return
    try:
        digest.update(_plain_pickle(value))
    except Exception:
        digest.update(cloudpickle.dumps(value, 4))


def _plain_pickle(value: object) -> bytes:
    """Return a pickle without references to equal parts, which may be one object in this kernel and two in another."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file, 4)
    pickler.fast = True
    pickler.dump(value)
    return file.getvalue()


def _add_code(digest: Any, code: CodeType) -> None:
    """Add a function's instructions and constants to a checksum, without its file and line numbers."""
    digest.update(code.co_name.encode())
    digest.update(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _add_code(digest, constant)
        else:
            digest.update(_constant(constant).encode())


def _constant(value: object) -> str:
    """Return a constant as text; the order of a set differs between kernels."""
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
