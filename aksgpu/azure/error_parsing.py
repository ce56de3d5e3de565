"""What Azure says when it says no, read into an exception of its own class, with the numbers and what to do next.

Azure refuses in several body shapes (flat, wrapped in ``error``, nested in ``details``, JSON or ``Code="..."`` inside a
message, a failed operation with HTTP status 200) and one failure in several texts. :func:`said` takes the shapes apart,
the rules know the texts, and :func:`recognise` puts both together. Nothing is sent from here, and Kubernetes'
refusals are not read here.

The texts are those of Azure's documentation and of its users' reports; they are kept as test data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from aksgpu import errors
from aksgpu.azure.error_rules import LOGIN, QUOTA_PAGE, RULES, Refusal, location_hint
from aksgpu.common import connection_errors
from aksgpu.errors import AzureError

__all__ = ["QUOTA_PAGE", "Refusal", "location_hint", "recognise", "said", "translate"]

# Azure's advice and lists, which the hint or an attribute says better; the SDK's own exception keeps them.
_WORDY = re.compile(
    r"(?:List of available regions|The available VM sizes are|If you want to increase the quota"
    r"|For more details,? please|Please read more about|Submit a request for).*",
    re.S,
)
_SHOWN = 400  # characters of Azure's text that a message keeps; some carry whole logs


def said(body: object, status: int | None = None) -> list[Refusal]:
    """Every code and message in an answer's body, outermost first.

    Args:
        body: the parsed JSON of an answer, or the text of an error.
        status: the HTTP status of the answer.
    """
    return [Refusal(code, message, status) for code, message in _pairs(body)]


def _pairs(value: object, depth: int = 0) -> Iterator[tuple[str, str]]:
    if depth > 8:  # a body that nests deeper than any of Azure's is not worth following
        return
    if isinstance(value, str):
        yield from _inside_text(value, depth)
    elif isinstance(value, list):
        for item in value:
            yield from _pairs(item, depth + 1)
    elif isinstance(value, Mapping):
        code = value.get("code")
        message = value.get("message")
        if isinstance(code, str) or isinstance(message, str):
            code = str(code or "")
            message = str(message or "")
            yield code, message
            yield from _inside_text(message, depth)
        elif value.get("status") == "Canceled" and not value.get("error"):
            yield "Canceled", "the operation was canceled"
        for key in ("error", "details", "innererror", "statusMessage", "provisioningError"):
            yield from _pairs(value.get(key), depth + 1)


_GO_STYLE = re.compile(r'Code="(?P<code>\w+)"\s+Message="(?P<message>(?:[^"\\]|\\.)*)"')


def _inside_text(text: str, depth: int) -> Iterator[tuple[str, str]]:
    for found in _GO_STYLE.finditer(text):
        yield found["code"], found["message"].replace('\\"', '"').replace("\\n", "\n")
    start = text.find("{")
    if start >= 0 and '"' in text[start:]:
        try:
            inner, _ = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            return
        yield from _pairs(inner, depth + 1)


def recognise(
    body: object, *, status: int | None = None, what: str = "", retry_after: float | None = None
) -> AzureError:
    """The exception for a refusal.

    Args:
        body: the parsed JSON of the answer, or the text of the error.
        status: the HTTP status of the answer, or None.
        what: what was being done, such as ``node pool gpunp``; begins the message.
        retry_after: seconds that the answer's Retry-After header asks for.
    """
    refusals = said(body, status) or [Refusal("", str(body) if body else "", status)]
    for rule in RULES:
        for refusal in refusals:
            if error := rule(refusal):
                return _finish(error, refusal, what, retry_after)
    # Outer codes of nested bodies ("the deployment failed") say least: the innermost is shown.
    hint = "Correct what Azure objects to, then run the cell again."
    if status is None or status >= 500:
        hint = "Run the cell again; if it stays, see https://azure.status.microsoft for the state of Azure."
    return _finish(AzureError("", hint=hint), refusals[-1], what, retry_after)


def _finish(error: AzureError, refusal: Refusal, what: str, retry_after: float | None) -> AzureError:
    text = _shortened(_WORDY.sub("", refusal.message)) or "Azure gave no reason"
    named = f"{text} ({refusal.code})" if refusal.code and refusal.code not in text else text
    error.message = f"{what}: {named}" if what else named
    error.args = (error.message,)
    error.code = refusal.code
    error.status = refusal.status
    if isinstance(error, errors.Throttled) and error.retry_after is None:
        error.retry_after = retry_after
    return error


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN].rstrip()} ..."


def translate(error: Exception, what: str = "") -> AzureError:
    """The SDK's exception as one of :mod:`aksgpu.errors`; raise it ``from`` the original.

    Args:
        error: what the SDK raised: an ``azure.core.exceptions.AzureError``.
        what: what was being done; begins the message.
    """
    from azure.core import exceptions as sdk

    from aksgpu.azure.azure_retry_policy import NoAnswer

    if isinstance(error, AzureError):
        return error
    if isinstance(error, NoAnswer):
        return _unreachable(error, what)
    response = getattr(error, "response", None)
    if response is not None:
        status = getattr(response, "status_code", None)
        body = _body(response) or str(error)
        return recognise(body, status=status, what=what, retry_after=_retry_after(response))
    text = _shortened(str(getattr(error, "message", error)))
    if isinstance(error, sdk.ClientAuthenticationError):
        return errors.AzureAuthError(f"{what}: {text}" if what else text, hint=LOGIN)
    return _unreachable(error, what)


def _unreachable(error: Exception, what: str) -> errors.AzureUnreachable:
    """The error for no answer, or for none that could be used until the time was up."""
    from aksgpu.azure.azure_retry_policy import NoAnswer

    answer = error.answer if isinstance(error, NoAnswer) else ""
    status = error.status if isinstance(error, NoAnswer) else None
    tried = f", tried for {error.seconds:.0f} s" if isinstance(error, NoAnswer) else ""
    where = connection_errors.address(error)
    endpoint = f"the endpoint{f' at {where}' if where else ''}"
    if answer:
        message = f"{endpoint} gives no usable answer{tried}; the last one was {answer}"
        hint = "Run the cell again; if it stays, see https://azure.status.microsoft for the state of Azure."
    else:
        message = f"{endpoint} does not answer: {_shortened(connection_errors.reason(error))}{tried}"
        hint = f"{connection_errors.CONNECT_AGAIN}; then run the cell again. If that does not help, check the network."
    return errors.AzureUnreachable(f"{what}: {message}" if what else message, status=status, hint=hint, original=error)


def _body(response: Any) -> object:
    try:
        return json.loads(response.text())
    except Exception:  # not JSON, or a stream that was never read: the caller falls back to the error's own text
        return None


def _retry_after(response: Any) -> float | None:
    for header, unit in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("Retry-After", 1.0)):
        try:
            return float(response.headers.get(header, "")) * unit
        except ValueError:
            continue
    return None
