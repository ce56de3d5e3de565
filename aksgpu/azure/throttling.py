"""The time limit of a call, its progress, and the safe repetition of writes.

:func:`limit` sets the deadline of a call. :class:`aksgpu.azure.azure_retry_policy.DeadlineRetryPolicy` repeats requests
until then. :func:`until_settled` reads a resource before it sends a write again.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from aksgpu.errors import AzureError, AzureUnreachable, Throttled
from aksgpu.progress import Progress
from aksgpu.waiting import Timeout, check_timeout, deadline, time_left

__all__ = [
    "READ_TIMEOUT",
    "STEP",
    "TRANSIENT",
    "Limit",
    "backoff",
    "current",
    "limit",
    "pause",
    "progress_bar",
    "retry_seconds",
    "settling",
    "shown_bar",
    "throttled_state",
    "until_settled",
]

T = TypeVar("T")

READ_TIMEOUT = 60.0
"""Default timeout in seconds of a call that only reads."""

STEP = 0.5
"""Seconds between two updates of the progress bar during a pause."""

TRANSIENT = frozenset({408, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed later."""

_FIRST_READ = 1.0
"""Seconds until a resource is read for the first time during a long pause."""

_DEFAULT_RETRY_AFTER = 10.0
"""Seconds to wait after 429 if the response has no Retry-After."""

_FIRST_PAUSE = 0.2
"""Seconds before the second attempt."""

_LONGEST_PAUSE = 10.0
"""Longest pause in seconds between two attempts."""

_MAX_DOUBLINGS = 10
"""Maximum number of times that a pause is doubled."""


@dataclass(frozen=True)
class Limit:
    """The time limit of a call.

    Attributes:
        what: what is being done, for progress.
        started: when the call began, in seconds of the monotonic clock.
        deadline: when it ends, on the same clock; infinite for no limit.
        progress: False hides the progress bar; None reads ``AKSGPU_PROGRESS``.
        running: descriptions of the operations that the call began or waits for. They continue without the call.
    """

    what: str
    started: float
    deadline: float
    progress: bool | None = None
    running: list[str] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Seconds left; 0 if the time is up."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def spent(self) -> float:
        """Seconds since the call began."""
        return time.monotonic() - self.started

    @property
    def seconds(self) -> float:
        """Seconds of the whole call."""
        return self.deadline - self.started


_limit: ContextVar[Limit | None] = ContextVar("aksgpu_azure_limit", default=None)

shown_bar: ContextVar[Progress | None] = ContextVar("aksgpu_azure_bar", default=None)
"""The progress bar that is shown at present."""

settling: ContextVar[bool] = ContextVar("aksgpu_azure_settling", default=False)
"""Whether :func:`until_settled` handles the failures of the current write."""


def current() -> Limit:
    """Return the limit of the current call; outside of calls, a new one of :data:`READ_TIMEOUT` seconds."""
    found = _limit.get()
    if found is not None:
        return found
    left = time_left()
    now = time.monotonic()
    return Limit("", now, now + (READ_TIMEOUT if left is None else left))


@contextmanager
def limit(timeout: Timeout, what: str = "", progress: bool | None = None) -> Iterator[Limit]:
    """Limit the time of all requests in the ``with`` block, including those to Kubernetes.

    With nested limits, the earliest deadline applies.

    Args:
        timeout: seconds, or text such as ``"2h"``; None for no limit.
        what: what is being done, for progress.
        progress: False hides the progress bar; None reads ``AKSGPU_PROGRESS``.
    """
    outer = _limit.get()
    if outer is not None:
        progress = outer.progress if progress is None else progress
        what = what or outer.what
    with deadline(check_timeout(timeout)):
        left = time_left()
        now = time.monotonic()
        running = outer.running if outer is not None else []
        inner = Limit(what, now, math.inf if left is None else now + left, progress, running)
        token = _limit.set(inner)
        try:
            yield inner
        finally:
            _limit.reset(token)


@contextmanager
def progress_bar(what: str) -> Iterator[Progress]:
    """Show a progress bar, which the pauses between attempts of a request use too."""
    with Progress(what, show=current().progress) as bar:
        token = shown_bar.set(bar)
        try:
            yield bar
        finally:
            shown_bar.reset(token)


def backoff(attempt: int) -> float:
    """Return the seconds until the next attempt. They are random, so that many callers do not retry at once."""
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempt, _MAX_DOUBLINGS))
    return longest * random.uniform(0.5, 1.0)


def retry_seconds(retry_after: float | None) -> float:
    """Return how long to wait after a throttled response with this Retry-After, or without one."""
    return retry_after or _DEFAULT_RETRY_AFTER


def throttled_state(wait: float) -> str:
    """Return the text that the progress bar shows during this wait."""
    return f"Azure asks to wait {wait:g} s"


def pause(bar: Progress, state: str, length: float) -> None:
    """Sleep for a number of seconds while the bar shows a state."""
    until = time.monotonic() + length
    while True:
        left = until - time.monotonic()
        if left <= 0:
            return
        bar.say(state)
        time.sleep(min(STEP, left))


def _may_have_arrived(error: AzureError) -> bool:
    """Return whether a write that failed with this error may have been carried out."""
    if type(error) not in (AzureError, AzureUnreachable):
        return False  # a refusal with a specific reason
    return error.http_status is None or error.http_status in TRANSIENT


def until_settled(send: Callable[[], T], read: Callable[[], T | None], what: str) -> T:
    """Send a write, and read the resource before sending the write again.

    A write is sent again if its response was lost, or if Azure asks to wait. In the meantime another caller may have
    made the same change. A write that is not needed would use up part of the quota of requests that all callers
    share.

    Args:
        send: sends the write.
        read: returns the write's result if the resource has it already; None if the write has to be sent again.
        what: what is being done, for progress.

    Raises:
        AzureError: Azure refused, or the time is up.
    """
    call = current()
    call.running.append(what)
    attempt = 0
    while True:
        try:
            with _settling():
                return send()
        except Throttled as throttled:
            wait = retry_seconds(throttled.retry_after)
            state = throttled_state(wait)
            if call.left <= wait:
                raise
        except AzureError as error:
            wait = backoff(attempt)
            state = error.message
            if not _may_have_arrived(error) or call.left <= wait:
                raise
        attempt += 1
        found = _read_during_pause(read, what, state, wait)
        if found is not None:
            return found


def _read_during_pause(read: Callable[[], T | None], what: str, state: str, wait: float) -> T | None:
    """Read the resource at growing intervals until it has the result or the pause is over."""
    until = time.monotonic() + wait
    interval = _FIRST_READ
    with progress_bar(what) as bar:
        while True:
            left = max(0.0, until - time.monotonic())
            pause(bar, state, min(interval * random.uniform(0.5, 1.0), left))
            found = read()
            if found is not None or time.monotonic() >= until:
                return found
            interval = min(2 * interval, _LONGEST_PAUSE)


@contextmanager
def _settling() -> Iterator[None]:
    token = settling.set(True)
    try:
        yield
    finally:
        settling.reset(token)
