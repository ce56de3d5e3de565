"""Growing pauses between attempts, for those who come back to a server after a failure."""

from __future__ import annotations

import random
import time

from aksgpu.errors import Unreachable


class Backoff:
    """Pauses that double, with jitter so that many clients do not come back as one.

    Args:
        deadline: value of ``time.monotonic()`` that no pause goes beyond.
        first: seconds of the first pause.
        longest: seconds of the longest.
    """

    def __init__(self, deadline: float = float("inf"), *, first: float = 0.2, longest: float = 15.0) -> None:
        self._deadline = deadline
        self._first = first
        self._longest = longest
        self._next = first

    def reset(self) -> None:
        """Something went well: begin with the shortest pause again."""
        self._next = self._first

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self._deadline

    def hopeless(self, failed: Unreachable) -> bool:
        """Whether to give up after a failure: the deadline has passed, or trying again cannot help."""
        return self.over or failed.permanent

    def sleep(self) -> None:
        """Pause."""
        left = self._deadline - time.monotonic()
        time.sleep(max(0.0, min(left, self._next * (0.5 + random.random() / 2))))
        self._next = min(self._next * 2, self._longest)
