"""The DaemonSet controller: one pod on every node that the template's selectors and tolerations allow.

Each pod names its node in its affinity and is bound by the scheduler, as in Kubernetes. A changed template replaces
pods a few at a time (``RollingUpdate`` with ``maxUnavailable``; surge is not offered) or as the user deletes them
(``OnDelete``). Old revisions are not kept.
"""

from __future__ import annotations

import copy
import hashlib
import math
from typing import Any

import orjson

from aksgpu.local.control import fit
from aksgpu.local.control.events import Recorder
from aksgpu.local.control.informer import key_of
from aksgpu.local.control.runtime import Cluster, Controller, all_of, condition, controller_of, finished
from aksgpu.local.control.times import age
from aksgpu.local.objects import Object
from aksgpu.local.status import StatusError

COMPONENT = "daemonset-controller"
HASH = "controller-revision-hash"

_SAFE_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_PRESSURES = ("disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")
TOLERATIONS: tuple[dict[str, str], ...] = (
    {"key": fit.NOT_READY, "operator": "Exists", "effect": "NoExecute"},
    {"key": fit.UNREACHABLE, "operator": "Exists", "effect": "NoExecute"},
    *({"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": "NoSchedule"} for name in _PRESSURES),
)
"""What every pod of a DaemonSet tolerates: it stays where others are moved away."""


def revision(template: dict[str, Any]) -> str:
    """A short name for a template's content, in letters that spell no words."""
    digest = hashlib.sha256(orjson.dumps(template, option=orjson.OPT_SORT_KEYS)).digest()
    return "".join(_SAFE_LETTERS[byte % len(_SAFE_LETTERS)] for byte in digest[:9])


def new_pod(daemonset: Object, node: str) -> Object:
    """The pod of a DaemonSet for one node."""
    meta, template = daemonset["metadata"], daemonset["spec"]["template"]
    given = template.get("metadata") or {}
    spec = copy.deepcopy(template["spec"])
    _pin(spec, node)
    spec["tolerations"] = [*(spec.get("tolerations") or ()), *_missing(spec)]
    generation = (meta.get("annotations") or {}).get("deprecated.daemonset.template.generation")
    labels = {**(given.get("labels") or {}), HASH: revision(template)}
    if generation:
        labels["pod-template-generation"] = generation
    owner = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    annotations = given.get("annotations")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": labels,
            **({"annotations": dict(annotations)} if annotations else {}),
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def _missing(spec: dict[str, Any]) -> list[dict[str, str]]:
    have = [{**each, "tolerationSeconds": None} for each in spec.get("tolerations") or ()]
    network = {"key": "node.kubernetes.io/network-unavailable", "operator": "Exists", "effect": "NoSchedule"}
    wanted = [*TOLERATIONS, network] if spec.get("hostNetwork") else list(TOLERATIONS)
    return [each for each in wanted if {**each, "tolerationSeconds": None} not in have]


def _pin(spec: dict[str, Any], node: str) -> None:
    """Require this node by name, beside what the template requires."""
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    required = affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    terms = required.get("nodeSelectorTerms") or [{}]
    required["nodeSelectorTerms"] = [{**term, "matchFields": [field]} for term in terms]


def node_of(pod: Object) -> str:
    """The node that a pod of a DaemonSet is on, or is meant for."""
    if name := pod["spec"].get("nodeName"):
        return str(name)
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for rule in term.get("matchFields") or ():
            return str(rule["values"][0])
    return ""


class Placement:
    """Which nodes a DaemonSet wants a pod on, and which may keep one."""

    def __init__(self, daemonset: Object) -> None:
        spec = daemonset["spec"]["template"]["spec"]
        self._shape = fit.shape(spec)
        self._tolerations = [*(spec.get("tolerations") or ()), *_missing(spec)]

    def wants(self, node: Object, *, keep: bool = False) -> bool:
        """Whether the node should get a pod; with ``keep``, whether it may keep one."""
        meta = node["metadata"]
        if not self._shape.selects(meta["name"], meta.get("labels") or {}):
            return False
        effects = ("NoExecute",) if keep else ("NoExecute", "NoSchedule")
        taints = [taint for taint in fit.in_force(node) if taint["effect"] in effects]
        return all(fit.tolerates(self._tolerations, taint) for taint in taints)


