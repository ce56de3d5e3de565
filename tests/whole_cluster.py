"""A cluster of the recordings' kind on a private laptop AKS, one untainted node with one GPU, and kubectl for it.

PYTEST_DONT_REWRITE: tests import names of this plugin.
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


def kubectls() -> list[str]:
    """The kubectl binaries of this machine, the newest last: those beside a dispatcher, or the one on PATH.

    1.27 and 1.28 want OpenAPI v2 in protobuf, which the laptop does not have.
    """
    found = shutil.which("kubectl")
    if not found:
        return []
    beside = sorted(str(path) for path in Path(found).resolve().parent.glob("kubectl.1.*"))
    return [path for path in beside if not path.endswith((".1.27", ".1.28"))] or [found]


def version_of(binary: str) -> str:
    return Path(binary).name.removeprefix("kubectl.")


@dataclass
class Whole:
    """The cluster, as clients reach it that know nothing of this project."""

    aks: Cluster
    folder: Path
    kubeconfig: Path
    server: str
    token: str
    ca: Path

    def command(self, binary: str, *args: str) -> list[str]:
        return [binary, f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.folder / 'cache'}", *args]

    def kubectl(self, binary: str, *args: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        command, environment = self.command(binary, *args), {"HOME": str(self.folder), "PATH": os.environ["PATH"]} | env
        return subprocess.run(
            command, input=stdin, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> urllib3.BaseHTTPResponse:
        """One request; a body that is not bytes goes as JSON."""
        own = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        pool = urllib3.PoolManager(ca_certs=str(self.ca), retries=False, timeout=30)
        with pool:
            return pool.request(method, self.server + path, body=data, headers=own | headers)


@contextmanager
def new_cluster(laptop: Endpoint, name: str, folder: Path) -> Iterator[Whole]:
    aks = cluster.create(aksgpu.connect(laptop), name, resource_group=name, location="eastus", vm_size=T4, node_count=1)
    config = cluster.kubeconfig(aks)
    read = yaml.safe_load(config.read_text())
    server, token = read["clusters"][0]["cluster"]["server"], read["users"][0]["user"]["token"]
    yield Whole(aks, folder, config, server, token, laptop.ca_file)
    cluster.delete(aks)


@pytest.fixture(scope="session")
def whole(laptop: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with new_cluster(laptop, "whole", tmp_path_factory.mktemp("kubectl")) as made:
        yield made
