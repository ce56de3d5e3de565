"""The tutorial's manifests, as YAML files in this folder and as dicts.

Each manifest has a current version and the version of 2020 (``"2020"``). The current version is for GPU pools with the
taint ``sku=gpu:NoSchedule``; the other is what the tutorial printed in 2020. The files also work with
``kubectl apply -f``. There are no templates: change the dict with Python.
"""

from __future__ import annotations

from numbers import Real
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from aksgpu.common.arguments import flag, integer, shown
from aksgpu.errors import InvalidInput
from aksgpu.kube import path_names
from aksgpu.manifests.convert import as_jobs

__all__ = ["Version", "as_jobs", "device_plugin", "mnist", "path"]

Version = Literal["current", "2020"]
"""The versions of each manifest."""

_FOLDER = Path(__file__).parent
_MAX_STEPS = 10**9
"""Largest number of training steps."""


def __dir__() -> list[str]:
    return sorted(__all__)


def path(name: str) -> Path:
    """Return the file of a manifest.

    Args:
        name: the file's name, with or without ``.yaml``: ``device-plugin``, ``device-plugin-2020``, ``mnist`` or
            ``mnist-2020``.

    Raises:
        InvalidInput: the manifest does not exist.

    Example:
        >>> manifests.path("mnist").name
        'mnist.yaml'
    """
    files = {file.stem: file for file in _FOLDER.glob("*.yaml")}
    stem = name.removesuffix(".yaml") if isinstance(name, str) else ""
    if stem not in files:
        raise InvalidInput(
            f"`name` must be a manifest's name, got {shown(name)}", hint=f"Choose one of {', '.join(sorted(files))}."
        )
    return files[stem]


def device_plugin(version: Version = "current", *, pass_device_specs: bool = False) -> list[dict[str, Any]]:
    """Return the NVIDIA device plugin: a DaemonSet in the namespace ``gpu-resources``, which must exist.

    Args:
        version: ``"current"`` or ``"2020"``.
        pass_device_specs: make the plugin pass the GPUs' device files to containers. Use it on nodes whose containers
            lose their GPU after hours ("Failed to initialize NVML: Unknown Error").

    Returns:
        The objects of the file, new at each call.

    Raises:
        InvalidInput: the version does not exist, or ``pass_device_specs`` is not a boolean.
    """
    flag("pass_device_specs", pass_device_specs)
    objects = _load("device-plugin", version)
    if pass_device_specs:
        daemon_set = objects[-1]
        for container in daemon_set["spec"]["template"]["spec"]["containers"]:
            container.setdefault("env", []).append({"name": "PASS_DEVICE_SPECS", "value": "true"})
    return objects


def mnist(
    version: Version = "current",
    *,
    max_steps: int = 500,
    learning_rate: float | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Return the tutorial's Job, which trains on MNIST on one GPU.

    Args:
        version: ``"current"`` or ``"2020"``.
        max_steps: training steps. The program logs its accuracy at every tenth step.
        learning_rate: None uses the program's own (0.001).
        name: name of the Job, its container and its ``app`` label: lower case letters, digits and ``-``, at most 63
            characters. None keeps ``samples-tf-mnist-demo``.

    Returns:
        The Job, new at each call.

    Raises:
        InvalidInput: the version does not exist, or an argument is not valid.

    Example:
        >>> manifests.mnist(max_steps=100, name="quick")["metadata"]["name"]
        'quick'
    """
    steps = integer("max_steps", max_steps, 1, _MAX_STEPS)
    if learning_rate is not None and not _is_rate(learning_rate):
        raise InvalidInput(
            f"`learning_rate` must be a positive number, got {shown(learning_rate)}", hint="learning_rate=0.001"
        )
    if name is not None:
        path_names.check_rule(path_names.LABEL, name, "name", "the name of a Job")
    (job,) = _load("mnist", version)
    template = job["spec"]["template"]
    (container,) = template["spec"]["containers"]
    container["args"] = ["--max_steps", str(steps)]
    if learning_rate is not None:
        container["args"] += ["--learning_rate", repr(float(learning_rate))]
    if name is not None:
        container["name"] = name
        job["metadata"]["name"] = name
        job["metadata"]["labels"]["app"] = name
        template["metadata"]["labels"]["app"] = name
    return job


def _is_rate(value: object) -> bool:
    """Whether a value is a positive, finite number."""
    if type(value) is bool or not isinstance(value, Real):
        return False
    try:
        return 0 < float(value) < float("inf")
    except OverflowError:
        return False


def _load(stem: str, version: str) -> list[dict[str, Any]]:
    """Return the objects of a manifest in one version."""
    if version not in get_args(Version):
        raise InvalidInput(
            f"`version` must be 'current' or '2020', got {shown(version)}", hint='Leave it out for "current".'
        )
    file = path(stem if version == "current" else f"{stem}-{version}")
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
