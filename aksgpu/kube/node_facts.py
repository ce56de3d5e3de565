"""GPUs, readiness and taints of Node objects, and the tolerations for these taints. Sends no requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aksgpu.common import quantities
from aksgpu.common import tolerations as tolerations_rules
from aksgpu.common.arguments import shown
from aksgpu.common.gpu_size_table import is_gpu_size, lookup
from aksgpu.common.kubernetes_objects import Object
from aksgpu.errors import InvalidInput
from aksgpu.kube import taint_kinds
from aksgpu.kube.label_names import INSTANCE_TYPE
from aksgpu.kube.node_health import GpuHealth, gpu_health

__all__ = ["AMD_GPU", "GPU", "Node", "add_tolerations", "gpus_of", "read", "taint_text", "tolerates", "tolerations"]

GPU = "nvidia.com/gpu"
"""The resource that a Job requests."""
AMD_GPU = "amd.com/gpu"
"""The resource of AMD's GPUs."""
_VENDORS = ("nvidia.com/", "amd.com/")
"""Prefixes of the resource names of GPUs."""
_GPU_LABELS = {
    "kubernetes.azure.com/accelerator": ("nvidia", "amd"),
    "accelerator": ("nvidia", "amd"),
    "nvidia.com/gpu.present": ("true",),
    "aksgpu.dev/gpu": ("simulated", "nvml"),
    "karpenter.azure.com/sku-gpu-manufacturer": ("nvidia", "amd"),
}
"""Labels of GPU nodes, with the values that mean a GPU."""
_POOL_LABELS = ("kubernetes.azure.com/agentpool", "agentpool", "karpenter.sh/nodepool")
"""Labels with the name of a node's pool, in the order in which they are read."""
_MODEL_LABELS = ("nvidia.com/gpu.product", "amd.com/gpu.product-name", "beta.amd.com/gpu.product-name")
"""Labels with the model of a node's GPUs."""
_SYSTEM = "CriticalAddonsOnly"
"""Taint of AKS system pools."""
_DOCUMENTED: list[dict[str, Any]] = [
    {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
    {"key": GPU, "operator": "Exists", "effect": "NoSchedule"},
]
"""Tolerations for the taints in AKS' and NVIDIA's documentation, for clusters without a GPU node (scaled to zero)."""
_GPU_LIMIT = 10**15
"""Numbers of GPUs from this one on are refused."""


@dataclass(frozen=True)
class Node:
    """The facts about a node that matter for GPU jobs.

    Attributes:
        name: name of the node.
        pool: AKS node pool; empty on other clusters.
        vm_size: instance type; empty if no label has it.
        labels: the node's labels.
        taints: the node's taints.
        capacity: number of GPUs that its device plugin reports, by resource name.
        allocatable: number of healthy GPUs, by resource name.
        ready: whether its Ready condition is True.
        cordoned: whether ``spec.unschedulable`` is set.
        gpu: whether it has GPUs, advertised or not.
        reported: whether its status has resources. If not, the number of GPUs is unknown.
        readiness: why the node is not ready; empty if it is ready.
        by_hand: program that wrote the GPUs into its status, such as ``aksgpu``; empty if it was the kubelet.
        health: health of its GPUs.
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
    health: GpuHealth = field(default_factory=GpuHealth)

    @property
    def gpu_model(self) -> str:
        """Model of the GPUs, from a label or from the VM size; empty if neither has it."""
        for label in _MODEL_LABELS:
            if self.labels.get(label):
                return self.labels[label].replace("-", " ").replace("_", " ")
        if self.gpu and is_gpu_size(self.vm_size):
            return lookup(self.vm_size).gpu_model
        return self.labels.get("karpenter.azure.com/sku-gpu-name", "") if self.gpu else ""

    @property
    def auto_provisioned(self) -> bool:
        """Whether node auto-provisioning (Karpenter) created the node."""
        return "karpenter.sh/nodepool" in self.labels

    @property
    def amd(self) -> bool:
        """Whether the GPUs are AMD's."""
        labels = ("kubernetes.azure.com/accelerator", "accelerator", "karpenter.azure.com/sku-gpu-manufacturer")
        by_size = is_gpu_size(self.vm_size) and lookup(self.vm_size).gpu_model.startswith("AMD")
        return self.gpu and (by_size or "amd" in map(self.labels.get, labels) or AMD_GPU in self.capacity)

    @property
    def resource(self) -> str:
        """The resource of whole GPUs of this kind."""
        return AMD_GPU if self.amd else GPU

    @property
    def nvidia(self) -> bool:
        """Whether NVIDIA's device plugin supports the node, which must not have AMD GPUs or run Windows."""
        return self.gpu and not self.amd and self.labels.get("kubernetes.io/os", "linux") == "linux"

    @property
    def simulated(self) -> bool:
        """Whether the node says that its GPUs are simulated."""
        return self.labels.get("aksgpu.dev/gpu") == "simulated"

    @property
    def usable(self) -> bool:
        """Whether pods can be scheduled: it is ready, not cordoned, and has no temporary taint."""
        return self.ready and not self.cordoned and not self.temporary_taints

    @property
    def temporary_taints(self) -> tuple[Object, ...]:
        """Taints that Kubernetes or the autoscaler added for a while, and that keep pods away."""
        return tuple(
            taint
            for taint in self.taints
            if taint["effect"] != "PreferNoSchedule" and taint_kinds.is_temporary(taint["key"])
        )


def read(node: Object) -> Node:
    """Return the facts about a Node object."""
    metadata = node["metadata"]
    spec = node.get("spec") or {}
    status = node.get("status") or {}
    labels = metadata.get("labels") or {}
    capacity = gpus_of(status.get("capacity"))
    allocatable = gpus_of(status.get("allocatable"))
    ready, readiness = _readiness(status)
    return Node(
        name=metadata["name"],
        pool=next((labels[label] for label in _POOL_LABELS if labels.get(label)), ""),
        vm_size=labels.get(INSTANCE_TYPE) or "",
        labels=labels,
        taints=tuple(spec.get("taints") or ()),
        capacity=capacity,
        allocatable=allocatable,
        ready=ready,
        cordoned=bool(spec.get("unschedulable")),
        gpu=any(labels.get(label) in values for label, values in _GPU_LABELS.items()) or any(capacity.values()),
        reported=status.get("allocatable") is not None,
        readiness=readiness,
        by_hand=_written_by(metadata) if any(capacity.values()) else "",
        health=gpu_health(status.get("conditions") or ()),
    )


def _readiness(status: Object) -> tuple[bool, str]:
    """Return whether the node is ready, and the reason if not."""
    for condition in status.get("conditions") or ():
        if condition["type"] == "Ready":
            if condition["status"] == "True":
                return True, ""
            words = (condition.get("reason"), condition.get("message"))
            return False, ": ".join(word for word in words if word) or f"its Ready condition is {condition['status']}"
    return False, "its kubelet has not reported yet"


def _written_by(metadata: Object) -> str:
    """Return the program other than the kubelet that owns the number of GPUs in a node's status; empty if none does."""
    for entry in metadata.get("managedFields") or ():
        fields = (entry.get("fieldsV1") or {}).get("f:status") or {}
        names = (*(fields.get("f:capacity") or ()), *(fields.get("f:allocatable") or ()))
        if entry.get("manager") != "kubelet" and any(name.removeprefix("f:").startswith(_VENDORS) for name in names):
            return str(entry.get("manager") or "another program")
    return ""


def gpus_of(resources: Mapping[str, Any] | None, where: str = "") -> dict[str, int]:
    """Return the GPU resources of a resource list (``nvidia.com/gpu``, ``nvidia.com/mig-...``, ``amd.com/gpu``).

    Args:
        resources: name -> quantity.
        where: field of the list, for the error.

    Raises:
        InvalidInput: a quantity is not an integer.
    """
    return {name: _count(name, value, where) for name, value in (resources or {}).items() if name.startswith(_VENDORS)}


def _count(name: str, value: Any, where: str) -> int:
    """Return the number of GPUs that a quantity means."""
    try:
        is_quantity = isinstance(value, str | int | float) and not isinstance(value, bool)
        number = quantities.parse(value) if is_quantity else None
    except ValueError:
        number = None
    if number is None or number % 1 or not 0 <= number < _GPU_LIMIT:
        field = f"{where}: " if where else ""
        raise InvalidInput(
            f"{field}{name} must be an integer, 0 or more, got {shown(value)}",
            hint="For example: 1. Each part of a GPU that MIG or time-slicing makes counts as one.",
        )
    return int(number)


def taint_text(taint: Object) -> str:
    """Return a taint as text, such as ``sku=gpu:NoSchedule``."""
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint['effect']}"


