"""The laptop is killed or stopped while pods are running, and starts again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aksgpu.local.node import container_run

from .conftest import GPU_NODE, Lab, processes


async def test_running_pod_is_found_again(lab: Lab) -> None:
    await lab.run("long", "sh", "-c", "echo one; while ! test -e /tmp-gate/go; do sleep 0.02; done; echo two", **gate())
    before = await lab.phase("long", "Running")
    await lab.restart()
    after = await lab.objects.get("pods", "long", "default")
    assert after["status"]["containerStatuses"] == before["status"]["containerStatuses"]
    follower = asyncio.create_task(lab.logs("long", follow=True))
    open_gate(lab, "long", after["metadata"]["uid"])
    pod = await lab.phase("long", "Succeeded")
    assert await follower == b"one\ntwo\n"
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    assert pod["status"]["startTime"] == before["status"]["startTime"]


LAPTOP = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from tests.local.node.conftest import CPU_NODE, Lab

async def main():
    lab = Lab(Path(sys.argv[2]))
    await lab.start()
    await lab.add_node(CPU_NODE)
    await lab.run("long", "sh", "-c", "echo one; while ! test -e /tmp-gate/go; do sleep 0.02; done; echo two; exit 4",
                  volumes=[{"name": "gate", "emptyDir": {}}],
                  container={"volumeMounts": [{"name": "gate", "mountPath": "/tmp-gate"}]})
    await lab.phase("long", "Running")
    print("running", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_laptop_is_killed(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", LAPTOP, str(root), str(tmp_path)]
    laptop = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert laptop.stdout is not None
    assert await asyncio.to_thread(laptop.stdout.readline) == b"running\n"
    os.killpg(laptop.pid, signal.SIGKILL)
    laptop.wait()
    laptop.stdout.close()
    lab = Lab(tmp_path)
    await lab.start()
    try:
        pod = await lab.objects.get("pods", "long", "default")
        follower = asyncio.create_task(lab.logs("long", follow=True))
        await asyncio.sleep(0.1)
        open_gate(lab, "long", pod["metadata"]["uid"])
        assert await follower == b"one\ntwo\n"
        pod = await lab.phase("long", "Failed")
        assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    finally:
        await lab.stop(end_pods=True)


async def test_pod_that_ended_while_the_laptop_was_down(lab: Lab) -> None:
    await lab.run("ends", "sh", "-c", "while ! test -e /tmp-gate/go; do sleep 0.02; done; exit 5", **gate())
    pod = await lab.phase("ends", "Running")
    await lab.stop(end_pods=False)
    open_gate(lab, "ends", pod["metadata"]["uid"])
    while not list(lab.root.glob("pods/*/containers/main/0/exit.json")):
        await asyncio.sleep(0.01)
    await lab.start()
    pod = await lab.phase("ends", "Failed")
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 5


async def test_pod_whose_shim_was_killed_is_lost(lab: Lab, mark: str) -> None:
    await lab.run("lost", "bash", "-c", f"exec -a {mark} sleep 100")
    await lab.phase("lost", "Running")
    shim = supervisor_of(lab)
    await lab.stop(end_pods=False)
    os.kill(shim, signal.SIGKILL)
    await lab.start()
    pod = await lab.phase("lost", "Failed")
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "ContainerStatusUnknown")
    await until_ended(mark)


async def test_finished_pod_is_unchanged(lab: Lab) -> None:
    await lab.run("done", "echo", "kept")
    before = await lab.phase("done", "Succeeded")
    await lab.restart()
    await asyncio.sleep(0.1)
    assert (await lab.objects.get("pods", "done", "default"))["status"] == before["status"]
    assert await lab.logs("done") == b"kept\n"
    await lab.objects.delete("pods", "done", "default")
    await lab.gone("done")


async def test_pod_deleted_while_the_laptop_was_down(lab: Lab, mark: str) -> None:
    await lab.run("orphan", "bash", "-c", f"exec -a {mark} sleep 100")
    await lab.phase("orphan", "Running")
    await lab.agent.stop(end_pods=False)
    await lab.objects.delete("pods", "orphan", "default", grace_period_seconds=0)
    await lab.objects.close()
    assert processes(mark)
    await lab.start()
    await cleared(lab)
    assert processes(mark) == []


async def test_pod_deleted_while_its_container_is_found_again(lab: Lab, mark: str) -> None:
    """The laptop was killed after the container's start, and before its status was reported."""
    await lab.run("found", "bash", "-c", f"exec -a {mark} sleep 100")
    (status,) = (await lab.phase("found", "Running"))["status"]["containerStatuses"]
    await lab.agent.stop(end_pods=False)
    status = {**status, "state": {"waiting": {"reason": "ContainerCreating"}}, "started": False, "ready": False}
    patch = {"status": {"containerStatuses": [status]}}
    await lab.objects.patch("pods", "found", patch, "default", subresource="status")
    await lab.objects.delete("pods", "found", "default", grace_period_seconds=1)
    (record,) = lab.root.glob("pods/*/containers/main/0/run.json")
    run = json.loads(record.read_text())
    record.write_text(json.dumps({**run, "child": 0}))  # as before the shim has started the command
    await lab.stop(end_pods=False)
    await lab.start()
    await asyncio.sleep(0.2)
    record.write_text(json.dumps(run))
    await lab.gone("found")
    assert processes(mark) == []


