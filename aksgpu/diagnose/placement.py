"""Compare a pod with a node, and name each obstacle that keeps the pod off it.

These are the scheduler's rules that GPU Jobs meet: GPUs, taints, selectors, readiness. CPU, memory and everything else
are not compared here; for those, a diagnosis quotes the scheduler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from aksgpu.capacity import Usage, holders
from aksgpu.common.tolerations import tolerates
from aksgpu.kube.client import Object
from aksgpu.kube.node_facts import Node, taint_text

__all__ = ["Obstacle", "ObstacleKind", "obstacles"]

_NODE_CONDITION_TAINTS = "node.kubernetes.io/"
"""Prefix of the taints that Kubernetes adds for a node's condition. The condition itself is an obstacle of its own."""


class ObstacleKind(StrEnum):
    """What keeps a pod off a node."""

    NOT_READY = "not ready"
    CORDONED = "cordoned"
    SELECTOR = "selector"
    """The node lacks a label that the pod's nodeSelector or required node affinity asks for."""
    TAINT = "taint"
    """The node has a taint that the pod does not tolerate."""
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
        if _keeps_pods_off(taint) and not tolerates(tolerations, taint):
            found.append(Obstacle(ObstacleKind.TAINT, f"taint {taint_text(taint)} is not tolerated"))
    for resource, count in requested.items():
        obstacle = _gpu_obstacle(resource, count, node, use)
        if obstacle is not None:
            found.append(obstacle)
    return found


def _keeps_pods_off(taint: Mapping[str, Any]) -> bool:
    """Whether a taint is an obstacle for pods that do not tolerate it."""
    return taint["effect"] != "PreferNoSchedule" and not taint["key"].startswith(_NODE_CONDITION_TAINTS)


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
