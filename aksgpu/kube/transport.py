"""One HTTP exchange with a Kubernetes API server: connection, credentials, JSON, errors.

Below :mod:`aksgpu.kube`, which knows kinds and verbs. The ``kubernetes`` package reads the kubeconfig and brings TLS,
proxies and authentication; its generated models are left alone, because they cost thirty times as much as the dicts
that the API sends. A request is sent once here, and once more with new credentials after a 401; what else is worth
another try is :mod:`aksgpu.kube.retry_policy`'s decision.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from aksgpu import waiting
from aksgpu.errors import InvalidInput, KubernetesError, Unauthorized, Unreachable
from aksgpu.kube import impersonation, path_names
from aksgpu.kube.status_errors import UNREACHABLE_HINT, error, unreachable

CONNECT_TIMEOUT = 10.0
"""Seconds that a connection may take."""
READ_TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken. A hanging etcd is reported sooner than that."""
SHORTEST_TIMEOUT = 1.0
"""Seconds that a request gets although its deadline has passed, so that a wait with timeout=0 looks once."""
GUARDED_BYTES = 100_000
"""Size of an answer from which the garbage collector is off while it is decoded."""

PLUGIN_HINT = (
    "Get the cluster through Azure instead, cluster.get(azure, name, resource_group=...): its token then comes from "
    "azure-identity. Or install the program and log in with it (for AKS: kubelogin convert-kubeconfig -l azurecli)."
)


def decode(body: bytes) -> Any:
    """JSON to Python objects.

    A list of thousands of objects is built with the cyclic garbage collector off: it would run hundreds of times over
    objects that cannot be garbage yet, which was measured to be three quarters of the whole cost. Reference counting
    goes on. The switch is per process, but two threads can only switch it back on too early, never leave it off.
    """
    if len(body) < GUARDED_BYTES or not gc.isenabled():
        return json.loads(body)
    gc.disable()
    try:
        return json.loads(body)
    finally:
        gc.enable()


