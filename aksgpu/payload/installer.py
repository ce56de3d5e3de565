"""Install a payload's packages in the pod, in a virtual environment on top of the image's Python.

In the pod it is the file ``aksgpu_installer.py`` beside ``runner.py``, so it uses the standard library only, and works
with Python 3.8. Debian's images refuse pip outside a virtual environment, and may lack ensurepip.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import site
import sys
import sysconfig
from collections import deque
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

__all__ = ["InstallFailed", "install"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ANY_SPECIFIER = re.compile(r"(?:[<>=!~]=|[<>])\s*[0-9][0-9A-Za-z.+*!_-]*")
_SPECIFIER = re.compile(r"(?P<operator><=|>=|==|!=|<|>)\s*(?P<version>[0-9]+(?:\.[0-9]+)*)")
_SHOWN_LINES = 15
"""Lines of the installer's output that an error has."""
_BASIC = frozenset({"pip", "setuptools", "wheel", "uv"})
"""Distributions that images have by default."""
_NO_WHEEL = ("no matching distribution", "has no wheels", "requires-python", "requires python", "no wheels with a")
"""Parts of messages of an index that has no file of the package for this Python."""
_FALSE = ("", "0", "false", "f", "no", "n", "off")
"""Values of a variable that mean false, in lower case."""


class InstallFailed(Exception):
    """The packages could not be installed. The text has the installer's last lines."""


def install(packages: dict[str, Any], directory: Path, run: Callable[..., int]) -> str:
    """Install packages, and return the interpreter that has them.

    Args:
        packages: ``requirements``, ``options``, ``constraints`` and ``env``, as in ``packages.json``.
        directory: a directory for the virtual environment and the installer's files.
        run: runs a command in a directory; ``run(command, directory, **options of Popen)`` returns its exit code.

    Raises:
        InstallFailed: the packages could not be installed.
    """
    if all(is_satisfied(line) for line in packages["requirements"]):
        return sys.executable
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "install.log"
    environment = {
        **os.environ,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "UV_LINK_MODE": "copy",
        "UV_NO_PROGRESS": "1",
        **packages["env"],
    }
    steps = _Steps(directory, run, environment, log)
    interpreter = steps.make_environment()
    steps.install(interpreter, packages)
    return interpreter


class _Steps:
    """The steps of an installation, each a command whose output is kept."""

    def __init__(self, directory: Path, run: Callable[..., int], environment: dict[str, str], log: Path) -> None:
        self._directory = directory
        self._run = run
        self._environment = environment
        self._log = log
        self._uv = shutil.which("uv")

    def make_environment(self) -> str:
        """Make a virtual environment that sees the packages of this Python, and return its interpreter."""
        path = self._directory / "venv"
        if self._has("venv"):
            self._call([sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(path)])
        elif self._uv:
            self._call([self._uv, "venv", "--system-site-packages", "--python", sys.executable, str(path)])
        else:
            raise InstallFailed("the image has neither the module venv nor uv, so no packages can be installed")
        _show_parent(path)
        return str(path / "bin" / "python")

    def install(self, interpreter: str, packages: dict[str, Any]) -> None:
        """Install the packages with pip or uv."""
        constraints = self._write("constraints.txt", packages["constraints"])
        lines = [line for line in packages["requirements"] if not is_satisfied(line)]
        has_pip = self._has("pip")
        if self._uv and (not _has_other_packages() or not has_pip):
            self._install_with_uv(interpreter, lines, packages["options"], constraints)
        elif has_pip:
            wanted = self._write("requirements.txt", [*packages["options"], *lines])
            self._call([interpreter, "-m", "pip", "install", "-r", wanted, "-c", constraints])
        else:
            raise InstallFailed("the image has neither pip nor uv, so no packages can be installed")

    def _install_with_uv(self, interpreter: str, lines: list[str], options: list[str], constraints: str) -> None:
        """Install with uv, which does not see the packages of the image: those it resolves to are left out."""
        uv = str(self._uv)
        if self._environment.get("UV_NO_INDEX", "").lower() not in _FALSE:
            options = ["--no-index", *options]  # uv has the option, but no variable for it
        wanted = self._write("requirements.txt", [*options, *lines])
        present = self._write("present.txt", [f"{name}=={version}" for name, version in sorted(_installed().items())])
        resolved = self._directory / "resolved.txt"
        compile_command = [uv, "pip", "compile", wanted, "-c", constraints, "-o", str(resolved), "--no-header"]
        compile_command += ["--no-annotate", "--python", sys.executable]
        try:
            self._call([*compile_command, "-c", present])
        except InstallFailed:
            # The packages need other versions than the image has.
            self._call(compile_command)
        rest = [line for line in resolved.read_text().splitlines() if line.strip() and not is_satisfied(line)]
        if rest:
            missing = self._write("missing.txt", [*options, *rest])
            self._call([uv, "pip", "install", "--no-deps", "--python", interpreter, "-r", missing])

    def _has(self, module: str) -> bool:
        command = [sys.executable, "-c", f"import {module}"]
        return self._run(command, self._directory, stdout=DEVNULL, stderr=DEVNULL) == 0

    def _call(self, command: list[str]) -> None:
        with self._log.open("wb") as output:
            code = self._run(command, self._directory, stdout=output, stderr=output, env=self._environment)
        if code:
            raise InstallFailed(_explain(self._log.read_text(errors="replace")))

    def _write(self, name: str, lines: list[str]) -> str:
        path = self._directory / name
        path.write_text("".join(line + "\n" for line in lines))
        return str(path)


