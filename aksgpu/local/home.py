"""Where the laptop AKS keeps its files."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The user's data directory of aksgpu; not created here.

    It is ``$AKSGPU_HOME``, else ``$XDG_DATA_HOME/aksgpu``, else ``~/.local/share/aksgpu``.
    """
    if given := os.environ.get("AKSGPU_HOME"):
        return Path(given).expanduser().resolve()
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "aksgpu"
