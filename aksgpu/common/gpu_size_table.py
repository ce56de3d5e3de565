"""The table of GPU VM sizes in this package. This module sends no requests."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from aksgpu.errors import SizeNotAvailable

__all__ = ["GpuSize", "alternatives", "is_gpu_size", "lookup", "nearest_names", "require_current", "table"]

_MAX_SUGGESTIONS = 3
"""Number of similar names that an error lists."""

_SIMILARITY = 0.6
"""Lowest similarity at which a name is suggested, from 0 (different) to 1 (equal)."""


@dataclass(frozen=True)
class GpuSize:
    """A GPU VM size.

    Attributes:
        vm_size: Azure's name, such as ``Standard_NC4as_T4_v3``.
        gpu_model: model of the GPU.
        gpus: number of GPUs of a VM. A fraction means a share of one GPU, which Kubernetes counts as one.
        gpu_memory_gb_total: memory in GB of all the VM's GPUs.
        vcpus: vCPUs, which count against the quota.
        ram_gb: memory in GB.
        arch: ``amd64`` or ``arm64``.
        family: name of the quota family.
        driver: driver that AKS installs (``cuda-lts``, ``grid``, ...); empty if unknown.
        mig: whether the GPUs can be split (Multi-Instance GPU).
        retired_on: ISO date on which Azure retired the size; empty for current sizes.
        use_instead: VM size to use instead of a retired one; empty for current sizes.
        aks: whether AKS lists the size as supported.
    """

    vm_size: str
    gpu_model: str
    gpus: float
    gpu_memory_gb_total: float
    vcpus: int
    ram_gb: float
    arch: str
    family: str
    driver: str
    mig: bool
    retired_on: str
    use_instead: str
    aks: bool

    @property
    def devices(self) -> int:
        """Number of GPUs that Kubernetes counts on a node of this size."""
        return max(1, round(self.gpus))

    @property
    def gpu_memory_gb(self) -> float:
        """Memory in GB of one GPU, or of the share of a GPU."""
        return self.gpu_memory_gb_total / self.devices


@cache
def table() -> dict[str, GpuSize]:
    """Return all sizes, by name in lower case."""
    text = resources.files("aksgpu").joinpath("data", "gpu_sizes.csv").read_text("utf-8")
    sizes = [_from_row(row) for row in csv.DictReader(text.splitlines())]
    return {size.vm_size.lower(): size for size in sizes}


def _from_row(row: dict[str, str]) -> GpuSize:
    return GpuSize(
        vm_size=row["vm_size"],
        gpu_model=row["gpu_model"],
        gpus=float(row["gpus"]),
        gpu_memory_gb_total=float(row["gpu_memory_gb_total"]),
        vcpus=int(row["vcpus"]),
        ram_gb=float(row["ram_gb"]),
        arch=row["arch"],
        family=row["family"],
        driver=row["driver"],
        mig=row["mig"] == "true",
        retired_on=row["retired_on"],
        use_instead=row["use_instead"],
        aks=row["aks"] == "true",
    )


def lookup(vm_size: str) -> GpuSize:
    """Return the facts about a GPU size, current or retired. No request is sent.

    Args:
        vm_size: such as ``Standard_NC4as_T4_v3``; upper and lower case do not matter.

    Raises:
        SizeNotAvailable: the table does not have the size. The error lists the most similar names.

    Example:
        >>> sizes.lookup("Standard_NC4as_T4_v3").gpu_model
        'Tesla T4'
    """
    found = table().get(vm_size.lower())
    if found is not None:
        return found
    names = [known.vm_size for known in table().values()]
    similar = tuple(nearest_names(vm_size, names))
    hint = "sizes.gpu_sizes(azure, location) lists the GPU sizes of a location."
    if similar:
        hint = f"Did you mean {' or '.join(map(repr, similar))}?"
    message = f"`vm_size` must be a GPU VM size, got {vm_size!r}"
    raise SizeNotAvailable(message, vm_size=vm_size, alternatives=similar, hint=hint)


def is_gpu_size(vm_size: str) -> bool:
    """Return whether the table has the size."""
    return vm_size.lower() in table()


def nearest_names(vm_size: str, names: Sequence[str]) -> list[str]:
    """Return at most three of the names: those most similar to a size that does not exist."""
    # Nearly all names share this prefix, which would make every name look similar.
    prefix = "standard_"
    by_short_name = {name.lower().removeprefix(prefix): name for name in names}
    wanted = vm_size.lower().removeprefix(prefix)
    matches = difflib.get_close_matches(wanted, by_short_name, _MAX_SUGGESTIONS, _SIMILARITY)
    return [by_short_name[match] for match in matches]


def alternatives(vm_size: str) -> tuple[str, ...]:
    """Return the current sizes that can replace a GPU size, best first.

    The size that Azure recommends comes first, then the other sizes with the same GPU model that AKS supports. No
    request is sent.

    Args:
        vm_size: such as ``Standard_NC6``; upper and lower case do not matter.

    Raises:
        SizeNotAvailable: the table does not have the size.
    """
    size = lookup(vm_size)
    wanted = lookup(size.use_instead) if size.use_instead else size
    candidates = [
        other
        for other in table().values()
        if other.aks and not other.retired_on and other.gpu_model == wanted.gpu_model and other.vm_size != size.vm_size
    ]
    candidates.sort(key=lambda other: (other.vm_size != wanted.vm_size, other.gpus != wanted.gpus, other.vcpus))
    return tuple(other.vm_size for other in candidates)


def require_current(vm_size: str) -> GpuSize | None:
    """Return the facts about a size, and refuse a retired one. No request is sent.

    Returns:
        The size; None if the table does not have it.

    Raises:
        SizeNotAvailable: Azure retired the size. The error names the size to use instead.
    """
    found = table().get(vm_size.lower())
    if found is not None and found.retired_on:
        replacement = lookup(found.use_instead)
        raise SizeNotAvailable(
            f"{found.vm_size} ({found.gpu_model}) was retired by Azure on {found.retired_on}",
            vm_size=found.vm_size,
            alternatives=alternatives(found.vm_size),
            hint=f"Use {replacement.vm_size} instead ({replacement.gpu_model}).",
        )
    return found
