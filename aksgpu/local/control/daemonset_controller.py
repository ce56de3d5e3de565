"""The DaemonSet controller: runs one pod on every node that the template's selectors and tolerations allow.

As in Kubernetes, each pod names its node in its affinity and is bound by the scheduler. After a change of the template,
pods are replaced a few at a time (``maxUnavailable``; ``maxSurge`` is not supported) or as the user deletes them
(``OnDelete``). Old revisions are not kept.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import orjson

from aksgpu.common.tolerations import tolerates
from aksgpu.local.api.strategy import TEMPLATE_GENERATION
from aksgpu.local.control import fields_without_effect, filters
from aksgpu.local.control.controller_runtime import Cluster, is_finished, is_ready, run_all
from aksgpu.local.control.informer import object_key
from aksgpu.local.control.pod_control import PodController, controller_of, from_template, reference_to
from aksgpu.local.objects import Object
from aksgpu.local.selectors import labels_match

REVISION_LABEL = "controller-revision-hash"
DEFAULT_TOLERATIONS = (
    {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
    {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
    {"key": "node.kubernetes.io/disk-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/pid-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"},
)
"""The tolerations that every pod of a DaemonSet gets."""


def revision(template: dict[str, Any]) -> str:
    """Return a short hash of a template."""
    return hashlib.sha256(orjson.dumps(template, option=orjson.OPT_SORT_KEYS)).hexdigest()[:10]


def pod_tolerations(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tolerations of a DaemonSet's pod: those of its template and the default ones."""
    own = list(spec.get("tolerations") or ())
    return own + [each for each in DEFAULT_TOLERATIONS if each not in own]


