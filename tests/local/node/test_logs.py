from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from aksgpu.local.node import container_logs
from aksgpu.local.node.shim.log_writer import LINE_LIMIT, LogWriter
from aksgpu.local.node_annotations import CONTAINER_LOG_MAX_MB, KUBELET_AWAY
from aksgpu.local.status_error import StatusError

from .conftest import CPU_NODE, Lab


async def show(path: Path, ended: bool = True, **options: Any) -> bytes:
    return b"".join([data async for data in container_logs.read(path, lambda: ended, **options)])


@pytest.fixture
def written(tmp_path: Path) -> Path:
    log = LogWriter(str(tmp_path / "0.log"), 10 << 20, 5)
    log.feed(b"stdout", b"one\ntwo\nthr")
    log.feed(b"stderr", b"err\n")
    log.feed(b"stdout", b"ee\n" + b"x" * (LINE_LIMIT + 3) + b"\nend\r50%\r60%")
    log.feed(b"stdout", b"")
    return tmp_path / "0.log"


async def test_a_whole_log(written: Path) -> None:
    whole = b"one\ntwo\nerr\nthree\n" + b"x" * (LINE_LIMIT + 3) + b"\nend\r50%\r60%"
    assert await show(written) == whole
    assert await show(written, limit_bytes=6) == b"one\ntw"
    assert await show(written, limit_bytes=6, follow=True, ended=False) == b"one\ntw"
    assert await show(written, tail_lines=0) == b""
    assert await show(written, tail_lines=2) == whole[-(LINE_LIMIT + 3 + 1 + 11) :]
    assert await show(written, tail_lines=99) == whole
    assert await show(written.with_name("none.log")) == b""


async def test_carriage_returns(tmp_path: Path) -> None:
    """As containerd does, the last one before a line feed is dropped. Others are kept, also those of a partial line."""
    log = LogWriter(str(tmp_path / "0.log"), 10 << 20, 5)
    log.feed(b"stdout", b"one\r\ntwo\r\r\n10%\r20%\r\nthree\r")
    log.feed(b"stdout", b"\nfour\r")
    log.feed(b"stdout", b"")
    assert await show(tmp_path / "0.log") == b"one\ntwo\r\n10%\r20%\nthree\nfour\r"


async def test_timestamps(written: Path) -> None:
    lines = (await show(written, timestamps=True)).split(b"\n")
    stamps = [line.split(b" ")[0] for line in lines]
    assert [line.partition(b" ")[2][:5] for line in lines] == [b"one", b"two", b"err", b"three", b"xxxxx", b"end\r5"]
    assert stamps == sorted(set(stamps))
    assert {len(stamp) for stamp in stamps} == {len("2026-11-23T10:59:32.151733689Z")}


async def test_since(tmp_path: Path) -> None:
    stamp = "2026-11-23T10:59:3{}.500000000Z stdout F line {}\n"
    (tmp_path / "0.log.0").write_text("".join(stamp.format(n, n) for n in range(5)))
    since = "2026-11-23T10:59:32Z"
    assert await show(tmp_path / "0.log", since_time=since) == b"line 2\nline 3\nline 4\n"
    assert await show(tmp_path / "0.log", since_time=since, tail_lines=1) == b"line 4\n"
    now = [time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - ago)) for ago in (3600, 0)]
    (tmp_path / "1.log.0").write_text("".join(f"{stamp}.500000000Z stdout F {stamp}\n" for stamp in now))
    assert await show(tmp_path / "1.log", since_seconds=1800) == f"{now[1]}\n".encode()
    assert (await show(tmp_path / "1.log", since_seconds=10**17)).count(b"\n") == 2


async def test_following_across_rotations(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path / "0.log"), 2000, 3)
    over = False
    pieces: list[bytes] = []

    async def follow() -> None:
        async for data in container_logs.read(tmp_path / "0.log", lambda: over, follow=True):
            pieces.append(data)

    follower = asyncio.create_task(follow())
    for number in range(400):
        log.feed(b"stdout", b"line %d\n" % number)
        if number % 20 == 0:
            await asyncio.sleep(container_logs.POLL_SECONDS * 1.5 if number % 40 == 0 else 0)
    over = True
    await follower
    assert b"".join(pieces) == b"".join(b"line %d\n" % number for number in range(400))
    assert (
        sorted(int(path.suffix[1:]) for path in tmp_path.iterdir())
        == sorted(int(path.suffix[1:]) for path in tmp_path.iterdir())[-3:]
    )
    newest = (await show(tmp_path / "0.log")).splitlines()
    assert 0 < len(newest) < 100  # the other segments cannot be read any more
    assert newest == [b"line %d" % number for number in range(400 - len(newest), 400)]


