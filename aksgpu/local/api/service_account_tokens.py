"""Tokens of ServiceAccounts: ``kubectl create token``, and the users of such tokens.

A token is valid until it expires or its ServiceAccount is deleted. Pods get no tokens by themselves.
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

__all__ = ["ServiceAccountTokens"]

DEFAULT_SECONDS = 3600
LEAST_SECONDS = 600
MOST_SECONDS = 1 << 32
AUDIENCE = "https://kubernetes.default.svc"


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
        """Return the status of a TokenRequest; raises Invalid for a wrong time.

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
        issued = int(time.time())
        claims = {
            "aud": spec.get("audiences") or [AUDIENCE],
            "exp": issued + seconds,
            "iat": issued,
            "iss": AUDIENCE,
            "kubernetes.io": {
                "namespace": metadata["namespace"],
                "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]},
            },
            "sub": f"system:serviceaccount:{metadata['namespace']}:{metadata['name']}",
        }
        token = json_web_token.issue(self._secret, claims)
        return {"token": token, "expirationTimestamp": now(seconds)}

    def find_user(self, token: str) -> User | None:
        """Return the user of a token, or None if it is not valid for this API server."""
        claims = json_web_token.verified_claims(self._secret, token)
        if not claims or AUDIENCE not in claims["aud"]:
            return None
        namespace = claims["kubernetes.io"]["namespace"]
        account = claims["kubernetes.io"]["serviceaccount"]
        entry = self._store.get("serviceaccounts", (namespace, account["name"]))
        if entry is None or entry.obj["metadata"]["uid"] != account["uid"]:
            return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        return User(claims["sub"], groups)
