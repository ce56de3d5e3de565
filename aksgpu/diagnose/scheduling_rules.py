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
from aksgpu.diagnose.cures import EDIT_JOB_SHELL, Cure, edit_job, fill
from aksgpu.diagnose.placement import Obstacle, ObstacleKind
from aksgpu.diagnose.scheduling_events import add_nodes_call
from aksgpu.diagnose.scheduling_texts import (
    NODE_LEAVING,
    NODE_PRESSURE,
    NODE_STARTING,
    ONLY_SYSTEM_NODES,
    TOLERATE,
)
from aksgpu.errors import AksGpuError, GpuLost, GpuNotAdvertised, PodPending
from aksgpu.kube import pod_facts
from aksgpu.kube.client import Object
from aksgpu.kube.node_facts import GPU, Node

__all__ = ["NO_PLUGIN", "RULES", "UNHEALTHY", "Kinds", "SchedulingRule", "Situation", "first_rule", "first_user"]

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
        user_kind: the kind of the first user of the GPUs: ``Job`` or ``Pod``, or empty if it is another or not known.
    """

    pod: Object
    requested: Mapping[str, int]
    nodes: list[Node]
    obstacles: Mapping[str, list[Obstacle]]
    usage: Mapping[str, Usage] | None
    has_azure: bool
    user_kind: str = ""

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
        cure: makes what helps.
        summary: makes the verdict, as a clause; None uses the texts of the obstacles.
        error: the exception class that represents it.
    """

    name: str
    applies: Callable[[Kinds], bool]
    cure: Callable[[Situation], Cure]
    summary: Callable[[Situation], str] | None = None
    error: type[AksGpuError] = PodPending

    def verdict(self, situation: Situation) -> str:
        """Return the verdict, as a clause."""
        if self.summary is not None:
            return self.summary(situation)
        return situation.describe([node for node in situation.candidates if self.applies(situation.kinds(node))])


# Predicates


_STARTING = frozenset({ObstacleKind.STARTING, ObstacleKind.NOT_READY, ObstacleKind.NO_PLUGIN})


def node_is_starting(kinds: Kinds) -> bool:
    """The node is being set up, and nothing else keeps the pod off it."""
    return ObstacleKind.STARTING in kinds and kinds <= _STARTING


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


def taint_and_starting(kinds: Kinds) -> bool:
    """The pod does not tolerate a taint of the node's pool, and the node is being set up."""
    return {ObstacleKind.TAINT, ObstacleKind.STARTING} <= kinds and kinds <= {ObstacleKind.TAINT, *_STARTING}


def gpus_unhealthy(kinds: Kinds) -> bool:
    """The node has GPUs, and none is healthy; at most a taint is in the way besides."""
    return ObstacleKind.UNHEALTHY in kinds and kinds <= {ObstacleKind.UNHEALTHY, ObstacleKind.TAINT}


def system_node(kinds: Kinds) -> bool:
    """The node is reserved for the system, and no label or GPU is missing."""
    return ObstacleKind.SYSTEM in kinds and not kinds & {
        ObstacleKind.SELECTOR,
        ObstacleKind.TOO_SMALL,
        ObstacleKind.NO_GPU,
    }


def node_under_pressure(kinds: Kinds) -> bool:
    """The node lacks disk or memory, and is the right node for the pod."""
    return ObstacleKind.PRESSURE in kinds and not kinds & _WRONG_NODE


def node_leaving(kinds: Kinds) -> bool:
    """The node is about to be removed, repaired or upgraded, and is the right node for the pod."""
    return ObstacleKind.LEAVING in kinds and not kinds & _WRONG_NODE


_WRONG_NODE = frozenset(
    {ObstacleKind.SELECTOR, ObstacleKind.TOO_SMALL, ObstacleKind.OTHER_GPU, ObstacleKind.NO_GPU, ObstacleKind.SYSTEM}
)
"""Obstacles that stay when the node is available."""


def label_missing(kinds: Kinds) -> bool:
    """The node lacks a label that the pod asks for, and at most a taint is in the way besides."""
    return ObstacleKind.SELECTOR in kinds and kinds <= {ObstacleKind.SELECTOR, ObstacleKind.TAINT}


def too_few_gpus(kinds: Kinds) -> bool:
    """The node has fewer GPUs than the pod asks for, and at most a taint is in the way besides."""
    return ObstacleKind.TOO_SMALL in kinds and kinds <= {ObstacleKind.TOO_SMALL, ObstacleKind.TAINT}


