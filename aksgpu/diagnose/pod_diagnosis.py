"""Explain why a pod does not run, or why it failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from aksgpu.common import times
from aksgpu.diagnose import gpu_failures, program_log
from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.cures import EDIT_JOB_SHELL, RUN_AGAIN, Cure, edit_job
from aksgpu.diagnose.diagnosis import Diagnosis, Rows
from aksgpu.diagnose.events import Event, event_rows, events_about
from aksgpu.diagnose.exit_codes import SIGNALS, meaning_of
from aksgpu.diagnose.failure_text import Failure, Weight
from aksgpu.diagnose.kueue_workloads import explain_queued
from aksgpu.diagnose.node_problems import problems_of
from aksgpu.diagnose.pod_probes import PROBE, PROBE_CURE, failed_probe
from aksgpu.diagnose.pod_scheduling import explain_unscheduled
from aksgpu.diagnose.runner_exits import MEMORY_LIMIT, explain_runner
from aksgpu.diagnose.start_texts import PULL_WAIT
from aksgpu.kube import pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.kube.label_names import QUEUE_NAME
from aksgpu.kube.node_facts import read

__all__ = ["RUN_AGAIN", "diagnose_pod", "explain_failure", "explain_pod", "pod"]


class _Disruption(NamedTuple):
    """Why the cluster ended a pod."""

    cause: str
    cure: Cure


_SHOW_NODES = "from aksgpu import capacity\ncapacity.nodes(aks)"
_KEEP_NODE = edit_job(
    'annotations = manifest["spec"]["template"].setdefault("metadata", {}).setdefault("annotations", {})',
    'annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] = "false"',
    'annotations["karpenter.sh/do-not-disrupt"] = "true"',
)

_DISRUPTIONS = {
    "PreemptionByScheduler": _Disruption(
        "the scheduler gave its place to a pod of higher priority",
        Cure(
            "Wait for a free GPU: capacity.gpus(aks); or give the Job's pods a higher priorityClassName.",
            edit_job('pod["priorityClassName"] = "PRIORITY-CLASS"'),
            "kubectl get priorityclasses",
        ),
    ),
    "DeletionByTaintManager": _Disruption(
        "its node got a taint that it does not tolerate",
        Cure(
            "capacity.nodes(aks) shows the nodes; the Job controller starts another pod elsewhere.",
            _SHOW_NODES,
            "kubectl get nodes",
        ),
    ),
    "EvictionByEvictionAPI": _Disruption(
        "it was evicted, as the autoscaler, node auto-provisioning and kubectl drain do",
        Cure(
            'Set the annotations cluster-autoscaler.kubernetes.io/safe-to-evict: "false" and '
            "karpenter.sh/do-not-disrupt: "
            '"true" in spec.template.metadata, so that the autoscalers leave its node alone.',
            _KEEP_NODE,
            EDIT_JOB_SHELL,
        ),
    ),
    "DeletionByPodGC": _Disruption(
        "its node is gone",
        Cure(
            "capacity.nodes(aks) shows the nodes; the Job controller starts another pod elsewhere.",
            _SHOW_NODES,
            "kubectl get nodes",
        ),
    ),
    "TerminationByKubelet": _Disruption(
        "its node ended it, for lack of memory or disk or because the node shuts down",
        Cure(
            "Ask for the memory and disk that it uses (resources.requests): capacity.nodes(aks) shows the nodes.",
            edit_job(
                'pod["containers"][0].setdefault("resources", {}).setdefault("requests", {}).update({"memory": "32Gi", '
                '"ephemeral-storage": "100Gi"})',
            ),
            EDIT_JOB_SHELL,
        ),
    ),
}
"""Reasons of the condition DisruptionTarget."""

_UNSTARTABLE = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
"""States of a pod whose container cannot be created or started."""
_START_ERRORS = ("StartError", "ContainerCannotRun", "ContainerStatusUnknown")
"""Reasons of a container that ended because its program could not be started."""
_LONG_START = timedelta(minutes=30)
"""Time after which a pod that is not started yet needs somebody to look at it."""
_SHOWN_LOG = 20
"""Lines of a log that are evidence."""

_CONFIG = Cure(
    "Create what the message names (a ConfigMap, a Secret, a key in one), or correct the manifest.",
    "",
    "kubectl describe pod POD --namespace NAMESPACE",
)
_NOT_STARTED = Cure(
    "The text is not a known one. Read the message: it comes from the node's container runtime. "
    "diagnose.node(aks, 'NODE') shows whether the node is healthy.",
    'from aksgpu import diagnose\ndiagnose.node(aks, "NODE")',
    "kubectl describe pod POD --namespace NAMESPACE\nkubectl describe node NODE",
)
_MEMORY = Cure(
    f"Raise resources.limits.memory, or have the program use less; {RUN_AGAIN}",
    edit_job('pod["containers"][0].setdefault("resources", {}).setdefault("limits", {})["memory"] = "32Gi"'),
    EDIT_JOB_SHELL,
)
_COMMAND = Cure(
    f"Correct command and args: the program must be in the image; {RUN_AGAIN}",
    edit_job('pod["containers"][0]["command"] = ["python", "train.py"]'),
    EDIT_JOB_SHELL,
)
_NODE = Cure(
    "capacity.nodes(aks) shows the nodes; Kubernetes starts the pod elsewhere after five minutes. diagnose.node(aks, "
    "'NODE') shows what the node lacks.",
    'from aksgpu import diagnose\ndiagnose.node(aks, "NODE")',
    "kubectl describe node NODE",
)
_PULL = Cure(
    "The message is not a known one. Check the image's name and tag. A private registry needs "
    "its pull secret, or az aks update --name CLUSTER --resource-group GROUP --attach-acr REGISTRY.",
    edit_job('pod["containers"][0]["image"] = "REGISTRY/NAME:TAG"'),
    "docker manifest inspect IMAGE",
    "The message is not a known one. Check the image's name and tag. A private registry needs its pull secret.",
)
_RUN_AGAIN = Cure(
    "Run it again.",
    'from aksgpu import jobs\njobs.apply(aks, jobs.get(aks, "JOB", namespace="NAMESPACE").manifest(), replace=True)',
    EDIT_JOB_SHELL,
)
_READ_LOG = Cure(
    f"Read the end of its log in the evidence, correct the program, {RUN_AGAIN}",
    'from aksgpu import logs\nprint(logs.read(aks, "POD", namespace="NAMESPACE", tail_lines=200))',
    "kubectl logs POD --namespace NAMESPACE --all-containers --tail=200",
)
_NO_LOG = Cure(
    f"Its log is empty or could not be read: the program printed nothing before it ended. Have it print what it does, "
    f"{RUN_AGAIN}",
    edit_job('pod["containers"][0].setdefault("env", []).append({"name": "PYTHONUNBUFFERED", "value": "1"})'),
    "kubectl logs POD --namespace NAMESPACE --all-containers",
)
_FAILED_POD_CURES = {
    "Evicted": Cure(
        "Ask for the memory or disk that it uses (resources.requests), so that it is not evicted first.",
        edit_job(
            'pod["containers"][0].setdefault("resources", {}).setdefault("requests", {}).update({"memory": "32Gi", '
            '"ephemeral-storage": "100Gi"})',
        ),
        EDIT_JOB_SHELL,
    ),
    "UnexpectedAdmissionError": Cure(
        "The node could not give the pod what it had advertised: plugin.status(aks) and diagnose.node(aks, 'NODE') "
        "show its GPUs. Run it again.",
        'from aksgpu import diagnose\ndiagnose.node(aks, "NODE")',
        "kubectl describe node NODE",
    ),
    "DeadlineExceeded": Cure(
        f"Raise spec.template.spec.activeDeadlineSeconds, or have the program do less; {RUN_AGAIN}",
        edit_job('pod.pop("activeDeadlineSeconds", None)'),
        EDIT_JOB_SHELL,
    ),
}
"""What to do about a failed pod, by its reason, if its message is not known."""


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
        NotFound: the pod does not exist.

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
    reader.know_pod(obj)
    if pod_facts.disruption(obj):
        return reader.finish(_disrupted(reader, obj, _pod_rows(obj, events_about(reader, obj))))
    failure = pod_facts.last_failure(obj)
    if failure and not pod_facts.ended_by_deletion(obj, failure):
        events = events_about(reader, obj)
        return reader.finish(_crashed(reader, obj, failure, _pod_rows(obj, events), events))
    if (obj.get("status") or {}).get("phase") == "Failed":
        return reader.finish(diagnose_pod(reader, obj))
    return None


def diagnose_pod(reader: ClusterReader, obj: Object) -> Diagnosis:
    """Explain the state of a Pod object, as part of a larger diagnosis.

    Args:
        reader: reads the cluster and collects what could not be read.
        obj: the Pod object.
    """
    reader.know_pod(obj)
    word, message = pod_facts.state(obj)
    events = events_about(reader, obj)
    rows = _pod_rows(obj, events)
    phase = (obj.get("status") or {}).get("phase")
    if phase == "Succeeded":
        return _succeeded(reader, obj, rows)
    if pod_facts.disruption(obj):
        return _disrupted(reader, obj, rows)
    if word in pod_facts.UNPULLABLE:
        return _unpullable(reader, obj, message, rows)
    if word in _UNSTARTABLE:
        return _unstartable(reader, obj, message, rows)
    failure = pod_facts.last_failure(obj)
    if failure and word not in ("Running", "Completed") and not pod_facts.ended_by_deletion(obj, failure):
        return _crashed(reader, obj, failure, rows, events)
    if phase == "Failed":
        return _failed(reader, obj, rows)
    if not obj["spec"].get("nodeName") and word != "Terminating":
        return _unscheduled(reader, obj, rows, events)
    return _on_a_node(reader, obj, word, rows, events)


def _unscheduled(reader: ClusterReader, obj: Object, rows: Rows, events: list[Event]) -> Diagnosis:
    """Explain a pod without a node: a queue may hold it."""
    gated = obj["spec"].get("schedulingGates")
    if gated or (obj["metadata"].get("labels") or {}).get(QUEUE_NAME):
        queued = explain_queued(reader, obj, rows)
        if queued is not None:
            return queued
    return explain_unscheduled(reader, obj, rows, events)


def _pod_rows(obj: Object, events: list[Event]) -> Rows:
    """Return the pod's state and its events as evidence."""
    word, message = pod_facts.state(obj)
    state = (f"pod {obj['metadata']['name']}", f"{word}: {message}" if message else word)
    return (state, *event_rows(events))


