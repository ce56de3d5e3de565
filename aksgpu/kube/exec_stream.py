"""Commands in containers: the ``exec`` subresource over a WebSocket.

Each message is the number of a channel and data. The channels are standard input (0), output (1), error output (2) and
the final Status (3). The end of the stream alone says nothing about the command: only a Status does.
"""

from __future__ import annotations

import json
import math
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from aksgpu import waiting
from aksgpu.errors import KubernetesError, Unreachable
from aksgpu.kube.status_errors import UNREACHABLE_HINT, from_response, from_status

if TYPE_CHECKING:
    from aksgpu.kube.client import Kube

__all__ = ["ExecResult", "ExecStream", "open_websocket", "run_command"]

STDIN = 0
STDOUT = 1
STDERR = 2
STATUS = 3
CLOSE = 255
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
"""Versions of the protocol, the best first. Version 5 can end the input."""
_SILENCE_SECONDS = 60.0
"""Seconds without a message after which a command's connection counts as broken."""


class ExecResult(NamedTuple):
    """How a command ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class ExecStream:
    """The connection to a command in a container. A context manager.

    Args:
        kube: the API of the cluster.
        pod: name of the pod.
        command: the program and its arguments.
        namespace: the pod's namespace; None uses the context's namespace.
        container: name of the container.
        stdin: whether the command reads standard input.
        silence: seconds without a message after which the connection counts as broken.

    Raises:
        NotFound: there is no such pod.
        Forbidden: the user may not run commands in pods.
        Unreachable: the API server gave no answer.
    """

    def __init__(
        self,
        kube: Kube,
        pod: str,
        command: Sequence[str],
        *,
        namespace: str | None = None,
        container: str | None = None,
        stdin: bool = False,
        silence: float = _SILENCE_SECONDS,
    ) -> None:
        self._where = f"exec in pod {pod}"
        pairs = [("command", word) for word in command]
        if container is not None:
            pairs.append(("container", container))
        pairs += [("stdout", "true"), ("stderr", "true")]
        if stdin:
            pairs.append(("stdin", "true"))
        left = waiting.time_left()
        limit = silence if left is None else max(1.0, min(silence, left))
        self._socket = kube.open_websocket(pod, pairs, namespace, protocols=_PROTOCOLS, timeout=limit)

    def send(self, data: bytes) -> None:
        """Send data to the command's standard input."""
        self._socket.send_binary(bytes([STDIN]) + data)

    def end_input(self) -> None:
        """Close the command's standard input. Only version 5 of the protocol can do that.

        Raises:
            KubernetesError: the server speaks version 4.
        """
        if self._socket.subprotocol != _PROTOCOLS[0]:
            raise KubernetesError(f"{self._where}: the server cannot end the standard input of a command")
        self._socket.send_binary(bytes([CLOSE, STDIN]))

    def receive(self) -> tuple[int, bytes]:
        """Return the next message: its channel and its data.

        Raises:
            Unreachable: the connection broke, or was silent for too long.
        """
        from websocket import ABNF, WebSocketException

        while True:
            try:
                opcode, data = self._socket.recv_data()
            except (WebSocketException, OSError, ssl.SSLError) as broken:
                raise self._broken(str(broken) or type(broken).__name__) from None
            if opcode == ABNF.OPCODE_CLOSE:
                raise self._broken("it was closed before the command's end")
            if data and data[0] != CLOSE:
                return data[0], bytes(data[1:])

    def _broken(self, why: str) -> Unreachable:
        return Unreachable(f"{self._where}: the connection broke: {why}", hint=UNREACHABLE_HINT)

    def close(self) -> None:
        """Close the connection. The command may continue."""
        self._socket.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_command(
    kube: Kube, pod: str, command: Sequence[str], *, namespace: str | None = None, container: str | None = None
) -> ExecResult:
    """Run a command in a container, and return how it ended.

    Raises:
        NotFound: there is no such pod.
        Forbidden: the user may not run commands in pods.
        KubernetesError: the command could not be started.
        Unreachable: the connection broke. The command may have run.
    """
    output: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
    with ExecStream(kube, pod, command, namespace=namespace, container=container) as stream:
        while True:
            channel, data = stream.receive()
            if channel == STATUS:
                code = exit_code(json.loads(data))
                return ExecResult(code, b"".join(output[STDOUT]), b"".join(output[STDERR]))
            if channel in output:
                output[channel].append(data)


def exit_code(status: dict[str, Any]) -> int:
    """Return the exit code in the final Status of a command.

    Raises:
        KubernetesError: the Status says that the command could not be run.
    """
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode" and str(cause.get("message")).isdecimal():
            return int(cause["message"])
    raise from_status(status)


def open_websocket(
    url: str, headers: list[str], configuration: Any, *, protocols: Sequence[str], timeout: float
) -> Any:
    """Open a WebSocket with the TLS settings and credentials of a connection.

    Args:
        url: an address that begins with ``wss://`` or ``ws://``.
        headers: lines of the request's header.
        configuration: the configuration of the ``kubernetes`` package.
        protocols: versions of the protocol, the best first.
        timeout: seconds without a message.
    """
    import certifi
    from websocket import WebSocket, WebSocketBadStatusException, WebSocketException

    options: dict[str, Any] = {"cert_reqs": ssl.CERT_NONE}
    if configuration.verify_ssl:
        authorities = configuration.ssl_ca_cert or certifi.where()
        options = {"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": authorities}
        if configuration.assert_hostname is not None:
            options["check_hostname"] = configuration.assert_hostname
    given = {"certfile": configuration.cert_file, "keyfile": configuration.key_file}
    options |= {name: value for name, value in given.items() if value}
    if configuration.tls_server_name:
        options["server_hostname"] = configuration.tls_server_name
    socket = WebSocket(sslopt=options, skip_utf8_validation=True)
    try:
        socket.connect(url, header=headers, subprotocols=list(protocols), timeout=timeout)
    except WebSocketBadStatusException as refused:
        raise from_response(refused.status_code, refused.resp_body or b"") from None
    except (WebSocketException, OSError) as failed:
        message = f"the Kubernetes API server did not open a WebSocket: {failed}"
        raise Unreachable(message, hint=UNREACHABLE_HINT, unsent=True) from None
    socket.settimeout(timeout if math.isfinite(timeout) else None)
    return socket
