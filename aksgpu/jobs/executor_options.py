"""The options of an Executor, checked once."""

from __future__ import annotations

import math
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aksgpu.common.arguments import integer, shown
from aksgpu.common.default_image import default_image
from aksgpu.common.gpu_size_table import table
from aksgpu.errors import InvalidInput
from aksgpu.jobs import job_arguments
from aksgpu.kube import path_names
from aksgpu.payload.packing import MODES, own_python
from aksgpu.payload.requirements import NONE, Packages, from_file, from_list
from aksgpu.waiting import Timeout, check_timeout

__all__ = ["LONGEST_NAME", "ExecutorOptions", "check_name"]

LONGEST_NAME = 50
"""Characters of a Job's name: it is part of its pods' host names, which have at most 63."""
_NAME = re.compile(r"[a-z](?:[-a-z0-9]*[a-z0-9])?")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_VERSION = re.compile(r"3\.([0-9]{1,2})")
_LEAST_MINOR = 8
"""Oldest minor version of Python 3 that the runner supports."""
_RESOURCE = re.compile(r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[a-zA-Z0-9](?:[-_.a-zA-Z0-9]*[a-zA-Z0-9])?")
_OWN_PATHS = ("/aksgpu", "/dev", "/proc", "/sys", "/usr", "/bin", "/lib", "/etc")
"""Directories in which nothing may be mounted: the runner or the image needs them."""
_RESERVED = frozenset(
    {"AKSGPU_OUT", "AKSGPU_PAYLOAD", "AKSGPU_RUN", "AKSGPU_MESSAGE", "AKSGPU_ATTEMPT", "AKSGPU_TIMEOUT"}
)
"""Variables that the runner uses."""
_LARGEST_TIMEOUT = 10 * 365 * 86400
"""Seconds."""


@dataclass(frozen=True)
class ExecutorOptions:
    """What every run of an Executor has in common. :meth:`checked` makes one from a user's arguments.

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

    @classmethod
    def checked(
        cls,
        *,
        gpus: int = 1,
        nodes: int = 1,
        processes: str | None = None,
        image: str | None = None,
        python: str | None = None,
        packages: Sequence[str] | str | os.PathLike[str] | None = None,
        env: Mapping[str, object] | None = None,
        secrets: Mapping[str, object] | Sequence[str] | None = None,
        image_pull_secrets: Sequence[str] | str | None = None,
        cpu: float | str | None = None,
        memory: str | None = None,
        shm: str | None = None,
        timeout: Timeout = None,
        retries: int = 0,
        mode: str = "auto",
        name: str | None = None,
        namespace: str | None = None,
        service_account: str | None = None,
        node_selector: Mapping[str, str] | None = None,
        vm_size: str | None = None,
        gpu_model: str | None = None,
        spot: bool | None = None,
        queue: str | None = None,
        priority: str | None = None,
        resources: Mapping[str, object] | None = None,
        root: str | os.PathLike[str] | None = None,
        include: Sequence[str | os.PathLike[str]] | None = None,
        workdir: str | None = None,
        volumes: Mapping[str, str] | None = None,
        out: str | None = None,
    ) -> ExecutorOptions:
        """Return the options of a user's arguments.

        Raises:
            InvalidInput: an argument is not valid; the message names it.
        """
        _refuse_several_nodes(nodes, processes)
        version, interpreter = _python(python)
        values, names = _secrets(secrets)
        return cls(
            gpus=job_arguments.count("gpus", gpus),
            image=_image(image, version),
            python=version,
            interpreter=interpreter,
            packages=_packages(packages),
            env=_variables("env", env),
            secrets=values,
            secret_names=names,
            image_pull_secrets=_secret_names("image_pull_secrets", image_pull_secrets),
            cpu=job_arguments.cpu(cpu) or "",
            memory=job_arguments.memory(memory) or "",
            shm=job_arguments.memory(shm, "shm") or "",
            timeout=_run_time(timeout),
            retries=job_arguments.count("retries", retries),
            mode=_mode(mode, version),
            name="" if name is None else check_name(name),
            namespace="" if namespace is None else path_names.check_namespace(namespace),
            service_account=_object_name("service_account", "ServiceAccount", service_account),
            node_selector=job_arguments.pairs("node_selector", node_selector),
            vm_size=_vm_size(vm_size),
            gpu_model=_gpu_model(gpu_model),
            spot=None if spot is None else job_arguments.flag("spot", spot),
            queue=_object_name("queue", "LocalQueue", queue),
            priority=_object_name("priority", "PriorityClass", priority),
            resources=_resources(resources),
            root=_directory("root", root),
            include=tuple(job_arguments.texts("include", include) or ()),
            workdir=_absolute("workdir", workdir),
            volumes=_volumes(volumes),
            out=_object_name("out", "PersistentVolumeClaim", out),
        )


def check_name(value: object, argument: str = "name") -> str:
    """Return a name for a Job whose pods have host names of their own."""
    if isinstance(value, str) and len(value) <= LONGEST_NAME and _NAME.fullmatch(value):
        return value
    letters = path_names.proposed(value, LONGEST_NAME)
    if letters and not letters[0].isalpha():
        letters = f"job-{letters}"
    proposal = letters[:LONGEST_NAME].strip("-") or "training-1"
    raise InvalidInput(
        f"`{argument}` must be a name of lower case letters, digits and '-' that begins with a letter, at most "
        f"{LONGEST_NAME} characters, got {shown(value)}",
        hint=f"For example {argument}={proposal!r}.",
    )


def _refuse_several_nodes(nodes: object, processes: object) -> None:
    integer("nodes", nodes, 1)
    if nodes != 1:
        raise InvalidInput(
            f"`nodes` must be 1, got {shown(nodes)}: an Executor runs each call in one pod",
            hint="Give one pod several GPUs of one node, such as gpus=8.",
        )
    if processes is not None:
        raise InvalidInput(
            f"`processes` must be None, got {shown(processes)}: an Executor runs one process for each call",
            hint="Start further processes in the function, such as with torch.multiprocessing.",
        )


# Image and Python


def _python(value: object) -> tuple[str, str]:
    """Return the version and the path that ``python`` means; one of them is empty."""
    if value is None:
        return "", ""
    if isinstance(value, str):
        match = _VERSION.fullmatch(value)
        if match and int(match[1]) >= _LEAST_MINOR:
            return value, ""
        if value.startswith("/") and "\0" not in value:
            return "", value
    raise InvalidInput(
        f"`python` must be a version such as '3.12', from '3.{_LEAST_MINOR}' on, or the path of an interpreter in the "
        f"image, got {shown(value)}",
        hint=f"For example python='{own_python()}'.",
    )


def _mode(value: object, version: str) -> str:
    """Return how functions are sent. Another minor version of Python cannot load a pickle of this one."""
    if value not in MODES:
        raise InvalidInput(
            f"`mode` must be one of {', '.join(map(repr, MODES))}, got {shown(value)}", hint="For example mode='auto'."
        )
    if not version or version == own_python():
        return str(value)
    if value == "pickle":
        raise InvalidInput(
            f"`mode` must be 'source' or 'auto' for Python {version}, got 'pickle': this is Python {own_python()}",
            hint="For example mode='source'.",
        )
    return "source"


def _image(value: object, version: str) -> str:
    if value is not None:
        return job_arguments.image(value)
    return job_arguments.image(default_image(version))


def _packages(value: object) -> Packages | None:
    if value is None:
        return NONE
    if value == "auto":
        return None
    if isinstance(value, str | os.PathLike):
        path = Path(value)
        if path.is_file():
            return from_file(path)
        raise InvalidInput(
            f"`packages` must be a list, a requirements file or 'auto', got {shown(str(value))}, which is not a file",
            hint='For example packages=["numpy==2.3.1"].',
        )
    return from_list(job_arguments.texts("packages", value) or ())


# Environment


def _variables(argument: str, values: object) -> dict[str, str]:
    found = job_arguments.pairs(argument, values)
    for name in found:
        if not _VARIABLE.fullmatch(name) or name in _RESERVED:
            reason = "the runner sets it" if name in _RESERVED else "letters, digits, '_', '-' and '.' are allowed"
            raise InvalidInput(
                f"`{argument}` must have names of environment variables, got {shown(name)}: {reason}",
                hint=f'For example {argument}={{"MODE": "fast"}}.',
            )
    return found


def _secrets(value: object) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return values by variable, and the names of existing Secrets."""
    if value is None or isinstance(value, Mapping):
        return _variables("secrets", value), ()
    return {}, _secret_names("secrets", value)


def _secret_names(argument: str, values: object) -> tuple[str, ...]:
    if values is None:
        return ()
    if isinstance(values, str):
        values = [values]
    return tuple(_object_name(argument, "Secret", each) for each in job_arguments.texts(argument, values) or ())


def _object_name(argument: str, kind: str, value: object) -> str:
    return "" if value is None else path_names.check_name(kind, value, argument)


# Amounts


def _run_time(value: Timeout) -> float | None:
    seconds = check_timeout(value)
    if math.isinf(seconds):
        return None
    if not 0 < seconds <= _LARGEST_TIMEOUT:
        raise InvalidInput(
            f"`timeout` must be a time above 0 and at most 10 years, or None for no limit, got {shown(value)}",
            hint="Two hours are timeout='2h'.",
        )
    return seconds


def _resources(values: object) -> dict[str, str]:
    found = job_arguments.pairs("resources", values)
    for name, amount in found.items():
        if not _RESOURCE.fullmatch(name) or not re.fullmatch(r"[0-9]+", amount):
            raise InvalidInput(
                f"`resources` must have whole numbers by resource name, got {shown({name: amount})}",
                hint='For example resources={"rdma/ib": 1}.',
            )
    return found


# Nodes


def _vm_size(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_]{1,80}", value):
        return value
    raise InvalidInput(
        f"`vm_size` must be the name of a VM size, got {shown(value)}",
        hint="For example vm_size='Standard_NC4as_T4_v3'.",
    )


def _gpu_model(value: object) -> str:
    if value is None:
        return ""
    models = sorted({size.gpu_model for size in table().values()})
    wanted = value.lower() if isinstance(value, str) else ""
    found = [model for model in models if wanted and wanted in model.lower()]
    exact = [model for model in found if model.lower() == wanted]
    if not found:
        raise InvalidInput(
            f"`gpu_model` must be a GPU model of AKS, got {shown(value)}", hint=f"Choose one of: {', '.join(models)}."
        )
    return (exact or [str(value)])[0]


# Files


def _directory(argument: str, value: object) -> Path | None:
    if value is None:
        return None
    if isinstance(value, str | os.PathLike):
        path = Path(os.fspath(value)).resolve()
        if path.is_dir():
            return path
    raise InvalidInput(f"`{argument}` must be a directory, got {shown(value)}", hint=f"For example {argument}='.'.")


def _absolute(argument: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith("/") and value.isprintable():
        return value
    raise InvalidInput(
        f"`{argument}` must be an absolute path in the pod, got {shown(value)}", hint=f"For example {argument}='/tmp'."
    )


def _volumes(values: object) -> dict[str, str]:
    found = {}
    for path, claim in job_arguments.pairs("volumes", values).items():
        target = posixpath.normpath(_absolute("volumes", path)).replace("//", "/")
        taken = next((each for each in _OWN_PATHS if target == each or target.startswith(f"{each}/")), "")
        if taken or target == "/" or ":" in target:
            raise InvalidInput(
                f"`volumes` must have paths of their own, got {shown(path)}: "
                + ("it has a ':'" if ":" in target else f"{taken or '/'} is in use"),
                hint=f'For example volumes={{"/data": {claim!r}}}.',
            )
        found[target] = _object_name("volumes", "PersistentVolumeClaim", claim)
    return found
