"""Kubernetes objects over HTTP: the controllers' interface to any API server, the laptop's or another.

An ordinary client: it lists in pages, watches with bookmarks, and takes up a watch that the server closed where it
ended. Authentication is by bearer token.
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

_PAGE = 500
_WATCH_SECONDS = 300
_PAUSE = 1.0
"""Seconds before a watch that broke is taken up again."""
_METHODS = {"get": "GET", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}


class RemoteObjects(Objects):
    """:class:`~aksgpu.local.objects.Objects` over HTTP. An async context manager.

    Args:
        server: the API server's URL, such as ``https://127.0.0.1:6443``.
        token: a bearer token; None for none.
        ca_file: the certificate authority that signed the server's certificate; None for the system's.
        kinds: the kinds that may be asked for.
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
            return _answer(response.status, await response.read())

    async def call(self, request: Request) -> Object:
        """Send one request."""
        method = _METHODS[request.verb]
        url = self._url(request.resource, request.namespace, request.name, request.subresource)
        if request.body is None:
            return await self._request(method, url)
        return await self._request(method, url, orjson.dumps(request.body), request.content_type)

    async def list(
        self, resource: str, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> tuple[list[Object], str]:
        """All objects that match, read in pages, and the resourceVersion to watch from."""
        kind, items = self._kinds[resource], []
        params = {"limit": str(_PAGE), "labelSelector": label_selector, "fieldSelector": field_selector}
        params = {key: value for key, value in params.items() if value}
        while True:
            page = await self._request("GET", self._url(resource, namespace), params=params)
            # Items of a list do not say what they are.
            items += [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in page["items"] or ()]
            if not (following := page["metadata"].get("continue")):
                return items, page["metadata"]["resourceVersion"]
            params["continue"] = following

    async def watch(
        self, resource: str, namespace: str | None = None, *, resource_version: str, field_selector: str = ""
    ) -> AsyncIterator[WatchEvent]:
        """Changes after ``resource_version``, across as many connections as it takes."""
        while True:
            try:
                async for event in self._stream(resource, namespace, resource_version, field_selector):
                    resource_version = event.object["metadata"]["resourceVersion"]
                    yield event
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(_PAUSE)

    async def _stream(
        self, resource: str, namespace: str | None, version: str, field_selector: str
    ) -> AsyncIterator[WatchEvent]:
        assert self._session, "use it as an async context manager"
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_SECONDS),
            **({"fieldSelector": field_selector} if field_selector else {}),
        }
        # A half-open connection delivers nothing for ever: give up a little after the server should have.
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=_WATCH_SECONDS + 30)
        async with self._session.get(self._url(resource, namespace), params=params, timeout=timeout) as response:
            if response.status != 200:
                _answer(response.status, await response.read())
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise _error(event["object"])
                    yield WatchEvent(event["type"], event["object"])


def _answer(status: int, body: bytes) -> Object:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = {"message": body[:500].decode(errors="replace")}
    if status >= 400 or not isinstance(answer, dict):
        raise _error({"code": status, **(answer if isinstance(answer, dict) else {})})
    return answer


def _error(status: Object) -> StatusError:
    known = {key: status[key] for key in ("metadata",) if key in status}
    code, reason = int(status.get("code") or 500), status.get("reason") or "Unknown"
    return StatusError(code, reason, status.get("message") or "", status.get("details"), **known)
