"""Texts of the NVIDIA driver, the container toolkit, the device plugin, CUDA and the frameworks about GPUs."""

from __future__ import annotations

from aksgpu import errors
from aksgpu.diagnose.cures import EDIT_JOB_SHELL, RUN_AGAIN, Cure, edit_job
from aksgpu.diagnose.failure_text import EVERYWHERE, FailureText, Place, Weight

__all__ = ["GPU_TEXTS", "MEMORY_TEXTS"]

_UPGRADE = "az aks nodepool upgrade --resource-group GROUP --cluster-name CLUSTER --name POOL --node-image-only"
_SIZES = "from aksgpu import sizes\nsizes.gpu_sizes(aks.azure, aks.location)"
_DRIVER_POOL = "az aks nodepool show --resource-group GROUP --cluster-name CLUSTER --name POOL --query gpuProfile"
_XID_PAGE = "https://docs.nvidia.com/deploy/xid-errors/"
_CUDA_ERRORS = "https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html"

_OTHER_DRIVER = Cure(
    f"Use an image built for an older CUDA, or nodes with a newer node image: {_UPGRADE}.",
    edit_job('pod["containers"][0]["image"] = "IMAGE-FOR-AN-OLDER-CUDA"'),
    _UPGRADE,
    "Use an image built for an older CUDA, or install a newer driver on the node.",
)
_OTHER_BUILD = Cure(
    "Use an image whose framework is built for this GPU's compute capability (T4 sm_75, A100 sm_80, A10 sm_86, H100 "
    "sm_90, RTX PRO 6000 sm_120), or a VM size with another GPU: sizes.gpu_sizes(aks.azure, aks.location).",
    edit_job('pod["containers"][0]["image"] = "IMAGE-BUILT-FOR-THIS-GPU"'),
    "az aks nodepool list --resource-group GROUP --cluster-name CLUSTER --query '[].{name:name,size:vmSize}' -o table",
    "Use an image whose framework is built for this GPU's compute capability (T4 sm_75, A100 sm_80, A10 sm_86, H100 "
    "sm_90, RTX PRO 6000 sm_120), or a node with another GPU.",
)
_NO_DRIVER = Cure(
    'A pool with gpu_driver="none" needs a driver of your own. Otherwise plugin.status(aks) shows each GPU '
    "node: delete the pool whose driver does not come up, and add it again.",
    "from aksgpu import plugin\nplugin.status(aks)",
    _DRIVER_POOL,
    "Install the driver on the node and restart the device plugin; plugin.status(aks) shows each GPU node.",
)
_NO_GPU_SEEN = Cure(
    "Make sure that the container asks for a GPU (resources.limits: nvidia.com/gpu: 1) and that CUDA_VISIBLE_DEVICES "
    "names no other device. If it asks for one, plugin.status(aks) and diagnose.node(aks, 'NODE') show whether the "
    "node's driver works.",
    edit_job(
        'pod["containers"][0].setdefault("resources", {}).setdefault("limits", {})["nvidia.com/gpu"] = "1"',
    ),
    'kubectl get job JOB --namespace NAMESPACE -o jsonpath="{.spec.template.spec.containers[*].resources.limits}"',
)
_REPLACE_NODE = Cure(
    "Run it again on another node: cordon NODE, and delete it so that its pool replaces it. "
    "plugin.status(aks) shows the GPUs that are left. If the GPU is lost after some hours and works in a new pod: "
    "plugin.install(aks, manifest=manifests.device_plugin(pass_device_specs=True)).",
    'aks.kube.patch("Node", "NODE", {"spec": {"unschedulable": True}})\nfrom aksgpu import plugin\nplugin.status(aks)',
    "kubectl cordon NODE\n"
    "az aks nodepool delete-machines --resource-group GROUP --cluster-name CLUSTER --nodepool-name POOL "
    "--machine-names NODE",
    "Run it again on another node: cordon NODE, and reboot or replace it. plugin.status(aks) shows the GPUs that are "
    "left.",
)
_RESTART_PLUGIN = Cure(
    "Run it again. Restart the device plugin on NODE, which reads the state of the GPUs again; if the error comes "
    "back, replace the node. plugin.status(aks) shows each GPU node.",
    "from aksgpu import plugin\nplugin.status(aks)",
    "kubectl rollout restart daemonset/nvidia-device-plugin-daemonset --namespace gpu-resources\nkubectl cordon NODE",
)
_LOST_AFTER_HOURS = Cure(
    "Run it again. If it recurs: plugin.install(aks, manifest=manifests.device_plugin(pass_device_specs=True)).",
    "from aksgpu import manifests, plugin\n"
    "plugin.install(aks, manifest=manifests.device_plugin(pass_device_specs=True))",
    "kubectl set env daemonset/nvidia-device-plugin-daemonset --namespace gpu-resources PASS_DEVICE_SPECS=true",
)
_DEBUG_KERNEL = Cure(
    "Correct the program: an index or a label is out of range, or a kernel of an extension is wrong. With the "
    "environment "
    f"variable CUDA_LAUNCH_BLOCKING=1 the traceback names the line; {RUN_AGAIN}",
    edit_job(
        'pod["containers"][0].setdefault("env", []).append({"name": "CUDA_LAUNCH_BLOCKING", "value": "1"})',
    ),
    EDIT_JOB_SHELL,
)
_SMALLER_BATCH = Cure(
    "Use a smaller batch, or a VM size with more GPU memory: sizes.gpu_sizes(aks.azure, aks.location).",
    _SIZES,
    "az aks nodepool add --resource-group GROUP --cluster-name CLUSTER --name gpubig "
    "--node-vm-size Standard_NC24ads_A100_v4 --node-count 1 --node-taints sku=gpu:NoSchedule",
    "Use a smaller batch, or a node whose GPU has more memory.",
)
_NO_RUNTIME_CLASS = Cure(
    "Leave runtimeClassName out of the pod: on AKS nodes, containers that ask for nvidia.com/gpu get the GPU without "
    "it. Only the GPU Operator with toolkit.enabled=true installs that runtime.",
    edit_job('pod.pop("runtimeClassName", None)'),
    "kubectl get runtimeclass\n" + EDIT_JOB_SHELL,
    "Leave runtimeClassName out of the pod, or install NVIDIA's container toolkit on the node (GPU Operator with "
    "toolkit.enabled=true).",
)
_GPU_BUILD = Cure(
    "The image's framework is a build for the CPU. Install the CUDA build in the image, for example pip install torch "
    '--index-url https://download.pytorch.org/whl/cu128, pip install "jax[cuda12]" or pip install '
    '"tensorflow[and-cuda]". Until then the GPU is paid for and not used.',
    edit_job('pod["containers"][0]["image"] = "IMAGE-WITH-A-CUDA-BUILD"'),
    EDIT_JOB_SHELL,
)
_LIBRARIES = Cure(
    "Use an image that contains the CUDA libraries that the framework needs, for example nvcr.io/nvidia/tensorflow, "
    "nvcr.io/nvidia/pytorch, or nvidia/cuda with cudnn-runtime in its tag. Until then the GPU is paid for and "
    "not used.",
    edit_job('pod["containers"][0]["image"] = "IMAGE-WITH-CUDA-LIBRARIES"'),
    EDIT_JOB_SHELL,
)
_FABRIC_MANAGER = Cure(
    "Replace the node: on sizes with NVSwitch (ND A100, H100, H200) the driver needs nvidia-fabricmanager, which does "
    "not run on NODE. Cordon it, and delete it so that its pool replaces it.",
    'aks.kube.patch("Node", "NODE", {"spec": {"unschedulable": True}})',
    "kubectl cordon NODE\n"
    "az aks nodepool delete-machines --resource-group GROUP --cluster-name CLUSTER --nodepool-name POOL "
    "--machine-names NODE",
    "Start nvidia-fabricmanager on the node, in the version of its driver.",
)
_FEWER_PROCESSES = Cure(
    "Start as many processes for each pod as it has GPUs (torchrun --nproc-per-node, --tensor-parallel-size of vLLM), "
    f"or ask for more GPUs (resources.limits: nvidia.com/gpu); {RUN_AGAIN}",
    edit_job('pod["containers"][0].setdefault("resources", {}).setdefault("limits", {})["nvidia.com/gpu"] = "2"'),
    EDIT_JOB_SHELL,
)

