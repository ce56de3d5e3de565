"""One laptop AKS with a GPU node for all tests of functions that run as Jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.laptop_cluster import aks, azure  # noqa: F401  # fixtures

from aksgpu import jobs
from aksgpu.cluster import Cluster
from aksgpu.local.testing import laptop  # noqa: F401  # a fixture

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def cpu(aks: Cluster) -> jobs.Executor:  # noqa: F811  # the fixture
    """An Executor without GPUs, so that the tests' Jobs run side by side."""
    return jobs.Executor(aks, gpus=0, root=HERE)


@pytest.fixture
def clean(aks: Cluster) -> Iterator[None]:  # noqa: F811  # the fixture
    """Delete the Jobs of a test."""
    yield
    for job in aks.kube.list("Job"):
        jobs.Job(aks, job["metadata"]["name"]).delete()
