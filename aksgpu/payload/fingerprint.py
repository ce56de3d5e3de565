"""A checksum of a call that is the same in each kernel, and differs if the code, the data or the arguments differ."""

from __future__ import annotations

import functools
import hashlib
import io
import pickle
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from aksgpu.payload.captured import is_imported, variables
from aksgpu.payload.dispatchers import implementations

__all__ = ["fingerprint"]

_PROTOCOL = 4
_CLASS_FIELDS = frozenset(
    {
        "__annotations_cache__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__static_attributes__",
        "__weakref__",
        "_abc_impl",
    }
)
"""Attributes of a class that do not change what it does, or that differ between kernels."""
_VIEWS: tuple[Any, ...] = (type({}.keys()), type({}.values()), type({}.items()))
"""Views of dicts."""


def fingerprint(
    function: object, args: tuple[Any, ...], kwargs: Mapping[str, Any], modules: Mapping[str, ModuleType]
) -> str:
    """Return a checksum of a call that does not depend on the kernel, on file names or on line numbers.

    Args:
        function: the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
        modules: the modules that are sent by value, besides ``__main__``.
    """
    call = _Call(modules)
    call.add("function", function)
    for value in args:
        call.add("", value)
    for name in sorted(kwargs):
        call.add(name, kwargs[name])
    call.add_code()
    return call.digest.hexdigest()


class _Call:
    """The checksum of a call.

    Args:
        modules: the modules that are sent by value, besides ``__main__``.

    Attributes:
        digest: the checksum so far.
    """

    def __init__(self, modules: Mapping[str, ModuleType]) -> None:
        self.digest = hashlib.sha256()
        self._modules = modules
        self._sent: list[Any] = []
        self._numbers: dict[int, int] = {}

    def add(self, name: str, value: object) -> None:
        """Add a value. Sets are sorted, because their order differs between kernels."""
        self.digest.update(name.encode())
        if isinstance(value, set | frozenset):
            self.digest.update(repr(sorted(map(repr, value))).encode())
            return
        # Equal parts may be one object in this kernel and two in another, so the pickle has no references to parts.
        # An object that contains itself can only be pickled with them.
        for is_fast in (True, False):
            try:
                self.digest.update(self._pickle(value, is_fast))
                return
            except Exception:
                continue
        self.digest.update(type(value).__qualname__.encode())  # only the pickler of calls can pickle it

    def _pickle(self, value: object, is_fast: bool) -> bytes:
        file = io.BytesIO()
        pickler = _Pickler(file, self._modules, self.number)
        pickler.fast = is_fast
        pickler.dump(value)
        return file.getvalue()

    def number(self, value: Any) -> int | None:
        """Return the number of a function or class that is sent by value; None for one that the pod imports."""
        if id(value) in self._numbers:
            return self._numbers[id(value)]
        if is_imported(value, self._modules):
            return None
        self._numbers[id(value)] = len(self._sent)
        self._sent.append(value)
        return len(self._sent) - 1

    def add_code(self) -> None:
        """Add the functions and classes that are sent by value, with what they refer to."""
        for value in self._sent:  # the loop adds to it
            if isinstance(value, type):
                self._add_class(value)
            else:
                self._add_function(value)

    def _add_function(self, function: FunctionType) -> None:
        for text in _code_texts(function.__code__):
            self.digest.update(text)
        self.add("defaults", function.__defaults__)
        self.add("keyword defaults", function.__kwdefaults__)
        for name, value in variables(function):
            self.add(name, value)

    def _add_class(self, cls: type) -> None:
        self.digest.update(cls.__qualname__.encode())
        self.add("bases", cls.__bases__)
        for name, value in vars(cls).items():
            if name not in _CLASS_FIELDS:
                self.add(name, value)


class _Pickler(pickle.Pickler):
    """A pickler that writes the numbers of functions and classes that are sent by value.

    Args:
        file: where it writes.
        modules: the modules that are sent by value, besides ``__main__``.
        number: returns the number of a function or class; None for one that the pod imports.
    """

    def __init__(
        self, file: io.BytesIO, modules: Mapping[str, ModuleType], number: Callable[[Any], int | None]
    ) -> None:
        super().__init__(file, _PROTOCOL)
        self._modules = modules
        self._number = number

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is pickled."""
        found = implementations(obj)
        if found and not is_imported(obj, self._modules):
            return tuple, (list(found.items()),)  # its other variables are caches
        if isinstance(obj, functools.cached_property):
            return tuple, ([obj.func],)
        if isinstance(obj, FunctionType | type):
            number = self._number(obj)
            return NotImplemented if number is None else (int, (number,))
        if isinstance(obj, ModuleType):
            return str, (obj.__name__,)
        if isinstance(obj, MethodType):
            return tuple, ([obj.__self__, obj.__func__],)
        if isinstance(obj, property):
            return tuple, ([obj.fget, obj.fset, obj.fdel],)
        if isinstance(obj, memoryview):
            return bytes, (obj.tobytes(),)
        if isinstance(obj, _VIEWS):
            return list, (list(obj),)
        return self._reduce_wrapper(obj)

    def _reduce_wrapper(self, obj: Any) -> Any:
        """Return the function of what functools.lru_cache, classmethod or another wrapper of a library makes.

        An object of the user's own class may hold more than the function, and is pickled as other objects are.
        """
        if not is_imported(type(obj), self._modules):
            return NotImplemented
        wrapped = getattr(obj, "__wrapped__", None)
        if isinstance(wrapped, FunctionType) and not is_imported(obj, self._modules):
            return tuple, ([wrapped],)
        return NotImplemented


def _code_texts(code: CodeType) -> Iterator[bytes]:
    """Yield a function's instructions and constants, without its file and line numbers."""
    yield code.co_name.encode()
    yield code.co_code
    yield repr((code.co_names, code.co_varnames, code.co_freevars)).encode()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code_texts(constant)
        else:
            yield _constant(constant).encode()


def _constant(value: object) -> str:
    """Return a constant as text; the order of a set differs between kernels."""
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
