"""Who is calling: bearer tokens and the users they stand for. What a user may do is in access.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from aksgpu.local.status import StatusError, bad_request

MASTERS = "system:masters"
"""Members of this group may do everything."""
_AUTHENTICATED = "system:authenticated"


@dataclass(frozen=True)
class User:
    """A caller, as RBAC knows them."""

    name: str
    groups: tuple[str, ...] = field(default=())


Tokens = Mapping[str, User] | Callable[[str], User | None]


def authenticate(request: web.Request, tokens: Tokens) -> User:
    """The user whose bearer token the request carries, or whom that user impersonates; raises Unauthorized."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and (token := token.strip()):
        user = tokens(token) if callable(tokens) else tokens.get(token)
        if user is not None:
            return _impersonated(request, User(user.name, (*user.groups, _AUTHENTICATED)))
    raise StatusError(401, "Unauthorized", "Unauthorized")


def _impersonated(request: web.Request, user: User) -> User:
    """Whom the request is to be answered as: the caller, or the user that an administrator names in its headers."""
    name, groups = request.headers.get("Impersonate-User", ""), request.headers.getall("Impersonate-Group", [])
    if not name and not groups:
        return user
    if not name:
        raise bad_request(f"requested {groups} without impersonating a user")
    if MASTERS not in user.groups:
        message = (
            f'users "{name}" is forbidden: User "{user.name}" cannot impersonate resource "users" in API group "" '
            "at the cluster scope"
        )
        raise StatusError(403, "Forbidden", message, {"name": name, "kind": "users"})
    return User(name, (*groups, _AUTHENTICATED))
