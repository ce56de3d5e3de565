"""The DaemonSet controller: one pod on every node that the template's selectors and tolerations allow.

Each pod names its node in its affinity and is bound by the scheduler, as in Kubernetes. A changed template replaces
pods a few at a time (``maxUnavailable``; surge is not offered, nor ``OnDelete``). Old revisions are not kept.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from itertools import filterfalse
from typing import Any

import orjson

from aksgpu.local.control import fit
from aksgpu.local.control.informer import key_of
from aksgpu.local.control.pods import PodController, controller_of, from_template
from aksgpu.local.control.runtime import Cluster, all_of, condition, finished
from aksgpu.local.objects import Object
from aksgpu.local.status import StatusError

HASH = "controller-revision-hash"
_GENERATION = "deprecated.daemonset.template.generation"
_TOLERATED = (
    ("NoExecute", ("not-ready", "unreachable")),
    ("NoSchedule", ("disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")),
)
TOLERATIONS: tuple[dict[str, str], ...] = tuple(
    {"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": effect}
    for effect, names in _TOLERATED
    for name in names
)
"""What every pod of a DaemonSet tolerates: it stays where others are moved away."""


def revision(template: dict[str, Any]) -> str:
    """A short name for a template's content."""
    return hashlib.sha256(orjson.dumps(template, option=orjson.OPT_SORT_KEYS)).hexdigest()[:10]


