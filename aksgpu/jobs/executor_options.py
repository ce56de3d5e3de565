"""The options of an Executor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aksgpu.payload.requirements import NONE, Packages

__all__ = ["ExecutorOptions"]


@dataclass(frozen=True)
class ExecutorOptions:
    """What every run of an Executor has in common, checked.

    Attributes:
        gpus: GPUs of the pod.
        image: the container image.
        python: minor version of the image's Python that the user asked for, such as ``3.12``; empty for the kernel's.
        interpreter: path of the image's Python; empty for the first ``python3`` or ``python`` on its PATH.
        packages: what the pod installs; None for the installed distributions of the modules that a call uses.
        env: environment variables.
        secrets: values of environment variables that are sent in a Secret.
        secret_names: existing Secrets whose keys become environment variables.
        image_pull_secrets: names of Secrets with credentials of registries.
        cpu: cores to reserve; empty for the node's share.
        memory: memory to reserve; empty for the node's share.
        shm: size of ``/dev/shm``; empty for the pod's memory.
        timeout: seconds that the program may run; None for no limit.
        retries: how often to run again after a failure.
        mode: how functions are sent: ``auto``, ``pickle`` or ``source``.
        name: name of the Job; empty for a new name for each run.
        replace: True deletes a Job of that name first; False returns an old run without a warning, None with one.
        namespace: namespace to run in; empty for the context's.
        service_account: service account of the pod; empty for the namespace's default.
        node_selector: labels that the node must have.
        vm_size: VM size of the node; empty for any.
        gpu_model: model of the GPUs; empty for any.
        spot: True for spot nodes only, False for none, None for either.
        queue: Kueue's local queue; empty for none.
        priority: name of a PriorityClass; empty for none.
        resources: further resources by name, such as ``rdma/ib``.
        root: directory of the project; its modules are sent by value.
        include: further files and directories to send.
        workdir: working directory in the pod; empty for one of the runner's own.
        volumes: claims by mount path.
        out: claim for output; empty for none.
    """

    gpus: int = 1
    image: str = ""
    python: str = ""
    interpreter: str = ""
    packages: Packages | None = NONE
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret_names: tuple[str, ...] = ()
    image_pull_secrets: tuple[str, ...] = ()
    cpu: str = ""
    memory: str = ""
    shm: str = ""
    timeout: float | None = None
    retries: int = 0
    mode: str = "auto"
    name: str = ""
    replace: bool | None = None
    namespace: str = ""
    service_account: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    vm_size: str = ""
    gpu_model: str = ""
    spot: bool | None = None
    queue: str = ""
    priority: str = ""
    resources: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None
    include: tuple[str, ...] = ()
    workdir: str = ""
    volumes: Mapping[str, str] = field(default_factory=dict)
    out: str = ""
