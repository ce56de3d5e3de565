"""The command: its help, its exit codes, and its errors without tracebacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aksgpu import cli, tutorial

REPO = Path(__file__).parents[1]


def aksgpu(*args: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "aksgpu.cli", *args]
    environment = {**os.environ, "COLUMNS": "80", **env}
    return subprocess.run(program, env=environment, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_help_fits_a_screen() -> None:
    for command in ((), ("tutorial",), ("local",), ("local", "start")):
        done = aksgpu(*command, "--help")
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) <= 24
        assert max(map(len, done.stdout.splitlines())) <= 80


def test_version() -> None:
    import aksgpu as package

    assert aksgpu("--version").stdout == f"aksgpu {package.__version__}\n"


@pytest.mark.parametrize("args", [(), ("nothing",), ("local",), ("local", "restart"), ("tutorial", "--closed")])
def test_a_wrong_command_line(args: tuple[str, ...]) -> None:
    done = aksgpu(*args)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: aksgpu")


def test_help_imports_no_slow_packages() -> None:
    program = (
        "import sys; from aksgpu import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'pandas', 'numpy', 'kubernetes', 'azure.core', 'nbclient', 'aiohttp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_the_laptop_starts_once_and_stops(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    assert aksgpu("local", "status", AKSGPU_HOME=home).returncode == 3
    try:
        first = aksgpu("local", "start", AKSGPU_HOME=home)
        assert (first.returncode, first.stderr) == (0, "")
        assert "https://127.0.0.1:" in first.stdout
        assert aksgpu("local", "start", AKSGPU_HOME=home).stdout == first.stdout, "the same process, found again"
        state = aksgpu("local", "status", AKSGPU_HOME=home)
        assert state.returncode == 0
        assert "clusters        none" in state.stdout
        token = (tmp_path / "home" / "token").read_text().strip()
        assert token not in first.stdout + state.stdout
    finally:
        stopped = aksgpu("local", "stop", AKSGPU_HOME=home)
    assert (stopped.returncode, stopped.stdout) == (0, "The laptop AKS is stopped.\n")
    assert aksgpu("local", "stop", AKSGPU_HOME=home).returncode == 0, "twice is fine"
    assert "stopped" in aksgpu("local", "status", AKSGPU_HOME=home).stdout


def test_errors_have_a_hint_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = aksgpu("local", "start", AKSGPU_HOME=str(tmp_path / "file" / "home"))
    assert done.returncode == 1
    assert done.stderr.startswith("aksgpu: the laptop AKS cannot store its files in")
    assert "Hint: Set AKSGPU_HOME" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = aksgpu("tutorial", "--output", str(tmp_path / "file" / "out"))
    assert done.returncode == 1
    assert "cannot write to" in done.stderr
    assert "--output" in done.stderr
    assert "Traceback" not in done.stderr


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def interrupt(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tutorial, "execute", interrupt)
    assert cli.main(["tutorial", "--output", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "aksgpu: interrupted\n"


def test_open_copies_and_says_how_to_get_jupyterlab(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda _: None)
    assert cli.main(["tutorial", "--open", "--output", str(tmp_path)]) == 1
    assert "pip install jupyterlab" in capsys.readouterr().err
    assert cli.main(["tutorial", "--open", "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().out == "", "copies that nobody has changed are no news"
    copies = sorted(path.name for path in tmp_path.iterdir())
    assert copies == [path.name for path in (*tutorial.notebooks(), *tutorial.further())]

    (tmp_path / copies[0]).write_text("mine")
    opened: list[list[str]] = []
    monkeypatch.setattr(cli, "find_spec", lambda _: object())
    monkeypatch.setattr(cli.subprocess, "call", lambda command: opened.append(command) or 0)
    assert cli.main(["tutorial", "--open", "--output", str(tmp_path)]) == 0
    assert opened == [[sys.executable, "-m", "jupyterlab", str(tmp_path / "01-cluster.ipynb")]]
    assert (tmp_path / copies[0]).read_text() == "mine", "a copy that the user has worked in stays"
    output = capsys.readouterr().out
    assert output.startswith(f"Not replaced in {tmp_path}: 01-cluster.ipynb. Delete or rename"), output
