"""Files that hold secrets or must never be half there: written whole or not at all, for their owner's eyes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file's text in one step; a reader sees the old or the new one.

    Args:
        path: the file; missing directories are made, for the owner only.
        text: what it holds afterwards.
        mode: its permissions afterwards.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600 from the start
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        draft.chmod(mode)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
