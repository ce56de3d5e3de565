"""A pytest plugin with a laptop AKS for the test session.

    pytest_plugins = ["aksgpu.local.testing"]

PYTEST_DONT_REWRITE: the module has no assertions, and a conftest may import the fixture by name.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aksgpu.local.process import Endpoint
from aksgpu.local.process import laptop as private_laptop


@pytest.fixture(scope="session")
def laptop() -> Iterator[Endpoint]:
    """Provide a private laptop AKS for the whole session. Simulated time runs at 20 times the usual speed."""
    with private_laptop(time_scale=0.05) as endpoint:
        yield endpoint
