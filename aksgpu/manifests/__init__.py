"""The tutorial's manifests, as YAML files beside this module, and as dicts.

Each has a current version and the version of 2020 (``"2020"``). The current one is for GPU pools with the taint
``sku=gpu:NoSchedule``; the other is what the tutorial printed in 2020. The files also work with ``kubectl apply -f``.
There are no templates: a dict is changed with Python.
"""

from __future__ import annotations

import re
from numbers import Real
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from aksgpu.errors import InvalidInput

Version = Literal["current", "2020"]

__all__ = ["Version", "device_plugin", "mnist", "path"]

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME = 63
"""Characters of a container's name."""
_MOST_STEPS = 10**9
"""Training steps; far more than anybody waits for."""
_FOLDER = Path(__file__).parent


def path(name: str) -> Path:
    """Return the file of a manifest.

    Args:
        name: the file's name, with or without ``.yaml``: ``device-plugin``, ``device-plugin-2020``, ``mnist`` or
            ``mnist-2020``.

    Raises:
        InvalidInput: there is no such manifest.
    """
    known = {file.stem: file for file in _FOLDER.glob("*.yaml")}
    stem = name.removesuffix(".yaml") if isinstance(name, str) else ""
    if stem not in known:
        raise InvalidInput(
            f"`name` must be a manifest's name, got {_shown(name)}", hint=f"Choose one of {', '.join(sorted(known))}."
        )
    return known[stem]


def device_plugin(version: Version = "current", *, pass_device_specs: bool = False) -> list[dict[str, Any]]:
    """Return the NVIDIA device plugin: a DaemonSet in the namespace ``gpu-resources``, which must exist.

    Args:
        version: ``"current"`` or ``"2020"``.
        pass_device_specs: make the plugin pass the GPUs' device files, for nodes whose containers lose their GPU after
            hours ("Failed to initialize NVML: Unknown Error").

    Returns:
        The objects of the file, new at each call.

    Raises:
        InvalidInput: there is no such version, or ``pass_device_specs`` is not a boolean.
    """
    if not isinstance(pass_device_specs, bool):
        raise InvalidInput(
            f"`pass_device_specs` must be True or False, got {_shown(pass_device_specs)}",
            hint="Write pass_device_specs=True.",
        )
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
    """Return the tutorial's Job, which trains on MNIST on one GPU.

    Args:
        version: ``"current"`` or ``"2020"``.
        max_steps: training steps; the program logs its accuracy at every tenth.
        learning_rate: None uses the program's own (0.001).
        name: of the Job, its container and its ``app`` label: lower case letters, digits and ``-``, at most 63. None
            keeps ``samples-tf-mnist-demo``.

    Returns:
        The Job, new at each call.

    Raises:
        InvalidInput: there is no such version, or an argument cannot be right.
    """
    steps = None if isinstance(max_steps, bool) or not hasattr(max_steps, "__index__") else max_steps.__index__()
    if steps is None or not 1 <= steps <= _MOST_STEPS:
        raise InvalidInput(
            f"`max_steps` must be an integer from 1 to {_MOST_STEPS:,}, got {_shown(max_steps)}", hint="max_steps=500"
        )
    if learning_rate is not None and not _is_rate(learning_rate):
        raise InvalidInput(
            f"`learning_rate` must be a positive number, got {_shown(learning_rate)}", hint="learning_rate=0.001"
        )
    if name is not None and not (isinstance(name, str) and len(name) <= _LONGEST_NAME and _NAME.fullmatch(name)):
        better = re.sub(r"[^a-z0-9]+", "-", str(name)[:1000].lower()).strip("-")[:_LONGEST_NAME].strip("-")
        raise InvalidInput(
            f"`name` must be {_LONGEST_NAME} lower case letters, digits and '-' at most, got {_shown(name)}",
            hint=f"name={better or 'training-1'!r} would do.",
        )
    (job,) = _load("mnist", version)
    template = job["spec"]["template"]
    (container,) = template["spec"]["containers"]
    container["args"] = ["--max_steps", str(steps)]
    if learning_rate is not None:
        container["args"] += ["--learning_rate", repr(float(learning_rate))]
    if name is not None:
        job["metadata"]["name"] = container["name"] = name
        job["metadata"]["labels"]["app"] = template["metadata"]["labels"]["app"] = name
    return job


def _is_rate(value: object) -> bool:
    """Whether a value is a positive, finite number."""
    if type(value) is bool or not isinstance(value, Real):
        return False
    try:
        return 0 < float(value) < float("inf")
    except OverflowError:
        return False


def _shown(value: object) -> str:
    try:
        shown = ascii(value)
    except ValueError:  # Python does not write integers of more than 4,300 digits.
        shown = "a very large integer"
    return shown if len(shown) <= 80 else f"{shown[:80]}..."


def _load(stem: str, version: str) -> list[dict[str, Any]]:
    if version not in get_args(Version):
        raise InvalidInput(
            f"`version` must be 'current' or '2020', got {_shown(version)}", hint='Leave it out for "current".'
        )
    file = path(stem if version == "current" else f"{stem}-{version}")
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
