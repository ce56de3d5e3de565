"""Tokens of ServiceAccounts: ``kubectl create token``, and the users of such tokens.

A token is valid until it expires, or its ServiceAccount or the object that it is bound to is deleted. Pods get no
tokens by themselves.
"""

from __future__ import annotations

import time

from aksgpu.common.times import now
from aksgpu.local import json_web_token
from aksgpu.local.api.access import User
from aksgpu.local.api.status_causes import Causes
from aksgpu.local.api.store import Store
from aksgpu.local.kinds import get_kind
from aksgpu.local.objects import Object
from aksgpu.local.status_error import bad_request, conflict, not_found

__all__ = ["ServiceAccountTokens"]

DEFAULT_SECONDS = 3600
LEAST_SECONDS = 600
MOST_SECONDS = 1 << 32
AUDIENCE = "https://kubernetes.default.svc"
_BOUND_KINDS = {"Node": "nodes", "Pod": "pods", "Secret": "secrets"}
"""Kinds of objects that a token can be bound to, and their plurals."""

_OTHER_UID = (
    "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted "
    "and then recreated"
)


class ServiceAccountTokens:
    """Issues and verifies the tokens of a cluster.

    Args:
        store: The cluster's objects.
        secret: The secret that tokens are signed with.
    """

    def __init__(self, store: Store, secret: bytes) -> None:
        self._store = store
        self._secret = secret

    def status(self, account: Object, spec: Object) -> Object:
        """Return the status of a TokenRequest.

        Raises Invalid for a wrong time, and NotFound, BadRequest or Conflict if the token cannot be bound to an object.

        Args:
            account: The ServiceAccount.
            spec: The spec of the TokenRequest.
        """
        seconds = int(spec.get("expirationSeconds") or DEFAULT_SECONDS)
        causes = Causes()
        if seconds < LEAST_SECONDS:
            causes.invalid("spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
        if seconds > MOST_SECONDS:
            causes.invalid("spec.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds")
        causes.raise_if_any(get_kind("serviceaccounts").subresources["token"])
        metadata = account["metadata"]
        bound = self._bound_object(account, spec.get("boundObjectRef"))
        issued = int(time.time())
        claims = {
            "aud": spec.get("audiences") or [AUDIENCE],
            "exp": issued + seconds,
            "iat": issued,
            "iss": AUDIENCE,
            "kubernetes.io": {
                "namespace": metadata["namespace"],
                "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]},
                **bound,
            },
            "sub": f"system:serviceaccount:{metadata['namespace']}:{metadata['name']}",
        }
        token = json_web_token.issue(self._secret, claims)
        return {"token": token, "expirationTimestamp": now(seconds)}

    def _bound_object(self, account: Object, reference: Object | None) -> Object:
        """Return the claim that names the object that a token is bound to; empty if it is bound to none."""
        if not reference:
            return {}
        kind = reference.get("kind", "")
        version = reference.get("apiVersion", "")
        if kind not in _BOUND_KINDS or version != "v1":
            group, _, version = version.rpartition("/")
            raise bad_request(f"cannot bind token to object of type {group}/{version}, Kind={kind}")
        plural = _BOUND_KINDS[kind]
        name = reference.get("name", "")
        found = self._find(plural, account["metadata"]["namespace"], name)
        if found is None:
            raise not_found(plural, name)
        owner = account["metadata"]["name"]
        if kind == "Pod" and found["spec"].get("serviceAccountName", "default") != owner:
            why = "to pod running with different serviceaccount name."
            raise bad_request(f'cannot bind token for serviceaccount "{owner}" {why}')
        uid = found["metadata"]["uid"]
        expected = reference.get("uid") or uid
        if expected != uid:
            raise conflict(kind, name, _OTHER_UID.format(expected))
        return {kind.lower(): {"name": name, "uid": uid}}

    def _find(self, plural: str, namespace: str, name: str) -> Object | None:
        entry = self._store.get(plural, (namespace if get_kind(plural).namespaced else "", name))
        return None if entry is None else entry.obj

    def _exists(self, plural: str, namespace: str, claim: Object) -> bool:
        """Return whether the object of a claim has not been deleted since."""
        found = self._find(plural, namespace, claim["name"])
        return found is not None and found["metadata"]["uid"] == claim["uid"]

    def find_user(self, token: str) -> User | None:
        """Return the user of a token, or None if it is not valid for this API server."""
        claims = json_web_token.verified_claims(self._secret, token)
        if not claims or AUDIENCE not in claims["aud"]:
            return None
        own = claims["kubernetes.io"]
        namespace = own["namespace"]
        if not self._exists("serviceaccounts", namespace, own["serviceaccount"]):
            return None
        for kind, plural in _BOUND_KINDS.items():
            if kind.lower() in own and not self._exists(plural, namespace, own[kind.lower()]):
                return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        return User(claims["sub"], groups)
