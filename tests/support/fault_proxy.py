"""A seeded HTTP proxy that breaks requests on purpose.

The proxy is placed between the library and a server: the laptop AKS, a scripted server, or any other. For each request,
a plan decides whether the proxy forwards it unchanged, answers it, or breaks it::

    with FaultProxy.for_kubeconfig(path, seed=7) as proxy:
        proxy.plan = first(status(500), times=3, path=r"/log")
        kube = Kube.from_kubeconfig(proxy.kubeconfig(tmp_path))
        ...
    print(proxy.summary())

A plan is a callable ``plan(call)`` that returns a :class:`Fault` or None. :func:`first`, :func:`each_once`,
:func:`in_turn` and :func:`at_random` return the usual plans. The client's side is plain HTTP, or HTTPS with
``tls=True``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import random
import re
import socket
import ssl
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import trustme
import yaml
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from aksgpu.kube.kubeconfig import load as read_kubeconfig

DEFAULT_SILENCE = 600.0
"""Seconds for which a half-open connection stays open, unless the proxy or the client closes it earlier."""
STOP_TIMEOUT = 60.0
"""Seconds that stopping the proxy, or breaking its connections, may take."""
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "trailer", "upgrade"}

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(frozen=True)
class Call:
    """One request, as a plan sees it."""

    method: str
    path: str
    """Without the query."""
    query: Mapping[str, str]
    ordinal: int
    """Number of requests that the proxy received before this one."""
    nth: int
    """The same for requests with this method and path."""
    random: random.Random = field(repr=False, compare=False)
    """The proxy's seeded random generator."""

    def matches(self, path: str = "", method: str = "") -> bool:
        """Return whether the method is equal, and the regular expression matches in the path with its query."""
        query = "&".join(f"{key}={value}" for key, value in self.query.items())
        return (not method or self.method == method) and bool(
            re.search(path, self.path + ("?" + query if query else ""))
        )


@dataclass(frozen=True)
class Fault:
    """What happens to one request. The functions below return the usual faults."""

    kind: str
    """Name of the fault, for :attr:`FaultProxy.faults`."""
    status: int | None = None
    """Status of a response of the proxy's own; None forwards the request."""
    body: bytes = b""
    """Body of that response."""
    headers: Mapping[str, str] = field(default_factory=dict)
    at: int | None = None
    """Bytes of the server's body that are forwarded before the fault."""
    seconds: float = 0.0
    """Length of a silence, of a pause, or of the time for which connections are refused."""
    size: int = 0
    """Bytes in one piece of a slow body."""
    forwarded: bool = True
    """Whether the server receives the request."""


Plan = Callable[[Call], "Fault | None"]


# Faults: responses of the proxy's own. The server does not receive the request.


