"""One HTTP exchange with a Kubernetes API server: connection, credentials, JSON, errors.

The ``kubernetes`` package reads the kubeconfig and provides TLS, proxies and authentication. Its generated models are
not used: they take thirty times as long as the dicts that the API sends. A request is sent once, and once more with
new credentials after a 401. :mod:`aksgpu.kube.retry_policy` decides what else is repeated.

``kubernetes`` and ``urllib3`` are imported inside functions, because importing ``kubernetes`` takes half a second.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self
from urllib.parse import urlencode

from aksgpu import waiting
from aksgpu.common.arguments import shown
from aksgpu.errors import InvalidInput, KubernetesError, Unauthorized, Unreachable
from aksgpu.kube import impersonation, kubeconfig, login, path_names, server_address, websockets
from aksgpu.kube.status_errors import UNREACHABLE_HINT, from_failure, from_response

__all__ = ["Stream", "Transport"]

CONNECT_TIMEOUT = 10.0
"""Seconds that a connection may take."""
READ_TIMEOUT = 30.0
"""Default seconds without a byte after which a connection counts as broken. API servers report a slow etcd earlier."""
SHORTEST_TIMEOUT = 1.0
"""Seconds for a request whose deadline has passed, so that a wait with timeout=0 polls once."""
BLOCK_SIZE = 65536
"""Maximum number of bytes that are read from a response at once."""
LONGEST_RETRY_AFTER = 30.0
"""Longest Retry-After in seconds that is respected. A longer one is shortened."""


class Stream:
    """The body of a response, as it arrives.

    A context manager. The connection is closed at the end of the iteration.
    """

    def __init__(self, response: Any, where: str, connection: Any = None) -> None:
        self._response = response
        self._where = where
        self._socket = getattr(connection, "sock", None)
        self._began = time.monotonic()

    def __iter__(self) -> Iterator[bytes]:
        from urllib3.exceptions import HTTPError

        blocks = self._response.stream(BLOCK_SIZE, decode_content=True)
        try:
            while True:
                self._keep_to_deadline()
                block = next(blocks, None)
                if block is None:
                    return
                yield block
        except HTTPError as broken:
            message = f"{self._where}: the connection broke ({type(broken).__name__})"
            raise Unreachable(message, hint=UNREACHABLE_HINT, original=broken) from None
        finally:
            self.close()

    def _keep_to_deadline(self) -> None:
        """Limit the time of the next block to the deadline, so that a slow body ends in time."""
        left = waiting.time_left()
        if left is None:
            return
        if left == 0 and time.monotonic() - self._began > SHORTEST_TIMEOUT:
            raise Unreachable(f"{self._where}: the time is up before the end of the response", hint=UNREACHABLE_HINT)
        if self._socket is None or self._socket.fileno() < 0:
            return
        limit = self._socket.gettimeout()
        allowed = max(left, SHORTEST_TIMEOUT)
        if limit is None or allowed < limit:
            self._socket.settimeout(allowed)

    def lines(self) -> Iterator[bytes]:
        """Yield each line with its newline, and at the end an unfinished line if there is one."""
        rest: list[bytes] = []
        for block in self:
            *whole, unfinished = block.split(b"\n")
            for line in whole:
                yield b"".join((*rest, line, b"\n"))
                rest.clear()
            if unfinished:
                rest.append(unfinished)
        if rest:
            yield b"".join(rest)

    def read(self) -> bytes:
        """Return the whole body."""
        return b"".join(self)

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        self._response.close()
        self._response.release_conn()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Transport:
    """A connection to one API server, as one user.

    The arguments and errors are those of :meth:`aksgpu.kube.Kube.from_kubeconfig`.

    Attributes:
        context: name of the context.
        namespace: the context's namespace, or ``default``.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, context: str | None, refresh: Callable[[], str] | None
    ) -> None:
        self._path = path
        self._refresh = refresh
        config = kubeconfig.load(path)
        self.context = context or str(config.get("current-context") or "")
        details = login.entry(config, "contexts", self.context, "context")
        self.namespace: str = details.get("namespace") or "default"
        self._configuration, self._impersonation = self._load(config)
        self._client = _api_client(self._configuration)

    @property
    def host(self) -> str:
        """Address of the API server."""
        return str(self._configuration.host)

    def _load(self, config: dict[str, Any]) -> tuple[Any, list[impersonation.Header]]:
        """Return the configuration of the ``kubernetes`` package, and the headers of the user to act as."""
        from kubernetes import client
        from kubernetes import config as loader

        config, user = login.with_credentials(config, self.context, own_token=self._refresh is not None)
        acting_as = impersonation.headers(user, self.context)
        configuration = client.Configuration()
        try:
            server_address.check(config, self.context)
            loader.load_kube_config_from_dict(
                config, context=self.context, client_configuration=configuration, persist_config=False
            )
            server_address.check_certificates(configuration)
        except (loader.ConfigException, OSError, ValueError) as wrong:
            raise InvalidInput(f"context {self.context!r} of the kubeconfig cannot be used: {wrong}") from wrong
        if self._refresh is not None:
            configuration.refresh_api_key_hook = None
            configuration.api_key = {"authorization": f"Bearer {self._refresh()}"}
        elif "auth-provider" in user and not configuration.api_key and not configuration.cert_file:
            raise Unauthorized(
                f"context {self.context!r}: the auth-provider of its kubeconfig gave no token", hint=login.LOGIN_HINT
            )
        configuration.socket_options = _socket_options()
        return configuration, acting_as

    def _renew(self) -> None:
        """Read new credentials from the kubeconfig; keep the old ones if there are none."""
        try:
            fresh, acting_as = self._load(kubeconfig.load(self._path))
        except InvalidInput:  # the file was removed with its cluster; the server's own error says more
            return
        old = self._configuration
        if fresh.host != old.host:  # another cluster: the caller must connect to it on purpose
            return
        if (fresh.api_key, fresh.cert_file) == (old.api_key, old.cert_file):
            return
        self._configuration = fresh
        self._impersonation = acting_as
        self._client = _api_client(fresh)

    def open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        read_timeout: float | None = None,
    ) -> Stream:
        """Send a request once, and return the body if the status is a success.

        Args:
            method: HTTP method.
            path: Kubernetes path, such as ``/api/v1/nodes``.
            params: query parameters; those that are None are omitted.
            body: sent as JSON, also for apply patches, since JSON is YAML.
            content_type: media type of the body.
            accept: media type of the response.
            read_timeout: as for :data:`READ_TIMEOUT`, which None means. :func:`aksgpu.waiting.deadline` may allow less.

        Raises:
            KubernetesError: the subclass for the server's error; Unreachable if there was no response.
            Interrupted: the user interrupted the request.
        """
        url = self.host + path_names.check_path(path, method) + _query(params or {})
        content = None if body is None else json.dumps(body).encode()
        if read_timeout is None:
            read_timeout = READ_TIMEOUT
        try:
            response = self._send(method, url, content, content_type, accept, read_timeout)
            if response.status == 401:  # once more, with the same credentials if there are no newer ones
                response.drain_conn()
                self._renew()
                response = self._send(method, url, content, content_type, accept, read_timeout)
            stream = Stream(response, f"{method} {path}", response.connection)
            if response.status < 300:
                return stream
            refused = from_response(response.status, stream.read())
        except KeyboardInterrupt:
            raise waiting.Interrupted(f"{method} {path} was interrupted. It may have been carried out.") from None
        refused.retry_after = _retry_after(response.headers.get("Retry-After"), refused)
        raise refused

    def open_websocket(
        self, path: str, params: Sequence[tuple[str, Any]], protocols: Sequence[str]
    ) -> websockets.ChannelSocket:
        """Open a WebSocket once, and once more with new credentials after a 401.

        Args:
            path: Kubernetes path of a subresource such as ``exec``.
            params: query parameters; a name may occur several times.
            protocols: the subprotocols that the caller speaks, the best first.

        Raises:
            KubernetesError: the subclass for the server's error; Unreachable if there was no response.
        """
        query = urlencode([(name, _text(value)) for name, value in params])
        url = f"{self.host}{path_names.check_path(path, 'GET')}?{query}"
        try:
            return self._connect(url, protocols, f"GET {path}")
        except Unauthorized:
            self._renew()
            return self._connect(url, protocols, f"GET {path}")

    def _connect(self, url: str, protocols: Sequence[str], where: str) -> websockets.ChannelSocket:
        left = waiting.time_left()
        timeout = CONNECT_TIMEOUT if left is None else min(CONNECT_TIMEOUT, max(left, SHORTEST_TIMEOUT))
        headers = [("User-Agent", "aksgpu"), *self._credentials()]
        return websockets.connect(self._configuration, url, headers, protocols, timeout=timeout, where=where)

    def _credentials(self) -> list[tuple[str, str]]:
        """Return the headers that say who sends a request."""
        login_headers = [(each["key"], each["value"]) for each in self._configuration.auth_settings().values()]
        return [*login_headers, *self._impersonation]

    def _send(
        self, method: str, url: str, content: bytes | None, content_type: str, accept: str, read_timeout: float
    ) -> Any:
        from urllib3 import HTTPHeaderDict, Timeout
        from urllib3.exceptions import HTTPError

        headers = HTTPHeaderDict({"Accept": accept, "User-Agent": "aksgpu"})
        if content is not None:
            headers["Content-Type"] = content_type
        for name, value in self._credentials():
            headers.add(name, value)
        left = waiting.time_left()
        most = math.inf if left is None else max(left, SHORTEST_TIMEOUT)
        try:
            return self._client.rest_client.pool_manager.request(
                method,
                url,
                body=content,
                headers=headers,
                preload_content=False,
                timeout=Timeout(connect=min(CONNECT_TIMEOUT, most), read=min(read_timeout, most)),
                retries=False,
                redirect=False,
            )
        except HTTPError as failed:
            raise from_failure(failed, f"the Kubernetes API server of {self.context!r}", url) from None

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()


def _api_client(configuration: Any) -> Any:
    from kubernetes.client import ApiClient

    return ApiClient(configuration)


def _retry_after(header: str | None, refused: KubernetesError) -> float | None:
    """Return the seconds that the server asks to wait; None if it does not say."""
    details = refused.status.get("details") or {}
    seconds = header if header is not None else details.get("retryAfterSeconds")
    if seconds is None or not str(seconds).isdecimal():
        return None
    return min(float(seconds), LONGEST_RETRY_AFTER)


def _query(params: Mapping[str, Any]) -> str:
    """Return the query with its question mark; empty if no parameter has a value."""
    given = {key: _text(value) for key, value in params.items() if value is not None}
    for key, value in given.items():
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidInput(f"`{key}` must be text that UTF-8 can encode, got {shown(value)}")
    return "?" + urlencode(given) if given else ""


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _socket_options() -> list[tuple[int, int, int]]:
    """Return options for TCP keepalive. AKS' load balancer drops idle connections after four minutes."""
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, seconds in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):  # some systems lack it
            options.append((socket.IPPROTO_TCP, getattr(socket, name), seconds))
    return options
