"""One laptop AKS for all tests of storage, and a claim for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from support.laptop_cluster import aks, azure  # noqa: F401  # fixtures

from aksgpu import storage
from aksgpu.cluster import Cluster
from aksgpu.local.testing import laptop  # noqa: F401  # a fixture


@pytest.fixture
def claim(aks: Cluster) -> Iterator[str]:  # noqa: F811  # the fixture
    """The name of an empty claim. No helper pod is left after the test."""
    name = f"claim-{uuid.uuid4().hex[:8]}"
    storage.create(aks, name, size_gb=1)
    yield name
    assert helpers(aks) == []
    storage.delete(aks, name)


def helpers(aks: Cluster) -> list[str]:  # noqa: F811  # the fixture
    """Return the names of helper Jobs and pods that exist."""
    selector = "aksgpu.dev/storage=helper"
    return [
        str(each["metadata"]["name"])
        for kind in ("Job", "Pod")
        for each in aks.kube.list(kind, label_selector=selector)
    ]