async def test_following_a_pod(lab: Lab, tmp_path: Path) -> None:
    script = f"echo line 1; until test -e {tmp_path}/go; do sleep 0.02; done; "
    await lab.run("slow", "sh", "-c", script + "for i in 2 3 4 5; do echo line $i; sleep 0.1; done")
    await lab.phase("slow", "Running")
    follower = asyncio.create_task(lab.logs("slow", follow=True))
    while await lab.logs("slow") != b"line 1\n":
        await asyncio.sleep(0.02)
    (tmp_path / "go").touch()
    assert await follower == b"line 1\nline 2\nline 3\nline 4\nline 5\n"
    assert await lab.logs("slow", follow=True, tail_lines=1) == b"line 5\n"


async def test_logs_that_do_not_exist(lab: Lab) -> None:
    await lab.run("one", "true")
    await lab.phase("one", "Succeeded")
    for name, container, options, text in (
        ("none", "main", {}, 'pods "none" not found'),
        ("one", "nope", {}, "container nope is not valid for pod one"),
        ("one", "main", {"previous": True}, 'previous terminated container "main" in pod "one" not found'),
    ):
        with pytest.raises(StatusError, match=text):
            await lab.logs(name, container, **options)


async def test_log_files_are_private(lab: Lab) -> None:
    await lab.run("quiet", "echo", "x")
    await lab.phase("quiet", "Succeeded")
    (pod,) = (lab.root / "pods").iterdir()
    assert pod.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("setting", "pool"), [(0.01, None), (50, "0.01")])
async def test_a_rotated_log(tmp_path: Path, setting: float, pool: str | None) -> None:
    """Only what was written since the last rotation can be read; a follower gets everything."""
    lab = Lab(tmp_path / "cluster", container_log_max_mb=setting)
    lab.root.mkdir()
    await lab.start()
    try:
        await lab.add_node(CPU_NODE)
        if pool:
            notes = {CONTAINER_LOG_MAX_MB: pool}
            await lab.objects.patch("nodes", CPU_NODE, {"metadata": {"annotations": notes}})
            while not lab.agent._nodes[CPU_NODE].container_log_max_mb:
                await asyncio.sleep(0.01)
        volumes = [{"name": "gate", "emptyDir": {}}]
        container = {"volumeMounts": [{"name": "gate", "mountPath": "/aksgpu-gate"}]}
        wait = "while ! test -e /aksgpu-gate/{}; do sleep 0.02; done"
        script = f"echo first; {wait.format('go')}; for i in $(seq 500); do echo line $i; done; {wait.format('end')}"
        made = await lab.run("writes", "sh", "-c", script, volumes=volumes, container=container)
        directory = lab.root / "pods" / made["metadata"]["uid"] / "volumes" / "gate"
        await lab.phase("writes", "Running")
        follower = asyncio.create_task(lab.logs("writes", follow=True))
        while await lab.logs("writes") != b"first\n":
            await asyncio.sleep(0.01)
        (directory / "go").touch()
        async with asyncio.timeout(60):
            while not (await lab.logs("writes")).endswith(b"line 500\n"):
                await asyncio.sleep(0.01)
        shown = (await lab.logs("writes")).splitlines()
        assert b"first" not in shown and shown[-1] == b"line 500"
        assert await lab.logs("writes", tail_lines=600) == await lab.logs("writes")
        (directory / "end").touch()
        assert await follower == b"first\n" + b"".join(b"line %d\n" % number for number in range(1, 501))
    finally:
        await lab.stop(end_pods=True)


@pytest.mark.parametrize(
    ("cause", "problem"),
    [
        ("kubelet", "dial tcp 10.224.0.4:10250: connect: connection refused"),
        ("tunnel", "write unix @->/tunnel-uds/proxysocket: write: broken pipe"),
    ],
)
async def test_a_kubelet_that_is_away(lab: Lab, cause: str, problem: str) -> None:
    await lab.run("talks", "sh", "-c", "echo one; sleep 60")
    await lab.phase("talks", "Running")
    follower = asyncio.create_task(lab.logs("talks", follow=True))
    while await lab.logs("talks") != b"one\n":
        await asyncio.sleep(0.01)

    async def set_cause(cause: str | None) -> None:
        await lab.objects.patch("nodes", CPU_NODE, {"metadata": {"annotations": {KUBELET_AWAY: cause}}})

    await set_cause(cause)
    assert await follower == b"one\n"  # the response ends as if the log did
    with pytest.raises(StatusError) as caught:
        await lab.logs("talks", follow=True, timestamps=True, tail_lines=0)
    query = "follow=true&tailLines=0&timestamps=true"
    url = f"https://10.224.0.4:10250/containerLogs/default/talks/main?{query}"
    assert caught.value.status == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f'Get "{url}": {problem}',
        "code": 500,
    }
    with pytest.raises(StatusError, match="error sending request: Post") as caught:
        await lab.agent.execute("default", "talks", "main", ["echo", "x"], tty=False)
    assert caught.value.code == 500 and problem in caught.value.message
    await set_cause(None)
    node = lab.agent._nodes[CPU_NODE]
    async with asyncio.timeout(60):
        while node.connection_error:
            await asyncio.sleep(0.01)
    assert await lab.logs("talks") == b"one\n"
