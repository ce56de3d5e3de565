from __future__ import annotations

import asyncio

import pytest

from aksgpu.local.node import start_limiter
from aksgpu.local.node.start_limiter import StartLimiter


async def test_a_few_starts_run_at_a_time_in_order() -> None:
    limiter = StartLimiter()
    running: set[int] = set()
    largest = 0
    ended: list[int] = []

    async def start(number: int) -> None:
        nonlocal largest
        async with limiter.slot():
            running.add(number)
            largest = max(largest, len(running))
            await asyncio.sleep(0)
            running.remove(number)
        ended.append(number)

    await asyncio.gather(*(start(number) for number in range(20)))
    assert largest == start_limiter.AT_ONCE
    assert ended == list(range(20))


async def test_a_slow_start_does_not_keep_others_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_limiter, "LONGEST_SECONDS", 0.05)
    limiter = StartLimiter()
    never = asyncio.Event()

    async def hang() -> None:
        async with limiter.slot():
            await never.wait()

    slow = [asyncio.create_task(hang()) for _ in range(start_limiter.AT_ONCE)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        async with limiter.slot():
            pass
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    # Their slots were freed once, when their time was up, and not again at their end.
    assert limiter._slots._value == start_limiter.AT_ONCE


async def test_a_start_that_is_cancelled_or_fails_frees_its_slot() -> None:
    limiter = StartLimiter()
    for _ in range(2 * start_limiter.AT_ONCE):
        with pytest.raises(ValueError, match="no such file"):
            async with limiter.slot():
                raise ValueError("no such file")

    async def occupy() -> None:
        async with limiter.slot():
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(occupy()) for _ in range(3 * start_limiter.AT_ONCE)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert limiter._slots._value == start_limiter.AT_ONCE
