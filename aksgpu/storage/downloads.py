"""List the files of a claim, and copy them to this machine."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from aksgpu.common.arguments import flag, shown
from aksgpu.common.frames import frame
from aksgpu.common.notices import warn
from aksgpu.errors import InvalidInput, StorageError
from aksgpu.kube.client import HasKube
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.progress import Progress
from aksgpu.storage import storage_arguments
from aksgpu.storage.helper_channel import Channel, ConnectionCut
from aksgpu.storage.helper_pod import HelperPod, transfer
from aksgpu.storage.helper_program import BLOCK, CHUNK, is_same, part_of
from aksgpu.storage.local_files import Entry, Target
from aksgpu.storage.transfer_progress import Meter, Transfer, escaped, resumable, size_text
from aksgpu.waiting import Timeout, Timer, check_timeout

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LISTED", "download", "ls"]

LISTED = {
    "path": "string",
    "kind": "string",
    "size": "Int64",
    "modified": "datetime64[ns, UTC]",
    "mode": "string",
    "link": "string",
}
"""Columns of :func:`ls`."""
_KINDS = {"f": "file", "d": "directory", "l": "link", "s": "special"}


def ls(
    aks: HasKube,
    name: str,
    path: str = "",
    *,
    recursive: bool = False,
    namespace: str | None = None,
    timeout: Timeout = 1200,
    progress: bool | None = None,
) -> pd.DataFrame:
    """List the files of a claim.

    Args:
        aks: the cluster.
        name: name of the claim.
        path: a directory or file in the claim; empty for its top directory.
        recursive: whether to list the files of all directories below too.
        namespace: the claim's namespace; None uses the context's namespace.
        timeout: seconds, or text such as ``"10m"``; None means no limit.
        progress: False shows no progress; None uses the environment variable ``AKSGPU_PROGRESS``.

    Returns:
        One row for each entry, in the order of names:

        - path (string): in the claim, such as ``images/cat.png``.
        - kind (string): ``file``, ``directory``, ``link`` or ``special``.
        - size (Int64): bytes of a file; NA for others.
        - modified (datetime64[ns, UTC]): when it was changed.
        - mode (string): permissions, such as ``rw-r--r--``.
        - link (string): where a link leads; NA for others.

    Raises:
        InvalidInput: an argument is not valid.
        NotFound: the claim, or the path in it, does not exist.
        Forbidden: you may not create Jobs or run programs in pods.
        WaitTimeout: time ran out.

    Example:
        >>> storage.ls(aks, "data")  # doctest: +SKIP
    """
    check_cluster(aks)
    storage_arguments.claim_name(name)
    where = storage_arguments.claim_path(path, "path")
    flag("recursive", recursive)
    check_timeout(timeout)
    space = storage_arguments.namespace(namespace)
    timer = Timer(timeout)
    request = {"t": "list", "path": where, "deep": recursive}

    def work(channel: Channel) -> list[dict[str, Any]]:
        channel.send(request)
        base, entries = _read_entries(channel)
        if not base["directory"]:
            return [_row(Entry(*base["entry"])._replace(path=where))]
        return [_row(each._replace(path=f"{where}/{each.path}" if where else each.path)) for each in entries]

    helper = HelperPod(aks, name, namespace=space, timer=timer, read_only=True, progress=progress)
    with helper:
        rows = transfer(helper, work, lambda: 0, timer)
    return frame(sorted(rows, key=lambda row: str(row["path"])), LISTED)


def _row(entry: Entry) -> dict[str, Any]:
    import pandas as pd

    return {
        "path": entry.path.encode(errors="surrogateescape").decode(errors="backslashreplace"),
        "kind": _KINDS[entry.kind],
        "size": entry.size if entry.kind == "f" else None,
        "modified": pd.Timestamp(entry.changed, unit="us", tz="UTC"),
        "mode": stat.filemode(entry.mode)[1:],
        "link": entry.link if entry.kind == "l" else None,
    }


def _read_entries(channel: Channel) -> tuple[dict[str, Any], list[Entry]]:
    """Return what the base of a listing is, and the entries below it."""
    base, _ = channel.receive()
    entries: list[Entry] = []
    while True:
        header, _ = channel.receive()
        if header["t"] == "listed":
            return base, entries
        entries += [Entry(*each) for each in header["entries"]]


def download(
    aks: HasKube,
    name: str,
    path: str = "",
    *,
    to: str | os.PathLike[str] | None = None,
    namespace: str | None = None,
    timeout: Timeout = None,
    progress: bool | None = None,
) -> Transfer:
    """Copy a file or directory of a claim to this machine.

    Files that are here already with the same size and modification time are not copied again. After an interrupted
    call, the next one continues where it stopped. Each file gets its name when it is complete and its SHA-256 is right.
    Nothing is written outside the target, whatever the names in the claim are.

    Args:
        aks: the cluster.
        name: name of the claim.
        path: the file or directory in the claim; empty for all files.
        to: path on this machine. None uses the name of what is copied, in the working directory. ``"."`` puts the
            content of a directory into the working directory. With ``/`` at the end, it is a directory that gets the
            copy under its own name.
        namespace: the claim's namespace; None uses the context's namespace.
        timeout: seconds, or text such as ``"2h"``; None means no limit.
        progress: False shows no progress; None uses the environment variable ``AKSGPU_PROGRESS``.

    Returns:
        What was copied. Its ``left_out`` lists special files, links that lead out of the directory, and files that
        disappeared during the transfer.

    Raises:
        InvalidInput: an argument is not valid.
        NotFound: the claim, or the path in it, does not exist.
        StorageError: a file cannot be read there, its name leads out of the target, or it cannot be written here.
        Forbidden: you may not create Jobs or run programs in pods. The ``edit`` role of a namespace may.
        Unreachable: the connection broke and could not be opened again for five minutes.
        WaitTimeout: time ran out. The next call continues.

    Example:
        >>> storage.download(aks, "runs", "train-x7k2p", to="results")  # doctest: +SKIP
    """
    check_cluster(aks)
    storage_arguments.claim_name(name)
    where = storage_arguments.claim_path(path, "path")
    target = _local_target(to, where.rpartition("/")[2] or name)
    check_timeout(timeout)
    space = storage_arguments.namespace(namespace)
    timer = Timer(timeout)
    helper = HelperPod(aks, name, namespace=space, timer=timer, read_only=True, progress=progress)
    with resumable(f"downloading from {name}"), helper, Progress(f"downloading from {name}", show=progress) as bar:
        job = _Download(where, target, Meter(bar))
        transfer(helper, job.run, lambda: job.meter.moved + job.meter.files, timer)
    if job.left_out:
        warn(f"Special files, links out of the directory and vanished files were left out: {escaped(job.left_out)}")
    size = sum(entry.size for entry in job.files)
    return Transfer(str(job.path), len(job.files), size, job.meter.moved, job.meter.seconds, tuple(job.left_out))


def _local_target(to: object, own: str) -> Path:
    """Return the path of the copy on this machine."""
    if to is None:
        return Path(own)
    if not isinstance(to, str | os.PathLike) or "\0" in os.fspath(to) or not os.fspath(to):
        raise InvalidInput(f"`to` must be a path on this machine, got {shown(to)}", hint="For example to='results'.")
    text = os.fspath(to)
    path = Path(text).expanduser()
    return path / own if str(text).endswith(("/", os.sep)) else path


class _Download:
    """The state of a download, which outlives a connection."""

    def __init__(self, source: str, path: Path, meter: Meter) -> None:
        self._source = source
        self.path = path
        self.meter = meter
        self.files: list[Entry] = []
        self.left_out: list[str] = []

    def run(self, channel: Channel) -> None:
        """Get what is not here yet."""
        try:
            self._get(channel)
        except OSError as error:
            path = error.filename or self.path
            raise StorageError(
                f"{path} cannot be written: {error.strerror or error}",
                hint="Free some space on its disk, correct its permissions, or choose another `to`. "
                "The same call continues where this one ended.",
            ) from error

    def _get(self, channel: Channel) -> None:
        self.meter.start()
        channel.send({"t": "get", "path": self._source})
        base, entries = _read_entries(channel)
        is_file = not base["directory"]
        if is_file and self.path.is_dir():
            self.path = self.path / self._source.rpartition("/")[2]
        target = Target(self.path, is_file=is_file)
        (self.path.parent if is_file else self.path).mkdir(parents=True, exist_ok=True)
        self.left_out = []
        self.files = [entry for entry in entries if entry.kind == "f"]
        self.meter.total_files = len(self.files)
        directories = self._make(target, entries)
        wanted = self._compare(target, entries)
        for start in range(0, len(wanted), CHUNK):
            channel.send({"t": "want", "files": wanted[start : start + CHUNK]})
        channel.send({"t": "go"})
        self._receive(channel, target, entries, dict(wanted))
        for path, mode in reversed(directories):
            with contextlib.suppress(OSError):
                path.chmod(mode & 0o777)

    def _make(self, target: Target, entries: list[Entry]) -> list[tuple[Path, int]]:
        """Make directories and links, and return the directories with their permissions."""
        directories = []
        for entry in entries:
            if entry.kind == "d":
                directories.append((target.make_directory(entry), entry.mode))
            elif entry.kind != "f" and not (entry.kind == "l" and target.make_link(entry)):
                self.left_out.append(entry.path)
        return directories

    def _compare(self, target: Target, entries: list[Entry]) -> list[tuple[int, int]]:
        """Return the indexes of the files that are not here yet, and how many bytes of each are."""
        wanted = []
        needed = 0
        for index, entry in enumerate(entries):
            if entry.kind != "f":
                continue
            path = target.resolve(entry.path)
            if is_same(path, list(entry)):
                continue
            part = part_of(path)
            is_part = part.is_file() and not part.is_symlink()
            offset = min(part.stat().st_size, entry.size) if is_part else 0
            needed += entry.size - offset
            wanted.append((index, offset))
        free = shutil.disk_usage(self.path if self.path.is_dir() else self.path.parent).free
        if needed > free:
            sizes = f"{size_text(needed)} are needed, and {size_text(free)} are free"
            raise StorageError(
                f"{self.path} has too little space left: {sizes}",
                hint="Free some space on its disk, or choose another `to`.",
            )
        self.meter.files = len(self.files) - len(wanted)
        self.meter.total = self.meter.moved + needed
        return wanted

    def _receive(self, channel: Channel, target: Target, entries: list[Entry], offsets: dict[int, int]) -> None:
        """Write the files that the helper sends."""
        damaged = False
        while True:
            header, _ = channel.receive()
            if header["t"] == "end":
                break
            index = header["i"]
            if header["t"] == "gone":
                self.left_out.append(entries[index].path)
                continue
            path = target.resolve(entries[index].path)
            damaged = not self._receive_file(channel, path, entries[index], offsets[index]) or damaged
        if damaged:
            raise ConnectionCut("a file changed or arrived damaged, and is read again")

    def _receive_file(self, channel: Channel, path: Path, entry: Entry, offset: int) -> bool:
        """Write a file, and return whether its checksum is right."""
        part = part_of(path)
        if path.is_dir() and not path.is_symlink():
            raise StorageError(f"{path} is a directory here, and a file in the claim", hint="Choose another `to`.")
        with _open_part(part) as file:
            file.truncate(offset)
            digest = hashlib.sha256()
            while file.tell() < offset:
                digest.update(file.read(min(BLOCK, offset - file.tell())))
            while True:
                header, body = channel.receive()
                if header["t"] == "close":
                    break
                file.write(body)
                digest.update(body)
                self.meter.add(len(body))
        if digest.hexdigest() != header["sha256"] or header["size"] != entry.size:
            part.unlink()
            return False
        part.chmod(entry.mode & 0o777)
        os.utime(part, ns=(entry.changed * 1000, entry.changed * 1000))
        part.replace(path)
        self.meter.files += 1
        self.meter.show()
        return True


def _open_part(part: Path) -> BinaryIO:
    """Open the file that is written first, for this process alone."""
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StorageError(
            f"another process downloads the same file to {part.parent} at this moment", hint="Wait until it has ended."
        ) from None
    return os.fdopen(descriptor, "r+b")
