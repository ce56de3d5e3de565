"""Express a call as source: for a pod with another minor version of Python, where a pickle of code is not safe.

Functions and classes of the project are sent as their source, what they import as import statements, and plain data as
data. What cannot be expressed raises an error that names it. :mod:`aksgpu.payload.source_loader` makes the call from it
in the pod.
"""

from __future__ import annotations

import abc
import base64
import importlib
import io
import json
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from aksgpu.errors import InvalidInput
from aksgpu.payload.dispatchers import implementations
from aksgpu.payload.module_source import class_definition, function_definition, lambda_definition
from aksgpu.payload.modules import is_notebook_open
from aksgpu.payload.type_names import TypeName, reduce_type_name

__all__ = ["SourceCall", "express"]

PROTOCOL = 4
"""Protocol of the pickles of data, which each supported Python reads."""
_PRIVATE_MODULE = "_aksgpu_source_{}"
"""Name of a module of one function that has variables of an enclosing function, or no name of its own."""
_REGISTRATIONS = "_aksgpu_registrations"
"""Name of a module of statements that register classes."""
_HINT = "Use an image with the Python of this kernel, or move the object into the function."


class SourceCall(NamedTuple):
    """A call as source."""

    content: bytes
    """JSON for the loader."""
    files: dict[str, bytes]
    """Source files of the project's modules that the call uses as modules."""
    file_names: frozenset[str]
    """Files that the source comes from."""
    by_value: frozenset[str]
    """Functions, classes and modules whose source is sent."""
    by_reference: frozenset[str]
    """Functions, classes and modules that are imported in the pod."""


class _Place(NamedTuple):
    """Where a function or class will be in the pod."""

    module: str
    name: str


def express(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], by_value: Mapping[str, ModuleType]
) -> SourceCall:
    """Return a call as source.

    Args:
        function: the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
        by_value: the project's modules, by name.

    Raises:
        InvalidInput: a part of it cannot be expressed as source; the message names it.
    """
    whole: set[str] = set()
    while True:
        writer = _Writer(by_value, whole)
        call = writer.pickled((function, args, dict(kwargs)), "an argument")
        writer.register_classes()
        used = _with_imported(writer.used_modules, by_value)
        if used <= whole:
            break
        # A module that is used as such must be whole, so its file is sent, with those that it imports.
        whole |= used
    content = {
        "modules": sorted(writer.modules),
        "imports": writer.imports,
        "data": writer.data,
        "definitions": writer.definitions,
        "references": writer.references,
        "call": call,
    }
    return SourceCall(
        json.dumps(content).encode(),
        _module_files({name: by_value[name] for name in whole}),
        frozenset(writer.file_names),
        frozenset(writer.values),
        frozenset(writer.by_reference),
    )


