"""Settings for the notebooks. They run in order on one laptop AKS, which is not the user's."""

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
    "AKSGPU_PROGRESS": "0",  # progress shows times, which differ between runs
    "AKSGPU_TIME_SCALE": "0.05",
    "CUDA_VISIBLE_DEVICES": "",  # the stored outputs are those of a machine without GPUs
    "KUBECONFIG": str(_HOME / "kubeconfig"),
}
_patch = pytest.MonkeyPatch()


@pytest.hookimpl(tryfirst=True)  # before the notebook's kernel starts, because it inherits the environment
def pytest_runtest_setup() -> None:
    """Set the environment of the notebook's kernel."""
    for name, value in _ENVIRONMENT.items():
        _patch.setenv(name, value)


def pytest_runtest_teardown() -> None:
    """Restore the environment for the other tests."""
    _patch.undo()


def pytest_sessionfinish() -> None:
    """Stop the laptop that the notebooks started."""
    if _HOME.exists():
        from aksgpu import local

        local.stop(home=_HOME)
        shutil.rmtree(_HOME, ignore_errors=True)
