"""Settings for all tests. They use their own directory for the laptop AKS, never the user's."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile

_HOME = tempfile.mkdtemp(prefix="aksgpu-tests-")
os.environ["AKSGPU_HOME"] = _HOME
os.environ["AKSGPU_PROGRESS"] = "0"
os.environ.pop("AKSGPU_TARGET", None)
os.environ.pop("KUBECONFIG", None)

# A Python that a script starts in the background ignores SIGINT. The tests of interrupts need it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    """Stop a laptop AKS that a test left running, and remove the directory."""
    from aksgpu import local

    local.stop()
    shutil.rmtree(_HOME, ignore_errors=True)
