"""The retry policy of every request that the SDK sends to Azure.

A request is repeated until the deadline of its call, and each attempt gets a share of the time that is left. The SDK's
own policy counts attempts and leaves the socket's read timeout at five minutes, so its loop is replaced. Its parser of
``Retry-After`` is used.

A read is repeated after any transient failure. A write is repeated here only if Azure did not process it: after one
401, and after 429. :func:`aksgpu.azure.throttling.until_settled` handles the other failures of a write.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from azure.core.exceptions import AzureError as SdkError
from azure.core.exceptions import ClientAuthenticationError, IncompleteReadError, ServiceResponseError
from azure.core.pipeline.policies import RetryPolicy

from aksgpu.azure import resource_names
from aksgpu.azure.deadline_transport import LAST_ATTEMPT
from aksgpu.azure.sdk_errors import ForeignResponse, NoUsableResponse
from aksgpu.azure.throttling import (
    TRANSIENT,
    Limit,
    backoff,
    current,
    pause,
    progress_bar,
    retry_seconds,
    settling,
    shown_bar,
    throttled_state,
)
from aksgpu.common import connection_errors

__all__ = ["DeadlineRetryPolicy"]

_CONNECT_TIMEOUT = 10.0
"""Longest time in seconds for a connection."""

_SHORTEST_RESPONSE = 2.0
"""Shortest read timeout in seconds, if that much time is left."""

_LONGEST_READ = 30.0
"""Longest read timeout in seconds of the first attempt of a read. Each further attempt doubles it."""

_LONGEST_WRITE = 100.0
"""Longest read timeout in seconds of a write. AKS checks quota and capacity before it responds."""

_ATTEMPTS = 3
"""Number of attempts that fit into the time of a call if no response arrives."""

_ATTEMPTS_BEFORE_BACKOFF = 6
"""Number of attempts after which a pause grows even if Azure asks for a short one."""

_MAX_DOUBLINGS = 10
"""Maximum number of times that a read timeout is doubled."""

_REDIRECTS = (301, 302, 303, 307, 308)
"""HTTP statuses of redirects."""

_MAX_CHARACTERS = 200
"""Characters of a response that an error shows."""


@dataclass(frozen=True)
class _Failure:
    """An attempt without a usable response, which may be repeated.

    Attributes:
        state: what happened, for the bar and the error.
        pause: seconds until the next attempt.
        http_status: HTTP status; None if there was no response.
        error: the exception; None if there was a response.
        response: the response; None if there was none, or if its body cannot be used.
    """

    state: str
    pause: float
    http_status: int | None = None
    error: Exception | None = None
    response: Any = None


class DeadlineRetryPolicy(RetryPolicy):  # type: ignore[misc]  # the SDK is not type-checked here
    """Sends a request until its response is usable or the time of the call is up."""

    def send(self, request: Any) -> Any:
        """Send a request, and repeat it after transient failures.

        Raises:
            NoUsableResponse: the time is up.
        """
        resource_names.check_path(urlsplit(str(request.http_request.url)).path)
        call = current()
        is_read = _is_read(request.http_request)
        attempt = 0
        unauthorized = 0
        with ExitStack() as bars:
            while True:
                _set_timeouts(request, call, is_read, attempt)
                outcome = self._attempt(request, is_read, attempt)
                attempt += 1
                if not isinstance(outcome, _Failure):
                    return outcome
                is_too_long = outcome.pause >= call.left
                if outcome.http_status == 401:
                    unauthorized += 1
                if outcome.http_status in (401, 429) and (unauthorized > 1 or is_too_long):
                    return outcome.response  # the SDK raises an exception with Azure's own text
                if call.left <= 0 or (outcome.http_status is not None and is_too_long):
                    last_response = "" if outcome.error else outcome.state
                    raise NoUsableResponse(
                        request.http_request, last_response, outcome.http_status, call.spent, outcome.error
                    )
                bar = shown_bar.get() or bars.enter_context(progress_bar(call.what or "waiting for Azure"))
                pause(bar, outcome.state, min(outcome.pause, call.left))

    def _attempt(self, request: Any, is_read: bool, attempt: int) -> Any:
        """Send a request once. Return the response, or a :class:`_Failure` if the request may be repeated."""
        wait = backoff(attempt)
        try:
            response = self.next.send(request)
            _read_body(response.http_response)
        except ClientAuthenticationError:
            raise
        except (SdkError, OSError) as error:  # the SDK does not translate requests' errors of bodies; they are OSErrors
            if not is_read or connection_errors.permanent(error):
                raise _as_sdk_error(error) from error.__cause__
            return _Failure(f"no response ({connection_errors.reason(error)})", wait, error=error)
        return self._check(response, is_read, attempt, wait)

    def _check(self, response: Any, is_read: bool, attempt: int, wait: float) -> Any:
        """Return a response that is usable, or a :class:`_Failure`."""
        http_response = response.http_response
        http_status = int(http_response.status_code)
        other_host = _other_host(http_response)
        if other_host:
            raise ForeignResponse(f"it redirects to {other_host}")
        retry_after = self.get_retry_after(response)
        if http_status == 401:
            return _Failure("Azure requires a new login", 0.0, http_status, response=response)
        if http_status == 429 and (is_read or not settling.get()):
            requested = retry_seconds(retry_after)
            minimum = backoff(attempt - _ATTEMPTS_BEFORE_BACKOFF) if attempt > _ATTEMPTS_BEFORE_BACKOFF else 0.0
            return _Failure(throttled_state(requested), max(requested, minimum), http_status, response=response)
        if http_status in TRANSIENT and is_read:
            return _Failure(_describe(http_response), max(wait, retry_after or 0.0), http_status, response=response)
        if http_status < 300 or _is_json_refusal(http_response):
            return self._complete(response, is_read, wait)
        return response

    def _complete(self, response: Any, is_read: bool, wait: float) -> Any:
        """Return a response whose body is complete, or a :class:`_Failure`."""
        http_response = response.http_response
        http_status = int(http_response.status_code)
        if not _is_complete(http_response, is_read):
            if not is_read:
                raise IncompleteReadError(f"the response with status {http_status} was cut off")
            is_json = http_response.text().lstrip()[:1] in ("", "{", "[")
            problem = "was cut off" if is_json else "is not JSON"
            return _Failure(f"a response with status {http_status} that {problem}", wait, http_status)
        return response


def _other_host(response: Any) -> str:
    """Return the host to which a response redirects, if it is not the one that was asked; otherwise an empty text."""
    if response.status_code not in _REDIRECTS:
        return ""
    url = str(response.request.url)
    target = urlsplit(urljoin(url, response.headers.get("Location", "")))
    return target.netloc if target.netloc != urlsplit(url).netloc else ""


def _is_read(request: Any) -> bool:
    """Return whether a request changes nothing. Credentials are read with POST."""
    last_segment = urlsplit(str(request.url)).path.rsplit("/", 1)[-1]
    return request.method in ("GET", "HEAD") or (request.method == "POST" and last_segment.startswith("list"))


def _set_timeouts(request: Any, call: Limit, is_read: bool, attempt: int) -> None:
    """Set the timeouts of an attempt, so that several attempts fit into the time of the call."""
    left = max(LAST_ATTEMPT, call.left)
    longest = _LONGEST_READ if is_read else _LONGEST_WRITE
    share = min(longest, call.seconds / _ATTEMPTS) * 2 ** min(attempt, _MAX_DOUBLINGS)
    request.context.options["connection_timeout"] = min(left, _CONNECT_TIMEOUT)
    request.context.options["read_timeout"] = min(left, max(_SHORTEST_RESPONSE, share))


def _read_body(response: Any) -> None:
    """Read the body of a response that the SDK takes as a stream, so that a truncated body is detected here."""
    if hasattr(response, "read") and not getattr(response, "is_closed", False):
        response.read()


def _as_sdk_error(error: Exception) -> Exception:
    """Return the failure as one of the SDK's exceptions."""
    translated: Exception = error
    if not isinstance(error, SdkError):
        translated = ServiceResponseError(str(error), error=error)
    return translated


def _is_complete(response: Any, is_read: bool) -> bool:
    """Return whether the body is JSON, as Azure sends it. Results of operations and some writes have no body."""
    text = response.text()
    if not text.strip():
        if response.status_code != 200:
            return True
        path = urlsplit(str(response.request.url)).path.lower()
        return "/operationresults/" in path or not (is_read or response.request.method == "PUT")
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_json_refusal(response: Any) -> bool:
    """Return whether a response is a 404 in JSON. If it was cut off, it does not have Azure's error code."""
    return bool(response.status_code == 404 and response.text().lstrip().startswith("{"))


def _describe(response: Any) -> str:
    """Return a description of a response, for the bar and the error."""
    text = " ".join(str(response.text()).split())
    try:
        error = json.loads(text)["error"]
        text = f"{error['message']} ({error['code']})"
    except (ValueError, KeyError, TypeError):
        pass  # the text of a gateway, which is not Azure's JSON
    if len(text) > _MAX_CHARACTERS:
        text = f"{text[:_MAX_CHARACTERS]}..."
    status = f"HTTP {response.status_code} {response.reason or ''}".strip()
    return f"{status}: {text}" if text else status
