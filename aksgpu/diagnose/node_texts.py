"""Conditions of nodes: those of Kubernetes, of AKS' node problem detector, and of managed GPU pools."""

from __future__ import annotations

from aksgpu import errors
from aksgpu.diagnose.cures import Cure
from aksgpu.diagnose.failure_text import FailureText, Place

__all__ = ["LOOK_AT_NODE", "NODE_TEXTS"]

_HEALTH = "https://learn.microsoft.com/azure/aks/gpu-health-monitoring"
_DETECTOR = "https://learn.microsoft.com/azure/aks/node-problem-detector"
_CONDITION = frozenset({Place.CONDITION})

_CORDON = 'aks.kube.patch("Node", "NODE", {"spec": {"unschedulable": True}})'
_DELETE_MACHINE = (
    "az aks nodepool delete-machines --resource-group GROUP --cluster-name CLUSTER --nodepool-name POOL "
    "--machine-names NODE"
)
_REPLACE = Cure(
    "Replace the node: cordon NODE, let its pods end, and delete it; its pool adds another one.",
    _CORDON,
    f"kubectl cordon NODE\n{_DELETE_MACHINE}",
    "Replace the node, or repair it and reboot it.",
)
LOOK_AT_NODE = Cure(
    "Look at the node: kubectl describe node NODE shows since when, and its events. If the condition stays, replace "
    "the node.",
    'from aksgpu import diagnose\ndiagnose.node(aks, "NODE")',
    "kubectl describe node NODE",
)
_DISK = Cure(
    "Delete what fills the node's disk, or use a pool with a larger OS disk (os_disk_size_gb).",
    'from aksgpu import cluster\ncluster.add_gpu_pool(aks, "gpunp2", vm_size="Standard_NC4as_T4_v3", '
    "os_disk_size_gb=256)",
    "kubectl describe node NODE",
    "Delete what fills the node's disk, or use a node with a larger one.",
)

