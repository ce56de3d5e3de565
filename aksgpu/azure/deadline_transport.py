"""The SDK's HTTP transport, limited by the deadline of the call.

A socket's timeout applies to each read separately: a server that sends one byte per second could hold a request
forever. Here the timeout of each read is the remaining time of the call, so the whole response has to arrive within it.
"""

from __future__ import annotations

import http.client
import io
import math
import socket
import time
from contextvars import ContextVar
from typing import Any

from azure.core.pipeline.transport import RequestsTransport
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Retry
from urllib3.connection import HTTPConnection, HTTPSConnection

from aksgpu.azure import throttling

__all__ = ["LAST_ATTEMPT", "DeadlineTransport"]

LAST_ATTEMPT = 1.0
"""Seconds for a request that begins when no time is left."""

_read_end: ContextVar[float] = ContextVar("aksgpu_azure_read_end", default=math.inf)
"""When the response of the current request has to be complete, in seconds of the monotonic clock."""


class DeadlineTransport(RequestsTransport):  # type: ignore[misc]  # the SDK is not type-checked here
    """A transport whose requests end when the time of the call is up."""

    def _init_session(self, session: Any) -> None:
        super()._init_session(session)
        for scheme in ("http://", "https://"):
            session.mount(scheme, _DeadlineAdapter(max_retries=Retry(False, read=False)))

    def send(self, request: Any, **options: Any) -> Any:
        """Send a request, with timeouts that are no longer than the time that is left."""
        left = max(LAST_ATTEMPT, throttling.current().left)
        connection_timeout = options.get("connection_timeout", self.connection_config.timeout)
        read_timeout = options.get("read_timeout", self.connection_config.read_timeout)
        options["connection_timeout"] = min(left, connection_timeout)
        options["read_timeout"] = min(left, read_timeout)
        _read_end.set(time.monotonic() + left)
        return super().send(request, **options)

    def sleep(self, duration: float) -> None:
        """Sleep between two attempts, but not beyond the deadline."""
        time.sleep(min(duration, throttling.current().left))


class _SocketReader(io.RawIOBase):
    """Reads from a socket until the response has to be complete."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._file = connection.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._socket.fileno()

    def readinto(self, buffer: Any) -> int | None:
        left = _read_end.get() - time.monotonic()
        if left <= 0:
            raise TimeoutError("the response was not complete in time")
        timeout = self._socket.gettimeout()
        if math.isfinite(left):
            self._socket.settimeout(left if timeout is None else min(left, timeout))
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response that is read through :class:`_SocketReader`, including its status line and headers."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_SocketReader(sock))


class _Connection(HTTPConnection):
    response_class = _Response


class _TlsConnection(HTTPSConnection):
    response_class = _Response


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _DeadlineAdapter(HTTPAdapter):
    """An adapter whose connection pools use the classes above."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager
