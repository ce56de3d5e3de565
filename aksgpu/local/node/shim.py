"""One container's keeper: starts its command, keeps its output and its exit, and outlives the laptop process.

Run as ``python -I -S shim.py SPEC READY LOCK``: standard library only, in a session of its own, so that it starts in
milliseconds and a killed laptop finds it again. It holds the container's lock file (a descriptor inherited from the
node agent) for as long as it lives: a lock that can be taken means that the shim is gone. It writes, each atomically,
``run.json`` (pids, start) and ``exit.json`` (exit code, reason, times) beside SPEC, and a byte to the descriptor READY
when the command runs. It knows nothing of Kubernetes.

Signals: SIGTERM is passed on to the command, and to it alone, SIGUSR1 kills everything. However the command ends, all
that it started ends with it: the shim is the subreaper of the whole tree.

The memory limit has no cgroup behind it. Twice a second the tree's resident memory is added up; where that exceeds the
limit and the proportional set size, which counts shared pages once, confirms it, the tree is killed as out of memory.
"""

# pathlib would double the start-up time.
# ruff: noqa: PTH102, PTH103, PTH105, PTH108, PTH110, PTH112, PTH114, PTH115, PTH120, PTH123, PTH208, PTH211

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import sys
import time
from typing import Any

LINE_LIMIT = 16 * 1024
PAGE = os.sysconf("SC_PAGE_SIZE")
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_UNBINDABLE, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 17, 1 << 18

libc = ctypes.CDLL(None, use_errno=True)


def write_json(path: str, value: dict[str, Any]) -> None:
    """Write a small file so that a reader sees all of it or nothing."""
    with open(path + ".new", "w") as file:
        json.dump(value, file)
    os.replace(path + ".new", path)


