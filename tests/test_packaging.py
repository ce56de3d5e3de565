"""The wheel contains the package and the notebooks, without the tests' configuration."""

from __future__ import annotations

from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from aksgpu import tutorial

REPO = Path(__file__).parents[1]


def test_the_wheel_contains_only_notebooks_of_the_notebooks_folder() -> None:
    included = {file.distribution_path for file in WheelBuilder(str(REPO)).recurse_included_files()}
    notebooks = {path.name for path in (*tutorial.notebooks(), *tutorial.further())}
    assert {path for path in included if "notebooks" in path} == {f"aksgpu/_notebooks/{name}" for name in notebooks}
    for name in ("__init__.py", "manifests/mnist.yaml", "local/images/mnist.py"):
        assert f"aksgpu/{name}" in included
    assert not [path for path in included if not path.startswith("aksgpu/")]
