"""Copy files of this machine to a claim."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

from aksgpu.common.notices import warn
from aksgpu.errors import StorageError
from aksgpu.kube.client import HasKube
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.progress import Progress
from aksgpu.storage import storage_arguments
from aksgpu.storage.helper_channel import Channel, ConnectionCut, full
from aksgpu.storage.helper_pod import HelperPod, transfer
from aksgpu.storage.helper_program import BLOCK, CHUNK
from aksgpu.storage.local_files import Entry, scan
from aksgpu.storage.transfer_progress import Meter, Transfer, escaped, resumable, size_text
from aksgpu.waiting import Timeout, Timer, check_timeout

__all__ = ["upload"]

WINDOW = 16 * 1024 * 1024
"""Bytes that are sent ahead of what the helper has written."""
_FILE_COST = 16 * 1024
"""Bytes as which a file counts in the window, on top of its content."""
_DAMAGED_ATTEMPTS = 3
"""How often a file is sent whose checksum is wrong."""


def upload(
    aks: HasKube,
    name: str,
    source: str | os.PathLike[str],
    *,
    to: str | None = None,
    namespace: str | None = None,
    timeout: Timeout = None,
    progress: bool | None = None,
) -> Transfer:
    """Copy a file or directory of this machine to a claim.

    Files that are there already with the same size and modification time are not sent again. After an interrupted
    call, the next one continues where it stopped, even in the middle of a file. Each file gets its name in
    the claim when it is complete and its SHA-256 is right. Files of the claim that are not in the source stay.

    The files go through a small helper pod, which is deleted at the end.

    Args:
        aks: the cluster.
        name: name of the claim.
        source: the file or directory.
        to: path in the claim. None uses the source's own name, at the top of the claim. ``"."`` puts the content of a
            directory at the top. With ``/`` at the end, it is a directory that gets the source under its own name.
        namespace: the claim's namespace; None uses the context's namespace.
        timeout: seconds, or text such as ``"2h"``; None means no limit.
        progress: False shows no progress; None uses the environment variable ``AKSGPU_PROGRESS``.

    Returns:
        What was copied. Its ``left_out`` lists sockets, pipes, devices and links that lead nowhere.

    Raises:
        InvalidInput: an argument is not valid.
        NotFound: the claim does not exist.
        StorageFull: the claim has too little space left.
        StorageError: a file cannot be read here or written there.
        Forbidden: you may not create Jobs or run programs in pods. The ``edit`` role of a namespace may.
        Unreachable: the connection broke and could not be opened again for five minutes.
        WaitTimeout: time ran out. The next call continues.

    Example:
        >>> storage.upload(aks, "data", "images/")  # doctest: +SKIP
    """
    check_cluster(aks)
    storage_arguments.claim_name(name)
    path = storage_arguments.local_source(source)
    target = _target(path, to)
    check_timeout(timeout)
    space = storage_arguments.namespace(namespace)
    timer = Timer(timeout)
    entries, left_out = scan(path)
    if left_out:
        warn(f"These are left out, because they are not files or directories, or lead nowhere: {escaped(left_out)}")
    helper = HelperPod(aks, name, namespace=space, timer=timer, read_only=False, progress=progress)
    with resumable(f"uploading to {name}"), helper, Progress(f"uploading to {name}", show=progress) as bar:
        job = _Upload(name, path, target, entries, Meter(bar))
        transfer(helper, job.run, lambda: job.meter.moved + job.meter.files, timer)
    files = [entry for entry in entries if entry.kind == "f"]
    size = sum(entry.size for entry in files)
    return Transfer(target, len(files), size, job.meter.moved, job.meter.seconds, tuple(left_out))


def _target(source: Path, to: str | None) -> str:
    """Return the path in the claim that the source gets."""
    own = source.resolve().name
    if to is None:
        return storage_arguments.claim_path(own, "to")
    path = storage_arguments.claim_path(to, "to")
    if to.endswith("/") or (not path and not source.is_dir()):
        return f"{path}/{own}" if path else own
    return path


class _Upload:
    """The state of an upload, which outlives a connection."""

    def __init__(self, claim: str, source: Path, target: str, entries: list[Entry], meter: Meter) -> None:
        self._claim = claim
        self._source = source
        self._target = target
        self._entries = entries
        self._is_file = not source.is_dir()
        self._damaged: dict[int, int] = {}
        self._pending = 0
        self.meter = meter
        self.meter.total_files = sum(entry.kind == "f" for entry in entries)

    def run(self, channel: Channel) -> None:
        """Send what the claim lacks."""
        self.meter.start()
        channel.send({"t": "put", "path": self._target, "file": self._is_file})
        wanted = self._compare(channel)
        needed = sum(self._entries[index].size - offset for index, offset in wanted)
        if needed > channel.free:
            raise full(self._claim, f"{size_text(needed)} are needed, and {size_text(channel.free)} are free")
        self.meter.files = self.meter.total_files - len(wanted)
        self.meter.total = self.meter.moved + needed
        self._pending = 0
        for index, offset in wanted:
            self._send_file(channel, index, offset)
        channel.send({"t": "finish"})
        while True:
            header, _ = channel.receive()
            if header["t"] == "end":
                break
            self._note(header)
        if self._damaged:
            raise ConnectionCut("a file arrived damaged, and is sent again")

    def _compare(self, channel: Channel) -> list[tuple[int, int]]:
        """Return the indexes of the files that the claim lacks, and how many bytes of each it has."""
        wanted: list[tuple[int, int]] = []
        for start in range(0, len(self._entries), CHUNK):
            chunk = self._entries[start : start + CHUNK]
            channel.send({"t": "entries", "entries": [list(entry) for entry in chunk]})
            header, _ = channel.receive()
            wanted += [(index, offset) for index, offset in header["files"]]
        return wanted

    def _send_file(self, channel: Channel, index: int, offset: int) -> None:
        entry = self._entries[index]
        path = self._source / entry.path if entry.path else self._source
        digest = hashlib.sha256()
        header = {"t": "open", "i": index, "offset": offset}
        try:
            with path.open("rb") as file:
                self._skip(file, digest, offset, entry)
                left = entry.size - offset
                while True:
                    block = file.read(min(BLOCK, left))
                    digest.update(block)
                    channel.send(header, block)
                    self._wait_for_window(channel, len(block))
                    header = {"t": "data"}
                    left -= len(block)
                    if not left:
                        break
                    if not block:
                        raise _changed(path)
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}", hint="Call it again.") from error
        channel.send({"t": "close", "sha256": digest.hexdigest()})
        self._pending += _FILE_COST

    def _skip(self, file: BinaryIO, digest: Any, offset: int, entry: Entry) -> None:
        """Read what the claim has already, for the checksum."""
        left = offset
        while left:
            block = file.read(min(BLOCK, left))
            if not block:
                raise _changed(self._source / entry.path)
            digest.update(block)
            left -= len(block)

    def _wait_for_window(self, channel: Channel, size: int) -> None:
        """Count sent bytes, and wait while too many are not written yet."""
        self._pending += size
        self.meter.add(size)
        while self._pending > WINDOW:
            self._note(channel.receive()[0])

    def _note(self, header: dict[str, Any]) -> None:
        """Note an answer of the helper."""
        match header["t"]:
            case "ack":
                self._pending -= header["bytes"]
            case "done":
                self._pending -= _FILE_COST
                self._damaged.pop(header["i"], None)
                self.meter.files += 1
                self.meter.show()
            case "damaged":
                self._pending -= _FILE_COST
                index = header["i"]
                self._damaged[index] = self._damaged.get(index, 0) + 1
                if self._damaged[index] >= _DAMAGED_ATTEMPTS:
                    raise _changed(self._source / self._entries[index].path)


def _changed(path: Path) -> StorageError:
    return StorageError(
        f"{path} changed while it was uploaded: its checksum in the claim differs",
        hint="Call it again when the file no longer changes.",
    )
