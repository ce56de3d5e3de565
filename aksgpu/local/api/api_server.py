"""The HTTP face of the laptop's Kubernetes API: from a request to a verb of the registry, and back.

Who calls, and whether they may, is asked here; what the verbs do is in :mod:`aksgpu.local.api.registry`. Every refusal
is a Status, in the words of a real API server.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, NamedTuple, Protocol, cast

from aiohttp import web

from aksgpu.local import selectors
from aksgpu.local.api import access, discovery, request_bodies, streaming
from aksgpu.local.api.access import Attributes, TokenAuthenticator, User
from aksgpu.local.api.pod_exec import PodExec, serve_exec
from aksgpu.local.api.pod_logs import PodLogs, open_log
from aksgpu.local.api.reads import continue_token
from aksgpu.local.api.registry import SUCCESS, Registry, WriteOptions
from aksgpu.local.api.request_info import parse_request
from aksgpu.local.api.responses import (
    NO_CACHE,
    ResponseFormat,
    event_encoder,
    json_response,
    list_response,
    negotiate,
    object_response,
    status_response,
)
from aksgpu.local.api.store import Entry
from aksgpu.local.kinds import ALL_VERBS, Kind
from aksgpu.local.objects import APPLY_PATCH
from aksgpu.local.status_error import StatusError, details

log = logging.getLogger(__name__)

Object = dict[str, Any]
MAX_WATCHES = 800
"""Watches at the same time; more are answered 429."""

_ACCESS_REVIEWS = "selfsubjectaccessreviews"


class NodeAgent(PodLogs, PodExec, Protocol):
    """What is asked of the node agent."""


class ApiRequest(NamedTuple):
    """A request about a resource."""

    request: web.Request
    user: User
    kind: Kind
    attributes: Attributes
    form: ResponseFormat

    @property
    def namespace(self) -> str | None:
        """The namespace, or None for a kind or a list without one."""
        return self.attributes.namespace or None if self.kind.namespaced else None

    def object_filter(self) -> selectors.ObjectFilter | None:
        """Which objects a request for many is about."""
        query = self.request.query
        return selectors.object_filter(self.kind, query.get("labelSelector", ""), query.get("fieldSelector", ""))

    async def body(self, options: WriteOptions) -> Object:
        """The object that is sent."""
        part = self.kind.subresources.get(self.attributes.subresource, self.kind)
        return await request_bodies.read_object(self.request, part, options)


Verb = Callable[[ApiRequest], Awaitable[web.StreamResponse]]


class KubeApi:
    """The API of one cluster.

    Args:
        registry: the cluster's objects.
        node: where containers' output comes from, and commands run in them.
        tokens: bearer tokens and their users, or a function that knows them.
    """

    def __init__(self, registry: Registry, *, node: NodeAgent, tokens: TokenAuthenticator) -> None:
        self._registry = registry
        self._node = node
        self._tokens = tokens
        self._watch_count = 0
        self._verbs: dict[str, Verb] = {each: getattr(self, f"_{each}") for each in ALL_VERBS}
        self._streams: dict[str, Verb] = {"log": self._log, "exec": self._exec}

    async def handle(self, request: web.Request, path: str) -> web.StreamResponse:
        """Answer a request.

        Args:
            request: as aiohttp gives it.
            path: the Kubernetes path, such as ``/api/v1/nodes``, without any prefix that the server has before it.
        """
        try:
            user = access.authenticate(request, self._tokens)
            target = parse_request(request.method, path, request_bodies.query_flag(request.query, "watch"))
            kind, attributes = target or (None, Attributes(request.method.lower(), path=path))
            if attributes.resource != _ACCESS_REVIEWS:
                access.authorize(self._registry.store, user, access.with_selected_name(attributes, request.query))
            if kind is None:
                return discovery.serve(request, path)
            if stream := self._streams.get(attributes.subresource):
                return await stream(ApiRequest(request, user, kind, attributes, ResponseFormat()))
            return await self._verbs[attributes.verb](ApiRequest(request, user, kind, attributes, negotiate(request)))
        except StatusError as error:
            return status_response(error)
        except Exception as error:
            # The text names the type alone: an error's own text may quote what the client sent, a Secret for one.
            log.exception("%s %s failed", request.method, path)
            message = f"Internal error occurred: {type(error).__name__}"
            return status_response(StatusError(500, "InternalError", message))

    # Reading.

    async def _get(self, call: ApiRequest) -> web.StreamResponse:
        entry = await self._registry.entry(call.kind.plural, call.attributes.name, call.namespace)
        return object_response(call.form, entry)

    async def _list(self, call: ApiRequest) -> web.StreamResponse:
        query = call.request.query
        version = request_bodies.query_int(query, "resourceVersion")
        current = self._registry.store.revision
        if version > current:  # as after a store was lost: clients must not go back in time unawares
            message = f"Timeout: Too large resource version: {version}, current: {current}"
            cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            raise StatusError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})
        limit = request_bodies.query_int(query, "limit")
        cont = query.get("continue", "")
        if request_bodies.wants_exact_version(query):
            cont = continue_token(version)
        list_page = await self._registry.list_page(
            call.kind.plural, call.namespace, call.object_filter(), limit=limit, cont=cont
        )
        metadata: Object = {"resourceVersion": list_page.resource_version}
        if list_page.cont:
            metadata["continue"] = list_page.cont
        if list_page.remaining is not None:
            metadata["remainingItemCount"] = list_page.remaining
        return list_response(call.form, call.kind, list_page.entries, metadata)

    async def _watch(self, call: ApiRequest) -> web.StreamResponse:
        query = call.request.query
        # Asked first, since once the stream has begun there is no status left to refuse with.
        object_filter = call.object_filter()
        version = request_bodies.query_int(query, "resourceVersion")
        seconds = request_bodies.query_int(query, "timeoutSeconds") or random.randint(1800, 3600)
        encode = event_encoder(call.form)
        if self._watch_count >= MAX_WATCHES:
            message = "The maximum number of watches was reached, please try again later."
            raise StatusError(429, "TooManyRequests", message, {"retryAfterSeconds": 1})
        initial = request_bodies.query_flag(query, "sendInitialEvents")
        events = self._registry.stream(
            call.kind.plural, call.namespace, object_filter, resource_version=version, bookmark_seconds=streaming.PULSE,
            initial_events=initial,
        )  # fmt: skip
        watch = streaming.Watch(encode, bookmarks=request_bodies.query_flag(query, "allowWatchBookmarks"))
        self._watch_count += 1
        try:
            return await streaming.send(call.request, watch.lines(events), seconds=seconds, last=watch.last_line)
        finally:
            self._watch_count -= 1

    async def _log(self, call: ApiRequest) -> web.StreamResponse:
        pod = await self._registry.get("pods", call.attributes.name, call.namespace)
        pieces = await open_log(self._node, pod, call.request.query)
        if pieces is None:
            return web.Response(status=204, headers=NO_CACHE)
        return await streaming.send(call.request, cast("AsyncGenerator[bytes, None]", pieces), media="text/plain")

    async def _exec(self, call: ApiRequest) -> web.StreamResponse:
        pod = await self._registry.get("pods", call.attributes.name, call.namespace)
        return await serve_exec(self._node, pod, call.request)

    # Writing.

    async def _write(self, call: ApiRequest, body: Any, options: WriteOptions, media: str = "") -> tuple[Entry, bool]:
        attributes = call.attributes
        return await self._registry.write(
            attributes.verb, attributes.resource, body, attributes.name, call.namespace,
            subresource=attributes.subresource,
            content_type=media, options=options,
        )  # fmt: skip

    async def _create(self, call: ApiRequest) -> web.StreamResponse:
        attributes = call.attributes
        options = request_bodies.write_options(call.request, "CreateOptions")
        body = await call.body(options)
        if attributes.subresource == "eviction" and isinstance(delete_options := body.get("deleteOptions"), dict):
            options = request_bodies.with_dry_run(options, delete_options.get("dryRun"))
        entry, _ = await self._write(call, body, options)
        if attributes.resource == _ACCESS_REVIEWS:
            status = access.review_access(self._registry.store, call.user, entry.obj.get("spec") or {})
            return json_response({**entry.obj, "status": status}, 201, options.warnings)
        return (
            json_response(entry.obj, 201)
            if attributes.subresource
            else object_response(call.form, entry, 201, options.warnings)
        )

    async def _update(self, call: ApiRequest) -> web.StreamResponse:
        options = request_bodies.write_options(call.request, "UpdateOptions")
        entry, _ = await self._write(call, await call.body(options), options)
        return object_response(call.form, entry, 200, options.warnings)

    async def _patch(self, call: ApiRequest) -> web.StreamResponse:
        patch, media = await request_bodies.read_patch(call.request)
        options = request_bodies.write_options(call.request, "PatchOptions", apply=media == APPLY_PATCH)
        attributes = call.attributes
        store = self._registry.store
        if media == APPLY_PATCH and store.get(attributes.resource, (call.namespace or "", attributes.name)) is None:
            access.authorize(store, call.user, attributes._replace(verb="create"))  # as that is what it will be
        entry, created = await self._write(call, patch, options, media)
        return object_response(call.form, entry, 201 if created else 200, options.warnings)

    async def _delete(self, call: ApiRequest) -> web.StreamResponse:
        kind = call.kind
        (delete_options, options) = await request_bodies.read_delete_options(call.request)
        entry, ended = await self._write(call, delete_options, options)
        if kind.delete_returns_object or not ended:
            return object_response(call.form, entry, 200, options.warnings)
        about = details(kind.plural, kind.group, call.attributes.name, uid=entry.obj["metadata"]["uid"])
        return json_response({**SUCCESS, "details": about}, 200, options.warnings)

    async def _deletecollection(self, call: ApiRequest) -> web.StreamResponse:
        delete_options, options = await request_bodies.read_delete_options(call.request)
        plural = call.kind.plural
        namespace = call.namespace
        object_filter = call.object_filter()
        entries = await self._registry.remove_collection(plural, namespace, object_filter, delete_options, options)
        metadata = {"resourceVersion": str(self._registry.store.revision)}
        return list_response(call.form, call.kind, entries, metadata)
