"""The program of the helper pod: it reads and writes the files of a claim for a client that is connected by exec.

It uses the standard library only and works with Python 3.8, because the image is the user's. Its text is in an
environment variable of the pod.

    idle    the main process of the pod: it ends when no client has sent anything for a while
    serve   one connection: requests and data on standard input, answers on standard output

Both directions carry frames: the lengths of a header and a body, the header as JSON, and the body. ``AKSGPU_CLAIM`` is
the directory of the claim. No path of a request leads out of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import queue
import shutil
import signal
import stat
import struct
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, List, Optional, Tuple  # noqa: UP035  # Python 3.8

__all__ = ["pack", "split"]

Header = Dict[str, Any]  # noqa: UP006  # Python 3.8
Frame = Tuple[Header, bytes]  # noqa: UP006  # Python 3.8

CLAIM = Path(os.environ.get("AKSGPU_CLAIM", "/claim"))
RUN = Path(os.environ.get("AKSGPU_RUN", "/tmp"))
IDLE_SECONDS = float(os.environ.get("AKSGPU_IDLE", "60"))
"""Seconds without a client after which the pod ends."""

LENGTHS = struct.Struct(">II")
"""The lengths of a frame's header and body."""
LONGEST_FRAME = 64 * 1024 * 1024
"""Bytes. A longer frame is not one of this program."""
BLOCK = 256 * 1024
"""Bytes of a file in one frame."""
CHUNK = 500
"""Entries of a directory in one frame."""
ACKNOWLEDGED = 512 * 1024
"""Bytes after which received data is acknowledged."""
ALIVE_SECONDS = 5.0
"""Seconds between two signs of life."""
PART_PREFIX = ".aksgpu-"
PART_SUFFIX = ".part"
"""A file that is being written is named with this prefix and suffix. It gets its own name when it is complete."""
ANSWER_SECONDS = 60.0
"""Seconds that a web server may be silent."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NAMES = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)


class Refused(Exception):
    """A request cannot be done. The client raises the error of this kind."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Disconnected(Exception):
    """The client has gone away."""


# Frames


def pack(header: Header, body: bytes = b"") -> bytes:
    """Return a frame."""
    text = json.dumps(header).encode()
    return LENGTHS.pack(len(text), len(body)) + text + body


def split(data: bytearray) -> Optional[Frame]:  # noqa: UP045  # Python 3.8
    """Remove the first frame from received bytes, and return it; None if it is not complete.

    Raises:
        ValueError: the bytes are not frames.
    """
    if len(data) < LENGTHS.size:
        return None
    header_length, body_length = LENGTHS.unpack_from(data)
    end = LENGTHS.size + header_length + body_length
    if end > LONGEST_FRAME:
        raise ValueError(f"not a frame: {bytes(data[:80])!r}")
    if len(data) < end:
        return None
    header = json.loads(bytes(data[LENGTHS.size : LENGTHS.size + header_length]))
    body = bytes(data[LENGTHS.size + header_length : end])
    del data[:end]
    return dict(header), body


