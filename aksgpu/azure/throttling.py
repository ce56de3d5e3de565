"""How long a call goes on trying, what it shows meanwhile, and how a write is settled whose answer was lost.

:func:`limit` sets the end of a call. :class:`aksgpu.azure.azure_retry_policy.Retries` sends requests until then.
:func:`until_settled` looks at a resource before it sends a write again.
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
from aksgpu.waiting import deadline, time_left

T = TypeVar("T")

READ_TIMEOUT = 60.0
"""Seconds that a call goes on trying that only reads."""

STEP = 0.5
"""Seconds between two looks at the clock in a pause, so that the bar's clock runs."""

PASSING = frozenset({408, 500, 502, 503, 504})
"""HTTP statuses of a server that may answer otherwise in a while."""

_FIRST_LOOK = 1.0
"""Seconds until the first look at a resource in a longer pause."""

_UNSAID = 10.0
"""Seconds to wait after 429 where Azure does not say."""

_FIRST_PAUSE = 0.2
"""Seconds before the second attempt."""

_LONGEST_PAUSE = 10.0
"""Seconds between two attempts at most."""


@dataclass(frozen=True)
class Limit:
    """The end of a call.

    Attributes:
        what: what is being done, for progress.
        begun: when the call began, in seconds of the monotonic clock.
        deadline: when it ends, on the same clock; infinite for no limit.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.
        running: what the call sent to Azure or waits for there, which goes on without it.
    """

    what: str
    begun: float
    deadline: float
    progress: bool | None = None
    running: list[str] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Seconds that are left; 0 when none are."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def spent(self) -> float:
        """Seconds since the call began."""
        return time.monotonic() - self.begun

    @property
    def seconds(self) -> float:
        """Seconds of the whole call."""
        return self.deadline - self.begun


_limit: ContextVar[Limit | None] = ContextVar("aksgpu_azure_limit", default=None)
shown_bar: ContextVar[Progress | None] = ContextVar("aksgpu_azure_bar", default=None)

settling: ContextVar[bool] = ContextVar("aksgpu_azure_settling", default=False)
"""Whether the write that is sent is settled by :func:`until_settled`."""


def current() -> Limit:
    """The limit of the call that runs; a new one of :data:`READ_TIMEOUT` seconds outside of any."""
    found = _limit.get()
    if found is not None:
        return found
    left = time_left()
    now = time.monotonic()
    return Limit("", now, now + (READ_TIMEOUT if left is None else left))


@contextmanager
def limit(timeout: float | None, what: str = "", progress: bool | None = None) -> Iterator[Limit]:
    """Within it, requests are tried until the time is up, those to Kubernetes as well. The earliest of several counts.

    Args:
        timeout: seconds; None for no limit.
        what: what is being done, for progress.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.
    """
    outer = _limit.get()
    progress = outer.progress if progress is None and outer is not None else progress
    what = what or (outer.what if outer is not None else "")
    with deadline(timeout):
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
def waiting(what: str) -> Iterator[Progress]:
    """A progress bar, which pauses between attempts of a request use as well."""
    with Progress(what, show=current().progress) as bar:
        token = shown_bar.set(bar)
        try:
            yield bar
        finally:
            shown_bar.reset(token)


def backoff(attempt: int) -> float:
    """Seconds until the next attempt; at random, so that many callers do not come at once."""
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempt, 10))
    return longest * random.uniform(0.5, 1.0)


def seconds(asked: float | None) -> float:
    """How long to wait after a throttled answer that asks for this, or says nothing."""
    return asked if asked else _UNSAID


def words(asked: float) -> str:
    """The same for the bar."""
    return f"Azure asks to wait {asked:g} s"


def pause(bar: Progress, state: str, length: float) -> None:
    """Sleep, while the bar shows the state."""
    until = time.monotonic() + length
    while (left := until - time.monotonic()) > 0:
        bar.say(state)
        time.sleep(min(STEP, left))


def uncertain(error: AzureError) -> bool:
    """Whether nobody knows if the write arrived that failed so."""
    if type(error) not in (AzureError, AzureUnreachable):
        return False  # a refusal with a reason of its own
    return error.status is None or error.status in PASSING


def until_settled(send: Callable[[], T], look: Callable[[], T | None], what: str) -> T:
    """Send a write, and look at the resource before sending it again.

    It is sent again where its answer was lost, and where Azure asks to wait: meanwhile another caller may have done the
    same, and a request that is not needed would use up what Azure grants to all.

    Args:
        send: sends the write.
        look: returns what the write was to give if it is there, and None where it has to be sent again.
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
        except Throttled as slow:
            wait = seconds(slow.retry_after)
            state = words(wait)
            if call.left <= wait:
                raise
        except AzureError as lost:
            wait = backoff(attempt)
            state = lost.message
            if not uncertain(lost) or call.left <= wait:
                raise
        attempt += 1
        found = _look_while_waiting(look, what, state, wait)
        if found is not None:
            return found


def _look_while_waiting(look: Callable[[], T | None], what: str, state: str, wait: float) -> T | None:
    """Look again and again, less and less often, until the pause is over."""
    until = time.monotonic() + wait
    interval = _FIRST_LOOK
    with waiting(what) as bar:
        while True:
            pause(bar, state, min(interval * random.uniform(0.5, 1.0), max(0.0, until - time.monotonic())))
            found = look()
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
