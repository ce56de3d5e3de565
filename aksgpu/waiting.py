"""Waits with progress and a timeout, and deadlines for requests.

Every wait of the library uses :func:`wait_until`. Its timeout also limits the requests that are sent during the wait
(see :func:`deadline`). :class:`aksgpu.progress.Progress` shows its progress.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from numbers import Real
from typing import Self, TypeVar

from aksgpu.common.arguments import shown
from aksgpu.errors import AzureUnreachable, InvalidInput, Unreachable, WaitTimeout
from aksgpu.progress import Progress

__all__ = [
    "NOTICE_AFTER",
    "Interrupted",
    "Notice",
    "Timeout",
    "Timer",
    "check_timeout",
    "deadline",
    "parse_duration",
    "pause",
    "time_left",
    "wait_until",
]

T = TypeVar("T")


def wait_until(
    poll: Callable[[], tuple[T | None, str]],
    what: str,
    *,
    timeout: Timeout | Timer,
    interval: float = 0.5,
    progress: bool | None = None,
    hint: str = "",
    on_interrupt: str = "",
) -> T:
    """Call ``poll`` until it returns a result, and return the result.

    The wait continues if ``poll`` raises Unreachable or AzureUnreachable. The requests that ``poll`` sends end in time,
    because the timeout is their deadline.

    Args:
        poll: returns ``(result, state)``. A result of None means "not yet"; state describes the situation.
        what: what the wait is for; the first words of the progress bar and of the error.
        timeout: seconds, or text such as ``"2h"``; None means no limit. A :class:`Timer` that already runs is shared
            with the steps before this one. ``poll`` is called at least once.
        interval: seconds between two calls of ``poll``.
        progress: False hides the progress bar; None reads ``AKSGPU_PROGRESS``.
        hint: what to do when the time runs out.
        on_interrupt: added to the message when the user interrupts the wait, such as "The Job continues."

    Raises:
        InvalidInput: the timeout is neither a number of seconds nor a duration such as ``"2h"``.
        WaitTimeout: the time ran out. It has the last state.
        Unreachable: the time ran out while there was no response. It has the last failure. For Azure it is
            AzureUnreachable.
        Interrupted: the user interrupted the wait.
    """
    timer = timeout if isinstance(timeout, Timer) else Timer(timeout)
    state = ""
    with Progress(what, show=progress) as bar, _shown_by(bar):
        try:
            while True:
                failure: Unreachable | AzureUnreachable | None = None
                try:
                    with deadline(timer.left):
                        result, state = poll()
                    if result is not None:
                        return result
                except (Unreachable, AzureUnreachable) as failed:
                    if isinstance(failed, Unreachable) and failed.permanent:
                        raise
                    failure = failed
                bar.say(state if failure is None else failure.message.splitlines()[0])
                left = timer.left
                if left <= 0:
                    raise _timed_out(what, timer.limit, state, failure, hint) from None
                time.sleep(min(interval, left))
        except KeyboardInterrupt:
            raise Interrupted(f"{what}: the wait was interrupted. {on_interrupt}".rstrip()) from None


def _timed_out(
    what: str, limit: float, state: str, failure: Unreachable | AzureUnreachable | None, hint: str
) -> WaitTimeout | Unreachable | AzureUnreachable:
    """Return the error for a wait that ran out of time: with the last state, or with the last failure to read it."""
    if failure is None:
        message = f"{what}: not done after {limit:g} s; last state: {state}"
        return WaitTimeout(message, state=state, timeout=limit, hint=hint)
    before = f". The last known state: {state}" if state else ""
    message = f"{what}: unknown after {limit:g} s, because there was no response: {failure.message}{before}"
    if isinstance(failure, AzureUnreachable):
        return AzureUnreachable(
            message,
            code=failure.code,
            http_status=failure.http_status,
            hint=failure.hint,
            original=failure.original,
        )
    return Unreachable(
        message, status=failure.status, hint=failure.hint, refused=failure.refused, original=failure.original
    )


class Interrupted(KeyboardInterrupt):
    """The user interrupted a wait or a request. The message says what continues without it.

    A notebook shows the message without the frames of the HTTP library.
    """

    def _render_traceback_(self) -> list[str]:  # called by IPython
        return [f"Interrupted: {self}"]


# Deadlines


_DEADLINE: ContextVar[float | None] = ContextVar("aksgpu_deadline", default=None)
_BAR: ContextVar[Progress | None] = ContextVar("aksgpu_bar", default=None)


Timeout = float | str | None
"""What a ``timeout`` argument may be: seconds, text such as ``"2h"`` or ``"1h30m"``, or None for no limit."""

_LONGEST_DURATION = 64
"""Characters in a duration."""
_DURATION = re.compile(
    "".join(rf"(?:(?P<{unit}>[0-9]{{1,18}}(?:\.[0-9]{{1,18}})?){unit})?" for unit in ("d", "h", "m", "s")), re.ASCII
)
"""A number before each unit, the largest unit first."""

_UNIT_SECONDS = {
    "d": 86400,
    "h": 3600,
    "m": 60,
    "s": 1,
}


def parse_duration(text: str) -> float | None:
    """Return the seconds of a duration such as ``30s``, ``90m``, ``2h``, ``1h30m`` or ``1d``.

    Args:
        text: numbers with the units d, h, m and s, each at most once and in this order.

    Returns:
        The seconds; None if the text is not a duration.
    """
    if len(text) > _LONGEST_DURATION:
        return None
    match = _DURATION.fullmatch("".join(text.split()))
    if match is None:
        return None
    parts = [float(number) * _UNIT_SECONDS[unit] for unit, number in match.groupdict().items() if number is not None]
    seconds = sum(parts)
    return seconds if parts and math.isfinite(seconds) else None


def check_timeout(value: object, argument: str = "timeout") -> float:
    """Return a timeout in seconds; infinity for None, which means no limit.

    Args:
        value: seconds as a number, text such as ``"2h"`` (see :func:`parse_duration`), or None.
        argument: the name of the caller's argument, for the error.

    Raises:
        InvalidInput: the value is none of these, or negative.
    """
    if value is None:
        return math.inf
    seconds = None
    is_bool = isinstance(value, bool)
    if isinstance(value, str):
        seconds = parse_duration(value)
    elif isinstance(value, Real) and not is_bool:
        seconds = float(value)
    if seconds is not None and seconds >= 0:  # not true of NaN
        return seconds
    raise InvalidInput(
        f"`{argument}` must be a number of seconds, 0 or more, text such as '90m' or '2h', or None for no limit, "
        f"got {shown(value)}",
        hint=f"Ten minutes are {argument}=600 or {argument}='10m'.",
    )


@contextlib.contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Limit the time of all requests in a ``with`` block.

    A request raises :class:`~aksgpu.errors.Unreachable` when the time is up, even if the server is silent. Until then
    it is repeated after temporary failures. With nested deadlines, the earliest applies. A request that starts after
    the deadline is sent once, and may take one second::

        with waiting.deadline(5):
            aks.kube.list("Node")

    Args:
        seconds: time from now; None means no limit.
    """
    end = time.monotonic() + (math.inf if seconds is None else seconds)
    outer = _DEADLINE.get()
    token = _DEADLINE.set(end if outer is None else min(outer, end))
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def time_left() -> float | None:
    """Return the seconds until the innermost :func:`deadline`, 0 if it has passed; None if there is no deadline."""
    end = _DEADLINE.get()
    return None if end is None else max(0.0, end - time.monotonic())


