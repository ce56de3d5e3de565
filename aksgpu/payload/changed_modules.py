"""Import those modules of the project again whose files have changed, so that a session runs the new code."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import weakref
from collections.abc import Iterator, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

__all__ = ["ChangedModules"]


class ChangedModules:
    """Knows the files of modules as they were when it first saw them."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[ModuleType, str]] = {}
        self._former: dict[tuple[str, str], list[weakref.ref[Any]]] = {}

    def reload(self, modules: Mapping[str, ModuleType]) -> list[str]:
        """Import modules again whose files have changed, and those that import them. Return their names.

        Functions and classes that other modules have imported get the new code too.

        Args:
            modules: the project's imported modules by name.

        Raises:
            Exception: what the import of a changed module raises, such as SyntaxError.
        """
        texts = {name: text for name, module in modules.items() if (text := _text_of(module)) is not None}
        changed = [name for name, text in texts.items() if self._has_changed(modules[name], name, text)]
        affected = _with_importers(changed, texts)
        for name in affected:
            self._reload(modules[name], texts[name])
        for name, text in texts.items():
            self._seen[name] = (modules[name], _checksum(text))
        return affected

    def _has_changed(self, module: ModuleType, name: str, text: str) -> bool:
        seen = self._seen.get(name)
        if seen is not None and seen[0] is module:
            return seen[1] != _checksum(text)
        return _differs(module, text)

    def _reload(self, module: ModuleType, text: str) -> None:
        """Import a module again, and give its former functions and classes the new code."""
        before = dict(vars(module))
        if type(module.__loader__) is SourceFileLoader:
            # Cached bytecode may be that of the former text: its time has whole seconds only.
            exec(compile(text, str(module.__file__), "exec", dont_inherit=True), vars(module))
        else:
            importlib.reload(module)
        for name, old in before.items():
            new = vars(module).get(name)
            is_own = isinstance(old, FunctionType | type) and old.__module__ == module.__name__
            if not is_own or old is new:
                continue
            former = self._former.setdefault((module.__name__, name), [])
            former.append(weakref.ref(old))
            for each in filter(None, (reference() for reference in former)):
                _update(each, new)


def _update(old: object, new: object) -> None:
    """Give a former function or class the code of the new one."""
    if isinstance(old, FunctionType) and isinstance(new, FunctionType):
        _update_function(old, new)
    elif isinstance(old, type) and isinstance(new, type):
        _update_class(old, new)


def _text_of(module: ModuleType) -> str | None:
    """Return the source of a module as its file has it now; None if there is none."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py"):
        return None
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _differs(module: ModuleType, text: str) -> bool:
    """Return whether the code of a module's functions differs from its file. Other changes are not noticed."""
    if type(module.__loader__) is not SourceFileLoader:
        return False  # another loader may make other code of the same text
    try:
        codes = dict(_codes(compile(text, str(module.__file__), "exec", dont_inherit=True)))
    except SyntaxError:
        return True
    for name, value in list(vars(module).items()):
        function = inspect.unwrap(value) if callable(value) else value
        is_own = isinstance(function, FunctionType) and function.__module__ == module.__name__
        if is_own and name in codes and function.__code__ != codes[name]:
            return True
    return False


def _codes(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    """Yield the code of each function that a module defines at its top level."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant.co_name, constant


def _with_importers(changed: list[str], texts: Mapping[str, str]) -> list[str]:
    """Return the changed modules, followed by those that import them, directly or through others."""
    imports = {name: _imports(name, text) for name, text in texts.items()} if changed else {}
    ordered = list(changed)
    for name in ordered:
        ordered += [other for other, names in imports.items() if name in names and other not in ordered]
    return ordered


def _imports(module: str, text: str) -> set[str]:
    """Return the full names that a module imports; those of members are among them."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            base = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            full = ".".join(part for part in (base, node.module) if part)
            found.add(full)
            found |= {f"{full}.{alias.name}" for alias in node.names}
    return found


def _update_function(old: FunctionType, new: FunctionType) -> None:
    if len(old.__code__.co_freevars) != len(new.__code__.co_freevars):
        return
    old.__code__ = new.__code__
    old.__defaults__ = new.__defaults__
    old.__kwdefaults__ = new.__kwdefaults__
    old.__doc__ = new.__doc__
    old.__dict__.update(new.__dict__)


def _update_class(old: type, new: type) -> None:
    for name, value in vars(new).items():
        former = vars(old).get(name)
        if isinstance(former, FunctionType) and isinstance(value, FunctionType):
            _update_function(former, value)
        elif isinstance(value, FunctionType | property | staticmethod | classmethod):
            setattr(old, name, value)
