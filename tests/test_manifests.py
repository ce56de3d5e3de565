"""The manifests: those of the tutorial, and invalid arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from aksgpu import manifests
from aksgpu.errors import InvalidInput

TUTORIAL = Path(__file__).parent / "data" / "tutorial" / "use-gpus-on-aks-2020-it.md"


def pod_spec(obj: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = obj["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("name", ["device-plugin-2020", "mnist-2020"])
def test_the_2020_files_are_the_tutorials(name: str) -> None:
    printed = [block.split("```")[0] for block in TUTORIAL.read_text().split("```yaml\n")[1:]]
    assert yaml.safe_load(manifests.path(name).read_text()) in [yaml.safe_load(block) for block in printed]


def test_the_current_device_plugin() -> None:
    (daemon_set,) = manifests.device_plugin()
    assert daemon_set["metadata"] == {"name": "nvidia-device-plugin-daemonset", "namespace": "gpu-resources"}
    spec = pod_spec(daemon_set)
    assert spec["containers"][0]["image"] == "nvcr.io/nvidia/k8s-device-plugin:v0.18.0"
    assert spec["containers"][0]["env"] == [{"name": "FAIL_ON_INIT_ERROR", "value": "false"}]
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["tolerations"] == [{"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}]


def test_device_plugin_2020() -> None:
    (daemon_set,) = manifests.device_plugin("2020")
    spec = pod_spec(daemon_set)
    assert spec["containers"][0]["image"] == "nvidia/k8s-device-plugin:1.11"
    assert [toleration["key"] for toleration in spec["tolerations"]] == ["CriticalAddonsOnly", "nvidia.com/gpu"]


@pytest.mark.parametrize(
    ("version", "image"),
    [
        ("current", "mcr.microsoft.com/azuredocs/samples-tf-mnist-demo:gpu"),
        ("2020", "microsoft/samples-tf-mnist-demo:gpu"),
    ],
)
def test_mnist(version: manifests.Version, image: str) -> None:
    job = manifests.mnist(version)
    (container,) = pod_spec(job)["containers"]
    assert container["image"] == image
    assert container["args"] == ["--max_steps", "500"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1, "the tutorial writes the integer"
    assert ("tolerations" in pod_spec(job)) == (version == "current")


def test_mnist_takes_arguments_and_returns_a_new_dict_each_time() -> None:
    job = manifests.mnist(max_steps=20, learning_rate=0.01, name="fast")
    assert job["metadata"] == {"name": "fast", "labels": {"app": "fast"}}
    assert job["spec"]["template"]["metadata"]["labels"] == {"app": "fast"}
    assert pod_spec(job)["containers"][0]["args"] == ["--max_steps", "20", "--learning_rate", "0.01"]
    assert manifests.mnist()["metadata"]["name"] == "samples-tf-mnist-demo"


def test_path_takes_the_name_with_and_without_its_ending() -> None:
    assert manifests.path("mnist") == manifests.path("mnist.yaml")
    assert manifests.path("mnist").is_file()


@pytest.mark.parametrize("name", ["nothing", "../cli", ""])
def test_a_file_that_does_not_exist(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"Choose one of device-plugin, device-plugin-2020, mnist, mnist-2020"):
        manifests.path(name)


def test_bad_arguments() -> None:
    with pytest.raises(InvalidInput, match=r"`version` must be .* got '2019'"):
        manifests.mnist("2019")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"`version` must be .* got 'new'"):
        manifests.device_plugin("new")  # type: ignore[arg-type]
    for steps in (0, -1, 1.5, True):
        with pytest.raises(InvalidInput, match="max_steps"):
            manifests.mnist(max_steps=steps)  # type: ignore[arg-type]
    for rate in (0.0, -0.1, float("nan"), float("inf")):
        with pytest.raises(InvalidInput, match="learning_rate"):
            manifests.mnist(learning_rate=rate)
    for name, better in {
        "MyJob": "myjob",
        "a.b": "a-b",
        "x" * 80: "x" * 63,
        "": "training-1",
        5: "training-1",
        "\ud800": "training",
    }.items():
        with pytest.raises(InvalidInput, match="`name` must be") as refused:
            manifests.mnist(name=name)
        assert f"name='{better}" in refused.value.hint
    for wrong in ("0.1", True, None, [1]):
        with pytest.raises(InvalidInput, match=r"`learning_rate`|`pass_device_specs`"):
            manifests.mnist(learning_rate=wrong) if wrong else manifests.device_plugin(pass_device_specs=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="`version`"):
        manifests.mnist([])  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="`name`"):
        manifests.path(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="max_steps"):
        manifests.mnist(max_steps=10**5000)
