"""Why does no node take the pod, and which call changes that?"""

from __future__ import annotations

from dataclasses import replace

from aksgpu.capacity import Usage, usage
from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.diagnosis import Diagnosis, Rows
from aksgpu.diagnose.placement import ObstacleKind, obstacles
from aksgpu.diagnose.scheduling_events import DEFAULT_POOL, from_event, insufficient_resource
from aksgpu.diagnose.scheduling_rules import Situation, first_rule
from aksgpu.errors import GpuNotAdvertised, NoScaleUp, PodPending
from aksgpu.kube import pod_facts
from aksgpu.kube.client import Object

__all__ = ["MOUNT_FIX", "explain_unscheduled"]

MOUNT_FIX = "Create what the message names (a Secret, a ConfigMap, a claim), or correct the manifest's volumes."
"""What to do if a volume cannot be mounted."""
_NOT_TRIED = "the scheduler has not looked at it yet"
"""The state of a pod about which the scheduler has not reported anything."""


def explain_unscheduled(reader: ClusterReader, pod: Object, rows: Rows) -> Diagnosis:
    """Explain why a pod has no node.

    Args:
        reader: reads the cluster.
        pod: the Pod object.
        rows: the evidence that is known already, with the pod's events.
    """
    nodes = reader.nodes()
    if nodes is None:
        return _without_nodes(reader, pod, rows)
    requested = pod_facts.gpus(pod["spec"])
    used = reader.attempt("who uses the GPUs (the pods of all namespaces)", lambda: usage(reader.aks))
    against = {}
    for node in nodes:
        node_usage = None if used is None else used.get(node.name, Usage())
        against[node.name] = obstacles(pod["spec"], requested, node, node_usage)
    situation = Situation(pod, requested, nodes, against, used, reader.has_azure)
    return _with_events(_explain(situation, rows + _node_rows(situation)), situation.pool, reader.has_azure)


def _without_nodes(reader: ClusterReader, pod: Object, rows: Rows) -> Diagnosis:
    """Return the diagnosis if the nodes cannot be read: the scheduler's message is all that is known."""
    message = pod_facts.state(pod).message or _NOT_TRIED
    verdict = f"The pod is not scheduled: {message}"
    fix = "Somebody who may list nodes can find out more with the same call."
    diagnosis = Diagnosis(verdict, fix, rows, PodPending(verdict, hint=fix))
    return _with_events(diagnosis, None, reader.has_azure)


def _node_rows(situation: Situation) -> Rows:
    """Return one row of evidence for each node."""
    rows = []
    for name, found in situation.obstacles.items():
        text = "; ".join(obstacle.text for obstacle in found)
        rows.append((f"node {name}", text or "would fit"))
    return tuple(rows)


def _explain(situation: Situation, rows: Rows) -> Diagnosis:
    """Return the verdict of the first rule that applies, or else the scheduler's message."""
    if situation.requested and not situation.candidates:
        verdict = f"The pod wants {situation.count} {situation.resource}, and the cluster has no GPU node."
        return _pending(situation, verdict, _add_gpu_node(situation), rows)
    rule = first_rule(situation)
    if rule is None:
        message = pod_facts.state(situation.pod).message or _NOT_TRIED
        verdict = f"The pod is not scheduled: {message}"
        return _pending(situation, verdict, _fix_for_message(situation, message), rows)
    verdict = f"The pod is not scheduled: {rule.verdict(situation)}."
    fix = rule.fix(situation)
    if rule.error is GpuNotAdvertised:
        error = GpuNotAdvertised(verdict, hint=fix, nodes=_nodes_without_plugin(situation))
        return Diagnosis(verdict, fix, rows, error)
    return _pending(situation, verdict, fix, rows)


def _pending(situation: Situation, verdict: str, fix: str, rows: Rows) -> Diagnosis:
    error = PodPending(verdict, hint=fix, nodes=len(situation.nodes) or None)
    return Diagnosis(verdict, fix, rows, error)


def _nodes_without_plugin(situation: Situation) -> tuple[str, ...]:
    """Return the names of the nodes whose GPUs no device plugin serves."""
    names = []
    for name, found in situation.obstacles.items():
        if any(obstacle.kind == ObstacleKind.NO_PLUGIN for obstacle in found):
            names.append(name)
    return tuple(sorted(names))


def _add_gpu_node(situation: Situation) -> str:
    """Return what to do if the cluster has no GPU node."""
    if situation.has_azure:
        return "cluster.add_gpu_pool(aks, count=1) adds a GPU node. If an autoscaler is adding one, wait."
    ready = [node.name for node in situation.nodes if node.usable]
    node = ready[0] if ready else "NODE"
    return (
        "Add a node with a GPU to the cluster, then plugin.install(aks). On a test cluster without GPUs, "
        f"capacity.advertise(aks, {node!r}) writes one into a node's status: pods are scheduled, and find no GPU."
    )


def _fix_for_message(situation: Situation, message: str) -> str:
    """Return what to do about the scheduler's message, if no rule applies."""
    resource = insufficient_resource(message)
    if resource:
        return f"Ask for less {resource}, wait until other pods end, or {situation.add_nodes}."
    if "persistentvolumeclaim" in message.lower():
        return MOUNT_FIX
    if "scheduling gates" in message:
        return "What set spec.schedulingGates, such as a queue, removes them again; or leave them out."
    if message == _NOT_TRIED:
        return "Wait a moment and ask again."
    return "capacity.nodes(aks) shows the nodes."


def _with_events(diagnosis: Diagnosis, pool: str | None, has_azure: bool) -> Diagnosis:
    """Return the diagnosis with what the events of the scheduler and the autoscaler add to it.

    Args:
        diagnosis: the verdict, with the pod's events in its evidence.
        pool: the node pool that hints name; None if it is not known.
        has_azure: whether the cluster is managed through Azure.
    """
    events = [(what.removeprefix("event "), text) for what, text in diagnosis.rows if what.startswith("event ")]
    if any(reason == "TriggeredScaleUp" for reason, _ in events):
        fix = "Wait: the autoscaler is adding a node, which takes some minutes."
        return replace(diagnosis, fix=fix, error=PodPending(diagnosis.verdict, hint=fix))
    found = []
    for reason, text in events:
        error = from_event(reason, text, pool=pool or DEFAULT_POOL, has_azure=has_azure)
        if error is not None:
            found.append(error)
    refused = [error for error in found if isinstance(error, NoScaleUp)]
    if refused:
        newest = refused[-1]
        verdict = f"{diagnosis.verdict.rstrip('.')}; {newest.message}."
        scaling = NoScaleUp(verdict, hint=newest.hint, causes=newest.causes)
        return replace(diagnosis, verdict=verdict, fix=newest.hint, error=scaling)
    if not found or isinstance(diagnosis.error, GpuNotAdvertised):
        return diagnosis
    counted = PodPending(diagnosis.verdict, hint=diagnosis.fix, causes=found[-1].causes, nodes=found[-1].nodes)
    return replace(diagnosis, error=counted)
