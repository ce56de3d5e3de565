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
from aksgpu.azure.error_rules import RULES
from aksgpu.azure.refusal import QUOTA_PAGE, Refusal
from aksgpu.azure.size_rules import location_hint
from aksgpu.errors import AzureError

__all__ = ["QUOTA_PAGE", "Refusal", "find_refusals", "location_hint", "recognise", "shorten"]

_LEFT_OUT = re.compile(
    r"(?:List of available regions|The available VM sizes are|The (?:valid )?sizes (?:available )?in the current region"
    r"|If you want to increase the quota"
    r"|For more details,? please|Please read more about|Submit a request for).*",
    re.S,
)
"""Advice and lists in Azure's texts. The hint and the attributes replace them. The SDK's exception keeps them."""

_MAX_CHARACTERS = 400
"""Maximum length in characters of Azure's text in a message. Some texts contain whole logs."""

_MAX_LEVELS = 8
"""Levels of nesting that are read. No response of Azure has more."""


def find_refusals(body: object, http_status: int | None = None) -> list[Refusal]:
    """Return every code and message in the body of a response, innermost first: it says most about the cause.

    Args:
        body: the parsed JSON of a response, or the text of an error.
        http_status: the HTTP status of the response.
    """
    found = [Refusal(code, message, http_status) for code, message in _pairs(body)]
    if isinstance(body, str) and body.strip():
        found.append(_written_out(body, http_status))
    return found


_LEADING_CODE = re.compile(r"\s{0,9}(?:ERROR: )?\((?P<code>[A-Za-z]\w{2,80})\)\s{1,9}")
_CODE_LINE = re.compile(r"\b(?:ERROR )?Code: (?P<code>[A-Za-z]\w{2,80})\b", re.I)
_REPEATED = re.compile(r"\s{1,9}Code: [A-Za-z]\w{2,80}\s{1,9}Message: ")


def _written_out(text: str, http_status: int | None) -> Refusal:
    """Return the code and message of an error as az writes it: ``(Code) message``, and a second time below it."""
    leading = _LEADING_CODE.match(text)
    named = leading or _CODE_LINE.search(text)
    code = named["code"] if named else ""
    message = text[leading.end() :] if leading else text
    repeated = _REPEATED.search(message)
    if repeated and leading:
        message = message[: repeated.start()]
    elif named and not leading and message[named.end() :].strip() == "":
        message = message[: named.start()]
    return Refusal(code, message.strip(), http_status)


def _pairs(value: object, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the codes and messages in a value, innermost first."""
    if depth > _MAX_LEVELS:
        return
    if isinstance(value, str):
        yield from _pairs_in_text(value, depth)
    elif isinstance(value, list):
        for item in value:
            yield from _pairs(item, depth + 1)
    elif isinstance(value, Mapping):
        for key in ("error", "details", "innererror", "statusMessage", "provisioningError", "errordetail"):
            yield from _pairs(value.get(key), depth + 1)
        code = value.get("code")
        message = value.get("message")
        if isinstance(code, str) or isinstance(message, str):
            text = str(message or "")
            yield from _pairs_in_text(text, depth)
            yield str(code or ""), text
        elif value.get("status") == "Canceled" and not value.get("error"):
            yield "Canceled", "the operation was canceled"


_GO_STYLE = re.compile(r'Code="(?P<code>\w+)"\s+Message="(?P<message>(?:[^"\\]|\\.)*)"')
"""An error in the form that Azure's programs in Go write into a message."""


def _pairs_in_text(text: str, depth: int) -> Iterator[tuple[str, str]]:
    yield from _pairs(_json_in(text), depth + 1)
    for found in _GO_STYLE.finditer(text):
        yield found["code"], found["message"].replace('\\"', '"').replace("\\n", "\n")
    _, has_details, details = text.partition("Exception Details:")
    if has_details:
        inner = _written_out(details, None)
        yield inner.code, inner.message


_MOST_BRACES = 5
"""Opening braces of a text that are tried as the beginning of JSON."""
_ESCAPED = (('\\"', '"'), ("\\r", " "), ("\\n", " "), ("\\t", " "))
"""What JSON that is quoted inside another text has instead of quotes and white space."""


def _json_in(text: str) -> object:
    """Return the first JSON object inside a text, which may be quoted; None if there is none."""
    quoted = text
    for escaped, character in _ESCAPED:
        quoted = quoted.replace(escaped, character)
    for candidate in dict.fromkeys((text, quoted)):
        start = -1
        for _ in range(_MOST_BRACES):
            start = candidate.find("{", start + 1)
            if start < 0 or '"' not in candidate[start:]:
                break
            try:
                return json.JSONDecoder().raw_decode(candidate, start)[0]
            except (ValueError, RecursionError):
                continue
    return None


_INTERNAL = re.compile(r"internal (?:server )?error", re.I)
"""A failure of Azure itself, whatever the status of the response."""


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
    folded = [Refusal(each.code, " ".join(each.message.split()), each.http_status) for each in refusals]
    for rule in RULES:
        for refusal in (*refusals, *folded):
            error = rule(refusal)
            if error is not None:
                return _complete(error, refusal, what, retry_after)
    # The outer codes of nested bodies, such as "the deployment failed", are too general.
    hint = "Correct the request according to Azure's message, then run the cell again."
    if http_status is None or http_status >= 500 or _INTERNAL.search(refusals[0].message):
        hint = "Run the cell again. If the error persists, see https://azure.status.microsoft for the state of Azure."
    return _complete(AzureError("", hint=hint), refusals[0], what, retry_after)


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
