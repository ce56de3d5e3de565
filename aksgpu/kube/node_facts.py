"""What a Node object says about its GPUs, and the tolerations that its taints call for. Reads dicts, asks nobody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aksgpu.common.arguments import shown
from aksgpu.errors import InvalidInput

Object = Mapping[str, Any]

GPU = "nvidia.com/gpu"
"""The resource that a Job asks for."""
_VENDORS = ("nvidia.com/", "amd.com/gpu")
_MARKS = {
    "kubernetes.azure.com/accelerator": ("nvidia", "amd"),
    "accelerator": ("nvidia", "amd"),
    "nvidia.com/gpu.present": ("true",),
    "aksgpu.dev/gpu": ("simulated", "nvml"),
}
# Put on and taken off by Kubernetes and the autoscaler themselves; a workload must not tolerate them.
_PASSING = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "ToBeDeleted", "DeletionCandidate")
_SYSTEM = "CriticalAddonsOnly"
_DOCUMENTED: list[dict[str, Any]] = [
    {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
    {"key": GPU, "operator": "Exists", "effect": "NoSchedule"},
]
"""The taints of AKS' and NVIDIA's documentation, for when there is no GPU node to ask (a pool scaled to zero)."""


_DIGITS = 15
"""Digits of a number of GPUs, at most."""


@dataclass(frozen=True)
class Node:
    """A node, as far as GPU work is concerned.

    Attributes:
        name: of the Node object.
        pool: AKS node pool; empty elsewhere.
        vm_size: instance type; empty where no label tells it.
        labels: all of them.
        taints: of its spec.
        capacity: GPUs that its device plugin counts, by resource name.
        allocatable: those of them that are healthy, by resource name.
        ready: its Ready condition is True.
        cordoned: ``spec.unschedulable``.
        gpu: whether it has GPUs, advertised or not.
        reported: whether its status has resources at all. Where it has none, the number of GPUs is not known.
        readiness: what its Ready condition says where that is not True; empty otherwise.
        by_hand: who wrote the GPUs into its status where that was not the kubelet, such as ``aksgpu``; empty otherwise.
    """

    name: str
    pool: str
    vm_size: str
    labels: Mapping[str, str]
    taints: tuple[Object, ...]
    capacity: Mapping[str, int]
    allocatable: Mapping[str, int]
    ready: bool
    cordoned: bool
    gpu: bool
    reported: bool = True
    readiness: str = ""
    by_hand: str = ""

    @property
    def model(self) -> str:
        """The GPUs' model, from a label or else from the VM size; empty where neither tells it."""
        if product := self.labels.get("nvidia.com/gpu.product"):
            return product.replace("-", " ")
        from aksgpu.common.gpu_size_table import is_gpu_size, lookup

        return lookup(self.vm_size).gpu_model if self.gpu and is_gpu_size(self.vm_size) else ""

    @property
    def nvidia(self) -> bool:
        """Whether NVIDIA's device plugin is for it: not for AMD's GPUs, and not on Windows."""
        other = "amd" in (self.labels.get("kubernetes.azure.com/accelerator"), self.labels.get("accelerator"))
        return self.gpu and not other and self.labels.get("kubernetes.io/os", "linux") == "linux"

    @property
    def simulated(self) -> bool:
        """Whether the node says that its GPUs are simulated."""
        return self.labels.get("aksgpu.dev/gpu") == "simulated"

    @property
    def usable(self) -> bool:
        """Whether the scheduler takes it into account: ready, not cordoned, and without a taint of Kubernetes' own."""
        return self.ready and not self.cordoned and not self.passing_taints

    @property
    def passing_taints(self) -> tuple[Object, ...]:
        """Taints that Kubernetes or the autoscaler put on and take off, and that keep pods away meanwhile."""
        return tuple(t for t in self.taints if t["effect"] != "PreferNoSchedule" and t["key"].startswith(_PASSING))


def read(node: Object) -> Node:
    """A Node object in short."""
    metadata = node["metadata"]
    spec = node.get("spec") or {}
    status = node.get("status") or {}
    labels = metadata.get("labels") or {}
    capacity = gpus_of(status.get("capacity"))
    allocatable = gpus_of(status.get("allocatable"))
    ready, readiness = _readiness(status)
    return Node(
        name=metadata["name"],
        pool=labels.get("kubernetes.azure.com/agentpool") or labels.get("agentpool") or "",
        vm_size=labels.get("node.kubernetes.io/instance-type") or "",
        labels=labels,
        taints=tuple(spec.get("taints") or ()),
        capacity=capacity,
        allocatable=allocatable,
        ready=ready,
        cordoned=bool(spec.get("unschedulable")),
        gpu=any(labels.get(label) in values for label, values in _MARKS.items()) or any(capacity.values()),
        reported=status.get("allocatable") is not None,
        readiness=readiness,
        by_hand=_written_by(metadata) if any(capacity.values()) else "",
    )


