from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aksgpu.errors import InvalidInput
from aksgpu.local import images
from aksgpu.local.images import image_registry


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("microsoft/samples-tf-mnist-demo:gpu", "docker.io/microsoft/samples-tf-mnist-demo:gpu"),
        ("nvcr.io/nvidia/k8s-device-plugin:v0.18.0", "nvcr.io/nvidia/k8s-device-plugin:v0.18.0"),
        ("localhost:5000/mine", "localhost:5000/mine:latest"),
        ("localhost/mine:2", "localhost/mine:2"),
        ("ubuntu@sha256:" + "a" * 64, "docker.io/library/ubuntu@sha256:" + "a" * 64),
        ("ubuntu:22.04@sha256:" + "a" * 64, "docker.io/library/ubuntu@sha256:" + "a" * 64),
    ],
)
def test_normalise(reference: str, full: str) -> None:
    assert images.normalise(reference) == full


@pytest.mark.parametrize(
    "reference", ["", "UPPER", "a b", "a:", ":tag", "a//", "x@sha256:12", "../etc", "a" + "-" * 5000]
)
def test_bad_reference(reference: str) -> None:
    with pytest.raises(InvalidInput, match="invalid reference format"):
        images.normalise(reference)


@pytest.mark.parametrize(
    ("reference", "module"),
    [
        ("microsoft/samples-tf-mnist-demo:gpu", "mnist"),
        ("mcr.microsoft.com/azuredocs/samples-tf-mnist-demo:gpu", "mnist"),
        ("nvidia/k8s-device-plugin:1.11", "device_plugin"),
        ("nvcr.io/nvidia/k8s-device-plugin:v0.18.0", "device_plugin"),
    ],
)
def test_programs_of_aksgpu(reference: str, module: str) -> None:
    image = images.find(reference)
    assert image is not None
    assert image.entrypoint[-1] == f"aksgpu.local.images.{module}"
    assert image.all_gpus is (module == "device_plugin")


@pytest.mark.parametrize(
    "reference", ["busybox", "docker.io/local/busybox:1", "python:3.12-slim", "alpine", "debian:12"]
)
def test_images_without_a_program_run_the_command(reference: str) -> None:
    image = images.find(reference)
    assert image is not None
    assert image.entrypoint == ()
    assert image.cmd


def test_a_registered_program(tmp_path: Path) -> None:
    assert images.find("me/training:1") is None
    assert 'register("me/training:1", ["python", "train.py"])' in image_registry.advice("me/training:1")
    try:
        images.register("me/training:1", ["python", "train.py"], directory=tmp_path)
        image = images.find("docker.io/me/training:1")
        assert image is not None
        assert (image.entrypoint, image.directory) == (("python", "train.py"), str(tmp_path))
    finally:
        images.unregister("me/training:1")
    assert images.find("me/training:1") is None
    images.register("elsewhere:1", ["true"], home=tmp_path)
    assert images.find("elsewhere:1") is None
    assert json.loads((tmp_path / "images.json").read_text())["docker.io/library/elsewhere:1"]["command"] == ["true"]


@pytest.mark.parametrize("command", [[], "python train.py"])
def test_bad_command(command: list[str]) -> None:
    with pytest.raises(InvalidInput, match="list of strings"):
        images.register("me/training:1", command)


GPU = {
    "index": 0,
    "uuid": "GPU-1",
    "model": "Tesla T4",
    "memory_mib": 16384,
    "simulated": True,
    "pci_bus_id": "00000001:00:00.0",
    "compute_capability": "7.5",
}


def smi(*args: str, gpus: list[dict[str, object]]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aksgpu.local.images.nvidia_smi", *args]
    env = {"AKSGPU_GPUS": json.dumps(gpus)}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)


def test_nvidia_smi() -> None:
    table = smi(gpus=[GPU])
    assert table.returncode == 0
    assert "| Tesla T4 SIMULATED" in table.stdout.replace("   0  ", " ")
    assert "SIMULATED: this machine has no such GPU" in table.stdout
    widths = {len(line) for line in table.stdout.splitlines() if line.startswith(("|", "+"))}
    assert widths == {91}
    listed = smi("-L", gpus=[GPU])
    assert listed.stdout == "GPU 0: Tesla T4 SIMULATED (UUID: GPU-1)\n"
    assert "SIMULATED" in listed.stderr
    asked = smi("--query-gpu=index,memory.total,fan.speed", "--format=csv,noheader,nounits", gpus=[GPU])
    assert asked.stdout == "0, 16384, [N/A]\n"
    none = smi(gpus=[])
    assert (none.returncode, none.stdout) == (6, "No devices were found\n")


def test_the_call_in_the_hint_works() -> None:
    program = "import aksgpu; print(aksgpu.local.images.register.__name__)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "register\n"
