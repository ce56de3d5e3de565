"""The background process of the laptop AKS: one asyncio loop that serves Resource Manager and every cluster over TLS.

Started by :func:`aksgpu.local.start`, which hands it the lock of its home and tells it everything else through the
environment. SIGTERM ends it in good order, and so does an hour without anything to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hmac
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from aksgpu import __version__
from aksgpu.errors import AksGpuError, LaptopError
from aksgpu.local import server_log, tls
from aksgpu.local.arm import ResourceManager
from aksgpu.local.arm.arm_errors import ArmError
from aksgpu.local.arm.resource_manager import PRICES
from aksgpu.local.cluster_runtime import Clusters
from aksgpu.local.connection_limit import Door
from aksgpu.local.home import home as user_home
from aksgpu.local.home import write_private
from aksgpu.local.process import LOOPBACK, record, write_record
from aksgpu.local.settings import Settings

log = logging.getLogger(__name__)

CLUSTERS = "/k8s/clusters/"
LARGEST_BODY = 4 * 1024 * 1024
GRACE_SECONDS = 0.5
LOOK_SECONDS = 5.0


class Laptop:
    """The server.

    Args:
        home: where everything is kept; this process owns it while it lives.
        settings: how fast time passes, and when to stop by itself.
        lock: the descriptor that says so.
    """

    def __init__(self, home: Path, settings: Settings, lock: int) -> None:
        self._home = home
        self._settings = settings
        self._lock = lock
        self._token = _token(home / "token")
        self._clusters = Clusters(home, settings, self._is_entra_token)
        self._manager = ResourceManager(home, self._clusters, settings)
        self._ended = asyncio.Event()
        self._last_request = time.monotonic()
        self._open_requests = 0
        self._note = ""
        self._changes: set[asyncio.Task[web.Response]] = set()

    async def run(self) -> None:
        """Serve until told to stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._ended.set)
        context = tls.server_context(self._home)
        listener = self._bind()
        gc.disable()  # while everything is read, and then told to leave it alone: what was JSON has no cycles
        await self._manager.start()
        gc.freeze()
        gc.enable()
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # Bodies stay packed: aiohttp would refuse odd encodings as plain text, before a handler could as JSON.
        runner = web.AppRunner(
            app, access_log=None, auto_decompress=False, handler_cancellation=True, shutdown_timeout=GRACE_SECONDS
        )
        await runner.setup()
        assert runner.server is not None
        self._door = Door(listener, runner.server, context)
        accepting = asyncio.create_task(self._door.accept())
        port = listener.getsockname()[1]
        log.info("serving on port %s, process %s", port, os.getpid())
        await self._until_unused(pid=os.getpid(), port=port, started=datetime.now(UTC).isoformat(), version=__version__)
        log.info("stopping")
        accepting.cancel()
        await runner.cleanup()
        await self._manager.stop()
        await self._clusters.close_all()
        if self._owns_home():
            write_record(self._home, port=port)

    def _bind(self) -> socket.socket:
        """Listen on the former port if it is free, since kubeconfig files name it; on any other if not."""
        former = record(self._home).get("port") or 0
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, former))
        except OSError:
            listener.bind((LOOPBACK, 0))
            self._note = f"port {former} is taken by another program: fetch kubeconfig files that name it again"
            log.warning(self._note)
        return listener

    def _owns_home(self) -> bool:
        """Whether the home is still there, and still ours: somebody may have removed it and begun another."""
        with contextlib.suppress(OSError):
            return (self._home / "laptop.lock").samefile(f"/proc/self/fd/{self._lock}")
        return False

    async def _until_unused(self, **said: Any) -> None:
        """Wait until told to stop, or nothing has been done for long, or the home is gone and nobody can reach us.

        What is ``said`` of this process is on record meanwhile, whatever else becomes of the file.
        """
        idle = self._settings.idle_seconds
        while not self._ended.is_set() and self._owns_home() and time.monotonic() - self._last_request < idle:
            if record(self._home).get("pid") != os.getpid():
                with contextlib.suppress(OSError):  # the disk is full, or too many files are open: tried again
                    write_record(self._home, **said)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), min(LOOK_SECONDS, idle / 4))
            if self._open_requests or await self._busy():
                self._last_request = time.monotonic()

    async def _busy(self) -> bool:
        return self._manager.busy or await self._clusters.busy()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self._door.heard(request)
        if request.path.startswith("/laptop/"):
            return await self._administer(request) if self._authorized(request) else _unauthorized(request)
        self._open_requests += 1
        try:
            return await self._serve(request)
        finally:
            self._open_requests -= 1
            self._last_request = time.monotonic()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.startswith(CLUSTERS):
            cluster_id, slash, rest = path.removeprefix(CLUSTERS).partition("/")
            if not self._manager.allows_address(cluster_id, request.remote or LOOPBACK):
                return _silence(request)
            known = self._manager.has_cluster(cluster_id)
            return await self._clusters.handle(request, cluster_id, slash + rest, known=known)
        if self._authorized(request) or path.lower() == PRICES:
            return await self._whole(self._manager.handle(request))
        return _unauthorized(request)

    async def _whole(self, work: Coroutine[Any, Any, web.Response]) -> web.Response:
        """Finish what was begun: a client that hangs up must not leave half of a change behind."""
        task = asyncio.create_task(work)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    def _authorized(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._is_token(given.strip())

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(errors="surrogateescape"), self._token)

    def _is_entra_token(self, cluster_id: str, given: str) -> bool:
        return self._manager.uses_entra(cluster_id) and self._is_token(given)

    async def _administer(self, request: web.Request) -> web.Response:
        if (request.method, request.path) == ("GET", "/laptop/status"):
            state = {"clusters": self._manager.cluster_names, "busy": await self._busy(), "note": self._note}
            return web.json_response(state)
        try:
            if (request.method, request.path) != ("POST", "/laptop/inject"):
                raise ArmError(404, "NotFound", "status or inject")
            details = dict(await request.json())
            done = await self._manager.inject(str(details.pop("fault", "")), details)
        except ArmError as error:
            return web.json_response(error.body(), status=error.status)
        except (ValueError, TypeError, RecursionError, web.RequestPayloadError) as error:
            return web.json_response(ArmError(400, "BadRequest", str(error)).body(), status=400)
        return web.json_response({"done": done})