def check(result: int, what: str) -> None:
    """Raise the errno of a failed libc call."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


class Log:
    """CRI log files: ``TIMESTAMP STREAM F|P TEXT``, the segment with the highest number being written.

    Timestamps strictly increase, so that a reader can tell any two lines apart.
    """

    def __init__(self, path: str, max_bytes: int, max_files: int) -> None:
        self._path, self._max_bytes, self._max_files = path, max_bytes, max_files
        self._segment = 0
        self._last = 0
        self._rest = {"stdout": b"", "stderr": b""}
        self._open()

    def _open(self) -> None:
        name = f"{self._path}.{self._segment}"
        self._fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = 0

    def feed(self, stream: str, data: bytes) -> None:
        """Take output as it comes; empty data is the end of the stream."""
        lines = (self._rest[stream] + data).split(b"\n")
        rest = lines.pop()
        out: list[bytes] = []
        for line in lines:
            while len(line) > LINE_LIMIT:
                out.append(self._entry(stream, b"P", line[:LINE_LIMIT]))
                line = line[LINE_LIMIT:]
            out.append(self._entry(stream, b"F", line))
        while len(rest) > LINE_LIMIT or (rest and not data):
            out.append(self._entry(stream, b"P", rest[:LINE_LIMIT]))
            rest = rest[LINE_LIMIT:]
        self._rest[stream] = rest
        if out:
            self._write(b"".join(out))

    def _entry(self, stream: str, tag: bytes, text: bytes) -> bytes:
        self._last = max(time.time_ns(), self._last + 1)
        seconds, nanos = divmod(self._last, 1_000_000_000)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        return b"%s.%09dZ %s %s %s\n" % (stamp.encode(), nanos, stream.encode(), tag, text)

    def _write(self, data: bytes) -> None:
        if self._size and self._size + len(data) > self._max_bytes:
            os.close(self._fd)
            self._segment += 1
            self._open()
            old = f"{self._path}.{self._segment - self._max_files}"
            if os.path.exists(old):
                os.unlink(old)
        self._size += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]


class View:
    """A private view of this machine's files, with a container's volumes at their mount paths.

    Nothing is created outside: where a mount path is missing, its deepest existing ancestor is replaced, in this view
    only, by an empty directory in which all the ancestor's entries are mounted again.
    """

    def __init__(self, staging: str) -> None:
        self._staging = staging
        self._own: set[str] = set()
        user, group, root = os.getuid(), os.getgid(), os.geteuid() == 0
        check(libc.unshare(CLONE_NEWNS if root else CLONE_NEWNS | CLONE_NEWUSER), "unshare")
        if not root:
            for name, text in (
                ("setgroups", "deny"),
                ("uid_map", f"{user} {user} 1"),
                ("gid_map", f"{group} {group} 1"),
            ):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
        self._mount(None, "/", MS_REC | MS_PRIVATE)

    @staticmethod
    def _mount(source: str | None, target: str, flags: int, kind: str | None = None, data: str = "") -> None:
        encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
        result = libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), data.encode())
        check(result, f"mount {target}")

    def add(self, mounts: list[tuple[str, str, bool]]) -> None:
        """Mount each source at its target, read-only where asked."""
        # Sources are held open: one mount may hide the path of another's source.
        held = [(os.open(source, os.O_PATH), target, read_only) for source, target, read_only in mounts]
        for fd, target, read_only in sorted(held, key=lambda mount: mount[1].rstrip("/").count("/")):
            source = f"/proc/self/fd/{fd}"
            target = os.path.realpath(target)
            self._place(target, os.path.isdir(source))
            self._mount(source, target, MS_BIND | MS_REC)
            if read_only:
                # A user namespace may not drop nosuid, nodev and noexec (2, 4, 8 in both tables).
                kept = os.statvfs(target).f_flag & 0b1110
                self._mount(None, target, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)
            else:
                self._own.add(target)
            os.close(fd)

    def _place(self, target: str, directory: bool) -> None:
        if os.path.lexists(target):
            return
        base = os.path.dirname(target)
        while not os.path.lexists(base):
            base = os.path.dirname(base)
        if base not in self._own:
            self._unfold(base)
        parent = target if directory else os.path.dirname(target)
        while len(parent) > len(base):
            self._own.add(parent)
            parent = os.path.dirname(parent)
        os.makedirs(target if directory else os.path.dirname(target), exist_ok=True)
        if not directory:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))

    def _unfold(self, base: str) -> None:
        old = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
        fresh = self._staging if base == "/" else base
        self._mount("tmpfs", fresh, 0, "tmpfs", f"mode={os.fstat(old).st_mode & 0o7777:o}")
        if base == "/":
            self._mount(None, fresh, MS_UNBINDABLE)
        for name in os.listdir(old):
            source, target = f"/proc/self/fd/{old}/{name}", f"{fresh}/{name}"
            if os.path.islink(source):
                os.symlink(os.readlink(source), target)
                continue
            if os.path.isdir(source):
                os.mkdir(target)
            else:
                os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
            self._mount(source, target, MS_BIND | MS_REC)
        os.close(old)
        if base == "/":
            os.chroot(fresh)
            os.chdir("/")
        self._own.add(base)


def processes(root: int) -> list[int]:
    """All descendants of a process."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(name))
    found, queue = [], [root]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += children
    return found


