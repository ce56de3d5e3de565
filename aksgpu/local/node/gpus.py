"""Which GPUs a node has: those of this machine that NVML finds, else simulated ones, called so.

How many a node has and of which model is said by its annotations, which Resource Manager writes from the VM size. Here
nothing is handed out to containers; see :mod:`aksgpu.local.node.devices`.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from aksgpu.local.objects import Object

log = logging.getLogger(__name__)

LABEL, PRODUCT = "aksgpu.dev/gpu", "nvidia.com/gpu.product"
MODEL, COUNT, MEMORY = "aksgpu.dev/gpu-model", "aksgpu.dev/gpu-count", "aksgpu.dev/gpu-memory-mib"
MIG, MIG_COUNT, MIG_STRATEGY = "aksgpu.dev/gpu-mig", "aksgpu.dev/gpu-mig-count", "aksgpu.dev/gpu-mig-strategy"
MANAGED, BROKEN = "aksgpu.dev/gpu-management", "aksgpu.dev/gpu-driver-error"

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

    def as_dict(self) -> dict[str, Any]:
        """As a container finds it in ``AKSGPU_GPUS``."""
        return asdict(self)


def real() -> list[Gpu]:
    """The GPUs of this machine, as NVML finds them; none when there is no driver, or the user hides all of them."""
    import pynvml

    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):  # NVML itself does not care, CUDA's programs do
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.debug("no NVIDIA driver: %s", error)
        return []
    try:
        return [_real(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        log.warning("the NVIDIA driver does not answer, so its GPUs are not used: %s", error)
        return []
    finally:
        pynvml.nvmlShutdown()


def _real(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        model=nvml.nvmlDeviceGetName(handle),
        memory_mib=nvml.nvmlDeviceGetMemoryInfo(handle).total // (1024 * 1024),
        simulated=False,
        pci_bus_id=nvml.nvmlDeviceGetPciInfo(handle).busId,
        compute_capability=f"{major}.{minor}",
    )


def simulated(node: Object) -> list[Gpu]:
    """The GPUs that a node's annotations promise, then their slices. The same node has the same ones each time."""
    metadata = node["metadata"]
    notes = metadata.get("annotations") or {}
    model = notes.get(MODEL, "NVIDIA GPU")
    capability = next((value for name, value in _CAPABILITIES.items() if name in model.split()), None)
    if capability is None:  # such as "A100-SXM4-80GB"
        capability = next((value for name, value in _CAPABILITIES.items() if name in model), "7.5")
    seed = uuid.UUID(metadata["uid"])
    whole = [
        Gpu(
            index=index,
            uuid=f"GPU-{uuid.uuid5(seed, str(index))}",
            model=model,
            memory_mib=int(notes.get(MEMORY, "16384")),
            simulated=True,
            pci_bus_id=f"{index + 1:08x}:00:00.0",
            compute_capability=capability,
        )
        for index in range(int(notes.get(COUNT, "0")))
    ]
    if not (mig := notes.get(MIG, "")):
        return whole
    memory = int(mig.partition(".")[2].removesuffix("gb")) * 1024
    return whole + [
        replace(
            gpu,
            uuid=f"MIG-{uuid.uuid5(seed, f'{gpu.index}/{number}')}",
            model=f"{model} MIG {mig}",
            memory_mib=memory,
            mig=mig,
        )
        for gpu in whole
        for number in range(int(notes.get(MIG_COUNT, "1")))
    ]


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
    kept = {path: set(json.loads(path.read_text())) for path in nodes.glob("*/gpus.json")}
    mine = kept.pop(own, set())
    chosen = [gpu for gpu in machine if gpu.uuid in mine]
    if len(chosen) != len(wanted):
        chosen = [gpu for gpu in machine if not any(gpu.uuid in others for others in kept.values())][: len(wanted)]
    if len(chosen) < len(wanted):
        return wanted
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(json.dumps([gpu.uuid for gpu in chosen]))
    return chosen
