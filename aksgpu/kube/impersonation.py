"""Headers with which a kubeconfig's user acts as another user.

The user may have ``as``, ``as-uid``, ``as-groups`` and ``as-user-extra``. kubectl sends them as headers. Without them,
requests would have the caller's own rights instead of the other user's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from aksgpu.errors import InvalidInput

__all__ = ["Header", "headers"]

Header = tuple[str, str]


def headers(user: Mapping[str, Any], context: str) -> list[Header]:
    """Return the headers for a kubeconfig's user; empty if it does not act as another user.

    Args:
        user: the ``user`` mapping of the kubeconfig.
        context: name of the context, for errors.

    Raises:
        InvalidInput: a field is invalid, or cannot be sent as a header.
    """
    found: list[Header] = []
    name = user.get("as")
    if name:
        found.append(("Impersonate-User", _text("as", name, context)))
    uid = user.get("as-uid")
    if uid:
        found.append(("Impersonate-Uid", _text("as-uid", uid, context)))
    for group in _texts("as-groups", user.get("as-groups"), context):
        found.append(("Impersonate-Group", group))
    extra = user.get("as-user-extra") or {}
    if not isinstance(extra, Mapping):
        raise _wrong("as-user-extra", "a mapping of strings to lists of strings", extra, context)
    for key, values in extra.items():
        # Kubernetes decodes the key, and converts it to lower case.
        header = f"Impersonate-Extra-{quote(_text('as-user-extra', key, context), safe='')}"
        for value in _texts("as-user-extra", values, context):
            found.append((header, value))
    if found and not name:
        fields = ", ".join(key for key in ("as-uid", "as-groups", "as-user-extra") if user.get(key))
        raise InvalidInput(
            f"context {context!r} of the kubeconfig has {fields} without `as`",
            hint="Add `as: NAME` to its user, or remove these fields.",
        )
    return found


def _texts(field: str, values: Any, context: str) -> list[str]:
    if values is None:
        return []
    if not isinstance(values, list):
        raise _wrong(field, "a list of strings", values, context)
    return [_text(field, value, context) for value in values]


def _text(field: str, value: Any, context: str) -> str:
    if not isinstance(value, str) or not value or not re.fullmatch(r"[\x20-\x7e]+", value) or value != value.strip():
        raise _wrong(field, "printable ASCII text, which can be sent as a header", value, context)
    return value


def _wrong(field: str, wanted: str, value: Any, context: str) -> InvalidInput:
    return InvalidInput(f"`{field}` in context {context!r} of the kubeconfig must be {wanted}, got {value!r}")
