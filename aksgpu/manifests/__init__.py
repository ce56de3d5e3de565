"""The tutorial's manifests, as YAML files beside this module, and as dicts.

Each comes in today's version and in that of 2020 (``"2020"``): the first for today's GPU pools with the taint
``sku=gpu:NoSchedule``, the second for the walk that the tutorial printed then. The files are meant for ``kubectl apply
-f`` just as well. Nothing here is rendered or templated: who needs another Job writes another dict.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from aksgpu.errors import InvalidInput

Version = Literal["current", "2020"]

__all__ = ["Version", "device_plugin", "mnist", "path"]

_FOLDER = Path(__file__).parent


def path(name: str) -> Path:
    """Where a manifest lies as a file.

    Args:
        name: the file's name, with or without ``.yaml``: ``device-plugin``, ``device-plugin-2020``, ``mnist`` or
            ``mnist-2020``.

    Raises:
        InvalidInput: there is no such manifest.
    """
    known = {file.stem: file for file in _FOLDER.glob("*.yaml")}
    try:
        return known[name.removesuffix(".yaml")]
    except KeyError:
        raise InvalidInput(f"no manifest {name!r}", hint=f"Choose one of {', '.join(sorted(known))}.") from None


def device_plugin(version: Version = "current", *, pass_device_specs: bool = False) -> list[dict[str, Any]]:
    """The NVIDIA device plugin: a DaemonSet in the namespace ``gpu-resources``, which must exist.

    Args:
        version: ``"current"`` or ``"2020"``.
        pass_device_specs: has the plugin pass the GPUs' device files, for nodes whose containers lose their GPU after
            hours ("Failed to initialize NVML: Unknown Error").

    Returns:
        The objects of the file, new at each call.

    Raises:
        InvalidInput: there is no such version.
    """
    objects = _load("device-plugin", version)
    if pass_device_specs:
        for container in objects[-1]["spec"]["template"]["spec"]["containers"]:
            container.setdefault("env", []).append({"name": "PASS_DEVICE_SPECS", "value": "true"})
    return objects


def mnist(
    version: Version = "current",
    *,
    max_steps: int = 500,
    learning_rate: float | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """The tutorial's Job: it trains on MNIST, on one GPU.

    Args:
        version: ``"current"`` or ``"2020"``.
        max_steps: training steps; the program logs its accuracy at every tenth.
        learning_rate: None leaves it to the program (0.001).
        name: of the Job, its container and its ``app`` label; None keeps ``samples-tf-mnist-demo``.

    Returns:
        The Job, new at each call.

    Raises:
        InvalidInput: there is no such version, or an argument cannot be right.
    """
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise InvalidInput(f"max_steps is {max_steps!r}", hint="Give a whole number of steps, 1 or more.")
    if learning_rate is not None and not 0 < learning_rate < float("inf"):
        raise InvalidInput(f"learning_rate is {learning_rate!r}", hint="Give a positive number, such as 0.001.")
    (job,) = _load("mnist", version)
    template = job["spec"]["template"]
    (container,) = template["spec"]["containers"]
    container["args"] = ["--max_steps", str(max_steps)]
    if learning_rate is not None:
        container["args"] += ["--learning_rate", repr(float(learning_rate))]
    if name is not None:
        job["metadata"]["name"] = container["name"] = name
        job["metadata"]["labels"]["app"] = template["metadata"]["labels"]["app"] = name
    return job


def _load(stem: str, version: str) -> list[dict[str, Any]]:
    if version not in get_args(Version):
        raise InvalidInput(f"no version {version!r} of {stem}", hint="Choose 'current' or '2020'.")
    file = path(stem if version == "current" else f"{stem}-{version}")
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
