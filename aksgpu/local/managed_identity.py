"""The laptop's managed identity: how ``az login --identity`` and azure-identity get a token without Entra ID.

The protocol is that of Azure App Service. A client sends the secret in ``IDENTITY_HEADER``, which is the laptop's own
token, and receives a JSON Web Token, because ``az`` reads the tenant from it. It is signed with the same secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any

import orjson

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
    head = _encode(orjson.dumps({"typ": "JWT", "alg": "HS256"}))
    signed = f"{head}.{_encode(orjson.dumps(claims))}"
    return {
        "access_token": f"{signed}.{_sign(secret, signed)}",
        "expires_on": str(now + LIFETIME_SECONDS),
        "resource": resource,
        "token_type": "Bearer",
        "client_id": OBJECT_ID,
    }


def is_valid(secret: bytes, token: str) -> bool:
    """Return whether a token was issued here with this secret, and has not expired."""
    signed, _, signature = token.rpartition(".")
    if not hmac.compare_digest(signature.encode(errors="surrogateescape"), _sign(secret, signed).encode()):
        return False
    claims = signed.partition(".")[2]
    expires: int = orjson.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"]
    return time.time() < expires


def _sign(secret: bytes, text: str) -> str:
    return _encode(hmac.digest(secret, text.encode(errors="surrogateescape"), hashlib.sha256))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
