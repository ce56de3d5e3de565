"""Pytest fixtures: a laptop AKS of the test session's own.

pytest_plugins = ["aksgpu.local.testing"]
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aksgpu.local.private import laptop as private_laptop
from aksgpu.local.process import Endpoint

TEST_TIME_SCALE = 0.05


@pytest.fixture(scope="session")
def laptop() -> Iterator[Endpoint]:
    """A private laptop AKS for the whole session, on a free port, where simulated time runs twenty times as fast."""
    with private_laptop(time_scale=TEST_TIME_SCALE) as endpoint:
        yield endpoint
