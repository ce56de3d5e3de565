"""The Kubernetes API on plain dicts: get, list (paged), watch (resuming), apply, patch, delete, log stream.

Objects are dicts as the API sends them. :mod:`aksgpu.kube.transport` sends the requests.
"""

from __future__ import annotations

import builtins
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, overload

from aksgpu import waiting
from aksgpu.common.arguments import integer, shown
from aksgpu.common.kubernetes_objects import Object
from aksgpu.errors import AlreadyExists, Conflict, Expired, InvalidInput, KubernetesError, NotFound
from aksgpu.kube import path_names, port_forward, retry_policy
from aksgpu.kube.backoff import Backoff
from aksgpu.kube.exec_stream import PROTOCOLS, ExecStream
from aksgpu.kube.list_pages import ListPages
from aksgpu.kube.port_forward import PortForward
from aksgpu.kube.response_checks import checked_field, checked_object, decoded
from aksgpu.kube.transport import Stream, Transport
from aksgpu.kube.watch import Watch
from aksgpu.kube.websockets import ChannelSocket

__all__ = ["KINDS", "HasKube", "Kind", "Kube", "Object"]

T = TypeVar("T")

PAGE = 1_000
"""Objects in one page of a list. A kube-apiserver needs longer for the same list in smaller pages."""
LIST_ATTEMPTS = 4
"""Attempts to read all pages of a list before the server forgets its first page."""
WATCH_SECONDS = 120
"""Seconds of one watch request. Servers end them anyway, and a short one notices a dead connection early."""
LOG_RETRY_SECONDS = 10.0
"""Seconds for which opening a log is repeated. :mod:`aksgpu.logs` has its own rules for a longer outage."""
LARGEST_PORT = 65535
MANAGER = "aksgpu"
"""Field manager of the fields that this library sets."""