class Wire:
    """The connection to the client. A thread reads it, so that a sign of life arrives while files are written."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._lock = threading.Lock()
        self._received: queue.Queue[Frame | None] = queue.Queue()
        for target in (self._read, self._show_life):
            threading.Thread(target=target, daemon=True).start()

    def send(self, header: Header, body: bytes = b"") -> None:
        """Send a frame."""
        view = memoryview(pack(header, body))
        try:
            with self._lock:
                while view:
                    view = view[os.write(self._sink, view) :]
        except OSError:
            raise Disconnected from None

    def receive(self) -> Frame:
        """Return the next frame."""
        frame = self._received.get()
        if frame is None:
            raise Disconnected
        return frame

    @property
    def is_empty(self) -> bool:
        """Whether all received frames were returned."""
        return self._received.empty()

    def _read(self) -> None:
        data = bytearray()
        touched = 0.0
        while True:
            piece = b""
            with contextlib.suppress(OSError):
                piece = os.read(self._source, BLOCK)
            if not piece:
                self._received.put(None)
                return
            data += piece
            if time.monotonic() - touched > 1:
                touched = time.monotonic()
                touch_heartbeat()
            while True:
                frame = split(data)
                if frame is None:
                    break
                if frame[0]["t"] != "ping":
                    self._received.put(frame)

    def _show_life(self) -> None:
        with contextlib.suppress(Disconnected):
            while True:
                time.sleep(ALIVE_SECONDS)
                self.send({"t": "alive"})


# Paths


def check_relative(path: str) -> str:
    """Return a path of a request, which is relative and has no ``..``."""
    if path and any(part in ("", ".", "..") or "\0" in part for part in path.split("/")):
        raise Refused("name", f"{path!r} is not a path inside the claim")
    return path


def inside(path: str) -> Path:
    """Return the path of a request. It may lead through links, as long as these stay inside the claim."""
    found = CLAIM / check_relative(path)
    root = CLAIM.resolve()
    resolved = found.resolve()
    if resolved != root and root not in resolved.parents:
        raise Refused("name", f"{path!r} leads out of the claim, through a link")
    return resolved


def part_of(path: Path) -> Path:
    """Return the path of a file while it is written."""
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:20]
    return path.with_name(PART_PREFIX + digest + PART_SUFFIX)


def is_part(name: str) -> bool:
    """Return whether a file is one that is being written, or was."""
    return name.startswith(PART_PREFIX) and name.endswith(PART_SUFFIX)


def stays_inside(link: str, relative: str) -> bool:
    """Return whether a link stays inside the directory that it is transferred with.

    Args:
        link: the link's target.
        relative: the link's own path in the directory.
    """
    if link.startswith("/") or "\0" in link:
        return False
    depth = relative.count("/")
    has_name = False
    for part in link.split("/"):
        if part == "..":
            # After a name, which may be a link itself, it could lead anywhere.
            depth -= 1
            if has_name or depth < 0:
                return False
        elif part not in ("", "."):
            has_name = True
    return True


def micro(seconds_ns: int) -> int:
    """Return microseconds. File systems keep times with different precision."""
    return seconds_ns // 1000


# List


def entry_of(path: Path, relative: str) -> List[Any]:  # noqa: UP006  # Python 3.8
    """Return what a file is: its path, kind, mode, time in microseconds, size and link."""
    found = path.lstat()
    mode = stat.S_IMODE(found.st_mode)
    changed = micro(found.st_mtime_ns)
    if stat.S_ISDIR(found.st_mode):
        return [relative, "d", mode, changed, 0, ""]
    if stat.S_ISLNK(found.st_mode):
        return [relative, "l", mode, changed, 0, os.readlink(path)]  # noqa: PTH115  # Python 3.8
    if stat.S_ISREG(found.st_mode):
        return [relative, "f", mode, changed, found.st_size, ""]
    return [relative, "s", mode, changed, 0, ""]


def walk(base: Path, *, deep: bool) -> Iterator[List[Any]]:  # noqa: UP006  # Python 3.8
    """Yield the entries below a directory, each directory before its content, in the order of names."""
    pending = [""]
    while pending:
        directory = pending.pop()
        below = []
        for name in sorted(path.name for path in (base / directory).iterdir()):
            relative = f"{directory}/{name}" if directory else name
            if is_part(name):
                continue
            try:
                entry = entry_of(base / relative, relative)
            except FileNotFoundError:
                continue
            yield entry
            if deep and entry[1] == "d":
                below.append(relative)
        pending += reversed(below)


def send_entries(wire: Wire, path: Path, *, deep: bool) -> List[List[Any]]:  # noqa: UP006  # Python 3.8
    """Send the entries of a directory, or the one of a file."""
    found: list[list[Any]] = []
    is_directory = stat.S_ISDIR(path.stat().st_mode)
    wire.send({"t": "base", "directory": is_directory, "entry": entry_of(path, path.name)})
    entries = walk(path, deep=deep) if is_directory else iter([entry_of(path, "")])
    sent = 0
    for entry in entries:
        found.append(entry)
        if len(found) - sent == CHUNK:
            wire.send({"t": "entries", "entries": found[sent:]})
            sent = len(found)
    wire.send({"t": "entries", "entries": found[sent:]})
    wire.send({"t": "listed"})
    return found


def serve_list(wire: Wire, request: Header) -> None:
    """List a directory."""
    send_entries(wire, existing(request["path"]), deep=request["deep"])


def existing(path: str) -> Path:
    """Return the path of a request that must exist."""
    found = inside(path)
    if not found.exists():
        raise Refused("missing", f"the claim has no file or directory {path!r}")
    return found


# Send files


def serve_get(wire: Wire, request: Header) -> None:
    """Send the files that the client asks for."""
    base = existing(request["path"])
    entries = send_entries(wire, base, deep=True)
    while True:
        header, _ = wire.receive()
        if header["t"] == "go":
            break
        for index, offset in header["files"]:
            send_file(wire, base, entries[index], index, offset)
    wire.send({"t": "end"})


def send_file(wire: Wire, base: Path, entry: List[Any], index: int, offset: int) -> None:  # noqa: UP006  # Python 3.8
    """Send a file from an offset on, and the checksum of all of it."""
    path = base / entry[0] if entry[0] else base
    size = entry[4]
    digest = hashlib.sha256()
    try:
        file = open_regular(path)
    except FileNotFoundError:
        wire.send({"t": "gone", "i": index})
        return
    with file:
        wire.send({"t": "open", "i": index})
        done = 0
        while done < size:
            block = file.read(min(BLOCK, (offset if done < offset else size) - done))
            if not block:
                break
            digest.update(block)
            if done >= offset:
                wire.send({"t": "data"}, block)
            done += len(block)
    wire.send({"t": "close", "i": index, "size": done, "sha256": digest.hexdigest()})


def open_regular(path: Path) -> BinaryIO:
    """Open a file that is not a link. A pipe that has replaced the file does not block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.fdopen(descriptor, "rb")


