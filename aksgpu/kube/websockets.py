"""WebSockets of a Kubernetes API server, for programs in a container and for port forwarding.

Each message begins with one byte that names its channel.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from aksgpu.errors import KubernetesError, Unreachable
from aksgpu.kube.locked_socket import LockedSocket
from aksgpu.kube.status_errors import UNREACHABLE_HINT, from_response

__all__ = ["ChannelSocket", "connect"]


class ChannelSocket:
    """A WebSocket whose messages belong to numbered channels. Made by :func:`connect`.

    One thread may send while another receives.

    Attributes:
        protocol: the subprotocol that the server chose, such as ``v5.channel.k8s.io``.
    """

    def __init__(self, connection: Any, where: str) -> None:
        if isinstance(connection.sock, ssl.SSLSocket):
            connection.sock = LockedSocket(connection.sock)
        self._connection = connection
        self._where = where
        self.protocol = str(connection.subprotocol or "")

    def set_send_timeout(self, timeout: float) -> None:
        """Set how long :meth:`send` may wait without progress on a TLS connection, in seconds.

        Without it, the time limit of the latest :meth:`receive` also applies to :meth:`send` in another thread.
        """
        if isinstance(self._connection.sock, LockedSocket):
            self._connection.sock.set_send_timeout(timeout)

    def send(self, channel: int, data: bytes) -> None:
        """Send one message.

        Raises:
            Unreachable: the connection is broken.
        """
        from websocket import WebSocketException

        try:
            self._connection.send_binary(bytes([channel]) + data)
        except (WebSocketException, OSError) as broken:
            raise self._broken(broken) from None

    def receive(self, timeout: float | None) -> tuple[int, bytes] | None:
        """Return the next message: its channel and its data. None if the server has closed the connection.

        Args:
            timeout: seconds to wait; None means no limit.

        Raises:
            TimeoutError: no message came in time. A later call goes on with the same message.
            Unreachable: the connection is broken.
        """
        import websocket

        self._connection.settimeout(timeout)
        try:
            while True:
                opcode, data = self._connection.recv_data()
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    return None
                if data:
                    return data[0], bytes(data[1:])
        except websocket.WebSocketTimeoutException:
            raise TimeoutError from None
        except (websocket.WebSocketException, OSError) as broken:
            raise self._broken(broken) from None

    def close(self) -> None:
        """Close the connection without waiting for the server. A second call does nothing."""
        self._connection.close(timeout=0)

    def abort(self) -> None:
        """End the connection at once, also while another thread sends or receives. A second call does nothing."""
        with contextlib.suppress(OSError, AttributeError):  # it has ended already
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._connection.shutdown()

    def _broken(self, error: Exception) -> Unreachable:
        message = f"{self._where}: the connection broke ({type(error).__name__})"
        return Unreachable(message, hint=UNREACHABLE_HINT, original=error)


def connect(
    configuration: Any,
    url: str,
    headers: Sequence[tuple[str, str]],
    protocols: Sequence[str],
    *,
    timeout: float,
    where: str,
) -> ChannelSocket:
    """Open a WebSocket.

    Args:
        configuration: of the ``kubernetes`` package: TLS and proxy.
        url: with the scheme ``https`` or ``http``.
        headers: further headers of the request.
        protocols: the subprotocols that the caller speaks, the best first.
        timeout: seconds for the connection and the handshake.
        where: words for the request, for errors.

    Raises:
        KubernetesError: the server refused the request; the subclass for its status.
        Unreachable: there was no response.
    """
    import websocket

    options: dict[str, Any] = {
        "header": [f"{name}: {value}" for name, value in headers],
        "subprotocols": list(protocols),
        "timeout": timeout,
        "enable_multithread": True,
        "skip_utf8_validation": True,
        "suppress_origin": True,
        "sslopt": _tls_options(configuration),
        **_proxy_options(configuration),
    }
    try:
        connection = websocket.create_connection("ws" + url.removeprefix("http"), **options)
    except websocket.WebSocketBadStatusException as refused:
        raise _refusal(refused, where) from None
    except (websocket.WebSocketException, OSError) as failed:
        message = f"{where}: no connection ({type(failed).__name__}: {failed})"
        raise Unreachable(message, hint=UNREACHABLE_HINT, original=failed) from None
    return ChannelSocket(connection, where)


def _refusal(refused: Any, where: str) -> KubernetesError:
    """Return the error for a status other than 101."""
    body = refused.resp_body or b""
    if isinstance(body, str):
        body = body.encode()
    if not body:
        message = f"{where}: the API server returned status {refused.status_code}"
        body = json.dumps({"kind": "Status", "message": message}).encode()
    return from_response(refused.status_code, body)


def _tls_options(configuration: Any) -> Mapping[str, Any]:
    """Return the options of websocket-client for TLS."""
    options: dict[str, Any] = {"cert_reqs": ssl.CERT_REQUIRED if configuration.verify_ssl else ssl.CERT_NONE}
    if configuration.verify_ssl and configuration.ssl_ca_cert:
        options["ca_certs"] = configuration.ssl_ca_cert
    if configuration.assert_hostname is not None:
        options["check_hostname"] = configuration.assert_hostname
    if configuration.cert_file:
        options["certfile"] = configuration.cert_file
    if configuration.key_file:
        options["keyfile"] = configuration.key_file
    if configuration.tls_server_name:
        options["server_hostname"] = configuration.tls_server_name
    return options


def _proxy_options(configuration: Any) -> Mapping[str, Any]:
    """Return the options of websocket-client for an HTTP proxy."""
    if not configuration.proxy:
        return {}
    proxy = urlsplit(configuration.proxy)
    options: dict[str, Any] = {
        "http_proxy_host": proxy.hostname,
        "http_proxy_port": proxy.port or 80,
        "proxy_type": "http",
    }
    if proxy.username:
        options["http_proxy_auth"] = (proxy.username, proxy.password or "")
    return options