def memory(pids: list[int], proportional: bool) -> int:
    """Bytes of memory of the processes: resident, or proportional set size."""
    total = 0
    for pid in pids:
        try:
            if proportional:
                with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                    total += next(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
            else:
                with open(f"/proc/{pid}/statm", "rb") as file:
                    total += int(file.read().split()[1]) * PAGE
        except (OSError, StopIteration):
            continue  # it ended meanwhile
    return total


def start(spec: dict[str, Any], out: int, err: int) -> tuple[int, str]:
    """Start the command. Returns its pid and, when it could not be started, the reason."""
    parent = os.getpid()
    receive, send = os.pipe()
    pid = os.fork()
    if pid:
        os.close(send)
        with os.fdopen(receive) as pipe:
            return pid, pipe.read()
    stage = "chdir to cwd"
    try:
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        stage = "mount volumes"
        if spec["mounts"]:
            View(spec["staging"]).add(spec["mounts"])
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(137)
        stage = f'chdir to cwd ("{spec["cwd"]}") set in config.json failed'
        os.chdir(spec["cwd"])
        stage = f'exec: "{spec["argv"][0]}"'
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
    except BaseException as error:
        text = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
        if isinstance(error, FileNotFoundError) and stage.startswith("exec") and "/" not in spec["argv"][0]:
            text = "executable file not found in $PATH"
        os.write(send, f"{stage}: {text}".encode())
        os._exit(128)


class Shim:
    """The loop around one command."""

    def __init__(self, spec: dict[str, Any], directory: str) -> None:
        self._spec, self._directory = spec, directory
        self._log = Log(spec["log"], spec["log_max_bytes"], spec["log_max_files"])
        self._started = time.time_ns()
        self._code: int | None = None
        self._reason = ""
        self._child = 0
        self._stopping = False
        self._wake, wake = os.pipe()
        for fd in (self._wake, wake):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGUSR1, lambda *_: self._kill())
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self, ready: int) -> None:
        """Start the command, keep it, and record its end."""
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        self._child, problem = start(self._spec, out_end, err_end)
        os.close(out_end)
        os.close(err_end)
        if problem:
            os.waitpid(self._child, 0)
            self._finish(128, "StartError", problem)
            return
        write_json(f"{self._directory}/run.json", {"pid": os.getpid(), "child": self._child, "started": self._started})
        with contextlib.suppress(BrokenPipeError):  # the laptop was killed meanwhile
            os.write(ready, b"1")
        os.close(ready)
        if self._stopping:
            self._terminate()
        self._keep({out: "stdout", err: "stderr"})
        code = 137 if self._code is None else self._code
        self._finish(code, self._reason or ("Error" if code else "Completed"), "")

    def _keep(self, streams: dict[int, str]) -> None:
        poller = select.poll()
        for fd in (*streams, self._wake):
            poller.register(fd, select.POLLIN)
        limit = self._spec["memory_limit"]
        drained, look = float("inf"), 0.0
        while (streams or self._code is None) and time.monotonic() < drained:
            timeout = 500 if limit or self._code is not None else None
            for fd, _ in poller.poll(timeout):
                data = os.read(fd, 65536)
                if fd in streams:
                    self._log.feed(streams[fd], data)
                    if not data:
                        poller.unregister(fd)
                        os.close(fd)
                        del streams[fd]
            if self._code is None:
                if self._reap():
                    self._kill()
                    drained = time.monotonic() + 5
                elif limit and time.monotonic() > look:
                    self._watch_memory(limit)
                    look = time.monotonic() + 0.5

    def _reap(self) -> bool:
        """Collect ended processes; true once the command is among them."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self._child:
                    code = os.waitstatus_to_exitcode(status)
                    self._code = 128 - code if code < 0 else code
        except ChildProcessError:
            pass
        return self._code is not None

    def _watch_memory(self, limit: int) -> None:
        pids = processes(os.getpid())
        if memory(pids, False) > limit and memory(pids, True) > limit:
            self._reason = "OOMKilled"
            self._kill()

    def _terminate(self, *_: object) -> None:
        self._stopping = True
        if self._child and self._code is None:
            try:
                os.kill(self._child, signal.SIGTERM)
            except ProcessLookupError:
                return

    def _kill(self) -> None:
        """Kill the whole tree; what forks meanwhile is found in the next round."""
        for _ in range(200):
            pids = processes(os.getpid())
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._reap()
            if not pids:
                return
            time.sleep(0.005)

    def _finish(self, code: int, reason: str, message: str) -> None:
        record = {"code": code, "reason": reason, "message": message, "started": self._started}
        write_json(f"{self._directory}/exit.json", {**record, "finished": time.time_ns()})


def probe(directory: str) -> int:
    """0 when this system grants a private view of its files."""
    try:
        View(directory).add([(directory, "/aksgpu-probe/volume", True)])
        return 0 if os.path.isdir("/aksgpu-probe/volume") else errno.ENOENT
    except OSError as error:
        return error.errno or 1


def main() -> None:
    """Keep the container of the specification named on the command line."""
    if sys.argv[1] == "--probe":
        sys.exit(probe(sys.argv[2]))
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    directory = os.path.dirname(sys.argv[1])
    for fd in sys.argv[2:]:
        os.set_inheritable(int(fd), False)
    with open(sys.argv[1]) as file:
        spec = json.load(file)
    write_json(f"{directory}/run.json", {"pid": os.getpid(), "child": 0, "started": time.time_ns()})
    Shim(spec, directory).run(int(sys.argv[2]))


if __name__ == "__main__":
    main()