# Pods whose program has not failed


def _succeeded(reader: ClusterReader, obj: Object, rows: Rows) -> Diagnosis:
    """Explain a pod that has succeeded. It may not have used the GPU that it held."""
    found = program_log.fallback(reader, obj)
    if found is None:
        return Diagnosis("The pod has succeeded: nothing is wrong.", "", rows)
    failure, line = found
    verdict = f"The pod has succeeded, but {failure.verdict}."
    return reader.known_failure(verdict, failure, (*rows, ("log", line)))


def _on_a_node(reader: ClusterReader, obj: Object, word: str, rows: Rows, events: list[Event]) -> Diagnosis:
    node_name = obj["spec"].get("nodeName")
    problem = _node_problem(reader, node_name) if node_name else ""
    if problem:
        return reader.diagnosis(f"The pod's node {problem}.", _NODE, rows, cause="the node is lost")
    if word == "Terminating":
        return _terminating(reader, obj, rows)
    if (obj.get("status") or {}).get("phase") == "Running":
        return _running(reader, obj, rows, events)
    return _starting(reader, obj, rows, events)


def _node_problem(reader: ClusterReader, name: str) -> str:
    """Return what is wrong with a node; empty if nothing is, or if the node could not be read."""
    node = reader.node(name)
    if node is None:
        return ""
    if not node:
        return f"{name} is gone"
    reader.know(POOL=read(node).pool)
    return "" if read(node).ready else f"{name} is not ready"


