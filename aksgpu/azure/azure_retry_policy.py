"""Which answers of Azure are worth another try: the retry policy of every request that the SDK sends.

A request is tried until the end of its call, and the socket gets the time that is left. The SDK's own policy counts
attempts and leaves the socket's read timeout at five minutes, so its loop is replaced. Its reading of ``Retry-After``
is kept.

A read is sent again after any failure that may pass. A write is sent again here only where Azure did not process it:
after one 401, and after 429. :func:`aksgpu.azure.throttling.until_settled` settles the other failures of a write.
"""

from __future__ import annotations

import json
import ssl
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError as SdkError
from azure.core.exceptions import ClientAuthenticationError, IncompleteReadError, ServiceResponseError
from azure.core.pipeline.policies import RetryPolicy

from aksgpu.azure import resource_names
from aksgpu.azure.throttling import (
    PASSING,
    Limit,
    backoff,
    current,
    pause,
    seconds,
    settling,
    shown_bar,
    waiting,
    words,
)
from aksgpu.common import connection_errors

_CONNECT = 10.0
"""Seconds for a connection at most."""

_SHORTEST_ANSWER = 2.0
"""Seconds that an answer may take at least, where so many are left."""

_LONGEST_READ = 30.0
"""Seconds that the answer to a read may take at first; a second attempt has twice as many."""

_LONGEST_WRITE = 100.0
"""Seconds that the answer to a write may take: AKS looks at quota and capacity before it answers."""

_LAST_ATTEMPT = 1.0
"""Seconds of an attempt that begins when no time is left."""

_ATTEMPTS = 3
"""Attempts that a call's time has room for when no answer comes at all."""

_AS_ASKED = 6
"""Attempts after which a pause grows although Azure asks for a short one."""

_SHOWN = 200
"""Characters of an answer that an error shows."""


class NoAnswer(ServiceResponseError):  # type: ignore[misc]  # the SDK is not type-checked here
    """A request was tried until the time was up.

    Attributes:
        request: the request.
        answer: the last answer in words; empty when none came.
        status: HTTP status of the last answer; None when none came.
        seconds: how long the call went on.
    """

    def __init__(self, request: Any, answer: str, status: int | None, seconds: float, error: Exception | None) -> None:
        super().__init__(answer or str(error), error=error)
        self.request = request
        self.answer = answer
        self.status = status
        self.seconds = seconds


@dataclass(frozen=True)
class _Failure:
    """An attempt whose answer cannot be used, and which may be made again.

    Attributes:
        words: what came, for the bar and the error.
        pause: seconds until the next attempt.
        status: HTTP status; None when no answer came.
        error: the exception; None when an answer came.
        response: the answer; None when none came, or when its body cannot be used.
    """

    words: str
    pause: float
    status: int | None = None
    error: Exception | None = None
    response: Any = None


