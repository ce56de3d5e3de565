"""One way to wait: with progress, a timeout and a reason.

Every wait of the library goes through :func:`wait_until`. Progress is tqdm's notebook-aware bar; it is silent when
``progress=False`` or the environment variable ``AKSGPU_PROGRESS`` is ``0``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from types import TracebackType
from typing import Any, Self, TypeVar

from aksgpu.errors import WaitTimeout

T = TypeVar("T")

_SHOWN = 100
"""Characters of a state that the bar shows; errors carry all of it."""


@cache
def _bar_class() -> Any:
    """The bar of tqdm for a terminal or a notebook, without the thread that looks after slow bars and never ends.

    Ours are redrawn each time that they are told something, so nothing is lost. Only this class is without it: bars of
    the user's own keep theirs.
    """
    from tqdm.auto import tqdm

    return type("Bar", (tqdm,), {"monitor_interval": 0})


class Progress:
    """A progress bar of a wait, whose text is the state in words. A context manager.

    Args:
        what: what is waited for, such as ``cluster myAKSCluster``.
        total: steps to go, or None when only time passes.
        show: False for silence; None asks ``AKSGPU_PROGRESS`` (``0`` is silence).
    """

    def __init__(self, what: str, *, total: int | None = None, show: bool | None = None) -> None:
        self._show = os.environ.get("AKSGPU_PROGRESS") != "0" if show is None else show
        self._what, self._total = what, total
        self._bar: Any = None

    @property
    def shown(self) -> bool:
        """Whether anybody sees it."""
        return self._show

    def __enter__(self) -> Self:
        if self._show:
            layout = "{desc} [{elapsed}]{postfix}" if self._total is None else None
            self._bar = _bar_class()(total=self._total, desc=self._what, bar_format=layout, leave=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def say(self, state: str, *, done: int | None = None) -> None:
        """Show the state in words, and how many steps are done."""
        if self._bar is None:
            return
        if done is not None:
            self._bar.n = done
        self._bar.set_postfix_str(state if len(state) <= _SHOWN else state[: _SHOWN - 1] + "…")


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
