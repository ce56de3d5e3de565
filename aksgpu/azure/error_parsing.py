"""Turns Azure's refusals into exceptions, with the numbers from their messages and a hint.

Azure refuses in several shapes (flat, wrapped in ``error``, nested in ``details``, JSON or ``Code="..."`` inside a
message, a failed operation with HTTP status 200), and one failure has several messages. :func:`find_refusals` returns
the codes and messages of every shape, :mod:`aksgpu.azure.error_rules` has a rule for each failure, and
:func:`recognise` combines both. This module sends no requests. :mod:`aksgpu.kube.status_errors` does the same for
Kubernetes.

The messages come from Azure's documentation and from users' reports. The tests keep them as data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from aksgpu import errors
from aksgpu.azure.error_rules import QUOTA_PAGE, RULES, Refusal, location_hint
from aksgpu.errors import AzureError

__all__ = ["QUOTA_PAGE", "Refusal", "find_refusals", "location_hint", "recognise", "shorten"]

_LEFT_OUT = re.compile(
    r"(?:List of available regions|The available VM sizes are|If you want to increase the quota"
    r"|For more details,? please|Please read more about|Submit a request for).*",
    re.S,
)
"""Advice and lists in Azure's texts. The hint and the attributes replace them. The SDK's exception keeps them."""

_MAX_CHARACTERS = 400
"""Maximum length in characters of Azure's text in a message. Some texts contain whole logs."""

_MAX_LEVELS = 8
"""Levels of nesting that are read. No response of Azure has more."""


def find_refusals(body: object, http_status: int | None = None) -> list[Refusal]:
    """Return every code and message in the body of a response, outermost first.

    Args:
        body: the parsed JSON of a response, or the text of an error.
        http_status: the HTTP status of the response.
    """
    return [Refusal(code, message, http_status) for code, message in _pairs(body)]


def _pairs(value: object, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the codes and messages in a value."""
    if depth > _MAX_LEVELS:
        return
    if isinstance(value, str):
        yield from _pairs_in_text(value, depth)
    elif isinstance(value, list):
        for item in value:
            yield from _pairs(item, depth + 1)
    elif isinstance(value, Mapping):
        code = value.get("code")
        message = value.get("message")
        if isinstance(code, str) or isinstance(message, str):
            text = str(message or "")
            yield str(code or ""), text
            yield from _pairs_in_text(text, depth)
        elif value.get("status") == "Canceled" and not value.get("error"):
            yield "Canceled", "the operation was canceled"
        for key in ("error", "details", "innererror", "statusMessage", "provisioningError"):
            yield from _pairs(value.get(key), depth + 1)


_GO_STYLE = re.compile(r'Code="(?P<code>\w+)"\s+Message="(?P<message>(?:[^"\\]|\\.)*)"')
"""An error in the form that Azure's programs in Go write into a message."""


def _pairs_in_text(text: str, depth: int) -> Iterator[tuple[str, str]]:
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
    body: object, *, http_status: int | None = None, what: str = "", retry_after: float | None = None
) -> AzureError:
    """Return the exception for a refusal.

    Args:
        body: the parsed JSON of the response, or the text of the error.
        http_status: the HTTP status of the response, or None.
        what: what was being done, such as ``node pool gpunp``; begins the message.
        retry_after: seconds in the response's Retry-After header.
    """
    refusals = find_refusals(body, http_status) or [Refusal("", str(body) if body else "", http_status)]
    for rule in RULES:
        for refusal in refusals:
            error = rule(refusal)
            if error is not None:
                return _complete(error, refusal, what, retry_after)
    # The outer codes of nested bodies ("the deployment failed") are too general, so the innermost one is used.
    hint = "Correct the request according to Azure's message, then run the cell again."
    if http_status is None or http_status >= 500:
        hint = "Run the cell again. If the error persists, see https://azure.status.microsoft for the state of Azure."
    return _complete(AzureError("", hint=hint), refusals[-1], what, retry_after)


def _complete(error: AzureError, refusal: Refusal, what: str, retry_after: float | None) -> AzureError:
    """Add the message, the code and the status to an exception that a rule returned."""
    text = shorten(_LEFT_OUT.sub("", refusal.message)) or "Azure gave no reason"
    if refusal.code and refusal.code not in text:
        text = f"{text} ({refusal.code})"
    error.message = f"{what}: {text}" if what else text
    error.args = (error.message,)
    error.code = refusal.code
    error.http_status = refusal.http_status
    if isinstance(error, errors.Throttled) and error.retry_after is None:
        error.retry_after = retry_after
    return error


def shorten(text: str) -> str:
    """Return a text of Azure on one line, cut to the length that a message may have."""
    line = " ".join(text.split())
    return line if len(line) <= _MAX_CHARACTERS else f"{line[:_MAX_CHARACTERS].rstrip()} ..."