def node_unavailable(kinds: Kinds) -> bool:
    """The node is cordoned or not ready, and is the right node for the pod: its labels and GPUs match."""
    unavailable = bool(kinds & {ObstacleKind.CORDONED, ObstacleKind.NOT_READY})
    return unavailable and not kinds & _WRONG_NODE


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


# Cures


def _wait_or_make_room(situation: Situation) -> Cure:
    """Wait, delete what uses the GPU, or add a node. Only a Job ends by itself."""
    add = add_nodes_call(situation.pool, nodes=_nodes_in_pool(situation), has_azure=situation.has_azure)
    user = first_user(situation)
    code, shell = _add_node(situation)
    if not user:
        return Cure(f"Wait until a GPU is free, or {add}.", code, shell)
    namespace, _, name = user.partition("/")
    if situation.user_kind == "Job":
        delete = f"jobs.get(aks, {name!r}, namespace={namespace!r}).delete()"
        advice = f"Wait until {user} ends, delete it (a Job: {delete}), or {add}."
        return _either(advice, code, shell, delete, f"kubectl delete job {name} --namespace {namespace}")
    if situation.user_kind == "Pod":
        delete = f'aks.kube.delete("Pod", {name!r}, {namespace!r})'
        advice = f"{user} is a pod without a Job and may never end: delete it ({delete}), or {add}."
        return _either(advice, code, shell, delete, f"kubectl delete pod {name} --namespace {namespace}")
    advice = f"{user} is not a Job and may never end: scale it down or delete it, or {add}."
    return _either(advice, code, shell, "", f"kubectl get all --namespace {namespace}")


def _either(advice: str, add_code: str, add_shell: str, delete: str, delete_shell: str) -> Cure:
    """Return a cure that adds a node, with the deletion as a comment: it ends the work of somebody."""
    code = [add_code or "from aksgpu import capacity\ncapacity.gpus(aks)"]
    if delete:
        module = "from aksgpu import jobs; " if delete.startswith("jobs.") else ""
        code.append(f"# or: {module}{delete}")
    return Cure(advice, "\n".join(code), "\n".join(part for part in (add_shell, f"# or: {delete_shell}") if part))


def _nodes_in_pool(situation: Situation) -> int:
    return sum(node.pool == situation.pool for node in situation.nodes)


def _add_node(situation: Situation) -> tuple[str, str]:
    """Return the code and the command that add a node to the pool; empty without a pool."""
    if not situation.has_azure:
        return "", ""
    if situation.pool is None:
        return "from aksgpu import cluster\ncluster.add_gpu_pool(aks, count=1)", ""
    count = _nodes_in_pool(situation) + 1
    return (
        f"from aksgpu import cluster\ncluster.scale_pool(aks, {situation.pool!r}, count={count})",
        "az aks nodepool scale --resource-group GROUP --cluster-name CLUSTER "
        f"--name {situation.pool} --node-count {count}",
    )


def first_user(situation: Situation) -> str:
    """Return ``namespace/name`` of what uses the GPUs, the first by name; empty if none is known."""
    users: Counter[str] = Counter()
    for use in (situation.usage or {}).values():
        users.update(use.by[situation.resource])
    own = pod_facts.owner(situation.pod)
    return next((name for name in sorted(users) if name != own), "")


def _tolerate(situation: Situation) -> Cure:
    return TOLERATE


def _install_plugin(situation: Situation) -> Cure:
    return Cure(
        "plugin.install(aks)",
        "from aksgpu import plugin\nplugin.install(aks)",
        "kubectl get daemonsets --all-namespaces | grep device-plugin",
    )


def _ask_for_other_resource(situation: Situation) -> Cure:
    return Cure(
        "Ask for what capacity.gpus(aks) shows, or add a pool that has it (slices: gpu_instance_profile=...).",
        "from aksgpu import capacity\ncapacity.gpus(aks)",
        "kubectl get nodes -o custom-columns=NAME:.metadata.name,RESOURCES:.status.allocatable",
        "Ask for what capacity.gpus(aks) shows, or add a node that has it.",
    )


def _correct_selector(situation: Situation) -> Cure:
    return Cure(
        "Correct spec.template.spec.nodeSelector (or affinity): capacity.nodes(aks) shows the nodes.",
        edit_job('pod["nodeSelector"] = {}'),
        "kubectl get nodes --show-labels\n" + EDIT_JOB_SHELL,
    )


def _correct_selector_first(situation: Situation) -> Cure:
    return Cure(
        "Correct the nodeSelector: capacity.nodes(aks) shows the labels that nodes of this kind have.",
        edit_job('pod["nodeSelector"] = {}'),
        "kubectl get nodes --show-labels\n" + EDIT_JOB_SHELL,
    )


