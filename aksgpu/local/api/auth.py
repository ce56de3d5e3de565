"""Who is calling: bearer tokens and the users they stand for. What a user may do is in access.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from aksgpu.local.status import StatusError

MASTERS = "system:masters"
"""Members of this group may do everything."""


@dataclass(frozen=True)
class User:
    """A caller, as RBAC knows them."""

    name: str
    groups: tuple[str, ...] = field(default=())


Tokens = Mapping[str, User] | Callable[[str], User | None]


def authenticate(request: web.Request, tokens: Tokens) -> User:
    """The user whose bearer token the request carries; raises Unauthorized."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and (token := token.strip()):
        user = tokens(token) if callable(tokens) else tokens.get(token)
        if user is not None:
            return User(user.name, (*user.groups, "system:authenticated"))
    raise StatusError(401, "Unauthorized", "Unauthorized")
