"""Reads and writes the directory of runs. Does not use clusters.

Each run has a directory ``<creation time>-<job>-<first 8 digits of the Job's uid>`` with three files:

- ``run.json``: the facts. It is written last, so a directory without it is not a run;
- ``log.txt.gz``: the log with the times of its lines; of a long one the beginning and the end;
- ``metrics.npz``: the metrics (see :mod:`aksgpu.history.frame_file`), and ``gpu.npz``: the GPU samples, if there are
  any.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aksgpu.common.home import home
from aksgpu.common.private_files import write_private

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MOST_BYTES",
    "MOST_RUNS",
    "DamagedRun",
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

MOST_RUNS = 500
"""Runs that are kept. The oldest are deleted."""
MOST_BYTES = 1 << 30
"""Bytes that the runs may take together. The oldest runs are deleted."""
LOG_HEAD = 1 << 20
"""Bytes of a long log's beginning that are kept."""
LOG_TAIL = 3 << 20
"""Bytes of a long log's end that are kept."""
_FORMAT = 1
"""Version of the files."""
_LONGEST_SAVE = 30.0
"""Seconds that :func:`load` waits for a save."""
_saving: set[threading.Thread] = set()
"""Threads that save a run."""
_saving_lock = threading.Lock()
_DISABLED = ("0", "off", "no", "false")


class DamagedRun(UserWarning):
    """A run in the history cannot be read."""


@dataclass(frozen=True)
class StoredRun:
    """One run of the history.

    Attributes:
        id: name of its directory.
        path: its directory.
        facts: see :mod:`aksgpu.jobs.run_record` for the names.
    """

    id: str
    path: Path
    facts: Mapping[str, Any]

    def log(self) -> str:
        """Return the log, each line with its time; empty if none was saved."""
        try:
            return gzip.decompress((self.path / "log.txt.gz").read_bytes()).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def table(self, name: str) -> pd.DataFrame | None:
        """Return a table, such as ``metrics`` or ``gpu``; None if none was saved.

        Raises:
            ValueError: the file is damaged.
        """
        from aksgpu.history import frame_file  # imported here because pandas takes half a second

        try:
            data = (self.path / f"{name}.npz").read_bytes()
        except FileNotFoundError:
            return None
        return frame_file.from_bytes(data)


def directory() -> Path:
    """Return the directory of the history. It is created when the first run is saved.

    It is ``history`` below ``$AKSGPU_HOME`` or below aksgpu's directory in the user's data directory. The environment
    variable ``AKSGPU_HISTORY`` names another directory; ``AKSGPU_HISTORY=0`` saves nothing.
    """
    configured = os.environ.get("AKSGPU_HISTORY", "")
    if configured and configured.lower() not in _DISABLED:
        return Path(configured).expanduser().resolve()
    return home() / "history"


def is_enabled() -> bool:
    """Return whether runs are saved: not with ``AKSGPU_HISTORY=0``."""
    return os.environ.get("AKSGPU_HISTORY", "").lower() not in _DISABLED


def save(facts: Mapping[str, Any], log: str | None, tables: Mapping[str, pd.DataFrame]) -> StoredRun:
    """Save a run, or replace what is saved of it. Runs beyond the limits are deleted, the oldest first.

    Args:
        facts: must have ``created`` (RFC 3339), ``job`` and ``uid``. A value None leaves the value that is saved.
        log: the log, each line with its time; None leaves the log that is saved.
        tables: DataFrames by name. Tables of other names that are saved stay.

    Raises:
        OSError: the directory cannot be written.
    """
    from aksgpu.history import frame_file

    id = run_id(facts)
    path = directory() / id
    content = {"format": _FORMAT, **_merged(_saved_facts(path), facts)}
    for name, table in tables.items():
        write_private(path / f"{name}.npz", frame_file.to_bytes(table))
    if log is not None:
        kept, content["log_bytes_omitted"] = _bounded(log)
        write_private(path / "log.txt.gz", gzip.compress(kept, mtime=0))
    write_private(path / "run.json", json.dumps(content, indent=1, ensure_ascii=False))
    _delete_oldest(id)
    return StoredRun(id, path, content)


