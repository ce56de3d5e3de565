"""Starts a command: the container's own, or an additional one in the container."""

from __future__ import annotations

import fcntl
import os
import signal
import termios
from collections.abc import Callable
from typing import Any

from .mounts import libc

PR_SET_PDEATHSIG = 1


def launch(
    spec: dict[str, Any], streams: tuple[int, int, int], enter: Callable[[], None], *, tty: bool = False
) -> tuple[int, str]:
    """Start a command. It is killed when this process ends.

    Args:
        spec: the specification with ``argv``, ``env`` and ``cwd``.
        streams: file descriptors of its input, output and error output.
        enter: called in the new process, to enter the container's namespaces or to create them.
        tty: whether its streams are a terminal that controls it.

    Returns:
        Its pid, and the reason if it could not be started; empty if it was.
    """
    parent = os.getpid()
    receive, send = os.pipe()
    pid = os.fork()
    if pid:
        os.close(send)
        with os.fdopen(receive) as pipe:
            return pid, pipe.read()
    stage = "mount volumes"
    try:
        _reset_process()
        enter()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(137)
        stage = f'chdir to cwd ("{spec["cwd"]}") set in config.json failed'
        os.chdir(spec["cwd"])
        stage = f'exec: "{spec["argv"][0]}"'
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
        if tty:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
    except BaseException as error:
        os.write(send, f"{stage}: {_explain(error, stage, spec['argv'][0])}".encode())
        os._exit(128)


def _reset_process() -> None:
    """Start a session, and restore the default handling of signals."""
    os.setsid()
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def _explain(error: BaseException, stage: str, program: str) -> str:
    """Return the text that a container runtime has for an error."""
    # A directory of the PATH that belongs to another user causes a PermissionError.
    not_found = isinstance(error, FileNotFoundError | PermissionError)
    if not_found and stage.startswith("exec") and "/" not in program:
        return "executable file not found in $PATH"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error)
