"""What a ProvisioningRequest, with which a pod reserves nodes before it starts, reports."""

from __future__ import annotations

from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.cures import Cure
from aksgpu.diagnose.diagnosis import Diagnosis, Rows
from aksgpu.errors import NoScaleUp, PodPending
from aksgpu.kube.client import Object

__all__ = ["explain", "explain_request"]

_GROUP = "autoscaling.x-k8s.io"
_ANNOTATIONS = (
    "autoscaling.x-k8s.io/consume-provisioning-request",
    "cluster-autoscaler.kubernetes.io/consume-provisioning-request",
)
"""Annotations with which a pod names its ProvisioningRequest."""
_SHOW = "kubectl describe provisioningrequests.autoscaling.x-k8s.io --namespace NAMESPACE"
_ENDED = Cure(
    "The reservation has ended. Make a new ProvisioningRequest, or run the Job again: a queue such as Kueue makes a "
    "new one.",
    'from aksgpu import jobs\njobs.apply(aks, jobs.get(aks, "JOB", namespace="NAMESPACE").manifest(), replace=True)',
    _SHOW,
)
_FAILED = Cure(
    "No nodes can be added for it, for lack of quota or capacity: check the size with sizes.preflight(aks.azure, "
    "aks.location, 'Standard_NC4as_T4_v3'), and the pool's maximum size: cluster.list_pools(aks).",
    "from aksgpu import cluster\ncluster.list_pools(aks)",
    _SHOW,
    "No nodes can be added for it, for lack of quota or capacity, or because the autoscaler's limit is reached.",
)
_WAIT = Cure(
    "Wait: the autoscaler tries to add all nodes of the request together. The request's conditions show its progress.",
    'aks.kube.request("GET", "/apis/autoscaling.x-k8s.io/v1/namespaces/NAMESPACE/provisioningrequests")',
    _SHOW,
)
_MISSING = Cure(
    "Create the ProvisioningRequest that the pod's annotation names, or remove the annotation.",
    'aks.kube.request("GET", "/apis/autoscaling.x-k8s.io/v1/namespaces/NAMESPACE/provisioningrequests")',
    _SHOW,
)


def explain(reader: ClusterReader, pod: Object, rows: Rows) -> Diagnosis | None:
    """Explain a pod without a node that names a ProvisioningRequest; None if it names none or has its nodes.

    Args:
        reader: reads the cluster.
        pod: the Pod object.
        rows: the evidence that is known already.
    """
    annotations = pod["metadata"].get("annotations") or {}
    name = next((annotations[key] for key in _ANNOTATIONS if annotations.get(key)), "")
    if not name:
        return None
    found = reader.custom(_GROUP, "provisioningrequests", pod["metadata"]["namespace"])
    if found is None:
        return None
    request = next((each for each in found if each["metadata"]["name"] == name), None)
    if request is None:
        verdict = f"The pod is not scheduled: it waits for ProvisioningRequest {name}, which does not exist."
        return reader.diagnosis(verdict, _MISSING, rows, error=PodPending, cause="no such ProvisioningRequest")
    return explain_request(reader, request, rows)


def explain_request(reader: ClusterReader, request: Object, rows: Rows) -> Diagnosis | None:
    """Explain a ProvisioningRequest; None if its nodes are there.

    Args:
        reader: reads the cluster.
        request: the ProvisioningRequest object.
        rows: the evidence that is known already.
    """
    name = request["metadata"]["name"]
    conditions = {condition["type"]: condition for condition in (request.get("status") or {}).get("conditions") or ()}
    texts = [f"{kind}={each.get('status')}: {each.get('message') or ''}" for kind, each in conditions.items()]
    rows = (*rows, (f"ProvisioningRequest {name}", "; ".join(texts) or "has no conditions yet"))
    true = {kind: each for kind, each in conditions.items() if each.get("status") == "True"}
    for kind, text in (("BookingExpired", "has expired"), ("CapacityRevoked", "has lost its nodes")):
        if kind in true:
            verdict = (
                f"The pod is not scheduled: its ProvisioningRequest {name} {text}: {true[kind].get('message') or ''}"
            )
            return reader.diagnosis(
                verdict.rstrip(": "), _ENDED, rows, error=NoScaleUp, cause="a reservation that ended"
            )
    if "Failed" in true:
        verdict = (
            f"The pod is not scheduled: its ProvisioningRequest {name} failed: {true['Failed'].get('message') or ''}"
        )
        return reader.diagnosis(verdict.rstrip(": "), _FAILED, rows, error=NoScaleUp, cause="a reservation that failed")
    if "Provisioned" in true:
        return None
    message = (conditions.get("Provisioned") or conditions.get("Accepted") or {}).get("message") or "no state is given"
    verdict = f"The pod is not scheduled: its ProvisioningRequest {name} has no nodes yet: {message}"
    return reader.diagnosis(verdict, _WAIT, rows, error=PodPending, cause="a reservation without nodes")