class _Writer:
    """Collects the definitions that a call needs, dependencies first.

    Args:
        by_value: the project's modules, by name.
        whole: names of those that are sent as files. For the others, only the source of what is used is sent.
    """

    def __init__(self, by_value: Mapping[str, ModuleType], whole: set[str]) -> None:
        self._by_value = by_value
        self._whole = whole
        self._places: dict[int, _Place] = {}
        self._kept: list[object] = []  # so that ids stay valid
        self._abstract: list[abc.ABCMeta] = []
        self._seen: set[tuple[str, str]] = set()
        self.modules: set[str] = set()
        self.imports: list[tuple[str, str]] = []
        self.data: list[tuple[str, str, str]] = []
        self.definitions: list[dict[str, Any]] = []
        self.references: list[tuple[str, str, str, str]] = []
        self.file_names: set[str] = set()
        self.used_modules: set[str] = set()
        self.values: set[str] = set()
        self.by_reference: set[str] = set()

    # Values

    def pickled(self, value: object, what: str) -> str:
        """Return the pickle of a value in base64. Functions and classes in it become definitions."""
        file = io.BytesIO()
        try:
            _DataPickler(file, self).dump(value)
        except InvalidInput:
            raise
        except Exception as error:
            raise InvalidInput(f"{what} cannot be sent as source: {error}", hint=_HINT) from error
        return base64.b64encode(file.getvalue()).decode()

    def add_name(self, module: str, name: str, value: object) -> None:
        """Let a name of a module have its value in the pod."""
        if (module, name) in self._seen:
            return
        self._seen.add((module, name))
        if is_notebook_open(value):
            return  # the pod's Python has its own
        self.modules.add(module)
        if isinstance(value, ModuleType):
            self.use_module(value)
            self.imports.append((module, f"import {value.__name__} as {name}"))
            return
        if _is_definition(value):
            place = self.place_of(value)
            if place is not None:
                if place != (module, name):
                    self.references.append((module, name, place.module, place.name))
                return
            found = self._import_of(value)
            if found is not None:
                self.imports.append((module, f"{found} as {name}"))
                return
        self.data.append((module, name, self.pickled(value, f"{name!r}")))

    def use_module(self, module: ModuleType) -> None:
        """Note that a module is used as such: the file of a project module is sent."""
        if self._by_value.get(module.__name__) is module:
            self.used_modules.add(module.__name__)
            self.values.add(module.__name__)
        else:
            self.by_reference.add(module.__name__)

    def is_own(self, value: object) -> bool:
        """Return whether an object belongs to ``__main__`` or to a module of the project."""
        module = getattr(value, "__module__", None)
        return module == "__main__" or module in self._by_value

    def _import_of(self, value: object) -> str | None:
        """Return the statement that imports a function or class by reference; None if none does."""
        module = getattr(value, "__module__", None)
        name = getattr(value, "__qualname__", "")
        if isinstance(module, str) and name.isidentifier():
            found = getattr(sys.modules.get(module), name, None)
            if found is value:
                self.by_reference.add(f"{module}.{name}")
                return f"from {module} import {name}"
        return None

    # Definitions

    def place_of(self, value: Any) -> _Place | None:
        """Return where a function or class of the project will be, and define it; None for those of other modules."""
        known = self._places.get(id(value))
        if known is not None:
            return known
        module = getattr(value, "__module__", None) or ""
        if implementations(value) and module == "__main__":
            raise InvalidInput(
                f"function {value.__qualname__!r} cannot be sent as source, because functools.singledispatch has made "
                "it, and other statements register its implementations",
                hint="Define it in a module of your project, or use an image with the Python of this kernel.",
            )
        if implementations(value) and module in self._by_value:
            self.used_modules.add(module)  # its whole file registers the implementations
        if isinstance(value, BuiltinFunctionType) or not self.is_own(value):
            return None
        own = sys.modules[module]
        is_top_level = getattr(own, value.__qualname__, None) is value
        if isinstance(value, FunctionType) and not is_top_level:
            return self._define_private(value)
        if module in self._whole and is_top_level:
            return None
        if not is_top_level:
            raise InvalidInput(
                f"class {value.__qualname__!r} cannot be sent as source, because it is not at the top level of its "
                "module",
                hint=_HINT,
            )
        place = _Place(module, value.__qualname__)
        self._keep(value, place)
        self._seen.add(place)
        self.modules.add(module)
        definition = class_definition(value) if isinstance(value, type) else function_definition(value)
        self._add_definition(module, definition, vars(own))
        if isinstance(value, abc.ABCMeta):
            self._abstract.append(value)
        return place

    def register_classes(self) -> None:
        """Register the classes that count as subclasses of the abstract classes, as ``Base.register(complex)`` does."""
        number = 0
        for base in self._abstract:  # the loop adds to it
            for cls in _registered(base):
                number += 1
                self.add_name(_REGISTRATIONS, f"base_{number}", base)
                self.add_name(_REGISTRATIONS, f"class_{number}", cls)
                text = f"base_{number}.register(class_{number})\n"
                entry = {"module": _REGISTRATIONS, "text": text, "file": "<registrations>", "line": 1, "flags": 0}
                self.definitions.append(entry)

    def _define_private(self, function: FunctionType) -> _Place:
        """Define a function that is not at the top level, in a module of its own."""
        module = _PRIVATE_MODULE.format(len(self._places))
        is_lambda = function.__name__ == "<lambda>"
        name = "function" if is_lambda else function.__name__
        place = _Place(module, name)
        self._keep(function, place)
        self._seen.add(place)
        self.modules.add(module)
        variables = dict(function.__globals__)
        for free, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                variables[free] = cell.cell_contents
            except ValueError:
                continue  # a variable without a value yet
        if variables.get(name) is function:
            del variables[name]
        definition = lambda_definition(function, name) if is_lambda else function_definition(function)
        self._add_definition(module, definition, variables)
        return place

    def _keep(self, value: object, place: _Place) -> None:
        self._places[id(value)] = place
        self._kept.append(value)
        self.values.add(f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', place.name)}")

    def _add_definition(self, module: str, definition: Any, variables: Mapping[str, Any]) -> None:
        """Add the source of a function or class, after the names that it uses."""
        for name in definition.names:
            if name in variables:
                self.add_name(module, name, variables[name])
        for root, *attributes in definition.chains:
            self._import_submodules(module, variables.get(root), attributes)
        self.file_names.add(definition.file_name)
        self.definitions.append(
            {
                "module": module,
                "text": definition.text,
                "file": definition.file_name,
                "line": definition.line,
                "flags": definition.flags,
            }
        )

    def _import_submodules(self, module: str, package: object, attributes: list[str]) -> None:
        """Import a package's modules that are reached by attributes, such as ``xml.etree`` after ``import xml``."""
        found = package
        for name in attributes:
            if not isinstance(found, ModuleType):
                return
            found = sys.modules.get(f"{found.__name__}.{name}")
            if isinstance(found, ModuleType):
                self.use_module(found)
                statement = (module, f"import {found.__name__}")
                if statement not in self.imports:
                    self.imports.append(statement)


def _registered(base: abc.ABCMeta) -> list[type]:
    """Return the classes that are registered with an abstract class and that have a name in their module."""
    references, *_ = abc._get_dump(base)  # type: ignore[attr-defined]  # nothing public lists them
    classes: list[Any] = [reference() for reference in references]
    found = [cls for cls in classes if isinstance(cls, type) and _is_named(cls)]
    return sorted(found, key=lambda cls: (cls.__module__, cls.__qualname__))


def _is_named(cls: type) -> bool:
    """Return whether a class is a variable of its module. One that was replaced by an edit is not."""
    return getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is cls


def _with_imported(names: set[str], by_value: Mapping[str, ModuleType]) -> set[str]:
    """Return modules of the project, and those of the project that they import, directly or not."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found or name not in by_value:
            continue
        found.add(name)
        waiting.append(name.rpartition(".")[0])
        for value in list(vars(by_value[name]).values()):
            waiting.append(value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "") or "")
    return found


def _module_files(modules: Mapping[str, ModuleType]) -> dict[str, bytes]:
    """Return the source files of modules, by their path below a directory of imports."""
    files: dict[str, bytes] = {}
    for name, module in modules.items():
        path = Path(str(module.__file__))
        parts = name.split(".")
        relative = "/".join(parts) + ("/__init__.py" if path.name == "__init__.py" else ".py")
        if path.suffix == ".py" and path.is_file():
            files[relative] = path.read_bytes()
        for end in range(1, len(parts)):
            files.setdefault("/".join(parts[:end]) + "/__init__.py", b"")
    return files


def _is_definition(value: object) -> bool:
    """Return whether a value is a function or class, or an object that a decorator made of a function."""
    if isinstance(value, FunctionType | type | BuiltinFunctionType):
        return True
    return callable(value) and isinstance(getattr(value, "__wrapped__", None), FunctionType)


class _DataPickler(pickle.Pickler):
    """Pickles data for another Python: functions and classes of the project by their place in the pod."""

    def __init__(self, file: io.BytesIO, writer: _Writer) -> None:
        super().__init__(file, protocol=PROTOCOL)
        self._writer = writer

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is pickled."""
        if is_notebook_open(obj):
            return getattr, (_ModuleReference("builtins"), "open")
        if isinstance(obj, ModuleType):
            self._writer.use_module(obj)
            return importlib.import_module, (obj.__name__,)
        if _is_definition(obj):
            place = self._writer.place_of(obj)
            if place is not None:
                return _reduced(place)
        if isinstance(obj, TypeName) and self._writer.is_own(obj):
            return reduce_type_name(obj)
        if isinstance(obj, CodeType):
            raise InvalidInput("code objects cannot be sent as source", hint=_HINT)
        if isinstance(obj, MethodType):
            return getattr, (obj.__self__, obj.__func__.__name__)
        return NotImplemented


class _ModuleReference:
    """In a pickle: a module by its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> Any:
        return importlib.import_module, (self._name,)


def _reduced(place: _Place) -> Any:
    return getattr, (_ModuleReference(place.module), place.name)
