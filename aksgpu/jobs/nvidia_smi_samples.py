"""One sample of a container's GPUs by the ``nvidia-smi`` in it."""

from __future__ import annotations

import csv
import time
from typing import Any

from aksgpu.errors import Forbidden, KubernetesError, NotFound, Unauthorized
from aksgpu.kube import pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.payload.gpu_sampler import row_of

__all__ = ["NoSample", "container_of", "parse", "sample"]

_TIMEOUT = 15.0
"""Seconds that the program may take. It starts the driver, which takes seconds if nothing else uses the GPU."""
_FIELDS = ("index", "utilization.gpu", "memory.used", "memory.total", "power.draw", "temperature.gpu")
_COMMAND = ["nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
_MIB = 1024 * 1024
_SIMULATED = "SIMULATED"
"""A word of the laptop's ``nvidia-smi``."""
_MISSING = ("executable file not found", "no such file or directory", "not found in $PATH", "No such file")
"""Texts of container runtimes about a program that does not exist."""
_LONGEST_TEXT = 200


class NoSample(Exception):
    """No sample could be taken. The text says why.

    Attributes:
        final: whether another attempt in the same pod would end in the same way.
    """

    def __init__(self, text: str, *, final: bool) -> None:
        super().__init__(text)
        self.final = final


def container_of(pod: Object) -> str:
    """Return the name of the first container that has a GPU, or else of the first one."""
    containers = pod["spec"]["containers"]
    for container in containers:
        if pod_facts.gpus({"containers": [container]}):
            return str(container["name"])
    return str(containers[0]["name"])


def sample(aks: HasKube, pod: Object) -> list[dict[str, Any]]:
    """Return one row for each GPU of a pod that runs; see :mod:`aksgpu.payload.gpu_sampler` for the rows.

    Raises:
        NoSample: there is none, and why.
    """
    metadata = pod["metadata"]
    try:
        with aks.kube.exec(metadata["name"], _COMMAND, metadata["namespace"], container=container_of(pod)) as program:
            done = program.communicate(timeout=_TIMEOUT)
    except TimeoutError:
        raise NoSample(f"nvidia-smi did not answer within {_TIMEOUT:g} s", final=False) from None
    except (Forbidden, Unauthorized) as refused:
        raise NoSample(f"you may not run programs in pods: {refused.message}", final=True) from None
    except NotFound:
        raise NoSample("the pod has ended", final=False) from None
    except KubernetesError as failed:
        missing = any(text in failed.message for text in _MISSING)
        text = "the container has no nvidia-smi" if missing else f"nvidia-smi could not be run: {failed.message}"
        raise NoSample(text, final=missing) from None
    errors = done.stderr.decode("utf-8", "replace")
    output = done.stdout.decode("utf-8", "replace")
    if _SIMULATED in errors:
        raise NoSample("the GPU is simulated by the laptop AKS", final=True)
    if done.returncode in (126, 127):
        raise NoSample("the container has no nvidia-smi", final=True)
    if done.returncode:
        message = " ".join((output + errors).split())[:_LONGEST_TEXT]
        raise NoSample(f"nvidia-smi failed with exit code {done.returncode}: {message}", final=False)
    rows = parse(output, time.time())
    if not rows:
        raise NoSample("nvidia-smi shows no GPU", final=False)
    return rows


def parse(output: str, now: float) -> list[dict[str, Any]]:
    """Return the rows in the program's output. What it prints as ``[N/A]`` or ``[Not Supported]`` is None."""
    rows: list[dict[str, Any]] = []
    for values in csv.reader(output.splitlines(), skipinitialspace=True):
        if len(values) != len(_FIELDS):
            continue
        _, utilization, used, total, power, temperature = map(_number, values)
        rows.append(
            row_of(
                now,
                len(rows),
                utilization,
                None if used is None else used * _MIB,
                None if total is None else total * _MIB,
                power,
                temperature,
            )
        )
    return rows


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
