"""The continuation token of a running operation, kept in a file so that another process can wait for it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from aksgpu.common.private_files import write_private

__all__ = ["SavedOperation"]

_DIGEST_LENGTH = 16
"""Hexadecimal digits of the resource's id in the name of a file."""


class SavedOperation:
    """The running operation of one resource, in a file of the user's data directory.

    Args:
        home: the user's data directory.
        resource: id of the resource; upper and lower case do not matter, as in Azure.
    """

    def __init__(self, home: Path, resource: str) -> None:
        digest = hashlib.sha256(resource.lower().encode()).hexdigest()[:_DIGEST_LENGTH]
        self.path = home / "operations" / f"{resource.rsplit('/', 1)[-1]}-{digest}.json"

    def save(self, what: str, token: str) -> None:
        """Save a token, with a description of the operation."""
        write_private(self.path, json.dumps({"what": what, "token": token}))

    def load(self, what: str) -> str | None:
        """Return the saved token of an operation with this description; None if there is none."""
        try:
            saved = json.loads(self.path.read_text())
            return str(saved["token"]) if saved["what"] == what else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # no file, or an incomplete one; the caller reads the state of the resource

    def delete(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
