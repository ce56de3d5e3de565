"""Reviews: objects that are not stored, but answered with a status, such as what a user may do."""

from __future__ import annotations

from collections.abc import Callable

from aksgpu.local.api import access
from aksgpu.local.api.access import TokenAuthenticator, User
from aksgpu.local.api.store import Store
from aksgpu.local.objects import Object
from aksgpu.local.status_error import bad_request

__all__ = ["KINDS", "OWN", "status"]

OWN = ("selfsubjectaccessreviews", "selfsubjectreviews", "selfsubjectrulesreviews")
"""Reviews about the user who sends them. Every user may create them."""
KINDS = (*OWN, "tokenreviews")


def status(plural: str, store: Store, tokens: TokenAuthenticator, user: User, spec: Object) -> Object:
    """Return the status of a review.

    Args:
        plural: The kind of review, one of :data:`KINDS`.
        store: The cluster's objects.
        tokens: The users by bearer token.
        user: The user who sends the review.
        spec: The review's spec; empty if it has none.
    """
    answers: dict[str, Callable[[], Object]] = {
        "selfsubjectaccessreviews": lambda: access.review_access(store, user, spec),
        "selfsubjectreviews": lambda: {"userInfo": _user_info(user)},
        "selfsubjectrulesreviews": lambda: _rules(store, user, spec),
        "tokenreviews": lambda: _token(tokens, spec),
    }
    return answers[plural]()


def _user_info(user: User) -> Object:
    return {"username": user.name, "groups": list(user.groups)}


def _token(tokens: TokenAuthenticator, spec: Object) -> Object:
    token = spec.get("token") or ""
    if not token:
        raise bad_request("token is required for TokenReview in authentication")
    user = access.find_token_user(token, tokens)
    if user is None:
        return {"user": {}, "error": "[invalid bearer token]"}
    return {"authenticated": True, "user": _user_info(access.authenticated(user))}


def _rules(store: Store, user: User, spec: Object) -> Object:
    """Return what a user may do in a namespace."""
    namespace = spec.get("namespace") or ""
    if not namespace:
        raise bad_request("no namespace on request")
    resource_rules: list[Object] = []
    other_rules: list[Object] = []
    for rule in access.user_rules(store, user, namespace):
        if rule.get("resources"):
            fields = ("verbs", "apiGroups", "resources", "resourceNames")
            resource_rules.append({field: rule[field] for field in fields if rule.get(field)})
        elif rule.get("nonResourceURLs"):
            other_rules.append({"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]})
    return {"resourceRules": resource_rules, "nonResourceRules": other_rules, "incomplete": False}