# Receive files


class Receiver:
    """Writes the files that a client sends. Each gets its name when it is complete and its checksum is right."""

    def __init__(self, wire: Wire, path: str, *, is_file: bool) -> None:
        self._wire = wire
        self._is_file = is_file
        self._base = inside(path)
        self._entries: list[list[Any]] = []
        self._directories: list[tuple[Path, int]] = []
        self._known: set[str] = set()
        self._unacknowledged = 0
        if is_file:
            self._base.parent.mkdir(parents=True, exist_ok=True)
        else:
            self._base.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Receive everything."""
        handlers = {"entries": self._compare, "open": self._receive_file}
        while True:
            header, body = self._wire.receive()
            if header["t"] == "finish":
                break
            handlers[header["t"]](header, body)
        for path, mode in reversed(self._directories):
            set_mode(path, mode)
        self._wire.send({"t": "end"})

    def _path(self, relative: str) -> Path:
        """Return the path of an entry. Its parents are directories and no links."""
        if self._is_file:
            return self._base
        if not relative:
            raise Refused("name", "an entry has no name")
        parent = check_relative(relative).rpartition("/")[0]
        if parent and parent not in self._known:
            path = self._base
            for part in parent.split("/"):
                path = path / part
                if path.is_symlink() or not path.is_dir():
                    raise Refused("name", f"{relative!r} leads through {part!r}, which is not a directory")
            self._known.add(parent)
        return self._base / relative

    def _compare(self, header: Header, _: bytes) -> None:
        """Make directories and links, and ask for the files that differ."""
        wanted = []
        for entry in header["entries"]:
            relative, kind, mode, _, _, link = entry
            path = self._path(relative)
            self._entries.append(entry)
            if kind == "d":
                self._make_directory(path, mode)
            elif kind == "l":
                make_link(path, link, relative)
            elif not is_same(path, entry):
                part = part_of(path)
                offset = min(part.stat().st_size, entry[4]) if part.is_file() and not part.is_symlink() else 0
                wanted.append([len(self._entries) - 1, offset])
        self._wire.send({"t": "want", "files": wanted})

    def _make_directory(self, path: Path, mode: int) -> None:
        if path.is_symlink():
            path.unlink()
        path.mkdir(exist_ok=True)
        set_mode(path, mode | stat.S_IRWXU)
        self._directories.append((path, mode))

    def _receive_file(self, header: Header, body: bytes) -> None:
        """Receive a file, from the header's offset on."""
        index = header["i"]
        entry = self._entries[index]
        path = self._path(entry[0])
        if path.is_dir() and not path.is_symlink():
            raise Refused("name", f"{entry[0]!r} is a directory in the claim, and a file here")
        part = part_of(path)
        with open_part(part, header["offset"]) as file:
            digest = hash_of(file, header["offset"])
            while header["t"] != "close":
                file.write(body)
                digest.update(body)
                self._count(len(body))
                header, body = self._wire.receive()
            file.flush()
        if digest.hexdigest() != header["sha256"]:
            part.unlink()
            self._wire.send({"t": "damaged", "i": index})
            return
        set_mode(part, entry[2])
        with contextlib.suppress(OSError):
            os.utime(part, ns=(entry[3] * 1000, entry[3] * 1000))
        part.replace(path)
        self._wire.send({"t": "done", "i": index})

    def _count(self, size: int) -> None:
        """Acknowledge received bytes. The client does not send more than a window ahead."""
        self._unacknowledged += size
        if self._unacknowledged >= ACKNOWLEDGED or self._wire.is_empty:
            self._wire.send({"t": "ack", "bytes": self._unacknowledged})
            self._unacknowledged = 0


