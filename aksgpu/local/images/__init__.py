"""The programs that stand in for container images on the laptop AKS.

The laptop pulls nothing: an image reference is looked up in :mod:`aksgpu.local.images.image_registry`, which names a
program
of this machine. This package holds that table and the programs of aksgpu itself (MNIST training, the NVIDIA device
plugin, ``nvidia-smi``); it is not a container runtime.

What a stand-in finds in its environment, beside what the pod's manifest gives it:

``AKSGPU_GPUS``
    The GPUs given to this container as a JSON list, ``[]`` without one. Each has ``index`` (on its node), ``uuid``,
    ``model`` ("Tesla T4"), ``memory_mib``, ``simulated`` (true: there is no such GPU in this machine),
    ``pci_bus_id`` ("0001:00:00.0"), ``compute_capability`` ("7.5") and ``mig`` ("1g.5gb" when it is a slice of one).
``AKSGPU_DRIVER``
    On nodes with GPUs: a file that is there while the node's NVIDIA driver does not work, and says what NVML says then.
``NVIDIA_VISIBLE_DEVICES``, ``CUDA_VISIBLE_DEVICES``
    Their uuids, comma separated. Without a GPU the first is ``void`` and the second empty, so that CUDA finds nothing.
``AKSGPU_ROOT``
    Only where the system grants no mount namespace: the directory below which volumes lie at their mount paths. There,
    a mount path in the command, its arguments and the environment is rewritten to the path below that directory.
``PATH``
    Begins with ``python`` and ``python3`` (this Python) and, with a GPU, ``nvidia-smi``.

Output is kept line by line, and SIGTERM comes first when the pod is deleted, SIGKILL after its grace period.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from aksgpu.local.images.image_registry import Image, find, normalise, register, unregister

__all__ = ["Image", "driver_problem", "find", "given_gpus", "normalise", "register", "unregister"]


def driver_problem() -> str:
    """What NVML says instead of working, in a container of a node whose driver is broken; empty otherwise."""
    try:
        return Path(os.environ.get("AKSGPU_DRIVER") or os.devnull).read_text().strip()
    except FileNotFoundError:
        return ""


def given_gpus() -> list[dict[str, Any]]:
    """The GPUs of this container."""
    return list(json.loads(os.environ.get("AKSGPU_GPUS") or "[]"))
