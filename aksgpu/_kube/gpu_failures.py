"""The texts in which GPUs fail inside a cluster: driver, device plugin, scheduler, autoscaler. One rule a failure.

Reads logs and events, asks nobody. Azure's own refusals are :mod:`aksgpu._azure.refusal_rules`' subject. The texts are
those of users' reports; they are kept as test data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from aksgpu import errors


@dataclass(frozen=True)
class Failure:
    """A failure that a text tells.

    Attributes:
        kind: the exception that stands for it.
        verdict: what is wrong, as a clause.
        fix: what to do, as an action.
        facts: attributes of the exception.
    """

    kind: type[errors.AksGpuError]
    verdict: str
    fix: str
    facts: dict[str, Any] = field(default_factory=dict)

    def error(self, message: str = "") -> errors.AksGpuError:
        """The exception, with the verdict as its message where none is given."""
        return self.kind(message or f"{self.verdict[0].upper()}{self.verdict[1:]}.", hint=self.fix, **self.facts)


_VERIFY = "plugin.verify(aks) shows each GPU node; delete its pool and add it again where the driver does not come up."
_LOG_RULES: tuple[tuple[str, type[errors.AksGpuError], str, str], ...] = (
    (
        r"Driver/library version mismatch(?:.*?NVML library version: (?P<library>[\d.]+))?",
        errors.DriverMismatch,
        "the node's driver and its libraries are of different versions",
        "Take a newer node image: az aks nodepool upgrade --node-image-only. Image 202607.02.0 is known for this.",
    ),
    (
        r"CUDA driver version is insufficient for CUDA runtime",
        errors.DriverMismatch,
        "the image's CUDA and the node's driver do not fit together",
        "Use an image built for an older CUDA, or cluster nodes with a newer node image (az aks nodepool upgrade).",
    ),
    (
        r"CUDA out of memory|CUDA_ERROR_OUT_OF_MEMORY|OutOfMemoryError",
        errors.JobFailed,
        "the GPU's memory is too small",
        "Use a smaller batch, or a VM size with more GPU memory: sizes.gpu_sizes(azure, location).",
    ),
    (
        r"Failed to initialize NVML: Unknown Error|GPU has fallen off the bus|NVRM: Xid|no healthy devices present",
        errors.GpuLost,
        "the container lost its GPU while it ran",
        "Run it again. If it recurs: plugin.install(aks, manifest=manifests.device_plugin(pass_device_specs=True)).",
    ),
    (
        r"[Cc]ould not unload NVIDIA driver kernel modules, driver is in use",
        errors.SecondGpuStack,
        "the GPU Operator installs a driver where AKS has installed one",
        'Keep one: add the pool with gpu_driver="none", or install the operator with driver.enabled=false.',
    ),
    (
        r"could not load NVML library|ERROR_LIBRARY_NOT_FOUND|Failed to initialize NVML|NVIDIA-SMI has failed"
        r"|no CUDA-capable device|libnvidia-ml\.so\.1: cannot open",
        errors.NoGpuDriver,
        "it finds no GPU driver",
        f'A pool with gpu_driver="none" needs a driver of your own. Else {_VERIFY}',
    ),
)


def of_log(text: str) -> Failure | None:
    """The failure that a log, or a container's message, tells; None for none that is known."""
    for pattern, kind, verdict, fix in _LOG_RULES:
        if found := re.search(pattern, text, re.S):
            facts = {name: value for name, value in found.groupdict().items() if value}
            return Failure(kind, verdict, fix, facts)
    return None


_UNSCHEDULED = re.compile(r"0/(?P<nodes>\d{1,9}) nodes are available: (?P<causes>.*?)(?:\. preemption: .*|\.?)$", re.S)
_NOT_SCALED = re.compile(r"pod didn't trigger scale-up(?: \([^()]*\))?: (?P<causes>.*)", re.S)
_CAUSE = re.compile(r"(?<!\d)(?P<count>\d{1,9}) (?P<cause>(?:\{[^{}]*\}|[^,{])+)")


def of_event(reason: str, message: str) -> errors.PodPending | None:
    """Why no node takes a pod, from the scheduler's or the autoscaler's event; None for other events."""
    if reason == "FailedScheduling" and (found := _UNSCHEDULED.search(message)):
        causes, nodes = _causes(found["causes"]), int(found["nodes"])
        said = f"no node of {nodes} takes the pod: {', '.join(causes)}"
        return errors.PodPending(said, hint=_hint(causes), causes=causes, nodes=nodes)
    if reason == "NotTriggerScaleUp" and (found := _NOT_SCALED.search(message)):
        causes = _causes(found["causes"])
        said = f"the autoscaler adds no node for the pod: {', '.join(causes)}"
        return errors.NoScaleUp(said, hint=_hint(causes, scaling=True), causes=causes)
    return None


def _causes(text: str) -> dict[str, int]:
    return {found["cause"].strip(" ."): int(found["count"]) for found in _CAUSE.finditer(text)}


def _hint(causes: dict[str, int], *, scaling: bool = False) -> str:
    text = ", ".join(causes)
    if scaling and ("max node group size" in text or "max limit reached" in text):
        return "cluster.scale(aks, pool, min_count=..., max_count=...) raises the autoscaler's limit."
    if "taint" in text:
        return "jobs.apply(aks, manifest, replace=True) adds the tolerations that the GPU nodes call for."
    if scaling and "Insufficient nvidia.com/" in text:
        return (
            "The autoscaler does not know that a new node would have GPUs: keep one, "
            "cluster.scale(aks, pool, min_count=1, max_count=...), until a device plugin has run there."
        )
    if "Insufficient nvidia.com/" in text:
        return "capacity.gpus(aks) shows who holds the GPUs; wait, or cluster.scale(aks, pool, n)."
    if lacking := re.search(r"Insufficient (cpu|memory|ephemeral-storage|pods)|Too many (pods)", text):
        less = f"Ask for less {lacking[1] or lacking[2]}"
        return f"{less}, wait until other pods end, or add nodes: cluster.scale(aks, pool, n)."
    if "selector" in text or "affinity" in text:
        return "Correct the manifest's nodeSelector or affinity: capacity.nodes(aks) shows the nodes."
    return "capacity.nodes(aks) shows what there is."