_ANY_TEXT = EVERYWHERE - {Place.CONDITION}

GPU_TEXTS = (
    FailureText(
        name="driver and libraries differ",
        pattern=r"Driver/library version mismatch(?:.{0,400}?NVML library version: (?P<library>[\d.]{1,20}))?",
        kind=errors.DriverMismatch,
        verdict="the node's driver and its libraries have different versions",
        cure=Cure(
            f"Use a newer node image: {_UPGRADE}. Image 202607.02.0 has this defect.",
            "from aksgpu import capacity\ncapacity.nodes(aks)",
            _UPGRADE,
            "Install the same version of driver and libraries on the node, and restart it.",
        ),
        places=_ANY_TEXT,
        example="Failed to initialize NVML: Driver/library version mismatch (NVML library version: 580.159)",
        near_miss="warning: library version mismatch between client and server",
        source="https://github.com/Azure/AKS/issues/5860",
    ),
    FailureText(
        name="the driver is too old for the image's CUDA",
        pattern=r"CUDA driver version is insufficient for CUDA runtime"
        r"|The NVIDIA driver on your system is too old"
        r"|unsatisfied condition: (?:cuda|driver|brand)|nvidia-container-cli(?:\.real)?: requirement error"
        r"|provided PTX was compiled with an unsupported toolchain|CUDA_ERROR_UNSUPPORTED_PTX_VERSION"
        r"|forward compatibility was attempted on non.supported HW|CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE"
        r"|cudaErrorInsufficientDriver|CUDA driver is a stub library|cudaErrorStubLibrary"
        r"|system has unsupported display driver / cuda driver combination|CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"
        r"|does not match DSO version|driver is older than the (?:ptxas|CUDA) (?:version|toolkit)"
        r"|requires (?:an? )?NVIDIA (?:driver|[Dd]isplay [Dd]river) (?:release|version) [\d.]{1,12} or (?:later|newer)"
        r"|driver version is too old for (?:this|the) CUDA|CUDA Version [\d.]{1,8} is not supported by the driver",
        kind=errors.DriverMismatch,
        verdict="the image's CUDA and the node's driver do not fit together",
        cure=_OTHER_DRIVER,
        places=_ANY_TEXT,
        example="RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your "
        "GPU "
        "driver by downloading and installing a new version",
        near_miss="The NVIDIA driver on your system is up to date (found version 13000)",
        source="https://docs.nvidia.com/deploy/cuda-compatibility/",
    ),
    FailureText(
        name="no code for this GPU",
        pattern=r"no kernel image is available for execution on the device|cudaErrorNoKernelImageForDevice"
        r"|CUDA_ERROR_NO_BINARY_FOR_GPU|device kernel image is invalid|CUDA_ERROR_INVALID_IMAGE"
        r"|Unsupported gpu architecture '|Value 'sm_\w{1,5}' is not defined for option 'gpu-name'"
        r"|Unsupported compute capability|is not a recognized processor for this target"
        r"|nvrtc: error: invalid value for --gpu-architecture"
        r"|no kernel image (?:was )?found for|binary was not compiled for GPU arch"
        r"|No supported GPU\(s\) detected to run this container"
        r"|[Tt]his build (?:of \w{1,30} )?(?:does not|doesn't) support (?:the )?(?:GPU|compute capability)",
        kind=errors.DriverMismatch,
        verdict="the image's build of the framework has no code for this GPU",
        cure=_OTHER_BUILD,
        places=_ANY_TEXT,
        example="RuntimeError: CUDA error: no kernel image is available for execution on the device",
        near_miss="no image is available for the avatar of this user",
        source="https://github.com/pytorch/pytorch/issues/31285",
    ),
    FailureText(
        name="an engine of TensorRT for another GPU",
        pattern=r"engine plan file is (?:generated on an incompatible device|not compatible with this version)"
        r"|deserializeCudaEngine: [^\n]{0,200}(?:[Vv]ersion tag does not match|rebuild)",
        kind=errors.DriverMismatch,
        verdict="the engine file of TensorRT was built for another GPU or another version of TensorRT",
        cure=Cure(
            "Build the engine again, with the image and on the VM size that run it: trtexec --onnx=MODEL "
            f"--saveEngine=FILE; or use the size for which it was built; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["command"] = ["trtexec", "--onnx=model.onnx", "--saveEngine=model.plan"]'),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="[TRT] [E] IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine plan file is "
        "generated on an incompatible device, expecting compute 8.0 got compute 7.5, please rebuild.)",
        near_miss="[TRT] [I] Loaded engine size: 120 MiB",
        source="https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/advanced.html",
    ),
    FailureText(
        name="the GPU lacks a feature",
        pattern=r"FlashAttention only supports Ampere GPUs or newer"
        r"|Bfloat16 is only supported on GPUs with compute capability"
        r"|setup doesn't support bf16|bf16 mixed precision requires|requires device with capability >"
        r"|type fp8\w{1,8} not supported in this architecture"
        r"|fp8 (?:quantization|training) (?:is )?(?:only )?(?:requires"
        r"|supported)"
        r"|requires (?:a GPU with )?(?:compute|cuda|CUDA) capability (?:of at least |>= ?|at least )?\d"
        r"|GPU with compute capability less than|Minimum capability: \d|not supported on (?:Turing|Volta|Pascal)",
        kind=errors.JobFailed,
        verdict="the GPU's model lacks a feature that the program uses",
        cure=Cure(
            "Switch the feature off (float16 instead of bfloat16, another attention implementation), or use a VM size "
            "with a newer GPU: sizes.gpu_sizes(aks.azure, aks.location).",
            _SIZES,
            EDIT_JOB_SHELL,
            "Switch the feature off (float16 instead of bfloat16, another attention implementation), or use a node "
            "with a newer GPU.",
        ),
        example="ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 "
        "GPU has compute capability 7.5.",
        near_miss="using bfloat16 precision",
        source="https://github.com/vllm-project/vllm/issues/1157",
    ),
    FailureText(
        name="fabric manager does not run",
        pattern=r"system not yet initialized|CUDA_ERROR_SYSTEM_NOT_READY|cudaErrorSystemNotReady"
        r"|Error 802: |fabric manager.{0,40}(?:not running|failed to start)",
        kind=errors.NoGpuDriver,
        verdict="the fabric manager of the node's GPUs does not run",
        cure=_FABRIC_MANAGER,
        example="RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized",
        near_miss="The database system is starting up",
        source=_CUDA_ERRORS,
    ),
    FailureText(
        name="a GPU has an uncorrectable memory error",
        pattern=r"uncorrectable ECC error|CUDA_ERROR_ECC_UNCORRECTABLE|cudaErrorECCUncorrectable"
        r"|[Dd]ouble[- ][Bb]it ECC|ECC page retirement or row remapper|uncorrectable (?:NVLink|memory) error"
        r"|CUDA_ERROR_NVLINK_UNCORRECTABLE|Row [Rr]emapp\w{1,5} (?:failure|failed)|row remap(?:per|ping) failure"
        r"|DBE \(double bit error\)",
        kind=errors.GpuLost,
        verdict="a GPU has an uncorrectable memory error",
        cure=_REPLACE_NODE,
        places=EVERYWHERE,
        example="RuntimeError: CUDA error: uncorrectable ECC error encountered",
        near_miss="corrected ECC errors: 0",
        source="https://github.com/vllm-project/vllm/issues/5222",
    ),
    FailureText(
        name="the driver reports an error of the program",
        pattern=r"NVRM: Xid [^\n]{0,60}?: (?:13|31|43|45|68)\b",
        verdict="the driver ended the program's work on the GPU, as it does after an invalid memory access",
        cure=_DEBUG_KERNEL,
        places=EVERYWHERE,
        example="NVRM: Xid (PCI:0000:00:07): 31, pid=2512125, name=python3.10, Ch 00000008, intr 00000000. MMU Fault",
        near_miss="NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.183.01",
        source=_XID_PAGE,
    ),
    FailureText(
        name="the device plugin has marked a GPU unhealthy",
        pattern=r"XidCriticalError: Xid=(?P<xid>\d{1,4})|device marked unhealthy|the device will go unhealthy"
        r"|[Mm]arking device [^\n]{1,80} (?:as )?unhealthy|Xid ?= ?\d{1,4}[^\n]{0,40}unhealthy",
        kind=errors.GpuLost,
        verdict="the device plugin has marked a GPU unhealthy[ after the driver's error XID {xid}]",
        cure=_RESTART_PLUGIN,
        places=EVERYWHERE,
        example="2020/08/10 19:09:42 XidCriticalError: Xid=69 on Device=GPU-00000000, the device will go unhealthy.",
        near_miss="the pod's readiness probe marked it unhealthy",
        source="https://github.com/NVIDIA/k8s-device-plugin/issues/189",
    ),
    FailureText(
        name="a GPU is lost",
        pattern=r"fallen off (?:of )?the bus|NVRM: Xid [^\n]{0,60}?: (?P<xid>\d{1,4})|GPU is lost"
        r"|Unable to determine the device handle for (?:GPU|gpu)|ERROR_GPU_IS_LOST|GPU requires reset|GPU_IS_LOST"
        r"|no healthy devices present|detection error: nvml error|nvml(?:Init"
        r"|DeviceGet)\w{0,40}[^\n]{0,40}Unknown Error"
        r"|rm_init_adapter failed|RmInitAdapter failed|GSP (?:RPC )?[Tt]imeout|\bXid(?: error)?[ :=]{1,3}\d{2,3}\b"
        r"|GPU access blocked by the operating system"
        r"|an internal (?:driver|error) (?:error )?occurred in nvml",
        kind=errors.GpuLost,
        verdict="the node has lost a GPU[ (XID {xid})]",
        cure=_REPLACE_NODE,
        places=EVERYWHERE,
        example="Unable to determine the device handle for GPU0000:A1:00.0: Unknown Error",
        near_miss="GPU 0: Tesla T4, 37 C, P8",
        source="https://github.com/NVIDIA/k8s-device-plugin/issues/2038",
    ),
    FailureText(
        name="the GPU does not serve the program",
        pattern=r"CUDA-capable device(?:s|\(s\)) (?:is/)?are busy or unavailable|cudaErrorDevicesUnavailable"
        r"|CUDA_ERROR_DEVICE_UNAVAILABLE|CUDA unknown error - this may be due|CUDA error: unknown error"
        r"|CUDA_ERROR_UNKNOWN\b|CUDA error: device not ready|\bError 999: unknown error",
        kind=errors.GpuStackError,
        verdict="the GPU does not serve the program: another process uses it exclusively, the server of MPS does not "
        "answer, or the GPU is in a bad state (which of them, the text does not say)",
        cure=_RESTART_PLUGIN,
        places=_ANY_TEXT,
        example="RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable",
        near_miss="all devices are busy",
        source="https://github.com/NVIDIA/k8s-device-plugin/issues/1118",
    ),
    FailureText(
        name="a container loses its GPU while it runs",
        pattern=r"Failed to initialize NVML: Unknown Error",
        kind=errors.GpuLost,
        verdict="the container lost its GPU while it ran",
        cure=_LOST_AFTER_HOURS,
        places=_ANY_TEXT,
        example="Failed to initialize NVML: Unknown Error",
        near_miss="Failed to initialize the logger: Unknown Error",
        source="https://github.com/Azure/AKS/issues/3680",
    ),
    FailureText(
        name="two GPU stacks on one node",
        pattern=r"[Cc]ould not unload NVIDIA driver kernel modules, driver is in use"
        r"|NVIDIA driver is already loaded|pre-installed (?:NVIDIA )?drivers? (?:detected|found)"
        r"|nvidia: module (?:is )?(?:already )?in use",
        kind=errors.SecondGpuStack,
        verdict="the GPU Operator installs a driver where one is installed already",
        cure=Cure(
            'Keep one: add the pool with gpu_driver="none", or install the operator with driver.enabled=false.',
            "from aksgpu import cluster\n"
            'cluster.add_gpu_pool(aks, "gpuop", vm_size="Standard_NC4as_T4_v3", gpu_driver="none")',
            "helm upgrade gpu-operator nvidia/gpu-operator --namespace gpu-operator --reuse-values "
            "--set driver.enabled=false",
            "Keep one: install the operator with driver.enabled=false, or remove the node's own driver.",
        ),
        places=_ANY_TEXT,
        example="Could not unload NVIDIA driver kernel modules, driver is in use",
        near_miss="the port is already in use",
        source="https://github.com/NVIDIA/gpu-operator/issues/126",
    ),
    FailureText(
        name="the node lacks the runtime",
        pattern=r"no runtime for \"(?P<runtime_>[\w.-]{1,63})\" is configured"
        r"|RuntimeClass(?:\.node\.k8s\.io)? \"?(?P<class_>[\w.-]{1,63})\"? not found"
        r"|RuntimeHandler \"?(?P<handler_>[\w.-]{1,63})\"? not supported|unknown runtime specified",
        kind=errors.GpuStackError,
        verdict="the pod asks for the container runtime[ '{runtime_}'][ '{class_}'][ '{handler_}'], which the node "
        "does "
        "not have",
        cure=_NO_RUNTIME_CLASS,
        places=_ANY_TEXT,
        example="Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no "
        "runtime "
        'for "nvidia" is configured',
        near_miss='no handler for "nvidia" is registered in the web server',
        source="https://github.com/NVIDIA/gpu-operator/issues/413",
    ),
    FailureText(
        name="the container toolkit cannot name the device",
        pattern=r"unresolvable CDI devices|failed to (?:generate|inject) CDI (?:spec|devices)"
        r"|CDI device injection failed"
        r"|could not select device driver \"?\"? ?with capabilities: \[\[gpu\]\]"
        r"|nvidia-container-cli(?:\.real)?: device error"
        r"|unknown device id|failed to get device handle from UUID",
        kind=errors.GpuStackError,
        verdict="the node's container toolkit does not know the GPU that the container is to get",
        cure=_RESTART_PLUGIN,
        places=_ANY_TEXT,
        example="failed to create containerd task: CDI device injection failed: unresolvable CDI devices "
        "nvidia.com/gpu=0",
        near_miss="unresolvable host name",
        source="https://github.com/NVIDIA/nvidia-container-toolkit/blob/main/README.md",
    ),
    FailureText(
        name="NVIDIA's container runtime does not start",
        pattern=r"fork/exec \S{0,80}nvidia-container-(?:runtime|toolkit)"
        r"|exec: \"nvidia-container-(?:runtime|toolkit)\"",
        kind=errors.GpuStackError,
        verdict="NVIDIA's container runtime cannot be started on the node",
        cure=_NO_DRIVER,
        places=_ANY_TEXT,
        example="OCI runtime create failed: unable to retrieve OCI runtime error: fork/exec "
        "/usr/bin/nvidia-container-runtime: permission denied: unknown",
        near_miss='exec: "python": executable file not found in $PATH',
        source="https://github.com/NVIDIA/nvidia-container-runtime/issues/89",
    ),
    FailureText(
        name="the image has files of the driver",
        pattern=r"file creation failed: \S{1,300}/(?:lib(?:nvidia|cuda)|nvidia-)\S{1,80}: file exists",
        kind=errors.DriverMismatch,
        verdict="the image has files of the NVIDIA driver at the paths where the node's driver must be mounted",
        cure=Cure(
            "Remove the driver from the image: RUN apt-get purge -y 'libnvidia-compute-*' 'nvidia-utils-*', and rm -f "
            f"libcuda.so* and libnvidia-ml.so* below /usr/lib. The node's driver is mounted there; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["image"] = "IMAGE-WITHOUT-A-DRIVER"'),
            EDIT_JOB_SHELL,
        ),
        places=_ANY_TEXT,
        example="nvidia-container-cli: mount error: file creation failed: "
        "/merged/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1: file exists: unknown",
        near_miss="nvidia-container-cli: mount error: stat failed: /dev/nvidiactl: no such file or directory",
        source="https://github.com/NVIDIA/nvidia-container-toolkit/issues/289",
    ),
    FailureText(
        name="the driver does not answer",
        pattern=r"could not load NVML library|ERROR_LIBRARY_NOT_FOUND|ERROR_DRIVER_NOT_LOADED"
        r"|Failed to initialize NVML|NVIDIA-SMI has failed|nvml error: driver not loaded"
        r"|libnvidia-ml\.so\.1: cannot open|libcuda\.so\.1: cannot open"
        r"|nvidia-container-cli(?:\.real)?: initialization error"
        r"|nvidia-container-cli(?:\.real)?: (?:ldcache|mount|detection) error"
        r"|No devices found\. Waiting indefinitely|Incompatible (?:platform|strategy"
        r"|device discovery strategy) detected"
        r"|Detected non-NVML platform|invalid device discovery strategy|No devices were found"
        r"|error creating device nodes: mount /dev/nvidia|No valid resources detected"
        r"|Found no NVIDIA driver on your system"
        r"|NVIDIA (?:kernel )?driver is not (?:loaded|running)|kernel driver does not appear to be running"
        r"|NVML: (?:Driver Not Loaded|Not Found)|nvmlInit failed|nvidia-modprobe: (?:ERROR|unable)"
        r"|/dev/nvidia(?:ctl|0|-uvm)?[:'\"]? ?(?:does not exist|[Nn]o such file)|No NVIDIA driver (?:was )?found"
        r"|Cannot load driver library libcuda|error loading libcuda|CUDA driver (?:library )?(?:is )?not found"
        r"|NVIDIA driver version: unknown|driver (?:is )?not loaded\b|failed to initialize NVML",
        kind=errors.NoGpuDriver,
        verdict="it finds no GPU driver",
        cure=_NO_DRIVER,
        places=EVERYWHERE,
        example="I1129 11:18:43.000000       1 main.go:381] No devices found. Waiting indefinitely.",
        near_miss="No files found. Waiting indefinitely for uploads.",
        source="https://github.com/NVIDIA/k8s-device-plugin/issues/856",
    ),
    FailureText(
        name="Triton does not find the driver's library",
        pattern=r"libcuda\.so cannot found!",
        kind=errors.NoGpuDriver,
        verdict="Triton does not find libcuda.so: the image lacks a link to the driver's libcuda.so.1, or the pod has "
        "no GPU",
        cure=Cure(
            "If the next line names a libcuda.so.1, set TRITON_LIBCUDA_PATH in env to its directory. Otherwise ask "
            f"for a GPU (resources.limits: nvidia.com/gpu: 1); {RUN_AGAIN}",
            edit_job(
                'variable = {"name": "TRITON_LIBCUDA_PATH", "value": "/usr/lib/x86_64-linux-gnu"}',
                'pod["containers"][0].setdefault("env", []).append(variable)',
            ),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="AssertionError: libcuda.so cannot found!",
        near_miss="libcuda.so.1 was found",
        source="https://github.com/triton-lang/triton/blob/main/third_party/nvidia/backend/driver.py",
    ),
    FailureText(
        name="a program that does not read the ids of GPUs",
        pattern=r"invalid literal for int\(\) with base 10: '(?:MIG|GPU)-",
        verdict="the program expects numbers in CUDA_VISIBLE_DEVICES, but it has the id of a GPU or of a MIG slice",
        cure=Cure(
            'Set CUDA_VISIBLE_DEVICES to "0" in env: a container has only the GPUs that it asks for, numbered from 0. '
            f"Or use a newer version of the program; {RUN_AGAIN}",
            edit_job(
                'pod["containers"][0].setdefault("env", []).append({"name": "CUDA_VISIBLE_DEVICES", "value": "0"})'
            ),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="ValueError: invalid literal for int() with base 10: 'MIG-3f4d6d4e-0000-5e12-8c55-000000000000'",
        near_miss="ValueError: invalid literal for int() with base 10: 'three'",
        source="https://docs.nvidia.com/datacenter/tesla/mig-user-guide/",
    ),
    FailureText(
        name="CUDA in a forked process",
        pattern=r"Cannot re-initialize CUDA in forked subprocess",
        verdict="a worker process was forked from a process that had already used CUDA, so it cannot use CUDA",
        cure=Cure(
            'Start worker processes with torch.multiprocessing.set_start_method("spawn") '
            "(VLLM_WORKER_MULTIPROC_METHOD=spawn in env for vLLM), or move data to the GPU in the main process, not in "
            f"the workers of a DataLoader; {RUN_AGAIN}",
            edit_job(
                'variable = {"name": "VLLM_WORKER_MULTIPROC_METHOD", "value": "spawn"}',
                'pod["containers"][0].setdefault("env", []).append(variable)',
            ),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="RuntimeError: Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you "
        "must use the 'spawn' start method",
        near_miss="initialized CUDA in the subprocess",
        source="https://docs.pytorch.org/docs/stable/notes/multiprocessing.html",
    ),
    FailureText(
        name="a build for the CPU",
        pattern=r"Torch not compiled with CUDA enabled|PyTorch (?:is|was) not (?:linked|compiled"
        r"|built) with (?:support for )?"
        r"(?:cuda|CUDA)|compiled without (?:GPU|CUDA|cuda) support|not (?:built|compiled) with (?:GPU|CUDA) support"
        r"|was built without CUDA|Could not run '[\w:.]{1,80}' with arguments from the 'CUDA' backend"
        r"|Unable to use CUDA: the package is built for CPU|XGBoost version not compiled with GPU support"
        r"|Compile with USE_CUDA=1 to enable GPU|Distributed package doesn't have NCCL built in"
        r"|GPU Tree Learner was not enabled in this build|CUDA Tree Learner was not enabled in this build",
        kind=errors.JobFailed,
        verdict="the image's framework is a build for the CPU and cannot use the GPU",
        cure=_GPU_BUILD,
        example="AssertionError: Torch not compiled with CUDA enabled",
        near_miss="model compiled with CUDA graphs enabled",
        source="https://github.com/pytorch/pytorch/issues/30664",
    ),
    FailureText(
        name="more processes than GPUs",
        pattern=r"CUDA error: invalid device ordinal|CUDA_ERROR_INVALID_DEVICE|cudaErrorInvalidDevice"
        r"|Duplicate GPU detected|device >= 0 && device < num_gpus"
        r"|The number of required GPUs exceeds the total number of available GPUs"
        r"|You requested gpu: \[[\d, ]{1,80}\]\s+But your machine only has",
        kind=errors.JobFailed,
        verdict="the program uses more GPUs than the pod has",
        cure=_FEWER_PROCESSES,
        example="RuntimeError: CUDA error: invalid device ordinal",
        near_miss="invalid day ordinal in the calendar",
        source="https://docs.pytorch.org/docs/stable/elastic/run.html",
    ),
    FailureText(
        name="the program sees no GPU",
        pattern=r"No CUDA GPUs are available|no CUDA-capable device|CUDA_ERROR_NO_DEVICE|cudaErrorNoDevice"
        r"|Attempting to deserialize object on a CUDA device but torch\.cuda\.is_available\(\) is False"
        r"|Unknown backend:? '?(?:gpu|cuda)'?|no platforms that are instances of (?:gpu|cuda) are present"
        r"|No supported gpu backend found|CUDAAccelerator can ?not run on your system"
        r"|Unable to initialize backend '(?:cuda|gpu)': [^\n]{0,200}(?:no visible|No visible|NO_DEVICE)"
        r"|No visible GPU (?:devices|is found)|Failed to infer device type|ProcessGroupNCCL is only supported with GPUs"
        r"|[Nn]o (?:CUDA |NVIDIA |visible )?GPUs? (?:was |were )?(?:found|detected|available)[^,\n]{0,60}"
        r"(?<!falling back)(?:[.!]|$)"
        r"|CUDA is not available[^\n]{0,40}(?:required|abort|exit|cannot)|requires a (?:CUDA|NVIDIA) GPU"
        r"|0 active drivers \(\[\]\)"
        r"|Cannot access accelerator device when none is available|[Nn]o GPU found\. A GPU is needed"
        r"|expected (?:a )?'?cuda'? (?:device )?but (?:CUDA|cuda|it) is not available",
        kind=errors.NoGpuDriver,
        verdict="the program sees no GPU",
        cure=_NO_GPU_SEEN,
        places=_ANY_TEXT,
        example="RuntimeError: No CUDA GPUs are available",
        near_miss="No GPU/TPU found, falling back to CPU.",
        source="https://github.com/vllm-project/vllm/issues/3019",
    ),
    FailureText(
        name="nvidia-smi is not in the container",
        pattern=r"exec: \"nvidia-smi\": executable file not found|nvidia-smi: (?:command )?not found"
        r"|No such file or directory: 'nvidia-smi'",
        kind=errors.NoGpuDriver,
        verdict="the container has no nvidia-smi: the driver's programs are mounted only into containers that ask for "
        "a "
        "GPU",
        cure=_NO_GPU_SEEN,
        places=_ANY_TEXT,
        example='exec: "nvidia-smi": executable file not found in $PATH',
        near_miss='exec: "npm": executable file not found in $PATH',
        source="https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html",
    ),
    FailureText(
        name="an invalid memory access on the GPU",
        pattern=r"an illegal memory access was encountered|CUDA_ERROR_ILLEGAL_ADDRESS|device-side assert triggered"
        r"|CUDA_ERROR_ASSERT|unspecified launch failure|CUDA_ERROR_LAUNCH_FAILED|misaligned address"
        r"|CUBLAS_STATUS_EXECUTION_FAILED|CUDA error: invalid (?:configuration argument|argument|resource handle)"
        r"|an illegal instruction was encountered|CUDA_ERROR_MISALIGNED_ADDRESS|Warp Illegal (?:Address|Instruction)"
        r"|Assertion `[^`\n]{1,80}` failed\.?$",
        verdict="a kernel of the program failed on the GPU",
        cure=_DEBUG_KERNEL,
        example="RuntimeError: CUDA error: device-side assert triggered",
        near_miss="illegal memory policy in the configuration",
        source=_CUDA_ERRORS,
    ),
    FailureText(
        name="cuDNN or cuBLAS does not fit",
        pattern=r"Loaded runtime CuDNN library: [\d.]{1,12} but source was compiled with|CUDNN_STATUS_VERSION_MISMATCH"
        r"|CU(?:DNN|BLAS)_STATUS_NOT_INITIALIZED|Failed to get convolution algorithm|CUDNN_STATUS_ARCH_MISMATCH"
        r"|Unable to find an engine to execute this computation"
        r"|cuDNN version incompatibility|CUDNN_STATUS_(?:SUBLIBRARY_VERSION|SUBLIBRARY_LOADING)\w{0,20}"
        r"|DNN library is not found|Could not create cudnn handle|Outdated cuDNN installation found"
        r"|Unable to use CUDA because of the following issues with CUDA components"
        r"|FAILED_PRECONDITION: DNN library initialization failed",
        kind=errors.DriverMismatch,
        verdict="the image's cuDNN does not fit its framework, or the GPU's memory was full when cuDNN started (the "
        "text does not say which)",
        cure=Cure(
            "Use an image in which framework and cuDNN come together (nvcr.io/nvidia/pytorch, "
            "nvcr.io/nvidia/tensorflow), and leave LD_LIBRARY_PATH as it is. If the image is one of these, use less "
            "GPU memory: a smaller batch.",
            edit_job('pod["containers"][0]["image"] = "IMAGE-WITH-ITS-OWN-CUDNN"'),
            EDIT_JOB_SHELL,
        ),
        example="Loaded runtime CuDNN library: 8.2.4 but source was compiled with: 8.6.0.",
        near_miss="Loaded cuDNN version 8907",
        source="https://docs.nvidia.com/deeplearning/cudnn/backend/latest/api/cudnn-graph-library.html",
    ),
    FailureText(
        name="cuBLAS or cuDNN refuses its arguments",
        pattern=r"CUBLAS_STATUS_(?:INVALID_VALUE|NOT_SUPPORTED)|CUDNN_STATUS_(?:BAD_PARAM|NOT_SUPPORTED)",
        verdict="cuBLAS or cuDNN refuses its arguments: the shapes or types of the tensors do not fit together, or the "
        "library is not that of the framework (which of the two, the text does not say)",
        cure=Cure(
            "Run one step on the CPU, whose message names the shapes, and correct the program. If the step succeeds "
            "there, use an image in which framework and CUDA come together (nvcr.io/nvidia/pytorch), and leave "
            "LD_LIBRARY_PATH as it is.",
            edit_job(
                'pod["containers"][0].setdefault("env", []).append({"name": "CUDA_VISIBLE_DEVICES", "value": ""})'
            ),
            EDIT_JOB_SHELL,
        ),
        example="RuntimeError: CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm( handle, opa, opb)`",
        near_miss="CUBLAS_STATUS_SUCCESS",
        source="https://github.com/pytorch/pytorch/issues/64920",
    ),
    FailureText(
        name="cuBLAS or cuDNN fails while it runs",
        pattern=r"CUDNN_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)\w{0,40}|CUBLAS_STATUS_INTERNAL_ERROR",
        verdict="cuBLAS or cuDNN failed while it ran: the GPU's memory was full, an earlier operation had failed, or "
        "the image's libraries do not fit together (which of them, the text does not say)",
        cure=Cure(
            "Use less GPU memory first: a smaller batch. If it fails again, set CUDA_LAUNCH_BLOCKING=1, which names "
            "the operation that failed, or use an image in which framework and cuDNN come together "
            "(nvcr.io/nvidia/pytorch).",
            edit_job(
                'pod["containers"][0].setdefault("env", []).append({"name": "CUDA_LAUNCH_BLOCKING", "value": "1"})'
            ),
            EDIT_JOB_SHELL,
        ),
        example="RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        near_miss="CUDNN_STATUS_SUCCESS",
        source="https://github.com/mjq11302010044/TATT/issues/18",
    ),
    FailureText(
        name="more shared GPUs than a pod may have",
        pattern=r"request for '[\w./-]{1,80}' too large: maximum request size for shared resources is"
        r" (?P<most_>\d{1,4})",
        kind=errors.GpuStackError,
        verdict="the device plugin shares its GPUs by time-slicing and gives a pod at most {most_} of a GPU's shares",
        cure=Cure(
            "Ask for nvidia.com/gpu: 1. More shares give no extra time; set failRequestsGreaterThanOne: false in the "
            "plugin's configuration to allow them.",
            edit_job('pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "1"'),
            EDIT_JOB_SHELL,
        ),
        places=_ANY_TEXT,
        example="Allocate failed due to rpc error: request for 'nvidia.com/gpu' too large: maximum request size for "
        "shared resources is 1; found 2, which is unexpected",
        near_miss="413 Request Entity Too Large",
        source="https://github.com/NVIDIA/k8s-device-plugin#shared-access-to-gpus",
    ),
    FailureText(
        name="the node's GPUs were taken when the pod came",
        pattern=r"(?:can't|cannot) allocate unregistered device|requested number of devices unavailable for (?:nvidia"
        r"|amd)"
        r"|Node didn't have enough resource: (?:nvidia|amd)\.com/|OutOf(?:nvidia|amd)\.com/"
        r"|the device plugin (?:is|has) not (?:registered|ready)"
        r"|cannot allocate unhealthy devices",
        kind=errors.GpuLost,
        verdict="the node could not give the pod its GPU: the device plugin had not registered it, or it was in use",
        cure=Cure(
            "Run it again: the Job controller does so by itself if backoffLimit is above 0. If it recurs, restart the "
            "device plugin on NODE: plugin.status(aks) shows each GPU node.",
            'from aksgpu import jobs, plugin\njobs.apply(aks, jobs.get(aks, "JOB", namespace="NAMESPACE").manifest(), '
            "replace=True)\nplugin.status(aks)",
            "kubectl rollout restart daemonset/nvidia-device-plugin-daemonset --namespace gpu-resources",
        ),
        places=_ANY_TEXT,
        example="Pod was rejected: Allocate failed due to can't allocate unregistered device nvidia.com/gpu, which is "
        "unexpected",
        near_miss="Node didn't have enough resource: cpu, requested: 8000, used: 2000, capacity: 3860",
        source="https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/cm/devicemanager/manager.go",
    ),
    FailureText(
        name="the device plugin does not answer",
        pattern=r"Allocate failed due to (?:device plugin \w{1,40} rpc failed|rpc error)",
        kind=errors.GpuStackError,
        verdict="the device plugin of the node did not give the pod its GPU",
        cure=_RESTART_PLUGIN,
        places=_ANY_TEXT,
        example="Allocate failed due to rpc error: code = Unavailable desc = error reading from server: EOF, which is "
        "unexpected",
        near_miss="the plugin allocated the device",
        source="https://github.com/Project-HAMi/HAMi/issues/71",
    ),
    # Programs that continue on the CPU.
    FailureText(
        name="the container has no driver",
        pattern=r"The NVIDIA Driver was not detected|unable to get number of CUDA devices"
        r"|failed to get device count, GPU metrics",
        kind=errors.NoGpuDriver,
        verdict="the container has no NVIDIA driver: the pod did not get a GPU",
        cure=_NO_GPU_SEEN,
        places=frozenset({Place.LOG}),
        weight=Weight.WARNING,
        example="WARNING: The NVIDIA Driver was not detected.  GPU functionality will not be available.",
        near_miss="NVIDIA Driver 580.159 was detected",
        source="https://github.com/triton-inference-server/server/issues/3098",
    ),
    FailureText(
        name="TensorFlow continues on the CPU",
        pattern=r"Cannot dlopen some GPU libraries|Skipping registering GPU devices"
        r"|Could not find cuda drivers on your machine, GPU will not be used"
        r"|Cannot register GPU devices|failed call to cuInit"
        r"|Could not load dynamic library 'lib(?:cuda|cudart|cublas|cudnn|cufft|curand|cusolver|cusparse)\w{0,10}\.",
        kind=errors.NoGpuDriver,
        verdict="TensorFlow does not use the GPU: it runs on the CPU while the GPU is paid for",
        cure=_LIBRARIES,
        places=frozenset({Place.LOG}),
        weight=Weight.WARNING,
        example="I tensorflow/tsl/cuda/cudart_stub.cc:28] Could not find cuda drivers on your machine, GPU will not be "
        "used.",
        near_miss="W tensorflow/compiler/tf2tensorrt/utils/py_utils.cc:38] TF-TRT Warning: Could not find TensorRT",
        source="https://github.com/tensorflow/tensorflow/issues/66750",
    ),
    FailureText(
        name="JAX continues on the CPU",
        pattern=r"No GPU/TPU found, falling back to CPU|CUDA-enabled jaxlib is not installed\. Falling back to cpu"
        r"|NVIDIA GPU may be present on this machine, but",
        kind=errors.NoGpuDriver,
        verdict="JAX does not use the GPU: it runs on the CPU while the GPU is paid for",
        cure=_GPU_BUILD,
        places=frozenset({Place.LOG}),
        weight=Weight.WARNING,
        example="WARNING:jax._src.xla_bridge:791: An NVIDIA GPU may be present on this machine, but a CUDA-enabled "
        "jaxlib is not installed. Falling back to cpu.",
        near_miss="Using jax backend: gpu",
        source="https://github.com/jax-ml/jax/issues/29068",
    ),
    FailureText(
        name="JAX finds an old CUDA",
        pattern=r"CUDA backend failed to initialize: |Found (?:cuDNN|CUDA|cuSPARSE|cuBLAS|cuFFT|cuSOLVER|CUPTI) "
        r"version \d{1,8}, but JAX was built against",
        kind=errors.DriverMismatch,
        verdict="JAX does not use the GPU: the image's CUDA or cuDNN is older than JAX needs",
        cure=Cure(
            'Install JAX with its own CUDA libraries, pip install "jax[cuda12]", and leave LD_LIBRARY_PATH unset; or '
            "use an image in which both come together (nvcr.io/nvidia/jax). Until then the GPU is paid for and not "
            "used.",
            edit_job('pod["containers"][0]["image"] = "IMAGE-WITH-FITTING-CUDNN"'),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        weight=Weight.WARNING,
        example="CUDA backend failed to initialize: Found cuDNN version 8600, but JAX was built against version 8906, "
        "which is newer.",
        near_miss="JAX version 0.4.30 found",
        source="https://github.com/MIT-REALM/gcbfplus/issues/1",
    ),
    FailureText(
        name="PyTorch has no code for this GPU",
        pattern=r"with CUDA capability sm_\w{1,5} is not compatible with the current PyTorch installation",
        kind=errors.DriverMismatch,
        verdict="the image's build of PyTorch has no code for this GPU",
        cure=_OTHER_BUILD,
        places=frozenset({Place.LOG}),
        weight=Weight.WARNING,
        example="UserWarning: NVIDIA H100 with CUDA capability sm_90 is not compatible with the current PyTorch "
        "installation.",
        near_miss="NVIDIA H100 with CUDA capability sm_90",
        source="https://github.com/pytorch/pytorch/issues/31285",
    ),
    FailureText(
        name="PyTorch continues on the CPU",
        pattern=r"UserWarning: CUDA initialization: |Can't initialize NVML|GPU available: False"
        r"|User provided device_type of 'cuda', but CUDA is not available|CUDA is not available\. Disabling"
        r"|'pin_memory' argument is set as true but no accelerator is found"
        r"|The installed version of bitsandbytes was compiled without GPU support",
        kind=errors.NoGpuDriver,
        verdict="PyTorch does not use the GPU: it runs on the CPU while the GPU is paid for",
        cure=_GPU_BUILD,
        places=frozenset({Place.LOG}),
        weight=Weight.WARNING,
        example="GPU available: False, used: False",
        near_miss="GPU available: True (cuda), used: True",
        source="https://github.com/Lightning-AI/pytorch-lightning/issues/13866",
    ),
    FailureText(
        name="a program continues on the CPU",
        pattern=r"(?:CUDA|GPU|cuda|gpu)(?: device)?(?:\(s\))? (?:is |are )?not (?:available|found|detected)[^\n]{0,60}"
        r"(?:CPU|cpu)\b|[Ff]alling back to (?:the )?(?:CPU|cpu)\b|Failed to create CUDAExecutionProvider"
        r"|CUDAExecutionProvider' is not in available provider|[Nn]o GPUs? (?:found|detected|available)[^\n]{0,40}"
        r"[Uu]sing (?:the )?CPU|Device: cpu \(no GPU\)|[Nn]o usable GPU found, [\w-]{1,30} (?:option )?will be ignored",
        kind=errors.NoGpuDriver,
        verdict="the program runs on the CPU while the GPU is paid for",
        cure=_GPU_BUILD,
        places=frozenset({Place.LOG}),
        weight=Weight.WARNING,
        example="WARNING: CUDA is not available, training on CPU",
        near_miss="CUDA is available, training on cuda:0",
        source="https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html",
    ),
)
"""Driver, container toolkit, device plugin and CUDA. More specific texts come first."""

MEMORY_TEXTS = (
    FailureText(
        name="the JVM's heap is too small",
        pattern=r"java\.lang\.OutOfMemoryError|Java heap space|GC overhead limit exceeded",
        verdict="the Java program's heap is too small, not the GPU's memory",
        cure=Cure(
            "Raise the heap (-Xmx, spark.executor.memory, spark.driver.memory) and resources.limits.memory with it; "
            f"{RUN_AGAIN}",
            edit_job('pod["containers"][0].setdefault("resources", {}).setdefault("limits", {})["memory"] = "16Gi"'),
            EDIT_JOB_SHELL,
        ),
        example="java.lang.OutOfMemoryError: Java heap space",
        near_miss="torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        source="https://docs.oracle.com/en/java/javase/21/troubleshoot/troubleshooting-memory-leaks.html",
    ),
    FailureText(
        name="host memory is too small",
        pattern=r"(?:^|\n|: )MemoryError\b|ArrayMemoryError|std::bad_alloc(?!: ?(?:out_of_memory|cuda))"
        r"|DefaultCPUAllocator: "
        r"(?:can't|not enough)|[Cc]annot allocate memory|OOM when allocating [^\n]{1,300}by allocator (?:mkl)?cpu"
        r"|DataLoader worker \(pid[^)]{0,30}\) is killed by signal: Killed"
        r"|DataLoader worker \(pid\(s\)[^)]{0,60}\) exited "
        r"unexpectedly|Out of memory: Killed process|ray\.exceptions\.OutOfMemoryError"
        r"|Workers? \(tasks / actors\) killed due to memory pressure|oom-kill:constraint=|oom_reaper"
        r"|Node (?:is )?running low on memory|memory cgroup out of memory|Memory cgroup out of memory",
        verdict="the node's memory, or the container's limit of it, is too small (not the GPU's memory)",
        cure=Cure(
            "Ask for more memory (resources.requests.memory and limits.memory), use fewer DataLoader workers, or read "
            "the "
            f"data in parts; {RUN_AGAIN}",
            edit_job(
                'resources = pod["containers"][0].setdefault("resources", {})',
                'resources.setdefault("limits", {})["memory"] = "32Gi"',
                'resources.setdefault("requests", {})["memory"] = "32Gi"',
            ),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG, Place.CONTAINER, Place.EVENT}),
        example="RuntimeError: [enforce fail at alloc_cpu.cpp:83] . DefaultCPUAllocator: can't allocate memory: you "
        "tried "
        "to allocate 68719476736 bytes. Error code 12 (Cannot allocate memory)",
        near_miss="torch.cuda.memory_allocated() = 1024",
        source="https://github.com/pytorch/pytorch/issues/13246",
    ),
    FailureText(
        name="the GPU's memory is too small",
        pattern=r"CUDA out of memory|CUDA error: out of memory|torch\.(?:cuda\.)?OutOfMemoryError|HIP out of memory"
        r"|(?:parallel_for|radix_sort|merge_sort|for_each|reduce)\b[^\n]{0,60}failed[^\n]{0,60}: out of memory"
        r"|\.cuh?[(:] ?\d{1,6}\)?: out of memory|cudaSuccess\]?(?: \(2 vs\. 0\))?\s{1,3}out of memory"
        r"|Dst tensor is not initialized|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED"
        r"|CUDNN_STATUS_ALLOC_FAILED"
        r"|RESOURCE_EXHAUSTED: (?:Out of memory|Failed to allocate)|RESOURCE_EXHAUSTED: [^\n]{0,200}[Oo]ut of memory"
        r"|RESOURCE_EXHAUSTED: [^\n]{0,200}hbm|OOM when allocating|[Cc]uda(?:Malloc|RuntimeError)\w{0,20}"
        r"[^\n]{0,80}out of memory|Cuda failure '?\d{0,4} ?'?out of memory|cudaMalloc failed"
        r"|cupy\.cuda\.memory\.OutOfMemoryError|out_of_memory: (?:CUDA|RMM)"
        r"|(?:GPU|VRAM|[Dd]evice) (?:is )?out of (?:GPU |device )?memory"
        r"|ran out of (?:GPU|CUDA|device|hbm) memory|Failed to allocate memory for requested buffer of size"
        r"|failed to allocate [^\n]{1,60} from device|INTERNAL: Failed to allocate [^\n]{1,60} for new constant"
        r"|[Aa]llocation of \d{1,20} bytes [^\n]{0,30}exceeds [^\n]{0,30}GPU memory"
        r"|not enough (?:GPU|video|device) memory|OutOfGPUMemory",
        verdict="the GPU's memory is too small",
        cure=_SMALLER_BATCH,
        example="jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate "
        "17179869184 bytes.",
        near_miss="java.lang.OutOfMemoryError: Java heap space",
        source="https://docs.pytorch.org/docs/stable/notes/faq.html",
    ),
    FailureText(
        name="TensorFlow's allocator reports a shortage",
        pattern=r"ran out of memory trying to allocate",
        verdict="TensorFlow reports that the GPU's memory is nearly full, and continues",
        cure=_SMALLER_BATCH,
        places=frozenset({Place.LOG}),
        weight=Weight.SYMPTOM,
        example="W tensorflow/core/common_runtime/bfc_allocator.cc:479] Allocator (GPU_0_bfc) ran out of memory trying "
        "to "
        "allocate 2.00GiB. The caller indicates that this is not a failure",
        near_miss="I tensorflow/core/common_runtime/gpu/gpu_device.cc:1616] Created device with 13764 MB memory",
        source="https://www.tensorflow.org/guide/gpu#limiting_gpu_memory_growth",
    ),
)
"""Memory of the GPU, of the node and of the JVM. The JVM comes first: its error's name contains that of PyTorch's."""
