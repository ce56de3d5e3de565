"""The front door of the laptop's Resource Manager: from an HTTP request to its handler and back.

It checks what Azure checks before a resource provider sees a request (api-version, subscription, JSON), and puts on the
headers that every Azure answer carries. Who may call is the server's business.
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
from aksgpu.local.arm import arm_routes, autoscaler, token_buckets
from aksgpu.local.arm.arm_errors import ArmError, refusal, refuse_if
from aksgpu.local.arm.arm_store import Document, State
from aksgpu.local.arm.async_operations import Operations
from aksgpu.local.arm.context import Answer, Call, Clusters, Context
from aksgpu.local.arm.faults import Faults, order
from aksgpu.local.arm.json_schema import WrongField, require
from aksgpu.local.arm.kubeconfigs import answers, uses_entra
from aksgpu.local.arm.reference_data import SUBSCRIPTION, table
from aksgpu.local.arm.token_buckets import Throttle
from aksgpu.local.control.controller_runtime import Tasks
from aksgpu.local.settings import Settings

log = logging.getLogger(__name__)

API_VERSION = re.compile(r"20[12]\d-\d\d-\d\d(-preview)?")
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
PRICES = "/api/retail/prices"


class ResourceManager:
    """Resource Manager of the laptop's one subscription.

    Args:
        home: where ``arm.db`` and ``ca.pem`` are.
        clusters: runs the Kubernetes clusters.
        settings: the laptop's.
    """

    def __init__(self, home: Path, clusters: Clusters, settings: Settings) -> None:
        self._state = State(home / "arm.db")
        self._context = Context(self._state, clusters, settings, home / "ca.pem", Faults())
        self._context.operations = Operations(self._context)
        self._throttle = Throttle(settings.time_scale)
        self._background = Tasks()

    async def start(self) -> None:
        """Read the state, start the clusters that ran, and go on with operations; raises LaptopError.

        A cluster that cannot be started becomes ``Failed`` and says why; the others, and its deletion, go on.
        """
        self._state.open()
        for key, cluster in self._state.clusters.items():
            if cluster["power"] != "Running":
                continue
            try:
                await self._context.objects(cluster)
            except LaptopError as error:
                log.error("cluster %s: %s", key, error)
                cluster["state"] = "Failed"
                cluster["error"] = {"code": "ControlPlaneNotRunning", "message": str(error)}
                self._state.save(("clusters", key))
        self._context.operations.resume()
        self._background.spawn(autoscaler.run(self._context))

    async def stop(self) -> None:
        """Leave operations where they are and close the file; the clusters are the caller's to stop."""
        await self._background.cancel()
        await self._context.operations.stop()
        self._state.close()

    @property
    def cluster_names(self) -> list[str]:
        """``resource group/cluster`` of every cluster."""
        return [f"{cluster['group']}/{cluster['name']}" for cluster in self._state.clusters.values()]

    def knows(self, cluster_id: str) -> bool:
        """Whether there is such a cluster, running or not."""
        return self._cluster(cluster_id) is not None

    def uses_entra(self, cluster_id: str) -> bool:
        """Whether people log in to the cluster with Entra ID."""
        cluster = self._cluster(cluster_id)
        return cluster is not None and uses_entra(cluster)

    def answers(self, cluster_id: str, address: str) -> bool:
        """Whether the cluster's API server, if there is one, is for callers at this address."""
        cluster = self._cluster(cluster_id)
        return cluster is None or answers(cluster, address)

    def _cluster(self, cluster_id: str) -> Document | None:
        return next((found for found in self._state.clusters.values() if found["id"] == cluster_id), None)

    @property
    def busy(self) -> bool:
        """Whether an operation runs."""
        return any(operation["status"] == "InProgress" for operation in self._state.operations.values())

    async def inject(self, fault: str, details: dict[str, Any]) -> str:
        """Order a failure, or do it at once; what was done, in words. Raises ArmError."""
        return await order(self._context, fault, details)

    async def handle(self, request: web.Request) -> web.Response:
        """Answer an HTTP request."""
        try:
            answer = await self._answer(request)
        except ArmError as error:
            cause = {} if error.flat else {"x-ms-failure-cause": "gateway"}
            answer = Answer(error.status, error.body(), cause | error.headers)
        except Exception:
            log.exception("%s %s", request.method, request.path)
            message = "The request failed inside the laptop AKS; its log, laptop.log, has the details."
            answer = Answer(500, {"error": {"code": "InternalServerError", "message": message}})
        return _response(answer, request.headers)

    async def _answer(self, request: web.Request) -> Answer:
        # still encoded: names may hold slashes
        method = request.method
        path = request.rel_url.raw_path
        query = {key.lower(): value for key, value in request.query.items()}
        if path.lower() != PRICES:
            version = query.get("api-version", "")
            segments = [*path.split("/"), "", ""]
            refuse_if(not version, "no_version")
            refuse_if(API_VERSION.fullmatch(version) is None, "bad_version", version=version)
            given = segments[2] if segments[1].lower() == "subscriptions" and segments[2] else SUBSCRIPTION
            refuse_if(GUID.fullmatch(given) is None, "bad_subscription", given=given)
            refuse_if(given.lower() != SUBSCRIPTION, "no_subscription", given=given)
        route, names, allowed = arm_routes.find(method, path)
        refuse_if(route is None and allowed, "no_method", method=method, path=path, allowed=", ".join(allowed))
        if route is None:
            raise refusal("no_type", path=path)
        _, _, handler, schema = route
        self._context.faults.check_request(method, token_buckets.name(handler, method))
        self._throttle.check(handler, names)
        base = f"{request.scheme}://{request.host}"
        body = _parsed(await _read(request), schema)
        call = Call(base, {**names, "raw": path}, query, request.headers, body)
        result = handler(self._context, call)
        return await result if inspect.isawaitable(result) else result


