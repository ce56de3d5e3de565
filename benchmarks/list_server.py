"""A stand-in for a kube-apiserver that serves one list, for ``listing.py``.

    python benchmarks/list_server.py ITEMS FOLDER --rate 125

ITEMS is a file with a JSON array of objects, FOLDER receives a kubeconfig. The list is served over TLS at any path,
with ``limit`` and ``continue``, as a kube-apiserver of Kubernetes 1.33 or later sends it: kind, apiVersion and metadata
come before the items, each item is encoded when it is sent, and Go's HTTP server makes chunks of 2,048 bytes and TLS
records of 4,096 bytes of them.

The objects are encoded again for each request, at the given rate in MB/s. The default is an assumption: a
kube-apiserver encodes 100 to 150 MB of JSON per second on one core. A real server also reads the page from etcd or its
cache, which is left out here.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import trustme
import yaml

CHUNK = 2048
"""Bytes of a chunk of the response. Go's HTTP server collects as many."""
RECORD = 4096
"""Bytes of a TLS record. Go's HTTP server writes as many to the connection."""
BATCH = 16
"""Items that are encoded before their bytes are sent."""


class ListServer(ThreadingHTTPServer):
    """The server.

    Args:
        items: the objects of the list.
        rate: bytes per second that are encoded.
    """

    daemon_threads = True

    def __init__(self, items: list[Any], rate: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.items = items
        self.rate = rate

    def encode(self, objects: list[Any]) -> bytes:
        """Return the objects as JSON, after the time that a kube-apiserver would take."""
        begin = time.perf_counter()
        encoded = b",".join(map(orjson.dumps, objects))
        while time.perf_counter() - begin < len(encoded) / self.rate:
            pass
        return encoded

    def page(self, limit: int, start: int) -> Iterator[bytes]:
        """Yield the bytes of one page."""
        items = self.items[start : start + limit]
        metadata: dict[str, Any] = {"resourceVersion": "20001"}
        rest = len(self.items) - start - len(items)
        if rest > 0:
            token = {"v": "meta.k8s.io/v1", "rv": 20001, "start": start + limit}
            metadata["continue"] = base64.urlsafe_b64encode(orjson.dumps(token)).decode()
            metadata["remainingItemCount"] = rest
        head = json.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": metadata}, separators=(",", ":"))
        yield head.encode()[:-1] + b',"items":['
        for first in range(0, len(items), BATCH):
            if first:
                yield b","
            yield self.encode(items[first : first + BATCH])
        yield b"]}\n"


class Handler(BaseHTTPRequestHandler):
    """Answers a GET with a page."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ListServer

    def do_GET(self) -> None:
        """Send a page, or the whole list without ``limit``."""
        query = parse_qs(urlsplit(self.path).query)
        limit = int(query.get("limit", [sys.maxsize])[0])
        token = query.get("continue", [""])[0]
        start = orjson.loads(base64.urlsafe_b64decode(token))["start"] if token else 0
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        for record in pieces(chunks(self.server.page(limit, start)), RECORD):
            self.wfile.write(record)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


def chunks(body: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the body as HTTP chunks."""
    for piece in pieces(body, CHUNK):
        yield b"%x\r\n%s\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def pieces(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Yield the same bytes in pieces of one size. The last one may be shorter."""
    rest = b""
    for block in blocks:
        rest += block
        whole = len(rest) - len(rest) % size
        for start in range(0, whole, size):
            yield rest[start : start + size]
        rest = rest[whole:]
    if rest:
        yield rest


@contextlib.contextmanager
def list_server(items: Path, folder: Path, rate: float) -> Iterator[Path]:
    """Run the server in a process of its own, and yield the path of its kubeconfig.

    Args:
        items: a file with a JSON array.
        folder: for the kubeconfig.
        rate: MB per second that are encoded.
    """
    command = [sys.executable, __file__, str(items), str(folder), "--rate", str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            yield Path(server.stdout.readline().decode().strip())
        finally:
            server.terminate()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("items", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=float, default=125)
    options = parser.parse_args()
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = ListServer(orjson.loads(options.items.read_bytes()), options.rate * 1e6)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    trust = base64.b64encode(authority.cert_pem.bytes()).decode()
    address = f"https://127.0.0.1:{server.server_port}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": address, "certificate-authority-data": trust}}],
        "users": [{"name": "c", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }
    path = options.folder / "kubeconfig-list-server"
    path.write_text(yaml.safe_dump(config))
    print(path, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
