"""What stands against one pod on each node.

The scheduler's own rules, as far as GPU jobs meet them: GPUs, taints, selectors, readiness. Of cpu, memory and the rest
nothing is said here: for those, the scheduler's words are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aksgpu.capacity import Usage, holders
from aksgpu.common.kubernetes_objects import Object
from aksgpu.kube.node_facts import Node, taint_text, tolerates


@dataclass(frozen=True)
class Obstacle:
    """One thing that keeps a pod off a node.

    Attributes:
        kind: ``not ready``, ``cordoned``, ``selector``, ``taint``, ``no plugin``, ``other gpu``, ``too small``,
            ``taken``, ``no gpu``.
        text: in words.
    """

    kind: str
    text: str


def obstacles(pod_spec: Object, wants: Mapping[str, int], node: Node, use: Usage | None) -> list[Obstacle]:
    """What keeps a pod off a node; empty where nothing is known to."""
    found: list[Obstacle] = []
    if not node.ready:
        found.append(Obstacle("not ready", "the node is not ready"))
    if node.cordoned:
        found.append(Obstacle("cordoned", "the node is cordoned"))
    if missing := _unmatched(pod_spec, node):
        found.append(Obstacle("selector", f"the node has no label {missing}"))
    for taint in node.taints:
        passing = taint["key"].startswith("node.kubernetes.io/")  # told above, in better words
        if not passing and not tolerates(pod_spec.get("tolerations") or (), taint):
            found.append(Obstacle("taint", f"taint {taint_text(taint)} is not tolerated"))
    for resource, count in wants.items():
        if obstacle := _gpu_obstacle(resource, count, node, use):
            found.append(obstacle)
    return found


def _gpu_obstacle(resource: str, count: int, node: Node, use: Usage | None) -> Obstacle | None:
    there = node.allocatable.get(resource, 0)
    if not there:
        if not node.gpu:
            return Obstacle("no gpu", "the node has no GPU")
        if others := [name for name, count in sorted(node.allocatable.items()) if count]:
            return Obstacle("other gpu", f"the node has {', '.join(others)} and no {resource}")
        return Obstacle("no plugin", f"the node advertises no {resource}: no device plugin serves it")
    if there < count:
        return Obstacle("too small", f"the node has {there} {resource}, the pod wants {count}")
    if use is not None and there - use.taken[resource] < count:
        return Obstacle("taken", f"{use.taken[resource]} of {there} {resource} taken by {holders(use, resource)}")
    return None


def _unmatched(pod_spec: Object, node: Node) -> str:
    """The first label that the pod's node selector or required affinity wants and the node lacks."""
    for key, value in (pod_spec.get("nodeSelector") or {}).items():
        if node.labels.get(key) != value:
            return f"{key}={value}"
    affinity = (pod_spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    wanted = [_expressions(term, node) for term in terms]
    return "" if not wanted or "" in wanted else wanted[0]


def _expressions(term: Object, node: Node) -> str:
    for wanted in term.get("matchExpressions") or ():
        key = wanted["key"]
        operator = wanted["operator"]
        values = wanted.get("values") or ()
        value = node.labels.get(key)
        fits = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }.get(operator, True)
        if not fits:
            return f"{key} {operator} {', '.join(values)}".strip()
    return ""
