"""Files of this machine that travel with a payload."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from aksgpu.errors import InvalidInput

__all__ = ["read_included"]

_LEFT_OUT = frozenset({"__pycache__", ".git", ".venv", ".ipynb_checkpoints", "node_modules"})
"""Directories that never travel."""
_LARGEST = 64 * 1024 * 1024
"""Bytes of all files before compression. A payload has at most 8 MiB after it."""


def read_included(paths: Iterable[str], base: Path) -> dict[str, bytes]:
    """Return the content of files, and of the files in directories, by their path below ``base``.

    Args:
        paths: files and directories, relative to ``base`` or absolute.
        base: the directory that corresponds to the working directory in the pod.

    Raises:
        InvalidInput: a path does not exist, is not below ``base``, or is too large.
    """
    own = base.resolve()
    found: dict[str, bytes] = {}
    total = 0
    for name in paths:
        start = (own / name).resolve()
        if not start.exists() or not start.is_relative_to(own):
            reason = "does not exist" if not start.exists() else f"is not below {own}"
            raise InvalidInput(
                f"`include` must name files and directories below the working directory, got {name!r}, which {reason}",
                hint='For example include=["configs/"].',
            )
        for path in _files(start):
            total += path.stat().st_size
            if total > _LARGEST:
                raise InvalidInput(
                    f"`include` must have at most {_LARGEST:,} bytes, and {name!r} has more",
                    hint='Put data on a claim: Executor(aks, volumes={"/data": "data"}).',
                )
            found[path.relative_to(own).as_posix()] = path.read_bytes()
    return found


def _files(start: Path) -> Iterator[Path]:
    """Yield the files of a directory, sorted; or the file itself."""
    if start.is_file():
        yield start
        return
    for path in sorted(start.iterdir()):
        if path.name in _LEFT_OUT:
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path
