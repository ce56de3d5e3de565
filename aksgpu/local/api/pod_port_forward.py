"""The ``portforward`` subresource: connections to ports of a pod over a WebSocket, in both forms that clients use."""

from __future__ import annotations

from aiohttp import web

from aksgpu.local.api import port_forward_channels, port_forward_tunnel
from aksgpu.local.api.port_forward_channels import PodPorts
from aksgpu.local.objects import Object
from aksgpu.local.selectors import get_path
from aksgpu.local.status_error import StatusError, bad_request

PROTOCOLS = (port_forward_tunnel.PROTOCOL, port_forward_channels.PROTOCOL)
MAX_PORTS = 128
"""Ports that the numbers of channels are sufficient for."""
_HEARTBEAT = 60
"""Seconds between pings."""
_NO_WEBSOCKET = (
    "Upgrade request required: port-forward is served over WebSockets alone. kubectl speaks them from 1.31 on, and "
    "1.30 with KUBECTL_PORT_FORWARD_WEBSOCKETS=true. With an older one, use the Python package kubernetes or kr8s"
)


async def serve_port_forward(ports: PodPorts, pod: Object, request: web.Request) -> web.StreamResponse:
    """Answer a request for ``portforward``.

    Raises:
        StatusError: The pod does not run, or the request is not one for a WebSocket.
    """
    socket = web.WebSocketResponse(protocols=PROTOCOLS, heartbeat=_HEARTBEAT, compress=False)
    ready = socket.can_prepare(request)
    if not ready and "Upgrade" in request.headers:
        raise bad_request(_NO_WEBSOCKET)
    is_tunnel = ready.protocol == port_forward_tunnel.PROTOCOL
    numbers = [] if is_tunnel else _parse_ports(request)
    _check_running(pod)
    if not ready:
        raise bad_request(_NO_WEBSOCKET)
    await socket.prepare(request)
    if is_tunnel:
        await port_forward_tunnel.serve_tunnel(socket, ports, pod["metadata"])
    else:
        await port_forward_channels.serve_channels(socket, ports, pod["metadata"], numbers)
    await socket.close()
    return socket


def _check_running(pod: Object) -> None:
    """Raise StatusError unless the pod has a node and is running."""
    name = pod["metadata"]["name"]
    if not pod["spec"].get("nodeName"):
        raise bad_request(f"pod {name} does not have a host assigned")
    if get_path(pod, "status.phase") != "Running":
        reason = f'unable to upgrade connection: pod not found ("{name}_{pod["metadata"]["namespace"]}")'
        raise StatusError(500, "InternalError", f"Internal error occurred: {reason}")


def _parse_ports(request: web.Request) -> list[int]:
    given = request.query.getall("ports", [])
    if not given:
        raise bad_request('query parameter "ports" is required')
    numbers: list[int] = []
    for text in ",".join(given).split(","):
        if not (text.isascii() and text.isdigit() and int(text) <= 0xFFFF):
            raise bad_request(f'unable to parse "{text}" as a port: it must be a number from 1 to 65535')
        if int(text) < 1:
            raise bad_request(f'port "{text}" must be > 0')
        numbers.append(int(text))
    if len(numbers) > MAX_PORTS:
        raise bad_request(f"at most {MAX_PORTS} ports can be forwarded over one connection, got {len(numbers)}")
    return numbers
