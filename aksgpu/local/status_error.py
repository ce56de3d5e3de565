"""Kubernetes' Status object as an exception, with the API server's error texts."""

from __future__ import annotations

from typing import Any


class StatusError(Exception):
    """An error that the API server returns. ``status`` is the body of the response."""

    def __init__(
        self, code: int, reason: str, message: str, details: dict[str, Any] | None = None, **fields: Any
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
        }
        if details is not None:
            self.status["details"] = details
        self.status |= {"code": code, **fields}


class ignoring:  # noqa: N801 - lower case, as contextlib.suppress
    """Suppress a StatusError that has one of these HTTP status codes."""

    def __init__(self, *codes: int) -> None:
        self._codes = codes

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        return isinstance(error, StatusError) and error.code in self._codes


def _qualified(plural: str, group: str) -> str:
    return f"{plural}.{group}" if group else plural


def details(plural: str, group: str, name: str, **more: Any) -> dict[str, Any]:
    """Return the details of a Status: the name and kind of the object, and ``more`` fields."""
    found: dict[str, Any] = {"name": name}
    if group:
        found["group"] = group
    return found | {"kind": plural, **more}


def not_found(plural: str, name: str, group: str = "") -> StatusError:
    """Return a 404 error for an object that does not exist."""
    message = f'{_qualified(plural, group)} "{name}" not found'
    return StatusError(404, "NotFound", message, details(plural, group, name))


def already_exists(plural: str, name: str, group: str = "") -> StatusError:
    """Return a 409 error for an object whose name is already in use."""
    message = f'{_qualified(plural, group)} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, details(plural, group, name))


def conflict(plural: str, name: str, why: str, group: str = "") -> StatusError:
    """Return a 409 error for an object that has changed, or does not meet a precondition."""
    message = f'Operation cannot be fulfilled on {_qualified(plural, group)} "{name}": {why}'
    return StatusError(409, "Conflict", message, details(plural, group, name))


def bad_request(message: str) -> StatusError:
    """Return a 400 error for a malformed request."""
    return StatusError(400, "BadRequest", message)


def version_too_large(version: int, current: int) -> StatusError:
    """Return the error for a client that knows a newer version than the server."""
    message = f"Timeout: Too large resource version: {version}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return StatusError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})


def expired(message: str) -> StatusError:
    """Return a 410 error for a resourceVersion that is no longer available."""
    return StatusError(410, "Expired", message)
