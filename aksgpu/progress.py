"""Progress of a wait: tqdm's bar in a terminal, a line of text in a notebook.

Nothing is shown if ``show`` is False or the environment variable ``AKSGPU_PROGRESS`` is ``0``.
"""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime
from functools import cache
from html import escape
from types import TracebackType
from typing import Any, Protocol, Self

from aksgpu import notebook

__all__ = ["Progress", "note"]

_STATE_LENGTH = 100
"""Characters of a state that are shown. Errors contain the whole state."""


class Progress:
    """Shows a description of the state of a wait. A context manager.

    Args:
        what: what the wait is for, such as ``cluster myAKSCluster``.
        total: number of steps; None if they are not known.
        show: False hides the progress; None reads ``AKSGPU_PROGRESS`` (``0`` hides it). In a notebook, a wait in a
            thread other than the main thread shows nothing, because its output has no cell.
    """

    def __init__(self, what: str, *, total: int | None = None, show: bool | None = None) -> None:
        self._show = os.environ.get("AKSGPU_PROGRESS") != "0" if show is None else show
        self._what = what
        self._total = total
        self._bar: _Bar | None = None

    @property
    def shown(self) -> bool:
        """Whether progress is shown."""
        return self._show

    def __enter__(self) -> Self:
        if not self._show:
            return self
        if notebook.can_display():
            self._bar = _NotebookLine(self._what, self._total)
        elif not notebook.in_kernel():
            self._bar = _TerminalBar(self._what, self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close(completed=kind is None)

    def say(self, state: str, *, done: int | None = None) -> None:
        """Show a description of the state, and the number of steps that are done."""
        if self._bar is None:
            return
        if len(state) > _STATE_LENGTH:
            state = state[: _STATE_LENGTH - 1] + "…"
        self._bar.say(state, done)


def note(text: str) -> None:
    """Write a line about what was done, which stays visible; nothing with ``AKSGPU_PROGRESS=0``."""
    if os.environ.get("AKSGPU_PROGRESS") == "0":
        return
    from tqdm import tqdm

    tqdm.write(text)


class _Bar(Protocol):
    def say(self, state: str, done: int | None) -> None: ...

    def close(self, *, completed: bool) -> None: ...


class _TerminalBar:
    """tqdm's bar. It is removed at the end."""

    def __init__(self, what: str, total: int | None) -> None:
        layout = "{desc} [{elapsed}]{postfix}" if total is None else None
        self._bar = _bar_class()(total=total, desc=what, bar_format=layout, leave=False)

    def say(self, state: str, done: int | None) -> None:
        if done is not None:
            self._bar.n = done
        self._bar.set_postfix_str(state)

    def close(self, *, completed: bool) -> None:
        self._bar.close()


@cache
def _bar_class() -> Any:
    """Return the class of tqdm's bar without its monitor thread, which never ends.

    The monitor redraws bars that are updated rarely. These bars are redrawn at each update. Bars that the user makes
    keep their monitor.
    """
    from tqdm import tqdm

    return type("Bar", (tqdm,), {"monitor_interval": 0})


class _NotebookLine:
    """A line of text in the cell that runs.

    It is not a widget: a widget cannot be read in a notebook that was saved during the wait. The line has the
    time at which the wait began, which stays correct in the saved file. It is removed at the end. After an interrupt or
    an error, it shows the last state.
    """

    def __init__(self, what: str, total: int | None) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._state = ""
        self._started = time.monotonic()
        self._started_at = datetime.now(UTC)
        self._output = notebook.Output()
        self._shown = self._line()
        self._output.show(_bundle(self._shown))

    def say(self, state: str, done: int | None) -> None:
        self._state = state
        if done is not None:
            self._done = done
        line = self._line()
        if line != self._shown:
            self._shown = line
            self._output.replace(_bundle(line))

    def close(self, *, completed: bool) -> None:
        if completed:
            self._output.replace(notebook.EMPTY)
            return
        last = f"; last state: {self._state}" if self._state else ""
        with contextlib.suppress(Exception):  # the exception that ended the wait must not be hidden
            self._output.replace(_bundle(f"{self._what}: stopped after {self._seconds()} s{last}"))

    def _line(self) -> str:
        counted = f" {self._done} of {self._total}" if self._total is not None else ""
        state = f" {self._state}" if self._state else ""
        return f"{self._what}:{counted}{state} ({self._seconds()} s since {self._started_at:%H:%M:%S} UTC)"

    def _seconds(self) -> int:
        return int(time.monotonic() - self._started)


def _bundle(line: str) -> notebook.Bundle:
    style = "color:var(--jp-ui-font-color2,#767676);font-family:var(--jp-ui-font-family,sans-serif)"
    return {"text/plain": line, "text/html": f'<div style="{style}">{escape(line)}</div>'}
