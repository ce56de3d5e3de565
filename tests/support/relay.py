"""A TCP relay before a server, whose connections a test can cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from aksgpu import cluster
from aksgpu.cluster import Cluster


class Relay(threading.Thread):
    """Passes the bytes of TCP connections on to a local port.

    Args:
        port: the server's port on 127.0.0.1.

    Attributes:
        port: the relay's port.
    """

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._stalled: set[socket.socket] = set()
        self.port = self._listener.getsockname()[1]
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source in self._stalled:
                    threading.Event().wait()
                target.sendall(data)

    def stall(self) -> None:
        """Pass on nothing more of the present connections, without closing them. New ones work."""
        self._stalled |= set(self._sockets)

    def cut(self) -> None:
        """Cut all present connections. New ones are accepted."""
        present = list(self._sockets)
        self._sockets = []
        for each in present:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def stop(self) -> None:
        """Cut all connections, and accept no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


def relayed_kubeconfig(aks: Cluster, path: Path) -> Relay:
    """Write a kubeconfig that reaches a cluster through a new relay, and return the relay."""
    cluster.get_credentials(aks, file=path)
    config = yaml.safe_load(path.read_text())
    server = config["clusters"][0]["cluster"]["server"]
    address = urlsplit(server)
    assert address.port is not None
    relay = Relay(address.port)
    config["clusters"][0]["cluster"]["server"] = server.replace(f":{address.port}", f":{relay.port}")
    path.write_text(yaml.safe_dump(config))
    return relay