_ABSENT = "absent"
"""Instead of a uid: the object did not exist."""
_UNKNOWN = "unknown"
"""Instead of a uid: the user may not read the object."""
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Characters of generated names. The API server uses the same ones, which form no words."""
_SUFFIX_LENGTH = 5
"""Characters that are added to generateName."""
_LONGEST_PREFIX = 58
"""Characters of generateName that are used."""


class Kind(NamedTuple):
    """The API path of a kind."""

    api_version: str
    plural: str
    namespaced: bool


KINDS: dict[str, Kind] = {
    "Namespace": Kind("v1", "namespaces", False),
    "Node": Kind("v1", "nodes", False),
    "Pod": Kind("v1", "pods", True),
    "Event": Kind("v1", "events", True),
    "ConfigMap": Kind("v1", "configmaps", True),
    "Secret": Kind("v1", "secrets", True),
    "Service": Kind("v1", "services", True),
    "ServiceAccount": Kind("v1", "serviceaccounts", True),
    "PersistentVolumeClaim": Kind("v1", "persistentvolumeclaims", True),
    "ResourceQuota": Kind("v1", "resourcequotas", True),
    "Job": Kind("batch/v1", "jobs", True),
    "DaemonSet": Kind("apps/v1", "daemonsets", True),
}
"""The kinds that GPU jobs use. Other kinds need a discovery request."""


class HasKube(Protocol):
    """What most functions need of a cluster: its Kubernetes API, and its name for messages."""

    @property
    def name(self) -> str:
        """Name of the cluster."""
        ...

    @property
    def kube(self) -> Kube:
        """Its Kubernetes API."""
        ...


class Kube:
    """The API of one cluster, as one user.

    Each method takes a Kubernetes kind such as "Job". ``namespace=None`` means the namespace of the kubeconfig's
    context, or ``default`` if the context has none.

    A call is repeated after temporary failures, such as a refused connection or status 503: for 65 seconds, or as long
    as :func:`aksgpu.waiting.deadline` or the surrounding wait allows. A write is done once, even if its response is
    lost.

    Each method raises a subclass of :class:`~aksgpu.errors.KubernetesError` with the server's Status,
    :class:`~aksgpu.errors.Unreachable` with the last failure if there was no response in time, and
    :class:`~aksgpu.errors.InvalidInput` for an invalid name, namespace or kind, before anything is sent.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._discovered: dict[tuple[str, str], Kind] = {}

    @classmethod
    def from_kubeconfig(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        context: str | None = None,
        refresh: Callable[[], str] | None = None,
    ) -> Kube:
        """Return the API of a kubeconfig's cluster. Sends no request yet.

        Args:
            path: the file, or several as in ``KUBECONFIG``; None means that variable or ``~/.kube/config``.
            context: name of a context in it; None means the current one.
            refresh: returns a bearer token. It is called now, and again after each 401. With it, a login program such
                as ``kubelogin`` or an auth provider that the kubeconfig names is not used.

        Raises:
            InvalidInput: the file or the context does not exist, or cannot be used.
            Unauthorized: the login that the kubeconfig requires does not work.
        """
        return cls(Transport(path, context, refresh))

    def __repr__(self) -> str:
        return f"Kube(context={self._transport.context!r})"

    @property
    def namespace(self) -> str:
        """The namespace of the kubeconfig's context, or ``default``."""
        return self._transport.namespace

    def close(self) -> None:
        """Close idle connections; the next call opens new ones."""
        self._transport.close()

    # One object

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object:
        """Return an object."""
        path = self._path(kind, namespace, name)
        found = checked_object(self.request("GET", path), f"GET {path}")
        if not found["metadata"].get("name"):
            raise KubernetesError(f"GET {path}: the response is not a Kubernetes object")
        return found

    def find(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Return an object, or None if it does not exist."""
        try:
            return self.get(kind, name, namespace)
        except NotFound:
            return None

    def create(self, obj: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Create an object. Unknown fields raise :class:`~aksgpu.errors.Invalid`.

        The name of an object with metadata.generateName is generated here, in the same way as by the server. The object
        can therefore be recognised if the server's response is lost.

        Raises:
            AlreadyExists: an object of this name exists already.
        """
        collection = self._path_of(obj, named=False)
        params = {"fieldManager": MANAGER, "fieldValidation": "Strict", "dryRun": "All" if dry_run else None}
        what = f"creating {obj['kind']}"
        if dry_run:
            return checked_object(self._exchange("POST", collection, what, params=params, body=obj), what)
        named = _with_name(obj)
        path = self._path_of(named, named=True)
        before = _ABSENT

        def attempt(lost: bool) -> Object:
            try:
                return checked_object(self._once("POST", collection, params=params, body=named), what)
            except AlreadyExists as taken:
                made = self._made_since(path, before, taken) if lost else None
                if made is None:
                    raise
                return made

        with retry_policy.default_deadline():
            if named is obj:
                before = self._uid_before(path)
            return retry_policy.call(attempt, what)

    def apply(self, obj: Mapping[str, Any], *, force: bool = False) -> Object:
        """Create an object, or change the fields that it has (server-side apply).

        Args:
            obj: a whole or partial object with apiVersion, kind and metadata.name.
            force: take over fields that another field manager owns, instead of raising Conflict.
        """
        params = {"fieldManager": MANAGER, "fieldValidation": "Strict", "force": force}
        path = self._path_of(obj, named=True)
        what = f"applying {obj['kind']}"
        response = self._exchange(
            "PATCH",
            path,
            what,
            params=params,
            body=obj,
            content_type="application/apply-patch+yaml",
            repeat_lost="resourceVersion" not in (obj.get("metadata") or {}),
        )
        return checked_object(response, what)

    def patch(
        self,
        kind: str,
        name: str,
        patch: Mapping[str, Any] | builtins.list[Any],
        namespace: str | None = None,
        *,
        subresource: str = "",
    ) -> Object:
        """Change an object. A mapping is a merge patch (None deletes a field), a list is a JSON patch.

        A JSON patch, and a merge patch with a resourceVersion, could have another effect the second time. They are
        repeated after a failure only if the server certainly did not apply them.
        """
        path = self._path(kind, namespace, name, subresource)
        style = "json-patch" if isinstance(patch, list) else "merge-patch"
        repeat_lost = not isinstance(patch, list) and "resourceVersion" not in (patch.get("metadata") or {})
        what = f"patching {kind} {name}"
        response = self._exchange(
            "PATCH",
            path,
            what,
            params={"fieldManager": MANAGER},
            body=patch,
            content_type=f"application/{style}+json",
            repeat_lost=repeat_lost,
        )
        return checked_object(response, what)

    def delete(
        self, kind: str, name: str, namespace: str | None = None, *, propagation_policy: str = "Background"
    ) -> Object:
        """Delete an object. It may exist for a while longer (finalizers, a pod's grace period).

        Returns:
            The object if it still exists, or else a Status.

        Raises:
            NotFound: the object did not exist.
        """
        path = self._path(kind, namespace, name)
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation_policy}
        before = _UNKNOWN

        def attempt(lost: bool) -> Object:
            body = options
            if lost and before not in (_ABSENT, _UNKNOWN):
                # The object may be gone already. Do not delete a new object of the same name.
                body = {**options, "preconditions": {"uid": before}}
            try:
                return self._once("DELETE", path, body=body)
            except NotFound as gone:
                if lost and before != _ABSENT:
                    return _deleted(gone)
                raise
            except Conflict as replaced:
                if body is not options:
                    return _deleted(replaced)
                raise

        with retry_policy.default_deadline():
            before = self._uid_before(path)
            return retry_policy.call(attempt, f"deleting {kind} {name}")

    # If the response to a write is lost, the object's uid before the write shows whether the write was done, because
    # each object has its own uid.

    def _uid_before(self, path: str) -> str:
        """Return the uid of an object before a write; _ABSENT if there is none, _UNKNOWN if it may not be read."""
        try:
            found = self._exchange("GET", path, f"GET {path}")
        except NotFound:
            return _ABSENT
        except KubernetesError as refused:
            if refused.http_status in (403, 405):  # 405: objects of this kind can only be created
                return _UNKNOWN
            raise
        return str((found.get("metadata") or {}).get("uid") or _UNKNOWN)

    def _made_since(self, path: str, before: str, taken: AlreadyExists) -> Object | None:
        """Return the object if it was created since ``before`` was read; None if it is the object from before."""
        if before == _UNKNOWN:
            raise AlreadyExists(
                f"{taken.message}. The response to an earlier attempt was lost, so this call may have created it",
                status=taken.status,
                hint="Check the object. With a role that may `get` it, the library does this itself.",
            )
        try:
            found = self._exchange("GET", path, f"GET {path}")
        except NotFound:
            return None
        return None if found["metadata"].get("uid") == before else found

    # Many objects

    @overload
    def list(
        self,
        kind: str,
        namespace: str | None = ...,
        *,
        all_namespaces: bool = ...,
        label_selector: str = ...,
        field_selector: str = ...,
    ) -> builtins.list[Object]: ...  # `list` is this method here

    @overload
    def list(
        self,
        kind: str,
        namespace: str | None = ...,
        *,
        all_namespaces: bool = ...,
        label_selector: str = ...,
        field_selector: str = ...,
        pick: Callable[[Object], T],
    ) -> builtins.list[T]: ...

    def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        all_namespaces: bool = False,
        label_selector: str = "",
        field_selector: str = "",
        pick: Callable[[Object], Any] | None = None,
    ) -> builtins.list[Any]:
        """Return the objects of a kind, fetched in pages.

        Args:
            kind: such as ``Pod``.
            namespace: None means the context's namespace.
            all_namespaces: list the objects of all namespaces instead.
            label_selector: as kubectl's ``--selector``.
            field_selector: as kubectl's ``--field-selector``.
            pick: returns what to keep of each object. It is called page by page, so that the objects of a large cluster
                (50,000 pods are 240 MB) are never in memory at once.
        """
        path = self._collection(kind, namespace, all_namespaces)
        return self._list(path, _selectors(label_selector, field_selector), pick)[0]

    def _list(
        self, path: str, selectors: Mapping[str, Any], pick: Callable[[Object], Any] | None = None
    ) -> tuple[builtins.list[Any], str]:
        """Return what to keep of the objects of a collection, and the resourceVersion of the list."""
        pause = Backoff()
        for _ in range(LIST_ATTEMPTS - 1):
            try:
                return self._pages(path, selectors, pick)
            except Expired:  # the pages took longer than the server keeps old versions
                pause.sleep()
        return self._pages(path, selectors, pick)

    def _pages(
        self, path: str, selectors: Mapping[str, Any], pick: Callable[[Object], Any] | None
    ) -> tuple[builtins.list[Any], str]:
        def open_page(token: str | None) -> Stream:
            params = {**selectors, "limit": PAGE, "continue": token}
            return self._transport.open("GET", path, params=params)

        found: builtins.list[Any] = []
        token = None
        with ListPages(open_page, f"GET {path}") as pages:
            while True:
                page = pages.read(token)
                found += map(pick, page["items"]) if pick else page["items"]
                token = page["metadata"].get("continue")
                if not token:
                    return found, page["metadata"].get("resourceVersion", "")

    def watch(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        all_namespaces: bool = False,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str | None = None,
        timeout: waiting.Timeout = None,
    ) -> Iterator[tuple[str, Object]]:
        """Yield changes as they happen: ("ADDED" | "MODIFIED" | "DELETED", object).

        Without ``resource_version``, the first events are an ADDED for each existing object. Closed and broken
        connections are opened again. If the server no longer keeps the position (410), the objects are listed again,
        and the differences are yielded, each object once in its newest state.

        Args:
            kind: such as ``Pod``.
            namespace: None means the context's namespace.
            all_namespaces: watch the objects of all namespaces instead.
            label_selector: as kubectl's ``--selector``.
            field_selector: as kubectl's ``--field-selector``.
            resource_version: start after this resourceVersion of an earlier list.
            timeout: seconds after which the iteration ends, or text such as ``"2h"``; None means no limit.

        Raises:
            Expired: ``resource_version`` is too old.
            Unreachable: the timeout passed without a response from the server.
        """
        self._check_collection(kind, namespace, all_namespaces)
        waiting.check_timeout(timeout)
        selectors = _selectors(label_selector, field_selector)

        def path() -> str:
            return self._collection(kind, namespace, all_namespaces)

        watch = Watch(
            open=lambda params, options: self._transport.open("GET", path(), params={**selectors, **params}, **options),
            list=lambda: self._list(path(), selectors),
            seconds=WATCH_SECONDS,
        )
        return watch.events(resource_version, timeout)

    # Logs and anything else

    def log(
        self,
        pod: str,
        namespace: str | None = None,
        *,
        container: str | None = None,
        follow: bool = False,
        previous: bool = False,
        since_time: str | None = None,
        tail_lines: int | None = None,
        timestamps: bool = False,
        read_timeout: float = 45.0,
    ) -> Stream:
        """Return a container's log as one HTTP stream.

        The stream may end before the log does. :func:`aksgpu.logs.follow` reads the whole log.

        Args:
            pod: name of the pod.
            namespace: the pod's namespace; None means the context's namespace.
            container: name of the container; None if the pod has only one.
            follow: wait for further lines.
            previous: read the log of the container before its last restart.
            since_time: time in RFC 3339; servers round it down to seconds.
            tail_lines: number of last lines; None means all.
            timestamps: start each line with its time in nanoseconds and a space.
            read_timeout: seconds without a byte after which Unreachable is raised.

        Raises:
            Unreachable: the log could not be opened. With ``follow`` there is one attempt.
        """
        params = {
            "container": container,
            "follow": follow or None,
            "previous": previous or None,
            "sinceTime": since_time,
            "tailLines": tail_lines,
            "timestamps": timestamps or None,
        }
        if container is not None:
            path_names.check_container(container)
        path = self._path("Pod", namespace, pod, "log", argument="pod")

        def attempt(lost: bool = False) -> Stream:
            return self._transport.open("GET", path, params=params, accept="*/*", read_timeout=read_timeout)

        if follow:
            return attempt()
        with waiting.deadline(LOG_RETRY_SECONDS):
            return retry_policy.call(attempt, f"the log of pod {pod}")

    def exec(
        self,
        pod: str,
        command: Sequence[str],
        namespace: str | None = None,
        *,
        container: str | None = None,
        stdin: bool = False,
    ) -> ExecStream:
        """Start a program in a container that runs, and return its streams.

        A program that may have started is not started again. The request is repeated only after a refusal that shows
        that it did not: 429, and 403 before the server has read its roles.

        Args:
            pod: name of the pod.
            command: the program and its arguments. No shell reads them.
            namespace: the pod's namespace; None means the context's namespace.
            container: name of the container; None if the pod has only one.
            stdin: whether the program gets input.

        Returns:
            The streams; use them as a context manager.

        Raises:
            Forbidden: you may not run programs in pods. The ``edit`` role of a namespace may.
            NotFound: the pod does not exist.
            Unreachable: there was no response. The program may have started.

        Example:
            >>> with aks.kube.exec("train-x2vbn", ["nvidia-smi", "-L"]) as program:  # doctest: +SKIP
            ...     print(program.communicate(timeout=30).stdout.decode())
        """
        words = [command] if isinstance(command, str) else builtins.list(command)
        if isinstance(command, str) or not words:
            raise InvalidInput(f"`command` must be a list of the program and its arguments, got {shown(command)}")
        if container is not None:
            path_names.check_container(container)
        path = self._path("Pod", namespace, pod, "exec", argument="pod")
        params: builtins.list[tuple[str, Any]] = [("command", str(word)) for word in words]
        params += [("stdin", stdin), ("stdout", True), ("stderr", True)]
        if container is not None:
            params.append(("container", container))
        return ExecStream(self._open_websocket(path, params, PROTOCOLS), f"{words[0]} in pod {pod}")

    def port_forward(self, pod: str, port: int, namespace: str | None = None, *, local_port: int = 0) -> PortForward:
        """Open a port of this machine whose connections lead to a port of a pod.

        The program in the pod must listen on all addresses or on its loopback address.

        Args:
            pod: name of the pod.
            port: the port in the pod.
            namespace: the pod's namespace; None means the context's namespace.
            local_port: the port on this machine; 0 for one that is free.

        Returns:
            The open port; use it as a context manager.

        Raises:
            InvalidInput: an argument is not valid.
            OSError: the local port is in use.

        Example:
            >>> with aks.kube.port_forward("train-x2vbn", 6006) as forward:  # doctest: +SKIP
            ...     print(forward.url)
        """
        number = integer("port", port, 1, LARGEST_PORT)
        local = integer("local_port", local_port, 0, LARGEST_PORT)
        self._path("Pod", namespace, pod, "portforward", argument="pod")
        return PortForward(lambda: self.open_port(pod, number, namespace), local)

    def open_port(self, pod: str, port: int, namespace: str | None = None) -> ChannelSocket:
        """Open one connection to a port of a pod. :meth:`port_forward` uses it for each of its connections."""
        path = self._path("Pod", namespace, pod, "portforward", argument="pod")
        return self._open_websocket(path, [("ports", port)], port_forward.PROTOCOLS)

    def _open_websocket(self, path: str, params: Sequence[tuple[str, Any]], protocols: Sequence[str]) -> ChannelSocket:
        """Open a WebSocket. The request is repeated only while the server refuses it without doing anything."""
        return retry_policy.call(
            lambda _: self._transport.open_websocket(path, params, protocols), f"GET {path}", repeat_lost=False
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        """Send any request whose response is a JSON object, such as ``request("GET", "/version")``.

        A GET is repeated after temporary failures, any other request only if the server certainly did not process it.
        """
        path_names.check_path(path, method)
        return self._exchange(
            method,
            path,
            f"{method} {path}",
            params=params,
            body=body,
            content_type=content_type,
            repeat_lost=method.upper() in ("GET", "HEAD"),
        )

    def _exchange(self, method: str, path: str, what: str, *, repeat_lost: bool = True, **options: Any) -> Object:
        """Send a request, and repeat it by the rules of :mod:`aksgpu.kube.retry_policy`."""
        return retry_policy.call(lambda lost: self._once(method, path, **options), what, repeat_lost=repeat_lost)

    def _once(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        """Send a request once and return its whole response."""
        with self._transport.open(method, path, params=params, body=body, content_type=content_type) as stream:
            content = stream.read()
        return decoded(content, f"{method} {path}")

    # Paths

    def _path(
        self, kind: str, namespace: str | None, name: str, subresource: str = "", *, argument: str = "name"
    ) -> str:
        path_names.check_kind(kind)
        path_names.check_name(kind, name, argument)
        if subresource != "":
            path_names.check_subresource(subresource)
        if namespace is not None:
            path_names.check_namespace(namespace)
        where = self._find(kind)
        if where.namespaced and namespace is None:
            namespace = self.namespace
        return _join(where, namespace, name, subresource)

    def _collection(self, kind: str, namespace: str | None, all_namespaces: bool) -> str:
        self._check_collection(kind, namespace, all_namespaces)
        if namespace is None and not all_namespaces:
            namespace = self.namespace
        return _join(self._find(kind), namespace)

    def _check_collection(self, kind: str, namespace: str | None, all_namespaces: bool) -> None:
        path_names.check_kind(kind)
        if namespace is None:
            return
        path_names.check_namespace(namespace)
        if all_namespaces:
            raise InvalidInput(
                f"`namespace` must be None with `all_namespaces=True`, got {shown(namespace)}",
                hint="Omit one of the two.",
            )

    def _path_of(self, obj: Mapping[str, Any], *, named: bool) -> str:
        kind = obj.get("kind")
        version = obj.get("apiVersion")
        if not kind or not version:
            raise InvalidInput("a Kubernetes object must have apiVersion and kind", hint="For a Job: batch/v1 and Job.")
        path_names.check_kind(kind)
        path_names.check_api_version(version)
        metadata = obj.get("metadata") or {}
        if not isinstance(metadata, Mapping):
            raise InvalidInput(f"`metadata` must be a mapping, got {shown(metadata)}")
        name = metadata.get("name")
        if name is None and (named or not metadata.get("generateName")):
            raise InvalidInput(f"a {kind} must have metadata.name")
        if name is not None:
            path_names.check_name(kind, name, "metadata.name")
        elif not isinstance(metadata.get("generateName", ""), str):
            raise InvalidInput(f"`metadata.generateName` must be text, got {shown(metadata['generateName'])}")
        namespace = metadata.get("namespace")
        if namespace is None or namespace == "":  # Kubernetes treats an empty one in an object as an absent one
            namespace = self.namespace
        path_names.check_namespace(namespace, "metadata.namespace")
        return _join(self._find(kind, version), namespace, name if named else None)

    def _find(self, kind: str, api_version: str = "") -> Kind:
        known = KINDS.get(kind)
        if known is not None and api_version in ("", known.api_version):
            return known
        key = kind, api_version
        if key not in self._discovered:
            self._discovered[key] = self._discover(kind, api_version)
        return self._discovered[key]

    def _discover(self, kind: str, api_version: str) -> Kind:
        if api_version:
            versions = [api_version]
        else:
            groups = checked_field(self.request("GET", "/apis"), "groups", "GET /apis")
            versions = ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups)]
        for version in versions:
            path = path_names.join(_root(version))
            try:
                resources = checked_field(self.request("GET", path), "resources", f"GET {path}")
            except NotFound:
                continue
            for resource in resources:
                if resource["kind"] == kind and "/" not in resource["name"]:
                    return Kind(version, resource["name"], bool(resource["namespaced"]))
        raise NotFound(f"the cluster has no kind {kind!r}" + (f" in {api_version}" if api_version else ""))


