"""What node auto-provisioning (Karpenter) does for a pod: its NodePools and NodeClaims."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from aksgpu.common import times
from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.cures import Cure
from aksgpu.diagnose.diagnosis import Diagnosis, Rows
from aksgpu.diagnose.events import Event
from aksgpu.diagnose.scheduling_texts import AUTOSCALER_TEXTS
from aksgpu.errors import NoScaleUp, PodPending
from aksgpu.kube.client import Object

__all__ = ["claim_problem", "describe", "explain", "pool_problem"]

_GROUP = "karpenter.sh"
_NOMINATED = re.compile(r"nodeclaim/(?P<name>[a-z0-9.-]{1,253})")
_STEPS = ("Launched", "Registered", "Initialized")
"""The conditions of a NodeClaim, in the order in which they become true."""
_TIME = timedelta(minutes=20)
"""Time that a GPU node needs at most from its NodeClaim on."""
_NO_ROOM = re.compile(r"[Qq]uota|exceed|cores? limit|LowPriorityCores|OperationNotAllowed")
_NO_CAPACITY = re.compile(
    r"[Cc]apacity|AllocationFailed|Overconstrained|SkuNotAvailable|NotAvailableForSubscription|unavailable"
)
_GPU_WORDS = ("nvidia.com/gpu", "karpenter.azure.com/sku-gpu", "sku-family")

_QUOTA = Cure(
    "Azure refuses the machine for lack of quota. Ask for more quota, or allow other sizes in the NodePool's "
    "requirements: sizes.gpu_sizes(aks.azure, aks.location) shows where quota is left.",
    "from aksgpu import sizes\nsizes.gpu_sizes(aks.azure, aks.location)",
    "az vm list-usage --location LOCATION -o table\nkubectl describe nodeclaims.karpenter.sh",
    "Ask the cloud for more quota, or allow other sizes in the NodePool's requirements.",
)
_CAPACITY = Cure(
    "Azure has no capacity for the sizes that the NodePool allows. Allow more sizes, zones or on-demand machines in "
    "its requirements (karpenter.sh/capacity-type); node auto-provisioning tries others by itself.",
    'aks.kube.request("GET", "/apis/karpenter.sh/v1/nodepools")',
    "kubectl edit nodepools.karpenter.sh NODEPOOL\nkubectl describe nodeclaims.karpenter.sh",
)
_CLAIM = Cure(
    "Look at the NodeClaim: kubectl describe nodeclaims.karpenter.sh shows what its machine lacks. Deleting it makes "
    "node auto-provisioning try again.",
    'aks.kube.request("GET", "/apis/karpenter.sh/v1/nodeclaims")',
    "kubectl describe nodeclaims.karpenter.sh\nkubectl get events --all-namespaces --field-selector "
    "involvedObject.kind=NodeClaim",
)
_WAIT = Cure(
    "Wait: node auto-provisioning is adding a node, which takes some minutes.",
    "from aksgpu import capacity\ncapacity.wait_schedulable(aks)",
    "kubectl get nodeclaims.karpenter.sh --watch",
)


def explain(reader: ClusterReader, rows: Rows, events: list[Event], *, has_gpu_node: bool) -> Diagnosis | None:
    """Explain a pod for which node auto-provisioning adds a node, or cannot; None if the cluster does not use it.

    Args:
        reader: reads the cluster.
        rows: the evidence that is known already.
        events: the pod's events, newest last.
        has_gpu_node: whether the cluster has a node that the pod could use.
    """
    nominated = _nominated(events)
    refused = _refused(events)
    if not nominated and refused is None and has_gpu_node:
        return None
    claims = reader.custom(_GROUP, "nodeclaims")
    if not claims and not nominated and refused is None:
        return None
    rows = rows + tuple((f"NodeClaim {claim['metadata']['name']}", describe(claim)) for claim in claims or ())
    chosen = [claim for claim in claims or () if claim["metadata"]["name"] == nominated]
    if not chosen and refused is not None:
        return _explain_refusal(reader, refused, rows)
    if nominated and not chosen and claims is not None:
        verdict = f"The pod is not scheduled: node auto-provisioning made NodeClaim {nominated} for it, which is gone."
        return reader.diagnosis(verdict, _CLAIM, rows, error=NoScaleUp, cause="a NodeClaim that is gone")
    for claim in chosen or claims or ():
        found = claim_problem(claim)
        if found is not None:
            text, cure, name = found
            verdict = f"The pod is not scheduled: {text}"
            return reader.diagnosis(verdict, cure, rows, error=NoScaleUp, cause=name)
    if chosen:
        name = chosen[0]["metadata"]["name"]
        verdict = f"The pod is not scheduled yet: node auto-provisioning is adding a node for it (NodeClaim {name})."
        return reader.diagnosis(verdict, _WAIT, rows, error=PodPending, cause="a node is being added")
    return None


def _nominated(events: list[Event]) -> str:
    """Return the NodeClaim that the newest event names; empty if none does."""
    for event in reversed(events):
        match = _NOMINATED.search(event.message) if event.reason == "Nominated" else None
        if match is not None:
            return match["name"]
    return ""


def _refused(events: list[Event]) -> Event | None:
    """Return the newest event with which Karpenter refuses to add a node, unless it has added one since."""
    for event in reversed(events):
        if event.reason == "Nominated":
            return None
        if event.reason == "FailedScheduling" and re.search(r"nodepool|instance type", event.message):
            return event
    return None


def _explain_refusal(reader: ClusterReader, event: Event, rows: Rows) -> Diagnosis:
    """Explain a pod for which no NodePool may add a machine."""
    pools = reader.custom(_GROUP, "nodepools") or []
    rows = rows + tuple((f"NodePool {pool['metadata']['name']}", _describe_pool(pool)) for pool in pools)
    row = next((row for row in AUTOSCALER_TEXTS if row.matches(event.message)), AUTOSCALER_TEXTS[-1])
    reasons = re.sub(r", daemonset overhead=\{[^{}]*\}", "", event.message)
    verdict = f"The pod is not scheduled: node auto-provisioning adds no node for it: {reasons}"
    if pools and not any(_allows_gpus(pool) for pool in pools):
        verdict += ". No NodePool of the cluster names GPU sizes."
    return reader.diagnosis(
        verdict, row.cure, rows, error=lambda text, hint: NoScaleUp(text, hint=hint), cause=row.name
    )


def claim_problem(claim: Object) -> tuple[str, Cure, str] | None:
    """Return what is wrong with a NodeClaim, what helps, and the cause's name; None if it is ready or still young."""
    metadata = claim["metadata"]
    failed = _first_false(claim)
    if failed is None:
        return None
    message = f"{failed.get('reason') or ''}: {failed.get('message') or ''}".strip(": ")
    what = f"NodeClaim {metadata['name']} is not {failed['type']}"
    if _NO_ROOM.search(message):
        return f"{what}: {message}. Azure refuses the machine for lack of quota.", _QUOTA, "no quota for a NodeClaim"
    if _NO_CAPACITY.search(message):
        return f"{what}: {message}. Azure has no capacity.", _CAPACITY, "no capacity for a NodeClaim"
    if _is_young(claim):
        return None
    return f"{what}: {message or 'no reason is given'}.", _CLAIM, "a NodeClaim that does not become ready"


