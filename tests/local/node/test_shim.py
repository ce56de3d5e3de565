"""The shim by itself, without an agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from aksgpu.local.node.attempt import KEEPER
from aksgpu.local.node.shim import tree

from .conftest import processes


def keep(directory: Path, *argv: str, listen: bool = True, **more: Any) -> tuple[bytes, dict[str, Any], str]:
    """Run a command behind a shim. Returns what it said when ready, its exit record, and the log."""
    spec = {
        "argv": argv,
        "env": {"PATH": os.environ["PATH"]},
        "cwd": str(directory),
        "mounts": [],
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
        command = [*KEEPER, str(directory / "spec.json"), str(send), str(lock.fileno())]
        process = subprocess.Popen(command, pass_fds=(send, lock.fileno()), start_new_session=True)
    os.close(send)
    ready = os.read(receive, 1) if listen else b""
    assert process.wait(timeout=20) == 0
    if listen:
        os.close(receive)
    return ready, json.loads((directory / "exit.json").read_text()), (directory / "0.log.0").read_text()


def test_output_and_exit(tmp_path: Path) -> None:
    ready, end, log = keep(tmp_path, "sh", "-c", "echo out; sleep 0.05; echo err >&2; sleep 0.05; printf rest; exit 9")
    assert (ready, end["code"], end["reason"]) == (b"1", 9, "Error")
    assert [line.split(" ", 1)[1] for line in log.splitlines()] == ["stdout F out", "stderr F err", "stdout P rest"]
    assert end["started"] <= end["finished"]


def test_nobody_waits_for_the_start(tmp_path: Path) -> None:
    """As when the laptop is killed while a container starts."""
    _, end, log = keep(tmp_path, "sh", "-c", "sleep 0.1; echo done", listen=False)
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
def test_what_cannot_start(tmp_path: Path, argv: list[str], more: dict[str, Any], message: str) -> None:
    ready, end, log = keep(tmp_path, *argv, **more)
    assert (ready, end["code"], end["reason"], end["message"], log) == (b"", 128, "StartError", message, "")


def test_everything_ends_with_the_command(tmp_path: Path, mark: str) -> None:
    daemon = f"(setsid bash -c 'trap \"\" TERM HUP; exec -a {mark} sleep 100' &)"
    _, end, _ = keep(tmp_path, "bash", "-c", f"{daemon}; exec -a {mark} sleep 0.2")
    assert end["code"] == 0
    assert processes(mark) == []


def test_long_lines_and_binary_output(tmp_path: Path) -> None:
    script = r"import sys; sys.stdout.buffer.write(b'\xff\x00\r' + b'x' * 40000 + b'\n')"
    spec = tmp_path / "0.log.0"
    keep_bytes = [sys.executable, "-c", script]
    with pytest.raises(UnicodeDecodeError):
        keep(tmp_path, *keep_bytes)
    parts = [line.split(b" ", 3)[2:] for line in spec.read_bytes().split(b"\n")[:-1]]
    assert [tag for tag, _ in parts] == [b"P", b"P", b"F"]
    assert b"".join(text for _, text in parts) == b"\xff\x00\r" + b"x" * 40000


def test_memory_of_processes() -> None:
    child = subprocess.Popen([sys.executable, "-c", "x = bytearray(50 << 20); input()"], stdin=subprocess.PIPE)
    try:
        end = time.monotonic() + 10
        while tree.memory([child.pid], True) < 50 << 20:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert tree.memory([child.pid], False) >= 50 << 20
        assert child.pid in tree.processes(os.getpid())
        assert tree.memory([2**22 + 1], True) == 0
    finally:
        child.communicate(b"\n")
