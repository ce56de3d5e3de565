"""One way to wait: with progress, a timeout and a reason.

Every wait of the library goes through :func:`wait_until`. Its deadline reaches every request that is sent within it:
see :func:`deadline`. Its progress is shown by :class:`aksgpu.progress.Progress`.
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
    """Call ``poll`` until it gives a result, and return that.

    A server that does not answer does not end the wait: ``poll`` may raise Unreachable or AzureUnreachable as often as
    the timeout allows. The requests that ``poll`` sends see the wait's deadline and end in time.

    Args:
        poll: returns ``(result, state)``: None as result means "not yet"; state says in words how things are.
        what: what is waited for; begins the bar and the error.
        timeout: seconds, or text such as ``"2h"``; None means no limit. A :class:`Timer` that already runs is shared
            with the steps before this one. ``poll`` is called at least once.
        interval: seconds between two calls of ``poll``.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.
        hint: what to do when time runs out.
        on_interrupt: what an interrupted user needs to know, such as "The Job goes on."

    Raises:
        InvalidInput: the timeout is neither a number of seconds nor a duration such as ``"2h"``.
        WaitTimeout: time ran out; with the last state.
        Unreachable: time ran out while there was no answer (AzureUnreachable likewise); with the last answer.
        Interrupted: the user interrupted the wait.
    """
    timer = timeout if isinstance(timeout, Timer) else Timer(timeout)
    state = ""
    with Progress(what, show=progress) as bar, _shown_by(bar):
        try:
            while True:
                result = None
                failed: Unreachable | AzureUnreachable | None = None
                try:
                    with deadline(timer.left):
                        result, state = poll()
                except (Unreachable, AzureUnreachable) as silent:
                    if isinstance(silent, Unreachable) and silent.permanent:
                        raise
                    failed = silent
                if result is not None:
                    return result
                bar.say(state if failed is None else failed.message.splitlines()[0])
                left = timer.left
                if left <= 0 and failed is not None:
                    raise _no_answer(failed, what, timer.limit, state) from None
                if left <= 0:
                    raise WaitTimeout(
                        f"{what}: not done after {timer.limit:g} s; last state: {state}",
                        state=state,
                        timeout=timer.limit,
                        hint=hint,
                    )
                time.sleep(min(interval, left))
        except KeyboardInterrupt:
            raise Interrupted(f"{what}: the wait was interrupted. {on_interrupt}".rstrip()) from None


def _no_answer(
    failed: Unreachable | AzureUnreachable, what: str, limit: float, state: str
) -> Unreachable | AzureUnreachable:
    """The error when time ran out while there was no answer."""
    before = f" The last state known: {state}." if state else ""
    message = f"{what}: not known after {limit:g} s, since there was no answer: {failed.message}{before}"
    if isinstance(failed, AzureUnreachable):
        return AzureUnreachable(
            message, code=failed.code, http_status=failed.http_status, hint=failed.hint, original=failed.original
        )
    return Unreachable(
        message, status=failed.status, hint=failed.hint, refused=failed.refused, original=failed.original
    )


class Interrupted(KeyboardInterrupt):
    """The user interrupted a wait or a request. The message says what goes on without it.

    A notebook shows the message alone, instead of the frames of the HTTP library that was interrupted.
    """

    def _render_traceback_(self) -> list[str]:  # asked for by IPython
        return [f"Interrupted: {self}"]


# Deadlines


_DEADLINE: ContextVar[float | None] = ContextVar("aksgpu_deadline", default=None)
_BAR: ContextVar[Progress | None] = ContextVar("aksgpu_bar", default=None)


Timeout = float | str | None
"""What a ``timeout`` argument may be: seconds, text such as ``"2h"`` or ``"1h30m"``, or None for no limit."""

_DURATION = re.compile(
    r"\s*".join(rf"(?:(?P<{unit}>[0-9]+(?:\.[0-9]+)?)\s*{unit})?" for unit in ("d", "h", "m", "s")), re.ASCII
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
    match = _DURATION.fullmatch(text.strip())
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
    """Limit the time of all requests that are sent within the ``with`` block.

    A request ends with :class:`~aksgpu.errors.Unreachable` when the time is up, on a silent server too, and is repeated
    until then after failures that pass by themselves. Of nested deadlines the earliest counts. A request that begins
    when no time is left is still sent once and gets a second::

        with waiting.deadline(5):
            aks.kube.list("Pod")

    Args:
        seconds: from now on; None means no limit.
    """
    end = time.monotonic() + (math.inf if seconds is None else seconds)
    outer = _DEADLINE.get()
    token = _DEADLINE.set(end if outer is None else min(outer, end))
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def time_left() -> float | None:
    """Seconds until the innermost :func:`deadline`, 0 when it has passed; None where there is no deadline."""
    end = _DEADLINE.get()
    return None if end is None else max(0.0, end - time.monotonic())


def pause(seconds: float) -> None:
    """Sleep, but not beyond the innermost :func:`deadline`."""
    left = time_left()
    time.sleep(seconds if left is None else min(seconds, left))


class Timer:
    """What is left of a timeout, for a function that waits for several things one after the other.

    Args:
        timeout: seconds, or text such as ``"2h"``; None means no limit.

    Attributes:
        limit: seconds in all.

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
        """Seconds left; 0 when time is up."""
        return max(0.0, self._end - time.monotonic())


# Telling what is waited for


NOTICE_AFTER = 1.0
"""Seconds of trouble before a call outside a wait shows a bar."""


@contextlib.contextmanager
def _shown_by(bar: Progress) -> Iterator[None]:
    token = _BAR.set(bar)
    try:
        yield
    finally:
        _BAR.reset(token)


class Notice:
    """Shows why a request takes long: in the bar of the wait that it belongs to, or else in a bar of its own.

    A context manager. A bar of its own appears only in the main thread, and only after :data:`NOTICE_AFTER` seconds.

    Args:
        what: what does not answer.
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
            bar = self._own = Progress(self._what).__enter__()
        if bar is not None:
            bar.say(text)
