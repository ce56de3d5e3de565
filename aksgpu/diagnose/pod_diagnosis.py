"""Why does a pod not run, or why did it fail?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.diagnosis import Diagnosis, Rows
from aksgpu.diagnose.events import event_rows, warnings
from aksgpu.diagnose.gpu_failures import Failure, from_log
from aksgpu.diagnose.pod_scheduling import MOUNT_FIX, explain_unscheduled
from aksgpu.diagnose.runner_exits import explain_runner
from aksgpu.kube import pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.kube.node_facts import read

__all__ = ["RUN_AGAIN", "diagnose_pod", "explain_failure", "explain_pod", "pod"]

RUN_AGAIN = "then run it again with replace=True."
"""End of a fix that changes the program or the manifest."""


class _Disruption(NamedTuple):
    """Why the cluster ended a pod."""

    cause: str
    fix: str


_DISRUPTIONS = {
    "PreemptionByScheduler": _Disruption(
        "the scheduler gave its place to a pod of higher priority",
        "Wait for a free GPU: capacity.gpus(aks); or give the Job's pods a higher priorityClassName.",
    ),
    "DeletionByTaintManager": _Disruption(
        "its node got a taint that it does not tolerate",
        "capacity.nodes(aks) shows the nodes; the Job controller starts another pod elsewhere.",
    ),
    "EvictionByEvictionAPI": _Disruption(
        "it was evicted, as the autoscaler and kubectl drain do",
        'Set the annotation cluster-autoscaler.kubernetes.io/safe-to-evict: "false" in spec.template.metadata, so that '
        "the autoscaler leaves its node alone.",
    ),
    "DeletionByPodGC": _Disruption(
        "its node is gone",
        "capacity.nodes(aks) shows the nodes; the Job controller starts another pod elsewhere.",
    ),
    "TerminationByKubelet": _Disruption(
        "its node ended it, for lack of memory or disk or because the node shuts down",
        "Ask for the memory and disk that it uses (resources.requests): capacity.nodes(aks) shows the nodes.",
    ),
}
"""Reasons of the condition DisruptionTarget."""

_UNSTARTABLE = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
"""States of a pod whose container cannot be created or started."""
_START_ERRORS = ("StartError", "ContainerCannotRun")
"""Reasons of a container that ended because its program could not be started."""

_CONFIG_FIX = "Create what the message names (a ConfigMap, a Secret, a key in one), or correct the manifest."
_MEMORY_FIX = f"Raise resources.limits.memory, or have the program use less; {RUN_AGAIN}"
_COMMAND_FIX = f"Correct command and args: the program must be in the image; {RUN_AGAIN}"
_NODE_FIX = "capacity.nodes(aks) shows the nodes; Kubernetes starts the pod elsewhere after five minutes."
_PULL_WAIT = "Wait: a GPU image has several GB, and its first pull on a node takes minutes."
_FAILED_POD_FIXES = {
    "Evicted": "Ask for the memory or disk that it uses (resources.requests), so that it is not the first to go.",
    "UnexpectedAdmissionError": "The node lost its GPU in the meantime: plugin.status(aks).",
}
"""What to do about a failed pod, by its state."""


def pod(aks: HasKube, name: str, *, namespace: str | None = None) -> Diagnosis:
    """Explain the current state of a pod.

    Args:
        aks: the cluster.
        name: the pod's name.
        namespace: the pod's namespace; None uses the context's namespace.

    Returns:
        The verdict, the evidence and the fix.

    Raises:
        InvalidInput: ``aks`` is not a cluster, or a name is not valid.
        NotFound: there is no such pod.

    Example:
        >>> diagnose.pod(aks, "samples-tf-mnist-demo-x7k2p")  # doctest: +SKIP
    """
    check_cluster(aks)
    return explain_pod(aks, aks.kube.get("Pod", name, namespace=namespace))


def explain_pod(aks: HasKube, obj: Object) -> Diagnosis:
    """Explain the state of a Pod object."""
    reader = ClusterReader(aks)
    return reader.finish(diagnose_pod(reader, obj))


def explain_failure(aks: HasKube, obj: Object) -> Diagnosis | None:
    """Explain how a pod or its last run failed, even if a further run has begun; None if it did not fail.

    Args:
        aks: the cluster.
        obj: the Pod object.
    """
    reader = ClusterReader(aks)
    if pod_facts.disruption(obj):
        return reader.finish(_disrupted(obj, _pod_rows(reader, obj)))
    failure = pod_facts.last_failure(obj)
    if failure and not pod_facts.ended_by_deletion(obj, failure):
        return reader.finish(_crashed(reader, obj, failure, _pod_rows(reader, obj)))
    if (obj.get("status") or {}).get("phase") == "Failed":
        return reader.finish(diagnose_pod(reader, obj))
    return None


def diagnose_pod(reader: ClusterReader, obj: Object) -> Diagnosis:
    """Explain the state of a Pod object, as part of a larger diagnosis.

    Args:
        reader: reads the cluster and collects what could not be read.
        obj: the Pod object.
    """
    word, message = pod_facts.state(obj)
    rows = _pod_rows(reader, obj)
    phase = (obj.get("status") or {}).get("phase")
    if phase == "Succeeded":
        return Diagnosis("The pod has succeeded: nothing is wrong.", "", rows)
    if pod_facts.disruption(obj):
        return _disrupted(obj, rows)
    if word in pod_facts.UNPULLABLE:
        return _unpullable(reader, obj, message, rows)
    if word in _UNSTARTABLE:
        return _unstartable(reader, obj, message, rows)
    failure = pod_facts.last_failure(obj)
    if failure and word not in ("Running", "Completed") and not pod_facts.ended_by_deletion(obj, failure):
        return _crashed(reader, obj, failure, rows)
    if phase == "Failed":
        return _failed(reader, word, message, rows)
    if not obj["spec"].get("nodeName") and word != "Terminating":
        return explain_unscheduled(reader, obj, rows)
    return _on_a_node(reader, obj, word, rows)


def _pod_rows(reader: ClusterReader, obj: Object) -> Rows:
    """Return the pod's state and its events as evidence."""
    word, message = pod_facts.state(obj)
    state = (f"pod {obj['metadata']['name']}", f"{word}: {message}" if message else word)
    return (state, *event_rows(warnings(reader, obj)))


