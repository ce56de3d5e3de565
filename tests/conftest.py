"""Shared fixtures: every test runs against a home of its own, never the user's."""

from __future__ import annotations

import os
import tempfile

_HOME = tempfile.mkdtemp(prefix="aksgpu-tests-")
os.environ["AKSGPU_HOME"] = _HOME
os.environ["AKSGPU_PROGRESS"] = "0"
os.environ.pop("AKSGPU_TARGET", None)
os.environ.pop("KUBECONFIG", None)
