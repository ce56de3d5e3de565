"""Where the laptop AKS keeps its files, and how it writes those that must be whole."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path


def home() -> Path:
    """The user's data directory of aksgpu; not created here.

    It is ``$AKSGPU_HOME``, else ``$XDG_DATA_HOME/aksgpu``, else ``~/.local/share/aksgpu``.
    """
    if given := os.environ.get("AKSGPU_HOME"):
        return Path(given).expanduser().resolve()
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "aksgpu"


def private(path: str, flags: int, mode: int = 0o600) -> int:
    """The ``opener`` of files that only the user can read."""
    return os.open(path, flags, mode)


def write_private(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that only the user can read; readers see the old content or the new, never a part."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with open(fresh, "wb", opener=partial(private, mode=mode)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
