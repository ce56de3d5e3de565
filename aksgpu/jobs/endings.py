"""When and how a Job ended, in words."""

from __future__ import annotations

from datetime import UTC, datetime

from aksgpu.common.kubernetes_objects import Object
from aksgpu.errors import KubernetesError
from aksgpu.kube import pod_facts as _pods
from aksgpu.kube.client import Kube
from aksgpu.logs.job_logs import job_pods


def ending(kube: Kube, job: Object) -> str:
    """Say when and how a Job ended, such as ``ended 3 minutes ago with exit code 1``; empty while it has not ended.

    Args:
        kube: the cluster's API, to read the exit code of a failed Job's pods.
        job: the Job object.
    """
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition["status"] != "True" or condition["type"] not in ("Complete", "Failed"):
            continue
        when = f"ended {_ago(condition.get('lastTransitionTime'))}"
        if condition["type"] == "Complete":
            return f"{when} and is complete"
        reason = condition.get("reason") or "Failed"
        code = _exit_code(kube, job)
        return f"{when} with exit code {code} ({reason})" if code is not None else f"{when} and failed ({reason})"
    return ""


def _exit_code(kube: Kube, job: Object) -> int | None:
    """The exit code of a failed Job; None if its pods are gone or cannot be read."""
    try:
        pods = job_pods(kube, dict(job))
    except KubernetesError:
        return None
    for pod in reversed(pods):
        failure = _pods.last_failure(pod)
        if failure:
            return int(failure["exitCode"])
    return None


def _ago(stamp: object) -> str:
    try:
        then = datetime.fromisoformat(str(stamp))
    except ValueError:
        return "at an unknown time"
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return f"{duration((datetime.now(UTC) - then).total_seconds())} ago"


def duration(seconds: float) -> str:
    """Say how long something lasted, such as ``3 minutes``, in whole units."""
    amount = max(0, int(seconds))
    for name, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if amount >= size:
            count = amount // size
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{amount} second{'' if amount == 1 else 's'}"
