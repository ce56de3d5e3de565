"""Explain the state of a Job, by the pod that decides it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aksgpu.diagnose import gpu_failures, program_log
from aksgpu.diagnose import job_pods as pods_of_job
from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.cures import EDIT_JOB_SHELL, RUN_AGAIN, Cure, edit_job
from aksgpu.diagnose.diagnosis import Diagnosis, Rows
from aksgpu.diagnose.events import event_rows, events_about, preemptions
from aksgpu.diagnose.kueue_workloads import explain_queued
from aksgpu.diagnose.pod_diagnosis import diagnose_pod
from aksgpu.diagnose.runner_exits import PODS_GONE, PREEMPTED
from aksgpu.kube import job_facts, pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.logs.job_logs import job_pods
from aksgpu.payload.job_annotations import CANCELLED

__all__ = ["explain_job", "explain_with", "job"]

Condition = Mapping[str, Any]


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
        NotFound: the Job does not exist.

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
    return explain_with(ClusterReader(aks), obj, remembered)


def explain_with(reader: ClusterReader, obj: Object, remembered: Diagnosis | None = None) -> Diagnosis:
    """Explain the state of a Job object with a reader that has read the nodes for other Jobs already.

    Args:
        reader: reads the cluster.
        obj: the Job object.
        remembered: as for :func:`explain_job`.
    """
    reader.know_job(obj)
    return reader.finish(_diagnose_job(reader, obj, remembered))


def _diagnose_job(reader: ClusterReader, obj: Object, remembered: Diagnosis | None) -> Diagnosis:
    name = obj["metadata"]["name"]
    conditions = job_facts.true_conditions(obj)
    if "Complete" in conditions:
        return _complete(reader, obj)
    if "Failed" in conditions:
        return _failed(reader, obj, conditions["Failed"], remembered)
    if obj["metadata"].get("deletionTimestamp"):
        return Diagnosis(f"Job {name} is being deleted, with its pods.", "Wait until it is gone.")
    if obj["spec"].get("suspend"):
        return _suspended(reader, obj)
    pods = job_pods(reader.aks.kube, obj)
    if not pods:
        return _no_pods(reader, obj)
    alive = [pod for pod in pods if not pod_facts.ended(pod)]
    if not alive:
        return _between_pods(reader, obj, pods, about_to_fail="FailureTarget" in conditions)
    if len(alive) > 1:
        return _several_pods(reader, pods, alive)
    newest = alive[-1]
    diagnosis = diagnose_pod(reader, newest)
    if newest["spec"].get("nodeName") or not _lost_pods(obj, pods):
        return diagnosis
    return _after_preemption(reader, obj, diagnosis)


def _complete(reader: ClusterReader, obj: Object) -> Diagnosis:
    """Explain a Job that is complete. Its program may not have used the GPU that it held."""
    name = obj["metadata"]["name"]
    fine = Diagnosis(f"Job {name} is complete: nothing is wrong.")
    if not pod_facts.gpus(obj["spec"]["template"]["spec"]):
        return fine
    pods = reader.attempt("its pods", lambda: job_pods(reader.aks.kube, obj))
    for pod in (pods or ())[-1:]:
        found = program_log.fallback(reader, pod)
        if found is not None:
            failure, line = found
            return reader.known_failure(f"Job {name} is complete, but {failure.verdict}.", failure, (("log", line),))
    return fine


def _suspended(reader: ClusterReader, obj: Object) -> Diagnosis:
    """Explain a Job that is suspended, by a queue or by a person."""
    queued = explain_queued(reader, obj, ())
    if queued is not None:
        return queued
    metadata = obj["metadata"]
    name = metadata["name"]
    if CANCELLED in (metadata.get("annotations") or {}):
        return Diagnosis(f"Job {name} was cancelled before its program started.", "Submit it again to run it.")
    patch = '{"spec": {"suspend": False}}'
    resume = f'aks.kube.patch("Job", "{name}", {patch}, namespace="{metadata["namespace"]}")'
    shell = (
        f"kubectl patch job {name} --namespace {metadata['namespace']} --type=merge -p "
        '\'{"spec":{"suspend":false}}\''
    )
    return reader.diagnosis(
        f"Job {name} is suspended: it creates no pods.", Cure(resume, resume, shell), (), cause="a suspended Job"
    )


def _several_pods(reader: ClusterReader, pods: list[Object], alive: list[Object]) -> Diagnosis:
    """Explain a Job with several pods that have not ended: by the first that failed, or by one that does not run."""
    failed = [pod for pod in pods if _has_failed(pod) and not pod_facts.ended_by_deletion(pod, _failure_of(pod))]
    if failed:
        return pods_of_job.explain_failed(reader, failed, alive)
    waiting = [pod for pod in alive if (pod.get("status") or {}).get("phase") != "Running"]
    if not waiting:
        return pods_of_job.explain_running(reader, alive)
    diagnosis = diagnose_pod(reader, waiting[0])
    running = len(alive) - len(waiting)
    noun = "pod does" if len(waiting) == 1 else "pods do"
    verdict = (
        f"{len(waiting)} of {len(alive)} {noun} not run yet. Pod {waiting[0]['metadata']['name']}: {diagnosis.verdict}"
    )
    if running:
        verdict += f" {running} {'runs' if running == 1 else 'run'} and may wait for the others."
    return replace(diagnosis, verdict=verdict)


def _failure_of(pod: Object) -> Object:
    return pod_facts.last_failure(pod) or {}


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


def _between_pods(reader: ClusterReader, obj: Object, pods: list[Object], *, about_to_fail: bool) -> Diagnosis:
    """Explain a Job whose pods have all ended while the Job itself has not."""
    name = obj["metadata"]["name"]
    newest = pods[-1]
    failed = [pod for pod in pods if _has_failed(pod)]
    if (newest.get("status") or {}).get("phase") != "Succeeded" and failed:
        diagnosis = pods_of_job.explain_failed(reader, failed, [])
    else:
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
        return _deadline_exceeded(reader, obj, rows)
    pods = reader.attempt("its pods", lambda: job_pods(reader.aks.kube, obj))
    failed = [pod for pod in pods or () if _has_failed(pod)]
    if failed:
        diagnosis = pods_of_job.explain_failed(reader, failed, [])
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


def _deadline_exceeded(reader: ClusterReader, obj: Object, rows: Rows) -> Diagnosis:
    seconds = obj["spec"].get("activeDeadlineSeconds")
    cure = Cure(
        f"Raise spec.activeDeadlineSeconds, or have the program do less; {RUN_AGAIN}",
        edit_job('manifest["spec"]["activeDeadlineSeconds"] = 86400'),
        EDIT_JOB_SHELL,
    )
    verdict = (
        f"Job {obj['metadata']['name']} failed: it ran longer than the {seconds} s that activeDeadlineSeconds allows. "
        "The time that it waits for a node counts."
    )
    return reader.diagnosis(verdict, cure, rows, cause="DeadlineExceeded")


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
        verdict = (
            f"Job {obj['metadata']['name']} failed: its pod {pod_name} was preempted by a pod of higher priority, "
            "which counts as a failure. Its pods are gone, with their logs."
        )
        return reader.diagnosis(verdict, _PREEMPTED, (*rows, ("event Preempted", message)), cause=PREEMPTED)
    verdict = f"{_failure_message(obj, condition)} Its pods are gone, with their logs."
    return reader.diagnosis(verdict, _FOLLOW_NEXT, rows, cause=PODS_GONE)


_PREEMPTED = Cure(f"Raise spec.backoffLimit, or the priorityClassName of its pods; {RUN_AGAIN}")
_FOLLOW_NEXT = Cure("Run it again with replace=True, and follow it from the start: job.follow().")


# Jobs without pods


def _no_pods(reader: ClusterReader, obj: Object) -> Diagnosis:
    """Explain a Job that has not ended and has no pod."""
    events = events_about(reader, obj)
    rows = event_rows(events)
    preempted = preemptions(reader, obj)
    if preempted:
        rows = (*rows, ("event Preempted", preempted[-1][1]))
    refusals = [event.message for event in events if event.reason == "FailedCreate"]
    if refusals:
        return _pod_refused(reader, obj, refusals[-1], rows)
    if preempted:
        return _pod_preempted(obj, preempted[-1], rows)
    name = obj["metadata"]["name"]
    if (obj.get("status") or {}).get("failed"):
        verdict = f"Job {name} has no pod: the last one failed and is gone. The Job controller creates another one."
        return Diagnosis(verdict, "Wait: the pause before an attempt grows up to six minutes.", rows)
    verdict = f"Job {name} has no pod yet: the Job controller has not created one."
    return reader.diagnosis(verdict, _NO_POD_YET, rows)


_NO_POD_YET = Cure(
    "Wait a moment. If it stays like this for a minute, kubectl describe job JOB --namespace NAMESPACE shows why.",
    "",
    "kubectl describe job JOB --namespace NAMESPACE",
)
_REFUSED = Cure(
    f"Correct what the message names; {RUN_AGAIN}",
    edit_job("print(pod)"),
    EDIT_JOB_SHELL,
)


def _pod_refused(reader: ClusterReader, obj: Object, message: str, rows: Rows) -> Diagnosis:
    """Explain a Job whose pods the API server refuses."""
    name = obj["metadata"]["name"]
    known = gpu_failures.from_event("FailedCreate", message)
    if known is None:
        return reader.diagnosis(f"Job {name} has no pod: the API server refuses it: {message}", _REFUSED, rows)
    verdict = f"Job {name} has no pod: {known.verdict}."
    if known.name != "the quota is used up":
        verdict = f"{verdict} The API server says: {message}"
    return reader.known_failure(verdict, known, rows)


def _pod_preempted(obj: Object, preempted: tuple[str, str], rows: Rows) -> Diagnosis:
    """Explain a Job whose pod was preempted and is gone."""
    pod_name, _ = preempted
    return Diagnosis(
        f"Job {obj['metadata']['name']} has no pod: its pod {pod_name} was preempted by a pod of higher priority.",
        "Wait: the Job controller creates another pod, which waits for a free GPU: capacity.gpus(aks).",
        rows,
    )