def is_same(path: Path, entry: List[Any]) -> bool:  # noqa: UP006  # Python 3.8
    """Return whether a file exists with the size and time of an entry."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    is_file = stat.S_ISREG(found.st_mode)
    return is_file and found.st_size == entry[4] and micro(found.st_mtime_ns) == entry[3]


def open_part(part: Path, offset: int) -> BinaryIO:
    """Open the file that is written first, for this program alone."""
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Refused("busy", "another program writes the same file to the claim at this moment") from None
    except OSError:
        pass  # the file system has no locks
    os.ftruncate(descriptor, offset)
    return os.fdopen(descriptor, "r+b")


def hash_of(file: BinaryIO, size: int) -> Any:
    """Return the SHA-256 of the beginning of a file, and leave the position after it."""
    digest = hashlib.sha256()
    left = size
    while left:
        block = file.read(min(BLOCK, left))
        if not block:
            raise Refused("failed", "a file became shorter while it was read")
        digest.update(block)
        left -= len(block)
    return digest


def make_link(path: Path, link: str, relative: str) -> None:
    """Make a link that stays inside the directory."""
    if not stays_inside(link, relative):
        raise Refused("name", f"the link {relative!r} leads out of its directory")
    if path.is_symlink() or path.is_file():
        path.unlink()
    path.symlink_to(link)


def set_mode(path: Path, mode: int) -> None:
    """Set the permissions. A file share has the same ones for all files, and refuses."""
    with contextlib.suppress(OSError):
        path.chmod(mode)


def serve_put(wire: Wire, request: Header) -> None:
    """Receive files."""
    Receiver(wire, request["path"], is_file=request["file"]).run()


# Fetch from the web


def serve_fetch(wire: Wire, request: Header) -> None:
    """Download a URL to a file. A broken download continues where it stopped, if the server supports that."""
    path = inside(request["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    mark = part.with_name(part.name[: -len(PART_SUFFIX)] + "-version" + PART_SUFFIX)
    size = part.stat().st_size if part.is_file() and mark.is_file() else 0
    version = mark.read_text() if size else ""
    headers = {"User-Agent": "aksgpu", "Accept-Encoding": "identity"}
    if version:
        headers.update({"Range": f"bytes={size}-", "If-Range": version})
    try:
        response = open_url(request["url"], headers)
    except Refused as refused:
        if refused.kind != "stale":
            raise
        part.unlink()
        response = open_url(request["url"], {"User-Agent": "aksgpu", "Accept-Encoding": "identity"})
    with response:
        offset = size if response.status == 206 else 0
        mark.write_text(strong_version(response.headers))
        with open_part(part, offset) as file:
            digest = hash_of(file, offset)
            total = save_response(wire, response, file, digest, offset)
    if request["sha256"] and digest.hexdigest() != request["sha256"].lower():
        part.unlink()
        mark.unlink()
        raise Refused("checksum", f"the file at the URL has the SHA-256 {digest.hexdigest()}")
    set_mode(part, 0o644)
    part.replace(path)
    mark.unlink()
    wire.send({"t": "end", "size": total, "sha256": digest.hexdigest()})


def open_url(url: str, headers: Dict[str, str]) -> Any:  # noqa: UP006  # Python 3.8
    """Open a URL. Messages leave the query out, because it may be a signature."""
    shown = url.partition("?")[0]
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=ANSWER_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            raise Refused("stale", f"{shown}: the server has fewer bytes than were downloaded before") from None
        text = f"{shown}: the server returned status {error.code} ({error.reason})"
        raise Refused("later" if error.code in (408, 429, 500, 502, 503, 504) else "url", text) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Refused("later", f"{shown} could not be read from the cluster: {reason}") from None


def strong_version(headers: Any) -> str:
    """Return what identifies the content of a URL; empty if the server gives nothing reliable."""
    tag = headers.get("ETag") or ""
    return tag if tag.startswith('"') else ""


def save_response(wire: Wire, response: Any, file: BinaryIO, digest: Any, offset: int) -> int:
    """Write a response to a file, and return the size of the file."""
    length = response.headers.get("Content-Length")
    total = None if length is None else offset + int(length)
    done = offset
    told = 0.0
    while True:
        try:
            block = response.read(BLOCK)
        except OSError as error:
            raise Refused("later", f"the connection to the web server broke: {error}") from None
        if not block:
            break
        file.write(block)
        digest.update(block)
        done += len(block)
        if time.monotonic() - told > 0.2:
            told = time.monotonic()
            wire.send({"t": "progress", "done": done, "total": total})
    file.flush()
    if total is not None and done != total:
        raise Refused("later", f"the web server sent {done:,} of {total:,} bytes")
    return done


# The processes of the pod


SERVICES = {"list": serve_list, "get": serve_get, "put": serve_put, "fetch": serve_fetch}


def touch_heartbeat() -> None:
    """Note that a client is there."""
    (RUN / "heartbeat").touch()


def serve() -> int:
    """Serve one connection. A client has one at a time, so an earlier one was cut: its process ends."""
    end_earlier_process()
    touch_heartbeat()
    wire = Wire(0, 1)
    try:
        wire.send({"t": "hello", "free": shutil.disk_usage(CLAIM).free})
        header, _ = wire.receive()
        try:
            SERVICES[header["t"]](wire, header)
        except Refused as refused:
            wire.send({"t": "error", "kind": refused.kind, "text": str(refused)})
        except OSError as error:
            wire.send({"t": "error", "kind": kind_of(error), "text": text_of(error)})
    except Disconnected:
        return 1
    return 0


def end_earlier_process() -> None:
    """Kill the process of an earlier connection, which may still write."""
    file = RUN / "serve.pid"
    with contextlib.suppress(OSError, ValueError):
        earlier = int(file.read_text())
        if b"AKSGPU_HELPER" in Path(f"/proc/{earlier}/cmdline").read_bytes():
            os.kill(earlier, signal.SIGKILL)
            while not has_ended(earlier):
                time.sleep(0.01)
    file.write_text(str(os.getpid()))


def has_ended(process: int) -> bool:
    """Return whether a process has ended and its files are closed. Its command line is gone a moment before that.

    Its last thread closes the files, so the end of its first thread, which the state shows, is not enough.

    Raises:
        FileNotFoundError: the process does not exist.
    """
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    state = fields[0]
    threads = int(fields[17])
    return state in "ZX" and threads <= 1  # a zombie, or dead


def kind_of(error: OSError) -> str:
    """Return the kind of an error of the file system."""
    if error.errno in _FULL:
        return "full"
    if error.errno in _DENIED:
        return "denied"
    if error.errno in _NAMES:
        return "name"
    return "missing" if error.errno == errno.ENOENT else "failed"


def text_of(error: OSError) -> str:
    """Return an error of the file system in words, with a path that is relative to the claim."""
    name = os.fsdecode(error.filename) if error.filename is not None else ""
    shown = name[len(str(CLAIM)) :].lstrip("/") if name.startswith(str(CLAIM)) else name
    return f"{shown!r}: {error.strerror}" if shown else str(error.strerror)


def idle() -> int:
    """Wait until there is no client any more."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    touch_heartbeat()
    while time.time() - (RUN / "heartbeat").stat().st_mtime < IDLE_SECONDS:
        time.sleep(0.5)
    return 0


COMMANDS = {"idle": idle, "serve": serve}

if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(COMMANDS[sys.argv[1]]())
