"""The HTTP interface of Resource Manager: passes requests to handlers and builds their responses.

It checks what Azure checks before a request reaches a resource provider (api-version, subscription, JSON), and adds the
headers of every Azure response. The server has already authenticated the caller.
"""

from __future__ import annotations

import inspect
import logging
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from aksgpu.errors import LaptopError
from aksgpu.local.arm import arm_routes, autoscaler, fault_injection, kubeconfigs, operation_steps, token_buckets
from aksgpu.local.arm.arm_errors import ArmError, refusal, refuse_if
from aksgpu.local.arm.arm_store import Document, State
from aksgpu.local.arm.async_operations import Operations
from aksgpu.local.arm.context import Answer, Call, Clusters, Context
from aksgpu.local.arm.faults import Faults
from aksgpu.local.arm.json_schema import InvalidField, require
from aksgpu.local.arm.reference_data import SUBSCRIPTION, table
from aksgpu.local.arm.token_buckets import Throttle
from aksgpu.local.control.controller_runtime import Tasks
from aksgpu.local.settings import Settings

log = logging.getLogger(__name__)

API_VERSION = re.compile(r"20[12]\d-\d\d-\d\d(-preview)?")
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
PRICES = "/api/retail/prices"
METADATA = "/metadata/endpoints"
MAX_DEPTH = 50
"""Maximum nesting depth of JSON in requests. Documents are copied and serialized recursively."""


class ResourceManager:
    """Azure Resource Manager with one subscription.

    Args:
        home: the directory of ``arm.db`` and ``ca.pem``.
        clusters: runs the Kubernetes clusters.
        settings: the laptop's settings.
    """

    def __init__(self, home: Path, clusters: Clusters, settings: Settings) -> None:
        self._state = State(home / "arm.db")
        faults = Faults()
        operations = Operations(self._state, faults, settings.time_scale)
        self._context = Context(self._state, clusters, settings, home / "ca.pem", faults, operations)
        operations.kinds = operation_steps.operation_kinds(self._context)
        self._throttle = Throttle(settings.time_scale)
        self._background = Tasks()

    async def start(self) -> None:
        """Read the state, start the clusters that were running, and resume operations.

        A cluster that cannot be started gets the state ``Failed`` and an error. It can still be deleted.

        Raises:
            LaptopError: the state cannot be read.
        """
        self._state.open()
        for key, cluster in self._state.clusters.items():
            if cluster["power"] != "Running":
                continue
            try:
                await self._context.get_objects(cluster)
            except LaptopError as error:
                log.error("cluster %s: %s", key, error)
                cluster["state"] = "Failed"
                cluster["error"] = {"code": "ControlPlaneNotRunning", "message": str(error)}
                self._state.save(("clusters", key))
        self._context.operations.resume()
        self._background.spawn(autoscaler.run(self._context))

    async def stop(self) -> None:
        """Interrupt the operations and close the state. The caller stops the clusters."""
        await self._background.cancel()
        await self._context.operations.stop()
        self._state.close()

    @property
    def cluster_names(self) -> list[str]:
        """The names of all clusters, as ``resource group/cluster``."""
        return [f"{cluster['group']}/{cluster['name']}" for cluster in self._state.clusters.values()]

    def has_cluster(self, cluster_id: str) -> bool:
        """Return whether the cluster exists, running or not."""
        return self._find_cluster(cluster_id) is not None

    def uses_entra(self, cluster_id: str) -> bool:
        """Return whether users log in to the cluster with Entra ID."""
        cluster = self._find_cluster(cluster_id)
        return cluster is not None and kubeconfigs.uses_entra(cluster)

    def allows_address(self, cluster_id: str, address: str) -> bool:
        """Return whether the cluster's API server, if it exists, accepts connections from this IP address."""
        cluster = self._find_cluster(cluster_id)
        return cluster is None or kubeconfigs.allows_address(cluster, address)

    def _find_cluster(self, cluster_id: str) -> Document | None:
        return next((found for found in self._state.clusters.values() if found["id"] == cluster_id), None)

    @property
    def busy(self) -> bool:
        """Whether an operation is in progress."""
        return any(operation["status"] == "InProgress" for operation in self._state.operations.values())

    async def inject(self, fault: str, details: dict[str, Any]) -> str:
        """Inject a fault; see :func:`aksgpu.local.arm.fault_injection.inject`."""
        return await fault_injection.inject(self._context, fault, details)

    async def handle(self, request: web.Request) -> web.Response:
        """Handle an HTTP request."""
        try:
            answer = await self._dispatch(request)
        except ArmError as error:
            headers = {} if error.flat else {"x-ms-failure-cause": "gateway"}
            answer = Answer(error.status, error.body(), headers | error.headers)
        except Exception:
            log.exception("%s %s", request.method, request.path)
            message = "The request failed in the laptop AKS. Its log, laptop.log, has the details."
            answer = Answer(500, {"error": {"code": "InternalServerError", "message": message}})
        return _build_response(answer, request.headers)

    async def _dispatch(self, request: web.Request) -> Answer:
        method = request.method
        path = request.rel_url.raw_path  # still encoded, because names may contain slashes
        query = {key.lower(): value for key, value in request.query.items()}
        if path.lower() not in (METADATA, PRICES):
            _check_address(path, query.get("api-version", ""))
        route, names, allowed = arm_routes.find_route(method, path)
        refuse_if(route is None and allowed, "no_method", method=method, path=path, allowed=", ".join(allowed))
        if route is None:
            raise refusal("no_type", path=path)
        _, _, handler, schema = route
        self._context.faults.check_request(method, token_buckets.request_name(handler, method))
        self._throttle.check(handler, names)
        base_url = f"{request.scheme}://{request.host}"
        body = _parse_body(await _read_body(request), schema)
        call = Call(base_url, {**names, "raw": path}, query, request.headers, body)
        result = handler(self._context, call)
        return await result if inspect.isawaitable(result) else result


