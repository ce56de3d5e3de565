"""What clients see while a container is restarted in place: the status and the log always belong to one run."""

from __future__ import annotations

import asyncio
from typing import Any

from .conftest import Lab

COUNTING = """
    printf x >> /aksgpu-count/runs
    n=$(($(wc -c < /aksgpu-count/runs) - 1))
    echo run $n
    while ! test -e /aksgpu-count/end-$n; do sleep 0.02; done
    exit $((n + 1))
"""
"""Prints its number, waits until the test ends it, and exits with another code in each run."""


def main_status(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (pod.get("status", {}).get("containerStatuses") or [{"state": {}}])[0]
    return found


async def test_status_and_log_belong_to_one_run(lab: Lab) -> None:
    seen: list[dict[str, Any]] = []
    _, version = await lab.objects.list("pods")

    async def watch() -> None:
        async for event in lab.objects.watch("pods", resource_version=version):
            seen.append(main_status(event.object))

    watching = asyncio.create_task(watch())
    volumes = [{"name": "count", "emptyDir": {}}]
    container = {"volumeMounts": [{"name": "count", "mountPath": "/aksgpu-count"}]}
    made = await lab.run("again", "sh", "-c", COUNTING, restartPolicy="Always", volumes=volumes, container=container)
    gate = lab.root / "pods" / made["metadata"]["uid"] / "volumes" / "count"
    for run in range(3):
        await lab.until("again", lambda pod, run=run: is_running(pod, run))
        async with asyncio.timeout(60):
            while await lab.logs("again") != f"run {run}\n".encode():
                await asyncio.sleep(0.01)
        if run:
            assert await lab.logs("again", previous=True) == f"run {run - 1}\n".encode()
        follower = asyncio.create_task(lab.logs("again", follow=True))
        (gate / f"end-{run}").touch()
        assert await follower == f"run {run}\n".encode()
    await lab.until("again", lambda pod: is_running(pod, 3))
    async with asyncio.timeout(60):
        while seen[-1].get("restartCount") != 3 or "running" not in seen[-1]["state"]:
            await asyncio.sleep(0.01)
    watching.cancel()
    assert {each["restartCount"] for each in seen if "restartCount" in each} == {0, 1, 2, 3}
    for each in seen:
        check(each)
    ids = {(each["restartCount"], each["containerID"]) for each in seen if "containerID" in each}
    assert sorted(count for count, _ in ids) == [0, 1, 2, 3]


async def test_log_of_a_container_that_waits_for_its_restart(lab: Lab) -> None:
    await lab.run("crashes", "sh", "-c", "echo crashed; exit 3", restartPolicy="Always")
    pod = await lab.until("crashes", lambda pod: "CrashLoopBackOff" in str(main_status(pod)["state"]))
    status = main_status(pod)
    check(status)
    assert status["lastState"]["terminated"]["containerID"] == status["containerID"]
    assert await lab.logs("crashes") == await lab.logs("crashes", previous=True) == b"crashed\n"


async def test_status_is_kept_until_the_run_is_found_again(lab: Lab) -> None:
    await lab.run("crashes", "sh", "-c", "exit 3", restartPolicy="Always")
    before = await lab.until("crashes", lambda pod: main_status(pod).get("restartCount", 0) > 1)
    await lab.restart()
    after = await lab.until(
        "crashes", lambda pod: main_status(pod)["restartCount"] > main_status(before)["restartCount"]
    )
    check(main_status(after))


def is_running(pod: dict[str, Any], run: int) -> bool:
    status = main_status(pod)
    return "running" in status["state"] and status["restartCount"] == run


def check(status: dict[str, Any]) -> None:
    """Check that one status of a container does not mix two runs."""
    state = status["state"]
    count = status.get("restartCount", 0)
    last = status.get("lastState", {}).get("terminated", {})
    ended = state.get("terminated", {})
    if ended:
        assert ended["containerID"] == status["containerID"]
        assert ended["exitCode"] in (count + 1, 3)
    if "waiting" in state and last:
        assert last["containerID"] == status["containerID"]
        assert last["exitCode"] in (count + 1, 3)
    elif last:
        assert last["containerID"] != status["containerID"]
        assert last["exitCode"] in (count, 3)
    else:
        assert count == 0