def _starting(reader: ClusterReader, obj: Object, rows: Rows, events: list[Event]) -> Diagnosis:
    """Explain a pod that has a node and no running container yet."""
    # What failed before the image was pulled has succeeded since.
    pulled = max((number for number, event in enumerate(events) if event.reason == "Pulled"), default=-1)
    events = events[pulled + 1 :]
    for event in reversed(events):
        failure = gpu_failures.from_event(event.reason, event.message) if event.warning else None
        if failure is not None:
            waits = (
                "waits for a volume" if event.reason in ("FailedMount", "FailedAttachVolume") else "cannot be started"
            )
            verdict = f"The pod {waits}: {failure.verdict} ({event.message})"
            if waits == "waits for a volume":
                verdict = f"The pod waits for a volume: {event.message}"
            return _known_failure(reader, obj, verdict, failure, rows)
    unknown = [event for event in events if event.warning and event.reason.startswith("Failed")]
    if unknown:
        event = unknown[-1]
        if event.reason in ("FailedMount", "FailedAttachVolume"):
            return reader.diagnosis(f"The pod waits for a volume: {event.message}", _MOUNT, rows, cause="a volume")
        verdict = f"The pod cannot be started ({event.reason}): {event.message}"
        return reader.diagnosis(verdict, _NOT_STARTED, rows)
    return _being_started(reader, obj, rows, events)


