"""A widget in a notebook with a static copy beside it.

Without its kernel, JupyterLab shows a widget as "Error displaying widget" and does not fall back to the other content
of the output. A view therefore has two outputs: static HTML, which a style hides while the widget is in the page, and
the widget. A notebook that is saved and reopened has no widget in its page and shows the static HTML. The style also
hides the error in the output after it. At the end, the static HTML is replaced by the final one, and the widget is
removed.
"""

from __future__ import annotations

import threading
import uuid
from typing import Any, NamedTuple

import ipywidgets

from aksgpu.notebook import EMPTY, Output

__all__ = ["Static", "TwinDisplay"]


class Static(NamedTuple):
    """Content that is readable without a kernel: HTML, and text for front ends without HTML."""

    html: str
    text: str

    def bundle(self) -> dict[str, object]:
        """Return the same by MIME type."""
        return {"text/plain": self.text, "text/html": self.html}


class TwinDisplay:
    """Shows one widget and its static copy, in any number of cells, until it ends.

    Args:
        widget: the widget to show while the kernel runs.
    """

    def __init__(self, widget: Any) -> None:
        self._widget = widget
        self._lock = threading.Lock()
        self._places: list[_Place] = []
        self._copy: Static | None = None
        self._ended = False

    def show(self, copy: Static) -> bool:
        """Show both in the running cell. Only the main thread may call this.

        Returns:
            False if the display has ended and nothing is shown.
        """
        with self._lock:
            if self._ended:
                return False
            self._copy = copy
            place = _Place()
            self._places.append(place)
            place.static.show(place.hide(copy).bundle())
            wrapper = ipywidgets.VBox([self._widget])
            wrapper.add_class("aksgpu-view")
            wrapper.add_class(place.live_class)
            place.live.show({**wrapper._repr_mimebundle_(), "text/plain": ""})
            return True

    def update(self, copy: Static) -> None:
        """Replace the static copy. Does nothing after the end."""
        with self._lock:
            if self._ended or copy == self._copy:
                return
            self._copy = copy
            for place in self._places:
                place.static.replace(place.hide(copy).bundle())

    def end(self, final: Static) -> None:
        """Replace the static copy by the final one and remove the widget. A second call does nothing."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            for place in self._places:
                place.static.replace(final.bundle())
                place.live.replace(EMPTY)
            self._places.clear()


class _Place:
    """The two outputs in one cell."""

    def __init__(self) -> None:
        key = uuid.uuid4().hex
        self.static = Output()
        self.live = Output()
        self.live_class = f"aksgpu-live-{key}"
        self._static_class = f"aksgpu-static-{key}"

    def hide(self, copy: Static) -> Static:
        """Return the copy with a style that hides it while the page has the widget, or else hides the widget error."""
        static = f".{self._static_class}"
        live = f".{self.live_class}"
        dead = f".jp-OutputArea-child:has({static})+.jp-OutputArea-child:not(:has({live}))"
        style = f"body:has({live}) {static},{dead}{{display:none}}"
        html = f'<div class="{self._static_class}"><style>{style}</style>{copy.html}</div>'
        return Static(html, copy.text)
