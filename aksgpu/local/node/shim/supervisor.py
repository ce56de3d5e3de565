"""One container's keeper: starts its command, keeps its output and its exit, and outlives the laptop process.

Its arguments are SPEC READY LOCK; its session is its own, so that a killed laptop finds it again. It holds the
container's lock file (a descriptor inherited from the node agent) for as long as it lives: a lock that can be taken
means that the shim is gone. It writes, each atomically, ``run.json`` (pids, start) and ``exit.json`` (exit code,
reason, times) beside SPEC, and a byte to the descriptor READY when the command runs. It knows nothing of Kubernetes.

Signals: SIGTERM is passed on to the command, and to it alone, SIGUSR1 kills everything. However the command ends, all
that it started ends with it: the shim is the subreaper of the whole tree. A signal that comes before the command's pid
is known waits until it is.

The memory limit has no cgroup behind it. Twice a second the tree's resident memory is added up; where that exceeds the
limit and the proportional set size, which counts shared pages once, confirms it, the tree is killed as out of memory.
"""

# pathlib would double the start-up time.
# ruff: noqa: PTH105, PTH112, PTH120, PTH123

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from typing import Any

from .exec_sessions import Guests
from .launch import launch
from .log_writer import Log
from .mounts import View, libc, probe
from .process_tree import memory, processes

PR_SET_CHILD_SUBREAPER = 36
DRAIN_SECONDS = 5.0
"""How long output is waited for after the end; somebody outside the tree may hold the streams open."""


def write_json(path: str, value: dict[str, Any]) -> None:
    """Write a small file so that a reader sees all of it or nothing."""
    with open(path + ".new", "w") as file:
        json.dump(value, file)
    os.replace(path + ".new", path)


class Shim:
    """The loop around one command."""

    def __init__(self, spec: dict[str, Any], directory: str) -> None:
        self._spec = spec
        self._directory = directory
        self._log = Log(spec["log"], spec["log_max_bytes"], spec["log_max_files"])
        self._started = time.time_ns()
        self._code: int | None = None
        self._reason = ""
        self._child = 0
        self._guests: Guests | None = None
        self._stopping = self._killed = False
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGUSR1, self._kill_all)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self, ready: int) -> None:
        """Start the command, keep it, and record its end."""
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        nothing = os.open("/dev/null", os.O_RDONLY)
        self._child, problem = launch(self._spec, (nothing, out_end, err_end), self._mount)
        if self._killed:
            self._kill()
        for fd in (nothing, out_end, err_end):
            os.close(fd)
        if problem:
            with contextlib.suppress(ChildProcessError):  # collected when everything was killed
                os.waitpid(self._child, 0)
            self._finish(128, "StartError", problem)
            return
        guests = self._guests = Guests(self._spec, self._directory)
        write_json(f"{self._directory}/run.json", {"pid": os.getpid(), "child": self._child, "started": self._started})
        with contextlib.suppress(BrokenPipeError):  # the laptop was killed meanwhile
            os.write(ready, b"1")
        os.close(ready)
        if self._stopping:
            self._terminate()
        self._keep({out: b"stdout", err: b"stderr"}, guests)
        code = 137 if self._code is None else self._code
        self._finish(code, self._reason or ("Error" if code else "Completed"), "")

    def _mount(self) -> None:
        if self._spec["hostname"] or self._spec["mounts"]:
            View(self._spec["staging"], self._spec["hostname"]).add(self._spec["mounts"])

    def _keep(self, streams: dict[int, bytes], guests: Guests) -> None:
        poller = select.poll()
        for fd in (*streams, self._wake, guests.fileno()):
            poller.register(fd, select.POLLIN)
        limit = self._spec["memory_limit"]
        drained = float("inf")
        look = 0.0
        while (streams or self._code is None) and time.monotonic() < drained:
            timeout = 500 if limit or self._code is not None else None
            for fd, _ in poller.poll(timeout):
                if fd == guests.fileno():
                    guests.admit(self._child if self._code is None else 0)
                    continue
                data = os.read(fd, 65536)
                if fd in streams:
                    with contextlib.suppress(OSError):  # a full disk costs output, not the container
                        self._log.feed(streams[fd], data)
                    if not data:
                        poller.unregister(fd)
                        os.close(fd)
                        del streams[fd]
            if self._code is None:
                self._reap()
            if self._code is None and limit and time.monotonic() > look:
                self._watch_memory(limit)
                look = time.monotonic() + 0.5
            if self._code is not None and drained == float("inf"):
                self._kill()
                drained = time.monotonic() + DRAIN_SECONDS

    def _reap(self) -> None:
        """Collect ended processes, the command's exit code among them."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                code = os.waitstatus_to_exitcode(status)
                code = 128 - code if code < 0 else code
                if pid == self._child:
                    self._code = code
                elif self._guests:
                    self._guests.ended(pid, code)
        except ChildProcessError:
            if self._child and self._code is None:  # nobody is left who could still say how the command ended
                self._code = 137

    def _watch_memory(self, limit: int) -> None:
        pids = processes(os.getpid())
        if memory(pids, False) > limit and memory(pids, True) > limit:
            self._reason = "OOMKilled"
            self._kill()

    def _terminate(self, *_: object) -> None:
        self._stopping = True
        if self._child and self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGTERM)

    def _kill_all(self, *_: object) -> None:
        self._killed = True
        if self._child:  # else its exit code would be collected before anybody knows whose it is
            self._kill()

    def _kill(self) -> None:
        """Kill the whole tree; what forks meanwhile is found in the next round."""
        for _ in range(200):
            pids = processes(os.getpid())
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._reap()
            if not pids:
                return
            time.sleep(0.005)

    def _finish(self, code: int, reason: str, message: str) -> None:
        when = {"started": self._started, "finished": time.time_ns()}
        while os.path.isdir(self._directory):
            try:
                write_json(f"{self._directory}/exit.json", {"code": code, "reason": reason, "message": message, **when})
                break
            except OSError:  # a full disk: whoever filled it makes room, and then the exit code is not lost
                time.sleep(0.5)


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
