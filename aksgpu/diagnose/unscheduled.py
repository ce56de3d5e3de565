"""Explain why the scheduler gives a pod no node, and say which call changes that."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from aksgpu.capacity import Usage, usage
from aksgpu.diagnose.cluster_reader import Reader
from aksgpu.diagnose.diagnosis import Diagnosis, Rows
from aksgpu.diagnose.gpu_failures import of_event
from aksgpu.diagnose.placement import Obstacle, obstacles
from aksgpu.errors import AksGpuError, GpuNotAdvertised, NoScaleUp, PodPending
from aksgpu.kube import pod_facts as _pods
from aksgpu.kube.node_facts import GPU, Node

Object = Mapping[str, Any]

INSTALL = "plugin.install(aks)"
"""The call that makes nodes advertise their GPUs."""
MOUNT_FIX = "Create what the message names (a Secret, a ConfigMap, a claim), or correct the manifest's volumes."
_NOT_LOOKED = "the scheduler has not looked at it yet"


@dataclass(frozen=True)
class _Question:
    """One pod and the nodes that might take it."""

    pod: Object
    wants: Mapping[str, int]
    nodes: list[Node]
    against: Mapping[str, list[Obstacle]]
    using: Mapping[str, Usage] | None
    has_azure: bool

    @property
    def resource(self) -> str:
        """The GPU resource that the pod asks most of."""
        return max(((count, name) for name, count in self.wants.items()), default=(0, GPU))[1]

    @property
    def count(self) -> int:
        """How many of :attr:`resource` it asks for."""
        return self.wants.get(self.resource, 0)

    @property
    def gpu_nodes(self) -> list[Node]:
        """The nodes that might do: those with GPUs, or all for a pod that asks for none."""
        return [node for node in self.nodes if node.gpu or not self.wants]


def explain(reader: Reader, pod: Object, rows: Rows) -> Diagnosis:
    """Explain why a pod has no node.

    Args:
        reader: reads the cluster.
        pod: the pod.
        rows: evidence so far, the pod's events included.
    """
    wants = _pods.gpus(pod["spec"])
    nodes = reader.nodes()
    if nodes is None:
        words = _pods.state(pod).message or _NOT_LOOKED
        fix = "Somebody who may list nodes can find out more with the same call."
        return _with_events(Diagnosis(f"The pod is not scheduled: {words}", fix, rows), {}, None, reader.has_azure)
    using = reader.attempt("who uses the GPUs (the pods of all namespaces)", lambda: usage(reader.aks))
    against = {
        node.name: obstacles(pod["spec"], wants, node, None if using is None else using.get(node.name, Usage()))
        for node in nodes
    }
    question = _Question(pod, wants, nodes, against, using, reader.has_azure)
    table = tuple((f"node {name}", "; ".join(o.text for o in found) or "would fit") for name, found in against.items())
    found = _placement(question, rows + table)
    return _with_events(found, against, _pool(question), reader.has_azure)


def _with_events(
    found: Diagnosis, against: Mapping[str, list[Obstacle]], pool: str | None, has_azure: bool
) -> Diagnosis:
    """Add what the scheduler's and the autoscaler's events say, and the exception that represents it."""
    told = [(what.removeprefix("event "), text) for what, text in found.rows if what.startswith("event ")]
    if any(reason == "TriggeredScaleUp" for reason, _ in told):
        fix = "Wait: the autoscaler is adding a node, which takes some minutes."
        return replace(found, fix=fix, error=PodPending(found.verdict, hint=fix))
    events = []
    for reason, text in told:
        event = of_event(reason, text, pool=pool or "gpunp", has_azure=has_azure)
        if event is not None:
            events.append(event)
    scaling = next((event for event in reversed(events) if isinstance(event, NoScaleUp)), None)
    if scaling is not None:
        verdict = f"{found.verdict.rstrip('.')}; {scaling.message}."
        error: AksGpuError = NoScaleUp(verdict, hint=scaling.hint, causes=scaling.causes)
        return replace(found, verdict=verdict, fix=scaling.hint, error=error)
    unserved = sorted(name for name, obstacles in against.items() if any(o.kind == "no plugin" for o in obstacles))
    if found.fix == INSTALL:
        return replace(found, error=GpuNotAdvertised(found.verdict, hint=found.fix, nodes=tuple(unserved)))
    causes: Mapping[str, int] = events[-1].causes if events else {}
    nodes = events[-1].nodes if events else (len(against) or None)
    return replace(found, error=PodPending(found.verdict, hint=found.fix, causes=causes, nodes=nodes))


def _placement(question: _Question, rows: Rows) -> Diagnosis:
    """The verdict, from the obstacles on the nodes that come nearest to fitting."""
    if question.wants and not question.gpu_nodes:
        verdict = f"The pod wants {question.count} {question.resource}, and the cluster has no GPU node."
        return Diagnosis(verdict, _no_gpu_fix(question), rows)
    against = question.against
    fitting = any(not against[node.name] for node in question.gpu_nodes)  # then cpu, memory or the like is missing
    for kinds, verdict, fix in () if fitting else _verdicts(question):
        near = [node for node in question.gpu_nodes if {o.kind for o in against[node.name]} <= kinds]
        if near:
            detail = "; ".join(dict.fromkeys(o.text for node in near for o in against[node.name]))
            return Diagnosis(f"The pod is not scheduled: {verdict or detail}.", fix, rows)
    message = _pods.state(question.pod).message or _NOT_LOOKED
    return Diagnosis(f"The pod is not scheduled: {message}", _scheduler_fix(question, message), rows)


def _verdicts(question: _Question) -> list[tuple[set[str], str, str]]:
    """Obstacles that explain it if a node has no others, with verdict and fix; those that pass by themselves first."""
    resource = question.resource
    most = max((node.allocatable.get(resource, 0) for node in question.gpu_nodes), default=0)
    tolerate = (
        "jobs.apply(aks, manifest, replace=True) adds the tolerations; in a manifest for kubectl, add them under "
        "spec.template.spec.tolerations."
    )
    unserved = f"no node advertises {resource}, since no device plugin serves it"
    return [
        ({"taken"}, "", _taken_fix(question)),
        ({"taint"}, "", tolerate),
        ({"no plugin"}, unserved, INSTALL),
        ({"no plugin", "taint"}, unserved, INSTALL),
        ({"other gpu", "taint"}, f"no node has {resource}", _other_fix(question)),
        ({"taken", "taint"}, "", tolerate),
        ({"selector", "taint"}, "", "Correct spec.template.spec.nodeSelector (or affinity): capacity.nodes(aks)."),
        (
            {"too small", "taint"},
            f"no node has {question.count} {resource}; the largest has {most}",
            _small_fix(question, most),
        ),
        ({"cordoned", "not ready", "taint", "taken", "no plugin"}, "", _node_fix(question)),
        (
            {"selector", "too small", "taken", "taint", "no plugin"},
            "",
            "Correct the nodeSelector: capacity.nodes(aks) shows the labels that nodes of this kind have.",
        ),
    ]


def scale_call(pool: str | None, nodes: int, has_azure: bool) -> str:
    """Return the call that adds a node, in words that end a sentence.

    Args:
        pool: the node pool to enlarge; None if it is not known.
        nodes: how many nodes it has.
        has_azure: whether node pools exist at all.
    """
    if not has_azure:
        return "add a node to the cluster"
    if pool is None:
        return "add nodes: cluster.add_gpu_pool(aks, count=1)"
    return f"add nodes: cluster.scale_pool(aks, {pool!r}, count={nodes + 1})"


def _pool(question: _Question) -> str | None:
    """The pool of the nodes that might take the pod."""
    return next((node.pool for node in question.gpu_nodes if node.pool), None)


def _scale(question: _Question) -> str:
    pool = _pool(question)
    return scale_call(pool, sum(node.pool == pool for node in question.nodes), question.has_azure)


def _no_gpu_fix(question: _Question) -> str:
    if question.has_azure:
        return "cluster.add_gpu_pool(aks, count=1) adds a GPU node. If an autoscaler is adding one, wait."
    ready = [node.name for node in question.nodes if node.usable]
    node = ready[0] if ready else "NODE"
    return (
        "Add a node with a GPU to the cluster, then plugin.install(aks). On a test cluster without GPUs, "
        f"capacity.advertise(aks, {node!r}) writes one into a node's status: pods are scheduled, and find no GPU."
    )


def _taken_fix(question: _Question) -> str:
    """Wait, delete who holds the GPU, or add a node."""
    holding: Counter[str] = Counter()
    for use in (question.using or {}).values():
        holding.update(use.by[question.resource])
    own = _pods.owner(question.pod)
    holder = next((name for name in sorted(holding) if name != own), "")
    delete = ""
    if holder:
        namespace, _, name = holder.partition("/")
        delete = f" delete {holder} (a Job: jobs.attach(aks, {name!r}, {namespace!r}).delete()),"
    return f"Wait,{delete} or {_scale(question)}."


def _small_fix(question: _Question, most: int) -> str:
    if not question.has_azure:
        return f"Ask for at most {most} for each pod, or add a node that has {question.count}."
    return (
        f"Ask for at most {most} for each pod, or add a pool whose VM size has {question.count}: "
        "sizes.gpu_sizes(aks.azure, aks.location) shows the sizes."
    )


def _other_fix(question: _Question) -> str:
    slices = " (slices: gpu_instance_profile=...)" if question.has_azure else ""
    return f"Ask for what capacity.gpus(aks) shows, or add a {'pool' if slices else 'node'} that has it{slices}."


def _node_fix(question: _Question) -> str:
    cordoned = [node.name for node in question.gpu_nodes if node.cordoned]
    if not cordoned:
        return "Wait until the node is ready: capacity.nodes(aks) shows it."
    call = f'aks.kube.patch("Node", "{cordoned[0]}", {{"spec": {{"unschedulable": None}}}})'
    return f"{call} (kubectl uncordon) lets the node take pods again, unless somebody is maintaining it."


def _scheduler_fix(question: _Question, message: str) -> str:
    if found := re.search(r"Insufficient (cpu|memory|ephemeral-storage|pods)", message):
        return f"Ask for less {found[1]}, wait until other pods end, or {_scale(question)}."
    if "persistentvolumeclaim" in message.lower():
        return MOUNT_FIX
    if "scheduling gates" in message:
        return "What set spec.schedulingGates, such as a queue, removes them again; or leave them out."
    return "Wait a moment and ask again." if "not looked" in message else "capacity.nodes(aks) shows the nodes."