def _check_address(path: str, version: str) -> None:
    """Raise ArmError if the api-version or the subscription in the path is not valid."""
    refuse_if(not version, "no_version")
    refuse_if(API_VERSION.fullmatch(version) is None, "bad_version", version=version)
    segments = [*path.split("/"), "", ""]
    given = segments[2] if segments[1].lower() == "subscriptions" and segments[2] else SUBSCRIPTION
    refuse_if(GUID.fullmatch(given) is None, "bad_subscription", given=given)
    refuse_if(given.lower() != SUBSCRIPTION, "no_subscription", given=given)


async def _read_body(request: web.Request) -> bytes:
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise refusal("too_large") from None
    except web.RequestPayloadError as error:
        raise refusal("bad_content", why=error) from None
    encoding = request.headers.get("Content-Encoding", "identity")
    refuse_if(body and encoding != "identity", "bad_content", why=f"Content-Encoding {encoding!r} is not supported")
    return body


def _parse_body(body: bytes, schema: str) -> object:
    """Parse the JSON of a request, and validate it against a schema of ``fields.yaml`` if one is given."""
    if not body:
        return None
    try:
        parsed = orjson.loads(body)  # unlike json, it rejects lone surrogates and NaN
    except orjson.JSONDecodeError as error:
        raise refusal("bad_content", why=error) from None
    refuse_if(not isinstance(parsed, dict), "bad_content", why="a JSON object is expected")
    refuse_if(_is_deeper_than(parsed, MAX_DEPTH), "bad_content", why="it is nested too deeply")
    try:
        if schema:
            require(table("fields")[schema], parsed)
    except InvalidField as error:
        raise refusal("invalid", field=error.path, why=error.why) from None
    return parsed


def _is_deeper_than(value: Any, limit: int) -> bool:
    """Return whether JSON is nested deeper than ``limit`` levels."""
    if limit == 0:
        return True
    if isinstance(value, dict):
        children = list(value.values())
    elif isinstance(value, list):
        children = value
    else:
        return False
    return any(_is_deeper_than(child, limit - 1) for child in children)


def _build_response(answer: Answer, request_headers: Mapping[str, str]) -> web.Response:
    request_id = str(uuid.uuid4())
    headers = {
        "Cache-Control": "no-cache",
        "x-ms-request-id": request_id,
        "x-ms-correlation-request-id": request_headers.get("x-ms-correlation-request-id", request_id),
    }
    if "x-ms-client-request-id" in request_headers:
        headers["x-ms-client-request-id"] = request_headers["x-ms-client-request-id"]
    headers |= answer.headers
    if answer.body is None:
        return web.Response(status=answer.status, headers=headers)
    return web.json_response(answer.body, status=answer.status, headers=headers)
