"""The device plugin's configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aksgpu.local.images import device_plugin


@pytest.mark.parametrize(
    ("slicing", "resource", "count"),
    [
        ({}, "nvidia.com/gpu", 2),
        ({"resources": []}, "nvidia.com/gpu", 2),
        ({"resources": [{"name": "nvidia.com/gpu", "replicas": 4}]}, "nvidia.com/gpu", 8),
        ({"resources": [{"name": "nvidia.com/mig-1g.5gb", "replicas": 4}]}, "nvidia.com/gpu", 2),
        (
            {"renameByDefault": True, "resources": [{"name": "nvidia.com/gpu", "replicas": 2}]},
            "nvidia.com/gpu.shared",
            4,
        ),
    ],
)
def test_time_slicing(slicing: dict[str, Any], resource: str, count: int) -> None:
    config = {"version": "v1", "sharing": {"timeSlicing": slicing}}
    name, ids = device_plugin.shared_devices("nvidia.com/gpu", ["GPU-a", "GPU-b"], config)
    assert (name, len(ids), len(set(ids))) == (resource, count, count)
    assert {each.partition(device_plugin.REPLICA)[0] for each in ids} == {"GPU-a", "GPU-b"}


@pytest.mark.parametrize(("replicas", "fail", "limit"), [(4, True, 1), (4, False, None), (0, True, None)])
def test_a_limit_on_requests_is_for_shared_devices(replicas: int, fail: bool, limit: int | None) -> None:
    rows = [{"name": "nvidia.com/gpu", "replicas": replicas}] if replicas else []
    config = {"sharing": {"timeSlicing": {"failRequestsGreaterThanOne": fail, "resources": rows}}}
    _, ids = device_plugin.shared_devices("nvidia.com/gpu", ["GPU-a", "GPU-b"], config)
    assert device_plugin.max_request(ids, config) == limit


def test_a_configuration_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("version: v1\nsharing: {mps: {resources: [{name: nvidia.com/gpu, replicas: 2}]}}\n")
    assert device_plugin.read_config(str(path))["version"] == "v1"
    assert "sharing.mps has no effect" in capsys.readouterr().err
    path.write_text("version: v1\nflags: {migStrategy: none, deviceListStrategy: envvar}\n")
    device_plugin.read_config(str(path))
    assert capsys.readouterr().err.count("has no effect") == 1
    path.write_text("")
    assert device_plugin.read_config(str(path)) == device_plugin.read_config("") == {}
