"""Authentication by client certificate or bearer token, and authorization by roles and bindings (RBAC)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from aiohttp import web

from aksgpu.local.api.status_causes import Causes
from aksgpu.local.api.store import Store
from aksgpu.local.kinds import get_kind
from aksgpu.local.objects import Object
from aksgpu.local.status_error import StatusError, bad_request

ADMIN_GROUP = "system:masters"
"""Members of this group may do everything."""
_AUTHENTICATED_GROUP = "system:authenticated"
_DEFAULT_ROLES = ("system:basic-user", "system:discovery", "system:public-info-viewer")
"""Cluster roles that every authenticated user has."""


class User(NamedTuple):
    """A user and their groups, as RBAC knows them."""

    name: str
    groups: tuple[str, ...] = ()
    role: str = ""
    """The cluster role that an administrator's rights come from; empty if they come from the group."""


TokenAuthenticator = Mapping[str, User] | Callable[[str], User | None]
CertificateAuthenticator = Callable[[Mapping[str, Any]], User | None]
"""Returns the user of a verified certificate, as ``ssl.SSLSocket.getpeercert`` returns it."""


def no_certificates(peer: Mapping[str, Any]) -> User | None:
    """Return None: the certificate belongs to no user."""
    return None


def authenticate(request: web.Request, tokens: TokenAuthenticator, certificates: CertificateAuthenticator) -> User:
    """Return the user of the request's client certificate or bearer token, or the user whom they impersonate.

    Raises Unauthorized if there is neither, or they are unknown.
    """
    user = _certificate_user(request, certificates) or find_token_user(bearer_token(request), tokens)
    if user is None:
        raise StatusError(401, "Unauthorized", "Unauthorized")
    return _impersonate(request, authenticated(user))


def authenticated(user: User) -> User:
    """Return the user with the group that every authenticated user has."""
    return user._replace(groups=(*user.groups, _AUTHENTICATED_GROUP))


def _certificate_user(request: web.Request, certificates: CertificateAuthenticator) -> User | None:
    peer = peer_certificate(request)
    return certificates(peer) if peer else None


def peer_certificate(request: web.Request) -> Mapping[str, Any]:
    """Return the client's verified certificate; empty if it has none."""
    return (request.transport.get_extra_info("peercert") if request.transport else None) or {}


def bearer_token(request: web.Request) -> str:
    """Return the request's bearer token; empty if it has none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def find_token_user(token: str, tokens: TokenAuthenticator) -> User | None:
    """Return the user of a bearer token, or None if it is empty or unknown."""
    if not token:
        return None
    return tokens(token) if callable(tokens) else tokens.get(token)


def _impersonate(request: web.Request, user: User) -> User:
    """Return the user that the request's headers name, if an administrator sent it; otherwise the caller."""
    name = request.headers.get("Impersonate-User", "")
    groups = request.headers.getall("Impersonate-Group", [])
    headers = sorted({header for header in request.headers if header.lower().startswith("impersonate-")})
    if not headers:
        return user
    if not name:
        raise bad_request(f"requested {groups or headers} without impersonating a user")
    if ADMIN_GROUP not in user.groups:
        reason = f'User "{user.name}" cannot impersonate resource "users" in API group "" at the cluster scope'
        raise StatusError(403, "Forbidden", f'users "{name}" is forbidden: {reason}', {"name": name, "kind": "users"})
    parts = name.split(":")
    if not groups and len(parts) == 4 and name.startswith("system:serviceaccount:"):
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{parts[2]}"]
    return User(name, (*groups, _AUTHENTICATED_GROUP))


class Attributes(NamedTuple):
    """What a request wants to do. Authorization depends on these attributes."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    """The path of a request that is not about a resource, such as ``/version``."""

    @property
    def full_resource(self) -> str:
        """The resource, with the subresource if there is one, such as ``pods/log``."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


_NAME_SELECTOR = re.compile(r"(?:^|,)metadata\.name==?([^,=!]+)(?:,|$)")
DISCOVERY_PATHS = ("/api/", "/apis/", "/healthz/", "/livez/", "/openapi/", "/readyz/", "/version/")
"""Paths that every authenticated user may read, with everything below them."""


def allow_reason(store: Store, user: User, attributes: Attributes) -> str | None:
    """Return the reason why the user may do this, or None if they may not.

    The reason is empty if the user needs no binding.
    """
    if ADMIN_GROUP in user.groups:
        return ""
    if attributes.verb == "get" and f"{attributes.path}/".startswith(DISCOVERY_PATHS):
        return ""
    bindings = list(store.entries("clusterrolebindings"))
    if attributes.namespace:
        bindings += store.entries("rolebindings", attributes.namespace)
    for entry in bindings:
        binding = entry.obj
        namespace = binding["metadata"].get("namespace", "")
        role = binding["roleRef"]
        subject = _binding_subject(binding, namespace, user)
        if subject and any(_grants(rule, attributes) for rule in _role_rules(store, role, namespace)):
            name = "/".join(filter(None, (binding["metadata"]["name"], namespace)))
            return f'RBAC: allowed by {entry.kind.kind} "{name}" of {role["kind"]} "{role["name"]}" to {subject}'
    return None


def user_rules(store: Store, user: User, namespace: str) -> list[Object]:
    """Return the rules of everything that a user may do in a namespace."""
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
    if ADMIN_GROUP in user.groups:
        return [everything, {"verbs": ["*"], "nonResourceURLs": ["*"]}]
    own = {
        "authentication.k8s.io": ["selfsubjectreviews"],
        "authorization.k8s.io": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
    }
    rules = [{"verbs": ["create"], "apiGroups": [group], "resources": names} for group, names in own.items()]
    paths = [path for each in DISCOVERY_PATHS for path in (each.rstrip("/"), f"{each}*")]
    rules.append({"verbs": ["get"], "nonResourceURLs": paths})
    for entry in [*store.entries("clusterrolebindings"), *store.entries("rolebindings", namespace)]:
        own_namespace = entry.obj["metadata"].get("namespace", "")
        if _binding_subject(entry.obj, own_namespace, user):
            rules += _role_rules(store, entry.obj["roleRef"], own_namespace)
    return rules


