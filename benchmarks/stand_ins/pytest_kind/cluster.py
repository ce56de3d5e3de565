"""The class that the fixtures of kr8s use."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

__all__ = ["KindCluster"]


class KindCluster:
    """The cluster that ``foreign_suites.py`` has created."""

    def __init__(self, name: str = "", image: str | None = None) -> None:
        self.kubeconfig_path = Path(os.environ["FOREIGN_KUBECONFIG"])
        self.kubectl_path = "kubectl"

    def create(self) -> None:
        """Do nothing: the cluster exists."""

    def delete(self) -> None:
        """Do nothing: ``foreign_suites.py`` deletes the cluster."""

    def kubectl(self, *args: str) -> str:
        """Run kubectl, and return its output."""
        command = [self.kubectl_path, f"--kubeconfig={self.kubeconfig_path}", *args]
        return subprocess.check_output(command, encoding="utf-8").strip()
