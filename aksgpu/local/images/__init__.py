"""The programs that replace container images on the laptop AKS.

The laptop does not pull images. :mod:`aksgpu.local.images.image_registry` maps an image reference to a program of this
machine. The other modules are aksgpu's own programs: MNIST training, the NVIDIA device plugin and ``nvidia-smi``.

A program finds the following in its environment, in addition to the variables in the pod's manifest:

``AKSGPU_GPUS``
    The GPUs of the container as a JSON list. Each has ``index`` (on its node), ``uuid``, ``model`` ("Tesla T4"),
    ``memory_mib``, ``simulated`` (whether this machine does not have the GPU), ``pci_bus_id`` ("0001:00:00.0"),
    ``compute_capability`` ("7.5") and ``mig`` ("1g.5gb" if it is a MIG slice, otherwise empty).
``AKSGPU_DRIVER``
    On nodes with GPUs: the path of a file that exists while the NVIDIA driver is broken. It holds NVML's error message.
``NVIDIA_VISIBLE_DEVICES``, ``CUDA_VISIBLE_DEVICES``
    The uuids of the GPUs, separated by commas. Without a GPU, the first is ``void`` and the second is empty, so that
    CUDA finds none.
``AKSGPU_ROOT``
    Only if the system does not allow mount namespaces: the directory that contains the volumes at their mount paths.
    Mount paths in the command, its arguments and the environment are replaced by paths below it.
``PATH``
    Begins with directories that contain ``python`` and ``python3`` (the Python that runs aksgpu) and, with a GPU,
    ``nvidia-smi``.

Output is kept line by line. When the pod is deleted, the program receives SIGTERM, and SIGKILL after the grace period.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from aksgpu.local.images.image_registry import Image, find, normalise, register, unregister

__all__ = ["Image", "driver_problem", "find", "given_gpus", "normalise", "register", "unregister"]


def driver_problem() -> str:
    """Return NVML's error message if the driver of the container's node is broken, otherwise an empty text."""
    try:
        return Path(os.environ.get("AKSGPU_DRIVER") or os.devnull).read_text().strip()
    except FileNotFoundError:
        return ""


def given_gpus() -> list[dict[str, Any]]:
    """Return the GPUs of this container."""
    return list(json.loads(os.environ.get("AKSGPU_GPUS") or "[]"))
