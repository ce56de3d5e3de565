"""Executing notebooks, with a small set of them. test_notebooks.py tests the tutorial's own."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from support.polling import wait_for

from aksgpu import local, tutorial
from aksgpu.errors import AksGpuError

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def write(folder: Path, name: str, *cells: str, tags: dict[int, str] | None = None) -> None:
    made = [nbformat.v4.new_code_cell(cell) for cell in cells]
    for number, tag in (tags or {}).items():
        made[number].metadata["tags"] = [tag]
    nbformat.write(nbformat.v4.new_notebook(cells=made), folder / name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    monkeypatch.setattr(tutorial, "notebooks", lambda: sorted(source.glob("*.ipynb")))
    return source


def test_the_notebooks_are_found_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [path.name[:2] for path in tutorial.notebooks()] == ["01", "02", "03", "04", "05", "06"]
    further = [path.name[:2] for path in tutorial.further()]
    assert further[:3] == ["07", "08", "09"]
    assert further == sorted(set(further))


def test_all_are_executed_and_written(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        folder,
        "01-a.ipynb",
        "import aksgpu\nazure = aksgpu.connect()\nazure.subscription_id",
        "import os\n{name: name in os.environ['AKSGPU_HOME'] for name in ('aksgpu-',)}",
    )
    write(
        folder,
        "02-b.ipynb",
        "import pandas as pd\npd.DataFrame({'step': range(3)})",
        f"import base64\nfrom IPython.display import Image\nImage(base64.b64decode('{PIXEL}'), format='png')",
        tags={0: "accuracy", 1: "curve"},
    )
    before = dict(os.environ)
    running = set(children())
    done = tutorial.execute(tmp_path / "out")
    assert os.environ == before
    assert [path.name for path in done.notebooks] == ["01-a.ipynb", "02-b.ipynb"]
    assert [path.name for path in done.pages] == ["01-a.html", "02-b.html"]
    assert "00000000-0000-0000-0000-000000000000" in done.pages[0].read_text()
    assert done.curve.read_bytes().startswith(b"\x89PNG")
    assert done.table.splitlines()[-1].split() == ["2", "2"]
    executed = nbformat.read(done.notebooks[0], as_version=4)
    assert [cell.execution_count for cell in executed.cells] == [1, 2]
    bars = capsys.readouterr().err
    assert "01-a: 100%" in bars
    assert "02-b: 100%" in bars
    assert "WARNING" not in bars
    assert set(children()) <= running, "no kernel is left"


def test_a_failing_cell(folder: Path, tmp_path: Path) -> None:
    write(folder, "01-a.ipynb", "print('so far')", "1 / 0", "print('never')")
    running = set(children())
    with pytest.raises(AksGpuError, match=r"01-a.ipynb failed: ZeroDivisionError: division by zero") as failed:
        tutorial.execute(tmp_path / "out", progress=False)
    written = tmp_path / "out" / "01-a.ipynb"
    assert str(written) in failed.value.hint
    first, second, third = nbformat.read(written, as_version=4).cells
    assert first.outputs[0].text == "so far\n"
    assert second.outputs[0].ename == "ZeroDivisionError"
    assert third.outputs == []
    assert set(children()) <= running, "no kernel is left"


def test_warnings_of_the_tagged_cells_do_not_matter(folder: Path, tmp_path: Path) -> None:
    """Such as matplotlib's warning on stderr, before the picture, if it cannot write to the home directory."""
    write(
        folder,
        "01-a.ipynb",
        "import sys\nprint('cannot write', file=sys.stderr)\n'the table'",
        "import base64, logging, warnings\nfrom IPython.display import Image, display\n"
        "warnings.warn('no cache')\nlogging.warning('no home')\n"
        f"display(Image(base64.b64decode('{PIXEL}'), format='png'))\nprint('done')",
        tags={0: "accuracy", 1: "curve"},
    )
    done = tutorial.execute(tmp_path / "out", progress=False)
    assert done.table == "'the table'"
    assert done.curve.read_bytes().startswith(b"\x89PNG")


def test_a_tagged_cell_without_a_picture(folder: Path, tmp_path: Path) -> None:
    write(folder, "01-a.ipynb", "'the table'", "print('no picture')", tags={0: "accuracy", 1: "curve"})
    with pytest.raises(AksGpuError, match=r"no cell with the tag 'curve' has an output of type image/png") as failed:
        tutorial.execute(tmp_path / "out", progress=False)
    assert f"{tmp_path / 'out'}/*.html" in failed.value.hint


def test_a_kernel_that_dies(folder: Path, tmp_path: Path) -> None:
    write(folder, "01-a.ipynb", "import os\nos._exit(1)")
    with pytest.raises(AksGpuError, match=r"01-a.ipynb failed: DeadKernelError"):
        tutorial.execute(tmp_path / "out", progress=False)


def test_interrupted(folder: Path, tmp_path: Path) -> None:
    write(folder, "01-a.ipynb", f"open({str(tmp_path / 'begun')!r}, 'w')\nimport time\ntime.sleep(60)")
    program = (
        "import pathlib, sys; from aksgpu import cli, tutorial\n"
        f"tutorial.notebooks = lambda: [pathlib.Path({str(folder / '01-a.ipynb')!r})]\n"
        f"sys.exit(cli.main(['tutorial', '--output', {str(tmp_path / 'out')!r}]))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "begun").exists, timeout=60)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.endswith("aksgpu: interrupted\n")
    assert "Traceback" not in stderr


@pytest.mark.filterwarnings("ignore:'aksgpu.tutorial' found in sys.modules")
def test_the_help_of_the_module_executes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start_no_laptop(**_: object) -> None:
        raise AssertionError("the notebooks are executed")

    monkeypatch.setattr(local, "laptop", start_no_laptop)
    monkeypatch.setattr(sys, "argv", ["tutorial.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("aksgpu.tutorial", run_name="__main__")
    assert ended.value.code == 0
    assert "in place" in capsys.readouterr().out
