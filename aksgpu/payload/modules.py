"""Which modules are sent by value: the project's own, but never installed packages or the standard library."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from urllib.parse import unquote, urlsplit

__all__ = ["MAIN", "find_root", "is_installed", "is_notebook_open", "project_modules"]

_ROOT_MARKS = ("pyproject.toml", ".git")
"""Files or directories that mark the root of a project."""
_ALWAYS_INSTALLED = ("aksgpu", "cloudpickle")
"""Packages that are never sent by value, even from a checkout. The payload brings what a function needs of them."""
MAIN = ("__main__", "__mp_main__")
"""Names of the main module. Its objects are always sent by value."""
_LIBRARY_DIRECTORIES = frozenset({"site-packages", "dist-packages"})


def find_root(start: Path | None = None) -> Path:
    """Return the nearest parent directory with pyproject.toml or .git, or else the directory itself.

    Args:
        start: the directory to start from; None uses the working directory.
    """
    directory = (start or Path.cwd()).resolve()
    for candidate in (directory, *directory.parents):
        if any((candidate / mark).exists() for mark in _ROOT_MARKS):
            return candidate
    return directory


def project_modules(root: Path) -> dict[str, ModuleType]:
    """Return the imported modules of the project and of editable installations, by name, without ``__main__``.

    Args:
        root: the directory of the project.
    """
    directories = tuple(
        f"{directory}{os.sep}" for directory in (root.resolve(), *_editable_directories(tuple(sys.path)))
    )
    libraries = _library_directories()
    found = {}
    for name, module in list(sys.modules.items()):
        if name in MAIN or name.partition(".")[0] in _ALWAYS_INSTALLED:
            continue
        if getattr(module, "__name__", None) != name:
            continue  # an alias, such as os.path
        path = _file_of(module)
        if path is not None and str(path).startswith(directories) and not is_installed(path, libraries):
            found[name] = module
    return found


def is_installed(path: Path, libraries: tuple[Path, ...] | None = None) -> bool:
    """Return whether a file belongs to an installed package or to the standard library.

    A virtual environment inside the project is not part of the project.
    """
    if _LIBRARY_DIRECTORIES & set(path.parts):
        return True
    directories = _library_directories() if libraries is None else libraries
    return any(path.is_relative_to(directory) for directory in directories)


@cache
def _editable_directories(search_path: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the directories of distributions that were installed in editable mode. No image has them."""
    found = []
    for distribution in importlib.metadata.distributions(path=list(search_path)):
        try:
            url = json.loads(distribution.read_text("direct_url.json") or "{}")
        except (OSError, ValueError):
            continue  # a damaged installation
        address = str(url.get("url") or "")
        if (url.get("dir_info") or {}).get("editable") and address.startswith("file://"):
            found.append(Path(unquote(urlsplit(address).path)).resolve())
    return tuple(found)


def is_notebook_open(value: object) -> bool:
    """Return whether a value is the function by which IPython replaces ``open`` in a notebook."""
    if not isinstance(value, FunctionType) or getattr(value, "__wrapped__", None) is not io.open:
        return False
    return str(value.__globals__.get("__name__")).startswith("IPython.")


@cache
def _library_directories() -> tuple[Path, ...]:
    """Return the directories of the standard library and of installed packages."""
    paths = sysconfig.get_paths()
    names = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    names += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(dict.fromkeys(_resolved(names)))


def _resolved(names: list[str]) -> Iterator[Path]:
    for name in names:
        yield Path(name).resolve()


def _file_of(module: ModuleType) -> Path | None:
    """Return the file of a module; None for one without a file, such as a built-in one."""
    try:
        name = module.__file__
    except Exception:  # modules of some libraries compute their attributes
        return None
    return _resolved_file(name) if isinstance(name, str) else None


@cache
def _resolved_file(name: str) -> Path:
    """Return the path of a module's file. There are thousands of modules, and every call looks at all of them."""
    return Path(name).resolve()
