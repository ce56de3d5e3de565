"""Progress of a wait: tqdm's bar, in a terminal or a notebook.

It is silent when ``show=False`` or the environment variable ``AKSGPU_PROGRESS`` is ``0``.
"""

from __future__ import annotations

import os
from functools import cache
from types import TracebackType
from typing import Any, Self

__all__ = ["Progress"]

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
