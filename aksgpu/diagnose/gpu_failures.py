"""Recognise GPU failures in the text of a log or a container's message. One rule for each failure.

This module reads texts and sends nothing. Azure's own refusals are in :mod:`aksgpu.azure.error_rules`, the events of
the scheduler and the autoscaler in :mod:`aksgpu.diagnose.scheduling_events`. The texts are from users' reports and are
kept as test data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from aksgpu import errors

__all__ = ["LOG_RULES", "Failure", "LogRule", "from_log"]


@dataclass(frozen=True)
class Failure:
    """A failure that a text shows.

    Attributes:
        kind: the exception class that represents it.
        verdict: what is wrong, as a clause.
        fix: what to do, as an action, on a cluster that is managed through Azure.
        other_fix: what to do on any other cluster; empty if that is the same.
        facts: attributes of the exception, read from the text.
    """

    kind: type[errors.AksGpuError]
    verdict: str
    fix: str
    other_fix: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def fix_for(self, has_azure: bool) -> str:
        """Return what to do, as an action.

        Args:
            has_azure: whether the cluster is managed through Azure.
        """
        if has_azure or not self.other_fix:
            return self.fix
        return self.other_fix

    def error(self, message: str = "", *, has_azure: bool = True) -> errors.AksGpuError:
        """Return the exception, with the verdict as its message if none is given."""
        text = message or f"{self.verdict[0].upper()}{self.verdict[1:]}."
        return self.kind(text, hint=self.fix_for(has_azure), **self.facts)


@dataclass(frozen=True)
class LogRule:
    """A failure, and how its text is recognised.

    Attributes:
        pattern: regular expression that the text contains. Its named groups become attributes of the exception.
        kind: the exception class that represents the failure.
        verdict: what is wrong, as a clause.
        fix: what to do, as an action, on a cluster that is managed through Azure.
        other_fix: what to do on any other cluster; empty if that is the same.
    """

    pattern: str
    kind: type[errors.AksGpuError]
    verdict: str
    fix: str
    other_fix: str = ""

    def failure(self, text: str) -> Failure | None:
        """Return the failure if the text shows it, else None."""
        match = re.search(self.pattern, text, re.S)
        if match is None:
            return None
        facts = {name: value for name, value in match.groupdict().items() if value}
        return Failure(self.kind, self.verdict, self.fix, self.other_fix, facts)


_UPGRADE = "az aks nodepool upgrade --resource-group GROUP --cluster-name CLUSTER --name POOL --node-image-only"

LOG_RULES = (
    LogRule(
        pattern=r"Driver/library version mismatch(?:.{0,400}?NVML library version: (?P<library>[\d.]+))?",
        kind=errors.DriverMismatch,
        verdict="the node's driver and its libraries are of different versions",
        fix=f"Take a newer node image: {_UPGRADE}. Image 202607.02.0 is known for this.",
        other_fix="Install the same version of driver and libraries on the node, and restart it.",
    ),
    LogRule(
        pattern=r"CUDA driver version is insufficient for CUDA runtime",
        kind=errors.DriverMismatch,
        verdict="the image's CUDA and the node's driver do not fit together",
        fix=f"Use an image built for an older CUDA, or nodes with a newer node image: {_UPGRADE}.",
        other_fix="Use an image built for an older CUDA, or install a newer driver on the node.",
    ),
    LogRule(
        pattern=r"CUDA out of memory|CUDA_ERROR_OUT_OF_MEMORY|OutOfMemoryError",
        kind=errors.JobFailed,
        verdict="the GPU's memory is too small",
        fix="Use a smaller batch, or a VM size with more GPU memory: sizes.gpu_sizes(aks.azure, aks.location).",
        other_fix="Use a smaller batch, or a node whose GPU has more memory.",
    ),
    LogRule(
        pattern=r"Failed to initialize NVML: Unknown Error|GPU has fallen off the bus|NVRM: Xid"
        r"|no healthy devices present",
        kind=errors.GpuLost,
        verdict="the container lost its GPU while it ran",
        fix="Run it again. If it recurs: "
        "plugin.install(aks, manifest=manifests.device_plugin(pass_device_specs=True)).",
    ),
    LogRule(
        pattern=r"[Cc]ould not unload NVIDIA driver kernel modules, driver is in use",
        kind=errors.SecondGpuStack,
        verdict="the GPU Operator installs a driver where one is installed already",
        fix='Keep one: add the pool with gpu_driver="none", or install the operator with driver.enabled=false.',
        other_fix="Keep one: install the operator with driver.enabled=false, or remove the node's own driver.",
    ),
    LogRule(
        pattern=r"could not load NVML library|ERROR_LIBRARY_NOT_FOUND|Failed to initialize NVML|NVIDIA-SMI has failed"
        r"|no CUDA-capable device|libnvidia-ml\.so\.1: cannot open",
        kind=errors.NoGpuDriver,
        verdict="it finds no GPU driver",
        fix='A pool with gpu_driver="none" needs a driver of your own. Otherwise plugin.status(aks) shows each GPU '
        "node: delete the pool whose driver does not come up, and add it again.",
        other_fix="Install the driver on the node and restart the device plugin; plugin.status(aks) shows each GPU "
        "node.",
    ),
)
"""The known failures. The first rule that recognises a text counts, so more specific patterns come first."""


def from_log(text: str) -> Failure | None:
    """Return the failure that a log or a container's message shows; None if it shows no known one."""
    for rule in LOG_RULES:
        failure = rule.failure(text)
        if failure is not None:
            return failure
    return None
