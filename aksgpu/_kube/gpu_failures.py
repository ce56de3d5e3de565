"""Recognise how GPUs fail inside a cluster: driver, device plugin, scheduler, autoscaler. One rule for each failure.

Reads the texts of logs and events, and sends nothing. Azure's own refusals are in :mod:`aksgpu._azure.refusal_rules`.
The texts are from users' reports; they are kept as test data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from aksgpu import errors


@dataclass(frozen=True)
class Failure:
    """A failure that a text shows.

    Attributes:
        kind: the exception that represents it.
        verdict: what is wrong, as a clause.
        fix: what to do, as an action.
        other_fix: what to do on a cluster that Azure does not manage, if that differs; else empty.
        facts: attributes of the exception.
    """

    kind: type[errors.AksGpuError]
    verdict: str
    fix: str
    other_fix: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def fix_for(self, has_azure: bool) -> str:
        """What to do, as an action.

        Args:
            has_azure: whether Azure manages the cluster.
        """
        return self.fix if has_azure or not self.other_fix else self.other_fix

    def error(self, message: str = "", *, has_azure: bool = True) -> errors.AksGpuError:
        """Return the exception, with the verdict as its message if none is given."""
        return self.kind(
            message or f"{self.verdict[0].upper()}{self.verdict[1:]}.", hint=self.fix_for(has_azure), **self.facts
        )


_UPGRADE = "az aks nodepool upgrade --resource-group GROUP --cluster-name CLUSTER --name POOL --node-image-only"
_LOG_RULES: tuple[tuple[str, type[errors.AksGpuError], str, str, str], ...] = (
    (
        r"Driver/library version mismatch(?:.*?NVML library version: (?P<library>[\d.]+))?",
        errors.DriverMismatch,
        "the node's driver and its libraries are of different versions",
        f"Take a newer node image: {_UPGRADE}. Image 202607.02.0 is known for this.",
        "Install the same version of driver and libraries on the node, and restart it.",
    ),
    (
        r"CUDA driver version is insufficient for CUDA runtime",
        errors.DriverMismatch,
        "the image's CUDA and the node's driver do not fit together",
        f"Use an image built for an older CUDA, or nodes with a newer node image: {_UPGRADE}.",
        "Use an image built for an older CUDA, or install a newer driver on the node.",
    ),
    (
        r"CUDA out of memory|CUDA_ERROR_OUT_OF_MEMORY|OutOfMemoryError",
        errors.JobFailed,
        "the GPU's memory is too small",
        "Use a smaller batch, or a VM size with more GPU memory: sizes.gpu_sizes(aks.azure, aks.location).",
        "Use a smaller batch, or a node whose GPU has more memory.",
    ),
    (
        r"Failed to initialize NVML: Unknown Error|GPU has fallen off the bus|NVRM: Xid|no healthy devices present",
        errors.GpuLost,
        "the container lost its GPU while it ran",
        "Run it again. If it recurs: plugin.install(aks, manifest=manifests.device_plugin(pass_device_specs=True)).",
        "",
    ),
    (
        r"[Cc]ould not unload NVIDIA driver kernel modules, driver is in use",
        errors.SecondGpuStack,
        "the GPU Operator installs a driver where one is installed already",
        'Keep one: add the pool with gpu_driver="none", or install the operator with driver.enabled=false.',
        "Keep one: install the operator with driver.enabled=false, or remove the node's own driver.",
    ),
    (
        r"could not load NVML library|ERROR_LIBRARY_NOT_FOUND|Failed to initialize NVML|NVIDIA-SMI has failed"
        r"|no CUDA-capable device|libnvidia-ml\.so\.1: cannot open",
        errors.NoGpuDriver,
        "it finds no GPU driver",
        'A pool with gpu_driver="none" needs a driver of your own. Otherwise plugin.verify(aks) shows each GPU node: '
        "delete the pool whose driver does not come up, and add it again.",
        "Install the driver on the node and restart the device plugin; plugin.verify(aks) shows each GPU node.",
    ),
)


def of_log(text: str) -> Failure | None:
    """Return the failure that a log or a container's message shows; None if no known one does."""
    for pattern, kind, verdict, fix, other_fix in _LOG_RULES:
        if found := re.search(pattern, text, re.S):
            facts = {name: value for name, value in found.groupdict().items() if value}
            return Failure(kind, verdict, fix, other_fix, facts)
    return None


