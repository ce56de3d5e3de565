"""The Kubernetes API on plain dicts: get, list (paged), watch (resuming), apply, patch, delete, log stream.

Objects are what the API sends, never model classes. What goes over the wire, and as whom, is
:mod:`aksgpu.kube.transport`'s; what an object means is told by the rooms above (plugin, capacity, jobs, logs).
"""

from __future__ import annotations

import builtins
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, overload

from aksgpu import waiting
from aksgpu.errors import (
    AlreadyExists,
    Conflict,
    Expired,
    InvalidInput,
    KubernetesError,
    NotFound,
    Unreachable,
)
from aksgpu.kube import path_names, retry_policy
from aksgpu.kube.backoff import Backoff
from aksgpu.kube.status_errors import UNREACHABLE_HINT
from aksgpu.kube.transport import Stream, Wire, decode
from aksgpu.kube.watch import Watch

Object = dict[str, Any]
T = TypeVar("T")

PAGE = 500
"""Objects a page of a list, as kubectl asks for."""
WATCH_SECONDS = 120
"""Length of one watch request. Servers cut them anyway; a short one notices a dead connection soon."""
LOG_PATIENCE = 10.0
"""Seconds that opening a log is repeated. A kubelet may be away for long: :mod:`aksgpu.logs` decides how to go on."""
MANAGER = "aksgpu"
"""Owner of the fields that this library sets."""


