"""Azure's long-running operations, followed in the caller's thread with progress and a timeout.

The SDK's own poller waits in a thread that cannot be interrupted and that outlives the notebook cell. Here the SDK
still decides what to poll and when, including after Retry-After. Only its sleep is replaced: the new one shows the
state, ends at the timeout and can be interrupted. An operation that still runs when its caller stops waiting is saved
in a file, from which a later call resumes it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError as SdkError
from azure.core.polling.base_polling import OperationFailed
from azure.mgmt.core.polling.arm_polling import ARMPolling

from aksgpu import errors
from aksgpu.azure import sdk_errors, throttling
from aksgpu.azure.azure_retry_policy import DeadlineRetryPolicy
from aksgpu.azure.saved_operation import SavedOperation

__all__ = ["CallerPolling", "follow"]

_STATES = {
    "DELETE": "Deleting",
    "stop": "Stopping",
    "start": "Starting",
    "abort": "Aborting",
}
"""States by the method of the request, or by the last segment of its path."""

_GONE = (404, 410)
"""HTTP statuses of an operation that Azure no longer knows."""


class CallerPolling(ARMPolling):  # type: ignore[misc]  # the SDK is not type-checked here
    """The SDK's polling of Resource Manager, run by :func:`follow` instead of by a thread of the SDK."""

    def __init__(self, interval: float) -> None:
        super().__init__(interval)
        self.pause: Callable[[float, str], None] = lambda seconds, _: time.sleep(seconds)

    def run(self) -> None:
        """Do nothing. The SDK calls this in a thread, which ends at once."""

    def state(self) -> str:
        """Return the state as AKS names it: ``Creating``, ``Updating``, ``Deleting``, ``Stopping`` ...

        Operations themselves only have ``InProgress``. The response that began the operation has the resource with its
        provisioning state. If that response has no body, the state follows from the request.
        """
        first = self._initial_response.http_response
        try:
            return str(json.loads(first.text())["properties"]["provisioningState"])
        except (ValueError, KeyError, TypeError):
            verb = first.request.method
            if verb == "POST":
                verb = urlsplit(first.request.url).path.rsplit("/", 1)[-1]
            return _STATES.get(verb, str(self.status()))

    def poll_to_end(self) -> Any:
        """Poll until the operation has ended, and return its result."""
        if not self.finished():
            # The SDK sends the first poll at once, even if the first response asks to wait.
            headers = self._initial_response.http_response.headers
            if headers.get("Retry-After") or headers.get("retry-after-ms"):
                self._delay()
            super().run()
        return self.resource()

    def request_status(self, status_link: str) -> Any:
        """Read the state of the operation. A throttled response does not end it."""
        while True:
            response = super().request_status(status_link)
            if response.http_response.status_code != 429:
                return response
            wait = throttling.retry_seconds(DeadlineRetryPolicy().get_retry_after(response))
            self.pause(wait, throttling.throttled_state(wait))

    def _sleep(self, delay: float) -> None:
        self.pause(delay, "")


def follow(
    poller: Any,
    what: str,
    *,
    saved: SavedOperation | None = None,
    detail: Callable[[], str] | None = None,
) -> Any:
    """Follow an operation until it ends or the time of the call is up.

    Args:
        poller: the result of a ``begin_...`` call with ``polling=CallerPolling(...)``.
        what: what is being done, such as ``creating cluster myAKSCluster``.
        saved: where the operation is saved while it runs.
        detail: returns a description of what is not ready yet. It is called once per poll, and only if a bar shows it.

    Returns:
        The operation's result as the SDK's model; None if it has none.

    Raises:
        AzureError: the operation failed; the subclass says why.
        WaitTimeout: the time of the call is up; the operation continues in Azure.
    """
    polling: CallerPolling = poller.polling_method()
    if saved is not None and not polling.finished():
        saved.save(what, polling.get_continuation_token())
    with throttling.progress_bar(what) as bar:

        def pause(seconds: float, reason: str) -> None:
            # While Azure throttles, the detail is left out: it would need a request.
            missing = detail() if detail is not None and bar.shown and not reason else ""
            state = ", ".join(filter(None, (polling.state(), missing, reason)))
            _pause(bar, what, state, seconds)

        polling.pause = pause
        try:
            result = polling.poll_to_end()
        except SdkError as error:
            if saved is not None and _has_ended(error):
                saved.delete()
            translated = sdk_errors.translate(error, what)
            raise translated from (None if translated.original else error)
    if saved is not None:
        saved.delete()
    return result


def _pause(bar: Any, what: str, state: str, seconds: float) -> None:
    """Sleep while the bar shows the state. Raise WaitTimeout when the time of the call is up."""
    call = throttling.current()
    until = time.monotonic() + seconds
    while True:
        left = until - time.monotonic()
        if left <= 0:
            return
        if call.left <= 0:
            raise errors.WaitTimeout(
                f"{what}: not done after {call.seconds:g} s; last state: {state}",
                state=state,
                timeout=call.seconds,
                hint="The operation continues in Azure. Run the cell again to continue waiting.",
            )
        bar.say(state)
        time.sleep(min(throttling.STEP, left, call.left))


def _has_ended(error: SdkError) -> bool:
    """Return whether the operation has failed or is unknown. After any other error it still runs."""
    http_status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(error.__cause__, OperationFailed) or http_status in _GONE
