"""Explain why a Job or pod is pending or failed: one verdict, the evidence, and the call that fixes it.

    diagnose.job(aks, "samples-tf-mnist-demo")
    job.why()

It joins what no single object says: the pod's state, its events, the nodes with their taints and GPUs, who holds those
GPUs, and the end of the log. It only reads. What cannot be read, for lack of a right or because the API server does not
answer, is listed as unknown; the verdict is made from the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aksgpu.diagnose.cluster_reader import Reader, event_rows
from aksgpu.diagnose.diagnosis import Diagnosis, Rows
from aksgpu.diagnose.gpu_failures import Failure, of_log
from aksgpu.diagnose.unscheduled import MOUNT_FIX, explain
from aksgpu.kube import pod_facts as _pods
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.kube.node_facts import read
from aksgpu.logs.job_logs import job_pods

__all__ = ["Diagnosis", "job", "pod"]

_AGAIN = "then run it again with replace=True."


def job(aks: HasKube, name: str, namespace: str | None = None) -> Diagnosis:
    """Explain the current state of a Job.

    Args:
        aks: the cluster.
        name: of the Job.
        namespace: of the Job; None uses the context's namespace.

    Raises:
        InvalidInput: ``aks`` is not a cluster.
        NotFound: no such Job.

    Example:
        >>> diagnose.job(aks, "samples-tf-mnist-demo")  # doctest: +SKIP
    """
    check_cluster(aks)
    return explain_job(aks, aks.kube.get("Job", name, namespace))


def pod(aks: HasKube, name: str, namespace: str | None = None) -> Diagnosis:
    """Explain the current state of a pod.

    Args:
        aks: the cluster.
        name: of the pod.
        namespace: of the pod; None uses the context's namespace.

    Raises:
        InvalidInput: ``aks`` is not a cluster.
        NotFound: no such pod.
    """
    check_cluster(aks)
    return explain_pod(aks, aks.kube.get("Pod", name, namespace))


def explain_pod(aks: HasKube, obj: Object) -> Diagnosis:
    """Explain a pod object."""
    reader = Reader(aks)
    return reader.finish(_pod(reader, obj))


def explain_failure(aks: HasKube, obj: Object) -> Diagnosis | None:
    """Explain how a pod or its last run failed, even if a further run has begun; None if it did not fail.

    Args:
        aks: the cluster.
        obj: the pod object.
    """
    reader = Reader(aks)
    if _pods.disruption(obj):
        return reader.finish(_disrupted(reader, obj, _pod_rows(reader, obj)))
    failure = _pods.last_failure(obj)
    if failure and not _pods.ended_by_deletion(obj, failure):
        return reader.finish(_crashed(reader, obj, failure, _pod_rows(reader, obj)))
    if (obj.get("status") or {}).get("phase") == "Failed":
        return reader.finish(_pod(reader, obj))
    return None


def explain_job(aks: HasKube, obj: Object, remembered: Diagnosis | None = None) -> Diagnosis:
    """Explain a Job object.

    Args:
        aks: the cluster.
        obj: the Job object.
        remembered: the diagnosis of its pod that failed last, made while that pod was there; for a failed Job whose
            pods are gone.
    """
    reader = Reader(aks)
    return reader.finish(_job(reader, obj, remembered))


# Jobs


def _job(reader: Reader, obj: Object, remembered: Diagnosis | None) -> Diagnosis:
    name = obj["metadata"]["name"]
    status = obj.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    if "Complete" in conditions:
        return Diagnosis(f"Job {name} is complete: nothing is wrong.")
    if failed := conditions.get("Failed"):
        return _failed_job(reader, obj, failed, remembered)
    if obj["metadata"].get("deletionTimestamp"):
        return Diagnosis(f"Job {name} is being deleted, with its pods.", "Wait until it is gone.")
    if obj["spec"].get("suspend"):
        return Diagnosis(
            f"Job {name} is suspended: it creates no pods.",
            f'aks.kube.patch("Job", "{name}", {{"spec": {{"suspend": False}}}}, "{obj["metadata"]["namespace"]}")',
        )
    pods = job_pods(reader.aks.kube, obj)
    if not pods:
        return _no_pods(reader, obj)
    alive = [p for p in pods if not _pods.ended(p)]
    if not alive:
        return _between_pods(reader, obj, pods[-1], conditions)
    found = _pod(reader, alive[-1])
    if alive[-1]["spec"].get("nodeName") or not _lost_pods(obj, pods):
        return found
    return _after_preemption(reader, obj, found)


def _lost_pods(obj: Object, pods: list[Object]) -> bool:
    """Whether the Job has had pods that are gone by now, or ended without running to their end."""
    return bool((obj.get("status") or {}).get("failed")) or len(pods) > 1


def _after_preemption(reader: Reader, obj: Object, found: Diagnosis) -> Diagnosis:
    """The diagnosis of a pending pod, with the preemption of its predecessor if there was one."""
    preempted = reader.preemptions(obj)
    if not preempted:
        return found
    name, message = preempted[-1]
    verdict = f"Job {obj['metadata']['name']} was preempted: its pod {name} made room for a pod of higher priority. "
    return replace(found, verdict=verdict + found.verdict, rows=(*found.rows, ("event Preempted", message)))


def _between_pods(
    reader: Reader, obj: Object, newest: Object, conditions: Mapping[str, Mapping[str, Any]]
) -> Diagnosis:
    """A Job whose pods have all ended, and which has not ended itself."""
    name = obj["metadata"]["name"]
    found = _pod(reader, newest)
    if (newest.get("status") or {}).get("phase") == "Succeeded":
        return Diagnosis(
            f"Job {name} is completing: its pods have succeeded, and the Job controller has not recorded it yet.",
            "Wait a moment.",
            found.rows,
        )
    verdict = "the Job is about to fail" if "FailureTarget" in conditions else "another attempt may begin after a pause"
    return replace(found, verdict=f"The last pod of Job {name} failed; {verdict}. {found.verdict}")


def _failed_job(reader: Reader, obj: Object, condition: Mapping[str, Any], remembered: Diagnosis | None) -> Diagnosis:
    name = obj["metadata"]["name"]
    reason = condition.get("reason") or "Failed"
    rows: Rows = ((f"Job {name}", f"{reason}: {condition.get('message') or ''}"),)
    if reason == "DeadlineExceeded":
        seconds = obj["spec"].get("activeDeadlineSeconds")
        return Diagnosis(
            f"Job {name} failed: it ran longer than the {seconds} s that activeDeadlineSeconds allows. The time that "
            "it waits for a node counts.",
            f"Raise spec.activeDeadlineSeconds, or have the program do less; {_AGAIN}",
            rows,
        )
    pods = reader.attempt("its pods", lambda: job_pods(reader.aks.kube, obj))
    bad = [p for p in pods or () if _pods.last_failure(p) or (p.get("status") or {}).get("phase") == "Failed"]
    if bad:
        found = _pod(reader, bad[-1])
    elif remembered is not None:
        found = remembered
    else:
        return _failed_without_pods(reader, obj, condition, rows, known=pods is not None)
    verdict = f"Job {name} failed ({reason}): {found.verdict}"
    return Diagnosis(verdict, found.fix, rows + found.rows, found.error, found.unknown)


def _failed_without_pods(
    reader: Reader, obj: Object, condition: Mapping[str, Any], rows: Rows, *, known: bool
) -> Diagnosis:
    name = obj["metadata"]["name"]
    message = f"Job {name} failed: {condition.get('message') or condition.get('reason') or 'no reason is given'}."
    if not known:
        call = f"diagnose.job(aks, {name!r}, {obj['metadata']['namespace']!r})"
        return Diagnosis(f"{message} Its pods could not be read.", f"Ask again: {call}.", rows)
    preempted = reader.preemptions(obj)
    if preempted:
        pod_name, text = preempted[-1]
        return Diagnosis(
            f"Job {name} failed: its pod {pod_name} was preempted by a pod of higher priority, which counts as a "
            "failure. Its pods are gone, with their logs.",
            f"Raise spec.backoffLimit, or the priorityClassName of its pods; {_AGAIN}",
            (*rows, ("event Preempted", text)),
        )
    return Diagnosis(
        f"{message} Its pods are gone, with their logs.",
        "Run it again with replace=True, and follow it from the start: job.follow().",
        rows,
    )


def _no_pods(reader: Reader, obj: Object) -> Diagnosis:
    name = obj["metadata"]["name"]
    events = reader.events(obj)
    verdict = f"Job {name} has no pod yet: the Job controller has not created one."
    fix = "Wait a moment."
    rows = event_rows(events)
    preempted = reader.preemptions(obj)
    if preempted:
        pod_name, message = preempted[-1]
        verdict = f"Job {name} has no pod: its pod {pod_name} was preempted by a pod of higher priority."
        fix = "Wait: the Job controller creates another pod, which waits for a free GPU: capacity.gpus(aks)."
        rows = (*rows, ("event Preempted", message))
    elif (obj.get("status") or {}).get("failed"):
        verdict = f"Job {name} has no pod: the last one failed and is gone. The Job controller creates another one."
        fix = "Wait: the pause before an attempt grows up to six minutes."
    for reason, message in events:
        if reason == "FailedCreate" and "exceeded quota" in message:
            verdict = f"Job {name} has no pod: the namespace's ResourceQuota is used up."
            fix = "Delete a Job that holds what is limited (jobs.list(aks)), or have the quota raised."
        elif reason == "FailedCreate":
            verdict = f"Job {name} has no pod: the API server refuses it: {message}"
            fix = f"Correct what the message names; {_AGAIN}"
    return Diagnosis(verdict, fix, rows)


# Pods


def _pod_rows(reader: Reader, obj: Object) -> Rows:
    word, message = _pods.state(obj)
    state = (f"pod {obj['metadata']['name']}", f"{word}: {message}" if message else word)
    return (state, *event_rows(reader.events(obj)))


def _pod(reader: Reader, obj: Object) -> Diagnosis:
    word, message = _pods.state(obj)
    rows = _pod_rows(reader, obj)
    phase = (obj.get("status") or {}).get("phase")
    if phase == "Succeeded":
        return Diagnosis("The pod has succeeded: nothing is wrong.", "", rows)
    if _pods.disruption(obj):
        return _disrupted(reader, obj, rows)
    if word in _pods.UNPULLABLE:
        return _unpullable(reader, obj, message, rows)
    if word in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        return _unstartable(reader, obj, message, rows)
    failure = _pods.last_failure(obj)
    if failure and word not in ("Running", "Completed") and not _pods.ended_by_deletion(obj, failure):
        return _crashed(reader, obj, failure, rows)
    if phase == "Failed":
        verdict = f"The pod failed: {word}: {message}" if message else f"The pod failed: {word}."
        known = of_log(message)
        fix = _EVICTED_FIX.get(word) or (known.fix_for(reader.has_azure) if known else "Run it again.")
        error = known.error(verdict, has_azure=reader.has_azure) if known else None
        return Diagnosis(verdict, fix, rows, error)
    if not obj["spec"].get("nodeName") and word != "Terminating":
        return explain(reader, obj, rows)
    return _on_a_node(reader, obj, word, rows)


def _on_a_node(reader: Reader, obj: Object, word: str, rows: Rows) -> Diagnosis:
    """A pod that has a node, and whose program has not failed."""
    node_name = obj["spec"].get("nodeName")
    problem = _node_problem(reader, node_name) if node_name else ""
    if problem:
        return Diagnosis(f"The pod's node {problem}.", _NODE_FIX, rows)
    if word == "Terminating":
        return _terminating(obj, rows)
    if (obj.get("status") or {}).get("phase") == "Running":
        before = f" It was started again {_times(obj)}." if _pods.restarts(obj) else ""
        verdict = "The pod is running: nothing is wrong."
        if reader.unknown:
            verdict = "The pod is running: nothing is known to be wrong, but not all of it could be read."
        return Diagnosis(f"{verdict}{before}", "", rows)
    mounting = [text for what, text in rows if what in ("event FailedMount", "event FailedAttachVolume")]
    if mounting:
        return Diagnosis(f"The pod waits for a volume: {mounting[-1]}", MOUNT_FIX, rows)
    return Diagnosis(
        f"The pod is being started on {node_name}: its image is pulled, or its volumes are mounted.",
        "Wait: a GPU image has several GB, and its first pull on a node takes minutes.",
        rows,
    )


def _terminating(obj: Object, rows: Rows) -> Diagnosis:
    """A pod that is being deleted, by a person or a controller."""
    metadata = obj["metadata"]
    grace = metadata.get("deletionGracePeriodSeconds")
    if grace is None:
        grace = obj["spec"].get("terminationGracePeriodSeconds", 30)
    return Diagnosis(
        f"The pod is being deleted: its program was asked to end, and is killed after {metadata['deletionTimestamp']}.",
        f"Wait until it has ended, {grace} s at most; a program that handles SIGTERM ends sooner.",
        rows,
    )


_CONFIG_FIX = "Create what the message names (a ConfigMap, a Secret, a key in one), or correct the manifest."
_MEMORY_FIX = f"Raise resources.limits.memory, or have the program use less; {_AGAIN}"
_COMMAND_FIX = f"Correct command and args: the program must be in the image; {_AGAIN}"
_NODE_FIX = "capacity.nodes(aks) shows the nodes; Kubernetes starts the pod elsewhere after five minutes."
_EVICTED_FIX = {
    "Evicted": "Ask for the memory or disk that it uses (resources.requests), so that it is not the first to go.",
    "UnexpectedAdmissionError": "The node lost its GPU in the meantime: plugin.status(aks).",
}
_SAFE_TO_EVICT = (
    'Set the annotation cluster-autoscaler.kubernetes.io/safe-to-evict: "false" in spec.template.metadata, so that the '
    "autoscaler leaves its node alone."
)
_DISRUPTIONS = {
    "PreemptionByScheduler": (
        "the scheduler gave its place to a pod of higher priority",
        "Wait for a free GPU: capacity.gpus(aks); or give the Job's pods a higher priorityClassName.",
    ),
    "DeletionByTaintManager": (
        "its node got a taint that it does not tolerate",
        "capacity.nodes(aks) shows the nodes; the Job controller starts another pod elsewhere.",
    ),
    "EvictionByEvictionAPI": ("it was evicted, as the autoscaler and kubectl drain do", _SAFE_TO_EVICT),
    "DeletionByPodGC": (
        "its node is gone",
        "capacity.nodes(aks) shows the nodes; the Job controller starts another pod elsewhere.",
    ),
    "TerminationByKubelet": (
        "its node ended it, for lack of memory or disk or because the node shuts down",
        "Ask for the memory and disk that it uses (resources.requests): capacity.nodes(aks) shows the nodes.",
    ),
}
"""Reasons of the condition DisruptionTarget: what happened, and what to do."""


def _disrupted(reader: Reader, obj: Object, rows: Rows) -> Diagnosis:
    """A pod that the cluster ended. Its program is not to blame."""
    condition = _pods.disruption(obj) or {}
    reason = condition.get("reason") or ""
    why, fix = _DISRUPTIONS.get(reason, (f"the cluster ended it ({reason})", "Run it again."))
    what = "was ended" if _pods.ended(obj) else "is being deleted"
    message = condition.get("message") or ""
    return Diagnosis(f"The pod {what}: {why}{f' ({message})' if message else ''}.", fix, rows)


def _unpullable(reader: Reader, obj: Object, message: str, rows: Rows) -> Diagnosis:
    """A pod whose image cannot be pulled."""
    cause = re.sub(r'^Back-off pulling image "[^"]*": (?:ErrImagePull: )?', "", message)
    # A cluster that provides images in its own way says with this event what to do.
    advice = [text for title, text in rows if title == "event ImageUnavailable"]
    if advice:
        fix = advice[-1]
    else:
        fix = "Check the image's name and tag. A private registry needs its pull secret"
        fix += (
            ", or az aks update --name CLUSTER --resource-group GROUP --attach-acr REGISTRY."
            if reader.has_azure
            else "."
        )
    return Diagnosis(f"The image {_waiting_image(obj)} cannot be pulled: {cause}", fix, rows)


def _unstartable(reader: Reader, obj: Object, message: str, rows: Rows) -> Diagnosis:
    """A pod whose container cannot be started."""
    verdict = f"The container cannot be started: {message}"
    known = of_log(message)
    return _known_failure(reader, obj, verdict, known, rows) if known else Diagnosis(verdict, _CONFIG_FIX, rows)


def _crashed(reader: Reader, obj: Object, failure: Mapping[str, Any], rows: Rows) -> Diagnosis:
    """A pod whose program failed."""
    code = failure.get("exitCode")
    # While the next run is on, the failed one is the previous one.
    previous = _pods.state(obj).word == "Running"
    tail = reader.tail(obj, failure["container"], previous=previous)
    rows = (*rows, ("log", tail)) if tail else rows
    again = f", and was started again {_times(obj)}" if _pods.restarts(obj) else ""
    if failure.get("reason") == "OOMKilled":
        return Diagnosis(f"The container used more memory than its limit (OOMKilled){again}.", _MEMORY_FIX, rows)
    if failure.get("reason") in ("StartError", "ContainerCannotRun"):
        return Diagnosis(f"The program cannot be started{again}: {failure.get('message')}", _COMMAND_FIX, rows)
    known = of_log(tail)
    if known:
        verdict = f"The program ended with exit code {code}{again}: {known.verdict}."
        return _known_failure(reader, obj, verdict, known, rows)
    last = tail.splitlines()[-1].strip() if tail else ""
    init = "" if failure["container"] in {c["name"] for c in obj["spec"]["containers"]} else "init container's "
    read_it = "Read the end of its log in the evidence, correct the program" if tail else "Correct the program"
    return Diagnosis(
        f"The {init}program ended with exit code {code}{again}" + (f": {last}" if last else "."),
        f"{read_it}, {_AGAIN}",
        rows,
    )


def _known_failure(reader: Reader, obj: Object, verdict: str, known: Failure, rows: Rows) -> Diagnosis:
    """A failure whose text is known, with the node's image: driver and libraries come with it."""
    node_name = obj["spec"].get("nodeName")
    node = reader.node(node_name) if node_name else None
    labels = ((node or {}).get("metadata") or {}).get("labels") or {}
    image = labels.get("kubernetes.azure.com/node-image-version")
    rows = (*rows, ("node image", image)) if image else rows
    return Diagnosis(verdict, known.fix_for(reader.has_azure), rows, known.error(verdict, has_azure=reader.has_azure))


def _times(obj: Object) -> str:
    count = _pods.restarts(obj)
    return "once" if count == 1 else f"{count} times"


def _node_problem(reader: Reader, name: str) -> str:
    """What is wrong with a node; empty if nothing is, or if it could not be read."""
    node = reader.node(name)
    if node is None:
        return ""
    if not node:
        return f"{name} is gone"
    return "" if read(node).ready else f"{name} is not ready"


def _waiting_image(obj: Object) -> str:
    for entry in _pods.containers(obj["status"]):
        waiting = (entry.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _pods.UNPULLABLE and entry.get("image"):
            return str(entry["image"])
    return str(obj["spec"]["containers"][0]["image"])
