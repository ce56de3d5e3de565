"""Parses the method and path of a request into kind, namespace, name, subresource and verb."""

from __future__ import annotations

from aksgpu.local.api.access import Attributes
from aksgpu.local.kinds import KINDS, Kind, find_kind, get_kind
from aksgpu.local.status_error import StatusError

_GROUP_VERSIONS = {(kind.group, kind.version) for kind in KINDS}

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_CONNECTIONS = ("attach", "exec", "portforward")
_COLLECTION_VERBS = ("list", "watch", "create", "deletecollection")


def parse_request(method: str, path: str, watch: bool) -> tuple[Kind, Attributes] | None:
    """Return the kind and the attributes of a request for a resource, or None for any other path.

    Raises:
        StatusError: The resource does not exist or does not have the verb.
    """
    root, *parts = path.strip("/").split("/")
    if root == "api":
        parts = ["", *parts]
    if root not in ("api", "apis") or len(parts) < 3 or not all(parts[1 if root == "api" else 0 :]):
        return None
    group, version, *rest = parts
    namespace = ""
    # The path of a namespace's subresource looks like that of a list in the namespace.
    is_subresource = group == "" and len(rest) == 3 and rest[2] in get_kind("namespaces").subresources
    if rest[0] == "namespaces" and len(rest) > 2 and not is_subresource:
        namespace = rest[1]
        rest = rest[2:]
    if len(rest) > 3 or (group, version) not in _GROUP_VERSIONS:
        return None
    resource, name, subresource = [*rest, "", ""][:3]
    kind = find_kind(group, version, resource)
    is_known = kind is not None and (not subresource or subresource in kind.subresources)
    is_wrong_scope = kind is not None and (
        (namespace and not kind.namespaced) or (name and kind.namespaced and not namespace)
    )
    if kind is None or not is_known or is_wrong_scope:
        raise StatusError(404, "NotFound", "the server could not find the requested resource", {})
    verb = _request_verb(method, name, subresource, watch)
    verbs = kind.subresources[subresource].verbs if subresource else kind.verbs
    needs_namespace = kind.namespaced and not namespace and verb not in ("list", "watch")
    is_wrong_path = not subresource and (verb in _COLLECTION_VERBS) is bool(name)
    if verb not in verbs or needs_namespace or is_wrong_path:
        message = "the server does not allow this method on the requested resource"
        raise StatusError(405, "MethodNotAllowed", message, {})
    namespace = namespace or (name if resource == "namespaces" else "")
    return kind, Attributes(verb, group, resource, subresource, namespace, name)


def _request_verb(method: str, name: str, subresource: str, watch: bool) -> str:
    match method:
        case "GET" if subresource in _CONNECTIONS:
            # A WebSocket starts with GET. Users who may only read must not be able to run commands.
            return "create"
        case "GET" if name:
            return "get"
        case "GET":
            return "watch" if watch else "list"
        case "DELETE":
            return "delete" if name else "deletecollection"
        case _:
            return _VERBS.get(method, "")
