"""What the wheel holds: the package and the notebooks, and nothing of what tests them."""

from __future__ import annotations

from pathlib import Path

import pytest

from aksgpu import tutorial

REPO = Path(__file__).parents[1]


def test_of_the_notebooks_folder_only_notebooks_travel() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="the build backend is not installed")
    travels = {file.distribution_path for file in wheel.WheelBuilder(str(REPO)).recurse_included_files()}
    notebooks = {path.name for path in (*tutorial.notebooks(), *tutorial.further())}
    assert {path for path in travels if "notebooks" in path} == {f"aksgpu/_notebooks/{name}" for name in notebooks}
    for name in ("__init__.py", "manifests/mnist.yaml", "local/images/mnist.py"):
        assert f"aksgpu/{name}" in travels
    assert not [path for path in travels if not path.startswith("aksgpu/")]
