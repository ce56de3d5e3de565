"""Who is calling, by bearer token, and what they may do, by the cluster's own roles and bindings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from aiohttp import web

from aksgpu.local.api.status_causes import Causes
from aksgpu.local.api.store import Store
from aksgpu.local.kinds import get_kind
from aksgpu.local.status_error import StatusError, bad_request

Object = dict[str, Any]

ADMIN_GROUP = "system:masters"
"""Members of this group may do everything."""
_AUTHENTICATED_GROUP = "system:authenticated"


class User(NamedTuple):
    """A caller, as RBAC knows them."""

    name: str
    groups: tuple[str, ...] = ()


TokenAuthenticator = Mapping[str, User] | Callable[[str], User | None]


def authenticate(request: web.Request, tokens: TokenAuthenticator) -> User:
    """The user whose bearer token the request carries, or whom that user impersonates; raises Unauthorized."""
    scheme, _, continue_token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and (continue_token := continue_token.strip()):
        user = tokens(continue_token) if callable(tokens) else tokens.get(continue_token)
        if user is not None:
            return _impersonate(request, User(user.name, (*user.groups, _AUTHENTICATED_GROUP)))
    raise StatusError(401, "Unauthorized", "Unauthorized")


def _impersonate(request: web.Request, user: User) -> User:
    """Whom the request is to be answered as: the caller, or the user that an administrator names in its headers."""
    name = request.headers.get("Impersonate-User", "")
    groups = request.headers.getall("Impersonate-Group", [])
    if not name and not groups:
        return user
    if not name:
        raise bad_request(f"requested {groups} without impersonating a user")
    if ADMIN_GROUP not in user.groups:
        what = f'User "{user.name}" cannot impersonate resource "users" in API group "" at the cluster scope'
        raise StatusError(403, "Forbidden", f'users "{name}" is forbidden: {what}', {"name": name, "kind": "users"})
    if not groups and len(parts := name.split(":")) == 4 and name.startswith("system:serviceaccount:"):
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{parts[2]}"]
    return User(name, (*groups, _AUTHENTICATED_GROUP))


class Attributes(NamedTuple):
    """What someone wants to do."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    """Of a request that is not about a resource, such as ``/version``."""

    @property
    def full_resource(self) -> str:
        """``pods/log``."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


_NAME_SELECTOR = re.compile(r"(?:^|,)metadata\.name==?([^,=!]+)(?:,|$)")
DISCOVERY_PATHS = ("/api/", "/apis/", "/healthz/", "/livez/", "/openapi/", "/readyz/", "/version/")
"""What everyone with a token may read: these paths and all below them."""


def allow_reason(store: Store, user: User, attributes: Attributes) -> str | None:
    """Why the user may do this, or None when they may not. The reason is empty where no binding is needed."""
    if ADMIN_GROUP in user.groups or (attributes.verb == "get" and f"{attributes.path}/".startswith(DISCOVERY_PATHS)):
        return ""
    local = store.entries("rolebindings", attributes.namespace) if attributes.namespace else ()
    for entry in (*store.entries("clusterrolebindings"), *local):
        binding = entry.obj
        namespace = binding["metadata"].get("namespace", "")
        role = binding["roleRef"]
        subjects = (_matching_subject(each, namespace, user) for each in binding.get("subjects") or ())
        if (subject := next(filter(None, subjects), None)) and any(
            _grants(rule, attributes) for rule in _role_rules(store, role, namespace)
        ):
            name = "/".join(filter(None, (binding["metadata"]["name"], namespace)))
            return f'RBAC: allowed by {entry.kind.kind} "{name}" of {role["kind"]} "{role["name"]}" to {subject}'
    return None


def with_selected_name(attributes: Attributes, query: Mapping[str, str]) -> Attributes:
    """A list or watch of the one object that a field selector names is judged as a request for that object."""
    if attributes.verb in ("list", "watch") and (found := _NAME_SELECTOR.search(query.get("fieldSelector", ""))):
        return attributes._replace(name=found[1])
    return attributes


def authorize(store: Store, user: User, attributes: Attributes) -> None:
    """Raise Forbidden unless the user may do this."""
    if allow_reason(store, user, attributes) is not None:
        return
    if attributes.path:
        message = f'forbidden: User "{user.name}" cannot {attributes.verb} path "{attributes.path}"'
        raise StatusError(403, "Forbidden", message, {})
    where = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
    what = f"{attributes.resource}.{attributes.group}" if attributes.group else attributes.resource
    if attributes.name:
        what = f'{what} "{attributes.name}"'
    message = (
        f'{what} is forbidden: User "{user.name}" cannot {attributes.verb} resource "{attributes.full_resource}" '
        f'in API group "{attributes.group}" {where}'
    )
    details = {"name": attributes.name, "group": attributes.group, "kind": attributes.resource}
    raise StatusError(403, "Forbidden", message, {key: value for key, value in details.items() if value})


def review_access(store: Store, user: User, spec: Object) -> Object:
    """The status of a SelfSubjectAccessReview."""
    given = [spec[part] for part in ("resourceAttributes", "nonResourceAttributes") if spec.get(part)]
    if len(given) != 1:
        causes = Causes()
        why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        causes.invalid("spec.resourceAttributes", None, why)
        causes.check(get_kind("selfsubjectaccessreviews"), "")
    (asked,) = given
    attributes = Attributes(**{field: str(asked.get(field) or "") for field in Attributes._fields})
    reason = allow_reason(store, user, attributes)
    return {"allowed": reason is not None, **({"reason": reason} if reason else {})}


def _matching_subject(subject: Object, namespace: str, user: User) -> str | None:
    """How a subject of a binding in ``namespace`` is called when it is, or contains, this user."""
    kind = subject.get("kind")
    name = subject.get("name", "")
    if kind == "ServiceAccount":
        namespace = subject.get("namespace") or namespace
        is_user = user.name == f"system:serviceaccount:{namespace}:{name}"
        name = f"{name}/{namespace}"
    else:
        is_user = name in user.groups if kind == "Group" else kind == "User" and name == user.name
    return f'{kind} "{name}"' if is_user else None


def _role_rules(store: Store, reference: Object, namespace: str) -> list[Object]:
    cluster = reference.get("kind") == "ClusterRole"
    entry = store.get("clusterroles" if cluster else "roles", ("" if cluster else namespace, reference.get("name", "")))
    return (entry.obj.get("rules") or []) if entry else []


def _grants(rule: Object, attributes: Attributes) -> bool:
    def has(field: str, *values: str) -> bool:
        given = rule.get(field) or ()
        return any(value in given for value in ("*", *values))

    if not has("verbs", attributes.verb):
        return False
    if attributes.path:
        urls = rule.get("nonResourceURLs") or ()
        return any(
            url == attributes.path or (url.endswith("*") and attributes.path.startswith(url[:-1])) for url in urls
        )
    every = (f"*/{attributes.subresource}",) if attributes.subresource else ()
    names = rule.get("resourceNames")
    allowed_here = has("apiGroups", attributes.group) and has("resources", attributes.full_resource, *every)
    return allowed_here and (not names or attributes.name in names)
