"""The GPUs of a node: GPUs of this machine that NVML finds, or simulated GPUs.

Resource Manager derives the number and model from the VM size, and writes them into the node's annotations.
:mod:`aksgpu.local.node.device_manager` assigns GPUs to containers.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from aksgpu.local import node_annotations
from aksgpu.local.objects import Object

log = logging.getLogger(__name__)

PRODUCT_LABEL = "nvidia.com/gpu.product"
MIB = 1024 * 1024

_CAPABILITIES = {
    "K80": "3.7",
    "M60": "5.2",
    "P40": "6.1",
    "P100": "6.0",
    "V100": "7.0",
    "T4": "7.5",
    "A100": "8.0",
    "A10": "8.6",
    "H100": "9.0",
    "H200": "9.0",
    "GB200": "10.0",
}
"""CUDA compute capabilities by a part of the model's name. The first match is used, so A100 comes before A10."""
_DEFAULT_CAPABILITY = "7.5"


@dataclass(frozen=True)
class Gpu:
    """A GPU of a node. :mod:`aksgpu.local.images` describes the fields."""

    index: int
    uuid: str
    model: str
    memory_mib: int
    simulated: bool
    pci_bus_id: str
    compute_capability: str
    mig: str = ""


def find_machine_gpus() -> list[Gpu]:
    """Return the GPUs of this machine. The list is empty without a driver or if ``CUDA_VISIBLE_DEVICES`` hides them."""
    import pynvml  # loads a library of the driver

    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):  # NVML itself ignores the variable
        return []
    try:
        pynvml.nvmlInit()
        try:
            return [_read_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        log.info("no GPUs of this machine are used: %s", error)
        return []


def _read_gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        model=nvml.nvmlDeviceGetName(handle),
        memory_mib=nvml.nvmlDeviceGetMemoryInfo(handle).total // MIB,
        simulated=False,
        pci_bus_id=nvml.nvmlDeviceGetPciInfo(handle).busId,
        compute_capability=f"{major}.{minor}",
    )


def simulate_gpus(node: Object) -> list[Gpu]:
    """Return the GPUs that a node's annotations describe, then their MIG slices. Every call returns the same ones."""
    metadata = node["metadata"]
    annotations = metadata.get("annotations") or {}
    model = annotations.get(node_annotations.GPU_MODEL, "NVIDIA GPU")
    capability = next((value for name, value in _CAPABILITIES.items() if name in model), _DEFAULT_CAPABILITY)
    seed = UUID(metadata["uid"])
    found = [
        Gpu(
            index=index,
            uuid=f"GPU-{uuid5(seed, str(index))}",
            model=model,
            memory_mib=int(annotations.get(node_annotations.GPU_MEMORY_MIB, "16384")),
            simulated=True,
            pci_bus_id=f"{index + 1:08x}:00:00.0",
            compute_capability=capability,
        )
        for index in range(int(annotations.get(node_annotations.GPU_COUNT, "0")))
    ]
    profile = annotations.get(node_annotations.GPU_MIG_PROFILE, "")
    if not profile:
        return found
    memory = int(profile.partition(".")[2].removesuffix("gb")) * 1024
    slices = []
    for gpu in found:
        for number in range(int(annotations.get(node_annotations.GPU_MIG_COUNT, "1"))):
            uuid = f"MIG-{uuid5(seed, f'{gpu.index}/{number}')}"
            slices.append(replace(gpu, uuid=uuid, model=f"{model} MIG {profile}", memory_mib=memory, mig=profile))
    return found + slices


def assign_gpus(node: Object, machine_gpus: list[Gpu], nodes: Path) -> list[Gpu]:
    """Return the GPUs of a node: GPUs of this machine if enough are free, otherwise simulated ones.

    ``gpus.json`` in the node's directory records which GPUs of this machine the node has.

    Args:
        node: the Node object.
        machine_gpus: the GPUs of this machine.
        nodes: the directory that contains the directories of all nodes.
    """
    simulated = simulate_gpus(node)
    if not machine_gpus or not simulated or simulated[-1].mig:  # MIG is not configured on GPUs of this machine
        return simulated
    own_file = nodes / node["metadata"]["name"] / "gpus.json"
    assigned = {path: json.loads(path.read_text()) for path in nodes.glob("*/gpus.json")}
    own_uuids = assigned.pop(own_file, [])
    other_uuids = {uuid for uuids in assigned.values() for uuid in uuids}
    chosen = [gpu for gpu in machine_gpus if gpu.uuid in own_uuids]
    if len(chosen) != len(simulated):
        chosen = [gpu for gpu in machine_gpus if gpu.uuid not in other_uuids][: len(simulated)]
    if len(chosen) < len(simulated):
        return simulated
    own_file.parent.mkdir(parents=True, exist_ok=True)
    own_file.write_text(json.dumps([gpu.uuid for gpu in chosen]))
    return chosen
