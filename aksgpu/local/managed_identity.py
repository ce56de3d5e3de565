"""The laptop's managed identity: how ``az login --identity`` and azure-identity get a token without Entra ID.

The protocol is that of Azure App Service. A client sends the secret in ``IDENTITY_HEADER``, which is the laptop's own
token, and receives a JSON Web Token, because ``az`` reads the tenant from it. It is signed with the same secret.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from aksgpu.local import json_web_token

__all__ = ["PATH", "is_valid", "token_response"]

PATH = "/msi/token"
LIFETIME_SECONDS = 24 * 3600
OBJECT_ID = "00000000-0000-0000-0000-000000000001"
"""The id of the identity."""


def token_response(secret: bytes, tenant: str, query: Mapping[str, str]) -> dict[str, Any]:
    """Return the body of a response with a new token."""
    resource = query.get("resource", "https://management.azure.com/")
    now = int(time.time())
    claims = {"aud": resource, "iss": f"https://sts.windows.net/{tenant}/", "iat": now, "exp": now + LIFETIME_SECONDS}
    claims |= {"oid": OBJECT_ID, "sub": OBJECT_ID, "appid": OBJECT_ID, "tid": tenant, "idtyp": "app"}
    return {
        "access_token": json_web_token.issue(secret, claims),
        "expires_on": str(now + LIFETIME_SECONDS),
        "resource": resource,
        "token_type": "Bearer",
        "client_id": OBJECT_ID,
    }


def is_valid(secret: bytes, token: str) -> bool:
    """Return whether a token was issued here with this secret, and has not expired."""
    return bool(json_web_token.verified_claims(secret, token))
