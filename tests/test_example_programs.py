"""The README's first program and the examples, run as a user runs them: a new process in an empty directory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aksgpu import local
from aksgpu.local import Endpoint

REPO = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with local.laptop(time_scale=0.05) as found:
        yield found


def run(endpoint: Endpoint, directory: Path, *command: str) -> str:
    """Run a Python program, and return what it prints. It must succeed, and print nothing to stderr."""
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "AKSGPU_HOME": str(endpoint.home), "AKSGPU_PROGRESS": "0"},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_readmes_first_program_prints_what_the_readme_says(endpoint: Endpoint, tmp_path: Path) -> None:
    text = (REPO / "README.md").read_text()
    found = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert found is not None
    (tmp_path / "first.py").write_text(found[1])
    assert run(endpoint, tmp_path, "first.py") == found[2]


@pytest.mark.slow
def test_a_function(endpoint: Endpoint, tmp_path: Path) -> None:
    lines = run(endpoint, tmp_path, str(REPO / "examples" / "own_function.py"), "curve.png").splitlines()
    assert lines[0] == "slope 3.00"
    assert [line.split() for line in lines[1:5]] == [
        ["step", "loss"],
        ["47", "48", "0.011"],
        ["48", "49", "0.011"],
        ["49", "50", "0.011"],
    ]
    assert lines[5:] == [
        "rate 0.2: slope 2.92",
        "rate 0.5: slope 3.00",
        "rate 1.0: slope 3.00",
        "the training diverges in step 14: the rate 10.0 is too large",
        "Deletion(deleted cluster myAKSCluster and resource group myResourceGroup)",
    ]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_script_with_its_project(endpoint: Endpoint, tmp_path: Path) -> None:
    lines = run(endpoint, tmp_path, str(REPO / "examples" / "own_script.py"), "curve.png").splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["epoch", "loss", "val_accuracy"],
        ["18.0", "0.2371", "0.965"],
        ["19.0", "0.2305", "0.967"],
        ["20.0", "0.2244", "0.967"],
    ]
    assert lines[4:] == ["Deletion(deleted cluster myAKSCluster and resource group myResourceGroup)"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert not list(REPO.glob("examples/project/**/__pycache__"))


def test_the_script_also_runs_here() -> None:
    project = REPO / "examples" / "project"
    done = subprocess.run(
        [sys.executable, "-B", "train.py", "--epochs", "20"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.splitlines()[-1] == "epoch 20: loss=0.2244 val_loss=0.2336 val_accuracy=0.967"
