"""The background process of the laptop AKS: one asyncio loop that serves Resource Manager and every cluster over TLS.

:func:`aksgpu.local.start` starts it and passes it the lock of its home and the environment. It stops on SIGTERM and
after an hour without activity.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hmac
import logging
import os
import resource
import secrets
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import HttpVersion11, web

from aksgpu import __version__
from aksgpu.common.home import home as user_home
from aksgpu.common.private_files import write_private
from aksgpu.errors import AksGpuError, LaptopError
from aksgpu.local import managed_identity, server_log, tls
from aksgpu.local.arm import ResourceManager
from aksgpu.local.arm.arm_errors import ArmError
from aksgpu.local.arm.reference_data import TENANT
from aksgpu.local.arm.resource_manager import METADATA, PRICES
from aksgpu.local.cluster_runtime import Clusters
from aksgpu.local.connection_limit import ConnectionLimiter
from aksgpu.local.process import LOOPBACK, read_record, write_record
from aksgpu.local.settings import Settings

log = logging.getLogger("aksgpu.local.server")  # this module runs as __main__

CLUSTERS = "/k8s/clusters/"
KUBERNETES_ROOTS = ("api", "apis", "healthz", "livez", "openapi", "readyz", "version")
"""First segments of Kubernetes' paths. Resource Manager has none of them, apart from the prices."""
MAX_BODY_BYTES = 4 * 1024 * 1024
SHUTDOWN_SECONDS = 0.5
"""Timeout for open requests when the process stops."""
MAX_OPEN_FILES = 65_536
"""The limit on open files that the process sets for itself, if the system allows as many."""
COLLECTOR_THRESHOLDS = (20_000, 20, 50)
"""When the garbage collector runs. With Python's defaults, it would run 28 times as often, and look for cycles among
objects that have none: nearly all of them are the JSON of the clusters' objects."""
IDLE_CHECK_SECONDS = 5.0
"""Maximum time between two checks whether the process is still in use."""


