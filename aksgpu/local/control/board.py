"""The scheduler's picture of the cluster: nodes with what is in use, and waiting pods in groups of the same shape.

What a change costs does not grow with the number of pods or nodes: it alters one node, and that node is judged anew
once a *group*, not once a pod. Nothing here reads or writes the API.
"""

from __future__ import annotations

import itertools
from collections import Counter, OrderedDict
from collections.abc import Iterator
from operator import itemgetter
from typing import Any, NamedTuple

from aksgpu.local.control import fit
from aksgpu.local.control.fit import Held, NodeView, Shape, Verdict
from aksgpu.local.control.informer import key_of
from aksgpu.local.control.runtime import finished
from aksgpu.local.objects import Object

SCHEDULER = "default-scheduler"

RETELL = 1.0
"""Seconds after which waiting pods are told a new reason."""

_IDLE_GROUPS = 16
_ENOUGH_NODES = 100
"""Comparing this many feasible nodes is enough, as for the Kubernetes scheduler."""

_NOT_HELPFUL = "Preemption is not helpful for scheduling"
_NO_VICTIMS = "No preemption victims found for incoming pod"
_ELSEWHERE = "node(s) didn't satisfy plugin(s) [NodeAffinity]"


class Group:
    """Waiting pods of one shape, and what each node says to them."""

    def __init__(self, shape: Shape, nominee: str = "") -> None:
        self.shape = shape
        self.nominee = nominee
        """The uid of the one pod in here, when room was made for it on a node."""
        self.pods: OrderedDict[str, Object] = OrderedDict()
        self.arrivals: dict[str, int] = {}
        self.untold: dict[str, None] = {}
        """Pods that do not bear the present message yet."""
        self.said = ""
        self.said_at = 0.0
        self.feasible: dict[str, float] = {}
        """Nodes where the pod fits, and how well."""
        self.makeable: dict[str, None] = {}
        """Nodes where the pod would fit if others were preempted."""
        self._verdicts: dict[str, Verdict] = {}
        self._reasons: Counter[str] = Counter()
        self._hopeless = 0

    def judge(self, node: NodeView) -> None:
        """Ask one node anew."""
        self.forget(node.name)
        verdict = fit.judge(self.shape, node, nominee=self.nominee)
        self._verdicts[node.name] = verdict
        self._reasons.update(verdict.reasons)
        if not verdict.reasons:
            self.feasible[node.name] = node.score(self.shape)
        elif not verdict.room_would_help:
            self._hopeless += 1
        elif self.shape.preempts and fit.victims(self.shape, node, nominee=self.nominee):
            self.makeable[node.name] = None

    def forget(self, name: str) -> None:
        """Take back what a node said."""
        if verdict := self._verdicts.pop(name, None):
            self._reasons.subtract(verdict.reasons)
            self._hopeless -= bool(verdict.reasons) and not verdict.room_would_help
            self.feasible.pop(name, None)
            self.makeable.pop(name, None)

    def message(self, nodes: int) -> str:
        """Why these pods wait, in the Kubernetes scheduler's words."""
        if not nodes:
            return "no nodes available to schedule pods"
        asked = len(self._verdicts)
        head = f"0/{nodes} nodes are available:"
        reasons = {reason: count for reason, count in self._reasons.items() if count > 0}
        if asked < nodes:
            reasons[_ELSEWHERE] = nodes - asked
        why = f"{head} {_histogram(reasons)}."
        if self.nominee:
            return why
        if not self.shape.preempts:
            return f"{why} preemption: not eligible due to preemptionPolicy=Never."
        hopeless = self._hopeless + nodes - asked
        return f"{why} preemption: {head} {_histogram({_NOT_HELPFUL: hopeless, _NO_VICTIMS: nodes - hopeless})}."


def _histogram(counts: dict[str, int]) -> str:
    return ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items() if count))


class Choice(NamedTuple):
    """A pod and the node that it goes to."""

    pod: Object
    node: str


class Preemption(NamedTuple):
    """A pod, and the pods that must leave a node for it."""

    pod: Object
    node: str
    victims: list[Held]


