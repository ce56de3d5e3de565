"""Views that watch a Job. A wait for the Job notifies its view when the wait ends."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from aksgpu.errors import JobFailed

__all__ = ["Watcher", "notifies_watcher", "watchers"]

J = TypeVar("J")
P = ParamSpec("P")
R = TypeVar("R")


class Watcher(Protocol):
    """Something that shows a Job and is notified when a wait for the Job ends."""

    def refresh(self, timeout: float | None = None) -> None:
        """Read the Job's state now and show it.

        Args:
            timeout: seconds for which to wait until it is shown; None means a few seconds.
        """

    def interrupted(self) -> None:
        """Stop watching, because the user interrupted a wait. The display keeps its content."""


_FINAL_REFRESH = 20.0
"""Seconds for which a wait whose Job has ended waits until the view shows the end."""

watchers: dict[int, Watcher] = {}
"""The view of each Job object, by the object's identity. A view keeps its Job object alive."""


def notifies_watcher(wait: Callable[Concatenate[J, P], R]) -> Callable[Concatenate[J, P], R]:
    """Decorate a method of a Job that waits.

    When the wait ends, the Job's view shows the Job's state before the method returns, because the kernel may be
    stopped after the last cell. When the user interrupts the wait, the view ends.
    """

    @functools.wraps(wait)
    def wrapper(job: J, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result = wait(job, *args, **kwargs)
        except KeyboardInterrupt:
            watcher = watchers.get(id(job))
            if watcher is not None:
                watcher.interrupted()
            raise
        except JobFailed:
            _show_end(job)
            raise
        except Exception:
            watcher = watchers.get(id(job))
            if watcher is not None:
                watcher.refresh()
            raise
        _show_end(job)
        return result

    return wrapper


def _show_end(job: object) -> None:
    """Let the Job's view show how the Job has ended."""
    watcher = watchers.get(id(job))
    if watcher is not None:
        watcher.refresh(_FINAL_REFRESH)