_MOUNT = Cure(
    "Create what the message names (a Secret, a ConfigMap, a claim), or correct the manifest's volumes.",
    'aks.kube.list("PersistentVolumeClaim", "NAMESPACE")',
    "kubectl describe pod POD --namespace NAMESPACE\nkubectl get pvc --namespace NAMESPACE",
)


def _being_started(reader: ClusterReader, obj: Object, rows: Rows, events: list[Event]) -> Diagnosis:
    """Explain a pod whose image is pulled or whose volumes are mounted. After a while, waiting does not help."""
    node_name = obj["spec"]["nodeName"]
    pulling = [event for event in events if event.reason == "Pulling"]
    what = f"{pulling[-1].message}" if pulling else "its image is pulled, or its volumes are mounted"
    since = _scheduled_at(obj)
    age = None if since is None else datetime.now(UTC) - since
    if age is not None and age > _LONG_START:
        minutes = int(age.total_seconds() // 60)
        verdict = f"The pod has been starting on {node_name} for {minutes} minutes: {what}."
        return reader.diagnosis(verdict, _LOOK, rows, cause="a start that takes too long")
    verdict = f"The pod is being started on {node_name}: {what}."
    return reader.diagnosis(verdict, PULL_WAIT, rows, cause="the pod is being started")


_LOOK = Cure(
    "It takes longer than any image should. Look at the node and the pod's events; with a very large image use "
    "artifact streaming, a smaller image, or a larger OS disk, whose speed grows with its size.",
    'from aksgpu import diagnose\ndiagnose.node(aks, "NODE")',
    "kubectl describe pod POD --namespace NAMESPACE\nkubectl describe node NODE",
)


def _scheduled_at(obj: Object) -> datetime | None:
    """Return when the pod got its node; None if that is not known."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "True":
            return times.parse(condition.get("lastTransitionTime"))
    return None


def _running(reader: ClusterReader, obj: Object, rows: Rows, events: list[Event]) -> Diagnosis:
    """Explain a running pod: its node's GPUs may be sick, or its program may use the CPU only."""
    probe = failed_probe(events) if pod_facts.restarts(obj) else None
    if probe is not None:
        verdict = f"The pod is running, but was started again {_restart_count(obj)}: {probe.text}."
        return reader.diagnosis(verdict, PROBE_CURE, rows, cause=PROBE)
    sick = _sick_node(reader, obj)
    if sick is not None:
        failure, text = sick
        verdict = f"The pod is running, but {failure.verdict}."
        return reader.known_failure(verdict, failure, (*rows, (f"node {obj['spec']['nodeName']}", text)))
    found = program_log.fallback(reader, obj)
    if found is not None:
        failure, line = found
        return reader.known_failure(f"The pod is running, but {failure.verdict}.", failure, (*rows, ("log", line)))
    verdict = "The pod is running: nothing is wrong."
    if reader.unknown:
        verdict = "The pod is running: nothing is known to be wrong, but not all of it could be read."
    if pod_facts.restarts(obj):
        verdict += f" It was started again {_restart_count(obj)}."
    return Diagnosis(verdict, "", rows)


def _sick_node(reader: ClusterReader, obj: Object) -> tuple[Failure, str] | None:
    """Return what the node of a pod with GPUs reports about them, and its text; None if it reports nothing."""
    if not pod_facts.gpus(obj["spec"]) or not obj["spec"].get("nodeName"):
        return None
    node = reader.node(obj["spec"]["nodeName"])
    for problem in problems_of(node or {}):
        if problem.about_gpus:
            return problem.failure, f"{problem.condition}: {problem.text}"
    return None


def _terminating(reader: ClusterReader, obj: Object, rows: Rows) -> Diagnosis:
    """Explain a pod that a person or a controller is deleting."""
    metadata = obj["metadata"]
    grace = metadata.get("deletionGracePeriodSeconds")
    if grace is None:
        grace = obj["spec"].get("terminationGracePeriodSeconds", 30)
    return reader.diagnosis(
        f"The pod is being deleted: its program was asked to end, and is killed after {metadata['deletionTimestamp']}.",
        Cure(f"Wait until it has ended, {grace} s at most; a program that handles SIGTERM ends sooner."),
        rows,
    )


# Pods that the cluster ended, or that cannot start


def _disrupted(reader: ClusterReader, obj: Object, rows: Rows) -> Diagnosis:
    """Explain a pod that the cluster ended. Its program did not fail."""
    condition = pod_facts.disruption(obj) or {}
    reason = condition.get("reason") or ""
    message = condition.get("message") or ""
    other = _Disruption(f"the cluster ended it ({reason})", _RUN_AGAIN)
    disruption = _DISRUPTIONS.get(reason, other)
    state = "was ended" if pod_facts.ended(obj) else "is being deleted"
    verdict = f"The pod {state}: {disruption.cause}"
    if message:
        verdict += f" ({message})"
    status = obj.get("status") or {}
    known = gpu_failures.from_pod(str(status.get("reason") or ""), str(status.get("message") or message))
    if known is not None:
        return _known_failure(reader, obj, f"{verdict}: {known.verdict}.", known, rows)
    return reader.diagnosis(f"{verdict}.", disruption.cure, rows, cause=reason)


def _unpullable(reader: ClusterReader, obj: Object, message: str, rows: Rows) -> Diagnosis:
    """Explain a pod whose image cannot be pulled."""
    cause = re.sub(r'^Back-off pulling image "[^"]*": (?:ErrImagePull: )?', "", message)
    if not cause or cause.startswith("Back-off pulling image"):
        # Older versions of Kubernetes have the reason in the events alone.
        texts = [text for what, text in rows if what == "event Failed" and "Error: " not in text]
        cause = texts[-1] if texts else cause
    verdict = f"The image {_waiting_image(obj)} cannot be pulled: {cause}"
    # A cluster that provides images in its own way says with this event what to do.
    advice = [text for what, text in rows if what == "event ImageUnavailable"]
    if advice:
        return Diagnosis(verdict, advice[-1], rows, cause="the image is not provided")
    registry = re.search(r"\b([a-z0-9]{5,50})\.azurecr\.", cause)
    reader.know(REGISTRY=registry[1] if registry else None)
    known = gpu_failures.from_container(cause, image=True) or gpu_failures.from_container(cause)
    if known is None:
        return reader.diagnosis(verdict, _PULL, rows)
    clause = f"{verdict.rstrip('.')}. {known.verdict[0].upper()}{known.verdict[1:]}."
    return reader.known_failure(clause, known, rows)


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
    known = gpu_failures.from_container(message)
    if known is not None:
        return _known_failure(reader, obj, f"{verdict.rstrip('.')}. {_sentence(known)}", known, rows)
    cure = _CONFIG if "not found" in message or "key" in message else _NOT_STARTED
    return reader.diagnosis(verdict, cure, rows)


def _sentence(failure: Failure) -> str:
    return f"{failure.verdict[0].upper()}{failure.verdict[1:]}."


# Pods that failed


def _failed(reader: ClusterReader, obj: Object, rows: Rows) -> Diagnosis:
    """Explain a failed pod of which no container failed."""
    word, message = pod_facts.state(obj)
    verdict = f"The pod failed: {word}: {message}" if message else f"The pod failed: {word}."
    known = gpu_failures.from_pod(word, message)
    if known is not None:
        return _known_failure(reader, obj, f"{verdict.rstrip('. ')}. {_sentence(known)}", known, rows)
    return reader.diagnosis(verdict, _FAILED_POD_CURES.get(word, _RUN_AGAIN), rows, cause=word)


def _crashed(reader: ClusterReader, obj: Object, failure: Object, rows: Rows, events: list[Event]) -> Diagnosis:
    """Explain a pod whose program failed.

    Args:
        reader: reads the cluster.
        obj: the Pod object.
        failure: the ``terminated`` state of the container that failed, with the container's name.
        rows: the evidence that is known already.
        events: the pod's events, newest last.
    """
    again = f", and was started again {_restart_count(obj)}" if pod_facts.restarts(obj) else ""
    reason = failure.get("reason")
    message = str(failure.get("message") or "")
    if reason in _START_ERRORS:
        verdict = f"The program cannot be started{again}: {message}"
        known = gpu_failures.from_container(message)
        if known is None:
            return reader.diagnosis(verdict, _COMMAND if "exec" in message or not message else _NOT_STARTED, rows)
        return _known_failure(reader, obj, f"{verdict.rstrip('.')}. {_sentence(known)}", known, rows)
    runner = explain_runner(obj, failure)
    if runner is not None and runner[1]:
        verdict = f"The program ended with exit code {failure.get('exitCode')}{again}: {runner[0]}"
        return Diagnosis(verdict, runner[1], rows)
    previous = pod_facts.has_run_since(obj, failure)
    log = program_log.read(reader, obj, failure["container"], previous=previous)
    rows = (*rows, *log.rows(_SHOWN_LOG))
    if reason == "OOMKilled":
        verdict = f"The container used more memory than its limit (OOMKilled){again}."
        return reader.diagnosis(verdict, _MEMORY, rows, cause=MEMORY_LIMIT)
    known = log.failure or gpu_failures.from_log(message)
    probe = failed_probe(events) if pod_facts.was_signalled(failure) else None
    if probe is not None and probe.container == failure["container"] and not _is_cause(known):
        verdict = f"The program was ended by the kubelet{again}: {probe.text}."
        return reader.diagnosis(verdict, PROBE_CURE, rows, cause=PROBE)
    init = "" if _is_main_container(obj, failure["container"]) else "init container's "
    ended = f"The {init}program ended with exit code {failure.get('exitCode')}{again}"
    if known is not None:
        how = known.verdict if runner is None else f"{runner[0].rstrip('.')} ({known.verdict})"
        return _known_failure(reader, obj, f"{ended}: {how}.", known, rows)
    if runner is not None:
        return _failed_call(reader, f"{ended}: {runner[0]}", failure, rows)
    return _unknown_crash(reader, ended, log, failure, rows)


def _is_cause(known: Failure | None) -> bool:
    """Whether a log shows a failure that explains how the program ended."""
    return known is not None and known.weight is Weight.CAUSE


def _failed_call(reader: ClusterReader, verdict: str, failure: Mapping[str, Any], rows: Rows) -> Diagnosis:
    """Explain an Executor's program whose log shows no known failure: by the signal that ended it, if one did."""
    code = meaning_of(failure.get("exitCode"), failure.get("signal"))
    if code is None or int(failure.get("exitCode") or 0) < SIGNALS:
        return Diagnosis(verdict, "Correct the program, then submit it again.", rows)
    return reader.diagnosis(f"{verdict}. The exit code says: {code.meaning}.", code.cure, rows, cause=code.name)


def _unknown_crash(
    reader: ClusterReader, ended: str, log: program_log.ProgramLog, failure: Mapping[str, Any], rows: Rows
) -> Diagnosis:
    """Explain a program whose log shows no known failure, by the first error of the log or by the exit code."""
    code = meaning_of(failure.get("exitCode"), failure.get("signal"))
    line = log.line or str(failure.get("message") or "").strip().rpartition("\n")[2]
    if code is not None and not log.has_error:
        verdict = f"{ended}: {code.meaning}."
        if line:
            verdict = f"{ended}: {line}. The exit code says: {code.meaning}."
        return reader.diagnosis(verdict, code.cure, rows, cause=code.name)
    if not line:
        return reader.diagnosis(f"{ended}.", _NO_LOG, rows)
    return reader.diagnosis(f"{ended}: {line}", _READ_LOG, rows)


def _is_main_container(obj: Object, name: str) -> bool:
    """Whether a container is not an init container."""
    return any(container["name"] == name for container in obj["spec"]["containers"])


def _known_failure(reader: ClusterReader, obj: Object, verdict: str, known: Failure, rows: Rows) -> Diagnosis:
    """Explain a failure whose text is known. The node's image is evidence: driver and libraries come with it."""
    node_name = obj["spec"].get("nodeName")
    node = reader.node(node_name) if node_name else None
    labels = ((node or {}).get("metadata") or {}).get("labels") or {}
    reader.know(POOL=labels.get("kubernetes.azure.com/agentpool") or labels.get("agentpool"))
    image = labels.get("kubernetes.azure.com/node-image-version")
    if image:
        rows = (*rows, ("node image", image))
    return reader.known_failure(verdict, known, rows, nodes=(node_name,) if node_name else ())


def _restart_count(obj: Object) -> str:
    """Return how often a pod's containers were started again, such as ``3 times``."""
    count = pod_facts.restarts(obj)
    return "once" if count == 1 else f"{count} times"
