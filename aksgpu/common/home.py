"""The directory of this user's files: the laptop AKS and the history of runs."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["home", "private"]


def home() -> Path:
    """Return ``$AKSGPU_HOME`` or aksgpu's directory in the user's data directory. It is not created."""
    configured = os.environ.get("AKSGPU_HOME")
    if configured:
        return Path(configured).expanduser().resolve()
    return platformdirs.user_data_path("aksgpu", appauthor=False)


def private(path: str, flags: int, mode: int = 0o600) -> int:
    """Open a file that only its owner can read. Used as the ``opener`` of :func:`open`."""
    return os.open(path, flags, mode)
