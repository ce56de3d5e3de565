"""Acknowledged writes survive SIGKILL.

A writer process is killed repeatedly, and its output is compared with the store.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from aksgpu.local.api.registry import Registry
from aksgpu.local.api.store import Store

# Prints "name resourceVersion" after the write has been acknowledged.
WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from aksgpu.local.api.registry import Registry
from aksgpu.local.api.store import Store

async def writer(registry, lane):
    for number in itertools.count():
        name = f"{sys.argv[2]}-{lane}-{number}"
        obj = await registry.create("configmaps", {"metadata": {"name": name}, "data": {"n": str(number)}}, "default")
        print("+", name, obj["metadata"]["resourceVersion"], flush=True)
        if number % 3 == 2:
            gone = await registry.delete("configmaps", name, "default")
            print("-", name, gone["metadata"]["resourceVersion"], flush=True)

async def main():
    registry = Registry(Store(Path(sys.argv[1])))
    await registry.open()
    await asyncio.gather(*(writer(registry, lane) for lane in range(8)))

asyncio.run(main())
"""


def _record(path: Path, turn: int, lines: int) -> list[list[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), f"turn{turn}"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    record = [process.stdout.readline().split() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    record += [line.split() for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.stdout.close()
    process.wait(30)
    return record


async def test_no_acknowledged_write_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "kube.db"
    expected: dict[str, str] = {}
    highest = 0
    for turn in range(5):
        for sign, name, version in await asyncio.to_thread(_record, path, turn, 40 + 37 * turn):
            highest = max(highest, int(version))
            if sign == "+":
                expected[name] = version
            else:
                expected.pop(name)
        registry = Registry(Store(path))
        await registry.open()
        found, at = await registry.list("configmaps", "default")
        stored = {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in found}
        # A deletion may be on disk although its acknowledgement was not read. Nothing else may differ.
        missing = {name for name in expected if name not in stored}
        assert all(int(name.rsplit("-", 1)[1]) % 3 == 2 for name in missing)
        assert {name: stored[name] for name in expected if name in stored} == {
            name: version for name, version in expected.items() if name not in missing
        }
        assert int(at) >= highest
        for name in missing:
            expected.pop(name)
        await registry.close()
