"""The example of checkpoints runs unchanged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aksgpu import local

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_example_checkpoints_runs_unchanged(tmp_path: Path) -> None:
    home = tmp_path / "home"
    env = {**os.environ, "AKSGPU_HOME": str(home), "AKSGPU_TIME_SCALE": "0.05", "AKSGPU_PROGRESS": "0"}
    command = [sys.executable, str(ROOT / "examples" / "checkpoints.py"), str(tmp_path)]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=170, check=False)
    finally:
        local.stop(home=home)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert lines[:3] == [
        "Claim(data: 16 GiB, shared, azurefile-csi, about $0.03 a day)",
        "Transfer(numbers.txt: 1 file, 2.0 kB)",
        "3.0",
    ]
    assert "begins at epoch 5" in done.stdout
    assert json.loads((tmp_path / "checkpoint.json").read_text())["epoch"] == 10