_UNSCHEDULED = re.compile(
    r"0/(?P<nodes>\d{1,9}) nodes are available: (?P<causes>.*?)(?:\. (?:[^.]*, )?preemption: .*|\.?)$", re.S
)
_NOT_SCALED = re.compile(r"pod didn't trigger scale-up(?: \([^()]*\))?: (?P<causes>.*)", re.S)
_CAUSE = re.compile(r"(?<!\d)(?P<count>\d{1,9}) (?P<cause>(?:\{[^{}]*\}|[^,{])+)")


def of_event(reason: str, message: str, *, pool: str = "gpunp", has_azure: bool = True) -> errors.PodPending | None:
    """Return why no node takes a pod, from the scheduler's or the autoscaler's event; None for other events.

    Args:
        reason: the event's.
        message: the event's.
        pool: the node pool that hints speak of.
        has_azure: whether Azure manages the cluster, so that there are node pools.
    """
    if reason == "FailedScheduling" and (found := _UNSCHEDULED.search(message)):
        causes = _causes(found["causes"])
        nodes = int(found["nodes"])
        why = f"no node of {nodes} takes the pod: {', '.join(causes)}"
        return errors.PodPending(why, hint=_hint(causes, pool, has_azure), causes=causes, nodes=nodes)
    if reason == "NotTriggerScaleUp" and (found := _NOT_SCALED.search(message)):
        causes = _causes(found["causes"])
        why = f"the autoscaler adds no node for the pod: {', '.join(causes)}"
        return errors.NoScaleUp(why, hint=_scaling_hint(causes, pool, has_azure), causes=causes)
    return None


def _causes(text: str) -> dict[str, int]:
    return {found["cause"].strip(" ."): int(found["count"]) for found in _CAUSE.finditer(text)}


def _scaling_hint(causes: dict[str, int], pool: str, has_azure: bool) -> str:
    """What to do about an autoscaler that adds no node."""
    text = ", ".join(causes)
    if "max node group size" in text or "max limit reached" in text:
        if not has_azure:
            return "Raise the maximum size of the autoscaler's node group."
        return f"cluster.scale(aks, {pool!r}, min_count=0, max_count=5), for example, raises the autoscaler's limit."
    if "taint" not in text and "Insufficient nvidia.com/" in text:
        why = (
            "The autoscaler does not know that a new node would have GPUs: keep one node until a device plugin has run"
        )
        return f"{why} there: cluster.scale(aks, {pool!r}, min_count=1, max_count=5)." if has_azure else f"{why} there."
    return _hint(causes, pool, has_azure)


def _hint(causes: dict[str, int], pool: str, has_azure: bool) -> str:
    """What to do about the scheduler's causes."""
    text = ", ".join(causes)
    add = f"add nodes: cluster.scale(aks, {pool!r}, count=2)" if has_azure else "add a node to the cluster"
    if "taint" in text:
        return "jobs.apply(aks, manifest, replace=True) adds the tolerations that the GPU nodes call for."
    if "Insufficient nvidia.com/" in text:
        return f"capacity.gpus(aks) shows who holds the GPUs; wait, or {add}."
    if lacking := re.search(r"Insufficient (cpu|memory|ephemeral-storage|pods)|Too many (pods)", text):
        return f"Ask for less {lacking[1] or lacking[2]}, wait until other pods end, or {add}."
    if "selector" in text or "affinity" in text:
        return "Correct the manifest's nodeSelector or affinity: capacity.nodes(aks) shows the nodes."
    return "capacity.nodes(aks) shows the nodes."
