"""The laptop's data directory, and files that only their owner can read."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import platformdirs


def home() -> Path:
    """Return ``$AKSGPU_HOME`` or aksgpu's directory in the user's data directory. It is not created."""
    configured = os.environ.get("AKSGPU_HOME")
    if configured:
        return Path(configured).expanduser().resolve()
    return platformdirs.user_data_path("aksgpu", appauthor=False)


def private(path: str, flags: int, mode: int = 0o600) -> int:
    """Open a file that only its owner can read. Used as the ``opener`` of :func:`open`."""
    return os.open(path, flags, mode)


def write_private(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file that only its owner can read. Readers see the old content or the new, never a part of it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with open(temporary, "wb", opener=partial(private, mode=mode)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