def _first_false(claim: Object) -> Mapping[str, Any] | None:
    """Return the first step of a NodeClaim that is not done; None if all are."""
    conditions = {condition["type"]: condition for condition in (claim.get("status") or {}).get("conditions") or ()}
    for step in _STEPS:
        condition: Mapping[str, Any] = conditions.get(step) or {"type": step, "status": "Unknown"}
        if condition.get("status") != "True":
            return condition
    return None


def _is_young(claim: Object) -> bool:
    """Return whether a NodeClaim may still become ready without an intervention."""
    created = times.parse(claim["metadata"].get("creationTimestamp"))
    return created is not None and datetime.now(UTC) - created < _TIME


def describe(claim: Object) -> str:
    """Return the state of a NodeClaim, as evidence."""
    failed = _first_false(claim)
    status = claim.get("status") or {}
    if failed is None:
        return f"ready, node {status.get('nodeName') or 'unknown'}"
    return f"not {failed['type']}: {failed.get('reason') or ''}: {failed.get('message') or ''}".strip(": ")


def pool_problem(pool: Object) -> str:
    """Return what is wrong with a NodePool; empty if nothing is."""
    for condition in (pool.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Ready" and condition.get("status") == "False":
            reason = condition.get("message") or condition.get("reason")
            return f"NodePool {pool['metadata']['name']} is not ready: {reason}"
    return ""


def _describe_pool(pool: Object) -> str:
    """Return the limits and the requirements of a NodePool, as evidence."""
    spec = pool.get("spec") or {}
    template = ((spec.get("template") or {}).get("spec")) or {}
    wanted = [
        f"{each.get('key')} {each.get('operator')} {', '.join(each.get('values') or ())}".strip()
        for each in template.get("requirements") or ()
    ]
    taints = [
        f"{taint.get('key')}={taint.get('value') or ''}:{taint.get('effect')}" for taint in template.get("taints") or ()
    ]
    parts = [f"requirements: {'; '.join(wanted) or 'none'}"]
    if taints:
        parts.append(f"taints: {', '.join(taints)}")
    if spec.get("limits"):
        parts.append(f"limits: {spec['limits']}, used: {(pool.get('status') or {}).get('resources') or {}}")
    return ". ".join(parts)


def _allows_gpus(pool: Object) -> bool:
    """Whether a NodePool's requirements can mean GPU sizes."""
    text = str((pool.get("spec") or {}).get("template") or {})
    return any(word in text for word in _GPU_WORDS) or re.search(r"Standard_N[CDV]", text, re.I) is not None


def __dir__() -> list[str]:
    return sorted(__all__)