def _ask_for_less(situation: Situation) -> Cure:
    at_most = f"Ask for at most {situation.largest_count} for each pod"
    line = f'pod["containers"][0]["resources"]["limits"]["{situation.resource}"] = "{situation.largest_count}"'
    return Cure(
        f"{at_most}, or add a pool whose VM size has {situation.count}: "
        "sizes.gpu_sizes(aks.azure, aks.location) shows the sizes.",
        edit_job(line),
        EDIT_JOB_SHELL,
        f"{at_most}, or add a node that has {situation.count}.",
    )


def _make_node_available(situation: Situation) -> Cure:
    cordoned = [node.name for node in situation.candidates if node.cordoned]
    if not cordoned:
        names = [node.name for node in situation.candidates if not node.ready] or ["NODE"]
        return Cure(
            f"diagnose.node(aks, {names[0]!r}) shows what the node lacks. A new node becomes ready after some minutes; "
            "one that stays like this must be replaced.",
            f"from aksgpu import diagnose\ndiagnose.node(aks, {names[0]!r})",
            f"kubectl describe node {names[0]}",
        )
    call = f'aks.kube.patch("Node", "{cordoned[0]}", {{"spec": {{"unschedulable": None}}}})'
    return Cure(
        f"{call} (kubectl uncordon) lets the node take pods again, unless somebody is maintaining it.",
        call,
        f"kubectl uncordon {cordoned[0]}",
    )


def _node_named(cure: Cure, kind: ObstacleKind) -> Callable[[Situation], Cure]:
    """Return a function that gives the cure with the name of the first node that has an obstacle of a kind."""

    def cure_for(situation: Situation) -> Cure:
        for node in situation.candidates:
            if kind in situation.kinds(node):
                names = {"NODE": node.name, "POOL": node.pool}
                return Cure(
                    fill(cure.advice, names),
                    fill(cure.python, names),
                    fill(cure.shell, names),
                    fill(cure.other_advice, names),
                )
        return cure

    return cure_for


_RESTART_PLUGIN = Cure(
    "Restart the device plugin on NODE, which reads the state of the GPUs again; if they stay unhealthy, replace the "
    "node: diagnose.node(aks, 'NODE') and plugin.status(aks) show what is wrong with them.",
    'from aksgpu import diagnose, plugin\ndiagnose.node(aks, "NODE")\nplugin.status(aks)',
    "kubectl rollout restart daemonset/nvidia-device-plugin-daemonset --namespace gpu-resources\nkubectl describe node "
    "NODE",
)


NO_PLUGIN = SchedulingRule(
    "no device plugin", no_device_plugin, _install_plugin, summary=_nothing_advertised, error=GpuNotAdvertised
)
"""No device plugin serves the GPUs."""
UNHEALTHY = "the GPUs are unhealthy"
"""Name of the rule for nodes that have GPUs of which none is healthy."""

RULES = (
    SchedulingRule("the node is being set up", node_is_starting, _node_named(NODE_STARTING, ObstacleKind.STARTING)),
    SchedulingRule("the GPUs are taken", only_gpus_taken, _wait_or_make_room),
    SchedulingRule("a taint is not tolerated", only_taint, _tolerate),
    SchedulingRule("a taint, and the node is being set up", taint_and_starting, _tolerate),
    NO_PLUGIN,
    SchedulingRule(UNHEALTHY, gpus_unhealthy, _node_named(_RESTART_PLUGIN, ObstacleKind.UNHEALTHY), error=GpuLost),
    SchedulingRule("another GPU resource", other_gpu_resource, _ask_for_other_resource, summary=_no_node_has_resource),
    SchedulingRule("a taint, and the GPUs are taken", taint_and_gpus_taken, _tolerate),
    SchedulingRule("a label is missing", label_missing, _correct_selector),
    SchedulingRule("too few GPUs", too_few_gpus, _ask_for_less, summary=_largest_node),
    SchedulingRule(
        "the node is under pressure", node_under_pressure, _node_named(NODE_PRESSURE, ObstacleKind.PRESSURE)
    ),
    SchedulingRule("the node is about to leave", node_leaving, _node_named(NODE_LEAVING, ObstacleKind.LEAVING)),
    SchedulingRule("the node is not available", node_unavailable, _make_node_available),
    SchedulingRule("only nodes of the system", system_node, lambda _: ONLY_SYSTEM_NODES),
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
