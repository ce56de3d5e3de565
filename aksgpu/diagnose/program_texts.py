"""Texts of programs about shared memory, disks, other processes of a training, parts of an image, and networks."""

from __future__ import annotations

from aksgpu.diagnose.cures import EDIT_JOB_SHELL, RUN_AGAIN, Cure, edit_job
from aksgpu.diagnose.failure_text import FailureText, Place, Weight

__all__ = ["DISTRIBUTED_TEXTS", "IMAGE_CONTENT_TEXTS", "SHARED_MEMORY_CURE", "STORAGE_TEXTS", "WRAPPER_TEXTS"]

_NCCL_HELP = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html"

SHARED_MEMORY_CURE = Cure(
    "Mount an emptyDir with medium: Memory at /dev/shm, whose default size is 64 MB in a container; or use no worker "
    f"processes (num_workers=0); {RUN_AGAIN}",
    edit_job(
        'pod.setdefault("volumes", []).append({"name": "shm", "emptyDir": {"medium": "Memory"}})',
        'mount = {"name": "shm", "mountPath": "/dev/shm"}',
        'pod["containers"][0].setdefault("volumeMounts", []).append(mount)',
    ),
    "kubectl get job JOB --namespace NAMESPACE -o yaml > job.yaml\n"
    "# Add to spec.template.spec:   volumes: [{name: shm, emptyDir: {medium: Memory}}]\n"
    "# and to the container:        volumeMounts: [{name: shm, mountPath: /dev/shm}]\n"
    "# Remove status, spec.selector and the labels with controller-uid.\n"
    "kubectl replace --force -f job.yaml",
)
"""A larger /dev/shm."""


def _in_image(what: str, command: str) -> Cure:
    """Return the cure for something that the image lacks.

    Args:
        what: what to add to the image, as the end of a sentence.
        command: the line of a Dockerfile that adds it.
    """
    return Cure(
        f"Add {what} to the image: {command}. Or use an image that has it; {RUN_AGAIN}",
        edit_job('pod["containers"][0]["image"] = "IMAGE-WITH-WHAT-IS-MISSING"'),
        EDIT_JOB_SHELL,
    )


STORAGE_TEXTS = (
    FailureText(
        name="/dev/shm is too small",
        pattern=r"insufficient shared memory \(shm\)|(?:DataLoader worker"
        r"|worker process)[^\n]{0,60}killed by signal: Bus error"
        r"|out of shared memory\. Please|raise your shared memory limit"
        r"|unable to (?:write to file|open shared memory object|mmap \d{1,20} bytes from file) </?torch_"
        r"|extend /dev/shm|creating shared memory segment /dev/shm|/dev/shm[^\n]{0,160}No space left on device"
        r"|No space left on device[^\n]{0,120}/dev/shm|shared memory segment[^\n]{0,120}(?:size|No space left)"
        r"|unexpected bus error encountered in worker|/dev/shm has only|ERROR: Unexpected bus error"
        r"|shm_open[^\n]{0,60}(?:No space left|failed)|unable to allocate shared memory\(shm\)"
        r"|posix_fallocate[^\n]{0,60}(?:No space left|shm)|Error: failed to (?:extend|open|mmap) [^\n]{0,10}/dev/shm",
        verdict="the container's /dev/shm (shared memory) is too small",
        cure=SHARED_MEMORY_CURE,
        example="RuntimeError: DataLoader worker (pid 125) is killed by signal: Bus error. It is possible that "
        "dataloader's workers are out of shared memory. Please try to raise your shared memory limit.",
        near_miss="the bus schedule has an error in the worker's timetable",
        source="https://github.com/pytorch/pytorch/issues/5040",
    ),
    FailureText(
        name="the disk is full",
        pattern=r"[Nn]o space left on device|Disk quota exceeded|OSError: \[Errno 28\]|Not enough (?:free )?disk space"
        r"|PytorchStreamWriter failed writing file|not enough space on the disk|ENOSPC"
        r"|enforce fail at inline_container\.cc[^\n]{0,60}unexpected pos",
        verdict="the disk is full",
        cure=Cure(
            "Write to a volume (a PersistentVolumeClaim) instead of the container's file system, delete old "
            "checkpoints, or use a pool with a larger OS disk: os_disk_size_gb in cluster.add_gpu_pool(aks, ...).",
            'from aksgpu import cluster\ncluster.add_gpu_pool(aks, "gpunp2", vm_size="Standard_NC4as_T4_v3", '
            "os_disk_size_gb=256)",
            "kubectl debug node/NODE --image=mcr.microsoft.com/cbl-mariner/busybox:2.0 -it -- df -h /host",
            "Write to a volume (a PersistentVolumeClaim) instead of the container's file system, delete old "
            "checkpoints, or use a node with a larger disk.",
        ),
        places=frozenset({Place.LOG, Place.CONTAINER, Place.EVENT}),
        example="OSError: [Errno 28] No space left on device: '/checkpoints/step-1000.pt'",
        near_miss="12 GB of space left on the device",
        source="https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/",
    ),
    FailureText(
        name="a file system is read-only",
        pattern=r"Read-only file system|\[Errno 30\]",
        verdict="the program writes to a read-only file system",
        cure=Cure(
            "Write to a mounted volume: an emptyDir for scratch files, a PersistentVolumeClaim for results; and set "
            f"HF_HOME, TORCH_HOME, XDG_CACHE_HOME or TMPDIR to it; {RUN_AGAIN}",
            edit_job(
                'pod.setdefault("volumes", []).append({"name": "scratch", "emptyDir": {}})',
                'mount = {"name": "scratch", "mountPath": "/tmp"}',
                'pod["containers"][0].setdefault("volumeMounts", []).append(mount)',
            ),
            EDIT_JOB_SHELL,
        ),
        example="OSError: [Errno 30] Read-only file system: '/opt/model'",
        near_miss="opened the file system read-write",
        source="https://kubernetes.io/docs/tasks/configure-pod-container/security-context/",
    ),
    FailureText(
        name="a volume lost its server",
        pattern=r"Stale file handle|\[Errno (?:5|107|112|116|121)\] [\w /]{1,60}: ['\"]?/"
        r"|Transport endpoint is not connected: ['\"]?/|(?:'|: )/[^\n:]{1,200}: Transport endpoint is not connected",
        verdict="a volume has lost the connection to its server, or its data cannot be read",
        cure=Cure(
            "Run it again: a new pod mounts the volume again. If it recurs, look at the driver of the volume on NODE "
            "(csi-azurefile-node or csi-blob-node in kube-system: a driver that restarts breaks mounts of blobfuse), "
            "and at the limits of the storage account.",
            'from aksgpu import jobs\njobs.apply(aks, jobs.get(aks, "JOB", namespace="NAMESPACE").manifest(), '
            "replace=True)",
            "kubectl get pods --namespace kube-system --field-selector spec.nodeName=NODE\n"
            "kubectl describe pod POD --namespace NAMESPACE",
        ),
        places=frozenset({Place.LOG}),
        example="OSError: [Errno 107] Transport endpoint is not connected: '/mnt/blob'",
        near_miss="OSError: [Errno 107] Transport endpoint is not connected",
        source="https://github.com/kubernetes-sigs/blob-csi-driver/blob/master/docs/csi-debug.md",
    ),
)
"""Shared memory and disks. Shared memory comes first: its text may contain that of a full disk."""

