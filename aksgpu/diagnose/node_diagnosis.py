"""What is wrong with a node."""

from __future__ import annotations

from typing import NamedTuple

from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.cures import Cure
from aksgpu.diagnose.diagnosis import Diagnosis, Rows
from aksgpu.diagnose.events import Event, event_rows, events_about
from aksgpu.diagnose.node_problems import NodeProblem, problems_of, unknown_conditions
from aksgpu.diagnose.scheduling_texts import NODE_LEAVING, NODE_PRESSURE, NODE_STARTING
from aksgpu.errors import GpuLost, GpuNotAdvertised
from aksgpu.kube import path_names
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.kube.node_facts import Node, read, taint_text
from aksgpu.kube.taint_kinds import TaintKind, meaning

__all__ = ["diagnose_node", "node", "node_problem"]

_NOT_READY = Cure(
    "Find out why the kubelet does not report: kubectl describe node NODE. A new node becomes ready after some "
    "minutes; one that stays like this must be replaced: delete it, and its pool adds another one.",
    "from aksgpu import capacity\ncapacity.nodes(aks)",
    "kubectl describe node NODE\n"
    "az aks nodepool delete-machines --resource-group GROUP --cluster-name CLUSTER --nodepool-name POOL "
    "--machine-names NODE",
    "Look at why the kubelet does not report: kubectl describe node NODE. Restart its kubelet, or replace the node.",
)
_CORDONED = Cure(
    "kubectl uncordon NODE lets the node take pods again, unless somebody is maintaining it.",
    'aks.kube.patch("Node", "NODE", {"spec": {"unschedulable": None}})',
    "kubectl uncordon NODE",
)
_NO_PLUGIN = Cure(
    "plugin.install(aks) installs the device plugin; plugin.status(aks) shows it on each GPU node. A managed GPU pool "
    "has it as a service of the node, and a new node needs some minutes.",
    "from aksgpu import plugin\nplugin.status(aks)\nplugin.install(aks)",
    "kubectl get daemonsets --all-namespaces | grep device-plugin",
)
_UNHEALTHY = Cure(
    "Restart the device plugin on NODE, which reads the state of the GPUs again; if they stay unhealthy, replace the "
    "node.",
    "from aksgpu import plugin\nplugin.status(aks)",
    "kubectl rollout restart daemonset/nvidia-device-plugin-daemonset --namespace gpu-resources\nkubectl cordon NODE",
)
_TAINT_CURES = {
    TaintKind.STARTING: NODE_STARTING,
    TaintKind.NOT_READY: _NOT_READY,
    TaintKind.PRESSURE: NODE_PRESSURE,
    TaintKind.REPAIRED: NODE_LEAVING,
    TaintKind.LEAVING: NODE_LEAVING,
}
_IMAGE_LABEL = "kubernetes.azure.com/node-image-version"


def node(aks: HasKube, name: str) -> Diagnosis:
    """Explain what is wrong with a node: its conditions, its taints, its GPUs and its device plugin.

    The conditions include those that AKS' node problem detector sets for GPUs, such as ``GPUMissing``.

    Args:
        aks: the cluster.
        name: the node's name.

    Returns:
        The verdict, the evidence and the fix.

    Raises:
        InvalidInput: an argument is not valid.
        NotFound: the node does not exist.
        Forbidden: you may not read nodes.

    Example:
        >>> diagnose.node(aks, "aks-gpunp-12345678-vmss000000")  # doctest: +SKIP
    """
    check_cluster(aks)
    path_names.check_name("Node", name, "name")
    reader = ClusterReader(aks)
    return reader.finish(diagnose_node(reader, aks.kube.get("Node", name)))


