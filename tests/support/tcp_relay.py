"""A relay of TCP connections to a cluster's API server, which breaks them when a test wants it."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from aksgpu import cluster
from aksgpu.cluster import Cluster
from aksgpu.kube import Kube

BLOCK = 65536


class Relay(threading.Thread):
    """Passes the bytes of TCP connections on to the API server, until it is stopped.

    Attributes:
        cuts: after how many bytes of one connection all connections are broken; one number for each time.
    """

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._stalled: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_stopped = False
        self.cuts: list[int] = []
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
                if self._is_stopped:  # the connection was accepted before
                    self.cut()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(BLOCK):
                if source in self._stalled:
                    threading.Event().wait()
                target.sendall(data)
                passed += len(data)
                if self._is_time_to_cut(passed):
                    self.cut()
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _is_time_to_cut(self, passed: int) -> bool:
        with self._lock:
            if self.cuts and passed > self.cuts[0]:
                self.cuts.pop(0)
                return True
        return False

    def stall(self) -> None:
        """Pass on nothing more of the present connections, without closing them. New ones work."""
        self._stalled |= set(self._sockets)

    def cut(self) -> None:
        """Break all connections. New ones are accepted."""
        broken = list(self._sockets)
        self._sockets.clear()
        for each in broken:
            # Not closed: another connection would get the file descriptor that a thread is about to read.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Break all connections, and refuse new ones."""
        self._is_stopped = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


def relayed(aks: Cluster, path: Path) -> tuple[Kube, Relay]:
    """Return the API of a cluster through a relay, and the relay.

    Args:
        aks: the cluster.
        path: the kubeconfig to write.
    """
    cluster.get_credentials(aks, file=path)
    config = yaml.safe_load(path.read_text())
    server = config["clusters"][0]["cluster"]["server"]
    address = urlsplit(server)
    assert address.port is not None
    relay = Relay(address.port)
    config["clusters"][0]["cluster"]["server"] = server.replace(f":{address.port}", f":{relay.port}")
    path.write_text(yaml.safe_dump(config))
    return Kube.from_kubeconfig(path), relay
