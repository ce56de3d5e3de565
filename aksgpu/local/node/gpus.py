"""Which GPUs a node has: those of this machine that NVML finds, else simulated ones, called so.

How many a node has and of which model is said by its annotations, which Resource Manager writes from the VM size. Here
nothing is handed out to containers; see :mod:`aksgpu.local.node.device_manager`.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from aksgpu.local.objects import Object

log = logging.getLogger(__name__)

LABEL = "aksgpu.dev/gpu"
PRODUCT = "nvidia.com/gpu.product"
MODEL = "aksgpu.dev/gpu-model"
COUNT = "aksgpu.dev/gpu-count"
MEMORY = "aksgpu.dev/gpu-memory-mib"
MIG = "aksgpu.dev/gpu-mig"
MIG_COUNT = "aksgpu.dev/gpu-mig-count"
MIG_STRATEGY = "aksgpu.dev/gpu-mig-strategy"
MANAGED = "aksgpu.dev/gpu-management"
BROKEN = "aksgpu.dev/gpu-driver-error"

# The first name that occurs in a model counts, so that A100 stands before A10.
_CAPABILITIES = {
    "K80": "3.7", "M60": "5.2", "P40": "6.1", "P100": "6.0", "V100": "7.0", "T4": "7.5",
    "A100": "8.0", "A10": "8.6", "H100": "9.0", "H200": "9.0", "GB200": "10.0",
}  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """A GPU of a node; the fields are explained in :mod:`aksgpu.local.images`."""

    index: int
    uuid: str
    model: str
    memory_mib: int
    simulated: bool
    pci_bus_id: str
    compute_capability: str
    mig: str = ""


def real() -> list[Gpu]:
    """The GPUs of this machine, as NVML finds them; none when there is no driver, or the user hides all of them."""
    import pynvml

    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):  # NVML itself does not care, CUDA's programs do
        return []
    try:
        pynvml.nvmlInit()
        try:
            return [_real(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        log.info("no GPUs of this machine are used: %s", error)
        return []


def _real(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    bus = nvml.nvmlDeviceGetPciInfo(handle).busId
    memory = nvml.nvmlDeviceGetMemoryInfo(handle).total
    uuid = nvml.nvmlDeviceGetUUID(handle)
    model = nvml.nvmlDeviceGetName(handle)
    return Gpu(index, uuid, model, memory // (1024 * 1024), False, bus, f"{major}.{minor}")


def simulated(node: Object) -> list[Gpu]:
    """The GPUs that a node's annotations promise, then their slices. The same node has the same ones each time."""
    metadata = node["metadata"]
    notes = metadata.get("annotations") or {}
    model = notes.get(MODEL, "NVIDIA GPU")
    capability = next((value for name, value in _CAPABILITIES.items() if name in model), "7.5")
    seed = UUID(metadata["uid"])
    memory = int(notes.get(MEMORY, "16384"))
    count = int(notes.get(COUNT, "0"))
    whole = [
        Gpu(index, f"GPU-{uuid5(seed, str(index))}", model, memory, True, f"{index + 1:08x}:00:00.0", capability)
        for index in range(count)
    ]
    if not (mig := notes.get(MIG, "")):
        return whole
    memory = int(mig.partition(".")[2].removesuffix("gb")) * 1024
    share: dict[str, Any] = {"model": f"{model} MIG {mig}", "memory_mib": memory, "mig": mig}
    numbers = range(int(notes.get(MIG_COUNT, "1")))
    slices = [(gpu, f"MIG-{uuid5(seed, f'{gpu.index}/{number}')}") for gpu in whole for number in numbers]
    return whole + [replace(gpu, uuid=name, **share) for gpu, name in slices]


def of_node(node: Object, machine: list[Gpu], nodes: Path) -> list[Gpu]:
    """The GPUs of a node: real ones where enough are left for all that it should have, else simulated ones.

    A node keeps the real GPUs that it has, in ``gpus.json`` of its directory, over restarts.

    Args:
        node: the Node object.
        machine: the GPUs of this machine.
        nodes: the directory of all nodes' directories.
    """
    wanted = simulated(node)
    if not machine or not wanted or wanted[-1].mig:  # a GPU of this machine is not cut up for this
        return wanted
    own = nodes / node["metadata"]["name"] / "gpus.json"
    kept = {path: json.loads(path.read_text()) for path in nodes.glob("*/gpus.json")}
    mine = kept.pop(own, [])
    taken = {uuid for others in kept.values() for uuid in others}
    chosen = [gpu for gpu in machine if gpu.uuid in mine]
    if len(chosen) != len(wanted):
        chosen = [gpu for gpu in machine if gpu.uuid not in taken][: len(wanted)]
    if len(chosen) < len(wanted):
        return wanted
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(json.dumps([gpu.uuid for gpu in chosen]))
    return chosen