def _readiness(status: Object) -> tuple[bool, str]:
    """Whether the node is ready, and its own words where it is not."""
    for condition in status.get("conditions") or ():
        if condition["type"] == "Ready":
            if condition["status"] == "True":
                return True, ""
            words = (condition.get("reason"), condition.get("message"))
            return False, ": ".join(word for word in words if word) or f"its Ready condition is {condition['status']}"
    return False, "its kubelet has not reported yet"


def _written_by(metadata: Object) -> str:
    """The program other than the kubelet that owns the number of GPUs in a node's status; empty for none."""
    for entry in metadata.get("managedFields") or ():
        fields = (entry.get("fieldsV1") or {}).get("f:status") or {}
        names = (*(fields.get("f:capacity") or ()), *(fields.get("f:allocatable") or ()))
        if entry.get("manager") != "kubelet" and any(name.removeprefix("f:").startswith(_VENDORS) for name in names):
            return str(entry.get("manager") or "another program")
    return ""


def gpus_of(resources: Mapping[str, Any] | None, where: str = "") -> dict[str, int]:
    """The GPU resources of a resource list (``nvidia.com/gpu``, ``nvidia.com/mig-...``, ``amd.com/gpu``).

    Args:
        resources: name -> quantity.
        where: the list's field, for the error.

    Raises:
        InvalidInput: a quantity is not whole: Kubernetes divides no GPUs.
    """
    return {name: _whole(name, value, where) for name, value in (resources or {}).items() if name.startswith(_VENDORS)}


def _whole(name: str, value: Any, where: str) -> int:
    text = "" if isinstance(value, bool) else str(value)
    number = text.rstrip("kMG")
    # Kubernetes writes 1000 as 1k.
    scale = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}.get(text[len(number) :])
    if not number.isascii() or not number.isdigit() or len(number) > _DIGITS or scale is None:
        raise InvalidInput(
            f"{f'{where}: ' if where else ''}{name} must be a whole number, 0 or more, got {shown(value)}",
            hint="For example: 1. MIG and time-slicing share a GPU, and each share counts as one.",
        )
    return int(number) * scale


def taint_text(taint: Object) -> str:
    """``sku=gpu:NoSchedule``."""
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint['effect']}"


def tolerates(tolerations: Iterable[Object], taint: Object) -> bool:
    """Whether a pod with these tolerations may be scheduled onto a node with this taint."""
    if taint["effect"] == "PreferNoSchedule":
        return True
    return any(_matches(toleration, taint) for toleration in tolerations)


def _matches(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    key = toleration.get("key")
    exists = toleration.get("operator") == "Exists"
    if not key:
        return exists
    return bool(key == taint["key"] and (exists or (toleration.get("value") or "") == (taint.get("value") or "")))


def tolerations(nodes: Iterable[Node], *, system: bool = False) -> list[dict[str, Any]]:
    """What a pod must tolerate to run on every GPU node.

    Args:
        nodes: of the cluster. Without a GPU node among them, the taints of AKS' documentation are taken.
        system: tolerate ``CriticalAddonsOnly`` too, which keeps workloads off a system pool.
    """
    gpu_nodes = [node for node in nodes if node.gpu]
    if not gpu_nodes:
        return [dict(toleration) for toleration in _DOCUMENTED]
    found: list[dict[str, Any]] = []
    for taint in sorted((t for node in gpu_nodes for t in node.taints), key=taint_text):
        key = taint["key"]
        if taint["effect"] == "PreferNoSchedule" or key.startswith(_PASSING) or (key == _SYSTEM and not system):
            continue
        value = {"operator": "Equal", "value": taint["value"]} if taint.get("value") else {"operator": "Exists"}
        toleration = {"key": key, **value, "effect": taint["effect"]}
        if toleration not in found:
            found.append(toleration)
    return found


def add_tolerations(pod_spec: dict[str, Any], wanted: Iterable[Mapping[str, Any]]) -> None:
    """Add those tolerations to a pod's spec that it lacks."""
    have = list(pod_spec.get("tolerations") or ())
    for toleration in wanted:
        taint = {"key": toleration["key"], "value": toleration.get("value"), "effect": toleration["effect"]}
        if not tolerates(have, taint):
            have.append(dict(toleration))
    if have:
        pod_spec["tolerations"] = have
