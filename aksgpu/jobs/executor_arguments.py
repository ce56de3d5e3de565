"""Check the arguments of an Executor before any request is sent. :mod:`aksgpu.jobs.job_arguments` has further checks.

Each function returns the value of a field of :class:`~aksgpu.jobs.executor_options.ExecutorOptions`, or raises
:class:`~aksgpu.errors.InvalidInput`, which names the argument. None is the argument's default.
"""

from __future__ import annotations

import math
import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

from aksgpu.common.arguments import flag, integer, shown
from aksgpu.common.default_image import default_image
from aksgpu.common.gpu_size_table import table
from aksgpu.errors import InvalidInput
from aksgpu.jobs import job_arguments
from aksgpu.kube import path_names
from aksgpu.payload.packing import MODES, own_python
from aksgpu.payload.requirements import NONE, Packages, from_file, from_list
from aksgpu.waiting import Timeout, check_timeout

__all__ = [
    "LONGEST_NAME",
    "absolute_path",
    "check_name",
    "check_replace",
    "directory",
    "gpu_model",
    "image",
    "include",
    "mode",
    "object_name",
    "packages",
    "python",
    "refuse_several_nodes",
    "resources",
    "run_time",
    "secret_names",
    "secrets",
    "variables",
    "vm_size",
    "volumes",
]

LONGEST_NAME = 50
"""Characters of a Job's name: it is part of its pods' host names, which have at most 63."""
_NAME = re.compile(r"[a-z](?:[-a-z0-9]*[a-z0-9])?")
_PACKAGES_HINT = 'For example packages=["numpy==2.3.1"].'
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


def check_replace(value: object, name: object) -> None:
    """Raise InvalidInput unless ``replace`` is None, or a boolean beside a name."""
    flag("replace", value, optional=True)
    if value is not None and name is None:
        raise InvalidInput(
            f"`replace` must be None without `name`, got {shown(value)}: each call is a new Job",
            hint="For example name='training-1', replace=True.",
        )


def refuse_several_nodes(nodes: object, processes: object) -> None:
    """Raise InvalidInput unless one process runs in one pod."""
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


def python(value: object) -> tuple[str, str]:
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


def mode(value: object, version: str) -> str:
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


def image(value: object, version: str) -> str:
    """Return the container image; None for the default image with this version of Python."""
    if value is not None:
        return job_arguments.image(value)
    return job_arguments.image(default_image(version))


def packages(value: object) -> Packages | None:
    """Return what the pod installs; None for ``"auto"``."""
    if value is None:
        return NONE
    if value == "auto":
        return None
    if isinstance(value, str | os.PathLike):
        path = Path(value)
        if path.is_file():
            return from_file(path)
        raise InvalidInput(
            f"`packages` must be a list, a requirements file, pyproject.toml or 'auto', got {shown(str(value))}, which "
            "is not a file",
            hint=_PACKAGES_HINT,
        )
    return from_list(job_arguments.texts("packages", value, _PACKAGES_HINT) or ())


# Environment


def variables(argument: str, values: object) -> dict[str, str]:
    """Return environment variables by name."""
    found = job_arguments.pairs(argument, values)
    for name in found:
        if not _VARIABLE.fullmatch(name) or name in _RESERVED:
            reason = "the runner sets it" if name in _RESERVED else "letters, digits, '_', '-' and '.' are allowed"
            raise InvalidInput(
                f"`{argument}` must have names of environment variables, got {shown(name)}: {reason}",
                hint=f'For example {argument}={{"MODE": "fast"}}.',
            )
    return found


def secrets(value: object) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return values by variable, and the names of existing Secrets."""
    if value is None or isinstance(value, Mapping):
        return variables("secrets", value), ()
    return {}, secret_names("secrets", value)


def secret_names(argument: str, values: object) -> tuple[str, ...]:
    """Return names of Secrets. A string is one name."""
    if values is None:
        return ()
    if isinstance(values, str):
        values = [values]
    names = job_arguments.texts(argument, values, f'For example {argument}=["training-1"].') or []
    return tuple(object_name(argument, "Secret", each) for each in names)


def object_name(argument: str, kind: str, value: object) -> str:
    """Return the name of an object of a kind; empty for None."""
    return "" if value is None else path_names.check_name(kind, value, argument)


# Amounts


def run_time(value: Timeout) -> float | None:
    """Return the seconds that the program may run; None for no limit."""
    seconds = check_timeout(value)
    if math.isinf(seconds):
        return None
    if not 0 < seconds <= _LARGEST_TIMEOUT:
        raise InvalidInput(
            f"`timeout` must be a time above 0 and at most 10 years, or None for no limit, got {shown(value)}",
            hint="Two hours are timeout='2h'.",
        )
    return seconds


def resources(values: object) -> dict[str, str]:
    """Return amounts by the name of the resource."""
    found = job_arguments.pairs("resources", values)
    for name, amount in found.items():
        if not _RESOURCE.fullmatch(name) or not re.fullmatch(r"[0-9]+", amount):
            raise InvalidInput(
                f"`resources` must have whole numbers by resource name, got {shown({name: amount})}",
                hint='For example resources={"rdma/ib": 1}.',
            )
    return found


# Nodes


def vm_size(value: object) -> str:
    """Return the name of a VM size; empty for None."""
    if value is None:
        return ""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_]{1,80}", value):
        return value
    raise InvalidInput(
        f"`vm_size` must be the name of a VM size, got {shown(value)}",
        hint="For example vm_size='Standard_NC4as_T4_v3'.",
    )


def gpu_model(value: object) -> str:
    """Return a GPU model, in the table's spelling if the table has it; empty for None."""
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


def include(values: object) -> list[str]:
    """Return the further files to send: paths and patterns."""
    return job_arguments.texts("include", values, 'For example include=["configs/", "data.csv"].') or []


def directory(argument: str, value: object) -> Path | None:
    """Return the path of a directory that exists; None for None."""
    if value is None:
        return None
    if isinstance(value, str | os.PathLike):
        path = Path(os.fspath(value)).resolve()
        if path.is_dir():
            return path
    raise InvalidInput(f"`{argument}` must be a directory, got {shown(value)}", hint=f"For example {argument}='.'.")


def absolute_path(argument: str, value: object) -> str:
    """Return an absolute path in the pod; empty for None."""
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith("/") and value.isprintable():
        return value
    raise InvalidInput(
        f"`{argument}` must be an absolute path in the pod, got {shown(value)}", hint=f"For example {argument}='/tmp'."
    )


def volumes(values: object) -> dict[str, str]:
    """Return names of claims by the path at which they are mounted."""
    found = {}
    for path, claim in job_arguments.pairs("volumes", values).items():
        target = posixpath.normpath(absolute_path("volumes", path)).replace("//", "/")
        taken = next((each for each in _OWN_PATHS if target == each or target.startswith(f"{each}/")), "")
        if taken or target == "/" or ":" in target:
            raise InvalidInput(
                f"`volumes` must have paths of their own, got {shown(path)}: "
                + ("it has a ':'" if ":" in target else f"{taken or '/'} is in use"),
                hint=f'For example volumes={{"/data": {claim!r}}}.',
            )
        found[target] = object_name(f"volumes[{path!r}]", "PersistentVolumeClaim", claim)
    return found
