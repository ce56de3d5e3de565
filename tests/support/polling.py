"""Wait in a test until something is true."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

TIMEOUT = 60.0
"""Seconds. The tests never measure speed, so this only has to be long enough for a busy machine."""
INTERVAL = 0.02
"""Seconds between two calls."""


def wait_for(check: Callable[[], T], timeout: float = TIMEOUT) -> T:
    """Call ``check`` until its result is true, and return that result.

    Raises:
        AssertionError: the result was still false after ``timeout`` seconds. The message has the last result.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = check()
        if result:
            return result
        assert time.monotonic() < deadline, f"not true within {timeout:g} s; last result: {result!r}"
        time.sleep(INTERVAL)


async def wait_for_async(check: Callable[[], Awaitable[T]], timeout: float = TIMEOUT) -> T:
    """Do the same as :func:`wait_for` with a coroutine function."""
    deadline = time.monotonic() + timeout
    while True:
        result = await check()
        if result:
            return result
        assert time.monotonic() < deadline, f"not true within {timeout:g} s; last result: {result!r}"
        await asyncio.sleep(INTERVAL)
