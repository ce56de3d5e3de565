"""Turns the exceptions of the Azure SDK into those of :mod:`aksgpu.errors`."""

from __future__ import annotations

import json
from typing import Any

from azure.core.exceptions import AzureError as SdkError
from azure.core.exceptions import ClientAuthenticationError, ServiceResponseError

from aksgpu import errors
from aksgpu.azure.error_parsing import find_refusals, recognise, shorten
from aksgpu.azure.refusal import LOGIN
from aksgpu.common import connection_errors
from aksgpu.errors import AzureError

__all__ = ["ForeignResponse", "NoUsableResponse", "translate"]

_RETRY_AFTER_HEADERS = {
    "retry-after-ms": 0.001,
    "x-ms-retry-after-ms": 0.001,
    "Retry-After": 1.0,
}
"""Headers that say how long to wait, with their units in seconds."""


class NoUsableResponse(ServiceResponseError):  # type: ignore[misc]  # the SDK is not type-checked here
    """A request was sent repeatedly until the time was up.

    Attributes:
        request: the request.
        last_response: a description of the last response; empty if there was none.
        http_status: HTTP status of the last response; None if there was none.
        seconds: how long the request was tried.
    """

    def __init__(
        self, request: Any, last_response: str, http_status: int | None, seconds: float, error: Exception | None
    ) -> None:
        super().__init__(last_response or str(error), error=error)
        self.request = request
        self.last_response = last_response
        self.http_status = http_status
        self.seconds = seconds


class ForeignResponse(SdkError):  # type: ignore[misc]  # the SDK is not type-checked here
    """A response that did not come from Azure, such as the login page of a proxy. The message says what it was."""


def translate(error: Exception, what: str = "") -> AzureError:
    """Return the exception of :mod:`aksgpu.errors` for an exception of the SDK. Raise it ``from`` the original.

    Args:
        error: what the SDK raised: an ``azure.core.exceptions.AzureError``.
        what: what was being done; begins the message.
    """
    if isinstance(error, AzureError):
        return error
    if isinstance(error, NoUsableResponse):
        return _unreachable(error, what)
    if isinstance(error, ForeignResponse):
        return _foreign(error, str(error.message), what)
    response = getattr(error, "response", None)
    if response is not None:
        http_status = getattr(response, "status_code", None)
        body = _body(response) or str(error)
        if http_status == 404 and _has_text(response) and not any(each.code for each in find_refusals(body)):
            # Azure gives a code. The page of a proxy must not look as if the resource did not exist.
            return _foreign(error, "it has the status 404 and no error code", what, http_status)
        return recognise(body, http_status=http_status, what=what, retry_after=_retry_after(response))
    if isinstance(error, ClientAuthenticationError):
        text = shorten(str(getattr(error, "message", error)))
        return errors.AzureAuthError(f"{what}: {text}" if what else text, hint=LOGIN)
    return _unreachable(error, what)


def _foreign(error: Exception, problem: str, what: str, http_status: int | None = None) -> AzureError:
    """Return the error for a response that did not come from Azure."""
    text = f"the response is not Azure's: {problem}"
    hint = "Run the cell again. If the error persists, check whether a proxy changes Azure's responses."
    return AzureError(f"{what}: {text}" if what else text, http_status=http_status, hint=hint, original=error)


def _unreachable(error: Exception, what: str) -> errors.AzureUnreachable:
    """Return the error for a request without a usable response."""
    last_response = ""
    http_status = None
    tried = ""
    if isinstance(error, NoUsableResponse):
        last_response = error.last_response
        http_status = error.http_status
        tried = f", tried for {error.seconds:.0f} s"
    address = connection_errors.address(error)
    endpoint = f"the endpoint at {address}" if address else "the endpoint"
    if last_response:
        message = f"{endpoint} gave no usable response{tried}; the last one was {last_response}"
        hint = "Run the cell again. If the error persists, see https://azure.status.microsoft for the state of Azure."
    else:
        message = f"{endpoint} does not answer: {shorten(connection_errors.reason(error))}{tried}"
        hint = f"{connection_errors.CONNECT_AGAIN}; then run the cell again. If that does not help, check the network."
    return errors.AzureUnreachable(
        f"{what}: {message}" if what else message, http_status=http_status, hint=hint, original=error
    )


def _body(response: Any) -> object:
    try:
        return json.loads(response.text())
    except Exception:  # not JSON, or a stream that was never read: the caller uses the error's own text
        return None


def _has_text(response: Any) -> bool:
    try:
        return bool(response.text().strip())
    except Exception:  # a stream that was never read
        return False


def _retry_after(response: Any) -> float | None:
    for header, unit in _RETRY_AFTER_HEADERS.items():
        try:
            return float(response.headers.get(header, "")) * unit
        except ValueError:
            continue
    return None
