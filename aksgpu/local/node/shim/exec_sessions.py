"""Additional commands in the running container, for ``kubectl exec``, and clients of ``kubectl attach``.

The node agent connects to the socket ``exec.sock`` in the directory of the container's specification. It sends one
message with the command's three streams: a JSON object with ``argv``, ``env`` (in addition to the container's) and
``tty``. The response is ``{"error": TEXT}``, where the text is empty if the command was started. When the command ends,
``{"code": NUMBER}`` follows. The command keeps running if the node agent disconnects. It ends with the container.

A message with ``attach`` and ``stdin`` connects to the container's own command instead. Its response also has ``tty``
and, if the client wants to write, a file descriptor of the command's input.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import Any

from .container_streams import ContainerStreams
from .launch import launch
from .mounts import join_namespaces

SOCKET = "exec.sock"
MAX_REQUEST_BYTES = 1 << 17
_REQUEST_SECONDS = 5.0
"""Timeout for receiving a request."""


class ExecSessions:
    """The additional commands of a container.

    Args:
        spec: the container's specification.
        directory: the directory of the run.
        own_streams: the streams of the container's own command.
    """

    def __init__(self, spec: dict[str, Any], directory: str, own_streams: ContainerStreams) -> None:
        self._spec = spec
        self._own_streams = own_streams
        self._running: dict[int, socket.socket] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.chdir(directory)  # the length of a socket's path is limited
        self._listener.bind(SOCKET)
        os.chdir("/")
        self._listener.listen()

    def fileno(self) -> int:
        """Return a file descriptor that can be read when a node agent has connected."""
        return self._listener.fileno()

    def accept(self, container_pid: int) -> None:
        """Start the command of the node agent that has connected.

        Args:
            container_pid: the pid of the container's own command, or 0 if it has ended.
        """
        connection, _ = self._listener.accept()
        connection.settimeout(_REQUEST_SECONDS)
        streams: list[int] = []
        pid = 0
        error = "the container has ended"
        try:
            data, streams, _, _ = socket.recv_fds(connection, MAX_REQUEST_BYTES, 3, socket.MSG_CMSG_CLOEXEC)
            request = json.loads(data)
            if container_pid and request.get("attach"):
                self._own_streams.attach(connection, (streams[1], streams[2]), stdin=request["stdin"])
                return
            if container_pid and len(streams) == 3:
                pid, error = self._start(request, (streams[0], streams[1], streams[2]), container_pid)
            connection.send(json.dumps({"error": error}).encode())
        except (OSError, ValueError, LookupError):
            connection.close()  # disconnected, or not a node agent
        finally:
            for stream in streams:
                os.close(stream)
        if pid and not error:
            self._running[pid] = connection

    def _start(self, request: dict[str, Any], streams: tuple[int, int, int], container_pid: int) -> tuple[int, str]:
        spec = {**self._spec, "argv": request["argv"], "env": {**self._spec["env"], **request["env"]}}
        return launch(spec, streams, lambda: join_namespaces(container_pid), tty=request["tty"])

    def report_exit(self, pid: int, code: int) -> None:
        """Send the exit code to the node agent if the process is one of the commands."""
        connection = self._running.pop(pid, None)
        if connection is not None:
            with contextlib.suppress(OSError), connection:
                connection.send(json.dumps({"code": code}).encode())