# Pods with a node whose program has not failed


def _on_a_node(reader: ClusterReader, obj: Object, word: str, rows: Rows) -> Diagnosis:
    node_name = obj["spec"].get("nodeName")
    problem = _node_problem(reader, node_name) if node_name else ""
    if problem:
        return Diagnosis(f"The pod's node {problem}.", _NODE_FIX, rows)
    if word == "Terminating":
        return _terminating(obj, rows)
    if (obj.get("status") or {}).get("phase") == "Running":
        return _running(reader, obj, rows)
    mounting = [text for what, text in rows if what in ("event FailedMount", "event FailedAttachVolume")]
    if mounting:
        return Diagnosis(f"The pod waits for a volume: {mounting[-1]}", MOUNT_FIX, rows)
    verdict = f"The pod is being started on {node_name}: its image is pulled, or its volumes are mounted."
    return Diagnosis(verdict, _PULL_WAIT, rows)


def _node_problem(reader: ClusterReader, name: str) -> str:
    """Return what is wrong with a node; empty if nothing is, or if the node could not be read."""
    node = reader.node(name)
    if node is None:
        return ""
    if not node:
        return f"{name} is gone"
    return "" if read(node).ready else f"{name} is not ready"


def _running(reader: ClusterReader, obj: Object, rows: Rows) -> Diagnosis:
    verdict = "The pod is running: nothing is wrong."
    if reader.unknown:
        verdict = "The pod is running: nothing is known to be wrong, but not all of it could be read."
    if pod_facts.restarts(obj):
        verdict += f" It was started again {_restart_count(obj)}."
    return Diagnosis(verdict, "", rows)


def _terminating(obj: Object, rows: Rows) -> Diagnosis:
    """Explain a pod that a person or a controller is deleting."""
    metadata = obj["metadata"]
    grace = metadata.get("deletionGracePeriodSeconds")
    if grace is None:
        grace = obj["spec"].get("terminationGracePeriodSeconds", 30)
    return Diagnosis(
        f"The pod is being deleted: its program was asked to end, and is killed after {metadata['deletionTimestamp']}.",
        f"Wait until it has ended, {grace} s at most; a program that handles SIGTERM ends sooner.",
        rows,
    )


# Pods that the cluster ended, or that cannot start


def _disrupted(obj: Object, rows: Rows) -> Diagnosis:
    """Explain a pod that the cluster ended. Its program did not fail."""
    condition = pod_facts.disruption(obj) or {}
    reason = condition.get("reason") or ""
    other = _Disruption(f"the cluster ended it ({reason})", "Run it again.")
    disruption = _DISRUPTIONS.get(reason, other)
    state = "was ended" if pod_facts.ended(obj) else "is being deleted"
    verdict = f"The pod {state}: {disruption.cause}"
    if condition.get("message"):
        verdict += f" ({condition['message']})"
    return Diagnosis(f"{verdict}.", disruption.fix, rows)


def _unpullable(reader: ClusterReader, obj: Object, message: str, rows: Rows) -> Diagnosis:
    """Explain a pod whose image cannot be pulled."""
    cause = re.sub(r'^Back-off pulling image "[^"]*": (?:ErrImagePull: )?', "", message)
    verdict = f"The image {_waiting_image(obj)} cannot be pulled: {cause}"
    # A cluster that provides images in its own way says with this event what to do.
    advice = [text for what, text in rows if what == "event ImageUnavailable"]
    if advice:
        return Diagnosis(verdict, advice[-1], rows)
    fix = "Check the image's name and tag. A private registry needs its pull secret"
    if reader.has_azure:
        fix += ", or az aks update --name CLUSTER --resource-group GROUP --attach-acr REGISTRY"
    return Diagnosis(verdict, f"{fix}.", rows)


