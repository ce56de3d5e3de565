"""Outputs of a notebook cell that are replaced later. IPython is imported only in a kernel.

The notebook file keeps what an output holds when the file is saved. An output that is replaced by static content at
the end is readable without a kernel.
"""

from __future__ import annotations

import sys
import threading
import uuid
from collections.abc import Mapping

__all__ = ["EMPTY", "Bundle", "Output", "can_display", "in_kernel"]

Bundle = Mapping[str, object]
"""Content of an output by MIME type."""

EMPTY: Bundle = {"text/plain": ""}
"""Content of an output that shows nothing. Jupyter has no message that removes a single output."""


def in_kernel() -> bool:
    """Return whether this process is a Jupyter kernel."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


def can_display() -> bool:
    """Return whether a new output appears in the running cell: in a Jupyter kernel, in its main thread.

    Jupyter assigns the first display of another thread to the newest cell, which may be any cell.
    """
    return in_kernel() and threading.current_thread() is threading.main_thread()


class Output:
    """One output of a cell. Show it once in the main thread, then replace its content from any thread."""

    def __init__(self) -> None:
        self._id = uuid.uuid4().hex

    def show(self, content: Bundle) -> None:
        """Add the output to the running cell."""
        from IPython.display import display

        display(dict(content), raw=True, display_id=self._id)

    def replace(self, content: Bundle) -> None:
        """Replace the content wherever the output is shown."""
        from IPython.display import update_display

        update_display(dict(content), raw=True, display_id=self._id)
