"""Signed JSON Web Tokens with a shared secret (HS256)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any

import orjson

__all__ = ["issue", "verified_claims"]


def issue(secret: bytes, claims: Mapping[str, Any]) -> str:
    """Return a token with these claims."""
    head = _encode(orjson.dumps({"typ": "JWT", "alg": "HS256"}))
    signed = f"{head}.{_encode(orjson.dumps(dict(claims)))}"
    return f"{signed}.{_sign(secret, signed)}"


def verified_claims(secret: bytes, token: str) -> dict[str, Any]:
    """Return the claims of a token that was issued with this secret and has not expired; empty for any other text."""
    signed, _, signature = token.rpartition(".")
    if not hmac.compare_digest(signature.encode(errors="surrogateescape"), _sign(secret, signed).encode()):
        return {}
    encoded = signed.partition(".")[2]
    claims: dict[str, Any] = orjson.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    return claims if time.time() < claims["exp"] else {}


def _sign(secret: bytes, text: str) -> str:
    return _encode(hmac.digest(secret, text.encode(errors="surrogateescape"), hashlib.sha256))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
