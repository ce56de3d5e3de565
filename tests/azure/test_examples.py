from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from aksgpu import local

ROOT = Path(__file__).parents[2]


def test_the_example_before_you_spend_runs_unchanged(tmp_path: Path) -> None:
    env = {**os.environ, "AKSGPU_HOME": str(tmp_path), "AKSGPU_TIME_SCALE": "0.05"}
    command = [sys.executable, str(ROOT / "examples" / "before_you_spend.py")]
    try:
        output = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=True).stdout
    finally:
        local.stop(home=tmp_path)
    assert "Standard_NC4as_T4_v3 in eastus: yes" in output
    assert "StandardNCADSA100v4Family: 48 of 48 vCPUs left, 72 requested" in output
    assert output.endswith("True\n")
