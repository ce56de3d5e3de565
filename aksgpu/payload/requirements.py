"""The packages that a pod installs: from a list, a requirements file, pyproject.toml, or the modules of a function."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aksgpu.common.arguments import shown
from aksgpu.errors import InvalidInput

__all__ = ["NONE", "Packages", "from_file", "from_list", "from_modules"]

_PASSED_ON = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "PIP_FIND_LINKS",
    "PIP_NO_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_FIND_LINKS",
    "UV_NO_INDEX",
    "UV_INSECURE_HOST",
)
"""Variables of this process that say where packages come from. They may hold logins, so they are sent in a Secret."""
_TRAVELLING = frozenset({"aksgpu", "cloudpickle"})
"""Distributions of which the payload brings what a function needs."""
_INCLUDES = ("-r", "--requirement")
_CONSTRAINTS = ("-c", "--constraint")
_EDITABLE = ("-e", "--editable")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_AFTER_NAME = ("[", "==", "~=", "!=", "<", ">", "(", "@", ";", "--")
"""What may follow the name of a requirement: extras, versions, an address, a condition, or options."""
_MOST_FILES = 50
"""Requirements files that include each other."""


class Packages(NamedTuple):
    """What a pod installs."""

    requirements: tuple[str, ...] = ()
    """Requirements, such as ``torch==2.9.1``."""
    options: tuple[str, ...] = ()
    """Lines with options of a requirements file, such as ``--extra-index-url URL``."""
    constraints: tuple[str, ...] = ()
    """Lines of constraints files."""

    def content(self) -> bytes:
        """Return the file of the payload, with this process' settings of where packages come from."""
        variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return json.dumps({**self._asdict(), "env": variables}).encode()


NONE = Packages()
"""No packages."""


def from_list(lines: Sequence[str]) -> Packages:
    """Return the packages of a list of requirements and options.

    Args:
        lines: the requirements and options. They may be the lines of a requirements file, so comments and empty lines
            are left out. Files that they include are relative to the working directory.

    Raises:
        InvalidInput: an item is not a requirement, or it is a local path or an editable installation, which the pod
            does not have.
    """
    constraints: list[str] = []
    # An item of several lines stays whole, so that it is refused.
    items = [line.strip() for line in lines]
    wanted = [item if "\n" in item else _without_comment(item).strip() for item in items]
    found = list(_expanded(filter(None, wanted), Path(), "packages", constraints, []))
    return _sorted(found)._replace(constraints=tuple(constraints))


def from_file(path: Path) -> Packages:
    """Return the packages of a requirements file and of those that it includes, or of a project's ``pyproject.toml``.

    Raises:
        InvalidInput: a file cannot be read, or names something that the pod does not have.
    """
    constraints: list[str] = []
    lines = _dependencies(path) if path.name == "pyproject.toml" else list(_lines(path, constraints, []))
    return _sorted(lines)._replace(constraints=tuple(constraints))


def _dependencies(path: Path) -> list[str]:
    """Return the dependencies of a project."""
    dependencies: object = None
    with contextlib.suppress(KeyError, TypeError):
        dependencies = _toml(path)["project"]["dependencies"]
    if not isinstance(dependencies, list):
        raise InvalidInput(
            f"`packages`: {path} must have a list `dependencies` in its table `project`",
            hint='For example packages=["numpy==2.3.1"].',
        )
    return [_checked(str(line).strip(), str(path)) for line in dependencies]


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read(path))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"`packages`: {path} cannot be read: {error}", hint="Correct the file.") from error


def _lines(path: Path, constraints: list[str], including: list[Path]) -> Iterator[str]:
    if path.resolve() in including or len(including) >= _MOST_FILES:
        raise InvalidInput(f"`packages`: {path} includes itself", hint="Remove the line that includes the file.")
    lines = _logical_lines(_read(path))
    yield from _expanded(lines, path.parent, str(path), constraints, [*including, path.resolve()])


def _expanded(
    lines: Iterable[str], directory: Path, where: str, constraints: list[str], including: list[Path]
) -> Iterator[str]:
    """Yield lines with those of the files that they include. Lines of constraints files are added to a list."""
    for line in lines:
        option, value = _option(line)
        if option in _INCLUDES:
            yield from _lines(directory / value, constraints, including)
        elif option in _CONSTRAINTS:
            constraints += _lines(directory / value, constraints, including)
        else:
            yield _checked(line, where)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"`packages`: {path} cannot be read: {error}", hint="Check the path.") from error


