"""Files that only their owner can read, and that are replaced in one step."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["write_private"]


def write_private(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Replace a file in one step. Readers see the old content or the new, never a part of it.

    Args:
        path: the file. Missing directories are created for the owner only.
        content: the new content; text is written as UTF-8.
        mode: the file's new permissions.
    """
    _make_directories(path.parent)
    data = content.encode() if isinstance(content, str) else content
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # created with mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _make_directories(path: Path) -> None:
    """Create a directory and those above it that are missing. ``mkdir(parents=True)`` ignores the mode for those."""
    if path.is_dir():
        return
    _make_directories(path.parent)
    path.mkdir(exist_ok=True, mode=0o700)
