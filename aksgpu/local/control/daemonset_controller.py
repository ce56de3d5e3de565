"""The DaemonSet controller: one pod on every node that the template's selectors and tolerations allow.

Each pod names its node in its affinity and is bound by the scheduler, as in Kubernetes. A changed template replaces
pods a few at a time (``maxUnavailable``; surge is not offered) or as the user deletes them (``OnDelete``). Old
revisions are not kept.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import orjson

from aksgpu.common.tolerations import tolerates
from aksgpu.local.control import filters
from aksgpu.local.control.controller_runtime import Cluster, get_condition, is_finished, run_all
from aksgpu.local.control.informer import object_key
from aksgpu.local.control.pod_control import PodController, controller_of, from_template, reference_to
from aksgpu.local.objects import Object
from aksgpu.local.selectors import labels_match

REVISION_LABEL = "controller-revision-hash"
_GENERATION = "deprecated.daemonset.template.generation"
_PRESSURES = ("disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")
DEFAULT_TOLERATIONS = tuple(
    {"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": effect}
    for effect, names in (("NoExecute", ("not-ready", "unreachable")), ("NoSchedule", _PRESSURES))
    for name in names
)
"""What every pod of a DaemonSet tolerates: it stays where others are moved away."""


def revision(template: dict[str, Any]) -> str:
    """A short name for a template's content."""
    return hashlib.sha256(orjson.dumps(template, option=orjson.OPT_SORT_KEYS)).hexdigest()[:10]


