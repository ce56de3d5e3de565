"""A Resource Manager that answers by script, over real HTTPS, for what the laptop AKS does not do; and the laptop."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

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
    headers: dict[str, str]
    body: Any


class Script:
    """An HTTPS server on the loopback address. ``{base}`` in an answer's headers and body is its own address."""

    def __init__(self, folder: Path, *, tls: bool = True) -> None:
        self.rules: list[tuple[str, re.Pattern[str], list[Answer]]] = []
        self.seen: list[Seen] = []
        self.loop = asyncio.new_event_loop()
        self.ca_file = folder / "ca.pem"
        self._context: ssl.SSLContext | None = None
        if tls:
            authority = trustme.CA()
            authority.cert_pem.write_to_path(self.ca_file)
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(self._context)
        self.thread = threading.Thread(target=self.loop.run_forever, name="script", daemon=True)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self.loop).result(10)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self._context).start()
        scheme = "https" if self._context else "http"
        self.base_url = f"{scheme}://127.0.0.1:{self.runner.addresses[0][1]}"

    def stop(self) -> None:
        """End it. Twice is fine."""
        if self.loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    def on(self, method: str, pattern: str, *answers: Answer) -> None:
        """Give these answers in turn, the last one for ever; a later rule for the same goes first."""
        self.rules.insert(0, (method, re.compile(pattern, re.I), list(answers)))

    def count(self, method: str, pattern: str) -> int:
        return sum(1 for each in self.seen if each.method == method and re.search(pattern, each.path, re.I))

    async def _handle(self, request: web.Request) -> web.Response:
        text = await request.text()
        body = json.loads(text) if text else None
        self.seen.append(Seen(request.method, request.path, dict(request.query), dict(request.headers), body))
        for method, pattern, answers in self.rules:
            if method == request.method and pattern.search(request.path):
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                headers = {name: value.replace("{base}", self.base_url) for name, value in answer.headers.items()}
                if answer.body is None:
                    return web.Response(status=answer.status, headers=headers)
                shown = json.dumps(answer.body).replace("{base}", self.base_url)
                return web.Response(status=answer.status, headers=headers, text=shown, content_type="application/json")
        error = {"error": {"code": "ResourceNotFound", "message": f"no rule for {request.method} {request.path}"}}
        return web.json_response(error, status=404)


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    server = Script(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def plain_script(tmp_path: Path) -> Iterator[Script]:
    server = Script(tmp_path, tls=False)
    yield server
    server.stop()


@pytest.fixture
def scripted(script: Script, tmp_path: Path) -> Azure:
    """The library's view of the scripted Resource Manager."""
    return aksgpu.connect(Endpoint(script.base_url, SUBSCRIPTION, "secret-token", script.ca_file, tmp_path / "home"))


@pytest.fixture
def azure(laptop: Endpoint) -> Azure:  # noqa: F811
    """The library's view of the laptop AKS."""
    return aksgpu.connect(laptop)
