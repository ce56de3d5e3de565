"""The HTTP face of the laptop's Kubernetes API: from a request to a verb of the registry, and back.

Who calls, and whether they may, is asked here; what the verbs do is in :mod:`aksgpu.local.api.registry`. Every refusal
is a Status, in the words of a real API server.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson
from aiohttp import web

from aksgpu.local.api import access, discovery, openapi, selectors
from aksgpu.local.api.access import Attributes
from aksgpu.local.api.answers import answer, encoder, many, one, refuse
from aksgpu.local.api.auth import Tokens, User, authenticate
from aksgpu.local.api.bodies import (
    flag,
    integer,
    read_delete_options,
    read_object,
    read_patch,
    with_dry_run,
    write_options,
)
from aksgpu.local.api.kinds import Kind
from aksgpu.local.api.negotiate import Form, negotiate
from aksgpu.local.api.podexec import PodExec, serve_exec
from aksgpu.local.api.podlogs import PodLogs, open_log
from aksgpu.local.api.registry import Registry
from aksgpu.local.api.routes import Target, method_not_allowed, parse
from aksgpu.local.api.store import Entry, Event
from aksgpu.local.api.streams import NO_CACHE, PULSE, Watch, send_log
from aksgpu.local.status import StatusError, bad_request

log = logging.getLogger(__name__)

Object = dict[str, Any]
MAX_WATCHES = 800
"""Watches at the same time; more are answered 429."""

_LIST_SHAPES = ("Table", "PartialObjectMetadataList", "PartialObjectMetadata")
_REVIEW = "selfsubjectaccessreviews"
_HEALTH = ("/healthz", "/livez", "/readyz")


class Node(PodLogs, PodExec, Protocol):
    """What is asked of the node agent."""


class KubeApi:
    """The API of one cluster.

    Args:
        registry: the cluster's objects.
        node: where containers' output comes from, and commands run in them.
        tokens: bearer tokens and their users, or a function that knows them.
        version: the Kubernetes version that the server says it is, without ``v``.
    """

    def __init__(self, registry: Registry, *, node: Node, tokens: Tokens, version: str = "1.33.5") -> None:
        self._registry, self._node, self._tokens, self._version = registry, node, tokens, version
        self._watches = 0
        self._verbs: dict[str, Callable[[web.Request, Target, Kind, User], Awaitable[web.StreamResponse]]] = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }

    async def handle(self, request: web.Request, path: str) -> web.StreamResponse:
        """Answer a request.

        Args:
            request: as aiohttp gives it.
            path: the Kubernetes path, such as ``/api/v1/nodes``, without any prefix that the server has before it.
        """
        try:
            user = authenticate(request, self._tokens)
            target = parse(path)
            if target is not None:
                return await self._resource(request, target, user)
            access.authorize(self._registry.store, user, Attributes(request.method.lower(), path=path))
            return self._other(request, path)
        except StatusError as error:
            return refuse(error, request)
        except Exception as error:
            # The text names the type alone: an error's own text may quote what the client sent, a Secret for one.
            log.exception("%s %s failed", request.method, path)
            message = f"Internal error occurred: {type(error).__name__}"
            return refuse(StatusError(500, "InternalError", message), request)

    async def _resource(self, request: web.Request, target: Target, user: User) -> web.StreamResponse:
        verb = target.verb(request.method, flag(request.query, "watch"))
        if verb is None:
            raise method_not_allowed()
        namespace = target.namespace or (target.name if target.resource == "namespaces" else "")
        wanted = Attributes(verb, target.group, target.resource, target.subresource, namespace, target.name)
        if target.resource != _REVIEW:
            access.authorize(self._registry.store, user, wanted)
        kind = target.served(verb)
        if target.subresource == "log":
            return await self._log(request, target)
        if target.subresource == "exec":
            pod = await self._registry.get("pods", target.name, target.namespace)
            return await serve_exec(self._node, pod, request)
        return await self._verbs[verb](request, target, kind, user)

    # What is about no resource.

    def _other(self, request: web.Request, path: str) -> web.Response:
        if request.method != "GET":
            return _page_not_found()
        path = path.rstrip("/")
        if path in _HEALTH or path.startswith(tuple(f"{each}/" for each in _HEALTH)):
            return web.Response(text="ok", headers=NO_CACHE)
        if path == "/version":
            return answer(negotiate(request), self._version_info())
        if path == "/openapi/v3":
            return answer(Form(), openapi.root())
        if path.startswith("/openapi/v3/") and (document := openapi.document(path.removeprefix("/openapi/v3/"))):
            cache = {"Cache-Control": "public, immutable"} if "hash" in request.query else NO_CACHE
            return web.Response(body=document, content_type="application/json", headers=cache)
        return _discovery(request, path) or _page_not_found()

    def _version_info(self) -> Object:
        major, minor, _ = self._version.split(".", 2)
        return {
            "major": major,
            "minor": minor,
            "gitVersion": f"v{self._version}",
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "",
            "platform": "linux/amd64",
        }

    # Reading.

    async def _get(self, request: web.Request, target: Target, kind: Kind, user: User) -> web.StreamResponse:
        form = negotiate(request, ("Table", "PartialObjectMetadata"))
        entry = await self._registry.entry(kind.plural, target.name, target.namespace)
        return one(request, form, entry)

    async def _list(self, request: web.Request, target: Target, kind: Kind, user: User) -> web.StreamResponse:
        form, query = negotiate(request, _LIST_SHAPES), request.query
        limit = integer(query, "limit")
        self._check_version(query.get("resourceVersion", ""))
        page = await self._registry.page(
            kind.plural,
            target.namespace,
            label_selector=query.get("labelSelector", ""),
            field_selector=query.get("fieldSelector", ""),
            limit=max(limit, 0),
            cont=query.get("continue", ""),
        )
        metadata: Object = {"resourceVersion": page.resource_version}
        if page.cont:
            metadata["continue"] = page.cont
        if page.remaining is not None:
            metadata["remainingItemCount"] = page.remaining
        return many(request, form, kind, page.entries, metadata)

    def _check_version(self, text: str) -> None:
        """A list at least as new as a version that was never given cannot be had."""
        version, current = _version(text), self._registry.store.revision
        if version > current:
            message = f"Timeout: Too large resource version: {version}, current: {current}"
            cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            raise StatusError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})

    async def _watch(self, request: web.Request, target: Target, kind: Kind, user: User) -> web.StreamResponse:
        form, query = negotiate(request, _LIST_SHAPES), request.query
        # Asked first, since once the stream has begun there is no status left to refuse with.
        version, seconds = query.get("resourceVersion", ""), integer(query, "timeoutSeconds")
        _version(version)
        selectors.parse_labels(query.get("labelSelector", ""))
        selectors.parse_fields(query.get("fieldSelector", ""), kind)
        bookmarks, initial = flag(query, "allowWatchBookmarks"), flag(query, "sendInitialEvents")
        if self._watches >= MAX_WATCHES:
            message = "The maximum number of watches was reached, please try again later."
            raise StatusError(429, "TooManyRequests", message, {"retryAfterSeconds": 1})
        events = self._registry.stream(
            kind.plural,
            target.namespace,
            resource_version=version,
            label_selector=query.get("labelSelector", ""),
            field_selector=query.get("fieldSelector", ""),
            bookmarks=True,
            bookmark_seconds=PULSE,
            initial_events=initial,
        )
        watch = Watch(request, encoder(request, form), seconds=max(seconds, 0), bookmarks=bookmarks)
        self._watches += 1
        try:
            return await watch.send(events, lambda rv: _bookmark(kind, rv))
        finally:
            self._watches -= 1

    async def _log(self, request: web.Request, target: Target) -> web.StreamResponse:
        pod = await self._registry.get("pods", target.name, target.namespace)
        pieces = await open_log(self._node, pod, request.query)
        if pieces is None:
            return web.Response(status=204, headers=NO_CACHE)
        return await send_log(request, pieces)

    # Writing.

    async def _create(self, request: web.Request, target: Target, kind: Kind, user: User) -> web.StreamResponse:
        form, options = negotiate(request, ("Table", "PartialObjectMetadata")), write_options(request, "CreateOptions")
        if target.subresource:
            part = kind.subresources[target.subresource]
            group_version = f"{part.group}/{part.version}" if part.group else part.version
            body = await read_object(request, part.kind, group_version, options)
        else:
            body = await read_object(request, kind, kind.api_version, options)
        _check_place(body, target)
        if target.subresource == "eviction":
            options = with_dry_run(options, body.get("deleteOptions"))
        entry = await self._registry.post(
            kind.plural,
            body,
            target.namespace,
            name=target.name or None,
            subresource=target.subresource or None,
            options=options,
        )
        if target.resource == _REVIEW:
            status = access.review(self._registry.store, user, entry.obj.get("spec") or {})
            return answer(form, {**entry.obj, "status": status}, 201, options)
        if target.subresource:
            return answer(
                form, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201
            )
        return one(request, form, entry, 201, options)

    async def _update(self, request: web.Request, target: Target, kind: Kind, user: User) -> web.StreamResponse:
        form, options = negotiate(request, ("Table", "PartialObjectMetadata")), write_options(request, "UpdateOptions")
        body = await read_object(request, kind, kind.api_version, options)
        _check_place(body, target)
        entry = await self._registry.put(
            kind.plural,
            body,
            target.name,
            target.namespace,
            subresource=target.subresource or None,
            options=options,
        )
        return one(request, form, entry, 200, options)

    async def _patch(self, request: web.Request, target: Target, kind: Kind, user: User) -> web.StreamResponse:
        form = negotiate(request, ("Table", "PartialObjectMetadata"))
        patch, media = await read_patch(request)
        options = write_options(request, "PatchOptions", patch=media)
        entry, created = await self._registry.modify(
            kind.plural,
            target.name,
            patch,
            target.namespace,
            content_type=media,
            subresource=target.subresource or None,
            options=options,
        )
        return one(request, form, entry, 201 if created else 200, options)

    async def _delete(self, request: web.Request, target: Target, kind: Kind, user: User) -> web.StreamResponse:
        form, options = negotiate(request, ("Table", "PartialObjectMetadata")), write_options(request, "DeleteOptions")
        wishes = await read_delete_options(request)
        options = with_dry_run(options, wishes)
        entry, ended = await self._registry.remove(
            kind.plural, target.name, target.namespace, delete_options=wishes, options=options
        )
        if kind.body_in_delete or not ended:
            return one(request, form, entry)
        details = {"name": target.name, "group": kind.group, "kind": kind.plural, "uid": entry.obj["metadata"]["uid"]}
        return answer(
            form,
            {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Success",
                "details": {key: value for key, value in details.items() if value},
            },
        )

    async def _delete_collection(
        self, request: web.Request, target: Target, kind: Kind, user: User
    ) -> web.StreamResponse:
        form, options = negotiate(request, _LIST_SHAPES), write_options(request, "DeleteOptions")
        wishes, query = await read_delete_options(request), request.query
        options = with_dry_run(options, wishes)
        entries = await self._registry.remove_collection(
            kind.plural,
            target.namespace,
            label_selector=query.get("labelSelector", ""),
            field_selector=query.get("fieldSelector", ""),
            delete_options=wishes,
            options=options,
        )
        return many(request, form, kind, entries, {"resourceVersion": str(self._registry.store.revision)})


def _page_not_found() -> web.Response:
    headers = {**NO_CACHE, "X-Content-Type-Options": "nosniff"}
    return web.Response(text="404 page not found\n", status=404, headers=headers)


def _discovery(request: web.Request, path: str) -> web.Response | None:
    form = negotiate(request, (discovery.AGGREGATED,))
    parts = path.strip("/").split("/")
    if parts in (["api"], ["apis"]) and form.shape:
        body = discovery.aggregated(parts == ["api"], form.version)
        media = f"application/json;g=apidiscovery.k8s.io;v={form.version};as={discovery.AGGREGATED}"
        headers = {"Content-Type": media, "Cache-Control": "public"}
        return web.Response(body=form.dump(body), headers=headers)
    found: Object | None = None
    if parts == ["api"]:
        found = discovery.api_versions(request.host)
    elif parts == ["apis"]:
        found = discovery.api_groups()
    elif parts[0] == "apis" and len(parts) == 2:
        found = discovery.api_group(parts[1])
    elif parts[0] == "apis" and len(parts) == 3:
        found = discovery.api_resources(parts[1], parts[2])
    elif parts[0] == "api" and len(parts) == 2:
        found = discovery.api_resources("", parts[1])
    return answer(form, found) if found is not None else None


def _version(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 20):
        raise bad_request(f'invalid resource version "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text or 0)


def _check_place(body: Object, target: Target) -> None:
    """Refuse an object whose name or namespace is not the URL's."""
    metadata = body.get("metadata")
    if not isinstance(metadata, dict):
        return
    namespace, name = metadata.get("namespace"), metadata.get("name")
    if target.namespace and namespace and namespace != target.namespace:
        message = "the namespace of the provided object does not match the namespace sent on the request"
        raise bad_request(message)
    if target.name and name and name != target.name:
        message = f"the name of the object ({name}) does not match the name on the URL ({target.name})"
        raise bad_request(message)


def _bookmark(kind: Kind, rv: int) -> Event:
    metadata = {"resourceVersion": str(rv), "creationTimestamp": None}
    obj = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
    return Event("BOOKMARK", Entry(kind, obj, orjson.dumps(obj), rv), None)