def _selectors(labels: str, fields: str) -> dict[str, str | None]:
    """Return the query parameters for selectors; None omits one."""
    return {"labelSelector": labels or None, "fieldSelector": fields or None}


def _with_name(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the object itself if it has a name, or else a copy with a name generated from its generateName."""
    metadata = obj["metadata"]
    if metadata.get("name") is not None:
        return obj
    suffix = "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(_SUFFIX_LENGTH))
    return {**obj, "metadata": {**metadata, "name": f"{metadata['generateName'][:_LONGEST_PREFIX]}{suffix}"}}


def _deleted(error: KubernetesError) -> Object:
    """Return a Status for a deletion whose response was lost."""
    details = error.status.get("details") or {}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _root(api_version: str) -> list[str]:
    """Return the segments of the path of an API version."""
    path_names.check_api_version(api_version)
    return ["apis", *api_version.split("/")] if "/" in api_version else ["api", api_version]


def _join(where: Kind, namespace: str | None, name: str | None = None, subresource: str = "") -> str:
    """Return the path of an object or a collection. Each segment is checked here again."""
    segments = _root(where.api_version)
    if where.namespaced and namespace is not None:
        segments += ["namespaces", path_names.check_namespace(namespace)]
    segments.append(path_names.check_plural(where.plural))
    if name is not None:
        segments.append(path_names.check_path_segment(name))
    if subresource:
        segments.append(path_names.check_subresource(subresource))
    return path_names.join(segments)
