"""The directory of this user's files: the laptop AKS and the history of runs."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from aksgpu.errors import LaptopError

__all__ = ["home", "private"]


def home() -> Path:
    """Return ``$AKSGPU_HOME`` or aksgpu's directory in the user's data directory. It is not created.

    Raises:
        LaptopError: the user has no home directory.
    """
    configured = os.environ.get("AKSGPU_HOME")
    try:
        found = Path(configured) if configured else platformdirs.user_data_path("aksgpu", appauthor=False)
        return found.expanduser().resolve() if configured else found.expanduser()
    except RuntimeError as error:  # ~ cannot be resolved
        raise LaptopError(
            "your home directory is not known: HOME is not set, and the system does not know your user",
            hint="Set AKSGPU_HOME to a directory that you own and can write to.",
        ) from error


def private(path: str, flags: int, mode: int = 0o600) -> int:
    """Open a file that only its owner can read. Used as the ``opener`` of :func:`open`."""
    return os.open(path, flags, mode)
