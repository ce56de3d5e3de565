"""The project's own modules that a program imports, found by reading its source. Nothing is imported."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import NamedTuple

from aksgpu.payload.modules import is_installed

__all__ = ["Imported", "find_imported"]

_ALWAYS_THERE = ("aksgpu", "cloudpickle")
"""Packages that are in every payload."""


class Imported(NamedTuple):
    """Modules of the project that a program imports."""

    files: frozenset[Path]
    """Their source files, which include all source files of a package."""
    search_path: tuple[Path, ...]
    """Directories, besides that of the program, in which they are found."""
    others: frozenset[str]
    """Top-level names of the other modules that are imported."""


def find_imported(script: Path, root: Path, others: tuple[Path, ...] = ()) -> Imported:
    """Return the project's modules that a program imports, and those that they import.

    An import that is not found is left out: the image may have it.

    Args:
        script: the program.
        root: the directory of the project.
        others: further source files whose imports count.
    """
    waiting = [script, *others]
    read: set[Path] = set()
    files: set[Path] = set()
    directories: dict[Path, None] = {}
    names: set[str] = set()
    other_names: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in read:
            continue
        read.add(path)
        for name in set(_imported_names(path)) - names:
            names.add(name)
            found = _find(name, script.parent, root)
            if found is None:
                other_names.add(name)
                continue
            where, sources = found
            if where != script.parent:
                directories[where] = None
            files |= sources
            waiting += sources
    return Imported(frozenset(files), tuple(directories), frozenset(other_names))


def _imported_names(path: Path) -> Iterator[str]:
    """Yield the top-level names of a file's absolute imports; none of a file that this Python cannot read."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _find(name: str, directory: Path, root: Path) -> tuple[Path, set[Path]] | None:
    """Return where a module of the project is, and its source files; None if it is none of the project's."""
    if name in sys.builtin_module_names or name in _ALWAYS_THERE:
        return None
    spec = _spec(name, directory)
    if spec is None:
        return None
    if spec.submodule_search_locations is not None:
        packages = [Path(each).resolve() for each in spec.submodule_search_locations]
        own = [package for package in packages if package.is_relative_to(root) and not is_installed(package)]
        sources = {path for package in own for path in package.rglob("*.py") if not is_installed(path)}
        return (own[0].parent, sources) if sources else None
    if not spec.origin or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin).resolve()
    if not path.is_relative_to(root) or is_installed(path):
        return None
    return path.parent, {path}


def _spec(name: str, directory: Path) -> ModuleSpec | None:
    """Return how Python finds a top-level module when it runs a program of a directory."""
    spec = PathFinder.find_spec(name, [str(directory), *(entry for entry in sys.path if entry)])
    if spec is not None or name in sys.modules:
        return spec
    try:
        return importlib.util.find_spec(name)  # editable installs have finders of their own
    except (ImportError, ValueError):
        return None
