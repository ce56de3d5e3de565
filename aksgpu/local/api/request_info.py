"""What a request is about: kind, namespace, name, subresource and verb, from its method and path."""

from __future__ import annotations

from aksgpu.local.api.access import Attributes
from aksgpu.local.kinds import KINDS, Kind, find_kind, get_kind
from aksgpu.local.status_error import StatusError

_GROUP_VERSIONS = {(kind.group, kind.version) for kind in KINDS}

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_COLLECTION_VERBS = ("list", "watch", "create", "deletecollection")


def parse_request(method: str, path: str, watch: bool) -> tuple[Kind, Attributes] | None:
    """The target of a request below ``/api/v1/`` or ``/apis/GROUP/VERSION/``; None for any other path.

    Raises:
        StatusError: there is no such resource, or it has no such verb.
    """
    root, *parts = path.strip("/").split("/")
    if root == "api":
        parts = ["", *parts]
    if root not in ("api", "apis") or len(parts) < 3 or not all(parts[1 if root == "api" else 0 :]):
        return None
    group, version, *rest = parts
    namespace = ""
    own_part = group == "" and len(rest) == 3 and rest[2] in get_kind("namespaces").subresources
    if rest[0] == "namespaces" and len(rest) > 2 and not own_part:
        namespace = rest[1]
        rest = rest[2:]
    if len(rest) > 3 or (group, version) not in _GROUP_VERSIONS:
        return None
    resource, name, subresource = [*rest, "", ""][:3]
    kind = find_kind(group, version, resource)
    known = kind is not None and (not subresource or subresource in kind.subresources)
    if kind is None or not known or (namespace and not kind.namespaced) or (name and kind.namespaced and not namespace):
        raise StatusError(404, "NotFound", "the server could not find the requested resource", {})
    verb = _request_verb(method, name, subresource, watch)
    verbs = kind.subresources[subresource].verbs if subresource else kind.verbs
    everywhere = kind.namespaced and not namespace and verb not in ("list", "watch")
    if verb not in verbs or everywhere or (not subresource and (verb in _COLLECTION_VERBS) is bool(name)):
        text = "the server does not allow this method on the requested resource"
        raise StatusError(405, "MethodNotAllowed", text, {})
    namespace = namespace or (name if resource == "namespaces" else "")
    return kind, Attributes(verb, group, resource, subresource, namespace, name)


def _request_verb(method: str, name: str, subresource: str, watch: bool) -> str:
    match method:
        case "GET" if subresource == "exec":
            return "create"  # a WebSocket begins with GET; that must not let those in who may only read
        case "GET":
            return "get" if name else "watch" if watch else "list"
        case "DELETE":
            return "delete" if name else "deletecollection"
        case _:
            return _VERBS.get(method, "")
