"""The background process of the laptop AKS: one asyncio loop that serves Resource Manager and every cluster over TLS.

    python -m aksgpu.local.server --home DIR

Started by :func:`aksgpu.local.start`; run by hand it stays in the foreground and logs to stderr. SIGTERM and an
administrator's request end it in good order, and so does an hour without anything to do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import gc
import hmac
import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from aksgpu.errors import AksGpuError, LaptopError
from aksgpu.local import logfile, tls
from aksgpu.local.arm import ResourceManager
from aksgpu.local.arm.errors import ArmError
from aksgpu.local.arm.manager import PRICES
from aksgpu.local.clusters import Clusters
from aksgpu.local.door import Door
from aksgpu.local.home import home as user_home
from aksgpu.local.process import installed_version
from aksgpu.local.settings import Settings

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
CLUSTERS = "/k8s/clusters/"
LARGEST_BODY = 4 * 1024 * 1024
GRACE_SECONDS = 0.5
CLOSE_SECONDS = 12.0
HOME_SECONDS = 2.0


class Laptop:
    """The server.

    Args:
        home: where everything is kept; this process owns it while it lives.
        settings: how fast time passes, and when to stop by itself.
    """

    def __init__(self, home: Path, settings: Settings) -> None:
        self._home, self._settings = home, settings
        self._clusters = Clusters(home, settings, self._is_entra_token)
        self._manager = ResourceManager(home, self._clusters, settings)
        self._ended = asyncio.Event()
        self._last_request = time.monotonic()
        self._open_requests = 0
        self._note = ""
        self._tasks: set[asyncio.Task[web.Response]] = set()
        self._door: Door | None = None
        self._token = _token(home / "token")

    async def run(self, ready: Any) -> None:
        """Serve until told to stop; ``ready`` is called with the port as soon as requests are answered."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)
        context = tls.server_context(self._home)
        listener = self._bind()
        await self._start()
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=GRACE_SECONDS)
        await runner.setup()
        assert runner.server is not None
        self._door = door = Door(listener, runner.server, context)
        door.open()
        port = listener.getsockname()[1]
        self._write_record(port, os.getpid())
        watches = [asyncio.create_task(watch()) for watch in (self._stop_when_idle, self._stop_when_homeless)]
        log.info("serving on port %s, process %s", port, os.getpid())
        ready(port)
        await self._ended.wait()
        log.info("stopping")
        for watch in watches:
            watch.cancel()
        await door.close()
        await runner.cleanup()
        await self._manager.stop()
        try:
            await asyncio.wait_for(self._clusters.close_all(), CLOSE_SECONDS)
        except TimeoutError:
            log.error("clusters did not stop within %s seconds; their pods are found again", CLOSE_SECONDS)
        if self._home.is_dir():
            self._write_record(port, None)

    async def _start(self) -> None:
        """Read everything, while the collector of cycles is off and then told to leave it alone: JSON has none."""
        gc.disable()
        try:
            await self._manager.start()
        finally:
            gc.freeze()
            gc.enable()

    def _bind(self) -> socket.socket:
        """Listen on the former port if it is free, since kubeconfig files name it; on any other if not."""
        former = 0
        with contextlib.suppress(OSError, ValueError, AttributeError):
            former = int(json.loads((self._home / "laptop.json").read_bytes()).get("port") or 0)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, former))
        except OSError:
            listener.bind((LOOPBACK, 0))
            self._note = (
                f"port {former} is taken by another program; kubeconfig files that were written before name it and "
                "have to be fetched again"
            )
            log.warning(self._note)
        return listener

    def _write_record(self, port: int, pid: int | None) -> None:
        record = {"pid": pid, "port": port, "started": datetime.now(UTC).isoformat(), "version": installed_version()}
        tls.write_private(self._home / "laptop.json", json.dumps(record).encode())

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self._door is not None:
            self._door.heard(request)
        path = request.path
        own = path.startswith("/laptop/")
        if not own:
            self._last_request = time.monotonic()
            self._open_requests += 1
        try:
            if path.startswith(CLUSTERS):
                cluster_id, slash, rest = path.removeprefix(CLUSTERS).partition("/")
                if not self._manager.answers(cluster_id, request.remote or LOOPBACK):
                    return _silence(request)
                known = self._manager.knows(cluster_id)
                return await self._clusters.handle(request, cluster_id, slash + rest, known=known)
            if not self._authorized(request) and path.lower() != PRICES:
                return _unauthorized("Authorization" in request.headers)
            if own:
                return await self._administer(request, path)
            return await self._whole(self._manager.handle(request))
        finally:
            if not own:
                self._open_requests -= 1
                self._last_request = time.monotonic()

    async def _whole(self, work: Coroutine[Any, Any, web.Response]) -> web.Response:
        """Finish what was begun: a client that hangs up must not leave half of a change behind."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def _authorized(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)

    def _is_entra_token(self, cluster_id: str, given: str) -> bool:
        return self._manager.uses_entra(cluster_id) and hmac.compare_digest(
            given.encode(errors="surrogateescape"), self._token
        )

    async def _administer(self, request: web.Request, path: str) -> web.Response:
        if path == "/laptop/status" and request.method == "GET":
            busy = self._manager.busy or await self._clusters.busy()
            return web.json_response({"clusters": self._manager.cluster_names, "busy": busy, "note": self._note})
        if path == "/laptop/stop" and request.method == "POST":
            asyncio.get_running_loop().call_later(0.05, self._ended.set)
            return web.json_response({"stopping": True})
        if path == "/laptop/inject" and request.method == "POST":
            return await self._inject(request)
        return web.json_response({"error": {"code": "NotFound", "message": f"nothing at {path}"}}, status=404)

    async def _inject(self, request: web.Request) -> web.Response:
        try:
            details = dict(await request.json())
            done = await self._manager.inject(str(details.pop("fault", "")), details)
        except ArmError as error:
            return web.json_response(error.body(), status=error.status)
        except (ValueError, TypeError) as error:
            return web.json_response({"error": {"code": "BadRequest", "message": str(error)}}, status=400)
        return web.json_response({"done": done})

    async def _stop_when_idle(self) -> None:
        while True:
            await asyncio.sleep(min(30.0, self._settings.idle_seconds / 4))
            if self._open_requests or self._manager.busy or await self._clusters.busy():
                self._last_request = time.monotonic()
            elif time.monotonic() - self._last_request >= self._settings.idle_seconds:
                log.info("idle for %s seconds", self._settings.idle_seconds)
                self._ended.set()

    async def _stop_when_homeless(self) -> None:
        """Whoever deletes the home wants nothing of this laptop any more, and could not reach it to stop it."""
        while self._home.is_dir():
            await asyncio.sleep(HOME_SECONDS)
        log.warning("%s is gone", self._home)
        self._ended.set()


def _silence(request: web.Request) -> web.Response:
    """Hang up on a caller outside the network that an API server is for; the answer reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=403)


