"""Fixtures: a laptop AKS, and a scripted Resource Manager over HTTPS for responses that the laptop does not give."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import pytest
import trustme
from scripted import Request, Server

import aksgpu
from aksgpu.azure import Azure
from aksgpu.local import Endpoint
from aksgpu.local.testing import laptop  # noqa: F401  # a fixture

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"


@dataclass
class Answer:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Seen:
    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: Any


class Script(Server):
    """A scripted Resource Manager. In headers and bodies, ``{base}`` is replaced by the server's own address."""

    def __init__(self, folder: Path, *, tls: bool = True) -> None:
        super().__init__(self._respond)
        self.rules: list[tuple[str, re.Pattern[str], list[Answer]]] = []
        self.seen: list[Seen] = []
        self.ca_file = folder / "ca.pem"
        if tls:
            authority = trustme.CA()
            authority.cert_pem.write_to_path(self.ca_file)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        scheme = "https" if tls else "http"
        self.base_url = f"{scheme}://127.0.0.1:{self.server_port}"
        self._running = False

    def __enter__(self) -> Self:
        super().__enter__()
        self._running = True
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the server if it is running."""
        if self._running:
            self._running = False
            super().__exit__()

    def on(self, method: str, pattern: str, *answers: Answer) -> None:
        """Give these answers in turn, and repeat the last one. A later rule for the same request comes first."""
        self.rules.insert(0, (method, re.compile(pattern, re.I), list(answers)))

    def count(self, method: str, pattern: str) -> int:
        return sum(1 for each in self.seen if each.method == method and re.search(pattern, each.path, re.I))

    def _respond(self, request: Request) -> None:
        path = unquote(request.route)
        self.seen.append(Seen(request.command, path, request.query, request.headers, request.body))
        answer = self._answer_to(request.command, path)
        content = b""
        if isinstance(answer.body, bytes):
            content = answer.body
        elif answer.body is not None:
            content = json.dumps(answer.body).replace("{base}", self.base_url).encode()
        request.send_response(answer.status)
        for name, value in answer.headers.items():
            request.send_header(name, value.replace("{base}", self.base_url))
        if content:
            request.send_header("Content-Type", "application/json")
        if answer.status != 204:
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def _answer_to(self, method: str, path: str) -> Answer:
        for rule_method, pattern, answers in self.rules:
            if rule_method == method and pattern.search(path):
                return answers.pop(0) if len(answers) > 1 else answers[0]
        return Answer(404, {"error": {"code": "ResourceNotFound", "message": f"no rule for {method} {path}"}})


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    with Script(tmp_path) as server:
        yield server


@pytest.fixture
def plain_script(tmp_path: Path) -> Iterator[Script]:
    with Script(tmp_path, tls=False) as server:
        yield server


@pytest.fixture
def scripted(script: Script, tmp_path: Path) -> Azure:
    """A connection to the scripted Resource Manager."""
    return aksgpu.connect(Endpoint(script.base_url, SUBSCRIPTION, "secret-token", script.ca_file, tmp_path / "home"))


@pytest.fixture
def azure(laptop: Endpoint) -> Azure:  # noqa: F811
    """A connection to the laptop AKS."""
    return aksgpu.connect(laptop)
