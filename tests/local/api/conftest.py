from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aksgpu.local.api.registry import Registry
from aksgpu.local.api.store import Store


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = Registry(Store(tmp_path / "kube.db"))
    await registry.open()
    yield registry
    await registry.close()


@pytest.fixture
def pod() -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "main", "image": "busybox:1"}]}}


@pytest.fixture
def job() -> dict[str, Any]:
    container = {"name": "main", "image": "busybox:1", "resources": {"limits": {"nvidia.com/gpu": 1}}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "train"},
        "spec": {"template": {"spec": {"containers": [container], "restartPolicy": "Never"}}},
    }
