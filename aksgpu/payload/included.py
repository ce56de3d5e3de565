"""Files of the working directory that are sent with a function."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from aksgpu.payload.project_files import ProjectFiles, collect

__all__ = ["read_included"]


def read_included(paths: Iterable[str], base: Path) -> dict[str, bytes]:
    """Return the content of files, and of the files in directories, by their path below ``base``.

    Args:
        paths: files, directories and patterns, relative to ``base`` or absolute.
        base: the directory that corresponds to the working directory in the pod.

    Raises:
        InvalidInput: a path does not exist, is not below ``base``, or is too large.
    """
    own = base.resolve()
    files = ProjectFiles(own)
    collect(files, paths, own)
    return files.contents()