def pod_tolerations(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """What a pod of this spec tolerates."""
    own = list(spec.get("tolerations") or ())
    return own + [each for each in DEFAULT_TOLERATIONS if each not in own]


def new_pod(daemonset: Object, node: str) -> Object:
    """The pod of a DaemonSet for one node: it requires the node by name, beside what the template requires."""
    pod = from_template(daemonset)
    labels = pod["metadata"].setdefault("labels", {})
    spec = pod["spec"]
    labels[REVISION_LABEL] = revision(daemonset["spec"]["template"])
    if generation := (daemonset["metadata"].get("annotations") or {}).get(_GENERATION):
        labels["pod-template-generation"] = generation
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    required = affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = required.get("nodeSelectorTerms") or [{}]
    required["nodeSelectorTerms"] = [{**term, "matchFields": [field]} for term in terms]
    spec["tolerations"] = pod_tolerations(spec)
    return pod


def target_node(pod: Object) -> str:
    """The node that a pod of a DaemonSet is on, or is meant for."""
    if name := pod["spec"].get("nodeName"):
        return str(name)
    names = filters.PodRequirements(pod["spec"]).names
    return next(iter(names), "") if names else ""


def eligible_nodes(spec: dict[str, Any], nodes: Iterable[Object], *effects: str) -> list[str]:
    """The nodes that a template's selectors allow, and its tolerations in spite of taints of these effects."""
    shape = filters.PodRequirements(spec)
    tolerated = pod_tolerations(spec)

    def allows(node: Object) -> bool:
        taints = [taint for taint in filters.effective_taints(node) if taint["effect"] in effects]
        labels = node["metadata"].get("labels") or {}
        return shape.selects(node["metadata"]["name"], labels) and all(tolerates(tolerated, it) for it in taints)

    return [node["metadata"]["name"] for node in nodes if allows(node)]


def unavailable_limit(daemonset: Object, desired: int) -> int:
    """How many nodes may be without an available pod during an update."""
    update = daemonset["spec"].get("updateStrategy") or {}
    limit = str((update.get("rollingUpdate") or {}).get("maxUnavailable", 1))
    return max(1, math.ceil(desired * int(limit[:-1]) / 100)) if limit.endswith("%") else int(limit)


def nodes_to_update(daemonset: Object, desired: list[str], kept: dict[str, Object]) -> list[str]:
    """The nodes whose pod of an older template goes now: where it is not ready at once, elsewhere a few at a time."""
    if (daemonset["spec"].get("updateStrategy") or {}).get("type") == "OnDelete":
        return []
    old = [name for name in desired if name in kept and not _is_current(kept[name], daemonset)]
    ready = {name for name in desired if name in kept and _is_ready(kept[name])}
    room = max(0, unavailable_limit(daemonset, len(desired)) - (len(desired) - len(ready)))
    return [name for name in old if name not in ready] + [name for name in old if name in ready][:room]


def build_status(daemonset: Object, desired: list[str], kept: dict[str, Object]) -> dict[str, Any]:
    """The status, with the fields that Kubernetes leaves out when they are zero left out."""
    pods = [kept[name] for name in desired if name in kept]
    ready = sum(map(_is_ready, pods))
    status = {
        "currentNumberScheduled": len(pods),
        "numberMisscheduled": len(kept) - len(pods),
        "desiredNumberScheduled": len(desired),
        "numberReady": ready,
        "observedGeneration": daemonset["metadata"].get("generation", 1),
    }
    updated = sum(_is_current(pod, daemonset) for pod in pods)
    extra = {"updatedNumberScheduled": updated, "numberAvailable": ready, "numberUnavailable": len(desired) - ready}
    return status | {name: number for name, number in extra.items() if number}


def _is_ready(pod: Object) -> bool:
    return get_condition(pod, "Ready").get("status") == "True"


def _is_current(pod: Object, daemonset: Object) -> bool:
    return bool((pod["metadata"].get("labels") or {}).get(REVISION_LABEL) == revision(daemonset["spec"]["template"]))


class DaemonSetController(PodController):
    """Keeps one pod of each DaemonSet on each node that it belongs on."""

    resource = "daemonsets"
    kind = "DaemonSet"
    component = "daemonset-controller"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._orphans = cluster.informer("pods").index(_orphan_namespace)
        self._nodes = cluster.informer("nodes")
        self._nodes.on_change(self._node_changed)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if old and new and _placement_fields(old) == _placement_fields(new):
            return  # a heartbeat
        for daemonset in self.informer:
            self.queue.add(object_key(daemonset))

    async def sync(self, key: str) -> float | None:
        """Make and delete pods of one DaemonSet, then write its status."""
        daemonset = self.informer.get(key)
        if daemonset is None or daemonset["metadata"].get("deletionTimestamp"):
            return None
        if (daemonset.get("status") or {}).get("observedGeneration") != daemonset["metadata"].get("generation"):
            await self._adopt(daemonset)
        template = daemonset["spec"]["template"]["spec"]
        desired = eligible_nodes(template, self._nodes, "NoSchedule", "NoExecute")
        keeping = set(eligible_nodes(template, self._nodes, "NoExecute"))
        # The one pod of each node that stays, and the nodes that have any, if only one that is on its way out.
        kept: dict[str, Object] = {}
        taken: set[str] = set()
        doomed: list[Object] = []
        for pod in self.pods[key]:
            if controller_of(pod)["uid"] != daemonset["metadata"]["uid"]:
                continue
            taken.add(name := target_node(pod))
            if pod["metadata"].get("deletionTimestamp"):
                continue
            if name in keeping and name not in kept and not is_finished(pod):
                kept[name] = pod
                continue
            doomed.append(pod)
            if (pod.get("status") or {}).get("phase") == "Failed":
                text = f"Found failed daemon pod {object_key(pod)} on node {name}, will try to kill it"
                self.record_event(daemonset, "Warning", "FailedDaemonPod", text)

        async def make(name: str) -> None:
            kept[name] = await self.make(daemonset, new_pod(daemonset, name))

        try:
            await self.remove(daemonset, doomed)
            await run_all((make(name) for name in desired if name not in taken), slowly=True)
            old = nodes_to_update(daemonset, desired, kept)
            await self.remove(daemonset, [kept.pop(name) for name in old])
        finally:  # the status tells of the pods there are, whatever was refused
            await self.cluster.update_status("daemonsets", daemonset, build_status(daemonset, desired, kept))
        return None

    async def _adopt(self, daemonset: Object) -> None:
        """Take over pods that are selected and that nobody controls, as a DaemonSet deleted with Orphan leaves them."""
        for pod in self._orphans[daemonset["metadata"]["namespace"]]:
            meta = pod["metadata"]
            selector = daemonset["spec"]["selector"]
            if (
                not meta.get("deletionTimestamp")
                and target_node(pod)
                and labels_match(selector, meta.get("labels") or {})
            ):
                owners = [*(meta.get("ownerReferences") or ()), reference_to(daemonset)]
                await self.cluster.patch("pods", pod, {"metadata": {"ownerReferences": owners}})


def _orphan_namespace(pod: Object) -> str:
    return "" if controller_of(pod) else str(pod["metadata"]["namespace"])


def _placement_fields(node: Object) -> Any:
    return node["metadata"].get("labels"), filters.effective_taints(node)
