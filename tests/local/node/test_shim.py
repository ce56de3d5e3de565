"""The shim alone, without a node agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.polling import wait_for

from aksgpu.local.node.container_run import SHIM_COMMAND
from aksgpu.local.node.node_agent import _has_mount_namespaces
from aksgpu.local.node.shim import process_tree

from .conftest import processes


def run_shim(
    directory: Path, *argv: str, listen: bool = True, shim_command: Sequence[str] = SHIM_COMMAND, **more: Any
) -> tuple[bytes, dict[str, Any], str]:
    """Run a command in a shim. Return what it wrote to READY, its exit record, and the log."""
    spec = {
        "argv": argv,
        "env": {"PATH": os.environ["PATH"]},
        "cwd": str(directory),
        "mounts": [],
        "hostname": "",
        "staging": str(directory),
        "log": str(directory / "0.log"),
        "log_max_bytes": 1 << 20,
        "log_max_files": 2,
        "memory_limit": None,
        **more,
    }
    (directory / "spec.json").write_text(json.dumps(spec))
    receive, send = os.pipe()
    if not listen:
        os.close(receive)
    with (directory / "lock").open("w") as lock:
        command = [*shim_command, str(directory / "spec.json"), str(send), str(lock.fileno())]
        process = subprocess.Popen(command, pass_fds=(send, lock.fileno()), start_new_session=True)
    os.close(send)
    ready = os.read(receive, 1) if listen else b""
    try:
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
    if listen:
        os.close(receive)
    return ready, json.loads((directory / "exit.json").read_text()), (directory / "0.log.0").read_text()


def test_output_and_exit(tmp_path: Path) -> None:
    ready, end, log = run_shim(
        tmp_path, "sh", "-c", "echo out; sleep 0.05; echo err >&2; sleep 0.05; printf rest; exit 9"
    )
    assert (ready, end["code"], end["reason"]) == (b"1", 9, "Error")
    assert [line.split(" ", 1)[1] for line in log.splitlines()] == ["stdout F out", "stderr F err", "stdout P rest"]
    assert end["started"] <= end["finished"]


def test_the_start_does_not_wait_for_the_laptop(tmp_path: Path) -> None:
    """The laptop is killed while a container starts."""
    _, end, log = run_shim(tmp_path, "sh", "-c", "sleep 0.1; echo done", listen=False)
    assert (end["code"], log.endswith(" stdout F done\n")) == (0, True)


@pytest.mark.parametrize(
    ("argv", "more", "message"),
    [
        (["no-such-program"], {}, 'exec: "no-such-program": executable file not found in $PATH'),
        (["/no/such/program"], {}, 'exec: "/no/such/program": no such file or directory'),
        (["/etc/passwd"], {}, 'exec: "/etc/passwd": permission denied'),
        (
            ["true"],
            {"cwd": "/no/such"},
            'chdir to cwd ("/no/such") set in config.json failed: no such file or directory',
        ),
        (["true"], {"mounts": [["/no/such", "/x", False]]}, "mount volumes: no such file or directory"),
    ],
)
def test_commands_that_cannot_start(tmp_path: Path, argv: list[str], more: dict[str, Any], message: str) -> None:
    if "mounts" in more and not _has_mount_namespaces(tmp_path):
        pytest.skip("this system grants no mount namespaces")
    ready, end, log = run_shim(tmp_path, *argv, **more)
    assert (ready, end["code"], end["reason"], end["message"], log) == (b"", 128, "StartError", message, "")


def test_all_processes_end_with_the_command(tmp_path: Path, mark: str) -> None:
    daemon = f"(setsid bash -c 'trap \"\" TERM HUP; exec -a {mark} sleep 100' &)"
    _, end, _ = run_shim(tmp_path, "bash", "-c", f"{daemon}; exec -a {mark} sleep 0.2")
    assert end["code"] == 0
    assert processes(mark) == []


MOMENT = """
import os, signal
own, moments = os.getpid(), 0

def trace(frame, event, _):
    global moments
    name, code = os.path.basename(frame.f_code.co_filename), frame.f_code.co_name
    if os.getpid() != own or name not in ("supervisor.py", "launch.py"):
        return None
    if name == "supervisor.py" and code not in ("run", "_create_namespaces", "_supervise"):
        return None
    if event == "line":
        waits = code == "_supervise" and frame.f_lineno - frame.f_code.co_firstlineno > 5
        if moments == MOMENT or waits:
            sys.settrace(None)
            os.kill(own, signal.NUMBER)
        moments += not waits
    return trace

sys.settrace(trace)
supervisor.main()
with open(os.path.dirname(sys.argv[1]) + "/moments", "w") as file:
    file.write(str(moments))
"""
"""The shim, which receives a signal before one line of a launch, or while it waits for the command's end."""


def at_moment(moment: int, number: signal.Signals) -> list[str]:
    script = MOMENT.replace("MOMENT", str(moment)).replace("NUMBER", number.name)
    return [*SHIM_COMMAND[:-1], SHIM_COMMAND[-1].replace("supervisor.main()", script.lstrip())]


