"""One cluster on a private laptop AKS for all tests of the library's Kubernetes side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import aksgpu
from aksgpu import cluster, plugin
from aksgpu.cluster import Cluster
from aksgpu.local import Endpoint


@pytest.fixture(scope="session")
def azure(laptop: Endpoint) -> Any:
    return aksgpu.connect(laptop)


@pytest.fixture(scope="session")
def aks(azure: Any) -> Iterator[Cluster]:
    """A system pool, a tainted GPU pool with one T4, and the device plugin."""
    made = cluster.create(azure, "library", resource_group="library", location="eastus")
    cluster.add_gpu_pool(made, "gpunp", vm_size="Standard_NC4as_T4_v3", count=1)
    plugin.install(made, timeout=60)
    yield made
    cluster.delete(made)