_RENDEZVOUS = Cure(
    "Make sure that all pods run at the same time and find each other: a headless Service with the Job's subdomain, "
    "MASTER_ADDR set to the name of pod 0, and the same number of pods and processes everywhere. "
    "jobs.get(aks, 'JOB', namespace='NAMESPACE').pods() shows which pods do not run.",
    'from aksgpu import jobs\njobs.get(aks, "JOB", namespace="NAMESPACE").pods()',
    "kubectl get pods --namespace NAMESPACE -l batch.kubernetes.io/job-name=JOB -o wide\n"
    "kubectl get endpoints --namespace NAMESPACE",
)
_OTHER_RANK = Cure(
    "Look for the first error of the process that failed first: this one only lost its connection to it. "
    "jobs.get(aks, 'JOB', namespace='NAMESPACE').pods() shows the pods, and NCCL_DEBUG=INFO in env makes NCCL name the "
    "cause.",
    edit_job('pod["containers"][0].setdefault("env", []).append({"name": "NCCL_DEBUG", "value": "INFO"})'),
    "kubectl logs --namespace NAMESPACE -l batch.kubernetes.io/job-name=JOB --prefix --tail=-1 | grep -m 20 -E "
    "'Error|NCCL WARN'",
)

DISTRIBUTED_TEXTS = (
    FailureText(
        name="NCCL may not lock memory",
        pattern=r"ibv_(?:reg_mr|create_cq|create_qp|alloc_pd)\w{0,20} failed[^\n]{0,60}Cannot allocate memory"
        r"|ibv_(?:reg_mr|create_cq)\w{0,12}[^\n]{0,40}ENOMEM",
        verdict="NCCL may not lock the memory that InfiniBand needs",
        cure=Cure(
            f"Add the capability IPC_LOCK to the container's securityContext; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["securityContext"] = {"capabilities": {"add": ["IPC_LOCK"]}}'),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="NCCL WARN Call to ibv_reg_mr failed with error Cannot allocate memory",
        near_miss="NCCL INFO NET/IB : Using [0]mlx5_0:1/IB",
        source=_NCCL_HELP,
    ),
    FailureText(
        name="NCCL finds no network",
        pattern=r"NCCL WARN (?:Bootstrap : )?no socket interface found|No usable listening interface found"
        r"|NCCL WARN NET/(?:Socket|IB) ?: ?[Nn]o (?:interface|device) found",
        verdict="NCCL finds no network interface: NCCL_SOCKET_IFNAME or NCCL_IB_HCA names one that the pod does not "
        "have",
        cure=Cure(
            f"Remove NCCL_SOCKET_IFNAME from env, or set it to eth0, the interface of pods on AKS; {RUN_AGAIN}",
            edit_job(
                'pod["containers"][0].setdefault("env", []).append({"name": "NCCL_SOCKET_IFNAME", "value": "eth0"})'
            ),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="NCCL WARN Bootstrap : no socket interface found",
        near_miss="NCCL INFO Bootstrap : Using eth0:10.244.1.7<0>",
        source=_NCCL_HELP,
    ),
    FailureText(
        name="the GPUs of a node cannot reach each other",
        pattern=r"NCCL WARN [^\n]{0,120}peer access is not supported",
        verdict="NCCL uses direct access between two GPUs, which this VM size or way of sharing does not support",
        cure=Cure(
            f"Set NCCL_P2P_DISABLE=1 in env: NCCL then uses the memory of the host; {RUN_AGAIN}",
            edit_job('pod["containers"][0].setdefault("env", []).append({"name": "NCCL_P2P_DISABLE", "value": "1"})'),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="transport/p2p.cc:275 NCCL WARN Cuda failure 217 'peer access is not supported between these two "
        "devices'",
        near_miss="NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM",
        source=_NCCL_HELP,
    ),
    FailureText(
        name="Gloo finds no address",
        pattern=r"Unable to find address for: |third_party/gloo/gloo/transport/tcp/device\.cc[^\n]{0,80}ifa != nullptr",
        verdict="Gloo finds no address of the pod: its name, or the interface in GLOO_SOCKET_IFNAME, is not known",
        cure=Cure(
            f"Set GLOO_SOCKET_IFNAME to eth0, the interface of pods on AKS; {RUN_AGAIN}",
            edit_job(
                'pod["containers"][0].setdefault("env", []).append({"name": "GLOO_SOCKET_IFNAME", "value": "eth0"})'
            ),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="RuntimeError: [enforce fail at /pytorch/third_party/gloo/gloo/transport/tcp/device.cc:84] ifa != "
        "nullptr. Unable to find address for: train-0",
        near_miss="[Gloo] Rank 0 is connected to 1 peer ranks.",
        source="https://docs.pytorch.org/docs/stable/distributed.html",
    ),
    FailureText(
        name="the port is in use",
        pattern=r"EADDRINUSE|[Aa]ddress already in use|failed to (?:bind|listen) [^\n]{0,80}(?:in use|EADDR)",
        verdict="another process listens on the port already",
        cure=Cure(
            "Use another port (torchrun --master-port, --rdzv-endpoint), and one launcher for each pod; "
            "hostNetwork: true makes the pods of a node share their ports.",
            edit_job('pod.pop("hostNetwork", None)'),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="RuntimeError: The server socket has failed to listen on any local network address. port: 29500, "
        "useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use",
        near_miss="the server listens on port 29500",
        source="https://docs.pytorch.org/docs/stable/elastic/run.html",
    ),
    FailureText(
        name="NCCL does not reach another pod",
        pattern=r"NCCL WARN [^\n]{0,200}(?:No route to host|Connection timed out|Network is unreachable"
        r"|Software caused connection abort)",
        verdict="NCCL does not reach another pod of the training: it uses an interface that leads nowhere, or the "
        "network between the pods is closed",
        cure=Cure(
            "Set NCCL_SOCKET_IFNAME to eth0, the interface of pods on AKS, in all pods; and check that no "
            "NetworkPolicy closes the ports between them, and that all of them still run.",
            edit_job(
                'pod["containers"][0].setdefault("env", []).append({"name": "NCCL_SOCKET_IFNAME", "value": "eth0"})'
            ),
            "kubectl get networkpolicies --namespace NAMESPACE\n"
            "kubectl get pods --namespace NAMESPACE -l batch.kubernetes.io/job-name=JOB -o wide",
        ),
        places=frozenset({Place.LOG}),
        example="node5:240:240 [6] misc/socket.cc:533 NCCL WARN socketPollConnect: Connect to 10.0.0.4<56849> returned "
        "113(No route to host) errno 115(Operation now in progress)",
        near_miss="NCCL INFO Call to connect returned Connection refused, retrying",
        source="https://github.com/sgl-project/sglang/issues/3820",
    ),
    FailureText(
        name="two processes have the same rank",
        pattern=r"Bootstrap Root : rank \d{1,6} of \d{1,6} ranks has already checked in",
        verdict="two processes of the training have the same rank",
        cure=Cure(
            "Let torchrun, or the index of the pod (JOB_COMPLETION_INDEX), set the rank, and leave RANK and LOCAL_RANK "
            f"out of the manifest. Each training needs a MASTER_PORT of its own; {RUN_AGAIN}",
            edit_job(
                'fixed = ("RANK", "LOCAL_RANK")',
                'env = pod["containers"][0].get("env", [])',
                'pod["containers"][0]["env"] = [each for each in env if each["name"] not in fixed]',
            ),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="hpc-25-14:18622:18835 [0] bootstrap.cc:131 NCCL WARN Bootstrap Root : rank 1 of 8 ranks has already "
        "checked in",
        near_miss="NCCL INFO comm 0x7f rank 1 nranks 8 - Init START",
        source="https://github.com/Lightning-AI/pytorch-lightning/issues/14986",
    ),
    FailureText(
        name="the processes do not find each other",
        pattern=r"client socket has timed out after|RendezvousTimeoutError|RendezvousConnectionError"
        r"|Timed out (?:after \d{1,6} seconds )?waiting for clients|TCPStore[^\n]{0,80}(?:timed out|timeout)"
        r"|wait timeout after \d{1,9}ms, keys|client socket has failed to connect to|DeadlineExceededError: Barrier"
        r"|\[c10d\] The IPv[46] network addresses of \([^()\n]{1,200}\) cannot be retrieved"
        r"|Error initializing torch\.distributed using env:// rendezvous|"
        r"(?:Barrier|Coordination service)[^\n]{0,60}(?:timed out|DEADLINE_EXCEEDED)",
        verdict="the processes of the training do not find each other",
        cure=_RENDEZVOUS,
        places=frozenset({Place.LOG}),
        example="torch.distributed.DistNetworkError: The client socket has timed out after 600000ms while trying to "
        "connect to (train-0.train, 29500).",
        near_miss="Rendezvous complete for workers. Result: restart_count=0 master_addr=train-0.train",
        source="https://docs.pytorch.org/docs/stable/elastic/rendezvous.html",
    ),
    FailureText(
        name="NCCL versions differ",
        pattern=r"NCCL WARN (?:[^\n]{0,60})(?:version mismatch|Mismatched)|NCCL version mismatch"
        r"|Inconsistent NCCL versions?",
        verdict="the processes use different versions of NCCL",
        cure=Cure(
            f"Use the same image, by its digest, in all pods; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["image"] = "IMAGE@sha256:DIGEST"'),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="NCCL WARN NET/Plugin: version mismatch",
        near_miss="NCCL version 2.21.5+cuda12.4",
        source=_NCCL_HELP,
    ),
    FailureText(
        name="an InfiniBand transfer failed",
        pattern=r"NCCL WARN NET/IBP? ?: ?Got completion (?:from|with) "
        r"|NET/IBP? ?: ?Got completion [^\n]{0,120}vendor err",
        verdict="an InfiniBand transfer failed: the other process had ended, or the link between the nodes does not "
        "work (which of the two, the text does not say)",
        cure=Cure(
            "Look for the first error of another process: kubectl logs as below. If there is none, "
            "diagnose.node(aks, 'NODE') shows whether the node's InfiniBand link flaps; NCCL_IB_DISABLE=1 in env uses "
            "the network of the pods instead, more slowly.",
            'from aksgpu import diagnose\ndiagnose.node(aks, "NODE")',
            "kubectl logs --namespace NAMESPACE -l batch.kubernetes.io/job-name=JOB --prefix --tail=-1 | grep -m 20 -E "
            "'Error|NCCL WARN'",
        ),
        weight=Weight.SYMPTOM,
        places=frozenset({Place.LOG}),
        example="NCCL WARN NET/IB : Got completion from peer 10.216.210.236<54862> with status=12 opcode=0 len=0 "
        "vendor err 129 (Recv)",
        near_miss="NCCL INFO NET/IB : Using [0]mlx5_0:1/IB",
        source="https://github.com/NVIDIA/nccl/issues/1405",
    ),
    FailureText(
        name="a worker of Ray ended",
        pattern=r"Worker exit type: \w|Worker unexpectedly exits with a connection error"
        r"|worker died or was killed while executing a task by an unexpected system error",
        verdict="a worker of Ray ended without a message: most often it was killed because the memory was full, "
        "which is "
        "a guess",
        cure=Cure(
            "Look in the log for the first error of the worker. If there is none, ask for more memory "
            "(resources.requests.memory and limits.memory), or use fewer workers. diagnose.node(aks, 'NODE') shows "
            "whether the node reports a lack of memory.",
            edit_job(
                'pod["containers"][0].setdefault("resources", {}).setdefault("requests", {})["memory"] = "64Gi"',
            ),
            "kubectl describe node NODE",
        ),
        weight=Weight.SYMPTOM,
        places=frozenset({Place.LOG}),
        example="(raylet) A worker died or was killed while executing a task by an unexpected system error. "
        "Worker exit "
        "type: SYSTEM_ERROR",
        near_miss="(raylet) started 8 workers",
        source="https://github.com/verl-project/verl/issues/472",
    ),
    FailureText(
        name="another process of the training failed",
        pattern=r"unhandled (?:system|cuda) error|remote process exited or there was a network error"
        r"|Watchdog caught collective operation timeout|Connection closed by (?:remote )?peer"
        r"|socketProgress: Connection closed|Broken pipe|[Cc]onnection reset by peer|DistBackendError|ncclRemoteError"
        r"|ncclSystemError|ncclInternalError|Some NCCL operations have failed or timed out|recvValue failed"
        r"|[Ss]ocket [Tt]imeout|Process group watchdog thread terminated|NCCL communicator was aborted"
        r"|HeartbeatMonitor|NCCL WARN [^\n]{0,80}Connection refused|Aborted due to (?:an )?exception in another"
        r"|[Aa]nother (?:rank|process"
        r"|worker) (?:has )?failed"
        r"|tasks? reported to be (?:stuck|unhealthy)|Terminating process because the JAX distributed service"
        r"|tensors were submitted to be reduced, gathered or broadcasted by subset of ranks"
        r"|horovodrun[^\n]{0,80}aborted|Horovod has been shut down|ORTE has lost communication|MPI_ABORT was invoked"
        r"|Detected at least one worker (?:died|failed)|The actor (?:died|is dead)|ActorDiedError|WorkerCrashedError",
        verdict="it lost the connection to another process of the training, which had failed before or does not answer",
        cure=_OTHER_RANK,
        weight=Weight.SYMPTOM,
        places=frozenset({Place.LOG}),
        example="[rank0]:[E ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation timeout: "
        "WorkNCCL(SeqNum=7753, OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600061 milliseconds before timing out.",
        near_miss="NCCL INFO comm 0x55d6 rank 0 nranks 8 - Init COMPLETE",
        source="https://github.com/pytorch/pytorch/issues/118369",
    ),
)
"""Training with several processes."""

_REQUIRED = (
    r"(?:^|\n)(?![^\n]{0,2000}(?:dlerror: |Could not load dynamic library|NCCL INFO|NCCL WARN|NET/Plugin))"
    r"[^\n]{0,2000}?"
)
"""The beginning of a line. It excludes lines of programs that look for an optional library and continue."""
_APT = "RUN apt-get update && apt-get install -y"

IMAGE_CONTENT_TEXTS = (
    FailureText(
        name="no C compiler",
        pattern=r"Failed to find C compiler|InvalidCxxCompiler|No working C\+\+ compiler found"
        r"|(?<![\w.-])(?:gcc|cc|g\+\+|c\+\+|clang|x86_64-linux-gnu-gcc)(?:: command|['\"]?:? ?(?:command )?)not found"
        r"|No such file or directory: '(?:gcc|cc|g\+\+|c\+\+|clang)'|command '(?:gcc|cc|g\+\+"
        r"|x86_64-linux-gnu-gcc)' failed"
        r": No such file|Python\.h: No such file|unable to execute '(?:gcc|cc|x86_64-linux-gnu-gcc)'"
        r"|error: [Mm]icrosoft Visual C\+\+ [\d.]{1,6} or greater is required",
        verdict="the image has no C compiler, which torch.compile, Triton and extensions need",
        cure=_in_image("a compiler", f"{_APT} build-essential python3-dev"),
        example="RuntimeError: Failed to find C compiler. Please specify via CC environment variable.",
        near_miss="gcc (Debian 12.2.0-14) 12.2.0",
        source="https://github.com/apple/ml-cross-entropy/issues/5",
    ),
    FailureText(
        name="no CUDA toolkit",
        pattern=r"CUDA_HOME environment variable is not set|CUDA_HOME does not exist"
        r"|nvcc: (?:command )?not found|nvcc[^\n]{0,20}No such file"
        r"|[Cc]ould not find (?:nvcc|CUDA toolkit)|No such file or directory: '[^'\n]{0,80}/nvcc'"
        r"|ptxas: (?:command )?not found|[Cc]ouldn't invoke ptxas|libdevice not found at"
        r"|Cannot find (?:CUDA )?libdevice"
        r"|Can't find libdevice|Ninja is required to load C\+\+ extensions",
        verdict="the image has no CUDA compiler (nvcc, ptxas or libdevice), which the program uses to build kernels",
        cure=Cure(
            f"Use an image with the CUDA toolkit, such as a devel tag of nvidia/cuda or nvcr.io/nvidia/pytorch; "
            f"{RUN_AGAIN}",
            edit_job('pod["containers"][0]["image"] = "IMAGE-WITH-CUDA-TOOLKIT"'),
            EDIT_JOB_SHELL,
        ),
        example="OSError: CUDA_HOME environment variable is not set. Please set it to your CUDA install root.",
        near_miss="CUDA_HOME=/usr/local/cuda",
        source="https://hub.docker.com/r/nvidia/cuda",
    ),
    FailureText(
        name="libGL is missing",
        pattern=r"lib(?:GL|gthread-2\.0|SM|Xext|Xrender|glib-2\.0)\.so\.\d: cannot open shared object file",
        verdict="the image lacks a system library that OpenCV needs (libGL.so.1 or one of its companions)",
        cure=_in_image(
            "the library", f"{_APT} libgl1 libglib2.0-0, or install opencv-python-headless instead of opencv-python"
        ),
        example="ImportError: libGL.so.1: cannot open shared object file: No such file or directory",
        near_miss="libGL.so.1 => /usr/lib/x86_64-linux-gnu/libGL.so.1",
        source="https://github.com/opencv/opencv-python/issues/370",
    ),
    FailureText(
        name="a CUDA library is missing",
        pattern=_REQUIRED
        + r"(?P<library_>lib(?:cudart|cublas(?:Lt)?|cudnn\w{0,20}|cufft|curand|cusolver|cusparse(?:Lt)?|cupti"
        r"|nccl|"
        r"nvrtc|nvJitLink|nvinfer\w{0,20}|nvToolsExt|nvshmem\w{0,10})\.so[.\d]{0,12}): cannot open shared object file"
        r"|Could not load library libcudnn|Unable to load any of \{?libcudnn",
        verdict="the image lacks a CUDA library[: {library_}]",
        cure=Cure(
            "Use an image with the CUDA libraries for which the framework was built, such as a runtime tag of "
            "nvidia/cuda "
            f"(with cudnn) or nvcr.io/nvidia/pytorch; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["image"] = "IMAGE-WITH-CUDA-LIBRARIES"'),
            EDIT_JOB_SHELL,
        ),
        weight=Weight.CAUSE,
        example="ImportError: libcudnn.so.9: cannot open shared object file: No such file or directory",
        near_miss="Successfully opened dynamic library libcudnn.so.8",
        source="https://github.com/tensorflow/tensorflow/issues/60646",
    ),
    FailureText(
        name="a system library is missing",
        pattern=_REQUIRED + r"(?P<library_>lib[\w.+-]{1,60}\.so[.\d]{0,12}): cannot open shared object file",
        verdict="the image lacks the library {library_}",
        cure=_in_image("the library", f"{_APT} PACKAGE (apt-file search FILE names the package)"),
        example="error while loading shared libraries: libnuma.so.1: cannot open shared object file: No such file or "
        "directory",
        near_miss="loading shared libraries from /opt/lib",
        source="https://man7.org/linux/man-pages/man8/ld.so.8.html",
    ),
    FailureText(
        name="git is missing",
        pattern=r"(?:^|\n|: |')git: (?:command )?not found|No such file or directory: 'git'|Cannot find command 'git'"
        r"|[Bb]ad git executable|git executable (?:was )?not found|exec: \"git\": executable file not found"
        r"|git(?:\.exe)? (?:is|was) not (?:found"
        r"|installed)",
        verdict="the image has no git",
        cure=_in_image("git", f"{_APT} git"),
        example="FileNotFoundError: [Errno 2] No such file or directory: 'git'",
        near_miss="Cloning into 'git-tools'...",
        source="https://gitpython.readthedocs.io/en/stable/intro.html#requirements",
    ),
    FailureText(
        name="pdsh is missing",
        pattern=r"launcher '(?:pdsh|openmpi|mvapich|mpich)' not installed|(?:^|\n|: )pdsh: (?:command )?not found",
        verdict="the image lacks pdsh or MPI, with which DeepSpeed starts processes on several nodes",
        cure=_in_image("it", f"{_APT} pdsh, and start DeepSpeed with torchrun in each pod instead of a host file"),
        places=frozenset({Place.LOG}),
        example="RuntimeError: launcher 'pdsh' not installed.",
        near_miss="launcher pdsh starts 4 processes",
        source="https://www.deepspeed.ai/getting-started/",
    ),
    FailureText(
        name="the container's user has no name",
        pattern=r"getpwuid\(\): uid not found|no such user: \d",
        verdict="the image has no name for the container's user id, and the program needs the name",
        cure=Cure(
            "Set USER, LOGNAME and HOME in env (HOME to a directory that the user may write), or leave runAsUser out; "
            f"{RUN_AGAIN}",
            edit_job(
                'env = pod["containers"][0].setdefault("env", [])',
                'for name, value in {"USER": "me", "LOGNAME": "me", "HOME": "/tmp"}.items():\n'
                '    env.append({"name": name, "value": value})',
            ),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="KeyError: 'getpwuid(): uid not found: 1000'",
        near_miss="uid 1000 was found",
        source="https://docs.python.org/3/library/getpass.html#getpass.getuser",
    ),
    FailureText(
        name="lines of Windows in a script",
        pattern=r"env: '?(?:ba|da|z)?(?:sh|python3?)(?:\\r|\r)|(?:\^M|\\r|\r): (?:bad interpreter|command not found)"
        r"|\$'\\r': command not found",
        verdict="a script has Windows line endings, so its interpreter is not found",
        cure=Cure(
            "Convert the script in the Dockerfile: RUN sed -i 's/\\r$//' SCRIPT; and let git keep its line endings: "
            f"*.sh text eol=lf in .gitattributes; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["image"] = "IMAGE-WITH-CORRECTED-SCRIPT"'),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="/usr/bin/env: 'bash\\r': No such file or directory",
        near_miss="/usr/bin/env: 'python': No such file or directory",
        source="https://git-scm.com/docs/gitattributes#_eol",
    ),
    FailureText(
        name="an entry point that cannot be started",
        pattern=r"(?:^|\n)exec (?P<file_>/[^\s:]{1,200}): no such file or directory",
        verdict="{file_} cannot be started: the image lacks the file or the interpreter in its first line. With "
        "Windows line endings, the name of the interpreter is wrong",
        cure=Cure(
            "Correct command, or the file: its first line must name an interpreter of the image, such as #!/bin/sh, "
            f"and it must not have Windows line endings: RUN sed -i 's/\\r$//' FILE; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["command"] = ["sh", "/entrypoint.sh"]'),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="exec /entrypoint.sh: no such file or directory",
        near_miss="executed /entrypoint.sh",
        source="https://github.com/docker/for-win/issues/1340",
    ),
    FailureText(
        name="transformers is too old for the model",
        pattern=r"Transformers does not recognize this architecture|Model architectures \[[^\]\n]{1,200}\] (?:are not "
        r"supported|failed to be inspected)|KeyError: '(?:qwen|llama|mistral|gemma|phi|deepseek)[\w.-]{0,30}'$",
        verdict="the version of transformers or vLLM in the image does not know the model",
        cure=_in_image("a newer version", "RUN pip install --upgrade transformers"),
        places=frozenset({Place.LOG}),
        example="ValueError: The checkpoint you are trying to load has model type `qwen3` but Transformers does not "
        "recognize this architecture.",
        near_miss="Resolved architecture: Qwen3ForCausalLM",
        source="https://github.com/huggingface/transformers/releases",
    ),
    FailureText(
        name="a model with code of its own",
        pattern=r"Please pass the argument `trust_remote_code=True`|requires you to execute the (?:configuration"
        r"|dataset|modeling|tokenizer) (?:file|script) in that repo",
        verdict="the model has code of its own, which the program runs only with trust_remote_code",
        cure=Cure(
            "Read the code in the model's repository. If you trust it, pass trust_remote_code=True, or "
            f"--trust-remote-code for vLLM; {RUN_AGAIN}",
            edit_job('pod["containers"][0].setdefault("args", []).append("--trust-remote-code")'),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="Please pass the argument `trust_remote_code=True` to allow custom code to be run.",
        near_miss="the argument trust_remote_code was passed",
        source="https://huggingface.co/docs/transformers/custom_models",
    ),
    FailureText(
        name="a Python module is missing",
        pattern=r"ModuleNotFoundError: No module named '?(?P<module_>[\w.]{1,80})"
        r"|ImportError: No module named (?P<old_>[\w.]{1,80})"
        r"|PackageNotFoundError: No package metadata was found for (?P<package_>[\w.-]{1,80})",
        verdict="the image lacks the Python module[ {module_}][ {old_}][ {package_}]",
        cure=_in_image("the module", "RUN pip install MODULE"),
        example="ModuleNotFoundError: No module named 'transformers'",
        near_miss="no module is named in the list of exports",
        source="https://docs.python.org/3/library/exceptions.html#ModuleNotFoundError",
    ),
    FailureText(
        name="packages of the image do not fit together",
        pattern=r"undefined symbol: |numpy\.dtype size changed"
        r"|module that was compiled using NumPy 1\.x cannot be run in"
        r"|version `(?:GLIBC|GLIBCXX|CXXABI)_[\d.]{1,8}' not found|ImportError: cannot import name '"
        r"|operator torchvision::nms does not exist|Detected that PyTorch and (?:torchvision"
        r"|torchaudio) were compiled with "
        r"different CUDA|incompatible (?:with|version of) (?:torch|numpy|transformers|jaxlib)"
        r"|jaxlib version [\d.]{1,10} is "
        r"(?:newer|older|incompatible)|Descriptors cannot (?:not )?be created directly|binary incompatibility"
        r"|CUDA Setup failed despite GPU being available|Configured (?:CUDA|ROCm) binary not found at"
        r"|does not match the version torch was compiled with|mismatches the version that was used to compile"
        r"|Mismatched PJRT plugin PJRT API version",
        verdict="packages in the image do not fit together",
        cure=Cure(
            "Install the packages in versions that were built for each other (pip install with one requirements file "
            "and fixed versions, extensions such as flash-attn rebuilt for the image's torch), or use a framework "
            "image of "
            f"nvcr.io/nvidia; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["image"] = "IMAGE-WITH-FITTING-PACKAGES"'),
            EDIT_JOB_SHELL,
        ),
        example="ImportError: flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so: undefined symbol: "
        "_ZN3c104cuda9SetDeviceEi",
        near_miss="the symbol table is undefined for this language",
        source="https://github.com/Dao-AILab/flash-attention/issues/451",
    ),
    FailureText(
        name="the image is for another processor",
        pattern=r"exec format error|Exec format error|no match for platform in manifest|Illegal instruction"
        r"|does not match the specified platform|image operating system [^\n]{1,40} cannot be used on this platform",
        verdict="the image is built for a different processor than the node's",
        cure=Cure(
            "Build the image for the node's processor (docker buildx build --platform linux/amd64,linux/arm64): most "
            "GPU sizes are amd64, and GB200 and GB300 are arm64. capacity.nodes(aks) shows the sizes.",
            "from aksgpu import capacity\ncapacity.nodes(aks)",
            "kubectl get nodes -L kubernetes.io/arch\ndocker buildx build --platform linux/amd64,linux/arm64 -t IMAGE "
            "--push .",
        ),
        places=frozenset({Place.LOG, Place.CONTAINER, Place.EVENT}),
        example="exec /usr/bin/python: exec format error",
        near_miss="date format error in column 3",
        source="https://docs.docker.com/build/building/multi-platform/",
    ),
    FailureText(
        name="the program's file is missing",
        pattern=r"can't open file '(?P<file_>[^'\n]{1,200})': \[Errno 2\]"
        r"|: (?P<script_>/[\w./-]{1,120}): No such file or directory$"
        r"|No module named __main__",
        verdict="the program's file is not in the container[: {file_}][: {script_}]",
        cure=Cure(
            f"Correct command and args, copy the file into the image, or mount the volume that has it; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["command"] = ["python", "/path/in/the/image/train.py"]'),
            EDIT_JOB_SHELL,
        ),
        example="python: can't open file '/workspace/train.py': [Errno 2] No such file or directory",
        near_miss="opened file '/workspace/train.py'",
        source="https://docs.python.org/3/using/cmdline.html",
    ),
    FailureText(
        name="arguments that the program does not know",
        pattern=r"error: unrecognized arguments: |error: the following arguments are required: "
        r"|error: argument -{1,2}[\w-]{1,40}"
        r": (?:invalid|expected)|Error: No such option: |FATAL Flags parsing error",
        verdict="the program does not accept its arguments",
        cure=Cure(
            f"Correct args in the manifest; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["args"] = ["--help"]'),
            EDIT_JOB_SHELL,
        ),
        example="train.py: error: unrecognized arguments: --epoch 3",
        near_miss="arguments: --epochs 3",
        source="https://docs.python.org/3/library/argparse.html",
    ),
    FailureText(
        name="a model or data set needs a login",
        pattern=r"GatedRepoError|Access to model [^\n]{1,120} is restricted|Cannot access gated repo"
        r"|You are trying to access a "
        r"gated repo|401 Client Error[^\n]{0,80}huggingface\.co|RepositoryNotFoundError: 401|Invalid user token"
        r"|CommError: [^\n]{0,60}(?:not logged in|401)"
        r"|api_key not configured \(no-tty\)|wandb: ERROR api_key|Invalid credentials in Authorization header",
        verdict="a download needs a login that the container does not have",
        cure=Cure(
            "Create a Secret with the token and pass it to the container as HF_TOKEN (Hugging Face) or WANDB_API_KEY "
            f"(Weights & Biases; WANDB_MODE=offline works without one); {RUN_AGAIN}",
            edit_job(
                'secret = {"secretKeyRef": {"name": "hf", "key": "token"}}',
                'pod["containers"][0].setdefault("env", []).append({"name": "HF_TOKEN", "valueFrom": secret})',
            ),
            "kubectl create secret generic hf --namespace NAMESPACE --from-literal=token=$HF_TOKEN",
        ),
        example="huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo for url",
        near_miss="gated recurrent unit with 128 cells",
        source="https://huggingface.co/docs/hub/models-gated",
    ),
    FailureText(
        name="the internet is not reachable",
        pattern=r"Temporary failure in name resolution|Name or service not known|Network is unreachable"
        r"|No route to host"
        r"|NameResolutionError|Could not resolve host|Max retries exceeded with url|getaddrinfo (?:EAI_AGAIN|ENOTFOUND)"
        r"|couldn't connect to '?https?://|ConnectTimeoutError|LocalEntryNotFoundError"
        r"|URLError: <urlopen error|Connection timed out|Read timed out\.|ReadTimeout\b"
        r"|Failed to establish a new connection",
        verdict="the program cannot reach a server that it needs",
        cure=Cure(
            "Check the name of the server, the cluster's outbound rules (firewall, network policy, user-defined "
            "route) and, for a name inside the cluster, its Service. Or put the data into the image or on a volume, "
            "so that no download is needed.",
            'from aksgpu import jobs\njobs.submit(aks, image="mcr.microsoft.com/cbl-mariner/busybox:2.0", gpus=0, '
            'command=["wget", "-q", "-O", "-", "https://example.com"])',
            "kubectl run reach --rm -it --restart=Never --image=mcr.microsoft.com/cbl-mariner/busybox:2.0 -- wget -qO- "
            "https://example.com",
        ),
        example="urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>",
        near_miss="resolved 12 names in 0.3 s",
        source="https://learn.microsoft.com/azure/aks/outbound-rules-control-egress",
    ),
    FailureText(
        name="a server refuses a download",
        pattern=r"HTTP Error (?P<status_>403|404|410|429|503)|(?P<code_>403|404|410|429) (?:Client Error|Forbidden"
        r"|Too Many Requests)"
        r"|status code (?P<number_>403|404|410|429)",
        verdict="a server refuses the program's download[ (HTTP {status_})][ (HTTP {code_})][ (HTTP {number_})]",
        cure=Cure(
            "Download from a place that still serves the data (for MNIST: "
            "https://storage.googleapis.com/cvdf-datasets/mnist/), log in, or put the data on a volume.",
            edit_job('pod["containers"][0].setdefault("env", []).append({"name": "HF_TOKEN", "value": "TOKEN"})'),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="urllib.error.HTTPError: HTTP Error 403: Forbidden",
        near_miss="HTTP 200 OK",
        source="https://github.com/cvdfoundation/mnist/issues/4",
    ),
    FailureText(
        name="a script that is not executable",
        pattern=r"(?:^|[\n/ ])(?:ba|da|z)?sh: (?:(?:line )?\d{1,6}: )?(?P<script_>[\w./-]{1,200}\.(?:sh|py|bash)): "
        r"Permission denied",
        verdict="{script_} is not executable",
        cure=Cure(
            "Name the interpreter in command, such as bash SCRIPT or python SCRIPT, or make the file executable: RUN "
            "chmod +x SCRIPT in the Dockerfile, defaultMode: 0755 for a ConfigMap; "
            f"{RUN_AGAIN}",
            edit_job('pod["containers"][0]["command"] = ["bash", "/workspace/run.sh"]'),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="/bin/bash: /workspace/run.sh: Permission denied",
        near_miss="/bin/sh: 1: cannot create /data/out.txt: Permission denied",
        source="https://www.gnu.org/software/bash/manual/html_node/Exit-Status.html",
    ),
    FailureText(
        name="no permission for a file",
        pattern=r"PermissionError: \[Errno 13\]|Permission denied: '|: Permission denied$",
        verdict="the container's user may not read or write a file",
        cure=Cure(
            "Set securityContext.fsGroup to the group of the volume, or write to a directory that the image's user "
            "owns "
            f"(HOME, TMPDIR and HF_HOME on an emptyDir); {RUN_AGAIN}",
            edit_job('pod["securityContext"] = {"fsGroup": 1000}'),
            EDIT_JOB_SHELL,
        ),
        example="PermissionError: [Errno 13] Permission denied: '/data/out'",
        near_miss="permission granted for /data/out",
        source="https://kubernetes.io/docs/tasks/configure-pod-container/security-context/",
    ),
    FailureText(
        name="a file is incomplete",
        pattern=r"Consistency check failed: file should be of size|SafetensorError: (?:Error while deserializing header"
        r"|MetadataIncompleteBuffer)|EOFError: Ran out of input|BadZipFile: File is not a zip file"
        r"|IncompleteRead\(\d{1,15} bytes read|unexpected EOF, expected \d{1,15} more bytes",
        verdict="a file is incomplete or damaged: a download broke off, or the repository has only a pointer of "
        "git-lfs",
        cure=Cure(
            "Delete the file, which may be in the cache on the volume (HF_HOME), and download it again; with "
            f"git-lfs: git lfs pull. Check that the disk is not full; {RUN_AGAIN}",
            edit_job('pod["containers"][0].setdefault("env", []).append({"name": "HF_HOME", "value": "/tmp/hf"})'),
            EDIT_JOB_SHELL,
        ),
        example="OSError: Consistency check failed: file should be of size 440449768 but has size 76954576 "
        "(model.safetensors).",
        near_miss="the consistency check was successful",
        source="https://github.com/huggingface/huggingface_hub/issues/1531",
    ),
    FailureText(
        name="the training diverges",
        pattern=r"loss scale already at minimum|FloatingPointError: Minimum loss scale reached"
        r"|Loss is (?:nan|NaN|inf), stopping training",
        verdict="the training diverges: its loss or its gradients are infinite or not a number",
        cure=Cure(
            "Use a lower learning rate, bfloat16 instead of float16 (A100 and newer), or gradient clipping; and look "
            f"for damaged data; {RUN_AGAIN}",
            edit_job('pod["containers"][0].setdefault("args", []).extend(["--learning-rate", "1e-5"])'),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="Exception: Current loss scale already at minimum - cannot decrease scale anymore. Exiting run.",
        near_miss="Gradient overflow.  Skipping step, loss scaler 0 reducing loss scale to 256.0",
        source="https://github.com/ymcui/Chinese-LLaMA-Alpaca/issues/534",
    ),
    FailureText(
        name="a checkpoint that torch does not load",
        pattern=r"Weights only load failed|WeightsUnpickler error|size mismatch for [\w.]{1,120}: copying a param"
        r"|PytorchStreamReader failed|Error\(s\) in loading state_dict for",
        verdict="a checkpoint cannot be loaded: it is damaged, of another model, or has objects that torch.load "
        "refuses",
        cure=Cure(
            "Use the checkpoint of the same model and version. For a checkpoint that you made yourself and that has "
            f"more than weights, use torch.load(..., weights_only=False); {RUN_AGAIN}",
            edit_job('pod["containers"][0]["args"] = ["--checkpoint", "/path/to/a/fitting/checkpoint"]'),
            EDIT_JOB_SHELL,
        ),
        example="_pickle.UnpicklingError: Weights only load failed. This file can still be loaded",
        near_miss="loaded weights from checkpoint step-100",
        source="https://docs.pytorch.org/docs/stable/generated/torch.load.html",
    ),
    FailureText(
        name="too many open files or processes",
        pattern=r"Too many open files|\[Errno 24\]|can't start new thread|Resource temporarily unavailable"
        r"|pthread_create failed",
        verdict="the container has reached the limit of open files or processes",
        cure=Cure(
            "Use fewer worker processes and threads (num_workers, OMP_NUM_THREADS=1), or "
            f"torch.multiprocessing.set_sharing_strategy('file_system'); {RUN_AGAIN}",
            edit_job('pod["containers"][0].setdefault("env", []).append({"name": "OMP_NUM_THREADS", "value": "1"})'),
            EDIT_JOB_SHELL,
        ),
        example="OSError: [Errno 24] Too many open files",
        near_miss="opened 12 files",
        source="https://docs.pytorch.org/docs/stable/multiprocessing.html#sharing-strategies",
    ),
    FailureText(
        name="the program waits for a keyboard",
        pattern=r"EOFError: EOF when reading a line|the input device is not a TTY",
        verdict="the program asks a question, and a Job has no keyboard",
        cure=Cure(
            f"Give the answer as an argument or an environment variable; {RUN_AGAIN}",
            edit_job('pod["containers"][0].setdefault("args", []).append("--yes")'),
            EDIT_JOB_SHELL,
        ),
        example="EOFError: EOF when reading a line",
        near_miss="reading 100 lines",
        source="https://docs.python.org/3/library/exceptions.html#EOFError",
    ),
    FailureText(
        name="a file or directory is missing",
        pattern=r"FileNotFoundError: (?:\w{1,60}: )?\[Errno 2\] No such file or directory: '(?P<file_>[^'\n]{1,300})'",
        verdict="the program does not find {file_}",
        cure=Cure(
            "Mount the volume that has it (volumes and volumeMounts of the manifest), correct the path in args, or "
            f"copy the file into the image; {RUN_AGAIN}",
            edit_job(
                'claim = {"name": "data", "persistentVolumeClaim": {"claimName": "CLAIM"}}',
                'pod.setdefault("volumes", []).append(claim)',
                'mount = {"name": "data", "mountPath": "/data"}',
                'pod["containers"][0].setdefault("volumeMounts", []).append(mount)',
            ),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        example="FileNotFoundError: [Errno 2] No such file or directory: '/Data/S3DIS/Area_1'",
        near_miss="created the directory '/Data/S3DIS/Area_1'",
        source="https://github.com/HuguesTHOMAS/KPConv-PyTorch/issues/91",
    ),
)
"""What an image lacks, and what a program cannot reach. The missing file of any name comes last."""

WRAPPER_TEXTS = (
    FailureText(
        name="a bus error",
        pattern=r"^Bus error\b|\nBus error\b|: Bus error \(core dumped\)|Fatal Python error: Bus error"
        r"|Signal 7 \(SIGBUS\)|exited on signal 7\b|exitcode ?: -7\b|exits with return code = -7\b",
        verdict="the program had a bus error; a guess: in a container, /dev/shm is often full",
        cure=SHARED_MEMORY_CURE,
        places=frozenset({Place.LOG}),
        weight=Weight.SYMPTOM,
        example="Bus error (core dumped)",
        near_miss="the bus error rate is 0",
        source="https://github.com/pytorch/pytorch/issues/5040",
    ),
    FailureText(
        name="a process was killed",
        pattern=r"TerminatedWorkerError: |KilledWorker: |Signal 9 \(SIGKILL\) received by PID"
        r"|exitcode ?: -9\b|exits with return code = -9\b"
        r"|exited with code -9\b|exited on signal 9\b"
        r"|^Killed$|\nKilled$"
        r"|: {1,10}\d{1,9} Killed\b|SIGKILL: 9",
        verdict="a process of the training was killed (SIGKILL), probably because the node's memory was full: the log "
        "does "
        "not say why",
        cure=Cure(
            "Ask for more memory (resources.requests.memory and limits.memory) or use fewer worker processes. "
            "diagnose.node(aks, 'NODE') shows whether the node reports a lack of memory.",
            edit_job(
                'pod["containers"][0].setdefault("resources", {}).setdefault("requests", {})["memory"] = "32Gi"',
            ),
            "kubectl describe node NODE",
        ),
        places=frozenset({Place.LOG}),
        weight=Weight.SYMPTOM,
        example="  traceback : Signal 9 (SIGKILL) received by PID 39",
        near_miss="  traceback : Signal 15 (SIGTERM) received by PID 39",
        source="https://docs.pytorch.org/docs/stable/elastic/errors.html",
    ),
    FailureText(
        name="a segmentation fault",
        pattern=r"Signal 11 \(SIGSEGV\)|exited on signal 11\b|exitcode ?: -11\b"
        r"|exits with return code = -11\b|Segmentation fault"
        r"|SIGSEGV(?! or other)"
        r"|Fatal Python error: Segmentation fault",
        verdict="a library of the program crashed (segmentation fault)",
        cure=Cure(
            "Run it with python -X faulthandler (or PYTHONFAULTHANDLER=1 in env), which prints where it crashed. Often "
            "two "
            f"packages of the image do not fit together: use fixed versions or a framework image; {RUN_AGAIN}",
            edit_job('pod["containers"][0].setdefault("env", []).append({"name": "PYTHONFAULTHANDLER", "value": "1"})'),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.LOG}),
        weight=Weight.SYMPTOM,
        example="Fatal Python error: Segmentation fault",
        near_miss="segmentation model loaded",
        source="https://docs.python.org/3/library/faulthandler.html",
    ),
    FailureText(
        name="the process was asked to end",
        pattern=r"got signal: 15|Signal 15 \(SIGTERM\) received|Received SIGTERM"
        r"|SignalException: Process \d{1,9} got signal",
        verdict="the process was asked to end (SIGTERM): its pod was deleted or evicted, or its launcher ended it "
        "because "
        "another process had failed",
        cure=_OTHER_RANK,
        places=frozenset({Place.LOG}),
        weight=Weight.SYMPTOM,
        example="torch.distributed.elastic.multiprocessing.api.SignalException: Process 17 got signal: 15",
        near_miss="signal processing finished",
        source="https://docs.pytorch.org/docs/stable/elastic/agent.html",
    ),
)
"""What launchers print about the processes that they started."""