class Stream:
    """The body of an answer, as it arrives. A context manager; iterating ends it."""

    def __init__(self, response: Any, where: str, connection: Any = None) -> None:
        self._response = response
        self._where = where
        self._socket = getattr(connection, "sock", None)
        self._began = time.monotonic()

    def __iter__(self) -> Iterator[bytes]:
        from urllib3.exceptions import HTTPError

        blocks = self._response.stream(65536, decode_content=True)
        try:
            while True:
                self._keep_to_deadline()
                block = next(blocks, None)
                if block is None:
                    return
                yield block
        except HTTPError as broken:
            message = f"{self._where}: the connection broke ({type(broken).__name__})"
            raise Unreachable(message, hint=UNREACHABLE_HINT, original=broken) from None
        finally:
            self.close()

    def _keep_to_deadline(self) -> None:
        """Let the next block take as long as the deadline allows, so that a slow body ends in time."""
        left = waiting.time_left()
        if left is None:
            return
        if left == 0 and time.monotonic() - self._began > SHORTEST_TIMEOUT:
            raise Unreachable(f"{self._where}: time is up in the middle of the answer", hint=UNREACHABLE_HINT)
        if self._socket is None or self._socket.fileno() < 0:
            return
        limit = self._socket.gettimeout()
        allowed = max(left, SHORTEST_TIMEOUT)
        if limit is None or allowed < limit:
            self._socket.settimeout(allowed)

    def lines(self) -> Iterator[bytes]:
        """Lines, each with its newline; at the end, what came after the last one (if anything)."""
        rest: list[bytes] = []
        for block in self:
            *whole, unfinished = block.split(b"\n")
            for line in whole:
                yield b"".join((*rest, line, b"\n"))
                rest.clear()
            if unfinished:
                rest.append(unfinished)
        if rest:
            yield b"".join(rest)

    def read(self) -> bytes:
        """All of it."""
        return b"".join(self)

    def close(self) -> None:
        """Drop the connection. Twice is fine."""
        self._response.close()
        self._response.release_conn()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Wire:
    """A connection to one API server, as one user.

    Args:
        path: kubeconfig; several as in ``KUBECONFIG``; None for that variable or ``~/.kube/config``.
        context: name of the context in it; None for its current one.
        refresh: gives a new bearer token; called once now and once on each 401. Then no program or provider that the
            kubeconfig names is used.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, context: str | None, refresh: Callable[[], str] | None
    ) -> None:
        self._path = path
        self._refresh = refresh
        config = read_kubeconfig(path)
        self.context = context or str(config.get("current-context") or "")
        self.namespace = _entry(config, "contexts", self.context, "context").get("namespace") or "default"
        self._configuration, self._impersonation = self._load(config)
        from kubernetes.client import ApiClient

        self._client = ApiClient(self._configuration)

    @property
    def host(self) -> str:
        """Address of the API server."""
        return str(self._configuration.host)

    def _load(self, config: dict[str, Any]) -> tuple[Any, list[impersonation.Header]]:
        """The client's configuration, and the headers of the user to act as."""
        from logging.handlers import BufferingHandler

        from kubernetes import client
        from kubernetes import config as loader

        config, user = _chosen(config, self.context, drop_plugin=self._refresh is not None)
        _require_plugin(user)
        acting_as = impersonation.headers(user, self.context)
        configuration = client.Configuration()
        # Without a handler, Python would set one up for good at the client's first word, and print it.
        heard = BufferingHandler(100)
        heard.setLevel(logging.ERROR)
        logging.getLogger().addHandler(heard)
        try:
            loader.load_kube_config_from_dict(
                config, context=self.context, client_configuration=configuration, persist_config=False
            )
        except (loader.ConfigException, OSError) as wrong:
            raise InvalidInput(f"context {self.context!r} of the kubeconfig cannot be used: {wrong}") from wrong
        finally:
            logging.getLogger().removeHandler(heard)
        if self._refresh is not None:
            configuration.refresh_api_key_hook = None
            configuration.api_key = {"authorization": f"Bearer {self._refresh()}"}
        elif ("exec" in user or "auth-provider" in user) and not configuration.api_key and not configuration.cert_file:
            # The client logs the program's failure and then sends requests without credentials; refuse here instead.
            texts = [record.getMessage().strip()[:500] for record in heard.buffer]
            said = ": ".join(["the login that its kubeconfig asks for gave no token", *texts])
            raise Unauthorized(f"context {self.context!r}: {said}", hint=PLUGIN_HINT)
        configuration.socket_options = _keepalive()
        return configuration, acting_as

    def _renew(self) -> bool:
        """New credentials; False when there are none newer than those just refused."""
        from kubernetes.client import ApiClient

        try:
            old = self._configuration
            fresh, acting_as = self._load(read_kubeconfig(self._path))
        except InvalidInput:  # the file went with its cluster: the server's own refusal says more
            return False
        if fresh.host != old.host or (fresh.api_key, fresh.cert_file) == (old.api_key, old.cert_file):
            return False  # another address is another cluster: never move there in silence
        self._configuration = fresh
        self._impersonation = acting_as
        self._client = ApiClient(fresh)
        return True

    def open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        read_timeout: float | None = None,
    ) -> Stream:
        """Send a request once and return the body's stream if the headers say that it went well.

        Args:
            method: HTTP method.
            path: Kubernetes path, such as ``/api/v1/nodes``.
            params: query parameters; those that are None are left out.
            body: sent as JSON (which apply patches accept as the YAML that they ask for).
            content_type: of the body.
            accept: what the answer should be.
            read_timeout: seconds without a byte after which the connection counts as broken; None means
                :data:`READ_TIMEOUT`. Less where :func:`aksgpu.waiting.deadline` allows less.

        Raises:
            KubernetesError: the subclass for the server's answer; Unreachable where there was none.
            Interrupted: the user interrupted the request.
        """
        url = self.host + path_names.check_path(path, method) + _query(params or {})
        content = None if body is None else json.dumps(body).encode()
        if read_timeout is None:
            read_timeout = READ_TIMEOUT
        try:
            response = self._send(method, url, content, content_type, accept, read_timeout)
            if response.status == 401:  # once more, with the same credentials where there are no newer ones
                response.drain_conn()
                self._renew()
                response = self._send(method, url, content, content_type, accept, read_timeout)
            stream = Stream(response, f"{method} {path}", response.connection)
            if response.status < 300:
                return stream
            refused = error(response.status, stream.read())
        except KeyboardInterrupt:
            raise waiting.Interrupted(f"{method} {path} was interrupted. It may have been carried out.") from None
        refused.retry_after = _retry_after(response.headers.get("Retry-After"), refused)
        raise refused

    def _send(
        self, method: str, url: str, content: bytes | None, content_type: str, accept: str, read_timeout: float
    ) -> Any:
        from urllib3 import HTTPHeaderDict, Timeout
        from urllib3.exceptions import HTTPError

        headers = HTTPHeaderDict({"Accept": accept, "User-Agent": "aksgpu"})
        if content is not None:
            headers["Content-Type"] = content_type
        for setting in self._configuration.auth_settings().values():
            headers[setting["key"]] = setting["value"]
        for name, value in self._impersonation:
            headers.add(name, value)
        left = waiting.time_left()
        most = math.inf if left is None else max(left, SHORTEST_TIMEOUT)
        try:
            return self._client.rest_client.pool_manager.request(
                method,
                url,
                body=content,
                headers=headers,
                preload_content=False,
                timeout=Timeout(connect=min(CONNECT_TIMEOUT, most), read=min(read_timeout, most)),
                retries=False,
                redirect=False,
            )
        except HTTPError as failed:
            raise unreachable(failed, f"the Kubernetes API server of {self.context!r}", url) from None

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()


