"""What a Node object says about its GPUs, and the tolerations that its taints call for. Reads dicts, asks nobody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

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
        ready: its Ready condition.
        cordoned: ``spec.unschedulable``.
        gpu: whether it has GPUs, advertised or not.
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

    @property
    def model(self) -> str:
        """The GPUs' model, from a label or else from the VM size; empty where neither tells it."""
        if product := self.labels.get("nvidia.com/gpu.product"):
            return product.replace("-", " ")
        from aksgpu._azure.gpusizes import is_gpu_size, lookup

        return lookup(self.vm_size).gpu if self.gpu and is_gpu_size(self.vm_size) else ""

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
        """Whether the scheduler takes it into account, taints aside."""
        return self.ready and not self.cordoned


def read(node: Object) -> Node:
    """A Node object in short."""
    metadata, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    labels = metadata.get("labels") or {}
    capacity, allocatable = gpus_of(status.get("capacity")), gpus_of(status.get("allocatable"))
    conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    return Node(
        name=metadata["name"],
        pool=labels.get("kubernetes.azure.com/agentpool") or labels.get("agentpool") or "",
        vm_size=labels.get("node.kubernetes.io/instance-type") or "",
        labels=labels,
        taints=tuple(spec.get("taints") or ()),
        capacity=capacity,
        allocatable=allocatable,
        ready=conditions.get("Ready") == "True",
        cordoned=bool(spec.get("unschedulable")),
        gpu=any(labels.get(label) in values for label, values in _MARKS.items()) or any(capacity.values()),
    )


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
    try:
        return int(str(value))
    except ValueError:
        raise InvalidInput(
            f"{f'{where}: ' if where else ''}{name} is {value!r}; GPUs are whole",
            hint="Give a whole number, such as 1. MIG or time-slicing shares a GPU, and each share counts as one.",
        ) from None


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
    key, exists = toleration.get("key"), toleration.get("operator") == "Exists"
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
