"""Pickle a call: the project's functions, classes and modules by value, everything else by reference."""

from __future__ import annotations

import builtins
import contextlib
import functools
import io
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any, NamedTuple, NewType, ParamSpec, TypeVarTuple

import cloudpickle

from aksgpu.errors import InvalidInput
from aksgpu.payload.captured import reachable, variables
from aksgpu.payload.codes import class_body_names, nested_codes
from aksgpu.payload.dispatchers import dispatch_caches
from aksgpu.payload.modules import is_notebook_open
from aksgpu.payload.type_names import reduce_type_name

__all__ = ["Pickled", "pickle_call"]

_NO_FILE_NAME = "<dynamic-code>"
"""What cloudpickle 3.1 writes in place of a code's file name. A traceback needs the name to show source lines."""
_MODULE_FIELDS = ("__builtins__", "__cached__", "__loader__", "__spec__")
"""Attributes of a module that its import sets, and that other processes cannot use."""
_CREATE_THERE = "Create the object inside the function, or pass what it is made from."
"""What helps if an object cannot be pickled."""
_SET_THERE = "Set the attribute inside the function, or in __init__ of objects that the function creates."
"""What helps if an attribute of a class cannot be pickled."""
_MEMBERS = (
    FunctionType,
    type,
    classmethod,
    staticmethod,
    property,
    functools.cached_property,
    functools.partialmethod,
    functools.singledispatchmethod,
    GetSetDescriptorType,
    MemberDescriptorType,
)
"""What classes hold besides data. Its functions are looked at by themselves."""
_REGISTRY_LOCK = threading.RLock()
"""cloudpickle has one registry of modules for the whole process."""


class Pickled(NamedTuple):
    """A pickle."""

    content: bytes
    file_names: frozenset[str]
    """Files of the code that it holds by value."""
    by_value: tuple[str, ...]
    """Functions, classes and modules that it holds by value."""
    by_reference: tuple[str, ...]
    """Functions, classes and modules that are imported when it is loaded."""


def pickle_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], by_value: Mapping[str, ModuleType]
) -> Pickled:
    """Pickle a call for the same minor version of Python.

    The pickle is a tuple of the function, its arguments, its keyword arguments, and the functions and classes of
    ``__main__`` that it holds, by name.

    Args:
        function: the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
        by_value: the modules whose objects are pickled by value, by name.

    Raises:
        InvalidInput: the function or an argument cannot be pickled; the message names it.
    """
    file = io.BytesIO()
    pickler = _Pickler(file, by_value)
    with _REGISTRY_LOCK, _registered(by_value):
        try:
            # The names are collected while what precedes them is pickled.
            pickler.dump((function, args, dict(kwargs), pickler.main))
        except Exception as error:
            guilty, advice = _guilty(function, args, kwargs, by_value)
            raise InvalidInput(f"{guilty} cannot be pickled: {error}", hint=advice) from error
    return Pickled(
        file.getvalue(),
        frozenset(pickler.file_names),
        _without_machinery(pickler.values),
        _without_machinery(pickler.references - pickler.values),
    )


