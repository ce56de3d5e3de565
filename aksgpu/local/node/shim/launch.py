"""Starts a command: the container's own, or one that joins it."""

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
    """Start a command that ends with this process at the latest.

    Args:
        spec: ``argv``, ``env`` and ``cwd``.
        streams: its input, output and error output.
        enter: called in the new process, to see the files that the command is to see.
        tty: whether its streams are a terminal that controls it.

    Returns:
        Its pid and, when it could not be started, the reason.
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
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
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
        text = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
        absent = isinstance(error, FileNotFoundError | PermissionError)  # the latter of directories that are not ours
        if absent and stage.startswith("exec") and "/" not in spec["argv"][0]:
            text = "executable file not found in $PATH"
        os.write(send, f"{stage}: {text}".encode())
        os._exit(128)
