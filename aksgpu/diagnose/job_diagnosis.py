"""What state is a Job in, and which of its pods explains it?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.diagnosis import Diagnosis, Rows
from aksgpu.diagnose.events import Event, event_rows, preemptions, warnings
from aksgpu.diagnose.pod_diagnosis import RUN_AGAIN, diagnose_pod
from aksgpu.kube import pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.logs.job_logs import job_pods

__all__ = ["explain_job", "job"]

Condition = Mapping[str, Any]
_CANCELLED = "aksgpu.dev/cancelled"
"""Annotation of a Job of an Executor that was cancelled while it had no program."""


def job(aks: HasKube, name: str, *, namespace: str | None = None) -> Diagnosis:
    """Explain the current state of a Job.

    Args:
        aks: the cluster.
        name: the Job's name.
        namespace: the Job's namespace; None uses the context's namespace.

    Returns:
        The verdict, the evidence and the fix.

    Raises:
        InvalidInput: ``aks`` is not a cluster, or a name is not valid.
        NotFound: there is no such Job.

    Example:
        >>> diagnose.job(aks, "samples-tf-mnist-demo")  # doctest: +SKIP
    """
    check_cluster(aks)
    return explain_job(aks, aks.kube.get("Job", name, namespace=namespace))


def explain_job(aks: HasKube, obj: Object, remembered: Diagnosis | None = None) -> Diagnosis:
    """Explain the state of a Job object.

    Args:
        aks: the cluster.
        obj: the Job object.
        remembered: the diagnosis of the Job's pod that failed last, made before that pod was deleted. It is used for a
            failed Job whose pods are gone.
    """
    reader = ClusterReader(aks)
    return reader.finish(_diagnose_job(reader, obj, remembered))


def _diagnose_job(reader: ClusterReader, obj: Object, remembered: Diagnosis | None) -> Diagnosis:
    name = obj["metadata"]["name"]
    conditions = _true_conditions(obj)
    if "Complete" in conditions:
        return Diagnosis(f"Job {name} is complete: nothing is wrong.")
    if "Failed" in conditions:
        return _failed(reader, obj, conditions["Failed"], remembered)
    if obj["metadata"].get("deletionTimestamp"):
        return Diagnosis(f"Job {name} is being deleted, with its pods.", "Wait until it is gone.")
    if obj["spec"].get("suspend"):
        return _suspended(obj)
    pods = job_pods(reader.aks.kube, obj)
    if not pods:
        return _no_pods(reader, obj)
    alive = [pod for pod in pods if not pod_facts.ended(pod)]
    if not alive:
        return _between_pods(reader, obj, pods[-1], about_to_fail="FailureTarget" in conditions)
    newest = alive[-1]
    diagnosis = diagnose_pod(reader, newest)
    if newest["spec"].get("nodeName") or not _lost_pods(obj, pods):
        return diagnosis
    return _after_preemption(reader, obj, diagnosis)


def _true_conditions(obj: Object) -> dict[str, Condition]:
    """Return the Job's conditions that are true, by type."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return {condition["type"]: condition for condition in conditions if condition["status"] == "True"}


def _suspended(obj: Object) -> Diagnosis:
    metadata = obj["metadata"]
    name = metadata["name"]
    if _CANCELLED in (metadata.get("annotations") or {}):
        return Diagnosis(f"Job {name} was cancelled before its program started.", "Submit it again to run it.")
    patch = '{"spec": {"suspend": False}}'
    resume = f'aks.kube.patch("Job", "{name}", {patch}, namespace="{metadata["namespace"]}")'
    return Diagnosis(f"Job {name} is suspended: it creates no pods.", resume)


def _lost_pods(obj: Object, pods: list[Object]) -> bool:
    """Whether the Job has had pods that were deleted since, or that ended early."""
    return bool((obj.get("status") or {}).get("failed")) or len(pods) > 1


def _after_preemption(reader: ClusterReader, obj: Object, diagnosis: Diagnosis) -> Diagnosis:
    """Return the diagnosis of a pending pod, with the preemption of the pod before it if there was one."""
    preempted = preemptions(reader, obj)
    if not preempted:
        return diagnosis
    pod_name, message = preempted[-1]
    job_name = obj["metadata"]["name"]
    verdict = f"Job {job_name} was preempted: its pod {pod_name} made room for a pod of higher priority. "
    rows = (*diagnosis.rows, ("event Preempted", message))
    return replace(diagnosis, verdict=verdict + diagnosis.verdict, rows=rows)


def _between_pods(reader: ClusterReader, obj: Object, newest: Object, *, about_to_fail: bool) -> Diagnosis:
    """Explain a Job whose pods have all ended while the Job itself has not."""
    name = obj["metadata"]["name"]
    diagnosis = diagnose_pod(reader, newest)
    if (newest.get("status") or {}).get("phase") == "Succeeded":
        return Diagnosis(
            f"Job {name} is completing: its pods have succeeded, and the Job controller has not recorded it yet.",
            "Wait a moment.",
            diagnosis.rows,
        )
    next_step = "the Job is about to fail" if about_to_fail else "another attempt may begin after a pause"
    verdict = f"The last pod of Job {name} failed; {next_step}. {diagnosis.verdict}"
    return replace(diagnosis, verdict=verdict)