def _unauthorized(known: bool) -> web.Response:
    code = "InvalidAuthenticationToken" if known else "AuthenticationFailed"
    text = "The access token is invalid." if known else "The 'Authorization' header is missing."
    body = {"error": {"code": code, "message": f"Authentication failed. {text}"}}
    return web.json_response(body, status=401, headers={"WWW-Authenticate": "Bearer"})


def _token(path: Path) -> bytes:
    """The token, made once."""
    with contextlib.suppress(OSError):
        if len(found := path.read_bytes().strip()) >= 32:
            path.chmod(0o600)
            return found
    tls.write_private(path, secrets.token_urlsafe(32).encode())
    return path.read_bytes().strip()


def _own(home: Path) -> int:
    """Take the lock that says that this process owns the directory; held until the process ends."""
    descriptor = os.open(home / "laptop.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(50):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)  # whoever asks whether we run holds it for a moment
        else:
            return descriptor
    raise LaptopError(f"another process already serves {home}", hint="Run `aksgpu local status`.")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="python -m aksgpu.local.server", description="The laptop AKS.")
    parser.add_argument("--home", type=Path, default=user_home(), help="directory of its files (%(default)s)")
    parser.add_argument("--time-scale", type=float, default=defaults.time_scale, help="pace of simulated operations")
    parser.add_argument("--idle-seconds", type=float, default=defaults.idle_seconds, help="stop after so long unused")
    parser.add_argument("--ready-fd", type=int, help="go to the background and report to this file descriptor")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server; returns the exit status."""
    arguments = _arguments(argv)
    descriptor: int | None = arguments.ready_fd
    if descriptor is not None:
        os.set_inheritable(descriptor, False)
        if os.fork():
            os._exit(0)

    def report(**message: Any) -> None:
        nonlocal descriptor
        if descriptor is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(descriptor, json.dumps(message).encode() + b"\n")
            os.close(descriptor)
            descriptor = None

    try:
        arguments.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        logfile.set_up(None if descriptor is None else arguments.home / "laptop.log")
        lock = _own(arguments.home)
        settings = Settings(time_scale=arguments.time_scale, idle_seconds=arguments.idle_seconds)
        asyncio.run(_serve(arguments.home, settings, report))
        os.close(lock)
    except AksGpuError as error:
        log.error("%s", error)
        report(error=error.message, hint=error.hint)
        return 1
    except Exception as error:
        log.exception("the laptop AKS ended")
        report(error=f"the laptop AKS did not start: {error!r}")
        return 1
    return 0


async def _serve(home: Path, settings: Settings, report: Any) -> None:
    await Laptop(home, settings).run(lambda port: report(ready=True, port=port))


if __name__ == "__main__":
    sys.exit(main())