_ABSENT = "absent"
"""In the place of a uid: there was no object."""
_UNKNOWN = "unknown"
"""In the place of a uid: nobody can say whether there was an object."""
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Letters of generated names, as the API server chooses them: no word comes of them."""
_SUFFIX_LENGTH = 5
_LONGEST_PREFIX = 58


class Kind(NamedTuple):
    """Where the objects of a kind live."""

    api_version: str
    plural: str
    namespaced: bool


# The kinds of a GPU job's life, so that no discovery request is needed for them.
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


class HasKube(Protocol):
    """What most rooms need of a cluster: its Kubernetes API, and its name for messages."""

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

    Every verb takes a Kubernetes kind ("Job"). ``namespace=None`` is the kubeconfig context's namespace (or
    ``default``) for one object, and every namespace for lists and watches.

    A call goes on after failures that pass by themselves, such as a refused connection or status 503: for 65 seconds,
    or as long as :func:`aksgpu.waiting.deadline` or the wait that it belongs to allows. A write is done once, even if
    the server's answer to it is lost.

    Raises (every verb): a :class:`~aksgpu.errors.KubernetesError` subclass with the server's Status;
    :class:`~aksgpu.errors.Unreachable` where there was no answer in time, with the last failure.
    :class:`~aksgpu.errors.InvalidInput` for a name, namespace or kind that cannot be one; then nothing was sent.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._discovered: dict[tuple[str, str], Kind] = {}

    @classmethod
    def from_kubeconfig(
        cls,
        path: str | os.PathLike[str] | None = None,
        context: str | None = None,
        refresh: Callable[[], str] | None = None,
    ) -> Kube:
        """Connect as a kubeconfig says. Sends nothing yet.

        Args:
            path: the file; None for ``KUBECONFIG`` or ``~/.kube/config``.
            context: a context in it; None for the current one.
            refresh: returns a bearer token; asked at once and again on a 401. It replaces login programs such as
                ``kubelogin`` that the kubeconfig may name.

        Raises:
            InvalidInput: no such file or context.
            Unauthorized: the kubeconfig asks for a login that does not work from Python.
        """
        return cls(Wire(path, context, refresh))

    def __repr__(self) -> str:
        return f"Kube(context={self._wire.context!r})"

    @property
    def namespace(self) -> str:
        """The namespace meant where none is given for a single object."""
        return self._wire.namespace

    def close(self) -> None:
        """Close idle connections; the next call opens new ones."""
        self._wire.close()

    # One object

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object:
        """The object."""
        path = self._path(kind, namespace, name)
        return _an_object(self.request("GET", path), path)

    def find(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """The object, or None where there is none."""
        try:
            return self.get(kind, name, namespace)
        except NotFound:
            return None

    def create(self, obj: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Create the object; unknown fields are refused with :class:`~aksgpu.errors.Invalid`.

        An object with metadata.generateName gets its name here, as the server would make it. So this object can be
        recognised where the server's answer is lost.

        Raises:
            AlreadyExists: an object of this name was there before.
        """
        collection = self._path_of(obj, named=False)
        params = {"fieldManager": MANAGER, "fieldValidation": "Strict", "dryRun": "All" if dry_run else None}
        what = f"creating {obj['kind']}"
        if dry_run:
            return self._exchange("POST", collection, what, params=params, body=obj)
        named = _with_name(obj)
        path = self._path_of(named, named=True)
        before = _ABSENT

        def attempt(lost: bool) -> Object:
            try:
                return self._once("POST", collection, params=params, body=named)
            except AlreadyExists as taken:
                made = self._made_since(path, before, taken) if lost else None
                if made is None:
                    raise
                return made

        with retry_policy.patience():
            if named is obj:
                before = self._seen(path)
            return retry_policy.call(attempt, what)

    def apply(self, obj: Mapping[str, Any], *, force: bool = False) -> Object:
        """Create the object, or change the fields that it names (server-side apply).

        Args:
            obj: a whole or partial object with apiVersion, kind and metadata.name.
            force: take over fields that another program manages, instead of raising Conflict.
        """
        params = {"fieldManager": MANAGER, "fieldValidation": "Strict", "force": force}
        path = self._path_of(obj, named=True)
        return self._exchange(
            "PATCH",
            path,
            f"applying {obj['kind']}",
            params=params,
            body=obj,
            content_type="application/apply-patch+yaml",
            repeat_lost="resourceVersion" not in (obj.get("metadata") or {}),
        )

    def patch(
        self,
        kind: str,
        name: str,
        patch: Mapping[str, Any] | builtins.list[Any],
        namespace: str | None = None,
        *,
        subresource: str = "",
    ) -> Object:
        """Change an object: a mapping is a merge patch (None deletes a field), a list a JSON patch.

        A JSON patch, and a merge patch that names a resourceVersion, would do something else the second time. They are
        repeated after a failure only where the server surely did not carry them out.
        """
        path = self._path(kind, namespace, name, subresource)
        style = "json-patch" if isinstance(patch, list) else "merge-patch"
        repeat_lost = not isinstance(patch, list) and "resourceVersion" not in (patch.get("metadata") or {})
        return self._exchange(
            "PATCH",
            path,
            f"patching {kind} {name}",
            params={"fieldManager": MANAGER},
            body=patch,
            content_type=f"application/{style}+json",
            repeat_lost=repeat_lost,
        )

    def delete(
        self, kind: str, name: str, namespace: str | None = None, *, propagation_policy: str = "Background"
    ) -> Object:
        """Ask for the object's deletion; it may live on for a while (finalizers, a pod's grace period).

        Returns:
            The object where it lives on, or else a Status.

        Raises:
            NotFound: there was no such object to begin with.
        """
        path = self._path(kind, namespace, name)
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation_policy}
        before = _UNKNOWN

        def attempt(lost: bool) -> Object:
            body = options
            if lost and before not in (_ABSENT, _UNKNOWN):
                # Never delete a successor of the same name in place of an object that is gone already.
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

        with retry_policy.patience():
            before = self._seen(path)
            return retry_policy.call(attempt, f"deleting {kind} {name}")

    # What became of a write whose answer was lost. The uid of the object before the write tells: the server gives every
    # object another one, and nothing that a client could put into the object is left behind.

    def _seen(self, path: str) -> str:
        """The uid of an object before a write; _ABSENT where there is none, _UNKNOWN where it must not be read."""
        try:
            found = self._exchange("GET", path, f"GET {path}")
        except NotFound:
            return _ABSENT
        except KubernetesError as refused:
            if refused.code in (403, 405):  # 405: objects of this kind are created, and never read
                return _UNKNOWN
            raise
        return str((found.get("metadata") or {}).get("uid") or _UNKNOWN)

    def _made_since(self, path: str, before: str, taken: AlreadyExists) -> Object | None:
        """The object if it was created since ``before`` was seen; None where it is the one of before."""
        if before == _UNKNOWN:
            raise AlreadyExists(
                f"{taken.message}. The answer to an earlier attempt was lost, so this call may have created it",
                status=taken.status,
                hint="Look at the object; a role that may `get` it lets the library find out.",
            )
        try:
            found = self._exchange("GET", path, f"GET {path}")
        except NotFound:
            return None
        return None if found["metadata"].get("uid") == before else found

    # Many objects

    @overload
    def list(
        self, kind: str, namespace: str | None = ..., *, label_selector: str = ..., field_selector: str = ...
    ) -> builtins.list[Object]: ...  # plain `list` is this method, here

    @overload
    def list(
        self,
        kind: str,
        namespace: str | None = ...,
        *,
        label_selector: str = ...,
        field_selector: str = ...,
        pick: Callable[[Object], T],
    ) -> builtins.list[T]: ...

    def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        pick: Callable[[Object], Any] | None = None,
    ) -> builtins.list[Any]:
        """Every object of a kind, fetched in pages.

        Args:
            kind: such as ``Pod``.
            namespace: None for all namespaces.
            label_selector: as kubectl's ``--selector``.
            field_selector: as kubectl's ``--field-selector``.
            pick: what to keep of each object. Applied page by page, so that a cluster of 50,000 pods (240 MB) never
                lies in memory at once.
        """
        return self._list(kind, namespace, label_selector, field_selector, pick)[0]

    def _list(
        self, kind: str, namespace: str | None, labels: str, fields: str, pick: Callable[[Object], Any] | None
    ) -> tuple[builtins.list[Any], str]:
        pause = Backoff()
        for _ in range(3):
            try:
                return self._pages(kind, namespace, labels, fields, pick)
            except Expired:  # the pages took longer than the server keeps old states: from the beginning
                pause.sleep()
        return self._pages(kind, namespace, labels, fields, pick)

    def _pages(
        self, kind: str, namespace: str | None, labels: str, fields: str, pick: Callable[[Object], Any] | None
    ) -> tuple[builtins.list[Any], str]:
        path = self._collection(kind, namespace)
        token = None
        found: builtins.list[Any] = []
        while True:
            params = {
                "limit": PAGE,
                "continue": token,
                "labelSelector": labels or None,
                "fieldSelector": fields or None,
            }
            page = _a_list(self.request("GET", path, params=params), path)
            found += map(pick, page["items"]) if pick else page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return found, page["metadata"].get("resourceVersion", "")

    def watch(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[tuple[str, Object]]:
        """Changes as they happen: ("ADDED" | "MODIFIED" | "DELETED", object).

        Without ``resource_version`` it begins with an ADDED for every object that there is. It goes on through closed
        and broken connections. Where the server no longer keeps the position (410), it lists again and yields what
        changed in between, each object once in its newest state.

        Args:
            kind: such as ``Pod``.
            namespace: None for all namespaces.
            label_selector: as kubectl's ``--selector``.
            field_selector: as kubectl's ``--field-selector``.
            resource_version: begin after this position of an earlier list.
            timeout: seconds after which the iteration ends; None for never.

        Raises:
            Expired: ``resource_version`` is too old; only the caller knows what it had seen until then.
            Unreachable: the timeout passed without an answer from the server.
        """
        path_names.check_kind(kind)
        if namespace is not None:
            path_names.check_namespace(namespace)
        waiting.check_timeout(timeout)
        selector = {"labelSelector": label_selector or None, "fieldSelector": field_selector or None}
        watch = Watch(
            open=lambda params, options: self._wire.open(
                "GET", self._collection(kind, namespace), params={**selector, **params}, **options
            ),
            list=lambda: self._list(kind, namespace, label_selector, field_selector, None),
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
        """A container's log as one HTTP stream. Its end means nothing: :func:`aksgpu.logs.follow` knows better.

        Args:
            pod: name.
            namespace: of the pod.
            container: None where the pod has only one.
            follow: stay for what is still to come.
            previous: of the container's run before the last restart.
            since_time: RFC 3339; servers cut it down to the second.
            tail_lines: only so many of the last lines.
            timestamps: begin each line with the time, in nanoseconds, and a space.
            read_timeout: seconds without a byte after which Unreachable is raised.

        Raises:
            Unreachable: the log could not be opened. With ``follow`` after one attempt.
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
            return self._wire.open("GET", path, params=params, accept="*/*", read_timeout=read_timeout)

        if follow:
            return attempt()
        with waiting.deadline(LOG_PATIENCE):
            return retry_policy.call(attempt, f"the log of pod {pod}")

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        """Any request whose answer is one JSON object, such as ``request("GET", "/version")``.

        A GET is repeated after failures that pass by themselves, any other request only where the server surely did
        not carry it out.
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
        """A request that is repeated as :mod:`aksgpu.kube.retry_policy` says."""
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
        """One request and its whole answer."""
        with self._wire.open(method, path, params=params, body=body, content_type=content_type) as stream:
            content = stream.read()
        try:
            answer = decode(content)
        except ValueError as wrong:
            if not content or content.startswith(b"{"):
                message = f"{method} {path}: the answer breaks off after {len(content)} bytes"
                raise Unreachable(message, hint=UNREACHABLE_HINT) from None
            raise KubernetesError(f"{method} {path}: the answer is not JSON") from wrong
        if not isinstance(answer, dict):
            raise KubernetesError(f"{method} {path}: the answer is not a JSON object")
        return answer

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

    def _collection(self, kind: str, namespace: str | None) -> str:
        path_names.check_kind(kind)
        if namespace is not None:
            path_names.check_namespace(namespace)
        return _join(self._find(kind), namespace)

    def _path_of(self, obj: Mapping[str, Any], *, named: bool) -> str:
        kind = obj.get("kind")
        version = obj.get("apiVersion")
        if not kind or not version:
            raise InvalidInput("a Kubernetes object needs apiVersion and kind", hint="For a Job: batch/v1 and Job.")
        path_names.check_kind(kind)
        path_names.check_api_version(version)
        metadata = obj.get("metadata") or {}
        if not isinstance(metadata, Mapping):
            raise InvalidInput(f"`metadata` must be a mapping, got {path_names.shown(metadata)}")
        name = metadata.get("name")
        if name is None and (named or not metadata.get("generateName")):
            raise InvalidInput(f"the {kind} has no metadata.name")
        if name is not None:
            path_names.check_name(kind, name, "metadata.name")
        elif not isinstance(metadata.get("generateName", ""), str):
            raise InvalidInput(
                f"`metadata.generateName` must be text, got {path_names.shown(metadata['generateName'])}"
            )
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
            groups = self.request("GET", "/apis")["groups"]
            versions = ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups)]
        for version in versions:
            try:
                resources = self.request("GET", path_names.join(_root(version)))["resources"]
            except NotFound:
                continue
            for resource in resources:
                if resource["kind"] == kind and "/" not in resource["name"]:
                    return Kind(version, resource["name"], bool(resource["namespaced"]))
        raise NotFound(f"the cluster has no kind {kind!r}" + (f" in {api_version}" if api_version else ""))