def read_kubeconfig(path: str | os.PathLike[str] | None) -> dict[str, Any]:
    """A kubeconfig as a dict, file names in it made absolute; several files are merged, the first entry winning."""
    import yaml

    listed = os.fspath(path) if path is not None else os.environ.get("KUBECONFIG") or "~/.kube/config"
    files = [Path(name).expanduser() for name in listed.split(os.pathsep) if name]
    found = [file for file in files if file.is_file()]
    if not found:
        raise InvalidInput(
            f"no kubeconfig at {listed}",
            hint="cluster.get_credentials(aks) writes one, as az aks get-credentials does.",
        )
    merged: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "clusters": [], "contexts": [], "users": []}
    for file in found:
        try:
            config = yaml.safe_load(file.read_text()) or {}
        except yaml.YAMLError as broken:
            raise InvalidInput(f"{file} is not a kubeconfig: {broken}") from broken
        if not isinstance(config, dict):
            raise InvalidInput(f"{file} is not a kubeconfig: it holds no mapping")
        merged["current-context"] = merged.get("current-context") or config.get("current-context")
        for section in ("clusters", "contexts", "users"):
            known = {entry["name"] for entry in merged[section]}
            try:
                new = [entry for entry in config.get(section) or () if entry["name"] not in known]
                merged[section] += [_absolute(entry, file.parent) for entry in new]
            except (KeyError, TypeError, AttributeError) as wrong:
                raise InvalidInput(f"{file} is not a kubeconfig: its {section} are not named entries") from wrong
    return merged


def _absolute(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    files = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
    return {
        key: {k: str(folder / v) if k in files and v else v for k, v in value.items()}
        if isinstance(value, dict)
        else value
        for key, value in entry.items()
    }


def _entry(config: dict[str, Any], section: str, name: str, key: str) -> dict[str, Any]:
    for entry in config[section]:
        if entry["name"] == name:
            return dict(entry.get(key) or {})
    known = ", ".join(entry["name"] for entry in config[section]) or "none"
    raise InvalidInput(f"the kubeconfig has no {key} {name!r}", hint=f"Its {section}: {known}.")


def _chosen(config: dict[str, Any], context: str, *, drop_plugin: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The kubeconfig and the context's user in it, without login program or provider where those are not wanted."""
    name = _entry(config, "contexts", context, "context").get("user")
    users = {entry["name"]: dict(entry.get("user") or {}) for entry in config["users"]}
    user = users.get(str(name), {})
    if drop_plugin:
        for key in ("exec", "auth-provider", "token", "tokenFile"):
            user.pop(key, None)
    return {**config, "users": [{"name": key, "user": value} for key, value in users.items()]}, user


def _require_plugin(user: dict[str, Any]) -> None:
    """Refuse logins that the Python client would skip in silence, sending its requests without credentials."""
    provider = (user.get("auth-provider") or {}).get("name")
    if provider and provider not in ("oidc", "gcp") and not user.get("token"):
        raise Unauthorized(f"the kubeconfig's auth-provider {provider!r} no longer works", hint=PLUGIN_HINT)
    command = (user.get("exec") or {}).get("command")
    if command and not user.get("token") and shutil.which(command) is None:
        raise Unauthorized(
            f"the kubeconfig logs in with the program {command!r}, which is not installed", hint=PLUGIN_HINT
        )


def _retry_after(header: str | None, refused: KubernetesError) -> float | None:
    """Seconds that the server asks to wait, half a minute at most; None where it does not say."""
    details = refused.status.get("details") or {}
    said = header if header is not None else details.get("retryAfterSeconds")
    return min(float(said), 30.0) if said is not None and str(said).isdecimal() else None


def _query(params: Mapping[str, Any]) -> str:
    """The query with its question mark; empty where no parameter has a value."""
    given = {key: _plain(value) for key, value in params.items() if value is not None}
    for key, value in given.items():
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidInput(f"`{key}` must be text that UTF-8 can encode, got {path_names.shown(value)}")
    return "?" + urlencode(given) if given else ""


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _keepalive() -> list[tuple[int, int, int]]:
    """TCP keepalive: AKS' load balancer drops a connection that is idle for four minutes, without telling anybody."""
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, seconds in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):  # not on every system
            options.append((socket.IPPROTO_TCP, getattr(socket, name), seconds))
    return options
