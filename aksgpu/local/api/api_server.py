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
from aksgpu.local.api.access import Attributes, Tokens, User
from aksgpu.local.api.pod_exec import PodExec, serve_exec
from aksgpu.local.api.pod_logs import PodLogs, open_log
from aksgpu.local.api.reads import token
from aksgpu.local.api.registry import SUCCESS, Registry, WriteOptions
from aksgpu.local.api.request_info import parse
from aksgpu.local.api.responses import NO_CACHE, Form, answer, encoder, many, negotiate, one, refuse
from aksgpu.local.api.store import Entry
from aksgpu.local.kinds import ALL_VERBS, Kind
from aksgpu.local.objects import APPLY_PATCH
from aksgpu.local.status_error import StatusError, details

log = logging.getLogger(__name__)

Object = dict[str, Any]
MAX_WATCHES = 800
"""Watches at the same time; more are answered 429."""

_REVIEW = "selfsubjectaccessreviews"


class Node(PodLogs, PodExec, Protocol):
    """What is asked of the node agent."""


class Call(NamedTuple):
    """A request about a resource."""

    request: web.Request
    user: User
    kind: Kind
    wanted: Attributes
    form: Form

    @property
    def place(self) -> str | None:
        """The namespace, or None for a kind or a list without one."""
        return self.wanted.namespace or None if self.kind.namespaced else None

    def match(self) -> selectors.FieldMatcher | None:
        """Which objects a request for many is about."""
        query = self.request.query
        return selectors.matcher(self.kind, query.get("labelSelector", ""), query.get("fieldSelector", ""))

    async def body(self, options: WriteOptions) -> Object:
        """The object that is sent."""
        part = self.kind.subresources.get(self.wanted.subresource, self.kind)
        return await request_bodies.read_object(self.request, part, options)


Verb = Callable[[Call], Awaitable[web.StreamResponse]]