def _an_object(answer: Object, path: str) -> Object:
    """The answer, which must be an object: a proxy or gateway may answer with a Status of its own."""
    if answer.get("kind") == "Status":
        raise KubernetesError(f"GET {path}: the answer is not a Kubernetes object")
    return answer


def _a_list(answer: Object, path: str) -> Object:
    """The answer, which must be a list of Kubernetes objects. Go writes an empty one as null at times."""
    items = answer.get("items", "")
    if items is None:
        items = []
    metadata = answer.get("metadata")
    if not isinstance(items, builtins.list) or not isinstance(metadata, dict):
        raise KubernetesError(f"GET {path}: the answer is not a list of Kubernetes objects")
    return {**answer, "items": items}


def _with_name(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object itself if it has a name, or else a copy with the name that its generateName asks for."""
    metadata = obj["metadata"]
    if metadata.get("name") is not None:
        return obj
    suffix = "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(_SUFFIX_LENGTH))
    return {**obj, "metadata": {**metadata, "name": f"{metadata['generateName'][:_LONGEST_PREFIX]}{suffix}"}}


def _deleted(answer: KubernetesError) -> Object:
    """The Status for a deletion that was carried out although its own answer was lost."""
    details = answer.status.get("details") or {}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _root(api_version: str) -> list[str]:
    """Segments of the path of an API version."""
    path_names.check_api_version(api_version)
    return ["apis", *api_version.split("/")] if "/" in api_version else ["api", api_version]


def _join(where: Kind, namespace: str | None, name: str | None = None, subresource: str = "") -> str:
    """The path of an object or a collection. Every segment is checked, whatever the caller checked before."""
    segments = _root(where.api_version)
    if where.namespaced and namespace is not None:
        segments += ["namespaces", path_names.check_namespace(namespace)]
    segments.append(path_names.check_plural(where.plural))
    if name is not None:
        segments.append(path_names.check_path_segment(name))
    if subresource:
        segments.append(path_names.check_subresource(subresource))
    return path_names.join(segments)
