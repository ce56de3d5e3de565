"""What a user should know when a function is submitted: an earlier run of it that has not ended."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from aksgpu.errors import KubernetesError
from aksgpu.jobs.job import Job
from aksgpu.kube import pod_facts
from aksgpu.notebook import in_kernel
from aksgpu.waiting import deadline

__all__ = ["note_earlier_runs", "remember"]

_READING_SECONDS = 5.0
"""Seconds that looking at an earlier run may take."""


class _Run(NamedTuple):
    """A Job that this notebook has started."""

    job: Job
    execution: int
    """The number of the cell's execution."""


_runs: dict[str, _Run] = {}
"""The newest run of each function of this notebook, by the function's full name."""


def _name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"


def _execution() -> int:
    """Return the number of the cell's execution that runs now."""
    from IPython import get_ipython

    return int(get_ipython().execution_count)


def remember(function: Callable[..., Any], job: Job) -> None:
    """Remember the Job of a function, in a notebook."""
    if in_kernel():
        _runs[_name(function)] = _Run(job, _execution())


def note_earlier_runs(function: Callable[..., Any]) -> None:
    """Print a line if an earlier cell started the same function, and that run has not ended."""
    earlier = _runs.get(_name(function))
    if earlier is None or not in_kernel() or earlier.execution == _execution():
        return
    job = earlier.job
    with contextlib.suppress(KubernetesError), deadline(_READING_SECONDS):
        found = job.cluster.kube.get("Job", job.name, namespace=job.namespace)
        # The Job controller records the end some seconds after `job.result()` has returned.
        if found["spec"].get("suspend") or job.done():
            return
        gpus = sum(pod_facts.gpus(found["spec"]["template"]["spec"]).values())
        held = f" and holds {gpus} GPU{'s' if gpus != 1 else ''}" if gpus else ""
        sys.stdout.write(
            f"Job {job.name} still runs the same function{held}. "
            f"jobs.get(aks, {job.name!r}, namespace={job.namespace!r}).cancel() stops it.\n"
        )