class KubeApi:
    """The API of one cluster.

    Args:
        registry: the cluster's objects.
        node: where containers' output comes from, and commands run in them.
        tokens: bearer tokens and their users, or a function that knows them.
    """

    def __init__(self, registry: Registry, *, node: Node, tokens: Tokens) -> None:
        self._registry = registry
        self._node = node
        self._tokens = tokens
        self._watches = 0
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
            target = parse(request.method, path, request_bodies.flag(request.query, "watch"))
            kind, wanted = target or (None, Attributes(request.method.lower(), path=path))
            if wanted.resource != _REVIEW:
                access.authorize(self._registry.store, user, access.named(wanted, request.query))
            if kind is None:
                return discovery.serve(request, path)
            if stream := self._streams.get(wanted.subresource):
                return await stream(Call(request, user, kind, wanted, Form()))
            return await self._verbs[wanted.verb](Call(request, user, kind, wanted, negotiate(request)))
        except StatusError as error:
            return refuse(error)
        except Exception as error:
            # The text names the type alone: an error's own text may quote what the client sent, a Secret for one.
            log.exception("%s %s failed", request.method, path)
            message = f"Internal error occurred: {type(error).__name__}"
            return refuse(StatusError(500, "InternalError", message))

    # Reading.

    async def _get(self, call: Call) -> web.StreamResponse:
        entry = await self._registry.entry(call.kind.plural, call.wanted.name, call.place)
        return one(call.form, entry)

    async def _list(self, call: Call) -> web.StreamResponse:
        query = call.request.query
        version = request_bodies.integer(query, "resourceVersion")
        current = self._registry.store.revision
        if version > current:  # as after a store was lost: clients must not go back in time unawares
            message = f"Timeout: Too large resource version: {version}, current: {current}"
            cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            raise StatusError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})
        limit = request_bodies.integer(query, "limit")
        cont = query.get("continue", "")
        if request_bodies.exactly(query):
            cont = token(version)
        page = await self._registry.page(call.kind.plural, call.place, call.match(), limit=limit, cont=cont)
        metadata: Object = {"resourceVersion": page.resource_version}
        if page.cont:
            metadata["continue"] = page.cont
        if page.remaining is not None:
            metadata["remainingItemCount"] = page.remaining
        return many(call.form, call.kind, page.entries, metadata)

    async def _watch(self, call: Call) -> web.StreamResponse:
        query = call.request.query
        # Asked first, since once the stream has begun there is no status left to refuse with.
        match = call.match()
        version = request_bodies.integer(query, "resourceVersion")
        seconds = request_bodies.integer(query, "timeoutSeconds") or random.randint(1800, 3600)
        encode = encoder(call.form)
        if self._watches >= MAX_WATCHES:
            message = "The maximum number of watches was reached, please try again later."
            raise StatusError(429, "TooManyRequests", message, {"retryAfterSeconds": 1})
        initial = request_bodies.flag(query, "sendInitialEvents")
        events = self._registry.stream(
            call.kind.plural, call.place, match, resource_version=version, bookmark_seconds=streaming.PULSE,
            initial_events=initial,
        )  # fmt: skip
        watch = streaming.Watch(encode, bookmarks=request_bodies.flag(query, "allowWatchBookmarks"))
        self._watches += 1
        try:
            return await streaming.send(call.request, watch.lines(events), seconds=seconds, last=watch.last_line)
        finally:
            self._watches -= 1

    async def _log(self, call: Call) -> web.StreamResponse:
        pod = await self._registry.get("pods", call.wanted.name, call.place)
        pieces = await open_log(self._node, pod, call.request.query)
        if pieces is None:
            return web.Response(status=204, headers=NO_CACHE)
        return await streaming.send(call.request, cast("AsyncGenerator[bytes, None]", pieces), media="text/plain")

    async def _exec(self, call: Call) -> web.StreamResponse:
        pod = await self._registry.get("pods", call.wanted.name, call.place)
        return await serve_exec(self._node, pod, call.request)

    # Writing.

    async def _write(self, call: Call, body: Any, options: WriteOptions, media: str = "") -> tuple[Entry, bool]:
        wanted = call.wanted
        return await self._registry.write(
            wanted.verb, wanted.resource, body, wanted.name, call.place, subresource=wanted.subresource,
            content_type=media, options=options,
        )  # fmt: skip

    async def _create(self, call: Call) -> web.StreamResponse:
        wanted = call.wanted
        options = request_bodies.write_options(call.request, "CreateOptions")
        body = await call.body(options)
        if wanted.subresource == "eviction" and isinstance(wishes := body.get("deleteOptions"), dict):
            options = request_bodies.with_dry_run(options, wishes.get("dryRun"))
        entry, _ = await self._write(call, body, options)
        if wanted.resource == _REVIEW:
            status = access.review(self._registry.store, call.user, entry.obj.get("spec") or {})
            return answer({**entry.obj, "status": status}, 201, options.warnings)
        return answer(entry.obj, 201) if wanted.subresource else one(call.form, entry, 201, options.warnings)

    async def _update(self, call: Call) -> web.StreamResponse:
        options = request_bodies.write_options(call.request, "UpdateOptions")
        entry, _ = await self._write(call, await call.body(options), options)
        return one(call.form, entry, 200, options.warnings)

    async def _patch(self, call: Call) -> web.StreamResponse:
        patch, media = await request_bodies.read_patch(call.request)
        options = request_bodies.write_options(call.request, "PatchOptions", apply=media == APPLY_PATCH)
        wanted = call.wanted
        store = self._registry.store
        if media == APPLY_PATCH and store.get(wanted.resource, (call.place or "", wanted.name)) is None:
            access.authorize(store, call.user, wanted._replace(verb="create"))  # as that is what it will be
        entry, created = await self._write(call, patch, options, media)
        return one(call.form, entry, 201 if created else 200, options.warnings)

    async def _delete(self, call: Call) -> web.StreamResponse:
        kind = call.kind
        (wishes, options) = await request_bodies.read_deletion(call.request)
        entry, ended = await self._write(call, wishes, options)
        if kind.body_in_delete or not ended:
            return one(call.form, entry, 200, options.warnings)
        about = details(kind.plural, kind.group, call.wanted.name, uid=entry.obj["metadata"]["uid"])
        return answer({**SUCCESS, "details": about}, 200, options.warnings)

    async def _deletecollection(self, call: Call) -> web.StreamResponse:
        wishes, options = await request_bodies.read_deletion(call.request)
        plural = call.kind.plural
        place = call.place
        match = call.match()
        entries = await self._registry.remove_collection(plural, place, match, wishes, options)
        metadata = {"resourceVersion": str(self._registry.store.revision)}
        return many(call.form, call.kind, entries, metadata)