@contextlib.contextmanager
def _registered(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """Let cloudpickle pickle the objects of modules by value."""
    for module in modules.values():
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules.values():
            cloudpickle.unregister_pickle_by_value(module)


def _without_machinery(names: set[str]) -> tuple[str, ...]:
    """Return names without those of Python itself and of cloudpickle, which every pod has."""
    return tuple(sorted(name for name in names if not name.startswith(("builtins.", "cloudpickle."))))


def _guilty(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], by_value: Mapping[str, ModuleType]
) -> tuple[str, str]:
    """Return which part of a call cannot be pickled, and what to do."""
    named = [(f"argument {number + 1}", value) for number, value in enumerate(args)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for name, value in named:
        if not _can_pickle(value, by_value):
            return name, _CREATE_THERE
    sent = reachable(function, by_value)
    for cls in sent:
        found = _guilty_attribute(cls, by_value) if isinstance(cls, type) else ""
        if found:
            return (
                f"the attribute {found!r} of the class {cls.__qualname__}, which is sent with the function,",
                _SET_THERE,
            )
    for each in sent:
        if not isinstance(each, FunctionType):
            continue
        user = "the function" if each is function else f"the function {each.__qualname__}"
        for name, value in variables(each):
            if isinstance(value, ModuleType):
                found = _guilty_variable(value, by_value) if by_value.get(value.__name__) is value else ""
                if found:
                    advice = (
                        f"Import what you need: from {value.__name__} import NAME. The whole module is not sent then."
                    )
                    return f"the variable {found!r} of the module {value.__name__}, which {user} uses,", advice
            elif not isinstance(value, FunctionType | type) and not _can_pickle(value, by_value):
                return f"the variable {name!r}, which {user} uses,", _CREATE_THERE
    return "the function", _CREATE_THERE


def _guilty_attribute(cls: type, by_value: Mapping[str, ModuleType]) -> str:
    """Return the name of an attribute of a class that cannot be pickled; empty if there is none."""
    for name, value in vars(cls).items():
        is_machinery = name.startswith("__") or name == "_abc_impl"
        is_method = isinstance(value, _MEMBERS) or hasattr(value, "__wrapped__")
        if not is_machinery and not is_method and type(value) is not cls and not _can_pickle(value, by_value):
            return name
    return ""


def _guilty_variable(module: ModuleType, by_value: Mapping[str, ModuleType]) -> str:
    """Return the name of a variable of a module that cannot be pickled; empty if there is none."""
    for name, value in vars(module).items():
        is_data = name not in _MODULE_FIELDS and not isinstance(value, ModuleType | FunctionType | type)
        if is_data and not _can_pickle(value, by_value):
            return name
    return ""


def _can_pickle(value: object, by_value: Mapping[str, ModuleType]) -> bool:
    try:
        _Pickler(io.BytesIO(), by_value).dump(value)
    except Exception:
        return False
    return True


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """A pickler that records how each object is sent, keeps the file names of code, and accepts modules with cycles.

    Attributes:
        file_names: the files of the code that was pickled by value.
        main: functions and classes of ``__main__`` that were pickled by value, by name.
        values: names of what was pickled by value.
        references: names of what was pickled by reference.
    """

    def __init__(self, file: io.BytesIO, by_value: Mapping[str, ModuleType]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._by_value = by_value
        self._caches: set[int] = set()
        self.file_names: set[str] = set()
        self.main: dict[str, Any] = {}
        self.values: set[str] = set()
        self.references: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is pickled."""
        if is_notebook_open(obj):
            return getattr, (builtins, "open")
        if isinstance(obj, CodeType):
            self.file_names.add(obj.co_filename)
            make, arguments = self.dispatch_table[CodeType](obj)
            return make, tuple(obj.co_filename if each == _NO_FILE_NAME else each for each in arguments)
        if isinstance(obj, ModuleType):
            return self._reduce_module(obj)
        if isinstance(obj, functools._lru_cache_wrapper) and self._is_own(obj):
            self._note_main(obj)
            return functools.lru_cache(**obj.cache_parameters()), (obj.__wrapped__,)
        if type(obj) is functools.cached_property:
            # Before Python 3.12, it has a lock.
            return functools.cached_property, (obj.func,), {"attrname": obj.attrname, "__doc__": obj.__doc__}
        if id(obj) in self._caches:
            return type(obj), ()
        if isinstance(obj, ParamSpec | TypeVarTuple | NewType) and self._is_own(obj):
            return reduce_type_name(obj)
        reduced = super().reducer_override(obj)
        if isinstance(obj, FunctionType) and reduced is not NotImplemented:
            self._caches |= dispatch_caches(obj)
            _add_names_of_class_bodies(obj, reduced)
            _add_submodules(obj, reduced)
        if isinstance(obj, type) and "__slots__" in vars(obj) and reduced is not NotImplemented:
            _keep_slots(obj, reduced)
        if isinstance(obj, FunctionType | type | BuiltinFunctionType):
            name = _full_name(obj)
            (self.references if reduced is NotImplemented else self.values).add(name)
            self._note_main(obj)
        return reduced

    def _note_main(self, obj: Any) -> None:
        """Remember an object that pickle, in the pod, finds by its name in ``__main__``."""
        name = str(getattr(obj, "__qualname__", ""))
        if obj.__module__ == "__main__" and vars(sys.modules["__main__"]).get(name) is obj:
            self.main[name] = obj

    def _is_own(self, obj: Any) -> bool:
        """Return whether an object belongs to ``__main__`` or to a module that is sent by value."""
        return obj.__module__ == "__main__" or obj.__module__ in self._by_value

    def _reduce_module(self, module: ModuleType) -> Any:
        if self._by_value.get(module.__name__) is not module:
            self.references.add(module.__name__)
            return NotImplemented
        self.values.add(module.__name__)
        state = {name: value for name, value in vars(module).items() if name not in _MODULE_FIELDS}
        # The state follows the object, so that it may contain the module itself.
        return ModuleType, (module.__name__, module.__doc__), state


def _add_names_of_class_bodies(function: FunctionType, reduced: Any) -> None:
    """Add the variables of the module that classes inside a function read. cloudpickle finds those of functions only.

    Args:
        function: the function.
        reduced: how cloudpickle pickles it by value.
    """
    _, attributes = reduced[2]
    for name in class_body_names(function.__code__):
        if name in function.__globals__:
            attributes["__globals__"].setdefault(name, function.__globals__[name])


def _add_submodules(function: FunctionType, reduced: Any) -> None:
    """Add the submodules that functions and classes inside a function use, such as ``xml.dom``.

    cloudpickle finds those that the function itself uses.

    Args:
        function: the function.
        reduced: how cloudpickle pickles it by value.
    """
    _, attributes = reduced[2]
    submodules = attributes["_cloudpickle_submodules"]
    _, *inner = nested_codes(function.__code__)
    used = [frozenset(code.co_names) for code in inner]
    packages = [value for _, value in variables(function) if used and isinstance(value, ModuleType)]
    for package in packages:
        prefix = f"{package.__name__}."
        for name, module in list(sys.modules.items()):
            if name.startswith(prefix) and isinstance(module, ModuleType) and module not in submodules:
                parts = set(name.removeprefix(prefix).split("."))
                if any(parts <= names for names in used):
                    submodules.append(module)


def _keep_slots(cls: type, reduced: Any) -> None:
    """Keep a class's slots in the pod. cloudpickle makes a class without them, whose objects cannot be loaded here.

    Args:
        cls: the class.
        reduced: how cloudpickle pickles it by value.
    """
    make, arguments = reduced[:2]
    if make.__name__ == "_make_skeleton_class":  # enumerations are made in another way, and have no slots
        _, _, bases, fields, _, _ = arguments
        slots = vars(cls)["__slots__"]
        # NamedTuple sets the slots itself, and an iterator has been used up.
        if NamedTuple not in bases and isinstance(slots, str | tuple | list | dict):
            fields["__slots__"] = slots


def _full_name(obj: Any) -> str:
    module = getattr(obj, "__module__", None) or "builtins"
    return f"{module}.{getattr(obj, '__qualname__', type(obj).__name__)}"
