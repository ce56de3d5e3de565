"""Additional commands in a container, as the agent runs them. tests/local/whole runs them over HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from pathlib import Path
from typing import Any

import pytest

from aksgpu.local.node.exec_command import ExecError, Execution, attach, execute
from aksgpu.local.status_error import StatusError

from .conftest import Lab, processes

DATA = {
    "volumes": [{"name": "data", "emptyDir": {}}],
    "container": {"volumeMounts": [{"name": "data", "mountPath": "/aksgpu-data"}]},
}


async def collect_output(command: Execution) -> tuple[int, bytes, bytes]:
    async def whole(stream: str) -> bytes:
        return b"".join([data async for data in command.output(stream)])

    async with asyncio.timeout(60):
        out, err, code = await asyncio.gather(whole("stdout"), whole("stderr"), command.code())
    await command.close()
    return code, out, err


async def run(lab: Lab, *argv: str, **options: Any) -> tuple[int, bytes, bytes]:
    command = await lab.agent.execute("default", "p", "main", argv, **({"tty": False} | options))
    command.end_input()
    return await collect_output(command)


@pytest.mark.parametrize("view", [True, False])
async def test_a_command_has_the_containers_files(lab: Lab, view: bool) -> None:
    lab.agent._cluster = dataclasses.replace(
        lab.agent._cluster, mount_namespaces=view and lab.agent._cluster.mount_namespaces
    )
    await lab.run("p", "sh", "-c", "echo kept > /aksgpu-data/file; sleep 60", **DATA)
    await lab.phase("p", "Running")
    while await run(lab, "test", "-s", "/aksgpu-data/file") != (0, b"", b""):
        await asyncio.sleep(0.02)
    assert await run(lab, "sh", "-c", "cat /aksgpu-data/file; echo $HOSTNAME") == (0, b"kept\np\n", b"")
    await lab.restart()
    await lab.phase("p", "Running")
    async with asyncio.timeout(60):
        while not lab.agent._runners or not _running(lab):
            await asyncio.sleep(0.02)
    assert (await run(lab, "cat", "/aksgpu-data/file"))[:2] == (0, b"kept\n"), "found again by the next agent"


def _running(lab: Lab) -> bool:
    return all(
        runner.all_containers[-1].running and runner.all_containers[-1].has_run
        for runner in lab.agent._runners.values()
    )


async def test_its_child_processes_end_with_the_container(lab: Lab, mark: str) -> None:
    await lab.run("p", "sleep", "60")
    await lab.phase("p", "Running")
    assert (await run(lab, "sh", "-c", f"sh -c 'sleep 60; : {mark}' & exit 4"))[0] == 4
    assert processes(mark)
    await lab.objects.delete("pods", "p", "default", grace_period_seconds=0)
    await lab.gone("p")
    async with asyncio.timeout(60):
        while processes(mark):
            await asyncio.sleep(0.02)


async def test_a_client_that_disconnects(lab: Lab) -> None:
    await lab.run("p", "sleep", "60")
    await lab.phase("p", "Running")
    command = await lab.agent.execute("default", "p", "main", ["sleep", "60"], tty=False)
    reading = asyncio.create_task(anext(command.output("stdout")))
    await asyncio.sleep(0.05)
    reading.cancel()
    await asyncio.wait({reading})
    await command.close()
    assert not [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") == "ready"]


async def test_a_command_in_a_container_that_has_ended(lab: Lab) -> None:
    await lab.run("p", "true")
    await lab.phase("p", "Succeeded")
    with pytest.raises(StatusError, match="the container is not running"):
        await run(lab, "true")


async def test_its_memory_counts_towards_the_limit(lab: Lab) -> None:
    await lab.run("p", "sleep", "60", container={"resources": {"limits": {"memory": "64Mi"}}})
    await lab.phase("p", "Running")
    code, _, _ = await run(lab, "python3", "-c", "x = b'1' * (200 << 20); import time; time.sleep(60)")
    assert code == 137
    pod = await lab.phase("p", "Failed")
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "OOMKilled"


@pytest.mark.parametrize("has_socket", [True, False])
async def test_a_container_that_has_just_ended(tmp_path: Path, has_socket: bool) -> None:
    """Its shim no longer listens, and the laptop has not noticed the end yet."""
    if has_socket:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(tmp_path / "exec.sock"))
    with pytest.raises(ExecError, match="the container has ended"):
        await attach(tmp_path, stdin=False)
    with pytest.raises(ExecError, match="the container has ended"):
        await execute(tmp_path, ["true"], tty=False)