def new_pod(daemonset: Object, node: str) -> Object:
    """Return a new pod of a DaemonSet for one node. Its affinity requires that node."""
    pod = from_template(daemonset)
    labels = pod["metadata"].setdefault("labels", {})
    spec = pod["spec"]
    labels[REVISION_LABEL] = revision(daemonset["spec"]["template"])
    generation = (daemonset["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION)
    if generation:
        labels["pod-template-generation"] = generation
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    required = affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = required.get("nodeSelectorTerms") or [{}]
    required["nodeSelectorTerms"] = [{**term, "matchFields": [field]} for term in terms]
    spec["tolerations"] = pod_tolerations(spec)
    return pod


def target_node(pod: Object) -> str:
    """Return the node that a pod of a DaemonSet runs on or is created for; empty if it has none."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    names = filters.PodRequirements(pod["spec"]).node_names
    return next(iter(names)) if names else ""


def eligible_nodes(spec: dict[str, Any], nodes: Iterable[Object], *effects: str) -> list[str]:
    """Return the nodes that a template's selectors allow and whose taints it tolerates.

    Only taints with one of the given effects count.
    """
    requirements = filters.PodRequirements(spec)
    tolerations = pod_tolerations(spec)
    names: list[str] = []
    for node in nodes:
        name = node["metadata"]["name"]
        taints = [taint for taint in filters.effective_taints(node) if taint["effect"] in effects]
        if not requirements.selects(name, node["metadata"].get("labels") or {}):
            continue
        if all(tolerates(tolerations, taint) for taint in taints):
            names.append(name)
    return names


def unavailable_limit(daemonset: Object, desired: int) -> int:
    """Return the number of nodes that may have no available pod during an update."""
    update = daemonset["spec"].get("updateStrategy") or {}
    limit = str((update.get("rollingUpdate") or {}).get("maxUnavailable", 1))
    if limit.endswith("%"):
        return max(1, math.ceil(desired * int(limit[:-1]) / 100))
    return int(limit)


def nodes_to_update(daemonset: Object, desired: list[str], kept: dict[str, Object]) -> list[str]:
    """Return the nodes whose pod has an old template and must be deleted now.

    Pods that are not ready are deleted at once. Ready pods are deleted up to the limit of ``maxUnavailable``.
    """
    if (daemonset["spec"].get("updateStrategy") or {}).get("type") == "OnDelete":
        return []
    old = [name for name in desired if name in kept and not _is_current(kept[name], daemonset)]
    ready = {name for name in desired if name in kept and is_ready(kept[name])}
    unavailable = len(desired) - len(ready)
    allowed = max(0, unavailable_limit(daemonset, len(desired)) - unavailable)
    old_ready = [name for name in old if name in ready]
    old_unready = [name for name in old if name not in ready]
    return old_unready + old_ready[:allowed]


def build_status(daemonset: Object, desired: list[str], kept: dict[str, Object]) -> dict[str, Any]:
    """Return the status. Fields that Kubernetes omits when they are zero are omitted."""
    pods = [kept[name] for name in desired if name in kept]
    ready = sum(map(is_ready, pods))
    status = {
        "currentNumberScheduled": len(pods),
        "numberMisscheduled": len(kept) - len(pods),
        "desiredNumberScheduled": len(desired),
        "numberReady": ready,
        "observedGeneration": daemonset["metadata"].get("generation", 1),
    }
    updated = sum(_is_current(pod, daemonset) for pod in pods)
    optional = {
        "updatedNumberScheduled": updated,
        "numberAvailable": ready,
        "numberUnavailable": len(desired) - ready,
    }
    return status | {name: number for name, number in optional.items() if number}


def _is_current(pod: Object, daemonset: Object) -> bool:
    return bool((pod["metadata"].get("labels") or {}).get(REVISION_LABEL) == revision(daemonset["spec"]["template"]))


class DaemonSetController(PodController):
    """Keeps one pod of each DaemonSet on each eligible node."""

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
            return  # Only a heartbeat.
        for daemonset in self.informer:
            self.queue.add(object_key(daemonset))

    async def sync(self, key: str) -> float | None:
        """Create and delete the pods of one DaemonSet, then write its status."""
        daemonset = self.informer.get(key)
        if daemonset is None or daemonset["metadata"].get("deletionTimestamp"):
            return None
        if (daemonset.get("status") or {}).get("observedGeneration") != daemonset["metadata"].get("generation"):
            await self._adopt(daemonset)
            self._report_ignored(daemonset)
        template = daemonset["spec"]["template"]["spec"]
        desired = eligible_nodes(template, self._nodes, "NoSchedule", "NoExecute")
        allowed = set(eligible_nodes(template, self._nodes, "NoExecute"))
        pods = [pod for pod in self.pods[key] if controller_of(pod)["uid"] == daemonset["metadata"]["uid"]]
        # A node whose pod is still being deleted does not get a new one.
        occupied = {target_node(pod) for pod in pods}
        kept: dict[str, Object] = {}
        surplus: list[Object] = []
        for pod in pods:
            name = target_node(pod)
            if pod["metadata"].get("deletionTimestamp"):
                continue
            if name in allowed and name not in kept and not is_finished(pod):
                kept[name] = pod
            else:
                surplus.append(pod)

        async def create(name: str) -> None:
            kept[name] = await self.create_pod(daemonset, new_pod(daemonset, name))

        try:
            self._report_failed(daemonset, surplus)
            await self.delete_pods(daemonset, surplus)
            await run_all((create(name) for name in desired if name not in occupied), slow_start=True)
            outdated = nodes_to_update(daemonset, desired, kept)
            await self.delete_pods(daemonset, [kept.pop(name) for name in outdated])
        finally:  # The status counts the pods that exist, even if the server refused a write.
            await self.cluster.update_status("daemonsets", daemonset, build_status(daemonset, desired, kept))
        return None

    def _report_ignored(self, daemonset: Object) -> None:
        """Record an event about the fields of a new or changed DaemonSet that have no effect."""
        ignored = fields_without_effect.of_daemon_set(daemonset)
        if ignored:
            self.record_event(daemonset, "Normal", fields_without_effect.REASON, fields_without_effect.message(ignored))

    def _report_failed(self, daemonset: Object, pods: list[Object]) -> None:
        for pod in pods:
            if (pod.get("status") or {}).get("phase") == "Failed":
                message = f"Found failed daemon pod {object_key(pod)} on node {target_node(pod)}, will try to kill it"
                self.record_event(daemonset, "Warning", "FailedDaemonPod", message)

    async def _adopt(self, daemonset: Object) -> None:
        """Become the controller of selected pods without one, such as those of a DaemonSet deleted with Orphan."""
        selector = daemonset["spec"]["selector"]
        for pod in self._orphans[daemonset["metadata"]["namespace"]]:
            meta = pod["metadata"]
            if meta.get("deletionTimestamp") or not target_node(pod):
                continue
            if labels_match(selector, meta.get("labels") or {}):
                owners = [*(meta.get("ownerReferences") or ()), reference_to(daemonset)]
                await self.cluster.patch("pods", pod, {"metadata": {"ownerReferences": owners}})


def _orphan_namespace(pod: Object) -> str:
    return "" if controller_of(pod) else str(pod["metadata"]["namespace"])


def _placement_fields(node: Object) -> Any:
    return node["metadata"].get("labels"), filters.effective_taints(node)
