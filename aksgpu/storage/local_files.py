"""Files of this machine: what an upload takes, and where a download may write."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aksgpu.errors import StorageError
from aksgpu.storage.helper_program import is_part, micro, stays_inside

__all__ = ["Entry", "Target", "scan"]


class Entry(NamedTuple):
    """A file, directory or link.

    Attributes:
        path: relative to what is transferred, with ``/``; empty for a single file.
        kind: ``f`` for a file, ``d`` for a directory, ``l`` for a link, ``s`` for anything else.
        mode: its permissions.
        changed: its modification time in microseconds.
        size: bytes of a file.
        link: target of a link.
    """

    path: str
    kind: str
    mode: int
    changed: int
    size: int
    link: str


def scan(source: Path) -> tuple[list[Entry], list[str]]:
    """Return what an upload takes of a file or directory, and the paths of what it leaves out.

    A link that stays inside the directory remains a link. Any other one is replaced with what it leads to. Sockets,
    pipes and devices are left out, and so are links that lead nowhere.

    Raises:
        StorageError: a file or directory cannot be read.
    """
    if not source.is_dir():
        entry = _entry(source, "", follow=True)
        if entry.kind != "f":
            raise StorageError(f"{source} is neither a file nor a directory", hint="Upload files and directories.")
        return [_readable(entry, source)], []
    entries: list[Entry] = []
    left_out: list[str] = []
    for entry in _walk(source, "", ()):
        if entry.kind == "s":
            left_out.append(entry.path)
        elif entry.kind == "f":
            entries.append(_readable(entry, source / entry.path))
        else:
            entries.append(entry)
    return entries, left_out


def _walk(base: Path, directory: str, above: tuple[tuple[int, int], ...]) -> Iterator[Entry]:
    """Yield the entries below a directory.

    Args:
        base: the directory that is uploaded.
        directory: path of the directory below it; empty for itself.
        above: device and inode of the directories above. A link to one of them would have no end.
    """
    path = base / directory
    try:
        found = path.stat()
        names = sorted(each.name for each in path.iterdir())
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}", hint="Change its permissions.") from error
    above = (*above, (found.st_dev, found.st_ino))
    for name in names:
        if is_part(name):
            continue
        relative = f"{directory}/{name}" if directory else name
        try:
            entry = _entry(base / relative, relative, follow=False)
        except FileNotFoundError:
            continue
        if entry.kind == "l" and not _is_kept(base, entry):
            entry = _followed(base / relative, entry, above)
        yield entry
        if entry.kind == "d":
            yield from _walk(base, relative, above)


def _followed(path: Path, link: Entry, above: tuple[tuple[int, int], ...]) -> Entry:
    """Return what a link leads to, or ``s`` if it leads nowhere or to a directory above."""
    try:
        found = path.stat()
    except OSError:
        return link._replace(kind="s")
    if (found.st_dev, found.st_ino) in above:
        return link._replace(kind="s")
    return _entry(path, link.path, follow=True)


def _is_kept(base: Path, entry: Entry) -> bool:
    """Return whether a link remains a link: it leads to something inside the directory."""
    return stays_inside(entry.link, entry.path) and (base / entry.path).exists()


def _entry(path: Path, relative: str, *, follow: bool) -> Entry:
    found = path.stat() if follow else path.lstat()
    mode = stat.S_IMODE(found.st_mode)
    changed = micro(found.st_mtime_ns)
    if stat.S_ISREG(found.st_mode):
        return Entry(relative, "f", mode, changed, found.st_size, "")
    if stat.S_ISDIR(found.st_mode):
        return Entry(relative, "d", mode, changed, 0, "")
    if stat.S_ISLNK(found.st_mode):
        return Entry(relative, "l", mode, changed, 0, str(path.readlink()))
    return Entry(relative, "s", mode, changed, 0, "")


def _readable(entry: Entry, path: Path) -> Entry:
    """Return the entry of a file that can be read.

    Raises:
        StorageError: it cannot be read.
    """
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        raise StorageError(f"{path} cannot be read: Permission denied", hint="Change its permissions.")
    return entry


class Target:
    """The place where a download writes. Names come from the claim, so they are checked here.

    Args:
        path: the directory, or the file if ``is_file``.
        is_file: whether a single file is downloaded.
    """

    def __init__(self, path: Path, *, is_file: bool) -> None:
        self.path = path
        self._is_file = is_file
        self._known: set[str] = set()

    def resolve(self, relative: str) -> Path:
        """Return the path of an entry. Its parents are real directories below the target.

        Raises:
            StorageError: the name leads out of the target.
        """
        if self._is_file:
            if relative:
                raise _hostile(relative)
            return self.path
        parts = relative.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise _hostile(relative)
        parent = "/".join(parts[:-1])
        if parent not in self._known:
            path = self.path
            for part in parts[:-1]:
                path = path / part
                if path.is_symlink() or not path.is_dir():
                    raise _hostile(relative)
            self._known.add(parent)
        return self.path / relative

    def make_directory(self, entry: Entry) -> Path:
        """Make a directory that can be written to until the end of the download."""
        path = self.resolve(entry.path)
        if path.is_symlink():
            path.unlink()
        path.mkdir(exist_ok=True)
        path.chmod(entry.mode & 0o777 | stat.S_IRWXU)
        return path

    def make_link(self, entry: Entry) -> bool:
        """Make a link that stays inside the target, and return whether that was done."""
        path = self.resolve(entry.path)
        if self._is_file or not stays_inside(entry.link, entry.path):
            return False
        if path.is_symlink() or path.is_file():
            path.unlink()
        path.symlink_to(entry.link)
        return True


def _hostile(relative: str) -> StorageError:
    return StorageError(
        f"the claim has a file named {relative!r}, which leads out of the target directory; it was not written",
        hint="Download another directory of the claim, or rename the file with a Job.",
    )
