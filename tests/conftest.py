"""Shared fixtures: every test runs against a home of its own, never the user's."""

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

# Begun in the background of a script, Python inherits SIGINT ignored; the tests of interrupts send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    """Stop what a test left running in the home, and remove it."""
    from aksgpu import local

    local.stop()
    shutil.rmtree(_HOME, ignore_errors=True)
