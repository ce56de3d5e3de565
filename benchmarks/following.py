"""Measure following a log of 200,000 lines, with lower bounds.

    python benchmarks/following.py

The log is served by another process, so that only the client's CPU time counts. The lower bounds are reading the same
bytes from the same server, and splitting them into lines. Each value is the best of three.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from aksgpu import logs
from aksgpu.kube import Kube

RUNS = 3
LINES = 200_000
LINES_PER_SECOND = 50
"""Lines per second of the program that wrote the log."""
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def make_log() -> list[bytes]:
    """Return the lines with their timestamps and newlines."""
    lines = []
    for number in range(LINES):
        at = BEGIN + timedelta(seconds=number / LINES_PER_SECOND)
        timestamp = at.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
        text = f"step {number} of {LINES}: loss {1 / (number + 1):.6f}, {number % 97} examples a second"
        lines.append(f"{timestamp} {text}\n".encode())
    return lines


class Handler(BaseHTTPRequestHandler):
    """Serves one pod, which runs until its log has been followed once."""

    lines = make_log()
    followed = False

    def do_GET(self) -> None:
        """Answer with the log or the pod."""
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        if not url.path.endswith("/log"):
            self.send(json.dumps(self.pod()).encode(), "application/json")
            return
        lines = self.lines
        if "sinceTime" in query:
            since = query["sinceTime"][:19].encode()
            lines = [line for line in lines if line[:19] >= since]
        if "tailLines" in query:
            lines = lines[-int(query["tailLines"]) :]
        self.send(b"".join(lines), "text/plain")
        if query.get("follow") == "true":
            Handler.followed = True

    def send(self, body: bytes, content_type: str) -> None:
        """Send a response."""
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def pod(self) -> dict[str, Any]:
        """Return the Pod object."""
        state: dict[str, Any] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        if self.followed:
            state = {"terminated": {"exitCode": 0, "startedAt": "2026-01-01T00:00:00Z"}}
        entry = {"name": "main", "restartCount": 0, "containerID": "containerd://1", "state": state}
        return {
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default", "uid": "1"},
            "spec": {"nodeName": "n", "restartPolicy": "Never", "containers": [{"name": "main"}]},
            "status": {"phase": "Succeeded" if self.followed else "Running", "containerStatuses": [entry]},
        }

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing."""


def serve(ready: Connection) -> None:
    """Serve until the process is terminated."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ready.send(server.server_port)
    server.serve_forever()


def connect(port: int, folder: Path) -> Kube:
    """Return a client of the server."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return Kube.from_kubeconfig(path)


def read_bytes(kube: Kube) -> int:
    """Read the log, and return the number of lines."""
    with kube.log("p", timestamps=True) as stream:
        return stream.read().count(b"\n")


def read_lines(kube: Kube) -> int:
    """Read the log line by line, and return the number of lines."""
    with kube.log("p", timestamps=True) as stream:
        return sum(1 for _ in stream.lines())


def follow(kube: Kube) -> int:
    """Follow the log, and return the number of lines."""
    aks = SimpleNamespace(name="c", kube=kube)
    return sum(1 for _ in logs.follow(aks, "p"))


def measure(work: Callable[[Kube], int]) -> float:
    """Return the CPU seconds of the best run, each against a new server."""
    best = float("inf")
    for _ in range(RUNS):
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
        server.start()
        with tempfile.TemporaryDirectory() as folder:
            kube = connect(ours.recv(), Path(folder))
            begin = time.process_time()
            lines = work(kube)
            best = min(best, time.process_time() - begin)
            kube.close()
        server.terminate()
        server.join()
        assert lines == LINES, lines
    return best


def main() -> None:
    """Measure and print."""
    following = measure(follow)
    print(f"following {LINES:,} lines ({sum(map(len, Handler.lines)) / 1e6:.0f} MB): {following:.2f} s of CPU")
    for name, work in (("reading the bytes", read_bytes), ("splitting them into lines", read_lines)):
        floor = measure(work)
        print(f"{name}: {floor:.3f} s of CPU, ratio {following / floor:.1f}")


if __name__ == "__main__":
    main()
