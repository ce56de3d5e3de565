from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from aksgpu import errors, manifests
from aksgpu.diagnose.gpu_failures import from_log
from aksgpu.diagnose.scheduling_events import from_event

TEXTS = yaml.safe_load((Path(__file__).parent / "data" / "gpu-failures.yaml").read_text())


@pytest.mark.parametrize("text", TEXTS, ids=[text["name"] for text in TEXTS])
def test_each_text_gives_its_class_its_facts_and_a_hint(text: dict[str, Any]) -> None:
    if "event" in text:
        error: errors.AksGpuError | None = from_event(text["event"], text["text"])
    else:
        failure = from_log(text["log"])
        error = failure.error() if failure else None
    assert error is not None
    assert type(error) is getattr(errors, text["kind"])
    for name, value in text["facts"].items():
        assert getattr(error, name) == value, name
    assert text["hint"] in error.hint


def test_other_texts_are_not_gpu_failures() -> None:
    assert from_log("Accuracy at step 10: 0.7457\nTesla T4") is None
    assert from_event("Pulled", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.") is None
    assert from_event("FailedScheduling", "running PreBind plugin: binding volumes") is None


def test_the_plugin_can_pass_device_files() -> None:
    daemon = manifests.device_plugin(pass_device_specs=True)[0]
    env = daemon["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "PASS_DEVICE_SPECS", "value": "true"} in env
    assert "PASS_DEVICE_SPECS" not in str(manifests.device_plugin())
    assert "PASS_DEVICE_SPECS" in str(manifests.device_plugin("2020", pass_device_specs=True))


def test_the_original_exception_is_kept() -> None:
    error = errors.JobFailed("failed", reason="BackoffLimitExceeded")
    assert error.original is None
    error.__cause__ = errors.DriverMismatch("mismatch", library="580")
    assert isinstance(error.original, errors.DriverMismatch)
    with pytest.raises(TypeError, match="nonsense"):
        errors.PodPending("", nonsense=1)
