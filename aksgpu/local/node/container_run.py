"""One run of a container: its shim is started, or found again after a restart of the laptop, and its end awaited.

Restart policy, images and status are not known here; see :mod:`aksgpu.local.node.pod`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aksgpu.local.node.exec_command import ready

KEEPER = (
    *(sys.executable, "-I", "-S", "-c"),
    f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from shim import supervisor; supervisor.main()",
)
"""The command line of :mod:`aksgpu.local.node.shim`, without its arguments."""
MARK = "AKSGPU_CONTAINER"
"""In the environment of all processes of a container: its id, by which leftovers are found."""

LOG_MAX_BYTES = 10 * 1024 * 1024
LOG_MAX_FILES = 5
KILL_SECONDS = 8.0
"""How long a shim has to kill its processes and to write down what is left to say, before it is killed itself."""


class Exit(NamedTuple):
    """How a run ended; times in nanoseconds since 1970."""

    code: int
    reason: str
    message: str
    started: int
    finished: int


async def _readable(fd: int) -> None:
    """Wait until a descriptor can be read; a pidfd can once its process has ended."""
    loop = asyncio.get_running_loop()
    await ready(loop.add_reader, loop.remove_reader, fd)


class Attempt:
    """A run of a container, in a directory of its own.

    Attributes:
        number: 0 for the first run, 1 for the first restart.
        container_id: the run's id, 64 hexadecimal digits.
        started: when its command began, in nanoseconds since 1970; 0 when it did not.
    """

    def __init__(self, container: Path, number: int) -> None:
        self.number = number
        self.directory = container / str(number)
        self.log = container / f"{number}.log"
        self.container_id = ""
        self.started = 0
        self._child = 0
        self._pidfd = -1

    async def start(self, spec: Mapping[str, Any], container_id: str) -> None:
        """Start the shim, and wait until the command runs or could not be started.

        Args:
            spec: ``argv``, ``env``, ``cwd``, ``mounts``, ``hostname`` and ``memory_limit`` for the shim.
            container_id: the id of this run.
        """
        self.container_id = container_id
        staging = self.directory / "staging"
        staging.mkdir(parents=True, exist_ok=True)
        own = {"id": container_id, "env": {**spec["env"], MARK: container_id}, "staging": str(staging)}
        log = {"log": str(self.log), "log_max_bytes": LOG_MAX_BYTES, "log_max_files": LOG_MAX_FILES}
        path = self.directory / "spec.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({**spec, **own, **log}))
        lock = self._open_lock()
        receive, send = os.pipe()
        with os.fdopen(receive, "rb", buffering=0) as answer:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with (self.directory / "shim.err").open("wb") as errors:
                    command = [*KEEPER, str(path), str(send), str(lock)]
                    apart: dict[str, Any] = {"start_new_session": True, "cwd": "/", "env": {}, "pass_fds": (send, lock)}
                    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, **apart)
                self._child = process.pid
                process.returncode = 0  # it is waited for below, and may outlive this process
                self._pidfd = os.pidfd_open(self._child)
            finally:
                os.close(send)
                os.close(lock)
            await _readable(receive)
            if answer.read(1):
                self.started = int(self.read("run.json")["started"])

    def _open_lock(self) -> int:
        return os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def read(self, name: str) -> dict[str, Any]:
        """A file of the run, such as the specification ``spec.json``; empty when it is not there."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return dict(json.loads((self.directory / name).read_text()))
        return {}

    def _locked(self) -> bool:
        """Whether the shim lives: it holds the lock as long as it does."""
        lock = self._open_lock()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    @property
    def alive(self) -> bool:
        """Whether its shim is at work."""
        return self._pidfd >= 0

    async def resume(self) -> bool:
        """Find a run from before a restart again; false when it was never started."""
        self.container_id = str(self.read("spec.json").get("id", ""))
        for _ in range(100):  # a shim that was just started names its process within milliseconds
            locked = self._locked()
            run = self.read("run.json")  # after the lock: what a shim that is gone has written is all there
            if not locked or run.get("child"):
                break
            await asyncio.sleep(0.02)
        self.started = int(run.get("started", 0)) if run.get("child") else 0
        if run and self._locked():
            with contextlib.suppress(ProcessLookupError):
                self._pidfd = os.pidfd_open(run["pid"])
            if self._pidfd >= 0 and not self._locked():  # it ended in between: the pid may be another's by now
                self._close()
        return bool(run)

    async def ended(self) -> Exit:
        """Wait for the end of the run."""
        if self._pidfd >= 0:
            await _readable(self._pidfd)
            self._close()
        record = self.read("exit.json")
        if record:
            return Exit(*(record[key] for key in Exit._fields))
        self._sweep()
        why = "The container's process is gone, and left no exit status"
        now = time.time_ns()
        return Exit(137, "ContainerStatusUnknown", why, self.started or now, now)

    def signal(self, number: signal.Signals) -> None:
        """Send the shim a signal, SIGTERM for the command to end; nothing when the run has ended."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """Have all its processes killed, and the shim too when it does not manage to; :meth:`ended` says when."""
        self.signal(signal.SIGUSR1)
        asyncio.get_running_loop().call_later(KILL_SECONDS, self.signal, signal.SIGKILL)

    def _close(self) -> None:
        self.detach()
        if self._child:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._child, 0)

    def detach(self) -> None:
        """Let go of the run; it goes on."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _sweep(self) -> None:
        """Kill what a shim that was itself killed has left behind."""
        mark = f"{MARK}={self.container_id}".encode()
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (process / "environ").read_bytes().split(b"\0"):
                        os.kill(int(process.name), signal.SIGKILL)


def attempts(container: Path) -> list[int]:
    """The numbers of a container's runs whose directories are kept."""
    return sorted(int(path.parent.name) for path in container.glob("*/spec.json"))