def status(code: int, text: str | None = None, *, retry_after: int | None = None) -> Fault:
    """Return an error status, with a Kubernetes Status object or with plain text."""
    if text is None:
        document = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": f"the fault proxy answers {code}",
            "reason": _REASONS.get(code, ""),
            "code": code,
        }
        return _answer(f"status {code}", code, document, retry_after=retry_after)
    headers = {"Content-Type": "text/plain"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return Fault(f"status {code}", status=code, body=text.encode(), headers=headers, forwarded=False)


def unauthorized() -> Fault:
    """Return a 401. A client gets new credentials once and repeats the request."""
    return _failure("unauthorized", 401, "Unauthorized", "Unauthorized")


def rbac_not_ready(role: str = "edit") -> Fault:
    """Return the 403 of an API server that has just started and has not read its roles."""
    message = (
        'jobs.batch is forbidden: User "system:serviceaccount:default:trainer" cannot get resource "jobs" in API group '
        f'"batch" in the namespace "default": RBAC: clusterrole.rbac.authorization.k8s.io "{role}" not found'
    )
    return _failure("transient 403", 403, "Forbidden", message)


def forbidden() -> Fault:
    """Return the 403 for a user who lacks the right."""
    message = (
        'pods "p" is forbidden: User "jane" cannot get resource "pods/log" in API group "" in the namespace "default"'
    )
    return _failure("forbidden", 403, "Forbidden", message)


def not_found(what: str = 'pods "p"') -> Fault:
    """Return a 404 with a Status object."""
    return _failure("not found", 404, "NotFound", f"{what} not found")


def gone() -> Fault:
    """Return a 410: the resource version is too old."""
    return _failure("gone", 410, "Expired", "The resourceVersion for the provided watch is too old.")


def etcd_hangs() -> Fault:
    """Return the 500 of an API server whose etcd does not answer."""
    return _failure("etcd hangs", 500, "InternalError", "etcdserver: request timed out")


def kubelet_away() -> Fault:
    """Return the 500 of an API server that cannot reach the node's kubelet."""
    url = "https://10.240.0.4:10250/containerLogs/default/p/main?timestamps=true"
    message = f'Get "{url}": dial tcp 10.240.0.4:10250: connect: connection refused'
    return _failure("kubelet away", 500, "InternalError", message)


def tunnel_broken() -> Fault:
    """Return the 500 of AKS' tunnel between the API server and the nodes."""
    url = "https://10.240.0.11:10250/containerLogs/default/train-abc/main"
    message = f'Get "{url}": write unix @->/tunnel-uds/proxysocket: write: broken pipe'
    return _failure("tunnel broken", 500, "InternalError", message)


def kubelet_message(text: str = "unable to retrieve container logs for containerd://4f2ad1") -> Fault:
    """Return a 200 whose body is a message of the kubelet."""
    headers = {"Content-Type": "text/plain"}
    return Fault("kubelet's message", status=200, body=text.encode(), headers=headers, forwarded=False)


def empty(code: int = 200) -> Fault:
    """Return a response without a body."""
    return Fault("empty answer", status=code, headers={"Content-Type": "text/plain"}, forwarded=False)


# Faults of the connection. The server receives the request unless forwarded=False.


def cut(at: int = 0, *, forwarded: bool = True) -> Fault:
    """Break the connection after ``at`` bytes of the body."""
    return Fault("cut", at=at, forwarded=forwarded)


def no_answer() -> Fault:
    """Break the connection after the server has received the request, before the client gets a status line."""
    return Fault("no answer", at=None)


def early_end(at: int = 0) -> Fault:
    """End the body cleanly after ``at`` bytes, so that the client cannot tell that more is missing."""
    return Fault("early end", at=at)


def half_open(at: int | None = 0, *, seconds: float = DEFAULT_SILENCE) -> Fault:
    """Send nothing after ``at`` bytes of the body, and keep the connection open. None: not even the status."""
    return Fault("half-open", at=at, seconds=seconds)


def trickle(size: int = 7, pause: float = 0.005) -> Fault:
    """Send the body slowly: pieces of ``size`` bytes with a pause after each."""
    return Fault("trickle", size=size, seconds=pause)


def refused(seconds: float = 0.3) -> Fault:
    """Close every connection, and refuse new ones for some seconds, as during the restart of a server."""
    return Fault("refused", seconds=seconds, forwarded=False)


def _failure(kind: str, code: int, reason: str, message: str) -> Fault:
    document = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    return _answer(kind, code, document)


def _answer(kind: str, code: int, document: Mapping[str, Any], *, retry_after: int | None = None) -> Fault:
    headers = {"Content-Type": "application/json"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return Fault(kind, status=code, body=json.dumps(document).encode(), headers=headers, forwarded=False)


# Plans.


def nothing(call: Call) -> None:
    """Forward every request."""


def first(fault: Fault, *, times: int = 1, path: str = "", method: str = "") -> Plan:
    """Plan the fault for the first ``times`` matching requests."""
    return in_turn([fault] * times, path=path, method=method)


def in_turn(faults: Iterable[Fault | None], *, path: str = "", method: str = "") -> Plan:
    """Plan the faults for the matching requests in order. None forwards a request."""
    waiting = list(faults)

    def plan(call: Call) -> Fault | None:
        return waiting.pop(0) if waiting and call.matches(path, method) else None

    return plan


def always(fault: Fault, *, path: str = "", method: str = "") -> Plan:
    """Plan the fault for every matching request."""
    return lambda call: fault if call.matches(path, method) else None


def each_once(fault: Fault, *, path: str = "", method: str = "") -> Plan:
    """Plan the fault for the first request of each matching method and path."""
    return lambda call: fault if call.nth == 0 and call.matches(path, method) else None


def at_random(
    make: Sequence[Callable[[random.Random], Fault]], share: float, *, limit: int | None = None, path: str = ""
) -> Plan:
    """Plan faults for a share of the matching requests, ``limit`` in all, chosen by the proxy's seeded generator."""
    given = 0

    def plan(call: Call) -> Fault | None:
        nonlocal given
        if (limit is not None and given >= limit) or not call.matches(path) or call.random.random() >= share:
            return None
        given += 1
        return call.random.choice(make)(call.random)

    return plan


class FaultProxy:
    """The proxy, a context manager.

    Args:
        server: address of the real server, such as ``https://127.0.0.1:8443``.
        plan: decides what happens to each request; can be set later.
        seed: the seed of the generator that plans use. None chooses a seed and prints it.
        ca_file: certificate authority of the real server, for HTTPS.
        ca_data: the same as PEM text.
        tls: serve HTTPS; ``ca_pem`` is the authority to trust.

    Attributes:
        calls: every request, in order.
        faults: every (call, fault), in order.
        seed: the seed.
    """

    def __init__(
        self,
        server: str,
        plan: Plan = nothing,
        *,
        seed: int | None = None,
        ca_file: str | Path | None = None,
        ca_data: str | None = None,
        tls: bool = False,
    ) -> None:
        self.server = server.rstrip("/")
        self.plan = plan
        self.seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
        self.calls: list[Call] = []
        self.faults: list[tuple[Call, Fault]] = []
        self.ca_pem = b""
        self._random = random.Random(self.seed)
        self._seen: Counter[tuple[str, str]] = Counter()
        self._upstream_tls: ssl.SSLContext | None = None
        if server.startswith("https"):
            self._upstream_tls = ssl.create_default_context(cafile=ca_file, cadata=ca_data)
        self._server_tls = self._certificate() if tls else None
        self._config: dict[str, Any] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0

    @classmethod
    def for_kubeconfig(cls, path: str | Path, plan: Plan = nothing, *, seed: int | None = None) -> Self:
        """Return a proxy for the server of a kubeconfig. Clients use the file that :meth:`kubeconfig` writes."""
        config = read_kubeconfig(path)
        context = next(each for each in config["contexts"] if each["name"] == config["current-context"])
        cluster = next(each for each in config["clusters"] if each["name"] == context["context"]["cluster"])["cluster"]
        authority = cluster.get("certificate-authority-data")
        proxy = cls(
            cluster["server"],
            plan,
            seed=seed,
            ca_file=cluster.get("certificate-authority"),
            ca_data=base64.b64decode(authority).decode() if authority else None,
        )
        proxy._config = config
        user = next((u.get("user") or {} for u in config["users"] if u["name"] == context["context"].get("user")), {})
        proxy._log_in(user)
        return proxy

    def _certificate(self) -> ssl.SSLContext:
        authority = trustme.CA()
        self.ca_pem = authority.cert_pem.bytes()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        return context

    def _log_in(self, user: Mapping[str, Any]) -> None:
        """Use the kubeconfig's client certificate for the server. Tokens are forwarded with the requests."""
        if self._upstream_tls is None or "client-certificate-data" not in user:
            return
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(base64.b64decode(user["client-key-data"]) + b"\n")
            file.write(base64.b64decode(user["client-certificate-data"]))
            file.flush()
            self._upstream_tls.load_cert_chain(file.name)

    # Start and stop

    @property
    def url(self) -> str:
        """Address of the proxy, with the path of the server's own address."""
        scheme = "https" if self._server_tls else "http"
        rest = self.server.partition("://")[2].partition("/")[2]
        return f"{scheme}://127.0.0.1:{self._port}" + (f"/{rest}" if rest else "")

    def kubeconfig(self, folder: Path, *, token: str = "t0") -> Path:
        """Write a kubeconfig for the proxy, and return its path."""
        cluster: dict[str, Any] = {"server": self.url}
        if self.ca_pem:
            authority = folder / f"fault-proxy-{self._port}-ca.pem"
            authority.write_bytes(self.ca_pem)
            cluster["certificate-authority"] = str(authority)
        config = copy.deepcopy(self._config) or {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "faults",
            "clusters": [{"name": "c"}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "faults", "context": {"cluster": "c", "user": "u"}}],
        }
        for entry in config["clusters"]:
            entry["cluster"] = cluster
        path = folder / f"fault-proxy-{self._port}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_TIMEOUT)
        self._loop.close()
        print(self.summary())  # noqa: T201  # pytest shows the seed if a test fails

    def summary(self) -> str:
        """Return the seed, and the numbers of requests and faults, in one line."""
        counts = Counter(fault.kind for _, fault in self.faults)
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
        return f"fault proxy: seed {self.seed}, {len(self.calls)} requests, {len(self.faults)} faults ({kinds})"

    def refuse(self, seconds: float) -> None:
        """Close every connection and refuse new ones for some seconds. Return when the port is closed."""
        self._run(self._refuse(seconds))

    def break_connections(self) -> None:
        """Close every connection. New ones are accepted. Return when the connections are closed."""
        self._run(self._break_connections())

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(STOP_TIMEOUT)

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=0, ssl=self._upstream_tls or True),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        self._web = web.Server(self._handle, handler_cancellation=True, access_log=None)
        # This socket keeps the port for the proxy while connections are refused.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reservation.bind(("127.0.0.1", 0))
        self._port = self._reservation.getsockname()[1]
        await self._listen()

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._listener.close()
        self._reservation.close()
        self._abort()
        await self._web.shutdown(timeout=0.1)
        await self._session.close()

    async def _listen(self) -> None:
        self._listener = await self._loop.create_server(
            self._web, "127.0.0.1", self._port, ssl=self._server_tls, reuse_port=True
        )

    async def _break_connections(self) -> None:
        self._abort()

    async def _refuse(self, seconds: float) -> None:
        self._listener.close()
        self._abort()
        task = asyncio.create_task(self._listen_again(seconds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen_again(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if not self._listener.is_serving():  # two requests may be refused at the same time
            await self._listen()

    def _abort(self) -> None:
        for connection in list(self._web.connections):
            if connection.transport is not None:
                connection.transport.abort()

    # One request

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        key = (request.method, request.path)
        call = Call(request.method, request.path, dict(request.query), len(self.calls), self._seen[key], self._random)
        self._seen[key] += 1
        self.calls.append(call)
        fault = self.plan(call)
        if fault is not None:
            self.faults.append((call, fault))
        if fault is not None and fault.kind == "refused":
            await self._refuse(fault.seconds)
            return web.Response()
        if fault is not None and not fault.forwarded:
            if fault.status is None:
                return _break(request)
            return web.Response(status=fault.status, body=fault.body, headers=dict(fault.headers))
        try:
            return await self._forward(request, fault)
        except aiohttp.ClientError:
            return _break(request)  # the server closed the connection or does not respond, and the proxy does the same

    async def _forward(self, request: web.BaseRequest, fault: Fault | None) -> web.StreamResponse:
        content = await request.read()
        root = self.server.partition("://")
        target = f"{root[0]}://{root[2].partition('/')[0]}{request.raw_path}"
        headers = _without_hops(request.headers)
        async with self._session.request(
            request.method, URL(target, encoded=True), data=content or None, headers=headers, allow_redirects=False
        ) as answer:
            if fault is not None and fault.kind == "no answer":
                await answer.read()
                return _break(request)
            if fault is not None and fault.kind == "half-open" and fault.at is None:
                await asyncio.sleep(fault.seconds)
                return _break(request)
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            response.headers.extend(_without_hops(answer.headers))
            if request.version >= (1, 1) and answer.status not in (204, 304):
                response.enable_chunked_encoding()
            await response.prepare(request)
            whole = await _pass_body(answer.content, response, fault)
            if whole:
                await response.write_eof()
                return response
            return _break(request, response)


async def _pass_body(source: aiohttp.StreamReader, response: web.StreamResponse, fault: Fault | None) -> bool:
    """Forward the body with the fault. Return whether the body ends cleanly, rather than by a broken connection."""
    passed = 0
    limit = fault.at if fault is not None else None
    while limit is None or passed < limit:
        block = await source.readany()
        if not block:
            return True
        if limit is not None:
            block = block[: limit - passed]
        passed += len(block)
        if fault is not None and fault.kind == "trickle":
            await _slowly(block, response, fault)
        else:
            await response.write(block)
    if fault is not None and fault.kind == "half-open":
        await asyncio.sleep(fault.seconds)
    return fault is not None and fault.kind == "early end"


async def _slowly(block: bytes, response: web.StreamResponse, fault: Fault) -> None:
    for start in range(0, len(block), fault.size):
        await response.write(block[start : start + fault.size])
        await asyncio.sleep(fault.seconds)


def _break(request: web.BaseRequest, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """Close the connection in the middle of the response, after sending what was written."""
    if request.transport is not None:
        with contextlib.suppress(OSError):
            request.transport.close()
    return response or web.Response()


def _without_hops(headers: Mapping[str, str]) -> CIMultiDict[str]:
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        if name.lower() not in _HOP_BY_HOP:
            kept.add(name, value)
    return kept