def _waiting_image(obj: Object) -> str:
    """Return the image that a pod's container waits for."""
    for entry in pod_facts.containers(obj["status"]):
        waiting = (entry.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in pod_facts.UNPULLABLE and entry.get("image"):
            return str(entry["image"])
    return str(obj["spec"]["containers"][0]["image"])


def _unstartable(reader: ClusterReader, obj: Object, message: str, rows: Rows) -> Diagnosis:
    """Explain a pod whose container cannot be created or started."""
    verdict = f"The container cannot be started: {message}"
    known = from_log(message)
    if known is None:
        return Diagnosis(verdict, _CONFIG_FIX, rows)
    return _known_failure(reader, obj, verdict, known, rows)


# Pods that failed


def _failed(reader: ClusterReader, word: str, message: str, rows: Rows) -> Diagnosis:
    """Explain a failed pod of which no container failed."""
    verdict = f"The pod failed: {word}: {message}" if message else f"The pod failed: {word}."
    fix = _FAILED_POD_FIXES.get(word, "")
    known = from_log(message)
    if known is None:
        return Diagnosis(verdict, fix or "Run it again.", rows)
    error = known.error(verdict, has_azure=reader.has_azure)
    return Diagnosis(verdict, fix or known.fix_for(reader.has_azure), rows, error)


def _crashed(reader: ClusterReader, obj: Object, failure: Mapping[str, Any], rows: Rows) -> Diagnosis:
    """Explain a pod whose program failed.

    Args:
        reader: reads the cluster.
        obj: the Pod object.
        failure: the ``terminated`` state of the container that failed, with the container's name.
        rows: the evidence that is known already.
    """
    # While the next run goes on, the log of the failed run is the previous one.
    previous = pod_facts.state(obj).word == "Running"
    tail = reader.tail(obj, failure["container"], previous=previous)
    if tail:
        rows = (*rows, ("log", tail))
    again = f", and was started again {_restart_count(obj)}" if pod_facts.restarts(obj) else ""
    reason = failure.get("reason")
    if reason == "OOMKilled":
        return Diagnosis(f"The container used more memory than its limit (OOMKilled){again}.", _MEMORY_FIX, rows)
    if reason in _START_ERRORS:
        return Diagnosis(f"The program cannot be started{again}: {failure.get('message')}", _COMMAND_FIX, rows)
    runner = explain_runner(obj, failure)
    if runner is not None and runner[1]:
        verdict = f"The program ended with exit code {failure.get('exitCode')}{again}: {runner[0]}"
        return Diagnosis(verdict, runner[1], rows)
    known = from_log(tail)
    if known is not None:
        verdict = f"The program ended with exit code {failure.get('exitCode')}{again}: {known.verdict}."
        return _known_failure(reader, obj, verdict, known, rows)
    init = "" if _is_main_container(obj, failure["container"]) else "init container's "
    verdict = f"The {init}program ended with exit code {failure.get('exitCode')}{again}"
    if runner is not None:
        return Diagnosis(f"{verdict}: {runner[0]}", "Correct the function, then submit it again.", rows)
    if not tail:
        return Diagnosis(f"{verdict}.", f"Correct the program, {RUN_AGAIN}", rows)
    fix = f"Read the end of its log in the evidence, correct the program, {RUN_AGAIN}"
    return Diagnosis(f"{verdict}: {tail.splitlines()[-1].strip()}", fix, rows)


def _is_main_container(obj: Object, name: str) -> bool:
    """Whether a container is not an init container."""
    return any(container["name"] == name for container in obj["spec"]["containers"])


def _known_failure(reader: ClusterReader, obj: Object, verdict: str, known: Failure, rows: Rows) -> Diagnosis:
    """Explain a failure whose text is known. The node's image is evidence: driver and libraries come with it."""
    node_name = obj["spec"].get("nodeName")
    node = reader.node(node_name) if node_name else None
    labels = ((node or {}).get("metadata") or {}).get("labels") or {}
    image = labels.get("kubernetes.azure.com/node-image-version")
    if image:
        rows = (*rows, ("node image", image))
    error = known.error(verdict, has_azure=reader.has_azure)
    return Diagnosis(verdict, known.fix_for(reader.has_azure), rows, error)


def _restart_count(obj: Object) -> str:
    """Return how often a pod's containers were started again, such as ``3 times``."""
    count = pod_facts.restarts(obj)
    return "once" if count == 1 else f"{count} times"
