"""The WebSocket of ``exec``, without a node."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from aksgpu.local.api.pod_exec import serve_exec
from aksgpu.local.status_error import StatusError

POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "default"},
    "spec": {"nodeName": "n", "containers": [{"name": "main"}]},
    "status": {"containerStatuses": [{"name": "main", "state": {"running": {}}}]},
}


async def test_a_client_is_connected_before_its_command_has_started() -> None:
    """Clients limit the time of the handshake, and not that of the command's start."""
    is_connected = asyncio.Event()

    class SlowNode:
        async def execute(self, *args: Any, **options: Any) -> Any:
            await is_connected.wait()
            raise StatusError(500, "InternalError", "the program does not exist")

    async def handle(request: web.Request) -> web.StreamResponse:
        return await serve_exec(SlowNode(), POD, request)  # type: ignore[arg-type]

    app = web.Application()
    app.router.add_get("/exec", handle)
    async with TestServer(app) as server, ClientSession() as session, asyncio.timeout(60):
        url = server.make_url("/exec?command=true&stdout=1")
        async with session.ws_connect(url, protocols=["v5.channel.k8s.io"]) as socket:
            is_connected.set()
            message = await socket.receive()
    assert b"the program does not exist" in message.data