def _logical_lines(text: str) -> Iterator[str]:
    """Yield the lines of a requirements file without comments, and joined where they end with a backslash."""
    for line in text.replace("\\\n", " ").splitlines():
        stripped = _without_comment(line).strip()
        if stripped:
            yield stripped


def _without_comment(line: str) -> str:
    """Return a line without its comment, which begins with ``#`` at the beginning or after a space."""
    start = line.find("#")
    while start > 0 and not line[start - 1].isspace():
        start = line.find("#", start + 1)
    return line if start < 0 else line[:start]


def _option(line: str) -> tuple[str, str]:
    """Return the option at the beginning of a line, and its value; empty if the line is a requirement."""
    if not line.startswith("-"):
        return "", ""
    words = line.split(None, 1)
    name, _, value = words[0].partition("=")
    if not value and len(words) > 1:
        value = words[1].strip()
    if not name.startswith("--") and len(name) > 2:  # -rfile
        return name[:2], name[2:]
    return name, value


def _checked(line: str, where: str) -> str:
    """Return a line that a pod can install from."""
    option, value = _option(line)
    local = value if option in _EDITABLE else line
    first = re.split(r"[\s;]", local)[0]
    is_path = first.startswith((".", "/", "~", "file:")) or first.endswith((".whl", ".tar.gz", ".zip"))
    if option in _EDITABLE or (not option and is_path and "://" not in first.removeprefix("file://")):
        raise InvalidInput(
            f"`{where}` must name packages of an index, got {shown(line)}, which is a path on this machine or editable",
            hint="Modules of your project are sent with the function. Leave the line out.",
        )
    if not _is_option_or_requirement(line):
        raise InvalidInput(
            f"`{where}` must have one requirement in each item or line, got {shown(line)}",
            hint='For example packages=["numpy==2.3.1", "timm"], a requirements file, or pyproject.toml.',
        )
    return line


def _is_option_or_requirement(line: str) -> bool:
    if "\n" in line:
        return False
    if line.startswith("-"):
        return line.lstrip("-")[:1].isalpha()
    if "://" in line.partition(" ")[0]:
        return True
    name = _NAME.match(line)
    rest = line[name.end() :].lstrip() if name else ""
    return name is not None and (not rest or rest.startswith(_AFTER_NAME))


def _sorted(lines: Iterable[str]) -> Packages:
    """Return lines as requirements and options."""
    requirements: list[str] = []
    options: list[str] = []
    for line in lines:
        (options if line.startswith("-") else requirements).append(line)
    return Packages(tuple(requirements), tuple(options))


# The modules of a function


def from_modules(names: Iterable[str]) -> Packages:
    """Return the installed distributions that provide modules, pinned to their versions.

    Args:
        names: full names of modules, functions and classes.

    Raises:
        InvalidInput: a distribution is installed from this machine or from version control.
    """
    provided = importlib.metadata.packages_distributions()
    found: set[str] = set()
    for name in names:
        found.update(provided.get(name.partition(".")[0], ()))
    distributions = sorted(found, key=str.lower)
    return Packages(tuple(_pinned(name) for name in distributions if _normal(name) not in _TRAVELLING))


def _pinned(name: str) -> str:
    distribution = importlib.metadata.distribution(name)
    source = _source(distribution)
    if source:
        raise InvalidInput(
            f"`packages` 'auto' needs packages that are installed from an index, and {name} is installed from {source}",
            hint="Pass packages=[...], or build an image that has it.",
        )
    # A local label, such as +cpu or +cu128, names a build that the package's usual index does not have.
    return f"{name}=={distribution.version.partition('+')[0]}"


def _source(distribution: importlib.metadata.Distribution) -> str:
    """Return from where a distribution was installed, if that is not an index; empty otherwise."""
    text = distribution.read_text("direct_url.json")
    if not text:
        return ""
    try:
        url = json.loads(text)
    except ValueError:
        return ""
    if "dir_info" in url or str(url.get("url")).startswith("file:"):
        return f"the directory {url.get('url')}"
    return f"{url.get('url')} by version control" if "vcs_info" in url else ""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