def _binding_subject(binding: Object, namespace: str, user: User) -> str | None:
    """Return the first subject of a binding that is or contains the user, as text; None if there is none."""
    for subject in binding.get("subjects") or ():
        text = _matching_subject(subject, namespace, user)
        if text:
            return text
    return None


def with_selected_name(attributes: Attributes, query: Mapping[str, str]) -> Attributes:
    """Return the attributes with the name that a list or watch selects by ``metadata.name``, as Kubernetes does."""
    if attributes.verb not in ("list", "watch"):
        return attributes
    match = _NAME_SELECTOR.search(query.get("fieldSelector", ""))
    return attributes._replace(name=match[1]) if match else attributes


def authorize(store: Store, user: User, attributes: Attributes, *, with_roles: bool = True) -> None:
    """Raise Forbidden unless the user may do this.

    Args:
        store: The cluster's objects.
        user: The user.
        attributes: What the user wants to do.
        with_roles: False if the server has not loaded the roles yet. Then only the group of administrators has rights.
    """
    reason = ""
    if with_roles:
        if allow_reason(store, user, attributes) is not None:
            return
    elif ADMIN_GROUP in user.groups and not user.role:
        return
    else:
        reason = f": RBAC: {_missing_roles(store, user, attributes.namespace)}"
    if attributes.path:
        message = f'forbidden: User "{user.name}" cannot {attributes.verb} path "{attributes.path}"{reason}'
        raise StatusError(403, "Forbidden", message, {})
    where = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
    what = f"{attributes.resource}.{attributes.group}" if attributes.group else attributes.resource
    if attributes.name:
        what += f' "{attributes.name}"'
    message = (
        f'{what} is forbidden: User "{user.name}" cannot {attributes.verb} resource "{attributes.full_resource}" '
        f'in API group "{attributes.group}" {where}{reason}'
    )
    details = {"name": attributes.name, "group": attributes.group, "kind": attributes.resource}
    raise StatusError(403, "Forbidden", message, {key: value for key, value in details.items() if value})


def _missing_roles(store: Store, user: User, namespace: str) -> str:
    """Return the errors that the authorizer reports if it finds none of the user's roles."""
    roles = [("clusterrole", name) for name in _DEFAULT_ROLES]
    if user.role:
        roles.append(("clusterrole", user.role))
    bindings = list(store.entries("clusterrolebindings"))
    if namespace:
        bindings += store.entries("rolebindings", namespace)
    for entry in bindings:
        role = entry.obj["roleRef"]
        if _binding_subject(entry.obj, entry.obj["metadata"].get("namespace", ""), user):
            roles.append((role["kind"].lower(), role["name"]))
    errors = [f'{kind}.rbac.authorization.k8s.io "{name}" not found' for kind, name in dict.fromkeys(roles)]
    return f"[{', '.join(errors)}]"


def review_access(store: Store, user: User, spec: Object) -> Object:
    """Return the status of a SelfSubjectAccessReview."""
    given = [spec[part] for part in ("resourceAttributes", "nonResourceAttributes") if spec.get(part)]
    if len(given) != 1:
        causes = Causes()
        why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        causes.invalid("spec.resourceAttributes", None, why)
        causes.raise_if_any(get_kind("selfsubjectaccessreviews"), "")
    fields = given[0]
    attributes = Attributes(**{field: str(fields.get(field) or "") for field in Attributes._fields})
    reason = allow_reason(store, user, attributes)
    status: Object = {"allowed": reason is not None}
    if reason:
        status["reason"] = reason
    return status


def _matching_subject(subject: Object, namespace: str, user: User) -> str | None:
    """Return a subject of a binding in ``namespace`` as text if it is or contains this user; otherwise None."""
    kind = subject.get("kind")
    name = subject.get("name", "")
    if kind == "ServiceAccount":
        namespace = subject.get("namespace") or namespace
        is_user = user.name == f"system:serviceaccount:{namespace}:{name}"
        name = f"{name}/{namespace}"
    elif kind == "Group":
        is_user = name in user.groups
    else:
        is_user = kind == "User" and name == user.name
    return f'{kind} "{name}"' if is_user else None


def _role_rules(store: Store, reference: Object, namespace: str) -> list[Object]:
    name = reference.get("name", "")
    if reference.get("kind") == "ClusterRole":
        entry = store.get("clusterroles", ("", name))
    else:
        entry = store.get("roles", (namespace, name))
    return (entry.obj.get("rules") or []) if entry else []


def _grants(rule: Object, attributes: Attributes) -> bool:
    """Return whether a rule of a role allows a request."""

    def has(field: str, *values: str) -> bool:
        listed = rule.get(field) or ()
        return any(value in listed for value in ("*", *values))

    if not has("verbs", attributes.verb):
        return False
    if attributes.path:
        urls = rule.get("nonResourceURLs") or ()
        return any(
            url == attributes.path or (url.endswith("*") and attributes.path.startswith(url[:-1])) for url in urls
        )
    resources = [attributes.full_resource]
    if attributes.subresource:
        resources.append(f"*/{attributes.subresource}")
    if not has("apiGroups", attributes.group) or not has("resources", *resources):
        return False
    names = rule.get("resourceNames")
    return not names or attributes.name in names
