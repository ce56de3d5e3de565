"""Why no node takes a pod: a table of named rules, each with its verdict and the call that fixes it.

A rule looks at the obstacles between the pod and one node. It explains the pod's state if it applies to at least one of
the nodes that the pod could use. The first rule of :data:`RULES` that does so decides: the table begins with the rules
for nodes that need least before they can take the pod.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from aksgpu.capacity import Usage
from aksgpu.diagnose.placement import Obstacle, ObstacleKind
from aksgpu.diagnose.scheduling_events import add_nodes_call
from aksgpu.errors import AksGpuError, GpuNotAdvertised, PodPending
from aksgpu.kube import pod_facts
from aksgpu.kube.client import Object
from aksgpu.kube.node_facts import GPU, Node

__all__ = ["RULES", "Kinds", "SchedulingRule", "Situation", "first_rule"]

Kinds = AbstractSet[ObstacleKind]
"""The kinds of obstacles between a pod and one node. A rule is never asked about a node without obstacles."""


@dataclass(frozen=True)
class Situation:
    """A pod without a node, and the nodes that it could use.

    Attributes:
        pod: the Pod object.
        requested: GPUs that the pod asks for, by resource name.
        nodes: all nodes.
        obstacles: what keeps the pod off each node, by node name.
        usage: GPUs in use, by node name; None if that is not known.
        has_azure: whether the cluster is managed through Azure, so that there are node pools.
    """

    pod: Object
    requested: Mapping[str, int]
    nodes: list[Node]
    obstacles: Mapping[str, list[Obstacle]]
    usage: Mapping[str, Usage] | None
    has_azure: bool

    @property
    def resource(self) -> str:
        """The GPU resource that the pod asks for; if it asks for several, the one that it asks most of."""
        largest = max(((count, name) for name, count in self.requested.items()), default=(0, GPU))
        return largest[1]

    @property
    def count(self) -> int:
        """How many of :attr:`resource` the pod asks for."""
        return self.requested.get(self.resource, 0)

    @property
    def largest_count(self) -> int:
        """How many of :attr:`resource` the largest node has."""
        return max((node.allocatable.get(self.resource, 0) for node in self.candidates), default=0)

    @property
    def candidates(self) -> list[Node]:
        """The nodes that the pod could use: those with GPUs, or all nodes if it asks for none."""
        return [node for node in self.nodes if node.gpu or not self.requested]

    @property
    def pool(self) -> str | None:
        """The node pool of the first candidate; None if no candidate belongs to one."""
        return next((node.pool for node in self.candidates if node.pool), None)

    @property
    def add_nodes(self) -> str:
        """The call that adds a node, as the end of a sentence."""
        in_pool = sum(node.pool == self.pool for node in self.nodes)
        return add_nodes_call(self.pool, nodes=in_pool, has_azure=self.has_azure)

    def kinds(self, node: Node) -> Kinds:
        """Return the kinds of obstacles between the pod and a node."""
        return {obstacle.kind for obstacle in self.obstacles[node.name]}

    def describe(self, nodes: list[Node]) -> str:
        """Return the obstacles between the pod and the nodes as text, each once."""
        texts = [obstacle.text for node in nodes for obstacle in self.obstacles[node.name]]
        return "; ".join(dict.fromkeys(texts))


@dataclass(frozen=True)
class SchedulingRule:
    """One explanation for a pod that no node takes.

    Attributes:
        name: a few words.
        applies: whether the obstacles between the pod and one node mean this explanation.
        fix: makes the action that helps.
        summary: makes the verdict, as a clause; None uses the texts of the obstacles.
        error: the exception class that represents it.
    """

    name: str
    applies: Callable[[Kinds], bool]
    fix: Callable[[Situation], str]
    summary: Callable[[Situation], str] | None = None
    error: type[AksGpuError] = PodPending

    def verdict(self, situation: Situation) -> str:
        """Return the verdict, as a clause."""
        if self.summary is not None:
            return self.summary(situation)
        return situation.describe([node for node in situation.candidates if self.applies(situation.kinds(node))])


# Predicates


def only_gpus_taken(kinds: Kinds) -> bool:
    """Other pods use the node's GPUs, and nothing else keeps the pod off it."""
    return kinds == {ObstacleKind.TAKEN}


def only_taint(kinds: Kinds) -> bool:
    """The pod does not tolerate a taint of the node, and nothing else keeps it off."""
    return kinds == {ObstacleKind.TAINT}


def no_device_plugin(kinds: Kinds) -> bool:
    """No device plugin serves the node's GPUs, and at most a taint is in the way besides."""
    return ObstacleKind.NO_PLUGIN in kinds and kinds <= {ObstacleKind.NO_PLUGIN, ObstacleKind.TAINT}


def other_gpu_resource(kinds: Kinds) -> bool:
    """The node advertises another GPU resource, and at most a taint is in the way besides."""
    return ObstacleKind.OTHER_GPU in kinds and kinds <= {ObstacleKind.OTHER_GPU, ObstacleKind.TAINT}


def taint_and_gpus_taken(kinds: Kinds) -> bool:
    """The pod does not tolerate a taint of the node, and other pods use its GPUs."""
    return kinds == {ObstacleKind.TAINT, ObstacleKind.TAKEN}


def label_missing(kinds: Kinds) -> bool:
    """The node lacks a label that the pod asks for, and at most a taint is in the way besides."""
    return ObstacleKind.SELECTOR in kinds and kinds <= {ObstacleKind.SELECTOR, ObstacleKind.TAINT}


