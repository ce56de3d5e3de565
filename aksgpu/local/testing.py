"""Pytest fixtures: a laptop AKS of the test session's own.

pytest_plugins = ["aksgpu.local.testing"]

PYTEST_DONT_REWRITE: nothing is asserted here, and a conftest may import the fixture by its name.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aksgpu.local.process import Endpoint
from aksgpu.local.process import laptop as private_laptop


@pytest.fixture(scope="session")
def laptop() -> Iterator[Endpoint]:
    """A private laptop AKS for the whole session, on a free port, where simulated time runs twenty times as fast."""
    with private_laptop(time_scale=0.05) as endpoint:
        yield endpoint
