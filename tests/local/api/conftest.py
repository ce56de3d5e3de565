from __future__ import annotations

from typing import Any

import pytest
from support.registry import registry as registry


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