def tolerates(tolerations: Iterable[Mapping[str, Any]], taint: Object) -> bool:
    """Return whether a pod with these tolerations may be scheduled onto a node with this taint."""
    return taint["effect"] == "PreferNoSchedule" or tolerations_rules.tolerates(tolerations, taint)


def tolerations(nodes: Iterable[Node], *, system: bool = False) -> list[dict[str, Any]]:
    """Return the tolerations with which a pod can run on every GPU node.

    Args:
        nodes: nodes of the cluster. If none has a GPU, the tolerations are those of AKS' documentation.
        system: whether to tolerate ``CriticalAddonsOnly`` too, which keeps workloads off a system pool.
    """
    gpu_nodes = [node for node in nodes if node.gpu]
    if not gpu_nodes:
        return [dict(toleration) for toleration in _DOCUMENTED]
    found: list[dict[str, Any]] = []
    taints = [taint for node in gpu_nodes for taint in node.taints]
    for taint in sorted(taints, key=taint_text):
        key = taint["key"]
        if taint["effect"] == "PreferNoSchedule" or taint_kinds.is_temporary(key) or (key == _SYSTEM and not system):
            continue
        value = {"operator": "Equal", "value": taint["value"]} if taint.get("value") else {"operator": "Exists"}
        toleration = {"key": key, **value, "effect": taint["effect"]}
        if toleration not in found:
            found.append(toleration)
    return found


def add_tolerations(pod_spec: dict[str, Any], wanted: Iterable[Mapping[str, Any]]) -> None:
    """Add to a pod's spec the tolerations that it lacks."""
    have = list(pod_spec.get("tolerations") or ())
    for toleration in wanted:
        taint = {"key": toleration["key"], "value": toleration.get("value"), "effect": toleration["effect"]}
        if not tolerates(have, taint):
            have.append(dict(toleration))
    if have:
        pod_spec["tolerations"] = have
