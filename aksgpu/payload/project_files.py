"""Files of the user's project that are sent to a pod: which ones, and how large they may be.

A directory is sent without what does not belong to a program: version control, virtual environments, caches,
and files that hold credentials.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aksgpu.common.arguments import shown
from aksgpu.errors import InvalidInput

__all__ = ["LARGEST_TOTAL", "MOST_FILES", "ProjectFiles", "collect", "large_files"]

LARGEST_TOTAL = 64 * 1024 * 1024
"""Bytes of all files before compression. More cannot fit into Secrets."""
MOST_FILES = 5000
"""Number of files of one payload."""
_SHOWN = 3
"""Files that an error about sizes names."""

_SKIPPED_DIRECTORIES = (
    ".git",
    ".hg",
    ".svn",
    ".venv",
    ".tox",
    ".nox",
    "__pycache__",
    ".ipynb_checkpoints",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "node_modules",
    ".aws",
    ".azure",
    ".docker",
    ".gnupg",
    ".kube",
    ".ssh",
)
"""Directories that are not sent with a directory around them: history, environments, caches and credentials."""
_ENVIRONMENT_MARK = "pyvenv.cfg"
"""A file in the directory of a virtual environment."""
_CREDENTIALS = (
    ".env",
    ".env.*",
    "*.env",
    ".envrc",
    ".git-credentials",
    ".htpasswd",
    ".netrc",
    ".npmrc",
    ".pgpass",
    ".pypirc",
    "*.kdbx",
    "*.key",
    "*.pem",
    "*.p12",
    "*.pfx",
    "*.tfstate",
    "*.tfvars",
    "credentials",
    "credentials.json",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "id_rsa",
    "kaggle.json",
    "kubeconfig",
    "secrets.json",
    "secrets.toml",
    "secrets.yaml",
    "secrets.yml",
)
"""Names of files that usually hold credentials."""
_GLOB_CHARACTERS = frozenset("*?[")


@dataclass
class ProjectFiles:
    """Files to send, by their path below the root.

    Attributes:
        root: the directory of the project.
        files: the files by path below the root, with ``/`` between its parts.
        directories: the directories to send, also the empty ones.
        left_out: files with credentials that were left out of a directory.
    """

    root: Path
    files: dict[str, Path] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    left_out: set[str] = field(default_factory=set)

    def add(self, path: Path, argument: str) -> None:
        """Add one file.

        Raises:
            InvalidInput: it is outside the root, or not a regular file, or cannot be read.
        """
        name = self._name(path, argument)
        status = _status(path, argument)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput(f"`{argument}` must be regular files and directories, got {shown(str(path))}")
        if not os.access(path, os.R_OK):
            raise InvalidInput(f"`{argument}` must be files that you may read, got {shown(str(path))}")
        self.files[name] = path
        if len(self.files) > MOST_FILES:
            raise InvalidInput(
                f"`{argument}` must be at most {MOST_FILES:,} files, got more with {shown(name)}",
                hint='Put them on a claim: Executor(aks, volumes={"/data": "data"}).',
            )

    def add_directory(self, directory: Path, argument: str, ancestors: tuple[Path, ...] = ()) -> None:
        """Add what is in a directory, without caches, environments, version control and credentials.

        Raises:
            InvalidInput: as for :meth:`add`; or a symbolic link leads back to a directory around it.
        """
        resolved = directory.resolve()
        if resolved in ancestors:
            raise InvalidInput(
                f"`{argument}` must be a tree of files, got {shown(str(directory))}, a link to a directory around it"
            )
        self.directories.add(self._name(directory, argument))
        for path in sorted(_entries(directory, argument)):
            if path.is_dir():
                if not _is_skipped(path):
                    self.add_directory(path, argument, (*ancestors, resolved))
            elif _holds_credentials(path.name):
                self.left_out.add(self._name(path, argument))
            elif path.is_file() or path.is_symlink():
                self.add(path, argument)

    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(path.stat().st_size for path in self.files.values())

    def contents(self) -> dict[str, bytes]:
        """Return the content of each file.

        Raises:
            InvalidInput: together they are too large; the message names the largest ones.
        """
        total = self.size()
        if total > LARGEST_TOTAL:
            raise InvalidInput(
                f"the files must have at most {LARGEST_TOTAL:,} bytes, got {total:,}; {large_files(self)}",
                hint='Put data on a claim: Executor(aks, volumes={"/data": "data"}).',
            )
        return {name: path.read_bytes() for name, path in self.files.items()}

    def _name(self, path: Path, argument: str) -> str:
        """Return the path below the root."""
        absolute = Path(os.path.abspath(path))  # noqa: PTH100  # Path.resolve would follow links
        if not absolute.is_relative_to(self.root):
            absolute = absolute.parent.resolve() / absolute.name
        real = path.resolve()
        if not absolute.is_relative_to(self.root) or not real.is_relative_to(self.root.resolve()):
            target = f", a link to {str(real)!r}" if path.is_symlink() else ""
            raise InvalidInput(
                f"`{argument}` must be below the project's directory {str(self.root)!r}, got {str(path)!r}{target}",
                hint="Copy it into the project, or name a directory around both: Executor(aks, root='..').",
            )
        name = absolute.relative_to(self.root).as_posix()
        if not name.isprintable() or "\\" in name:
            raise InvalidInput(f"`{argument}` must have printable names without '\\', got {shown(name)}")
        return name


def collect(files: ProjectFiles, paths: Iterable[str], base: Path) -> None:
    """Add the files of the argument ``include``: files, directories and patterns such as ``configs/*.yaml``.

    Args:
        files: where they are added.
        paths: relative to ``base``, or else to the root.
        base: the directory that the user works in.

    Raises:
        InvalidInput: a path does not exist, is outside the root, or cannot be read.
    """
    argument = "include"
    for text in paths:
        if _GLOB_CHARACTERS & set(text):
            _add_pattern(files, text, base, argument)
            continue
        path = _existing(text, base, files.root, argument)
        if path.is_dir():
            files.add_directory(path, argument)
        else:
            files.add(path, argument)


def large_files(files: ProjectFiles) -> str:
    """Return which files are the largest, in words."""
    sizes = sorted(((path.stat().st_size, name) for name, path in files.files.items()), reverse=True)
    named = ", ".join(f"{name} ({size:,} bytes)" for size, name in sizes[:_SHOWN])
    return f"the largest are {named}" if len(sizes) > 1 else f"the largest is {named}"


def _add_pattern(files: ProjectFiles, pattern: str, base: Path, argument: str) -> None:
    absolute = Path(pattern)
    top = Path(absolute.anchor) if absolute.is_absolute() else base
    matches = sorted(top.glob(pattern.removeprefix(absolute.anchor)))
    if not matches:
        raise InvalidInput(f"`{argument}` must be files that exist, got {shown(pattern)}, which matches none in {base}")
    for path in matches:
        around = path if path.is_dir() else path.parent
        if any(_is_skipped(each) for each in (around, *around.parents) if each.is_relative_to(files.root)):
            continue
        if path.is_dir():
            files.add_directory(path, argument)
        elif _holds_credentials(path.name):
            files.left_out.add(str(path.relative_to(top)))
        else:
            files.add(path, argument)


def _existing(text: str, base: Path, root: Path, argument: str) -> Path:
    """Return the path of a file or directory, relative to the working directory or else to the root."""
    for directory in (base, root):
        path = directory / text
        if os.path.lexists(path):
            return path
    where = f"{base} and {root}" if base != root else str(base)
    raise InvalidInput(
        f"`{argument}` must be files and directories that exist, got {shown(text)}, which is not in {where}"
    )


def _status(path: Path, argument: str) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise InvalidInput(f"`{argument}` must be files that can be read, got {shown(str(path))}: {error}") from error


def _entries(directory: Path, argument: str) -> Iterator[Path]:
    try:
        yield from directory.iterdir()
    except OSError as error:
        raise InvalidInput(
            f"`{argument}` must be directories that can be read, got {shown(str(directory))}: {error}"
        ) from error


def _is_skipped(directory: Path) -> bool:
    return directory.name in _SKIPPED_DIRECTORIES or (directory / _ENVIRONMENT_MARK).exists()


def _holds_credentials(name: str) -> bool:
    return any(fnmatch.fnmatch(name.lower(), pattern) for pattern in _CREDENTIALS)
