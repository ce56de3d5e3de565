"""One run of a container, without a pod."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from support.polling import wait_for_async

from aksgpu.local.node.container_run import ContainerRun


def spec(directory: Path, *argv: str) -> dict[str, Any]:
    return {
        "argv": argv,
        "env": {"PATH": os.environ["PATH"]},
        "cwd": str(directory),
        "mounts": [],
        "hostname": "",
        "memory_limit": None,
    }


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 137)])
async def test_a_signal_before_the_shim_has_its_handlers(tmp_path: Path, number: signal.Signals, code: int) -> None:
    run = ContainerRun(tmp_path, 0)
    starting = asyncio.create_task(run.start(spec(tmp_path, "sleep", "100"), "0" * 64, 1 << 20))

    async def is_spawned() -> bool:
        return run.alive

    await wait_for_async(is_spawned)
    run.send_signal(number)
    await starting
    end = await run.wait()
    assert (end.code, end.reason) == (code, "Error")


async def test_a_shim_that_starts_slowly_is_found_again(tmp_path: Path) -> None:
    """The laptop was killed while the shim started, and the machine is busy."""
    run = ContainerRun(tmp_path, 0)
    run.directory.mkdir()
    with (run.directory / "lock").open("w") as lock:  # as the shim holds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        resuming = asyncio.create_task(run.resume())
        await asyncio.sleep(3)
        assert not resuming.done()
        own = os.getpid()
        (run.directory / "run.json").write_text(json.dumps({"pid": own, "child": own, "started": 1}))
        assert await resuming
        assert run.alive
        run.detach()