def available(pod: Object, seconds: int) -> bool:
    """Whether the pod has been ready for that long."""
    ready = condition(pod, "Ready")
    if ready.get("status") != "True":
        return False
    return not seconds or age(ready.get("lastTransitionTime")) >= seconds


def unavailable_limit(daemonset: Object, desired: int) -> int:
    """How many nodes may be without an available pod during an update."""
    update = daemonset["spec"].get("updateStrategy") or {}
    limit = (update.get("rollingUpdate") or {}).get("maxUnavailable", 1)
    if isinstance(limit, str):
        return max(1, math.ceil(desired * int(limit.rstrip("%")) / 100)) if limit.endswith("%") else int(limit)
    return int(limit)


class DaemonSetController(Controller):
    """Keeps one pod of each DaemonSet on each node that it belongs on."""

    resource = "daemonsets"

    def __init__(self, cluster: Cluster, events: Recorder) -> None:
        super().__init__(cluster)
        self._events = events
        pods = cluster.informer("pods")
        self._pods = pods.index("daemonset", _owner)
        self._nodes = cluster.informer("nodes")
        pods.on_change(self._pod_changed)
        self._nodes.on_change(self._node_changed)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        for pod in (old, new):
            if pod and (owner := controller_of(pod)).get("kind") == "DaemonSet":
                self.queue.add(f"{pod['metadata']['namespace']}/{owner['name']}")

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if old and new and _placing(old) == _placing(new):
            return  # a heartbeat
        for daemonset in self.informer:
            self.queue.add(key_of(daemonset))

    async def sync(self, key: str) -> float | None:
        """Make and delete pods of one DaemonSet, then write its status."""
        daemonset = self.informer.get(key)
        if daemonset is None or daemonset["metadata"].get("deletionTimestamp"):
            return None
        placement = Placement(daemonset)
        by_node: dict[str, list[Object]] = {}
        for pod in self._pods[daemonset["metadata"]["uid"]]:
            by_node.setdefault(node_of(pod), []).append(pod)
        wanted = [node["metadata"]["name"] for node in self._nodes if placement.wants(node)]
        trouble = await self._place(daemonset, placement, wanted, by_node)
        if not trouble:
            await self._update(daemonset, wanted, by_node)
        await self._report(daemonset, wanted, by_node)
        if trouble:
            raise trouble
        seconds = int(daemonset["spec"].get("minReadySeconds") or 0)
        waiting = any(not available(pod, seconds) for pods in by_node.values() for pod in pods)
        return float(seconds) if seconds and waiting else None

    async def _place(
        self, daemonset: Object, placement: Placement, wanted: list[str], by_node: dict[str, list[Object]]
    ) -> StatusError | None:
        """Delete pods that are not wanted or have ended, and make those that are missing."""
        doomed: list[Object] = []
        for name, pods in by_node.items():
            node = self._nodes.get(name)
            keep = name in wanted or (node is not None and placement.wants(node, keep=True))
            staying = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
            over = [pod for pod in staying if finished(pod)]
            alive = sorted((pod for pod in staying if not finished(pod)), key=_age)
            for pod in over:
                self._tell_end(daemonset, pod, name)
            doomed += [*over, *(alive[1:] if keep else alive)]
        await self._delete(daemonset, doomed)
        gone = {pod["metadata"]["uid"] for pod in doomed}
        for name in list(by_node):
            by_node[name] = [pod for pod in by_node[name] if pod["metadata"]["uid"] not in gone]
        missing = [name for name in wanted if not by_node.get(name)]
        # A pod that failed is not remade on the spot: the deletion of the old one brings us here again.
        missing = [name for name in missing if not any(node_of(pod) == name for pod in doomed)]
        made = await all_of(self._create(daemonset, name) for name in missing)
        for name, pod in zip(missing, made, strict=True):
            if isinstance(pod, dict):
                by_node.setdefault(name, []).append(pod)
        return next((error for error in made if isinstance(error, StatusError)), None)

    def _tell_end(self, daemonset: Object, pod: Object, node: str) -> None:
        meta = pod["metadata"]
        name = f"{meta['namespace']}/{meta['name']}"
        if (pod.get("status") or {}).get("phase") == "Failed":
            text = f"Found failed daemon pod {name} on node {node}, will try to kill it"
            self._events.tell(COMPONENT, daemonset, "Warning", "FailedDaemonPod", text)
        else:
            text = f"Found succeeded daemon pod {name} on node {node}, will try to delete it"
            self._events.tell(COMPONENT, daemonset, "Normal", "SucceededDaemonPod", text)

    async def _create(self, daemonset: Object, node: str) -> Object | StatusError:
        try:
            made = await self.cluster.create("pods", new_pod(daemonset, node), daemonset["metadata"]["namespace"])
        except StatusError as error:
            self._events.tell(COMPONENT, daemonset, "Warning", "FailedCreate", f"Error creating: {error}")
            return error
        text = f"Created pod: {made['metadata']['name']}"
        self._events.tell(COMPONENT, daemonset, "Normal", "SuccessfulCreate", text)
        return made

    async def _delete(self, daemonset: Object, pods: list[Object]) -> None:
        await all_of(self.cluster.delete("pods", pod) for pod in pods)
        for pod in pods:
            text = f"Deleted pod: {pod['metadata']['name']}"
            self._events.tell(COMPONENT, daemonset, "Normal", "SuccessfulDelete", text)

    async def _update(self, daemonset: Object, wanted: list[str], by_node: dict[str, list[Object]]) -> None:
        """Replace pods of an older template: those that do not serve at once, the others a few at a time."""
        if (daemonset["spec"].get("updateStrategy") or {}).get("type") == "OnDelete":
            return
        current, seconds = revision(daemonset["spec"]["template"]), int(daemonset["spec"].get("minReadySeconds") or 0)
        room = unavailable_limit(daemonset, len(wanted))
        useless: list[Object] = []
        serving: list[Object] = []
        for name in wanted:
            pod = _one(by_node.get(name))
            serves = pod is not None and available(pod, seconds)
            room -= not serves
            if pod and not _current(pod, current):
                (serving if serves else useless).append(pod)
        await self._delete(daemonset, [*useless, *serving[: max(0, room)]])

    async def _report(self, daemonset: Object, wanted: list[str], by_node: dict[str, list[Object]]) -> None:
        current, seconds = revision(daemonset["spec"]["template"]), int(daemonset["spec"].get("minReadySeconds") or 0)
        pods = [pod for name in wanted if (pod := _one(by_node.get(name)))]
        serving = sum(available(pod, seconds) for pod in pods)
        updated = sum(_current(pod, current) for pod in pods)
        status: dict[str, Any] = {
            "currentNumberScheduled": len(pods),
            "numberMisscheduled": sum(bool(_one(them)) for name, them in by_node.items() if name not in wanted),
            "desiredNumberScheduled": len(wanted),
            "numberReady": sum(condition(pod, "Ready").get("status") == "True" for pod in pods),
            "observedGeneration": daemonset["metadata"].get("generation", 1),
        }
        extra = {
            "updatedNumberScheduled": updated,
            "numberAvailable": serving,
            "numberUnavailable": len(wanted) - serving,
        }
        status |= {name: number for name, number in extra.items() if number}
        if status != daemonset.get("status"):
            await self.cluster.update("daemonsets", {**daemonset, "status": status}, subresource="status")


def _owner(pod: Object) -> str:
    owner = controller_of(pod)
    return str(owner["uid"]) if owner.get("kind") == "DaemonSet" else ""


def _placing(node: Object) -> Any:
    return node["metadata"].get("labels"), fit.in_force(node)


def _age(pod: Object) -> tuple[bool, str]:
    """Sorts pods: placed ones first, then older ones."""
    return not pod["spec"].get("nodeName"), pod["metadata"].get("creationTimestamp") or ""


def _one(pods: list[Object] | None) -> Object | None:
    """The pod of a node that is not on its way out."""
    return next((pod for pod in pods or () if not pod["metadata"].get("deletionTimestamp")), None)


def _current(pod: Object, wanted: str) -> bool:
    return bool((pod["metadata"].get("labels") or {}).get(HASH) == wanted)
