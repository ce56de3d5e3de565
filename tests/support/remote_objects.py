"""The controllers' interface to Kubernetes objects, over HTTP, to any API server.

The client lists in pages and watches with bookmarks. When the server closes a watch, it continues where it ended.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Self
from urllib.parse import quote

import aiohttp
import orjson

from aksgpu.local.kinds import KINDS, Kind
from aksgpu.local.objects import Object, Objects, Request, WatchEvent
from aksgpu.local.status_error import StatusError

_PAGE_LIMIT = 500
_WATCH_SECONDS = 300
"""After this time the server ends a watch."""
_RETRY_DELAY = 1.0
"""Seconds before a watch continues after a connection error."""
_METHODS = {"get": "GET", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}


class RemoteObjects(Objects):
    """:class:`~aksgpu.local.objects.Objects` over HTTP. Use it as an async context manager.

    Args:
        server: The API server's URL, such as ``https://127.0.0.1:6443``.
        token: A bearer token, or None.
        ca_file: The certificate authority of the server's certificate; None uses the system's.
        kinds: The kinds that can be requested.
    """

    def __init__(
        self, server: str, *, token: str | None = None, ca_file: Path | None = None, kinds: Iterable[Kind] = KINDS
    ) -> None:
        self._server = server.rstrip("/")
        self._headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._ca_file = ca_file
        self._kinds = {kind.plural: kind for kind in kinds}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        tls: ssl.SSLContext | bool = True
        if self._ca_file:
            tls = ssl.create_default_context(cafile=str(self._ca_file))
        connector = aiohttp.TCPConnector(ssl=tls, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=60)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()

    def _url(
        self, resource: str, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        kind = self._kinds[resource]
        parts = ["apis", kind.group, kind.version] if kind.group else ["api", kind.version]
        parts += ["namespaces", namespace] if namespace else []
        parts += [part for part in (resource, name, subresource) if part]
        return "/".join([self._server, *(quote(part, safe="") for part in parts)])

    async def _request(
        self, method: str, url: str, data: bytes | None = None, media: str = "", params: dict[str, str] | None = None
    ) -> Object:
        assert self._session, "use it as an async context manager"
        headers = {"Content-Type": media} if media else {}
        async with self._session.request(method, url, data=data, headers=headers, params=params) as response:
            return _parse_response(response.status, await response.read())

    async def call(self, request: Request) -> Object:
        """Send one request."""
        method = _METHODS[request.verb]
        url = self._url(request.resource, request.namespace, request.name, request.subresource)
        if request.body is None:
            return await self._request(method, url)
        return await self._request(method, url, orjson.dumps(request.body), request.content_type)

    async def list(
        self, resource: str, namespace: str | None = None, *, field_selector: str = ""
    ) -> tuple[list[Object], str]:
        """Return all objects that match, read in pages, and the resourceVersion to watch from."""
        kind = self._kinds[resource]
        items: list[Object] = []
        params = {"limit": str(_PAGE_LIMIT)}
        if field_selector:
            params["fieldSelector"] = field_selector
        while True:
            page = await self._request("GET", self._url(resource, namespace), params=params)
            # The items of a list have no apiVersion and kind.
            items += [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in page["items"] or ()]
            token = page["metadata"].get("continue")
            if not token:
                return items, page["metadata"]["resourceVersion"]
            params["continue"] = token

    async def watch(
        self, resource: str, namespace: str | None = None, *, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        """Yield the changes after ``resource_version``, over as many connections as necessary."""
        while True:
            try:
                async for event in self._stream(resource, namespace, resource_version):
                    resource_version = event.object["metadata"]["resourceVersion"]
                    yield event
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(_RETRY_DELAY)

    async def _stream(self, resource: str, namespace: str | None, version: str) -> AsyncIterator[WatchEvent]:
        assert self._session, "use it as an async context manager"
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        # A half-open connection never delivers anything: give up soon after the server should have ended the watch.
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=_WATCH_SECONDS + 30)
        async with self._session.get(self._url(resource, namespace), params=params, timeout=timeout) as response:
            if response.status != 200:
                _parse_response(response.status, await response.read())
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise _error(event["object"])
                    yield WatchEvent(event["type"], event["object"])


def _parse_response(status: int, body: bytes) -> Object:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = {"message": body[:500].decode(errors="replace")}
    if not isinstance(document, dict):
        raise _error({"code": status})
    if status >= 400:
        raise _error({"code": status, **document})
    return document


def _error(status: Object) -> StatusError:
    code = int(status.get("code") or 500)
    reason = status.get("reason") or "Unknown"
    fields = {"metadata": status["metadata"]} if "metadata" in status else {}
    return StatusError(code, reason, status.get("message") or "", status.get("details"), **fields)