class Retries(RetryPolicy):  # type: ignore[misc]  # the SDK is not type-checked here
    """Send a request until its answer can be used or the call's time is up."""

    def send(self, request: Any) -> Any:
        """Send a request; see the class.

        Raises:
            NoAnswer: the time is up, and the last attempt gave nothing to go on with.
        """
        resource_names.check_path(urlsplit(str(request.http_request.url)).path)
        call = current()
        reads = _reads(request.http_request)
        attempt = 0
        unauthorized = 0
        with ExitStack() as bars:
            while True:
                _bound(request, call, reads, attempt)
                outcome = self._attempt(request, reads, attempt)
                attempt += 1
                if not isinstance(outcome, _Failure):
                    return outcome
                unauthorized += outcome.status == 401
                final = outcome.status in (401, 429) and (unauthorized > 1 or outcome.pause >= call.left)
                if final:
                    return outcome.response  # Azure's own words say it best
                if call.left <= 0 or (outcome.status is not None and outcome.pause >= call.left):
                    answer = "" if outcome.error else outcome.words
                    raise NoAnswer(request.http_request, answer, outcome.status, call.spent, outcome.error)
                bar = shown_bar.get() or bars.enter_context(waiting(call.what or "waiting for Azure"))
                pause(bar, outcome.words, min(outcome.pause, call.left))

    def _attempt(self, request: Any, reads: bool, attempt: int) -> Any:
        """Send once. Returns the answer, or a :class:`_Failure` where another attempt makes sense."""
        wait = backoff(attempt)
        try:
            response = self.next.send(request)
            _load(response.http_response)
        except ClientAuthenticationError:
            raise
        except (SdkError, OSError) as error:  # requests' exceptions are OSErrors: those of bodies come untranslated
            if not reads or _permanent(error):
                raise _translated(error) from error.__cause__
            return _Failure(f"no answer ({connection_errors.reason(error)})", wait, error=error)
        status = int(response.http_response.status_code)
        asked = self.get_retry_after(response)
        if status == 401:
            return _Failure("Azure asks for a new login", 0.0, status, response=response)
        if status == 429 and (reads or not settling.get()):
            asked = seconds(asked)
            at_least = backoff(attempt - _AS_ASKED) if attempt > _AS_ASKED else 0.0
            return _Failure(words(asked), max(asked, at_least), status, response=response)
        if status in PASSING and reads:
            return _Failure(_answer(response.http_response), max(wait, asked or 0.0), status, response=response)
        if status < 300 and not _complete(response.http_response, reads):
            if not reads:
                raise IncompleteReadError(f"the answer with status {status} was cut off")
            return _Failure(f"an answer with status {status} that was cut off", wait, status)
        return response


def _reads(request: Any) -> bool:
    """Whether a request changes nothing. Credentials are read with POST."""
    last = urlsplit(str(request.url)).path.rsplit("/", 1)[-1]
    return request.method in ("GET", "HEAD") or (request.method == "POST" and last.startswith("list"))


def _bound(request: Any, call: Limit, reads: bool, attempt: int) -> None:
    """Give the call's time to the socket. Several attempts fit into it, as long as an answer may take a while."""
    left = max(_LAST_ATTEMPT, call.left)
    longest = _LONGEST_READ if reads else _LONGEST_WRITE
    share = min(longest, call.seconds / _ATTEMPTS) * 2 ** min(attempt, 10)
    request.context.options["connection_timeout"] = min(left, _CONNECT)
    request.context.options["read_timeout"] = min(left, max(_SHORTEST_ANSWER, share))


def _load(response: Any) -> None:
    """Read the body of an answer that the SDK takes as a stream, so that a cut one is met here."""
    if hasattr(response, "read") and not getattr(response, "is_closed", False):
        response.read()


def _translated(error: Exception) -> Exception:
    """The failure as one of the SDK's exceptions."""
    known: Exception = error if isinstance(error, SdkError) else ServiceResponseError(str(error), error=error)
    return known


def _permanent(error: BaseException) -> bool:
    """Whether another attempt would fail in the same way: the server shows a certificate that is not trusted."""
    return any(isinstance(each, ssl.SSLCertVerificationError) for each in connection_errors.chain(error))


def _complete(response: Any, reads: bool) -> bool:
    """Whether the body is the JSON that Azure sends. Only the results of operations and some writes have none."""
    text = response.text()
    if not text.strip():
        if response.status_code != 200:
            return True
        path = urlsplit(str(response.request.url)).path.lower()
        return "/operationresults/" in path or not (reads or response.request.method == "PUT")
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _answer(response: Any) -> str:
    """An answer in words, for the bar and the error."""
    text = " ".join(str(response.text()).split())
    try:
        error = json.loads(text)["error"]
        text = f"{error['message']} ({error['code']})"
    except (ValueError, KeyError, TypeError):
        pass  # a gateway's words, which are no JSON of Azure's
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}..."
    return f"HTTP {response.status_code} {response.reason or ''}".strip() + (f": {text}" if text else "")
