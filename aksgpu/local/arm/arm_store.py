"""The persistent state of Resource Manager: resource groups, clusters with their pools, and operations.

Documents are plain dicts in memory. :meth:`State.save` writes changed documents to ``arm.db`` in one transaction, which
is on disk when it returns. Handlers save before they respond, so a killed process loses nothing that it acknowledged.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any, Self

from aksgpu.errors import LaptopError

Document = dict[str, Any]


class State:
    """The documents of a subscription.

    Args:
        path: the SQLite file. It is created if necessary, readable only by its owner because it holds bearer tokens.

    Attributes:
        groups: the resource groups by name in lower case.
        clusters: the clusters by :func:`~aksgpu.local.arm.resource_ids.cluster_key`.
        operations: the operations by id.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.groups: dict[str, Document] = {}
        self.clusters: dict[str, Document] = {}
        self.operations: dict[str, Document] = {}

    def open(self) -> Self:
        """Read the file; raises LaptopError if it cannot be read."""
        try:
            self._path.touch(mode=0o600)
            self._db = sqlite3.connect(self._path, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS documents (kind TEXT, key TEXT, document TEXT, PRIMARY KEY (kind, key))"
            )
            for kind, key, text in self._db.execute("SELECT kind, key, document FROM documents ORDER BY rowid"):
                getattr(self, kind)[key] = json.loads(text)
        except (sqlite3.Error, OSError, ValueError, AttributeError) as error:
            raise LaptopError(
                f"{self._path} cannot be read: {error}",
                hint=f"Move {self._path.parent} away to start with an empty laptop AKS, or set another AKSGPU_HOME.",
            ) from error
        return self

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def save(self, *changes: tuple[str, str]) -> None:
        """Write the documents at ``(table, key)``, or delete those no longer present, in one transaction."""
        write = "INSERT INTO documents VALUES (?1, ?2, ?3) ON CONFLICT (kind, key) DO UPDATE SET document = ?3"
        with self._db:  # a transaction, rolled back on errors
            for kind, key in changes:
                document = getattr(self, kind).get(key)
                if document is None:
                    self._db.execute("DELETE FROM documents WHERE kind = ? AND key = ?", (kind, key))
                else:
                    self._db.execute(write, (kind, key, json.dumps(document)))
