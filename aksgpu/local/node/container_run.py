"""One run of a container: starts its shim, or finds it after a restart of the laptop, and waits for its end.

:mod:`aksgpu.local.node.container` decides whether a container is restarted.
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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from aksgpu.local.node.exec_command import wait_for_descriptor

SHIM_COMMAND = (
    sys.executable,
    "-I",
    "-S",
    "-c",
    f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from shim import supervisor; supervisor.main()",
)
"""The command line of :mod:`aksgpu.local.node.shim`, without its arguments."""
SHIM_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""The signals that a node agent sends to a shim, apart from SIGKILL."""
CONTAINER_ID_VARIABLE = "AKSGPU_CONTAINER"
"""An environment variable of all processes of a container. It identifies processes that a killed shim left behind."""

LOG_MAX_FILES = 5
"""Number of log files that are kept, for slow readers."""
KILL_SECONDS = 8.0
"""Time in which a shim must kill its processes and record their end, before it is killed itself."""
START_SECONDS = 60.0
"""Time in which a shim that has just started must record its command."""
START_CHECK_SECONDS = 0.02


class Exit(NamedTuple):
    """The end of a run. Times are in nanoseconds since 1970."""

    code: int
    reason: str
    message: str
    started: int
    finished: int


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block the signals that a shim handles, in this thread and in processes that it starts.

    The shim unblocks them once it has its handlers, so that none ends it before.
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, SHIM_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


async def _wait_until_readable(fd: int) -> None:
    """Wait until a file descriptor can be read. A pidfd can be read once its process has ended."""
    loop = asyncio.get_running_loop()
    await wait_for_descriptor(loop.add_reader, loop.remove_reader, fd)


class ContainerRun:
    """A run of a container, in its own directory.

    Args:
        container: the container's directory.
        number: 0 for the first run, 1 for the first restart.

    Attributes:
        number: the number of the run.
        directory: the run's directory.
        log: the path of its log, without the number of a segment.
        container_id: the run's id, 64 hexadecimal digits.
        started: when its command started, in nanoseconds since 1970; 0 if it did not.
    """

    def __init__(self, container: Path, number: int) -> None:
        self.number = number
        self.directory = container / str(number)
        self.log = container / f"{number}.log"
        self.container_id = ""
        self.started = 0
        self._child = 0
        self._pidfd = -1

    async def start(self, spec: Mapping[str, Any], container_id: str, log_max_bytes: int) -> None:
        """Start the shim, and wait until the command is running or could not be started.

        Args:
            spec: the specification of :mod:`aksgpu.local.node.container_spec`.
            container_id: the id of this run.
            log_max_bytes: size at which the log is rotated.
        """
        self.container_id = container_id
        staging = self.directory / "staging"
        staging.mkdir(parents=True, exist_ok=True)
        path = self.directory / "spec.json"
        path.touch(mode=0o600)
        shim_spec = {
            **spec,
            "id": container_id,
            "env": {**spec["env"], CONTAINER_ID_VARIABLE: container_id},
            "staging": str(staging),
            "log": str(self.log),
            "log_max_bytes": log_max_bytes,
            "log_max_files": LOG_MAX_FILES,
        }
        path.write_text(json.dumps(shim_spec))
        lock = self._open_lock()
        receive, send = os.pipe()
        with os.fdopen(receive, "rb", buffering=0) as ready:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._spawn([*SHIM_COMMAND, str(path), str(send), str(lock)], (send, lock))
            finally:
                os.close(send)
                os.close(lock)
            await _wait_until_readable(receive)
            if ready.read(1):
                self.started = int(self.read("run.json")["started"])

    def _spawn(self, command: list[str], descriptors: tuple[int, int]) -> None:
        with (self.directory / "shim.err").open("wb") as errors, _blocked_signals():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
                cwd="/",
                env={},
                pass_fds=descriptors,
            )
        self._child = process.pid
        process.returncode = 0  # Popen must not wait for the process: wait() does, and the laptop may end first
        self._pidfd = os.pidfd_open(self._child)

    def _open_lock(self) -> int:
        return os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def read(self, name: str) -> dict[str, Any]:
        """Return the content of a JSON file of the run, such as ``spec.json``; empty if it does not exist."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return dict(json.loads((self.directory / name).read_text()))
        return {}

    def _is_locked(self) -> bool:
        """Return whether the shim is alive. It holds the lock until it ends."""
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
        """Whether its shim is known to be running."""
        return self._pidfd >= 0

    async def resume(self) -> bool:
        """Find a run from before a restart of the laptop. Return False if it was never started."""
        self.container_id = str(self.read("spec.json").get("id", ""))
        deadline = time.monotonic() + START_SECONDS
        while True:
            locked = self._is_locked()
            # Read after testing the lock: the files of a shim that has ended are complete.
            run = self.read("run.json")
            if not locked or run.get("child") or time.monotonic() > deadline:
                break
            await asyncio.sleep(START_CHECK_SECONDS)
        self.started = int(run.get("started", 0)) if run.get("child") else 0
        if run and self._is_locked():
            with contextlib.suppress(ProcessLookupError):
                self._pidfd = os.pidfd_open(run["pid"])
            if self._pidfd >= 0 and not self._is_locked():  # the shim has ended: the pid may be of another process
                self._close()
        return bool(run)

    async def wait(self) -> Exit:
        """Wait for the end of the run."""
        if self._pidfd >= 0:
            await _wait_until_readable(self._pidfd)
            self._close()
        record = self.read("exit.json")
        if record:
            return Exit(*(record[key] for key in Exit._fields))
        self._kill_orphans()
        message = "The container's process has ended without an exit status"
        now = time.time_ns()
        return Exit(137, "ContainerStatusUnknown", message, self.started or now, now)

    def send_signal(self, number: signal.Signals) -> None:
        """Send the shim a signal unless it has ended. It passes SIGTERM on to the command."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """Kill all processes of the run, and the shim too if it does not end in time. Use :meth:`wait` to wait."""
        self.send_signal(signal.SIGUSR1)
        asyncio.get_running_loop().call_later(KILL_SECONDS, self.send_signal, signal.SIGKILL)

    def _close(self) -> None:
        self.detach()
        if self._child:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._child, 0)

    def detach(self) -> None:
        """Stop supervising the run. It keeps running."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _kill_orphans(self) -> None:
        """Kill the processes that a killed shim left behind."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(CONTAINER_ID_VARIABLE) == self.container_id:
                    process.kill()


def list_runs(container: Path) -> list[int]:
    """Return the numbers of a container's runs whose directories are kept, in ascending order."""
    return sorted(int(path.parent.name) for path in container.glob("*/spec.json"))
