"""A cluster on a private laptop AKS, like the recorded one: a node without taints that has one GPU, and kubectl.

PYTEST_DONT_REWRITE: tests import names from this plugin before pytest can rewrite its assertions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import urllib3
import yaml

import aksgpu
from aksgpu import cluster
from aksgpu.cluster import Cluster
from aksgpu.local import Endpoint

T4 = "Standard_NC4as_T4_v3"


def kubectls(*, oldest: int = 29) -> list[str]:
    """Return the kubectl binaries of this machine, the newest last.

    These are the binaries ``kubectl.1.*`` in the directory of the one on PATH, or that one itself.

    Args:
        oldest: the minor version of the oldest one. Those before 1.29 cannot use WebSockets.
    """
    found = shutil.which("kubectl")
    if not found:
        return []
    versions = sorted(str(path) for path in Path(found).resolve().parent.glob("kubectl.1.*"))
    return [path for path in versions if int(path.rpartition(".")[2]) >= oldest] or [found]


def version_of(binary: str) -> str:
    return Path(binary).name.removeprefix("kubectl.")


@dataclass
class LiveCluster:
    """A running cluster, with what other clients need to reach it."""

    aks: Cluster
    folder: Path
    kubeconfig: Path
    server: str
    token: str
    ca: Path

    def command(self, binary: str, *args: str) -> list[str]:
        """Return a kubectl command line for this cluster."""
        return [binary, f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.folder / 'cache'}", *args]

    def kubectl(self, binary: str, *args: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Run kubectl in a clean environment."""
        return subprocess.run(
            self.command(binary, *args),
            input=stdin,
            env={"HOME": str(self.folder), "PATH": os.environ["PATH"], **env},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> urllib3.BaseHTTPResponse:
        """Send a request. A body that is not bytes is sent as JSON."""
        defaults = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        with urllib3.PoolManager(ca_certs=str(self.ca), retries=False, timeout=60) as pool:
            return pool.request(method, self.server + path, body=data, headers=defaults | headers)


@contextmanager
def new_cluster(laptop: Endpoint, name: str, folder: Path) -> Iterator[LiveCluster]:
    """Create a cluster and delete it at the end of the block."""
    aks = cluster.create(aksgpu.connect(laptop), name, resource_group=name, location="eastus", vm_size=T4, node_count=1)
    path = cluster.kubeconfig(aks)
    kubeconfig = yaml.safe_load(path.read_text())
    server = kubeconfig["clusters"][0]["cluster"]["server"]
    token = kubeconfig["users"][0]["user"]["token"]
    yield LiveCluster(aks, folder, path, server, token, laptop.ca_file)
    cluster.delete(aks)


@pytest.fixture(scope="session")
def live_cluster(laptop: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    with new_cluster(laptop, "whole", tmp_path_factory.mktemp("kubectl")) as live_cluster:
        yield live_cluster
