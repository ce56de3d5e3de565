"""Azure's long-running operations, followed in the caller's thread: with progress, a timeout, and a way to go on later.

The SDK's own poller waits in a thread that nobody can interrupt and that outlives the cell. Here the SDK still decides
what is polled and when (Retry-After included); only its sleeping is replaced, so that the state is shown in words,
time can run out and an interrupt arrives. An operation that is still running when its caller goes away is remembered in
a file, and the same call finds it there.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError as SdkError
from azure.core.polling.base_polling import OperationFailed
from azure.mgmt.core.polling.arm_polling import ARMPolling

from aksgpu import errors
from aksgpu.azure import error_parsing, throttling
from aksgpu.azure.azure_retry_policy import Retries
from aksgpu.common.private_files import write_private

_DOING = {"DELETE": "Deleting", "stop": "Stopping", "start": "Starting", "abort": "Aborting"}
_GONE = (404, 410)


class Following(ARMPolling):  # type: ignore[misc]  # the SDK is not type-checked here
    """The SDK's polling of Azure Resource Manager, run by :func:`follow` instead of by a thread of its own."""

    def __init__(self, interval: float) -> None:
        super().__init__(interval)
        self.pause: Callable[[float, str], None] = lambda seconds, _: time.sleep(seconds)

    def run(self) -> None:
        """Nothing: the SDK calls this in a thread, which so ends at once."""

    def words(self) -> str:
        """What goes on, as AKS calls it: ``Creating``, ``Updating``, ``Deleting``, ``Stopping`` ...

        Operations only say ``InProgress``. The answer that began one shows the resource with its provisioning state,
        where it has a body; without one, the request tells.
        """
        first = self._initial_response.http_response
        try:
            return str(json.loads(first.text())["properties"]["provisioningState"])
        except (ValueError, KeyError, TypeError):
            verb = first.request.method if first.request.method != "POST" else urlsplit(first.request.url).path
            return _DOING.get(verb.rsplit("/", 1)[-1], str(self.status()))

    def follow(self) -> Any:
        """Poll until the operation has ended, and give its result."""
        if not self.finished():
            # The SDK asks for the first time at once, whatever the answer that began the operation says.
            headers = self._initial_response.http_response.headers
            if headers.get("Retry-After") or headers.get("retry-after-ms"):
                self._delay()
            super().run()
        return self.resource()

    def request_status(self, status_link: str) -> Any:
        """Ask for its state. An answer that asks to wait says nothing about the operation, and does not end it."""
        while True:
            answer = super().request_status(status_link)
            if answer.http_response.status_code != 429:
                return answer
            wait = throttling.seconds(Retries().get_retry_after(answer))
            self.pause(wait, throttling.words(wait))

    def _sleep(self, delay: float) -> None:
        self.pause(delay, "")


class Remembered:
    """The continuation token of one resource's running operation, in a file of the user's data directory.

    Args:
        home: the user's data directory.
        resource: id of the resource, case ignored as Azure does.
    """

    def __init__(self, home: Path, resource: str) -> None:
        digest = hashlib.sha256(resource.lower().encode()).hexdigest()[:16]
        self.path = home / "operations" / f"{resource.rsplit('/', 1)[-1]}-{digest}.json"

    def save(self, what: str, token: str) -> None:
        """Keep a token."""
        write_private(self.path, json.dumps({"what": what, "token": token}))

    def load(self, what: str) -> str | None:
        """The token kept for the same thing, or None."""
        try:
            kept = json.loads(self.path.read_text())
            return str(kept["token"]) if kept["what"] == what else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # none kept, or a file cut short by a crash: the resource itself tells its state

    def forget(self) -> None:
        """Drop it."""
        self.path.unlink(missing_ok=True)


def follow(
    poller: Any,
    what: str,
    *,
    remember: Remembered | None = None,
    look: Callable[[], str] | None = None,
) -> Any:
    """Follow an operation to its end, or to the end of the call.

    Args:
        poller: what a ``begin_...`` call with ``polling=Following(...)`` returned.
        what: what is going on, such as ``creating cluster myAKSCluster``.
        remember: where the operation is kept while it runs.
        look: tells what is still waited for, in words. Called once a poll, so no faster than Azure asks for, and only
            where there is a bar to show it.

    Returns:
        The operation's result as the SDK's model, or None where it has none.

    Raises:
        AzureError: the subclass for the reason why the operation failed.
        WaitTimeout: the call's time is up; the operation goes on in Azure.
    """
    polling: Following = poller.polling_method()
    call = throttling.current()
    if remember and not polling.finished():
        remember.save(what, polling.get_continuation_token())
    with throttling.waiting(what) as bar:

        def pause(seconds: float, why: str) -> None:
            until = time.monotonic() + seconds
            missing = look() if look and bar.shown and not why else ""  # no more requests when there are too many
            state = ", ".join(filter(None, (polling.words(), missing, why)))
            while (left := until - time.monotonic()) > 0:
                if call.left <= 0:
                    raise errors.WaitTimeout(
                        f"{what}: not done after {call.seconds:g} s; last state: {state}",
                        state=state,
                        timeout=call.seconds,
                        hint="The operation goes on in Azure: run the cell again to go on waiting.",
                    )
                bar.say(state)
                time.sleep(min(throttling.STEP, left, call.left))

        polling.pause = pause
        try:
            result = polling.follow()
        except SdkError as error:
            if remember and _ended(error):
                remember.forget()
            found = error_parsing.translate(error, what)
            raise found from (None if found.original else error)
    if remember:
        remember.forget()
    return result


def _ended(error: SdkError) -> bool:
    """Whether the operation itself has ended or is gone; any other refusal leaves it running."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(error.__cause__, OperationFailed) or status in _GONE