def diagnose_node(reader: ClusterReader, obj: Object) -> Diagnosis:
    """Explain the state of a Node object, as part of a larger diagnosis.

    Args:
        reader: reads the cluster.
        obj: the Node object.
    """
    facts = read(obj)
    reader.know(NODE=facts.name, POOL=facts.pool)
    events = events_about(reader, obj)
    rows = _rows(obj, facts, events)
    problem = node_problem(facts, problems_of(obj))
    if problem is None:
        unknown = unknown_conditions(obj)
        verdict = f"Node {facts.name} is ready: nothing is wrong."
        if unknown:
            verdict = (
                f"Node {facts.name} is ready: nothing is known to be wrong. The node problem detector has not "
                f"determined {', '.join(unknown)}."
            )
        return Diagnosis(verdict, "", rows)
    return _explain(reader, facts, problem, rows)


class Problem(NamedTuple):
    """What is wrong with a node.

    Attributes:
        clause: what is wrong, as a clause about the node.
        cure: what helps.
        name: the cause's name.
        reported: the condition that reports it; None for other problems.
    """

    clause: str
    cure: Cure
    name: str
    reported: NodeProblem | None = None


def node_problem(facts: Node, reported: list[NodeProblem]) -> Problem | None:
    """Return what is wrong with a node; None if nothing is.

    Args:
        facts: the node.
        reported: the problems that its conditions report.
    """
    # A condition of the GPUs says more than that they are not advertised.
    if not facts.ready:
        return Problem(f"is not ready: {facts.readiness}", _NOT_READY, "the node is not ready")
    for each in reported:
        return Problem(f"has a problem: {each.failure.verdict}", each.failure.cure, each.failure.name, each)
    if facts.cordoned:
        return Problem("is cordoned", _CORDONED, "the node is cordoned")
    for taint in facts.temporary_taints:
        found = meaning(taint["key"])
        text = f"{found.text} (taint {taint_text(taint)})"
        return Problem(text, _TAINT_CURES[found.kind], f"a taint of a node that is {found.kind}")
    if facts.gpu and facts.reported and not any(facts.capacity.values()):
        return Problem("has a GPU and advertises none: no device plugin serves it", _NO_PLUGIN, "no device plugin")
    for resource, count in facts.capacity.items():
        healthy = facts.allocatable.get(resource, 0)
        if healthy < count:
            return Problem(f"has {healthy} healthy of {count} {resource}", _UNHEALTHY, "the GPUs are unhealthy")
    return None


def _explain(reader: ClusterReader, facts: Node, problem: Problem, rows: Rows) -> Diagnosis:
    clause, cure, name, reported = problem
    verdict = f"Node {facts.name} {clause}."
    if reported is not None:
        return reader.known_failure(verdict, reported.failure, rows, nodes=(facts.name,))
    kinds = {"no device plugin": GpuNotAdvertised, "the GPUs are unhealthy": GpuLost}
    kind = kinds.get(name)
    if kind is None:
        return reader.diagnosis(verdict, cure, rows, cause=name)
    return reader.diagnosis(
        verdict, cure, rows, error=lambda text, hint: kind(text, hint=hint, nodes=(facts.name,)), cause=name
    )


def _rows(obj: Object, facts: Node, events: list[Event]) -> Rows:
    """Return the node's conditions, taints, GPUs and events as evidence."""
    rows: list[tuple[str, str]] = []
    for condition in (obj.get("status") or {}).get("conditions") or ():
        healthy = "True" if condition["type"] == "Ready" else "False"
        if condition.get("status") != healthy:
            text = f"{condition.get('status')}: {condition.get('reason') or ''}: {condition.get('message') or ''}"
            rows.append((f"condition {condition['type']}", text.strip(": ")))
    rows += [("taint", f"{taint_text(taint)} ({meaning(taint['key']).text})") for taint in facts.taints]
    for resource, count in facts.capacity.items():
        rows.append((resource, f"{facts.allocatable.get(resource, 0)} healthy of {count}"))
    image = facts.labels.get(_IMAGE_LABEL)
    if image:
        rows.append(("node image", image))
    return (*rows, *event_rows(events))