def _silence(request: web.Request) -> web.Response:
    """Hang up on a caller outside the network that an API server is for; the answer reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=403)


def _unauthorized(request: web.Request) -> web.Response:
    if "Authorization" in request.headers:
        error = ArmError(401, "InvalidAuthenticationToken", "Authentication failed. The access token is invalid.")
    else:
        text = "Authentication failed. The 'Authorization' header is missing."
        error = ArmError(401, "AuthenticationFailed", text)
    return web.json_response(error.body(), status=401, headers={"WWW-Authenticate": "Bearer"})


def _token(path: Path) -> bytes:
    """The token, made once."""
    if not path.exists() or path.stat().st_size < 32:
        write_private(path, secrets.token_urlsafe(32).encode())
    path.chmod(0o600)
    return path.read_bytes().strip()


def main() -> None:
    """Serve in the background. The one argument is the descriptor of the lock that owns the home."""
    if os.fork():
        os._exit(0)
    lock = int(sys.argv[1])
    home = user_home()
    os.set_inheritable(lock, False)
    os.chdir(home)
    server_log.set_up(home / "laptop.log")
    try:
        asyncio.run(Laptop(home, Settings.from_environment(), lock).run())
    except Exception as error:
        said = error if isinstance(error, AksGpuError) else LaptopError(f"the laptop AKS did not start: {error!r}")
        log.error("%s", said, exc_info=said is not error)
        write_record(home, port=record(home).get("port"), error=said.message, hint=said.hint)


if __name__ == "__main__":
    main()
