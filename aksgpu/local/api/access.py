"""Who may do what: role-based access control, read from the cluster's own roles and bindings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from aksgpu.local.api.auth import MASTERS, User
from aksgpu.local.api.store import Store
from aksgpu.local.status import StatusError

Object = dict[str, Any]


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


DISCOVERY = ("/api", "/apis", "/healthz", "/livez", "/openapi", "/readyz", "/version")
"""What everyone with a token may read: these paths and all below them."""
_DISCOVERY_REASON = (
    'RBAC: allowed by ClusterRoleBinding "system:discovery" of ClusterRole "system:discovery" '
    'to Group "system:authenticated"'
)


def allowed(store: Store, user: User, wanted: Attributes) -> str | None:
    """Why the user may do this, or None when they may not. The reason is empty for administrators."""
    if MASTERS in user.groups:
        return ""
    if wanted.path and wanted.verb == "get" and any(_below(wanted.path, path) for path in DISCOVERY):
        return _DISCOVERY_REASON
    for binding, kind in _bindings(store, wanted.namespace):
        subject = next((text for each in binding.get("subjects") or () if (text := _is(each, binding, user))), None)
        if subject is None:
            continue
        reference, metadata = binding["roleRef"], binding["metadata"]
        if any(_grants(rule, wanted) for rule in _rules(store, reference, metadata.get("namespace", ""))):
            name = metadata["name"] if kind == "ClusterRoleBinding" else f"{metadata['name']}/{metadata['namespace']}"
            return f'RBAC: allowed by {kind} "{name}" of {reference["kind"]} "{reference["name"]}" to {subject}'
    return None


def authorize(store: Store, user: User, wanted: Attributes) -> None:
    """Raise Forbidden unless the user may do this."""
    if allowed(store, user, wanted) is not None:
        return
    if wanted.path:
        message = f'forbidden: User "{user.name}" cannot {wanted.verb} path "{wanted.path}"'
        raise StatusError(403, "Forbidden", message, {})
    where = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
    what = f"{wanted.resource}.{wanted.group}" if wanted.group else wanted.resource
    if wanted.name:
        what = f'{what} "{wanted.name}"'
    message = (
        f'{what} is forbidden: User "{user.name}" cannot {wanted.verb} resource "{wanted.full_resource}" '
        f'in API group "{wanted.group}" {where}'
    )
    details = {"name": wanted.name, "group": wanted.group, "kind": wanted.resource}
    raise StatusError(403, "Forbidden", message, {key: value for key, value in details.items() if value})


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(root + "/")


def _bindings(store: Store, namespace: str) -> Iterator[tuple[Object, str]]:
    for entry in store.entries("clusterrolebindings"):
        yield entry.obj, "ClusterRoleBinding"
    if namespace:
        for entry in store.entries("rolebindings", namespace):
            yield entry.obj, "RoleBinding"


def _is(subject: Object, binding: Object, user: User) -> str | None:
    """How a subject is called when it is, or contains, this user."""
    kind, name = subject.get("kind"), subject.get("name", "")
    if kind == "User" and name == user.name:
        return f'User "{name}"'
    if kind == "Group" and name in user.groups:
        return f'Group "{name}"'
    if kind == "ServiceAccount":
        namespace = subject.get("namespace") or binding["metadata"].get("namespace", "")
        if user.name == f"system:serviceaccount:{namespace}:{name}":
            return f'ServiceAccount "{name}/{namespace}"'
    return None


def _rules(store: Store, reference: Object, namespace: str) -> list[Object]:
    cluster = reference.get("kind") == "ClusterRole"
    entry = store.get("clusterroles" if cluster else "roles", ("" if cluster else namespace, reference.get("name", "")))
    return (entry.obj.get("rules") or []) if entry else []


def _grants(rule: Object, wanted: Attributes) -> bool:
    if not _has(rule, "verbs", wanted.verb):
        return False
    if wanted.path:
        urls = rule.get("nonResourceURLs") or ()
        return any(url == wanted.path or (url.endswith("*") and wanted.path.startswith(url[:-1])) for url in urls)
    resources = rule.get("resources") or ()
    named = (wanted.full_resource, f"*/{wanted.subresource}" if wanted.subresource else "*", "*")
    if not _has(rule, "apiGroups", wanted.group) or not any(each in resources for each in named):
        return False
    names = rule.get("resourceNames")
    return not names or wanted.name in names


def _has(rule: Object, field: str, value: str) -> bool:
    given = rule.get(field) or ()
    return "*" in given or value in given


def review(store: Store, user: User, spec: Object) -> Object:
    """The status of a SelfSubjectAccessReview."""
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (resource is None) is (path is None):
        raise _invalid_review()
    asked = resource if resource is not None else path or {}
    field = {
        key: str(asked.get(key) or "") for key in ("verb", "group", "resource", "subresource", "namespace", "name")
    }
    if field["namespace"] == "*":
        field["namespace"] = ""
    reason = allowed(store, user, Attributes(**field, path=str(asked.get("path") or "") if resource is None else ""))
    return {"allowed": reason is not None, **({"reason": reason} if reason else {})}


def _invalid_review() -> StatusError:
    field, message = (
        "spec.resourceAttributes",
        "exactly one of nonResourceAttributes or resourceAttributes must be specified",
    )
    text = f"Invalid value: null: {message}"
    details = {
        "group": "authorization.k8s.io",
        "kind": "SelfSubjectAccessReview",
        "causes": [{"reason": "FieldValueInvalid", "message": text, "field": field}],
    }
    head = 'SelfSubjectAccessReview.authorization.k8s.io "" is invalid: '
    return StatusError(422, "Invalid", f"{head}{field}: {text}", details)