# Failed Jobs


def _failed(reader: ClusterReader, obj: Object, condition: Condition, remembered: Diagnosis | None) -> Diagnosis:
    name = obj["metadata"]["name"]
    reason = condition.get("reason") or "Failed"
    rows: Rows = ((f"Job {name}", f"{reason}: {condition.get('message') or ''}"),)
    if reason == "DeadlineExceeded":
        return _deadline_exceeded(obj, rows)
    pods = reader.attempt("its pods", lambda: job_pods(reader.aks.kube, obj))
    failed = [pod for pod in pods or () if _has_failed(pod)]
    if failed:
        diagnosis = diagnose_pod(reader, failed[-1])
    elif remembered is not None:
        diagnosis = remembered
    elif pods is None:
        return _pods_not_readable(obj, condition, rows)
    else:
        return _pods_gone(reader, obj, condition, rows)
    verdict = f"Job {name} failed ({reason}): {diagnosis.verdict}"
    return replace(diagnosis, verdict=verdict, rows=rows + diagnosis.rows)


def _has_failed(pod: Object) -> bool:
    return pod_facts.last_failure(pod) is not None or (pod.get("status") or {}).get("phase") == "Failed"


def _deadline_exceeded(obj: Object, rows: Rows) -> Diagnosis:
    seconds = obj["spec"].get("activeDeadlineSeconds")
    return Diagnosis(
        f"Job {obj['metadata']['name']} failed: it ran longer than the {seconds} s that activeDeadlineSeconds allows. "
        "The time that it waits for a node counts.",
        f"Raise spec.activeDeadlineSeconds, or have the program do less; {RUN_AGAIN}",
        rows,
    )


def _failure_message(obj: Object, condition: Condition) -> str:
    message = condition.get("message") or condition.get("reason") or "no reason is given"
    return f"Job {obj['metadata']['name']} failed: {message}."


def _pods_not_readable(obj: Object, condition: Condition, rows: Rows) -> Diagnosis:
    """Explain a failed Job whose pods could not be read."""
    metadata = obj["metadata"]
    call = f"diagnose.job(aks, {metadata['name']!r}, namespace={metadata['namespace']!r})"
    verdict = f"{_failure_message(obj, condition)} Its pods could not be read."
    return Diagnosis(verdict, f"Ask again: {call}.", rows)


def _pods_gone(reader: ClusterReader, obj: Object, condition: Condition, rows: Rows) -> Diagnosis:
    """Explain a failed Job whose pods were deleted."""
    preempted = preemptions(reader, obj)
    if preempted:
        pod_name, message = preempted[-1]
        return Diagnosis(
            f"Job {obj['metadata']['name']} failed: its pod {pod_name} was preempted by a pod of higher priority, "
            "which counts as a failure. Its pods are gone, with their logs.",
            f"Raise spec.backoffLimit, or the priorityClassName of its pods; {RUN_AGAIN}",
            (*rows, ("event Preempted", message)),
        )
    return Diagnosis(
        f"{_failure_message(obj, condition)} Its pods are gone, with their logs.",
        "Run it again with replace=True, and follow it from the start: job.follow().",
        rows,
    )


# Jobs without pods


def _no_pods(reader: ClusterReader, obj: Object) -> Diagnosis:
    """Explain a Job that has not ended and has no pod."""
    events = warnings(reader, obj)
    rows = event_rows(events)
    preempted = preemptions(reader, obj)
    if preempted:
        rows = (*rows, ("event Preempted", preempted[-1][1]))
    refusals = [message for reason, message in events if reason == "FailedCreate"]
    if refusals:
        return _pod_refused(obj, refusals[-1], rows)
    if preempted:
        return _pod_preempted(obj, preempted[-1], rows)
    name = obj["metadata"]["name"]
    if (obj.get("status") or {}).get("failed"):
        verdict = f"Job {name} has no pod: the last one failed and is gone. The Job controller creates another one."
        return Diagnosis(verdict, "Wait: the pause before an attempt grows up to six minutes.", rows)
    verdict = f"Job {name} has no pod yet: the Job controller has not created one."
    return Diagnosis(verdict, "Wait a moment.", rows)


def _pod_refused(obj: Object, message: str, rows: Rows) -> Diagnosis:
    """Explain a Job whose pods the API server refuses."""
    name = obj["metadata"]["name"]
    if "exceeded quota" in message:
        return Diagnosis(
            f"Job {name} has no pod: the namespace's ResourceQuota is used up.",
            "Delete a Job that uses what is limited (jobs.list(aks) shows them), or have the quota raised.",
            rows,
        )
    verdict = f"Job {name} has no pod: the API server refuses it: {message}"
    return Diagnosis(verdict, f"Correct what the message names; {RUN_AGAIN}", rows)


def _pod_preempted(obj: Object, preempted: Event, rows: Rows) -> Diagnosis:
    """Explain a Job whose pod was preempted and is gone."""
    pod_name, _ = preempted
    return Diagnosis(
        f"Job {obj['metadata']['name']} has no pod: its pod {pod_name} was preempted by a pod of higher priority.",
        "Wait: the Job controller creates another pod, which waits for a free GPU: capacity.gpus(aks).",
        rows,
    )
