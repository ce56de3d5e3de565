"""Labels and annotations of the laptop's nodes.

Resource Manager derives the annotations from the pool's VM size. The node agent reads them.
"""

from __future__ import annotations

GPU_KIND_LABEL = "aksgpu.dev/gpu"
"""``simulated``, or ``nvml`` if the node's GPUs exist in this machine."""
GPU_MODEL = "aksgpu.dev/gpu-model"
GPU_COUNT = "aksgpu.dev/gpu-count"
GPU_MEMORY_MIB = "aksgpu.dev/gpu-memory-mib"
GPU_MIG_PROFILE = "aksgpu.dev/gpu-mig"
GPU_MIG_COUNT = "aksgpu.dev/gpu-mig-count"
GPU_MIG_STRATEGY = "aksgpu.dev/gpu-mig-strategy"
GPU_MANAGEMENT_MODE = "aksgpu.dev/gpu-management"
GPU_DRIVER_ERROR = "aksgpu.dev/gpu-driver-error"
"""NVML's error message while the node's driver is broken."""
CONTAINER_LOG_MAX_MB = "aksgpu.dev/container-log-max-mb"
"""``containerLogMaxSizeMB`` of the pool's kubelet configuration. Without it, the laptop's setting applies."""
KUBELET_AWAY = "aksgpu.dev/kubelet-away"
"""Set while the API server cannot reach the node's kubelet. The value is the cause: ``kubelet`` or ``tunnel``."""
CORDONED_FOR_REMOVAL = "aksgpu.dev/leaving"
"""Set on nodes that were cordoned by Resource Manager and not by a user."""
