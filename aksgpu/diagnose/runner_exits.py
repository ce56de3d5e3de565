"""Explain how the program of an Executor's pod ended, from the exit code and the message of its runner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aksgpu.diagnose.cures import EDIT_JOB_SHELL, RUN_AGAIN, Cure
from aksgpu.kube import pod_facts
from aksgpu.kube.client import Object
from aksgpu.payload import records
from aksgpu.payload.job_annotations import EXECUTOR

__all__ = ["MEMORY_LIMIT", "PODS_GONE", "PREEMPTED", "cure_of_call", "explain_runner", "is_call"]

MEMORY_LIMIT = "the container's memory limit"
"""The cause of a container that used more memory than its limit."""

_FIXES = {
    records.PYTHON_DIFFERS: "Use an image with the Python of the kernel that submitted it: without image=, that is the "
    "default.",
    records.NO_PACKAGES: "Correct `packages`, or use an image that has them.",
    records.TIMED_OUT: "Give it more time with Executor(timeout=), or save checkpoints.",
    records.PAYLOAD_DAMAGED: "The image or `packages` must have the modules that the function imports.",
    records.VANISHED: "Let the function return instead of calling os._exit(0).",
    records.PYTHON_MISSING: "Use an image with Python 3.8 or newer, or name its path with Executor(python=).",
    records.STOPPED: "Submit it again to run it.",
    records.NO_OUTPUT: "The image's user must be able to write to the claim of `out`, which needs free space.",
}
"""What to do, by the runner's own exit codes."""
_TEXTS = {
    records.PYTHON_DIFFERS: "the image's Python differs",
    records.NO_PACKAGES: "the packages could not be installed",
    records.TIMED_OUT: "the program ran longer than its time limit",
    records.PAYLOAD_DAMAGED: "the function could not be loaded",
    records.VANISHED: "the program ended before the function returned",
    records.PYTHON_MISSING: "the image has no Python",
    records.STOPPED: "the program was stopped by job.cancel()",
    records.NO_OUTPUT: "the claim for output cannot be written",
}
"""What the codes mean, for a pod without a message."""
_REPLACES_JOB = "kubectl replace --force"
"""Part of the commands that delete a Job and create a changed one."""
_SUBMIT_AGAIN = "then submit it again."
_SHM = f"Raise Executor(shm=), or use no worker processes (num_workers=0); {_SUBMIT_AGAIN}"
_NODES = (
    "Correct node_selector=, vm_size=, gpu_model= or spot= of the Executor: capacity.nodes(aks) shows the nodes; "
    f"{_SUBMIT_AGAIN}"
)
PREEMPTED = "a preempted pod"
PODS_GONE = "pods that are gone"
"""Causes of failed Jobs without pods."""
_OPTIONS = {
    "a label is missing": _NODES,
    "a label is missing, and more": _NODES,
    "a file or directory is missing": "Send the file with Executor(include=), name the claim that has it in "
    f"Executor(volumes=), or correct the path; {_SUBMIT_AGAIN}",
    MEMORY_LIMIT: f"Raise Executor(memory=), or have the program use less; {_SUBMIT_AGAIN}",
    "a killed program": "Raise Executor(memory=) if the program needs more memory, or correct the program; "
    f"{_SUBMIT_AGAIN} diagnose.node(aks, 'NODE') shows whether the node reports a lack of memory.",
    PREEMPTED: f"Set Executor(retries=), or a higher Executor(priority=); {_SUBMIT_AGAIN}",
    PODS_GONE: "Submit it again, and follow it from the start: job.follow().",
    "/dev/shm is too small": _SHM,
    "a bus error": _SHM,
    "a Python module is missing": "Name its package in Executor(packages=), or use an image that has it; "
    f"{_SUBMIT_AGAIN}",
    "arguments that the program does not know": f"Correct the arguments of the script; {_SUBMIT_AGAIN}",
}
"""What to do with the options of the Executor, by the cause."""


def explain_runner(obj: Object, failure: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what ended the program and what to do, if the runner of an Executor says it; None otherwise.

    Args:
        obj: the Pod object.
        failure: the ``terminated`` state of the container that failed.
    """
    if not is_call(obj):
        return None
    code = int(failure.get("exitCode") or 0)
    text = pod_facts.readable_message(failure).strip() or _TEXTS.get(code, "")
    if not text:
        return None
    return text, _FIXES.get(code, "")


def is_call(obj: Object) -> bool:
    """Return whether an Executor made a Job or a pod.

    Args:
        obj: the Job or Pod object.
    """
    return EXECUTOR in (obj["metadata"].get("labels") or {})


def cure_of_call(cure: Cure, cause: str) -> Cure:
    """Return what helps an Executor's Job or pod without changes of the Job's manifest.

    The manifest refers to Secrets that are deleted with the Job, so a changed manifest cannot be applied again.

    Args:
        cure: what helps a Job with a manifest.
        cause: the name of the cause in the tables.
    """
    shell = cure.shell.removesuffix(EDIT_JOB_SHELL).rstrip()
    return replace(
        cure,
        advice=_OPTIONS.get(cause) or cure.advice.replace(RUN_AGAIN, _SUBMIT_AGAIN),
        other_advice=cure.other_advice.replace(RUN_AGAIN, _SUBMIT_AGAIN),
        python="" if "jobs.apply(" in cure.python else cure.python,
        shell="" if _REPLACES_JOB in shell else shell,
    )