async def _read(request: web.Request) -> bytes:
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise refusal("too_large") from None
    except web.RequestPayloadError as error:
        raise refusal("bad_content", why=error) from None
    packed = request.headers.get("Content-Encoding", "identity")
    refuse_if(body and packed != "identity", "bad_content", why=f"Content-Encoding {packed!r} is not supported")
    return body


def _parsed(body: bytes, schema: str) -> object:
    """A request's JSON, looked at before a handler sees it."""
    if not body:
        return None
    try:
        parsed = orjson.loads(body)  # which takes no half characters and no NaN
    except orjson.JSONDecodeError as error:
        raise refusal("bad_content", why=error) from None
    refuse_if(not isinstance(parsed, dict), "bad_content", why="a JSON object is expected")
    refuse_if(_deep(parsed), "bad_content", why="it is nested too deeply")
    try:
        if schema:
            require(table("fields")[schema], parsed)
    except WrongField as wrong:
        raise refusal("invalid", field=wrong.path, why=wrong.why) from None
    return parsed


def _deep(value: Any, most: int = 50) -> bool:
    """Whether JSON is nested deeper than any that Azure takes; what is kept has to be copied and written."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most == 0 or any(_deep(each, most - 1) for each in inner)


def _response(answer: Answer, asked: Mapping[str, str]) -> web.Response:
    request_id = str(uuid.uuid4())
    headers = {
        "Cache-Control": "no-cache",
        "x-ms-request-id": request_id,
        "x-ms-correlation-request-id": asked.get("x-ms-correlation-request-id", request_id),
        **({"x-ms-client-request-id": asked["x-ms-client-request-id"]} if "x-ms-client-request-id" in asked else {}),
        **answer.headers,
    }
    if answer.body is None:
        return web.Response(status=answer.status, headers=headers)
    return web.json_response(answer.body, status=answer.status, headers=headers)