NODE_TEXTS = (
    FailureText(
        name="the node's detector misses a GPU",
        pattern=r"^GPUMissing\b",
        case=False,
        kind=errors.GpuLost,
        verdict="the node has fewer GPUs than its size (GPUMissing)",
        cure=_REPLACE,
        places=_CONDITION,
        example="GPUMissing: GPUMissing: Expected to see 8 but found 7",
        near_miss="NoGPUMissing: all GPUs are present",
        source=_HEALTH,
    ),
    FailureText(
        name="the node's detector reports XID errors",
        pattern=r"^(?:GPU)?XIDErrors?\b(?:.{0,200}?\bXID\w{0,5}[ :=#]{1,4}(?P<xid>\d{1,4})\b)?",
        case=False,
        kind=errors.GpuLost,
        verdict="the driver of the node's GPUs reports errors (XID[ {xid}])",
        cure=_REPLACE,
        places=_CONDITION,
        example="XIDErrors: XIDErrorsDetected: Detected XID 79 on GPU 3",
        near_miss="FixIDErrors: none",
        source=_HEALTH,
    ),
    FailureText(
        name="a link between GPUs is down",
        pattern=r"^NVLinkStatusInactive\b",
        case=False,
        kind=errors.GpuLost,
        verdict="a link between the node's GPUs is down (NVLinkStatusInactive)",
        cure=_REPLACE,
        places=_CONDITION,
        example="NVLinkStatusInactive: NVLinkInactive: link 2 of GPU 0 is inactive",
        near_miss="NVLink: active",
        source=_HEALTH,
    ),
    FailureText(
        name="an InfiniBand link flaps",
        pattern=r"^IBLinkFlapping\b",
        case=False,
        kind=errors.GpuStackError,
        verdict="the node's InfiniBand link is not stable (IBLinkFlapping): training on several nodes fails or is slow",
        cure=_REPLACE,
        places=_CONDITION,
        example="IBLinkFlapping: IBLinkFlapping: mlx5_0 flapped 4 times",
        near_miss="IBLink: up",
        source=_HEALTH,
    ),
    FailureText(
        name="a GPU is throttled",
        pattern=r"^GPUClockThrottling\b",
        case=False,
        kind=errors.GpuStackError,
        verdict="a GPU of the node is throttled (GPUClockThrottling): it works, but more slowly",
        cure=LOOK_AT_NODE,
        places=_CONDITION,
        example="GPUClockThrottling: HwSlowdown: GPU 2 is throttled",
        near_miss="GPUClock: 1410 MHz",
        source=_HEALTH,
    ),
    FailureText(
        name="the GRID licence is missing",
        pattern=r"^(?:Unhealthy|Missing|Invalid|Expired)?(?:Nvidia)?GRID\w{0,40}",
        case=False,
        kind=errors.GpuStackError,
        verdict="the node's GRID licence is not valid: the GPU works at a reduced rate",
        cure=_REPLACE,
        places=_CONDITION,
        example="GRIDLicenseInvalid: Unlicensed: vGPU is unlicensed",
        near_miss="Hydrogrid: active",
        source=_HEALTH,
    ),
    FailureText(
        name="the managed device plugin does not work",
        pattern=r"^UnhealthyNvidiaDevicePlugin\b",
        case=False,
        kind=errors.PluginFailed,
        verdict="the device plugin of the managed pool does not work (UnhealthyNvidiaDevicePlugin)",
        cure=_REPLACE,
        places=_CONDITION,
        example="UnhealthyNvidiaDevicePlugin: ServiceNotRunning: nvidia-device-plugin.service is not active",
        near_miss="NvidiaDevicePlugin: healthy",
        source="https://learn.microsoft.com/azure/aks/aks-managed-gpu-nodes",
    ),
    FailureText(
        name="the managed GPU monitoring does not work",
        pattern=r"^UnhealthyNvidiaDCGMServices\b",
        case=False,
        kind=errors.GpuStackError,
        verdict="the GPU monitoring of the managed pool does not work (UnhealthyNvidiaDCGMServices); pods can "
        "still run",
        cure=LOOK_AT_NODE,
        places=_CONDITION,
        example="UnhealthyNvidiaDCGMServices: ServiceNotRunning: nvidia-dcgm-exporter is not active",
        near_miss="NvidiaDCGMServices: healthy",
        source="https://learn.microsoft.com/azure/aks/aks-managed-gpu-nodes",
    ),
    FailureText(
        name="the node has too little disk",
        pattern=r"^DiskPressure\b",
        kind=errors.PodPending,
        verdict="the node has too little free disk (DiskPressure): it takes no pods and evicts some",
        cure=_DISK,
        places=_CONDITION,
        example="DiskPressure: KubeletHasDiskPressure: kubelet has disk pressure",
        near_miss="NoDiskPressure: kubelet has no disk pressure",
        source="https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/",
    ),
    FailureText(
        name="the node has too little memory",
        pattern=r"^(?:MemoryPressure|PIDPressure)\b",
        kind=errors.PodPending,
        verdict="the node has too little free memory or too many processes: it takes no pods and evicts some",
        cure=LOOK_AT_NODE,
        places=_CONDITION,
        example="MemoryPressure: KubeletHasInsufficientMemory: kubelet has insufficient memory available",
        near_miss="BloodPressure: normal",
        source="https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/",
    ),
    FailureText(
        name="the node's network does not work",
        pattern=r"^NetworkUnavailable\b",
        kind=errors.PodPending,
        verdict="the node's network is not set up (NetworkUnavailable)",
        cure=LOOK_AT_NODE,
        places=_CONDITION,
        example="NetworkUnavailable: NoRouteCreated: RouteController failed to create a route",
        near_miss="Network: available",
        source="https://kubernetes.io/docs/concepts/architecture/nodes/",
    ),
    FailureText(
        name="the node has a defect",
        pattern=r"^(?:KernelDeadlock|ReadonlyFilesystem|FilesystemCorruptionProblem|FrequentKubeletRestart"
        r"|KubeletProblem|"
        r"FrequentContainerdRestart|FrequentDockerRestart|ContainerRuntimeProblem|FrequentUnregisterNetDevice|"
        r"CorruptDockerOverlay2)\b",
        case=False,
        kind=errors.PodPending,
        verdict="the node has a defect of its kernel, its disk or its container runtime",
        cure=_REPLACE,
        places=_CONDITION,
        example="ContainerRuntimeProblem: ContainerRuntimeIsDown: containerd is not active",
        near_miss="ContainerRuntime: up",
        source=_DETECTOR,
    ),
    FailureText(
        name="Azure is about to maintain the node",
        pattern=r"^(?:VMEventScheduled|FreezeScheduled|RebootScheduled|RedeployScheduled|TerminateScheduled"
        r"|PreemptScheduled)\b",
        case=False,
        kind=errors.PodPending,
        verdict="Azure has announced an event for the node's machine: it is frozen, rebooted, moved or, for spot, "
        "taken away",
        cure=Cure(
            "Save a checkpoint, and let the Job run again on another node: with backoffLimit above 0 the Job "
            "controller does so by itself.",
            "from aksgpu import capacity\ncapacity.nodes(aks)",
            "kubectl describe node NODE",
        ),
        places=_CONDITION,
        example="VMEventScheduled: PreemptScheduled: Preempt scheduled for the virtual machine",
        near_miss="VMEvent: none",
        source=_DETECTOR,
    ),
)
"""Conditions of nodes whose status ``True`` is a problem, as ``TYPE: REASON: MESSAGE``."""
