"""What a URL of the API means: group, version, resource, namespace, name, subresource and verb."""

from __future__ import annotations

from dataclasses import dataclass

from aksgpu.local.api.kinds import KINDS, Kind, by_path
from aksgpu.local.status import StatusError

GROUP_VERSIONS = tuple(dict.fromkeys((kind.group, kind.version) for kind in KINDS))
"""All groups and versions served, in the order of the kinds' table."""

_NAMESPACE_PARTS = ("status", "finalize")
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True)
class Target:
    """What a request is about. ``kind`` is None for a resource that is not served."""

    group: str
    version: str
    resource: str
    namespace: str | None
    name: str
    subresource: str
    kind: Kind | None

    def verb(self, method: str, watch: bool) -> str | None:
        """The API's verb for an HTTP method, or None for a method that means nothing here.

        A WebSocket begins with GET; that must not let those in who may only read.
        """
        if self.subresource == "exec" and method == "GET":
            return "create"
        if method == "GET":
            return "get" if self.name else "watch" if watch else "list"
        if method == "DELETE":
            return "delete" if self.name else "deletecollection"
        return _VERBS.get(method)

    def served(self, verb: str | None) -> Kind:
        """The kind, when it has this verb here; raises NotFound or MethodNotAllowed."""
        kind = self.kind
        if kind is None or (not kind.namespaced and self.namespace is not None):
            raise no_such_resource()
        homeless = kind.namespaced and self.namespace is None
        if homeless and self.name:
            raise no_such_resource()
        if self.subresource:
            part = kind.subresources.get(self.subresource)
            if part is None:
                raise no_such_resource()
            if verb not in part.verbs:
                raise method_not_allowed()
            return kind
        on_collection = verb in ("list", "watch", "create", "deletecollection")
        if verb not in kind.verbs or on_collection is bool(self.name) or (homeless and verb not in ("list", "watch")):
            raise method_not_allowed()
        return kind


def parse(path: str) -> Target | None:
    """The target of a path below ``/api/v1/`` or ``/apis/GROUP/VERSION/``; None for any other path."""
    root, *parts = path.strip("/").split("/")
    if root == "api":
        parts = ["", *parts]
    elif root != "apis":
        return None
    if len(parts) < 3 or not all(parts[1:]) or (root == "apis" and not parts[0]):
        return None
    group, version, *rest = parts
    namespace = None
    own_part = group == "" and len(rest) == 3 and rest[2] in _NAMESPACE_PARTS
    if rest[0] == "namespaces" and len(rest) > 2 and not own_part:
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3 or (group, version) not in GROUP_VERSIONS:
        return None
    resource, name, subresource = [*rest, "", ""][:3]
    return Target(group, version, resource, namespace, name, subresource, by_path(group, version, resource))


def no_such_resource() -> StatusError:
    """404 of a group and version that exists, for a resource that does not."""
    return generic(404, "NotFound", "the server could not find the requested resource")


def method_not_allowed() -> StatusError:
    """405: the resource has no such verb."""
    return generic(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def generic(code: int, reason: str, message: str) -> StatusError:
    """A refusal before the request has come to any object: its details are there and empty."""
    error = StatusError(code, reason, message)
    error.status["details"] = {}
    return error