def _saved_facts(path: Path) -> dict[str, Any]:
    """Return the facts that are saved of a run; empty if there are none or they are damaged."""
    try:
        found: dict[str, Any] = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _merged(saved: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in facts.items() if value is not None or name not in saved}
    return {**saved, **known}


def save_later(save: Callable[[], None]) -> None:
    """Call a function that saves a run in a thread of its own. Python waits for the thread before it exits."""
    # pandas imports this module, which is impossible while Python exits. The save may be the first to load pandas.
    import concurrent.futures.thread  # noqa: F401  # loaded for pandas

    def run() -> None:
        try:
            save()
        finally:
            with _saving_lock:
                _saving.discard(threading.current_thread())

    thread = threading.Thread(target=run, name="aksgpu-history")
    # A thread that has not been started, or cannot be, must not be joined. The lock keeps the thread from ending before
    # it is added.
    with _saving_lock:
        thread.start()
        _saving.add(thread)


def _wait_for_saves() -> None:
    """Wait until the saves that this process has begun are done."""
    with _saving_lock:
        threads = list(_saving)
    for thread in threads:
        thread.join(_LONGEST_SAVE)


def run_id(facts: Mapping[str, Any]) -> str:
    """Return the name of a run's directory. Names sort by the Jobs' creation."""
    created = str(facts["created"]).replace("-", "").replace(":", "")
    return f"{created}-{facts['job']}-{str(facts['uid'])[:8]}"


def load() -> list[StoredRun]:
    """Return the saved runs, oldest first. Saves that this process has begun are waited for.

    Warns:
        DamagedRun: a run cannot be read. It is left out.
    """
    _wait_for_saves()
    runs = []
    for path in _run_directories():
        try:
            facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue  # a run that is being saved
        except (OSError, ValueError) as error:
            warnings.warn(f"the run in {path} cannot be read and is left out: {error}", DamagedRun, stacklevel=3)
            continue
        runs.append(StoredRun(path.name, path, facts))
    return runs


def find(uid: str, name: str) -> pd.DataFrame | None:
    """Return a saved table of a Job by the Job's uid; None if there is none.

    Raises:
        ValueError: the file is damaged.
    """
    for path in _run_directories():
        if path.name.endswith(f"-{uid[:8]}") and _saved_facts(path).get("uid") == uid:
            return StoredRun(path.name, path, {}).table(name)
    return None


def has_log(job: str) -> bool:
    """Return whether the newest saved run of a Job's name has a log."""
    runs = [run for run in load() if run.facts.get("job") == job]
    return bool(runs) and (runs[-1].path / "log.txt.gz").exists()


def exists(run: StoredRun) -> bool:
    """Return whether the history has a run."""
    return run.path.parent == directory() and (run.path / "run.json").exists()


def delete(run: StoredRun) -> None:
    """Delete a run from the history. Does nothing if it does not exist."""
    (run.path / "run.json").unlink(missing_ok=True)
    shutil.rmtree(run.path, ignore_errors=True)


def _run_directories() -> list[Path]:
    try:
        return sorted(path for path in directory().iterdir() if path.is_dir())
    except FileNotFoundError:
        return []


def _bounded(log: str) -> tuple[bytes, int]:
    """Return the part of a log that is kept, cut at lines, and the number of bytes that are not."""
    data = log.encode("utf-8", "replace")
    if len(data) <= LOG_HEAD + LOG_TAIL:
        return data, 0
    head = data[: data.rfind(b"\n", 0, LOG_HEAD) + 1] or data[:LOG_HEAD]
    start = len(data) - LOG_TAIL
    tail = data[data.find(b"\n", start) + 1 or start :]
    omitted = len(data) - len(head) - len(tail)
    return head + f"[aksgpu: {omitted} bytes of the log were not saved]\n".encode() + tail, omitted


def _delete_oldest(newest: str) -> None:
    """Delete the oldest runs until the limits are kept. The run that was just saved stays."""
    total = 0
    for count, path in enumerate(reversed(_run_directories()), 1):
        total += sum(_size(file) for file in path.glob("*"))
        if path.name != newest and (count > MOST_RUNS or total > MOST_BYTES):
            delete(StoredRun(path.name, path, {}))


def _size(file: Path) -> int:
    """Return the bytes of a file; 0 if another save has just replaced or deleted it."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
