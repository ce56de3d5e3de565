"""What to do when Azure asks to slow down (429): wait as long as it says, where somebody is waiting anyway.

The SDK repeats a throttled request a few times, asleep for as long as Azure says, and then gives up. That suits a short
read. A wait for an operation has a deadline and a bar instead: within :func:`patient` the SDK gives throttled answers
back at once, and whoever waits does so himself. What is waited for is not known here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from azure.core.pipeline.policies import RetryPolicy

from aksgpu.errors import Throttled
from aksgpu.progress import Progress

T = TypeVar("T")

STEP = 0.5
"""Seconds between two looks at the clock in a pause, so that the bar's clock runs."""
_UNSAID = 10.0  # seconds to wait where Azure does not say
_patient: ContextVar[bool] = ContextVar("aksgpu_patient", default=False)


class Retries(RetryPolicy):  # type: ignore[misc]  # the SDK is not type-checked here
    """The SDK's retries, without those of throttled requests within :func:`patient`."""

    def is_retry(self, settings: dict[str, Any], response: Any) -> bool:
        """Whether the SDK sends the request again."""
        if response.http_response.status_code == 429 and _patient.get():
            return False
        return bool(super().is_retry(settings, response))


@contextmanager
def patient() -> Iterator[None]:
    """Within it, a throttled answer arrives at once, and its reader waits."""
    before = _patient.set(True)
    try:
        yield
    finally:
        _patient.reset(before)


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


def patiently(call: Callable[[], T], what: str, *, deadline: float, progress: bool | None) -> T:
    """Call until the answer is not that Azure is asked too much.

    Args:
        call: sends one request.
        what: what is being done, for progress.
        deadline: end of the wait, in seconds of the monotonic clock.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.

    Raises:
        Throttled: Azure asks to wait beyond the deadline.
    """
    bar: Progress | None = None
    with ExitStack() as open_bars:
        while True:
            try:
                with patient():
                    return call()
            except Throttled as slow:
                wait = seconds(slow.retry_after)
                if time.monotonic() + wait > deadline:
                    raise
            bar = bar or open_bars.enter_context(Progress(what, show=progress))
            pause(bar, words(wait), wait)
