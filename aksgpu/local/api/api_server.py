"""The HTTP interface of the laptop's Kubernetes API: translates requests into calls of the registry.

It authenticates and authorizes requests. What the verbs do is in :mod:`aksgpu.local.api.registry`. Every error is
returned as a Status, with the text of a real API server.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, NamedTuple, Protocol, cast

from aiohttp import web

from aksgpu.common.times import now
from aksgpu.local import selectors
from aksgpu.local.api import access, discovery, request_bodies, reviews, streaming
from aksgpu.local.api.access import Attributes, CertificateAuthenticator, TokenAuthenticator, User
from aksgpu.local.api.pod_exec import PodExec, serve_attach, serve_exec
from aksgpu.local.api.pod_logs import PodLogs, open_log
from aksgpu.local.api.pod_port_forward import serve_port_forward
from aksgpu.local.api.port_forward_channels import PodPorts
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
from aksgpu.local.api.service_account_tokens import ServiceAccountTokens
from aksgpu.local.api.store import Entry
from aksgpu.local.kinds import ALL_VERBS, Kind
from aksgpu.local.kubernetes_versions import DEFAULT_VERSION
from aksgpu.local.objects import APPLY_PATCH, Object
from aksgpu.local.status_error import StatusError, details, version_too_large

log = logging.getLogger(__name__)

MAX_WATCHES = 800
"""Number of concurrent watches. Further requests get HTTP status 429."""


class NodeAgent(PodLogs, PodExec, PodPorts, Protocol):
    """The part of the node agent that the API server uses."""


class ApiRequest(NamedTuple):
    """A request about a resource."""

    request: web.Request
    user: User
    kind: Kind
    attributes: Attributes
    form: ResponseFormat

    @property
    def namespace(self) -> str | None:
        """The namespace; None for a cluster-scoped kind or a list of all namespaces."""
        if not self.kind.namespaced:
            return None
        return self.attributes.namespace or None

    @property
    def limit(self) -> int:
        """The maximum number of objects in a list; 0 for all of them. Raises BadRequest."""
        return max(request_bodies.query_int(self.request.query, "limit"), 0)

    def object_filter(self) -> selectors.ObjectFilter | None:
        """Return the request's selectors as a predicate, or None if they select everything."""
        query = self.request.query
        return selectors.object_filter(self.kind, query.get("labelSelector", ""), query.get("fieldSelector", ""))

    async def body(self, options: WriteOptions) -> Object:
        """Read the object in the request's body."""
        part = self.kind.subresources.get(self.attributes.subresource, self.kind)
        return await request_bodies.read_object(self.request, part, options)


Verb = Callable[[ApiRequest], Awaitable[web.StreamResponse]]