class Laptop:
    """The server.

    Args:
        home: the directory of all files. This process owns it.
        settings: the laptop's settings.
        lock: the file descriptor of the home's lock.
    """

    def __init__(self, home: Path, settings: Settings, lock: int) -> None:
        self._home = home
        self._settings = settings
        self._lock = lock
        self._token = _read_token(home / "token")
        self._clusters = Clusters(home, settings, self._is_entra_token)
        self._manager = ResourceManager(home, self._clusters, settings)
        self._stopping = asyncio.Event()
        self._last_request = time.monotonic()
        self._open_requests = 0
        self._note = ""
        self._management_requests: set[asyncio.Task[web.Response]] = set()

    async def run(self) -> None:
        """Serve until the process is stopped."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        context = tls.server_context(self._home)
        listener = self._bind()
        # Objects that were read from disk have no reference cycles, so the garbage collector can ignore them.
        gc.disable()
        await self._manager.start()
        gc.freeze()
        gc.enable()
        gc.set_threshold(*COLLECTOR_THRESHOLDS)
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle, expect_handler=_answer_expectation)
        # aiohttp would refuse unknown encodings with a plain text before a handler could refuse them with JSON.
        runner = web.AppRunner(
            app, access_log=None, auto_decompress=False, handler_cancellation=True, shutdown_timeout=SHUTDOWN_SECONDS
        )
        await runner.setup()
        assert runner.server is not None
        self._limiter = ConnectionLimiter(listener, runner.server, context)
        accepting = asyncio.create_task(self._limiter.accept())
        port = listener.getsockname()[1]
        log.info("serving on port %s, process %s", port, os.getpid())
        started = datetime.now(UTC).isoformat()
        self._last_request = time.monotonic()  # the start may have taken longer than the process may be idle
        await self._wait_until_unused(pid=os.getpid(), port=port, started=started, version=__version__)
        log.info("stopping")
        accepting.cancel()
        await runner.cleanup()
        await self._manager.stop()
        await self._clusters.close_all()
        if self._owns_home():
            write_record(self._home, port=port)

    def _bind(self) -> socket.socket:
        """Bind the last port if it is free, because kubeconfig files contain it. Otherwise, bind any port."""
        last_port = read_record(self._home).get("port") or 0
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, last_port))
        except OSError:
            listener.bind((LOOPBACK, 0))
            reason = f"another program uses port {last_port}"
            self._note = f"{reason}: get new kubeconfig files, because the existing ones contain this port"
            log.warning(self._note)
        return listener

    def _owns_home(self) -> bool:
        """Return whether this process still holds the lock of the home. A user may have deleted the directory."""
        with contextlib.suppress(OSError):
            return os.path.samestat((self._home / "laptop.lock").stat(), os.fstat(self._lock))
        return False

    async def _wait_until_unused(self, **record: Any) -> None:
        """Wait until the process is stopped, has been idle for too long, or has lost its home.

        Args:
            **record: the content of ``laptop.json`` during that time. The file is written again if it changes.
        """
        idle = self._settings.idle_seconds
        while not self._stopping.is_set() and self._owns_home() and time.monotonic() - self._last_request < idle:
            if read_record(self._home).get("pid") != os.getpid():
                with contextlib.suppress(OSError):  # the disk is full or too many files are open; try again later
                    write_record(self._home, **record)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), min(IDLE_CHECK_SECONDS, idle / 4))
            if self._open_requests or await self._busy():
                self._last_request = time.monotonic()

    async def _busy(self) -> bool:
        return self._manager.busy or await self._clusters.busy()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self._limiter.request_received(request)
        _check_headers(request)
        if request.path.startswith("/laptop/"):
            return await self._administer(request) if self._is_authorized(request) else _unauthorized(request)
        self._open_requests += 1
        try:
            return await self._route(request)
        finally:
            self._open_requests -= 1
            self._last_request = time.monotonic()

    async def _route(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        is_short = path.split("/")[1] in KUBERNETES_ROOTS and path.lower() != PRICES
        if path.startswith(CLUSTERS) or is_short:
            if is_short:
                cluster_id = self._clusters.find_cluster(request)
                slash, rest = path[:1], path[1:]
            else:
                cluster_id, slash, rest = path.removeprefix(CLUSTERS).partition("/")
            if not self._manager.allows_address(cluster_id, request.remote or LOOPBACK):
                return _abort_connection(request)
            exists = self._manager.has_cluster(cluster_id)
            return await self._clusters.handle(request, cluster_id, slash + rest, exists=exists)
        if path == managed_identity.PATH:
            return self._issue_token(request)
        if self._is_authorized(request) or path.lower() in (METADATA, PRICES):
            return await self._complete(self._manager.handle(request))
        return _unauthorized(request)

    async def _complete(self, work: Coroutine[Any, Any, web.Response]) -> web.Response:
        """Complete a request even if its client disconnects, so that no change is left incomplete."""
        task = asyncio.create_task(work)
        self._management_requests.add(task)
        task.add_done_callback(self._management_requests.discard)
        return await asyncio.shield(task)

    def _is_authorized(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._is_token(given.strip())

    def _is_token(self, given: str) -> bool:
        is_own = hmac.compare_digest(given.encode(errors="surrogateescape"), self._token)
        return is_own or managed_identity.is_valid(self._token, given)

    def _issue_token(self, request: web.Request) -> web.Response:
        """Answer a request of a client that logs in with the managed identity."""
        given = request.headers.get("X-IDENTITY-HEADER", "")
        if not hmac.compare_digest(given.encode(errors="surrogateescape"), self._token):
            message = "IDENTITY_HEADER must be the content of the file `token` in the laptop's directory"
            return web.json_response({"statusCode": 401, "message": message}, status=401)
        return web.json_response(managed_identity.token_response(self._token, TENANT, request.query))

    def _is_entra_token(self, cluster_id: str, given: str) -> bool:
        return self._manager.uses_entra(cluster_id) and self._is_token(given)

    async def _administer(self, request: web.Request) -> web.Response:
        if (request.method, request.path) == ("GET", "/laptop/status"):
            state = {"clusters": self._manager.cluster_names, "busy": await self._busy(), "note": self._note}
            return web.json_response(state)
        try:
            if (request.method, request.path) != ("POST", "/laptop/inject"):
                raise ArmError(404, "NotFound", "Send GET /laptop/status or POST /laptop/inject.")
            details = dict(await request.json())
            done = await self._manager.inject(str(details.pop("fault", "")), details)
        except ArmError as error:
            return web.json_response(error.body(), status=error.status)
        except (ValueError, TypeError, RecursionError, web.RequestPayloadError) as error:
            return web.json_response(ArmError(400, "BadRequest", str(error)).body(), status=400)
        return web.json_response({"done": done})


def _check_headers(request: web.Request) -> None:
    """Raise a 400 error for a header that is not UTF-8, except for a token. Many parts of a response quote headers."""
    for name, value in request.raw_headers:
        if value.isascii() or name.lower() == b"authorization":
            continue
        try:
            value.decode()
        except UnicodeDecodeError:
            text = f"400 Bad Request: the header {name.decode(errors='replace')} is not valid UTF-8\n"
            raise web.HTTPBadRequest(text=text) from None


async def _answer_expectation(request: web.Request) -> None:
    """Answer a request with an ``Expect`` header before its body arrives."""
    if request.version < HttpVersion11:
        return
    expected = request.headers.get("Expect", "")
    if not expected.isascii():
        raise web.HTTPBadRequest(text="400 Bad Request: the header Expect has a character that is not ASCII\n")
    if expected.lower() != "100-continue":
        raise web.HTTPExpectationFailed(text=f"417 Expectation Failed: only 100-continue is known, got {expected}\n")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # The 100 response is not part of the response.


def _abort_connection(request: web.Request) -> web.Response:
    """Close the connection of a client whose address is not authorized. It does not receive the response."""
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


def _read_token(path: Path) -> bytes:
    """Return the token of Resource Manager. Create it the first time."""
    if not path.exists() or path.stat().st_size < 32:
        write_private(path, secrets.token_urlsafe(32).encode())
    path.chmod(0o600)
    return path.read_bytes().strip()


def _raise_file_limit() -> None:
    """Allow as many open files as the system does. Each connection and each pod needs some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def main() -> None:
    """Serve in the background. The only argument is the file descriptor of the home's lock."""
    if os.fork():
        os._exit(0)
    lock = int(sys.argv[1])
    home = user_home()
    os.set_inheritable(lock, False)
    os.chdir(home)
    server_log.set_up(home / "laptop.log")
    _raise_file_limit()
    try:
        uvloop.run(Laptop(home, Settings.from_environment(), lock).run())
    except Exception as error:
        unexpected = LaptopError(f"the laptop AKS did not start: {error!r}")
        reported = error if isinstance(error, AksGpuError) else unexpected
        log.error("%s", reported, exc_info=reported is not error)
        write_record(home, port=read_record(home).get("port"), error=reported.message, hint=reported.hint)


if __name__ == "__main__":
    main()
