"""Growing pauses between attempts."""

from __future__ import annotations

import random
import time

__all__ = ["Backoff"]

FIRST_PAUSE = 0.2
"""Seconds of the first pause."""
LONGEST_PAUSE = 15.0
"""Seconds of the longest pause."""


class Backoff:
    """Pauses that double, with jitter, so that many clients do not retry at the same time.

    Args:
        deadline: value of ``time.monotonic()`` at which every pause ends.
        first: seconds of the first pause.
        longest: seconds of the longest pause.
    """

    def __init__(
        self, deadline: float = float("inf"), *, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE
    ) -> None:
        self._deadline = deadline
        self._first = first
        self._longest = longest
        self._next = first

    def reset(self) -> None:
        """Start with the shortest pause again, after a success."""
        self._next = self._first

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self._deadline

    def sleep(self) -> None:
        """Pause."""
        left = self._deadline - time.monotonic()
        jitter = 0.5 + random.random() / 2
        time.sleep(max(0.0, min(left, self._next * jitter)))
        self._next = min(self._next * 2, self._longest)
