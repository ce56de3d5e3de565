"""A local port whose connections lead to a port of a pod (``pods/portforward``).

Each connection is a WebSocket of its own. Its channel 0 carries data, channel 1 errors. The first message of each
channel has the number of the port.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

from aksgpu.errors import AksGpuError
from aksgpu.kube.websockets import ChannelSocket

__all__ = ["PROTOCOLS", "PortForward"]

PROTOCOLS = ("v4.channel.k8s.io",)
"""The subprotocol of port forwarding with channels."""
_DATA = 0
_ERROR = 1
_BLOCK = 64 * 1024
"""Bytes that are sent in one message."""
_LINGER_SECONDS = 60.0
"""Seconds for which the pod may still answer a client that has ended its output."""


class PortForward:
    """A local port that leads to a pod, until it is closed. A context manager.

    Args:
        connect: opens a WebSocket to the pod's port; called once for each connection.
        local_port: the port on this machine; 0 for one that is free.

    Attributes:
        port: the port on this machine, at 127.0.0.1.
        last_error: why the last connection failed, such as that nothing listens in the pod; empty if none did.

    Raises:
        OSError: the local port is in use.
    """

    def __init__(self, connect: Callable[[], ChannelSocket], local_port: int = 0) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", local_port))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_closed = False
        self.port: int = self._listener.getsockname()[1]
        self.last_error = ""
        threading.Thread(target=self._accept, name="aksgpu-port-forward", daemon=True).start()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else self.url
        return f"PortForward({state})"

    @property
    def url(self) -> str:
        """The address for a browser on this machine."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Close the port and its connections. A second call does nothing."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            self._is_closed = True
            connections = list(self._open)
        for each in connections:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), name="aksgpu-port-forward", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Pass the data of one connection on, until one side closes it."""
        with self._lock:
            # A connection that is accepted while the port is closed is not in the set when its connections are closed.
            if self._is_closed:
                client.close()
                return
            self._open.add(client)
        try:
            with client:
                pod = self._connect()
                try:
                    _Connection(client, pod, self._note_error).run()
                finally:
                    pod.close()
        except AksGpuError as error:
            self._note_error(error.message)
        finally:
            with self._lock:
                self._open.discard(client)

    def _note_error(self, text: str) -> None:
        if not self._is_closed:
            self.last_error = text


class _Connection:
    """One connection: a client of this machine and a WebSocket to the pod."""

    def __init__(self, client: socket.socket, pod: ChannelSocket, note_error: Callable[[str], None]) -> None:
        self._client = client
        self._pod = pod
        self._note_error = note_error
        self._client_ended = False

    def run(self) -> None:
        """Pass data on in both directions until the connection ends."""
        sender = threading.Thread(target=self._send, name="aksgpu-port-forward", daemon=True)
        sender.start()
        try:
            self._receive()
        finally:
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)
            sender.join()

    def _send(self) -> None:
        """Pass the client's data on. The end of its output cannot be passed on; its input stays open for a while."""
        with contextlib.suppress(OSError, AksGpuError):
            while True:
                data = self._client.recv(_BLOCK)
                if not data:
                    break
                self._pod.send(_DATA, data)
        self._client_ended = True

    def _receive(self) -> None:
        announced: set[int] = set()
        last = time.monotonic()
        while True:
            try:
                message = self._pod.receive(_LINGER_SECONDS)
            except TimeoutError:
                if self._client_ended and time.monotonic() - last >= _LINGER_SECONDS:
                    return
                continue
            if message is None:
                return
            channel, data = message
            last = time.monotonic()
            if channel not in announced:
                announced.add(channel)
                continue
            if channel == _ERROR:
                self._note_error(data.decode(errors="replace").strip())
                return
            try:
                self._client.sendall(data)
            except OSError:
                return