async def test_orphan_that_does_not_end(lab: Lab, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pod waits for it, and its shim is killed."""
    await lab.run("orphan", "bash", "-c", f"exec -a {mark} sleep 100")
    await lab.phase("orphan", "Running")
    shim = supervisor_of(lab)
    os.kill(shim, signal.SIGSTOP)
    await lab.agent.stop(end_pods=False)
    await lab.objects.delete("pods", "orphan", "default", grace_period_seconds=0)
    await lab.objects.close()
    monkeypatch.setattr(container_run, "KILL_SECONDS", 1000.0)
    async with asyncio.timeout(60):
        await lab.start()
    assert processes(mark)
    await lab.stop(end_pods=False)
    monkeypatch.setattr(container_run, "KILL_SECONDS", 0.2)
    await lab.start()
    await cleared(lab)
    await until_ended(mark)


async def test_deleted_pod_whose_shim_does_not_end(lab: Lab, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_run, "KILL_SECONDS", 0.2)
    await lab.run("stuck", "bash", "-c", f"exec -a {mark} sleep 100", terminationGracePeriodSeconds=0)
    await lab.phase("stuck", "Running")
    os.kill(supervisor_of(lab), signal.SIGSTOP)
    await lab.objects.delete("pods", "stuck", "default")
    await lab.gone("stuck")
    await until_ended(mark)


async def test_stopping_the_cluster_ends_its_processes(lab: Lab, mark: str) -> None:
    await lab.run("runs", "bash", "-c", f"exec -a {mark} sleep 100")
    await lab.phase("runs", "Running")
    await lab.stop(end_pods=True)
    assert processes(mark) == []
    await lab.start()
    assert (await lab.phase("runs", "Failed"))["status"]["containerStatuses"][0]["state"]["terminated"][
        "exitCode"
    ] == 143


async def test_pods_of_a_removed_node_end(lab: Lab, mark: str) -> None:
    await lab.run("there", "bash", "-c", f"exec -a {mark} sleep 100", node=GPU_NODE)
    await lab.phase("there", "Running")
    await lab.objects.delete("nodes", GPU_NODE)
    await lab.gone("there")
    assert processes(mark) == []


def supervisor_of(lab: Lab) -> int:
    """Return the pid of the only shim."""
    shims: list[int] = processes("supervisor.main")
    (shim,) = [pid for pid in shims if str(lab.root) in Path(f"/proc/{pid}/cmdline").read_text()]
    return shim


async def until_ended(mark: str) -> None:
    """Wait until killed processes are gone."""
    async with asyncio.timeout(60):
        while processes(mark):
            await asyncio.sleep(0.01)


async def cleared(lab: Lab) -> None:
    """Wait until no pod has files left."""
    async with asyncio.timeout(60):
        while list((lab.root / "pods").iterdir()):
            await asyncio.sleep(0.01)


def gate() -> dict[str, object]:
    """A volume with which a test lets a pod continue."""
    return {
        "volumes": [{"name": "gate", "emptyDir": {}}],
        "container": {"volumeMounts": [{"name": "gate", "mountPath": "/tmp-gate"}]},
    }


def open_gate(lab: Lab, name: str, uid: str) -> None:
    (lab.root / "pods" / uid / "volumes" / "gate" / "go").touch()
