"""The supervisor of one container: starts its command and writes its output and exit status to files.

Its arguments are SPEC READY LOCK: the path of the specification and two inherited file descriptors. It keeps running
when the laptop ends. It has its own session and holds the container's lock file until it ends, so that the next node
agent finds it. If the lock can be taken, the supervisor has ended. In the directory of SPEC, it writes ``run.json``
(pids, start) and ``exit.json`` (exit code, reason, times), each atomically. It writes a byte to READY when the command
is running. It does not use Kubernetes.

Signals: SIGTERM is forwarded to the command only. SIGUSR1 kills everything. When the command ends, all processes that
it started end too, because the supervisor is the subreaper of the whole tree. A signal that arrives before the
command's pid is known takes effect once it is known.

The memory limit works without a cgroup. Twice a second, the resident memory of the tree is added up. If it exceeds the
limit and so does the proportional set size, which counts shared pages once, the tree is killed (OOMKilled).
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

from .container_streams import ContainerStreams
from .exec_sessions import ExecSessions
from .launch import launch
from .log_writer import LogWriter
from .mounts import MountNamespace, libc, probe
from .process_tree import descendants, memory_bytes

PR_SET_CHILD_SUBREAPER = 36
DRAIN_SECONDS = 5.0
"""Time for which output is read after the command has ended. A process outside the tree may hold the streams."""
MEMORY_CHECK_SECONDS = 0.5
CHUNK_BYTES = 64 * 1024


def write_json(path: str, value: dict[str, Any]) -> None:
    """Write a file atomically."""
    with open(path + ".new", "w") as file:
        json.dump(value, file)
    os.replace(path + ".new", path)


class Supervisor:
    """Supervises one command.

    Args:
        spec: the specification.
        directory: the directory of the run.
    """

    def __init__(self, spec: dict[str, Any], directory: str) -> None:
        self._spec = spec
        self._directory = directory
        self._log = LogWriter(spec["log"], spec["log_max_bytes"], spec["log_max_files"])
        self._started = time.time_ns()
        self._code: int | None = None
        self._reason = ""
        self._child = 0
        self._streams = ContainerStreams(spec)
        self._exec_sessions: ExecSessions | None = None
        self._terminated = False
        self._killed = False
        self._wakeup, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGUSR1, self._kill_all)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # The node agent has blocked them, so that they do not end the supervisor before it has its handlers.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGUSR1))

    def run(self, ready: int) -> None:
        """Start the command, supervise it, and record its end.

        Args:
            ready: the file descriptor that receives a byte when the command is running.
        """
        streams = self._streams
        self._child, error = launch(self._spec, streams.child, self._create_namespaces, tty=streams.tty)
        if self._killed:
            self._kill_tree()
        streams.close_child()
        if error:
            with contextlib.suppress(ChildProcessError):  # _kill_tree has waited for it
                os.waitpid(self._child, 0)
            self._write_exit(128, "StartError", error)
            return
        self._exec_sessions = ExecSessions(self._spec, self._directory, streams)
        write_json(f"{self._directory}/run.json", {"pid": os.getpid(), "child": self._child, "started": self._started})
        with contextlib.suppress(BrokenPipeError):  # the laptop was killed
            os.write(ready, b"1")
        os.close(ready)
        if self._terminated:
            self._terminate()
        self._supervise(streams.outputs, self._exec_sessions)
        code = 137 if self._code is None else self._code
        self._write_exit(code, self._reason or ("Error" if code else "Completed"), "")
        streams.end(code)

    def _create_namespaces(self) -> None:
        if self._spec["hostname"] or self._spec["mounts"]:
            MountNamespace(self._spec["staging"], self._spec["hostname"]).add(self._spec["mounts"])

    def _supervise(self, streams: dict[int, bytes], sessions: ExecSessions) -> None:
        """Handle output, exec requests and signals until the command has ended and its output is read."""
        poller = select.poll()
        for fd in (*streams, self._wakeup, sessions.fileno()):
            poller.register(fd, select.POLLIN)
        memory_limit = self._spec["memory_limit"]
        drain_deadline = float("inf")
        next_memory_check = 0.0
        while (streams or self._code is None) and time.monotonic() < drain_deadline:
            wake_regularly = memory_limit or self._code is not None
            for fd, _ in poller.poll(int(MEMORY_CHECK_SECONDS * 1000) if wake_regularly else None):
                if fd == sessions.fileno():
                    sessions.accept(self._child if self._code is None else 0)
                elif not self._read(fd, streams):
                    poller.unregister(fd)
                    os.close(fd)
                    del streams[fd]
            if self._code is None:
                self._reap()
            if self._code is None and memory_limit and time.monotonic() > next_memory_check:
                self._check_memory(memory_limit)
                next_memory_check = time.monotonic() + MEMORY_CHECK_SECONDS
            if self._code is not None and drain_deadline == float("inf"):
                self._kill_tree()
                drain_deadline = time.monotonic() + DRAIN_SECONDS

    def _read(self, fd: int, streams: dict[int, bytes]) -> bool:
        """Read a file descriptor, and return whether it stays open. Only the output streams end."""
        try:
            data = os.read(fd, CHUNK_BYTES)
        except OSError:  # no process has the terminal open any more
            data = b""
        if fd not in streams:
            return True
        self._streams.feed(streams[fd], data)
        with contextlib.suppress(OSError):  # if the disk is full, output is lost but the container continues
            self._log.feed(streams[fd], data)
        return bool(data)

    def _reap(self) -> None:
        """Wait for processes that have ended, and store the command's exit code."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                code = os.waitstatus_to_exitcode(status)
                code = 128 - code if code < 0 else code
                if pid == self._child:
                    self._code = code
                elif self._exec_sessions:
                    self._exec_sessions.report_exit(pid, code)
        except ChildProcessError:
            if self._child and self._code is None:  # all processes have ended, and the exit code is lost
                self._code = 137

    def _check_memory(self, limit: int) -> None:
        pids = descendants(os.getpid())
        if memory_bytes(pids, False) > limit and memory_bytes(pids, True) > limit:
            self._reason = "OOMKilled"
            self._kill_tree()

    def _terminate(self, *_: object) -> None:
        self._terminated = True
        if self._child and self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGTERM)

    def _kill_all(self, *_: object) -> None:
        self._killed = True
        if self._child:  # without the pid, the exit code could not be assigned to the command
            self._kill_tree()

    def _kill_tree(self) -> None:
        """Kill all processes. Repeat this, because they may have started others in the meantime."""
        for _ in range(200):
            pids = descendants(os.getpid())
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._reap()
            if not pids:
                return
            time.sleep(0.005)

    def _write_exit(self, code: int, reason: str, message: str) -> None:
        record = {
            "code": code,
            "reason": reason,
            "message": message,
            "started": self._started,
            "finished": time.time_ns(),
        }
        while os.path.isdir(self._directory):
            try:
                write_json(f"{self._directory}/exit.json", record)
                break
            except OSError:  # the disk is full; try again, so that the exit code is not lost
                time.sleep(0.5)


def main() -> None:
    """Supervise the container whose specification is the first argument."""
    if sys.argv[1] == "--probe":
        sys.exit(probe(sys.argv[2]))
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    directory = os.path.dirname(sys.argv[1])
    for fd in sys.argv[2:]:
        os.set_inheritable(int(fd), False)
    with open(sys.argv[1]) as file:
        spec = json.load(file)
    write_json(f"{directory}/run.json", {"pid": os.getpid(), "child": 0, "started": time.time_ns()})
    Supervisor(spec, directory).run(int(sys.argv[2]))