def pause(seconds: float) -> None:
    """Sleep, at most until the innermost :func:`deadline`."""
    left = time_left()
    time.sleep(seconds if left is None else min(seconds, left))


class Timer:
    """The remaining time of a timeout, for a function with several waits.

    Args:
        timeout: seconds, or text such as ``"2h"``; None means no limit.

    Attributes:
        limit: seconds of the whole timeout.

    Raises:
        InvalidInput: the timeout is neither a number of seconds nor a duration such as ``"2h"``.
    """

    def __init__(self, timeout: Timeout) -> None:
        self.limit = check_timeout(timeout)
        self._end = time.monotonic() + self.limit
        outer = _DEADLINE.get()
        if outer is not None:
            self._end = min(self._end, outer)

    @property
    def left(self) -> float:
        """Seconds left; 0 if the time is up."""
        return max(0.0, self._end - time.monotonic())


# Notices of slow requests


NOTICE_AFTER = 1.0
"""Seconds of failures after which a call outside a wait shows a progress bar."""


@contextlib.contextmanager
def _shown_by(bar: Progress) -> Iterator[None]:
    token = _BAR.set(bar)
    try:
        yield
    finally:
        _BAR.reset(token)


class Notice:
    """Shows why a request takes long, in the progress bar of the surrounding wait or in its own.

    A context manager. Its own bar appears only in the main thread, after :data:`NOTICE_AFTER` seconds.

    Args:
        what: the server that does not respond.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._own: Progress | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            self._own.__exit__(None, None, None)

    def say(self, text: str) -> None:
        """Show the text."""
        bar = _BAR.get() or self._own
        late = time.monotonic() - self._began >= NOTICE_AFTER
        if bar is None and late and threading.current_thread() is threading.main_thread():
            self._own = Progress(self._what).__enter__()
            bar = self._own
        if bar is not None:
            bar.say(text)


def __dir__() -> list[str]:
    return list(__all__)
