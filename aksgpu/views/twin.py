"""A widget in a notebook with a static copy beside it.

JupyterLab shows a widget without its kernel as "Error displaying widget" and does not fall back to the other content of
the output. So a view has two outputs: static HTML, which a style hides while the widget is in the page, and the widget.
A notebook that is saved and reopened has no widget in its page and shows the static HTML. The style also hides the
error in the output after it. At the end, the static HTML is replaced by the final one and the widget by nothing.
"""

from __future__ import annotations

import threading
import uuid
from typing import Any

import ipywidgets

from aksgpu.notebook import EMPTY, Output


class TwinDisplay:
    """Shows one widget and its static copy, in as many cells as it is asked to, until it ends.

    Args:
        widget: what is shown while the kernel runs.
        text: text for front ends that show neither widgets nor HTML.
    """

    def __init__(self, widget: Any, text: str) -> None:
        self._widget = widget
        self._text = text
        self._lock = threading.Lock()
        self._places: list[_Place] = []
        self._html = ""
        self._ended = False

    def show(self, html: str) -> bool:
        """Show both in the cell that runs. Only the main thread may call this.

        Returns:
            False when the display has ended: nothing is shown then.
        """
        with self._lock:
            if self._ended:
                return False
            self._html = html
            place = _Place()
            self._places.append(place)
            place.static.show(self._bundle(place.hide(html)))
            wrapper = ipywidgets.VBox([self._widget])
            wrapper.add_class("aksgpu-view")
            wrapper.add_class(place.live_class)
            place.live.show({**wrapper._repr_mimebundle_(), "text/plain": ""})
            return True

    def update(self, html: str) -> None:
        """Replace the static copy. Does nothing after the end."""
        with self._lock:
            if self._ended or html == self._html:
                return
            self._html = html
            for place in self._places:
                place.static.replace(self._bundle(place.hide(html)))

    def end(self, html: str) -> None:
        """Replace the static copy by the final one and the widget by nothing. A second call does nothing."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            for place in self._places:
                place.static.replace(self._bundle(html))
                place.live.replace(EMPTY)
            self._places.clear()

    def _bundle(self, html: str) -> dict[str, object]:
        return {"text/plain": self._text, "text/html": html}


class _Place:
    """The two outputs in one cell."""

    def __init__(self) -> None:
        key = uuid.uuid4().hex
        self.static = Output()
        self.live = Output()
        self.live_class = f"aksgpu-live-{key}"
        self._static_class = f"aksgpu-static-{key}"

    def hide(self, html: str) -> str:
        """The HTML with a style that hides it while the widget is in the page, and else hides the widget's error."""
        static = f".{self._static_class}"
        live = f".{self.live_class}"
        dead = f".jp-OutputArea-child:has({static})+.jp-OutputArea-child:not(:has({live}))"
        style = f"body:has({live}) {static},{dead}{{display:none}}"
        return f'<div class="{self._static_class}"><style>{style}</style>{html}</div>'