def tolerations(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """What a pod of this spec tolerates."""
    own = list(spec.get("tolerations") or ())
    return own + [each for each in TOLERATIONS if each not in own]


def new_pod(daemonset: Object, node: str) -> Object:
    """The pod of a DaemonSet for one node: it requires the node by name, beside what the template requires."""
    pod = from_template(daemonset)
    labels, spec = pod["metadata"].setdefault("labels", {}), pod["spec"]
    labels[HASH] = revision(daemonset["spec"]["template"])
    if generation := (daemonset["metadata"].get("annotations") or {}).get(_GENERATION):
        labels["pod-template-generation"] = generation
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    required = affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = required.get("nodeSelectorTerms") or [{}]
    required["nodeSelectorTerms"] = [{**term, "matchFields": [field]} for term in terms]
    spec["tolerations"] = tolerations(spec)
    return pod


def node_of(pod: Object) -> str:
    """The node that a pod of a DaemonSet is on, or is meant for."""
    if name := pod["spec"].get("nodeName"):
        return str(name)
    names = fit.shape(pod["spec"]).names
    return next(iter(names), "") if names else ""


def allowed(spec: dict[str, Any], nodes: Iterable[Object], *effects: str) -> list[str]:
    """The nodes that a template's selectors allow, and its tolerations in spite of taints of these effects."""
    shape, tolerated = fit.shape(spec), tolerations(spec)

    def allows(node: Object) -> bool:
        taints = [taint for taint in fit.in_force(node) if taint["effect"] in effects]
        labels = node["metadata"].get("labels") or {}
        return shape.selects(node["metadata"]["name"], labels) and all(fit.tolerates(tolerated, it) for it in taints)

    return [node["metadata"]["name"] for node in nodes if allows(node)]


def unavailable_limit(daemonset: Object, desired: int) -> int:
    """How many nodes may be without an available pod during an update."""
    update = daemonset["spec"].get("updateStrategy") or {}
    limit = str((update.get("rollingUpdate") or {}).get("maxUnavailable", 1))
    return max(1, math.ceil(desired * int(limit[:-1]) / 100)) if limit.endswith("%") else int(limit)


def _ready(pod: Object) -> bool:
    return condition(pod, "Ready").get("status") == "True"


def _leaving(obj: Object) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


class DaemonSetController(PodController):
    """Keeps one pod of each DaemonSet on each node that it belongs on."""

    resource, kind, component = "daemonsets", "DaemonSet", "daemonset-controller"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._nodes = cluster.informer("nodes")
        self._nodes.on_change(self._node_changed)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if old and new and _placing(old) == _placing(new):
            return  # a heartbeat
        for daemonset in self.informer:
            self.queue.add(key_of(daemonset))

    async def sync(self, key: str) -> float | None:
        """Make and delete pods of one DaemonSet, then write its status."""
        daemonset = self.informer.get(key)
        if daemonset is None or _leaving(daemonset):
            return None
        template = daemonset["spec"]["template"]["spec"]
        wanted = allowed(template, self._nodes, "NoSchedule", "NoExecute")
        keeping = set(allowed(template, self._nodes, "NoExecute"))
        by_node: dict[str, list[Object]] = {}
        for pod in self.pods[key]:
            if controller_of(pod)["uid"] == daemonset["metadata"]["uid"]:
                by_node.setdefault(node_of(pod), []).append(pod)
        serving, trouble = await self._clear(daemonset, keeping, by_node), None
        try:
            await all_of(self._make(daemonset, name, serving) for name in wanted if name not in by_node)
            await self._update(daemonset, wanted, serving)
        except StatusError as error:  # the status tells of the pods there are, all the same
            trouble = error
        await self._report(daemonset, wanted, serving)
        if trouble:
            raise trouble
        return None

    async def _clear(self, daemonset: Object, keeping: set[str], by_node: dict[str, list[Object]]) -> dict[str, Object]:
        """Delete pods that are not wanted or have ended. The answer is the one pod of each node that stays."""
        staying: dict[str, Object] = {}
        doomed: list[Object] = []
        for name, pods in by_node.items():
            for pod in filterfalse(_leaving, pods):
                if name in keeping and name not in staying and not finished(pod):
                    staying[name] = pod
                    continue
                doomed.append(pod)
                if (pod.get("status") or {}).get("phase") == "Failed":
                    text = f"Found failed daemon pod {key_of(pod)} on node {name}, will try to kill it"
                    self.tell(daemonset, "Warning", "FailedDaemonPod", text)
        await self.remove(daemonset, doomed)
        return staying

    async def _make(self, daemonset: Object, node: str, serving: dict[str, Object]) -> None:
        serving[node] = await self.make(daemonset, new_pod(daemonset, node))

    async def _update(self, daemonset: Object, wanted: list[str], serving: dict[str, Object]) -> None:
        """Replace pods of an older template: those that are not ready at once, the others a few at a time."""
        ready = {name: pod for name in wanted if (pod := serving.get(name)) and _ready(pod)}
        room = max(0, unavailable_limit(daemonset, len(wanted)) - (len(wanted) - len(ready)))
        current = revision(daemonset["spec"]["template"])
        old = {name: serving[name] for name in wanted if name in serving and not _current(serving[name], current)}
        doomed = [name for name in old if name not in ready] + [name for name in old if name in ready][:room]
        await self.remove(daemonset, [serving.pop(name) for name in doomed])

    async def _report(self, daemonset: Object, wanted: list[str], serving: dict[str, Object]) -> None:
        current, pods = revision(daemonset["spec"]["template"]), [serving[name] for name in wanted if name in serving]
        ready = sum(map(_ready, pods))
        status: dict[str, Any] = {
            "currentNumberScheduled": len(pods),
            "numberMisscheduled": len(serving) - len(pods),
            "desiredNumberScheduled": len(wanted),
            "numberReady": ready,
            "observedGeneration": daemonset["metadata"].get("generation", 1),
        }
        updated = sum(_current(pod, current) for pod in pods)
        extra = {"updatedNumberScheduled": updated, "numberAvailable": ready, "numberUnavailable": len(wanted) - ready}
        status |= {name: number for name, number in extra.items() if number}
        await self.cluster.update_status("daemonsets", daemonset, status)


def _placing(node: Object) -> Any:
    return node["metadata"].get("labels"), fit.in_force(node)


def _current(pod: Object, wanted: str) -> bool:
    return bool((pod["metadata"].get("labels") or {}).get(HASH) == wanted)
