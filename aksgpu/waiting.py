"""One way to wait: with progress, a timeout and a reason.

Every wait of the library goes through :func:`wait_until`. Its progress is shown by :class:`aksgpu.progress.Progress`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from aksgpu.errors import WaitTimeout
from aksgpu.progress import Progress

T = TypeVar("T")


def wait_until(
    poll: Callable[[], tuple[T | None, str]],
    what: str,
    *,
    timeout: float,
    interval: float = 0.5,
    progress: bool | None = None,
    hint: str = "",
) -> T:
    """Call ``poll`` until it gives a result, and return that.

    Args:
        poll: returns ``(result, state)``: None as result means "not yet"; state says in words how things stand.
        what: what is waited for; begins the bar and the error.
        timeout: seconds before :class:`~aksgpu.errors.WaitTimeout` is raised. ``poll`` is called at least once.
        interval: seconds between two calls of ``poll``.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.
        hint: what to do when time runs out.

    Raises:
        WaitTimeout: with the last state seen.
    """
    deadline = time.monotonic() + timeout
    with Progress(what, show=progress) as bar:
        while True:
            result, state = poll()
            if result is not None:
                return result
            bar.say(state)
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeout(
                    f"{what}: not done after {timeout:g} s; last state: {state}",
                    state=state,
                    timeout=timeout,
                    hint=hint,
                )
            time.sleep(min(interval, left))
