"""A small HTTP server whose responses a test scripts: streams, and faults that a healthy server never causes."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml


class Request(BaseHTTPRequestHandler):
    """One request, with methods that send the response."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def _handle(self) -> None:
        url = urlsplit(self.path)
        self.route = url.path
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        self.body = json.loads(self.rfile.read(length)) if length else None
        record = {"command": self.command, "route": self.route, "query": self.query, "headers": self.headers}
        self.server.requests.append(SimpleNamespace(**record, body=self.body))  # this handler serves many requests
        try:
            self.server.answer(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass

    def json(self, obj: Any, status: int = 200) -> None:
        self.text(json.dumps(obj), status, "application/json")

    def text(self, text: str, status: int = 200, kind: str = "text/plain") -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def refuse(self, code: int, reason: str, message: str) -> None:
        self.json({"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code}, code)

    def begin(self) -> None:
        """Start a chunked response."""
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, content: bytes) -> None:
        if content:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
            self.wfile.flush()

    def event(self, change: str, obj: Any) -> None:
        self.chunk(json.dumps({"type": change, "object": obj}).encode() + b"\n")

    def end(self) -> None:
        """End a chunked response cleanly."""
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def drop(self) -> None:
        """Break the connection."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def silence(self) -> None:
        """Send nothing more and keep the connection open, until the server is stopped."""
        self.wfile.flush()
        self.server.stopping.wait(30)
        self.close_connection = True


class Server(ThreadingHTTPServer):
    """A server as a context manager.

    Args:
        answer: called with each request; sends the response.
        port: 0 chooses a free one.

    Attributes:
        requests: the requests that it received.
        stopping: set when it stops.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[Request], None], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Request)
        self.answer = answer
        self.requests: list[SimpleNamespace] = []
        self.stopping = threading.Event()

    def __enter__(self) -> Server:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connections that the client broke."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def kubeconfig(self, folder: Path, user: dict[str, Any] | None = None) -> Path:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "scripted",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}],
            "users": [{"name": "u", "user": {"token": "t0"} if user is None else user}],
            "contexts": [{"name": "scripted", "context": {"cluster": "c", "user": "u"}}],
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path