def too_few_gpus(kinds: Kinds) -> bool:
    """The node has fewer GPUs than the pod asks for, and at most a taint is in the way besides."""
    return ObstacleKind.TOO_SMALL in kinds and kinds <= {ObstacleKind.TOO_SMALL, ObstacleKind.TAINT}


def node_unavailable(kinds: Kinds) -> bool:
    """The node is cordoned or not ready, and is the right node for the pod: its labels and GPUs match."""
    unavailable = bool(kinds & {ObstacleKind.CORDONED, ObstacleKind.NOT_READY})
    wrong_node = {ObstacleKind.SELECTOR, ObstacleKind.TOO_SMALL, ObstacleKind.OTHER_GPU, ObstacleKind.NO_GPU}
    return unavailable and not kinds & wrong_node


def label_missing_and_more(kinds: Kinds) -> bool:
    """The node is available and lacks a label that the pod asks for, and its GPUs do not suffice."""
    others = {ObstacleKind.CORDONED, ObstacleKind.NOT_READY, ObstacleKind.OTHER_GPU, ObstacleKind.NO_GPU}
    return ObstacleKind.SELECTOR in kinds and not kinds & others


# Verdicts


def _nothing_advertised(situation: Situation) -> str:
    return f"no node advertises {situation.resource}, since no device plugin serves it"


def _no_node_has_resource(situation: Situation) -> str:
    return f"no node has {situation.resource}"


def _largest_node(situation: Situation) -> str:
    return f"no node has {situation.count} {situation.resource}; the largest has {situation.largest_count}"


# Fixes


def _wait_or_make_room(situation: Situation) -> str:
    """Wait, delete the Job that uses the GPU, or add a node."""
    user = _first_user(situation)
    if not user:
        return f"Wait, or {situation.add_nodes}."
    namespace, _, name = user.partition("/")
    delete = f"jobs.get(aks, {name!r}, namespace={namespace!r}).delete()"
    return f"Wait, delete {user} (a Job: {delete}), or {situation.add_nodes}."


def _first_user(situation: Situation) -> str:
    """Return ``namespace/name`` of a Job or pod that uses the GPUs, the first by name; empty if none is known."""
    users: Counter[str] = Counter()
    for use in (situation.usage or {}).values():
        users.update(use.by[situation.resource])
    own = pod_facts.owner(situation.pod)
    return next((name for name in sorted(users) if name != own), "")


def _tolerate(situation: Situation) -> str:
    return (
        "jobs.apply(aks, manifest, replace=True) adds the tolerations; in a manifest for kubectl, add them under "
        "spec.template.spec.tolerations."
    )


def _install_plugin(situation: Situation) -> str:
    return "plugin.install(aks)"


def _ask_for_other_resource(situation: Situation) -> str:
    if situation.has_azure:
        return "Ask for what capacity.gpus(aks) shows, or add a pool that has it (slices: gpu_instance_profile=...)."
    return "Ask for what capacity.gpus(aks) shows, or add a node that has it."


def _correct_selector(situation: Situation) -> str:
    return "Correct spec.template.spec.nodeSelector (or affinity): capacity.nodes(aks) shows the nodes."


def _correct_selector_first(situation: Situation) -> str:
    return "Correct the nodeSelector: capacity.nodes(aks) shows the labels that nodes of this kind have."


def _ask_for_less(situation: Situation) -> str:
    at_most = f"Ask for at most {situation.largest_count} for each pod"
    if not situation.has_azure:
        return f"{at_most}, or add a node that has {situation.count}."
    return (
        f"{at_most}, or add a pool whose VM size has {situation.count}: "
        "sizes.gpu_sizes(aks.azure, aks.location) shows the sizes."
    )


def _make_node_available(situation: Situation) -> str:
    cordoned = [node.name for node in situation.candidates if node.cordoned]
    if not cordoned:
        return "Wait until the node is ready: capacity.nodes(aks) shows it."
    call = f'aks.kube.patch("Node", "{cordoned[0]}", {{"spec": {{"unschedulable": None}}}})'
    return f"{call} (kubectl uncordon) lets the node take pods again, unless somebody is maintaining it."


RULES = (
    SchedulingRule("the GPUs are taken", only_gpus_taken, _wait_or_make_room),
    SchedulingRule("a taint is not tolerated", only_taint, _tolerate),
    SchedulingRule(
        "no device plugin", no_device_plugin, _install_plugin, summary=_nothing_advertised, error=GpuNotAdvertised
    ),
    SchedulingRule("another GPU resource", other_gpu_resource, _ask_for_other_resource, summary=_no_node_has_resource),
    SchedulingRule("a taint, and the GPUs are taken", taint_and_gpus_taken, _tolerate),
    SchedulingRule("a label is missing", label_missing, _correct_selector),
    SchedulingRule("too few GPUs", too_few_gpus, _ask_for_less, summary=_largest_node),
    SchedulingRule("the node is not available", node_unavailable, _make_node_available),
    SchedulingRule("a label is missing, and more", label_missing_and_more, _correct_selector_first),
)
"""The explanations, in the order in which they are tried."""


def first_rule(situation: Situation) -> SchedulingRule | None:
    """Return the first rule that applies to a node that the pod could use; None if none does.

    None is also returned if a node has no obstacle: then the pod lacks something that is not compared here, such as
    CPU or memory.
    """
    obstacles = [situation.kinds(node) for node in situation.candidates]
    if not all(obstacles):
        return None
    for rule in RULES:
        if any(rule.applies(kinds) for kinds in obstacles):
            return rule
    return None
