"""A fixture: the API server's registry, without HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aksgpu.local.api.registry import Registry
from aksgpu.local.api.store import Store


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = Registry(Store(tmp_path / "kube.db"))
    await registry.open()
    yield registry
    await registry.close()
