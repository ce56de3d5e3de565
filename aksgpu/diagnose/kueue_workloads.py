"""Why Kueue keeps a Job in its queue: the conditions of its Workload."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from aksgpu.diagnose import provisioning_requests
from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.cures import EDIT_JOB_SHELL, Cure, edit_job
from aksgpu.diagnose.diagnosis import Diagnosis, Rows
from aksgpu.errors import PodPending
from aksgpu.kube.client import Object
from aksgpu.kube.label_names import QUEUE_NAME

__all__ = ["KUEUE_TEXTS", "KueueText", "explain_queued"]

_JOB_UID = "kueue.x-k8s.io/job-uid"
_GROUP = "kueue.x-k8s.io"
_SOURCE = "https://kueue.sigs.k8s.io/docs/tasks/troubleshooting/troubleshooting_jobs/"
_SHOW = (
    "kubectl describe workloads.kueue.x-k8s.io --namespace NAMESPACE\n"
    "kubectl get localqueues,clusterqueues --all-namespaces"
)
_SHOW_PYTHON = 'aks.kube.request("GET", "/apis/kueue.x-k8s.io")'


class KueueText(NamedTuple):
    """A message of a Workload's conditions.

    Attributes:
        name: a few words.
        pattern: regular expression that the message contains.
        meaning: what it means, as a clause.
        cure: what helps.
        example: a text that has this meaning.
        near_miss: a similar text that has not.
        source: where the text is documented or reported.
    """

    name: str
    pattern: str
    meaning: str
    cure: Cure
    example: str
    near_miss: str
    source: str = _SOURCE


KUEUE_TEXTS = (
    KueueText(
        "a queue that does not exist",
        r"(?:LocalQueue|ClusterQueue)[^\n]{0,120}(?:doesn't exist|does not exist|not found)",
        "its queue does not exist",
        Cure(
            f"Set the label {QUEUE_NAME} to a LocalQueue of the Job's namespace: kubectl get localqueues --namespace "
            "NAMESPACE.",
            edit_job(f'manifest["metadata"].setdefault("labels", {{}})["{QUEUE_NAME}"] = "QUEUE"'),
            "kubectl get localqueues --namespace NAMESPACE",
        ),
        "LocalQueue team-queue doesn't exist",
        "LocalQueue team-queue is active",
    ),
    KueueText(
        "a queue that is stopped",
        r"(?:ClusterQueue|LocalQueue)[^\n]{0,120}(?:inactive|is stopped)|StopPolicy",
        "its queue is stopped or not complete",
        Cure(
            "Look at the ClusterQueue's conditions: a ResourceFlavor or an admission check is missing, or its "
            "stopPolicy holds it.",
            _SHOW_PYTHON,
            "kubectl describe clusterqueues.kueue.x-k8s.io",
        ),
        "ClusterQueue team is inactive",
        "ClusterQueue team is active",
    ),
    KueueText(
        "more than the queue ever has",
        r"maximum capacity|insufficient quota for [^\n]{1,160}(?:\(\d{1,9}\)|maximum)"
        r"|borrowing limit for [^\n]{1,120} exceeded|"
        r"exceeds (?:the )?(?:nominal|maximum) (?:quota|capacity)",
        "it asks for more than its queue may ever have",
        Cure(
            "Waiting does not help: ask for less, use another queue, or have nominalQuota or borrowingLimit of the "
            "ClusterQueue raised.",
            edit_job('pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "1"'),
            "kubectl describe clusterqueues.kueue.x-k8s.io\n" + EDIT_JOB_SHELL,
        ),
        "couldn't assign flavors to pod set main: insufficient quota for cpu in flavor default, previously considered "
        "podsets requests (0) + current podset request (100) > maximum capacity (10)",
        "insufficient unused quota for nvidia.com/gpu in flavor a10, 1 more needed",
    ),
    KueueText(
        "the queue's quota is in use",
        r"insufficient unused quota|waiting for quota|lower than the requested|QuotaReservationPending"
        r"|no quota available",
        "the quota of its queue is in use by other Jobs",
        Cure(
            "Wait until a Job of the queue ends, or give this one a higher priority: kubectl get "
            "workloads.kueue.x-k8s.io --all-namespaces shows which Jobs hold the quota.",
            "from aksgpu import jobs\njobs.list(aks, all_namespaces=True)",
            "kubectl get workloads.kueue.x-k8s.io --all-namespaces",
        ),
        "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor a10, 1 more "
        "needed",
        "quota reserved in ClusterQueue team",
    ),
    KueueText(
        "a resource that the queue does not cover",
        r"resource [\w./-]{1,120} unavailable in ClusterQueue",
        "its queue has no quota at all for a resource that it asks for",
        Cure(
            "Waiting does not help: use a queue whose ClusterQueue covers the resource (spec.resourceGroups), or have "
            "it added.",
            edit_job(f'manifest["metadata"].setdefault("labels", {{}})["{QUEUE_NAME}"] = "QUEUE-WITH-GPUS"'),
            "kubectl describe clusterqueues.kueue.x-k8s.io",
        ),
        "couldn't assign flavors to pod set main: resource nvidia.com/gpu unavailable in ClusterQueue",
        "resource nvidia.com/gpu available in ClusterQueue",
    ),
    KueueText(
        "a flavor that the pod does not fit",
        r"untolerated taint \{|doesn't match node affinity|flavor [\w.-]{1,253} (?:not found|doesn't match)",
        "its pods do not fit the nodes of the queue's flavor",
        Cure(
            "Add the tolerations or correct the nodeSelector that the flavor's nodes call for: jobs.apply(aks, "
            "manifest, replace=True) adds the tolerations of the GPU nodes.",
            'from aksgpu import jobs\njobs.apply(aks, jobs.get(aks, "JOB", namespace="NAMESPACE").manifest(), '
            "replace=True)",
            "kubectl describe resourceflavors.kueue.x-k8s.io",
        ),
        "couldn't assign flavors to pod set main: untolerated taint {spot true NoSchedule } in flavor spot",
        "assigned flavor spot",
    ),
    KueueText(
        "a namespace that the queue does not serve",
        r"namespace doesn't match ClusterQueue selector",
        "its queue does not serve the namespace",
        Cure(
            "Use a namespace that the ClusterQueue's namespaceSelector matches, or have the selector changed.",
            "from aksgpu import jobs\njobs.list(aks, all_namespaces=True)",
            "kubectl describe clusterqueues.kueue.x-k8s.io\nkubectl get namespaces --show-labels",
        ),
        "Workload namespace doesn't match ClusterQueue selector",
        "the namespace matches",
    ),
    KueueText(
        "topology that does not fit",
        r"topology [\"'][\w.-]{1,253}[\"'] (?:doesn't|does not) allow|cannot find a topology|topology domain",
        "its pods do not fit together into one part of the cluster's topology",
        Cure(
            "Ask for fewer pods together, or make the topology request a preferred one "
            "(kueue.x-k8s.io/podset-preferred-topology).",
            "from aksgpu import capacity\ncapacity.gpus(aks)",
            _SHOW,
        ),
        'topology "default" doesn\'t allow to fit any of 4 pod(s)',
        "topology default was read",
    ),
)
"""Messages of the condition QuotaReserved, more specific ones first."""

_UNKNOWN = Cure(
    "Look at the Workload's conditions and events: kubectl describe workloads.kueue.x-k8s.io --namespace NAMESPACE.",
    _SHOW_PYTHON,
    _SHOW,
)
_NO_KUEUE = Cure(
    f"The label {QUEUE_NAME} names a queue, and no Workload exists for the Job: make sure that Kueue is installed and "
    "runs. Without Kueue, remove the label and resume the Job.",
    'aks.kube.patch("Job", "JOB", {"spec": {"suspend": False}}, namespace="NAMESPACE")',
    "kubectl get pods --namespace kueue-system\nkubectl get workloads.kueue.x-k8s.io --namespace NAMESPACE",
)
_CHECKS = Cure(
    "Kueue waits for an admission check, such as a ProvisioningRequest that adds nodes: its message shows its "
    "progress.",
    _SHOW_PYTHON,
    "kubectl describe workloads.kueue.x-k8s.io --namespace NAMESPACE\n"
    "kubectl get provisioningrequests.autoscaling.x-k8s.io --namespace NAMESPACE",
)
_EVICTED = {
    "Preempted": Cure(
        "Kueue took its place for a Job of higher priority and starts it again when quota is free: wait, or give it a "
        "higher priority.",
        _SHOW_PYTHON,
        _SHOW,
    ),
    "PodsReadyTimeout": Cure(
        "Its pods did not become ready in time, so Kueue took it back. Look at what kept them from starting (image, "
        "volumes, nodes): the events of the namespace have it.",
        'aks.kube.list("Event", "NAMESPACE")',
        "kubectl get events --namespace NAMESPACE --sort-by=.lastTimestamp",
    ),
    "Deactivated": Cure(
        "The Workload is deactivated (spec.active: false), by a person or after too many attempts: set it to true to "
        "queue the Job again.",
        _SHOW_PYTHON,
        "kubectl patch workloads.kueue.x-k8s.io WORKLOAD --namespace NAMESPACE --type=merge -p "
        '\'{"spec":{"active":true}}\'',
    ),
}


def explain_queued(reader: ClusterReader, obj: Object, rows: Rows) -> Diagnosis | None:
    """Explain a Job or pod that waits in a queue of Kueue; None if it is in no queue or Kueue has admitted it.

    Args:
        reader: reads the cluster.
        obj: the Job or Pod object.
        rows: the evidence that is known already.
    """
    metadata = obj["metadata"]
    queue = (metadata.get("labels") or {}).get(QUEUE_NAME)
    workloads = _workloads(reader, obj)
    if workloads is None or (not queue and not workloads):
        return None
    what = f"Job {metadata['name']}" if obj["spec"].get("template") else f"Pod {metadata['name']}"
    if not workloads:
        verdict = f"{what} waits for the queue {queue!r}, and the cluster has no Workload of Kueue for it."
        return reader.diagnosis(verdict, _NO_KUEUE, rows, error=PodPending, cause="a queue without Kueue")
    workload = workloads[-1]
    reader.know(WORKLOAD=workload["metadata"]["name"])
    return _explain_workload(
        reader, workload, f"{what} waits in the queue {queue or _queue_of(workload)!r} of Kueue", rows
    )


def _workloads(reader: ClusterReader, obj: Object) -> list[Object] | None:
    """Return the Workloads of an object; None if they could not be read."""
    metadata = obj["metadata"]
    found = reader.custom(_GROUP, "workloads", metadata["namespace"])
    if found is None:
        return None
    uid = metadata["uid"]
    owned = []
    for workload in found:
        about = workload["metadata"]
        owners = [reference.get("uid") for reference in about.get("ownerReferences") or ()]
        if (about.get("labels") or {}).get(_JOB_UID) == uid or uid in owners:
            owned.append(workload)
    return owned


def _queue_of(workload: Object) -> str:
    return str((workload.get("spec") or {}).get("queueName") or "")


def _explain_workload(reader: ClusterReader, workload: Object, beginning: str, rows: Rows) -> Diagnosis | None:
    """Explain the conditions of a Workload; None if it is admitted."""
    conditions: dict[str, Mapping[str, Any]] = {
        condition["type"]: condition for condition in (workload.get("status") or {}).get("conditions") or ()
    }
    texts = [
        f"{kind}={each.get('status')} ({each.get('reason')}): {each.get('message') or ''}"
        for kind, each in conditions.items()
    ]
    rows = (*rows, (f"Workload {workload['metadata']['name']}", "; ".join(texts) or "has no conditions yet"))
    if _is_true(conditions, "Admitted") and not _is_true(conditions, "Evicted"):
        return None
    reserved = conditions.get("QuotaReserved") or {}
    message = str(reserved.get("message") or "")
    if (workload.get("spec") or {}).get("active") is False:
        return reader.diagnosis(
            f"{beginning}: its Workload is deactivated.",
            _EVICTED["Deactivated"],
            rows,
            error=PodPending,
            cause="deactivated",
        )
    for text in KUEUE_TEXTS:
        if reserved.get("status") != "True" and re.search(text.pattern, message):
            verdict = f"{beginning}: {text.meaning} ({message})."
            return reader.diagnosis(verdict, text.cure, rows, error=PodPending, cause=text.name)
    if _is_true(conditions, "Evicted"):
        reason = str(conditions["Evicted"].get("reason") or "")
        verdict = f"{beginning}: Kueue took it back ({reason}: {conditions['Evicted'].get('message') or ''})."
        cure = next((cure for name, cure in _EVICTED.items() if name in reason), _UNKNOWN)
        return reader.diagnosis(verdict, cure, rows, error=PodPending, cause=f"evicted by Kueue: {reason}")
    if _is_true(conditions, "QuotaReserved"):
        return _explain_checks(reader, workload, beginning, rows)
    verdict = f"{beginning}: {message or 'Kueue has not looked at it yet, or does not run'}."
    return reader.diagnosis(verdict, _UNKNOWN, rows, error=PodPending, cause="another reason of Kueue")


def _is_true(conditions: Mapping[str, Mapping[str, Any]], kind: str) -> bool:
    return (conditions.get(kind) or {}).get("status") == "True"


def _explain_checks(reader: ClusterReader, workload: Object, beginning: str, rows: Rows) -> Diagnosis:
    """Explain a Workload that has its quota and waits for its admission checks."""
    checks = (workload.get("status") or {}).get("admissionChecks") or ()
    waiting = [check for check in checks if check.get("state") != "Ready"]
    texts = [
        f"{check.get('name')} is {check.get('state')}: {check.get('message') or ''}".rstrip(": ") for check in waiting
    ]
    name = workload["metadata"]["name"]
    requests = reader.custom("autoscaling.x-k8s.io", "provisioningrequests", workload["metadata"]["namespace"]) or []
    for request in requests:
        if any(owner.get("name") == name for owner in request["metadata"].get("ownerReferences") or ()):
            found = provisioning_requests.explain_request(reader, request, rows)
            if found is not None:
                return found
    state = "; ".join(texts) or "no state is given"
    verdict = f"{beginning}: it has its quota, and an admission check is not done ({state})."
    return reader.diagnosis(verdict, _CHECKS, rows, error=PodPending, cause="an admission check of Kueue")