class KubeApi:
    """The Kubernetes API of one cluster.

    Args:
        registry: The cluster's objects.
        node: The node agent, which serves logs, runs commands in containers, and connects to ports of pods.
        tokens: The users by bearer token, or a function that returns the user of a token.
        certificates: Returns the user of a client certificate.
        secret: What the tokens of ServiceAccounts are signed with. None chooses one, which is lost with this object.
        version: The Kubernetes version that the server reports, such as ``1.36.2``.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        node: NodeAgent,
        tokens: TokenAuthenticator,
        certificates: CertificateAuthenticator = access.no_certificates,
        secret: bytes | None = None,
        version: str = DEFAULT_VERSION,
    ) -> None:
        self._registry = registry
        self._node = node
        self._accounts = ServiceAccountTokens(registry.store, secret or secrets.token_bytes(32))
        self._static_tokens = tokens
        self._certificates = certificates
        self._version = version
        self._watch_count = 0
        self._roles_load_at = 0.0
        self._verbs: dict[str, Verb] = {each: getattr(self, f"_{each}") for each in ALL_VERBS}
        self._streams: dict[str, Verb] = {
            "attach": self._attach,
            "exec": self._exec,
            "log": self._log,
            "portforward": self._port_forward,
        }

    def find_user(self, token: str) -> User | None:
        """Return the user of a bearer token, or None if it is not valid."""
        return access.find_token_user(token, self._static_tokens) or self._accounts.find_user(token)

    def unload_roles(self, seconds: float) -> None:
        """Behave for some seconds like a server that has just started and has not loaded the RBAC roles yet."""
        self._roles_load_at = time.monotonic() + seconds

    async def handle(self, request: web.Request, path: str) -> web.StreamResponse:
        """Answer a request.

        Args:
            request: The request.
            path: The Kubernetes path, such as ``/api/v1/nodes``, without a prefix that the server puts before it.
        """
        try:
            user = access.authenticate(request, self.find_user, self._certificates)
            target = parse_request(request.method, path, request_bodies.query_flag(request.query, "watch"))
            kind, attributes = target or (None, Attributes(request.method.lower(), path=path))
            with_roles = time.monotonic() >= self._roles_load_at
            if attributes.resource not in reviews.OWN or not with_roles:
                attributes = access.with_selected_name(attributes, request.query)
                access.authorize(self._registry.store, user, attributes, with_roles=with_roles)
            if kind is None:
                return discovery.serve(request, path, self._version)
            stream = self._streams.get(attributes.subresource)
            if stream is not None:
                return await stream(ApiRequest(request, user, kind, attributes, ResponseFormat()))
            return await self._verbs[attributes.verb](ApiRequest(request, user, kind, attributes, negotiate(request)))
        except StatusError as error:
            return status_response(error)
        except Exception as error:
            # The response names only the type of the error. Its text could quote the request, such as a Secret.
            log.exception("%s %s failed", request.method, path)
            message = f"Internal error occurred: {type(error).__name__}"
            return status_response(StatusError(500, "InternalError", message))

    # Reads

    async def _get(self, call: ApiRequest) -> web.StreamResponse:
        entry = await self._registry.entry(call.kind.plural, call.attributes.name, call.namespace)
        return object_response(call.form, entry)

    async def _list(self, call: ApiRequest) -> web.StreamResponse:
        query = call.request.query
        version = request_bodies.query_version(query)
        current = self._registry.store.revision
        if version > current:
            # The store may have been lost. The client must not get an older state without noticing it.
            raise version_too_large(version, current)
        token = query.get("continue", "")
        if request_bodies.wants_exact_version(query):
            token = continue_token(version)
        page = await self._registry.list_page(
            call.kind.plural, call.namespace, call.object_filter(), limit=call.limit, token=token
        )
        metadata: Object = {"resourceVersion": page.resource_version}
        if page.token:
            metadata["continue"] = page.token
        if page.remaining is not None:
            metadata["remainingItemCount"] = page.remaining
        return list_response(call.form, call.kind, page.entries, metadata)

    async def _watch(self, call: ApiRequest) -> web.StreamResponse:
        query = call.request.query
        # The query is parsed first: an error cannot be returned once the stream has begun.
        object_filter = call.object_filter()
        version = request_bodies.query_version(query)
        seconds = request_bodies.query_int(query, "timeoutSeconds") or random.randint(1800, 3600)
        encode = event_encoder(call.form)
        if self._watch_count >= MAX_WATCHES:
            message = "The maximum number of watches was reached, please try again later."
            raise StatusError(429, "TooManyRequests", message, {"retryAfterSeconds": 1})
        initial = request_bodies.wants_initial_events(query)
        if initial is False and not version:
            version = self._registry.store.revision
        events = self._registry.stream(
            call.kind.plural,
            call.namespace,
            object_filter,
            resource_version=version,
            bookmark_seconds=streaming.CHECK_SECONDS,
            initial_events=bool(initial),
        )
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

    async def _attach(self, call: ApiRequest) -> web.StreamResponse:
        pod = await self._registry.get("pods", call.attributes.name, call.namespace)
        return await serve_attach(self._node, pod, call.request)

    async def _port_forward(self, call: ApiRequest) -> web.StreamResponse:
        pod = await self._registry.get("pods", call.attributes.name, call.namespace)
        return await serve_port_forward(self._node, pod, call.request)

    # Writes

    async def _write(self, call: ApiRequest, body: Any, options: WriteOptions, media: str = "") -> tuple[Entry, bool]:
        attributes = call.attributes
        return await self._registry.write(
            attributes.verb,
            attributes.resource,
            body,
            attributes.name,
            call.namespace,
            subresource=attributes.subresource,
            content_type=media,
            options=options,
        )

    async def _create(self, call: ApiRequest) -> web.StreamResponse:
        attributes = call.attributes
        options = request_bodies.write_options(call.request, "CreateOptions")
        body = await call.body(options)
        if attributes.subresource == "token":
            return await self._create_token(call, body)
        delete_options = body.get("deleteOptions")
        if attributes.subresource == "eviction" and isinstance(delete_options, dict):
            options = request_bodies.with_dry_run(options, delete_options.get("dryRun"))
        entry, _ = await self._write(call, body, options)
        if attributes.resource in reviews.KINDS:
            spec = entry.obj.get("spec") or {}
            status = reviews.status(attributes.resource, self._registry.store, self.find_user, call.user, spec)
            return json_response({**entry.obj, "status": status}, 201, options.warnings)
        if attributes.subresource:
            return json_response(entry.obj, 201)
        return object_response(call.form, entry, 201, options.warnings)

    async def _create_token(self, call: ApiRequest, body: Object) -> web.StreamResponse:
        """Answer a TokenRequest, which is not stored."""
        account = await self._registry.get("serviceaccounts", call.attributes.name, call.namespace)
        part = call.kind.subresources["token"]
        metadata = {"name": call.attributes.name, "namespace": call.namespace, "creationTimestamp": now()}
        spec = body.get("spec") or {}
        status = self._accounts.status(account, spec)
        answer = {"kind": part.kind, "apiVersion": part.api_version, "metadata": metadata, "spec": spec}
        return json_response({**answer, "status": status}, 201)

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
            # Applying an object that does not exist creates it.
            access.authorize(store, call.user, attributes._replace(verb="create"))
        entry, created = await self._write(call, patch, options, media)
        return object_response(call.form, entry, 201 if created else 200, options.warnings)

    async def _delete(self, call: ApiRequest) -> web.StreamResponse:
        kind = call.kind
        delete_options, options = await request_bodies.read_delete_options(call.request)
        entry, is_gone = await self._write(call, delete_options, options)
        if kind.delete_returns_object or not is_gone:
            return object_response(call.form, entry, 200, options.warnings)
        status = {
            **SUCCESS,
            "details": details(kind.plural, kind.group, call.attributes.name, uid=entry.obj["metadata"]["uid"]),
        }
        return json_response(status, 200, options.warnings)

    async def _deletecollection(self, call: ApiRequest) -> web.StreamResponse:
        delete_options, options = await request_bodies.read_delete_options(call.request)
        page = await self._registry.remove_collection(
            call.kind.plural,
            call.namespace,
            call.object_filter(),
            delete_options,
            options,
            limit=call.limit,
            token=call.request.query.get("continue", ""),
        )
        metadata = {"resourceVersion": str(self._registry.store.revision)}
        if page.token:
            metadata["continue"] = page.token
        return list_response(call.form, call.kind, page.entries, metadata)
