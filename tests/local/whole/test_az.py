"""The Azure CLI, with the commands of docs/laptop.md."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from aksgpu.local import Endpoint

pytest_plugins = ["aksgpu.local.testing"]

PAGE = Path(__file__).parents[3] / "docs" / "laptop.md"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("az"), reason="no az on PATH")]


def commands() -> str:
    """Return the commands of the section about the Azure CLI."""
    section = PAGE.read_text().partition("### The Azure CLI\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 2
    return "".join(blocks)


def test_the_commands_of_the_page(laptop: Endpoint, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AKSGPU_HOME": str(laptop.home)}
    env |= {"AZURE_CORE_COLLECT_TELEMETRY": "0", "AZURE_CORE_ONLY_SHOW_ERRORS": "1"}
    done = subprocess.run(
        ["bash", "-eux", "-c", commands()], env=env, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    nodes = re.findall(r"aks-(\w+)-\d+-vmss\w+ +Ready", done.stdout)
    assert sorted(nodes) == ["gpunp", "nodepool1"]
