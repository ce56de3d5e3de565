"""Limits how many pods and nodes are started at the same time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

AT_ONCE = 3
"""Number of starts at the same time. More do not start sooner, because each start keeps the event loop busy."""
LONGEST_SECONDS = 5.0
"""Time after which a start no longer counts, so that a slow one does not keep others from starting."""


class StartLimiter:
    """Lets a few starts run at the same time. The others wait in the order in which they came.

    While thousands of pods are created, the API server answers requests between the starts.
    """

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(AT_ONCE)

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot, and occupy it for the duration of the block, but not longer than five seconds."""
        await self._slots.acquire()
        is_occupied = True

        def free() -> None:
            nonlocal is_occupied
            if is_occupied:
                is_occupied = False
                self._slots.release()

        timer = asyncio.get_running_loop().call_later(LONGEST_SECONDS, free)
        try:
            yield
        finally:
            timer.cancel()
            free()
