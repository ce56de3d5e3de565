from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aksgpu.errors import LaptopError
from aksgpu.local.cluster_runtime import Clusters
from aksgpu.local.settings import Settings


@pytest.fixture
async def clusters(tmp_path: Path) -> AsyncIterator[Clusters]:
    clusters = Clusters(tmp_path, Settings(time_scale=0.05), lambda *_: False)
    yield clusters
    await clusters.close_all()


async def test_a_cluster_that_is_being_deleted_is_not_opened_again(clusters: Clusters, tmp_path: Path) -> None:
    """A request for its objects waits until it is closed."""
    await clusters.open("id", "token", "1.36.2")
    assert (tmp_path / "clusters" / "id").exists()
    deletion = asyncio.create_task(clusters.delete("id"))
    await asyncio.sleep(0)
    with pytest.raises(LaptopError, match="is being deleted"):
        await clusters.open("id", "token", "1.36.2")
    await deletion
    assert not (tmp_path / "clusters" / "id").exists()
