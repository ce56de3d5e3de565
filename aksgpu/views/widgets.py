"""The widgets of a live view. A trait is only set if its text has changed: each change is sent to every page."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import ipywidgets

from aksgpu.views import curve, logtext, markup
from aksgpu.views.observation import Observation

__all__ = ["LiveWidgets"]

_STAMP_EVERY = timedelta(seconds=5)
"""Shortest time between two updates of the time of the last poll, so that it does not flicker."""
_SHOWN_LINES = 500
"""Number of log lines that a user can scroll to."""
_MAX_CHUNKS = 100
"""Maximum number of widgets of the log. More are joined into one."""


class LiveWidgets:
    """The widgets of one view.

    Args:
        stale_after: seconds without a new poll after which the page calls the view stale.

    Attributes:
        box: the widget that holds the others.
    """

    def __init__(self, stale_after: float) -> None:
        self._stale_after = stale_after
        self._heading = ipywidgets.HTML()
        self._problems = ipywidgets.HTML()
        self._numbers = ipywidgets.HTML()
        self._stamp = ipywidgets.HTML()
        self._curve = ipywidgets.HTML()
        self._log = _LogWidget()
        self._stamped: datetime | None = None
        parts = [self._heading, self._problems, self._numbers, self._curve, self._log.box, self._stamp]
        for part in parts:
            part.layout.margin = "0"
        self.box = ipywidgets.VBox(parts)

    def show(self, seen: Observation, log: str) -> None:
        """Show an observation, and the lines of the log that are new."""
        _set(self._heading, markup.heading(seen))
        _set(self._problems, markup.problems(seen))
        _set(self._numbers, markup.numbers(seen))
        _set(self._curve, curve.svg(seen.curves))
        self._log.show(logtext.split(log))

    def stamp(self, now: datetime) -> None:
        """Show the time of the last poll."""
        if self._stamped is None or now - self._stamped >= _STAMP_EVERY:
            self._stamped = now
            self._stamp.value = markup.stamp(now, self._stale_after)

    def end(self, html: str) -> None:
        """Show the final state, for a reloaded page, in which the output is not replaced."""
        self.box.children = [ipywidgets.HTML(html)]


class _LogWidget:
    """A log that grows at its end. Text that the user has selected stays selected when lines are added."""

    def __init__(self) -> None:
        self._known: list[str] = []
        self._chunks = ipywidgets.VBox(layout={"margin": "0", "overflow": "visible"})
        # A line without a newline may still change, like a progress bar. The last line therefore has its own widget.
        self._last = ipywidgets.HTML(layout={"margin": "0"})
        inner = ipywidgets.VBox([self._chunks, self._last], layout={"overflow": "visible", "flex": "0 0 auto"})
        # In a reversed column, the browser keeps the end in view, unless the user has scrolled away from it.
        layout = {"max_height": "13em", "overflow": "auto", "flex_flow": "column-reverse", "margin": "0"}
        self.box = ipywidgets.VBox([inner], layout=layout)

    def show(self, lines: list[str]) -> None:
        if not lines:
            return
        *whole, last = lines
        new = logtext.added(self._known, whole)
        if new is None:
            self._chunks.children = [_chunk(whole)]
        elif new:
            self._append(new, whole)
        self._known = whole
        _set(self._last, markup.log([logtext.clean(last)]))

    def _append(self, new: list[str], whole: list[str]) -> None:
        if len(self._chunks.children) >= _MAX_CHUNKS:
            self._chunks.children = [_chunk(whole)]
        else:
            self._chunks.children = [*self._chunks.children, _chunk(new)]


def _chunk(lines: list[str]) -> Any:
    text = markup.log(logtext.clean(line) for line in lines[-_SHOWN_LINES:])
    return ipywidgets.HTML(text, layout={"margin": "0"})


def _set(widget: Any, value: str) -> None:
    if widget.value != value:
        widget.value = value
