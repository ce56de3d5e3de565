"""Compare a pod with a node, and name each obstacle that keeps the pod off it.

These are the scheduler's rules that GPU Jobs meet: GPUs, taints, selectors, readiness. CPU, memory and everything else
are not compared here; for those, a diagnosis quotes the scheduler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from aksgpu.capacity import Usage, holders
from aksgpu.common.tolerations import tolerates
from aksgpu.kube.client import Object
from aksgpu.kube.node_facts import Node, taint_text
from aksgpu.kube.taint_kinds import TaintKind, meaning

__all__ = ["Obstacle", "ObstacleKind", "obstacles"]

_CORDONED_TAINT = "node.kubernetes.io/unschedulable"


class ObstacleKind(StrEnum):
    """What keeps a pod off a node."""

    NOT_READY = "not ready"
    CORDONED = "cordoned"
    SELECTOR = "selector"
    """The node lacks a label that the pod's nodeSelector or required node affinity asks for."""
    TAINT = "taint"
    """The node has a taint of its pool that the pod does not tolerate."""
    SYSTEM = "system"
    """The node is reserved for the system's pods by a taint that no other pod may tolerate."""
    STARTING = "starting"
    """The node is being set up, which a taint says."""
    PRESSURE = "pressure"
    """The node lacks disk, memory or process numbers."""
    LEAVING = "leaving"
    """The node is about to be removed, repaired or upgraded."""
    UNHEALTHY = "unhealthy"
    """The node has GPUs, and none of them is healthy."""
    NO_GPU = "no gpu"
    NO_PLUGIN = "no plugin"
    """The node has a GPU and advertises none."""
    OTHER_GPU = "other gpu"
    """The node advertises other GPU resources than the pod asks for, such as MIG slices."""
    TOO_SMALL = "too small"
    """The node has fewer GPUs than the pod asks for."""
    TAKEN = "taken"
    """Other pods use the GPUs."""


@dataclass(frozen=True)
class Obstacle:
    """One thing that keeps a pod off a node.

    Attributes:
        kind: what sort of thing it is.
        text: a description, for the evidence.
    """

    kind: ObstacleKind
    text: str


def obstacles(pod_spec: Object, requested: Mapping[str, int], node: Node, use: Usage | None) -> list[Obstacle]:
    """Return what keeps a pod off a node; empty if nothing is known to.

    Args:
        pod_spec: the pod's spec.
        requested: GPUs that the pod asks for, by resource name.
        node: the node.
        use: the node's GPUs that are in use; None if that is not known.
    """
    found: list[Obstacle] = []
    if not node.ready:
        found.append(Obstacle(ObstacleKind.NOT_READY, "the node is not ready"))
    if node.cordoned:
        found.append(Obstacle(ObstacleKind.CORDONED, "the node is cordoned"))
    requirement = _unmet_label(pod_spec, node)
    if requirement:
        found.append(Obstacle(ObstacleKind.SELECTOR, f"the node has no label {requirement}"))
    tolerations = pod_spec.get("tolerations") or ()
    for taint in node.taints:
        if taint["effect"] != "PreferNoSchedule" and not tolerates(tolerations, taint):
            obstacle = _taint_obstacle(taint, node)
            if obstacle is not None and obstacle not in found:
                found.append(obstacle)
    for resource, count in requested.items():
        obstacle = _gpu_obstacle(resource, count, node, use)
        if obstacle is not None:
            found.append(obstacle)
    return found


_OBSTACLE_OF_TAINT = {
    TaintKind.SYSTEM: ObstacleKind.SYSTEM,
    TaintKind.STARTING: ObstacleKind.STARTING,
    TaintKind.NOT_READY: ObstacleKind.NOT_READY,
    TaintKind.PRESSURE: ObstacleKind.PRESSURE,
    TaintKind.REPAIRED: ObstacleKind.LEAVING,
    TaintKind.LEAVING: ObstacleKind.LEAVING,
}


def _taint_obstacle(taint: Object, node: Node) -> Obstacle | None:
    """Return the obstacle of a taint that the pod does not tolerate; None if the node's state says the same."""
    found = meaning(taint["key"])
    if found.kind == TaintKind.POOL:
        return Obstacle(ObstacleKind.TAINT, f"taint {taint_text(taint)} is not tolerated")
    if found.kind == TaintKind.NOT_READY and not node.ready:
        return None
    if taint["key"] == _CORDONED_TAINT and node.cordoned:
        return None
    return Obstacle(_OBSTACLE_OF_TAINT[found.kind], f"the node {found.text} (taint {taint_text(taint)})")


def _gpu_obstacle(resource: str, count: int, node: Node, use: Usage | None) -> Obstacle | None:
    """Return why a node cannot give the pod its GPUs of one resource; None if it can."""
    allocatable = node.allocatable.get(resource, 0)
    if not allocatable:
        return _not_advertised(resource, node)
    if allocatable < count:
        text = f"the node has {allocatable} {resource}, the pod wants {count}"
        return Obstacle(ObstacleKind.TOO_SMALL, text)
    if use is not None and allocatable - use.taken[resource] < count:
        text = f"{use.taken[resource]} of {allocatable} {resource} taken by {holders(use, resource)}"
        return Obstacle(ObstacleKind.TAKEN, text)
    return None


def _not_advertised(resource: str, node: Node) -> Obstacle:
    """Return why a node advertises nothing of a GPU resource."""
    if not node.gpu:
        return Obstacle(ObstacleKind.NO_GPU, "the node has no GPU")
    if node.capacity.get(resource):
        return Obstacle(ObstacleKind.UNHEALTHY, f"0 of {node.capacity[resource]} {resource} are healthy")
    others = [name for name, count in sorted(node.allocatable.items()) if count]
    if others:
        return Obstacle(ObstacleKind.OTHER_GPU, f"the node has {', '.join(others)} and no {resource}")
    text = f"the node advertises no {resource}: no device plugin serves it"
    return Obstacle(ObstacleKind.NO_PLUGIN, text)


def _unmet_label(pod_spec: Object, node: Node) -> str:
    """Return the first label that the pod's node selector or required affinity asks for and the node lacks."""
    for key, value in (pod_spec.get("nodeSelector") or {}).items():
        if node.labels.get(key) != value:
            return f"{key}={value}"
    affinity = (pod_spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    unmet = [_unmet_expression(term, node) for term in required.get("nodeSelectorTerms") or ()]
    # The terms are alternatives: one that is met is enough.
    if not unmet or "" in unmet:
        return ""
    return unmet[0]


def _unmet_expression(term: Object, node: Node) -> str:
    """Return the first expression of an affinity term that the node does not meet; empty if it meets all."""
    for expression in term.get("matchExpressions") or ():
        if not _is_met(expression, node):
            values = ", ".join(expression.get("values") or ())
            return f"{expression['key']} {expression['operator']} {values}".strip()
    return ""


def _is_met(expression: Object, node: Node) -> bool:
    """Whether a node meets an expression. Operators that compare numbers are left to the scheduler."""
    value = node.labels.get(expression["key"])
    values = expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return True