def _show_parent(environment: Path) -> None:
    """Let an environment that was made from another virtual environment see that one's packages."""
    if sys.prefix == sys.base_prefix:
        return
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = environment / "lib" / version / "site-packages"
    parents = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()])
    lines = [f"import site; site.addsitedir({path!r})\n" for path in parents]
    (packages / "_aksgpu_parent.pth").write_text("".join(lines))


def _explain(output: str) -> str:
    """Return the last lines of an installer, and what they mean."""
    lines = deque((line.rstrip() for line in output.splitlines() if line.strip()), maxlen=_SHOWN_LINES)
    lowered = output.lower()
    if any(sign in lowered for sign in _NO_WHEEL):
        own = f"{sys.version_info[0]}.{sys.version_info[1]}"
        lines.append(
            f"There may be no wheel of the package for this Python ({own}): another image or version may work."
        )
    return "the packages could not be installed:\n" + "\n".join(lines)


# What is installed


def _installed() -> dict[str, str]:
    """Return the versions of the distributions that this Python sees, by normalized name."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        with contextlib.suppress(Exception):  # a damaged installation
            found.setdefault(_normal(distribution.metadata["Name"]), distribution.version)
    return found


def _has_other_packages() -> bool:
    return bool(set(_installed()) - _BASIC)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def is_satisfied(line: str) -> bool:
    """Return whether the image has what a requirement asks for; False for a line that is not understood."""
    requirement = line.strip()
    name = _NAME.match(requirement)
    if name is None:
        return False
    version = _installed().get(_normal(name[0]))
    specifiers = [each.strip() for each in requirement[name.end() :].split(",") if each.strip()]
    if version is None or not all(_ANY_SPECIFIER.fullmatch(each) for each in specifiers):
        return False
    return all(_meets(version, each) for each in specifiers)


def _meets(version: str, specifier: str) -> bool:
    """Return whether a version meets a specifier of plain numbers, or is exactly the one that it names."""
    public = version.partition("+")[0]
    if specifier.startswith("=="):
        wanted = specifier[2:].strip()
        if wanted in (version, public):
            return True
    match = _SPECIFIER.fullmatch(specifier)
    if match is None or not re.fullmatch(r"[0-9]+(\.[0-9]+)*", public):
        return False
    return _compare(_numbers(public), match["operator"], _numbers(match["version"]))


def _numbers(version: str) -> list[int]:
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers


def _compare(own: list[int], operator: str, wanted: list[int]) -> bool:
    return {
        "==": own == wanted,
        "!=": own != wanted,
        "<=": own <= wanted,
        ">=": own >= wanted,
        "<": own < wanted,
        ">": own > wanted,
    }[operator]