def test_volumes_below_a_directory_that_cannot_be_read() -> None:
    """A home below another user's /root, where images have theirs."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        locked = Path(name, "locked")
        volume = Path(name, "volume")
        for folder, mode in ((place, 0o777), (locked, 0o700 if os.getuid() == 0 else 0), (volume, 0o777)):
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)
        shim_command = [*SHIM_COMMAND[:-1], SHIM_COMMAND[-1].replace("supervisor.main()", NOBODY.lstrip())]
        if subprocess.run([*shim_command, "--probe", name], check=False).returncode:
            pytest.skip("this system grants no mount namespaces")
        inside = f"{locked}/app/data"
        script = f"touch {inside}/file; ls {locked}"
        _, end, log = run_shim(
            place, "sh", "-c", script, shim_command=shim_command, mounts=[(str(volume), inside, False)]
        )
        assert (end["code"], end["message"], log.endswith(" stdout F app\n")) == (0, "", True)
        assert (volume / "file").exists()


NOBODY = """
import os
from shim.mounts import libc
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: else /proc/self belongs to root
supervisor.main()
"""
"""The shim as a user without privileges."""


def test_a_full_disk_costs_output_and_not_the_exit_code(tmp_path: Path) -> None:
    shim_command = [*SHIM_COMMAND[:-1], SHIM_COMMAND[-1].replace("supervisor.main()", FULL.lstrip())]
    script = "until test -e full; do sleep 0.02; done; echo lost; sleep 0.2; touch ended; exit 3"
    ready, end, _ = run_shim(tmp_path, "sh", "-c", script, shim_command=shim_command)
    assert (ready, end["code"]) == (b"1", 3)


FULL = """
import os, resource, threading, time

def fill():
    while not os.path.exists(f"{place}/run.json") or b'"child": 0' in open(f"{place}/run.json", "rb").read():
        time.sleep(0.01)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    open(f"{place}/full", "x").close()
    while not os.path.exists(f"{place}/ended"):
        time.sleep(0.01)
    time.sleep(0.5)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

place = os.path.dirname(sys.argv[1])
threading.Thread(target=fill, daemon=True).start()
supervisor.main()
"""
"""The shim, which cannot write files from the command's start until half a second after its end."""


@pytest.mark.parametrize(
    ("argv", "number", "code", "reason"),
    [
        (("sleep", "100"), signal.SIGUSR1, 137, "Error"),
        (("sleep", "100"), signal.SIGTERM, 143, "Error"),
        (("no-such-program",), signal.SIGUSR1, 128, "StartError"),
    ],
)
def test_signal_at_every_moment_of_a_launch(
    tmp_path: Path, argv: tuple[str, ...], number: signal.Signals, code: int, reason: str
) -> None:
    def outcome(moment: int) -> tuple[int, str]:
        directory = tmp_path / str(moment)
        directory.mkdir()
        _, end, _ = run_shim(directory, *argv, shim_command=at_moment(moment, number))
        return end["code"], end["reason"]

    assert outcome(-1) == (code, reason)
    moments = int((tmp_path / "-1" / "moments").read_text())
    assert moments > 15
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(outcome, range(moments))) == {(code, reason)}


def test_killed_while_another_process_holds_its_output(tmp_path: Path) -> None:
    """A terminal multiplexer has inherited the streams."""
    script = """
import os, signal
supervisor.DRAIN_SECONDS = 0.1
launch = supervisor.launch

def held(spec, streams, enter, *, tty):
    for stream in streams:
        os.dup(stream)
    child = launch(spec, streams, enter)
    os.kill(os.getpid(), signal.SIGUSR1)
    return child

supervisor.launch = held
supervisor.main()
"""
    _, end, _ = run_shim(
        tmp_path,
        "sleep",
        "100",
        shim_command=[*SHIM_COMMAND[:-1], SHIM_COMMAND[-1].replace("supervisor.main()", script.lstrip())],
    )
    assert (end["code"], end["reason"]) == (137, "Error")


def test_long_lines_and_binary_output(tmp_path: Path) -> None:
    script = r"import sys; sys.stdout.buffer.write(b'\xff\x00\r' + b'x' * 40000 + b'\n')"
    spec = tmp_path / "0.log.0"
    keep_bytes = [sys.executable, "-c", script]
    with pytest.raises(UnicodeDecodeError):
        run_shim(tmp_path, *keep_bytes)
    parts = [line.split(b" ", 3)[2:] for line in spec.read_bytes().split(b"\n")[:-1]]
    assert [tag for tag, _ in parts] == [b"P", b"P", b"F"]
    assert b"".join(text for _, text in parts) == b"\xff\x00\r" + b"x" * 40000


@pytest.mark.parametrize("listed", [True, False], ids=["children listed", "kernel without lists of children"])
def test_descendants_of_all_threads_are_found(listed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not listed:
        monkeypatch.setattr(os.path, "exists", lambda _: False)
    argv = ["sh", "-c", "sleep 100 & sleep 100 & echo up; wait"]
    with ThreadPoolExecutor(1) as pool:
        child = pool.submit(subprocess.Popen, argv, stdout=subprocess.PIPE, start_new_session=True).result()
        try:
            assert child.stdout is not None
            child.stdout.readline()
            assert len(process_tree.descendants(child.pid)) == 2
            assert {child.pid, *process_tree.descendants(child.pid)} <= set(process_tree.descendants(os.getpid()))
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()


def test_memory_bytes() -> None:
    child = subprocess.Popen([sys.executable, "-c", "x = bytearray(50 << 20); input()"], stdin=subprocess.PIPE)
    try:
        wait_for(lambda: process_tree.memory_bytes([child.pid], True) >= 50 << 20)
        assert process_tree.memory_bytes([child.pid], False) >= 50 << 20
        assert child.pid in process_tree.descendants(os.getpid())
        assert process_tree.memory_bytes([2**22 + 1], True) == 0
    finally:
        child.communicate(b"\n")
