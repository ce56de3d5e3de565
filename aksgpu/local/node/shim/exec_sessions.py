"""Commands that join the running container, as ``kubectl exec`` asks for them.

The node agent connects to the socket ``exec.sock`` beside the container's specification and sends one message:
``argv``, ``env`` (in addition to the container's) and ``tty`` as JSON, with the command's three streams. It is answered
``{"error": TEXT}``, empty when the command runs, and when that has ended ``{"code": NUMBER}``. An agent that is gone
does not end the command; the container does.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import Any

from .launch import launch
from .mounts import join

SOCKET = "exec.sock"
LARGEST_REQUEST = 1 << 17
_PATIENCE_SECONDS = 5.0


class Guests:
    """The commands that run beside the container's own."""

    def __init__(self, spec: dict[str, Any], directory: str) -> None:
        self._spec = spec
        self._running: dict[int, socket.socket] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.chdir(directory)  # the path of a socket may not be long
        self._listener.bind(SOCKET)
        os.chdir("/")
        self._listener.listen()

    def fileno(self) -> int:
        """What can be read when an agent has connected."""
        return self._listener.fileno()

    def admit(self, host: int) -> None:
        """Start the command of the agent that has connected, beside the process ``host``; 0 when that has ended."""
        connection, _ = self._listener.accept()
        connection.settimeout(_PATIENCE_SECONDS)
        streams: list[int] = []
        pid = 0
        error = "the container has ended"
        try:
            data, streams, _, _ = socket.recv_fds(connection, LARGEST_REQUEST, 3, socket.MSG_CMSG_CLOEXEC)
            if host and len(streams) == 3:
                pid, error = self._start(json.loads(data), (streams[0], streams[1], streams[2]), host)
            connection.send(json.dumps({"error": error}).encode())
        except (OSError, ValueError):
            connection.close()  # the agent is gone, or no agent
        finally:
            for stream in streams:
                os.close(stream)
        if pid and not error:
            self._running[pid] = connection

    def _start(self, request: dict[str, Any], streams: tuple[int, int, int], host: int) -> tuple[int, str]:
        spec = {**self._spec, "argv": request["argv"], "env": {**self._spec["env"], **request["env"]}}
        return launch(spec, streams, lambda: join(host), tty=request["tty"])

    def ended(self, pid: int, code: int) -> None:
        """Tell who waits for it that a process has ended, if it is one of the commands."""
        connection = self._running.pop(pid, None)
        if connection is not None:
            with contextlib.suppress(OSError), connection:
                connection.send(json.dumps({"code": code}).encode())
