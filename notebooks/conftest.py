"""The notebooks run in order on one laptop AKS, as a user's do, and never on the user's own."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

_HOME = Path(tempfile.gettempdir()) / f"aksgpu-notebooks-{os.getpid()}"
_ENVIRONMENT = {
    "AKSGPU_HOME": str(_HOME),
    "AKSGPU_TARGET": "local",
    "AKSGPU_PROGRESS": "0",  # bars tell times
    "AKSGPU_TIME_SCALE": "0.05",
    "CUDA_VISIBLE_DEVICES": "",  # the stored outputs are those of a machine without GPUs
    "KUBECONFIG": str(_HOME / "kubeconfig"),
}
_patch = pytest.MonkeyPatch()


@pytest.hookimpl(tryfirst=True)  # before the notebook's kernel is started, which inherits it
def pytest_runtest_setup() -> None:
    """Give the kernel an environment of its own."""
    for name, value in _ENVIRONMENT.items():
        _patch.setenv(name, value)


def pytest_runtest_teardown() -> None:
    """Give the other tests back theirs."""
    _patch.undo()


def pytest_sessionfinish() -> None:
    """Stop the laptop that the notebooks started."""
    if _HOME.exists():
        from aksgpu import local

        local.stop(home=_HOME)
        shutil.rmtree(_HOME, ignore_errors=True)