class Board:
    """Nodes, pods that hold a part of them, and pods that wait."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeView] = {}
        self.silent = False
        """Whether some pods have not been told the present reason yet."""
        self._known = 0
        self._places: dict[str, str] = {}
        self._assumed: set[str] = set()
        self._groups: dict[bytes, Group] = {}
        self._waiting: dict[str, bytes] = {}
        self._idle: OrderedDict[bytes, None] = OrderedDict()
        self._nominations: dict[str, str] = {}
        self._making: set[str] = set()
        self._arrival = itertools.count()

    # What happens in the cluster

    def node_changed(self, name: str, node: Object | None) -> None:
        """A Node object is there, changed, or is gone (None)."""
        view = self.nodes.get(name) or NodeView(name)
        if node is None:
            self._known -= view.node is not None
            view.node = None
            if not view.pods:
                self.nodes.pop(name, None)
            for group in self._groups.values():
                group.forget(name)
            return
        self.nodes[name] = view
        self._known += view.node is None
        if view.describe(node):
            self._judge(view)

    def pod_changed(self, uid: str, pod: Object | None) -> None:
        """A pod is there, changed, or is gone (None)."""
        if pod is None or finished(pod):
            self._assumed.discard(uid)
            self._unwait(uid)
            self._release(uid)
        elif place := pod["spec"].get("nodeName"):
            self._assumed.discard(uid)
            self._unwait(uid)
            self._hold(pod, place)
        elif uid not in self._assumed:
            self._wait(pod)

    def assume(self, pod: Object, node: str) -> None:
        """Count the pod as running on the node, before the API server says so."""
        uid = pod["metadata"]["uid"]
        self._unwait(uid)
        self._assumed.add(uid)
        self._hold(pod, node)

    def withdraw(self, pod: Object) -> None:
        """The node could not be given to the pod after all: it waits again."""
        uid = pod["metadata"]["uid"]
        if uid in self._assumed:
            self._assumed.discard(uid)
            self._release(uid)
            self._wait(pod)

    def nominate(self, pod: Object, node: str) -> None:
        """Keep room on the node for a pod that waits until others have left."""
        self._unwait(pod["metadata"]["uid"])
        self._making.add(pod["metadata"]["uid"])
        self._wait(pod, node)

    def made(self, pod: Object) -> None:
        """The pods that stand in the way of this one have been asked to leave."""
        self._making.discard(pod["metadata"]["uid"])

    # What is to be done

    def unmet(self, why: str) -> str:
        """Why a pod waits that no node could take, whatever leaves it."""
        head = f"0/{self._known} nodes are available:"
        return f"{head} {why}. preemption: {head} {_histogram({_NOT_HELPFUL: self._known})}."

    def waits(self, uid: str) -> bool:
        """Whether the pod has no node yet."""
        return uid in self._waiting

    def next(self) -> Choice | None:
        """The most important pod that fits somewhere, and the best node for it."""
        ready = [group for group in self._groups.values() if group.pods and group.feasible]
        if not ready:
            return None
        group = min(ready, key=_rank)
        best = max(itertools.islice(group.feasible.items(), _ENOUGH_NODES), key=itemgetter(1))
        return Choice(next(iter(group.pods.values())), best[0])

    def preemptions(self) -> Iterator[Preemption]:
        """Pods that fit nowhere but would if less important ones left, the most important first."""
        stuck = [group for group in self._groups.values() if group.pods and group.makeable and not group.feasible]
        for group in sorted(stuck, key=_rank):
            if not group.pods or group.nominee in self._making or (group.nominee and self._leaving(group)):
                continue
            pod = next(iter(group.pods.values()))
            plans = [(name, self._victims(group, name)) for name in itertools.islice(group.makeable, _ENOUGH_NODES)]
            plans = [plan for plan in plans if plan[1]]
            if plans:
                node, victims = min(plans, key=lambda plan: _cost(plan[1]))
                yield Preemption(pod, node, victims)

    def untold(self, now: float) -> Iterator[tuple[Object, str]]:
        """Pods that wait and have not been told why, or not the present reason; ``now`` in seconds.

        While nodes come and go, reasons change often: pods that were told one hear the next a second later.
        """
        self.silent = False
        for group in list(self._groups.values()):
            if not group.pods or group.feasible:
                continue
            message = group.message(self._known)
            if message != group.said and now - group.said_at >= RETELL:
                group.untold.update(dict.fromkeys(group.pods))
                group.said, group.said_at = message, now
            self.silent |= message != group.said
            told = [(group.pods[uid], message) for uid in group.untold]
            group.untold.clear()
            yield from told

    def _victims(self, group: Group, name: str) -> list[Held]:
        return fit.victims(group.shape, self.nodes[name], nominee=group.nominee)

    def _leaving(self, group: Group) -> bool:
        """Whether the pods preempted for this group's pod are still on their way out."""
        view = self.nodes.get(self._nominations.get(group.nominee, ""))
        return view is not None and any(
            pod.leaving and pod.priority < group.shape.priority for pod in view.pods.values()
        )

    # Bookkeeping

    def _judge(self, view: NodeView) -> None:
        if view.node is None:
            return
        for group in self._groups.values():
            if group.shape.names is None or view.name in group.shape.names:
                group.judge(view)

    def _hold(self, pod: Object, place: str) -> None:
        meta, spec = pod["metadata"], pod["spec"]
        uid, leaving = meta["uid"], bool(meta.get("deletionTimestamp"))
        view = self.nodes.get(self._places.get(uid, ""))
        known = view.pods.get(uid) if view else None
        if known and view and view.name == place and known.leaving == leaving:
            return
        wants = known.requests if known else fit.requests(spec)
        created = meta.get("creationTimestamp") or ""
        held = Held(uid, key_of(pod), int(spec.get("priority") or 0), wants, created, leaving)
        if known:
            self._release(uid)
        view = self.nodes.setdefault(place, NodeView(place))
        view.hold(held)
        self._places[uid] = place
        self._judge(view)

    def _release(self, uid: str) -> None:
        if view := self.nodes.get(self._places.pop(uid, "")):
            view.release(uid)
            if view.node is None and not view.pods:
                del self.nodes[view.name]
            self._judge(view)

    def _wait(self, pod: Object, nominated: str = "") -> None:
        meta, spec = pod["metadata"], pod["spec"]
        uid = meta["uid"]
        if uid in self._waiting:
            group = self._groups[self._waiting[uid]]
            if not meta.get("deletionTimestamp") and group.pods[uid]["spec"] == spec:
                group.pods[uid] = pod
                return
            self._unwait(uid)
        ours = spec.get("schedulerName", SCHEDULER) == SCHEDULER and not spec.get("schedulingGates")
        if not ours or meta.get("deletionTimestamp"):
            return
        nominated = nominated or (pod.get("status") or {}).get("nominatedNodeName") or ""
        group = self._group(pod, fit.shape(spec), nominated)
        group.pods[uid] = pod
        group.arrivals[uid] = next(self._arrival)
        group.untold[uid] = None

    def _group(self, pod: Object, shape: Shape, nominated: str) -> Group:
        uid = pod["metadata"]["uid"]
        view = self.nodes.get(nominated)
        key = shape.key + uid.encode() if view else shape.key
        self._waiting[uid] = key
        if view:
            self._nominations[uid] = nominated
            view.nominated[uid] = Held(uid, key_of(pod), shape.priority, shape.requests)
            self._judge(view)
        if (group := self._groups.get(key)) is None:
            group = self._groups[key] = Group(shape, uid if view else "")
            names = self.nodes if shape.names is None else shape.names
            for name in names:
                if (each := self.nodes.get(name)) and each.node is not None:
                    group.judge(each)
        self._idle.pop(key, None)
        return group

    def _unwait(self, uid: str) -> None:
        if (key := self._waiting.pop(uid, None)) is None:
            return
        group = self._groups[key]
        for table in (group.pods, group.arrivals, group.untold):
            table.pop(uid, None)
        if view := self.nodes.get(self._nominations.pop(uid, "")):
            view.nominated.pop(uid, None)
            self._judge(view)
        if not group.pods:
            self._retire(key, group)

    def _retire(self, key: bytes, group: Group) -> None:
        """Keep a few empty groups: the next pod of that shape is spared the round of all nodes."""
        self._idle[key] = None
        doomed = [key] if group.nominee or group.shape.names is not None else []
        if not doomed and len(self._idle) > _IDLE_GROUPS:
            doomed = [next(iter(self._idle))]
        for each in doomed:
            del self._idle[each]
            del self._groups[each]


def _rank(group: Group) -> tuple[int, int]:
    return -group.shape.priority, next(iter(group.arrivals.values()))


def _cost(victims: list[Held]) -> tuple[Any, ...]:
    """Least important victims first, then fewest, as Kubernetes chooses among nodes."""
    return max(pod.priority for pod in victims), sum(pod.priority for pod in victims), len(victims)
