"""The history of runs on this machine: log, metrics, GPU samples and facts of Jobs that have ended.

The history is one directory: ``$AKSGPU_HOME/history``, or ``history`` in aksgpu's user data directory. It has
a directory for each run, and its size is bounded. :mod:`aksgpu.runs` lists, compares and deletes runs.
"""

from __future__ import annotations

from aksgpu.history.run_store import (
    MOST_BYTES,
    MOST_RUNS,
    StoredRun,
    delete,
    directory,
    exists,
    find,
    has_log,
    is_enabled,
    load,
    save,
    save_later,
)

__all__ = [
    "MOST_BYTES",
    "MOST_RUNS",
    "StoredRun",
    "delete",
    "directory",
    "exists",
    "find",
    "has_log",
    "is_enabled",
    "load",
    "save",
    "save_later",
]


def __dir__() -> list[str]:
    return sorted(__all__)
