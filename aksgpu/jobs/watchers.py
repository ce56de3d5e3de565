"""Views that watch a Job. A wait for the Job tells its view when the wait ends."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

J = TypeVar("J")
P = ParamSpec("P")
R = TypeVar("R")


class Watcher(Protocol):
    """Something that shows a Job and has to be told about its waits."""

    def refresh(self) -> None:
        """Look at the Job at once."""

    def interrupted(self) -> None:
        """Stop watching because the user interrupted a wait, and leave what is shown."""


watchers: dict[int, Watcher] = {}
"""What watches a Job, by the identity of the Job object. A watcher keeps the object alive."""


def tells_watcher(wait: Callable[Concatenate[J, P], R]) -> Callable[Concatenate[J, P], R]:
    """Decorate a method of a Job that waits.

    When the wait ends, the view of the Job shows the Job's state before the method returns: the kernel may be stopped
    after the last cell. When the user interrupts the wait, the view ends.
    """

    @functools.wraps(wait)
    def wrapper(job: J, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result = wait(job, *args, **kwargs)
        except KeyboardInterrupt:
            if watcher := watchers.get(id(job)):
                watcher.interrupted()
            raise
        except Exception:
            if watcher := watchers.get(id(job)):
                watcher.refresh()
            raise
        if watcher := watchers.get(id(job)):
            watcher.refresh()
        return result

    return wrapper
