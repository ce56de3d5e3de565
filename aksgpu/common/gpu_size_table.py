"""What GPU VM sizes are, from a table in this package. Private to :mod:`aksgpu.sizes`; nothing is asked of Azure."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from aksgpu.errors import SizeNotAvailable


@dataclass(frozen=True)
class GpuSize:
    """A GPU VM size.

    Attributes:
        size: Azure's name, such as ``Standard_NC4as_T4_v3``.
        gpu: the GPU's model.
        gpus: GPUs that a VM has; a fraction is a share of one card, which Kubernetes sees as one GPU.
        gpu_memory_gb: GPU memory of the VM in GB, all its GPUs together.
        vcpus: vCPUs; what quota counts.
        ram_gb: memory in GB.
        arch: ``amd64`` or ``arm64``.
        family: the quota family's name.
        driver: which driver AKS installs (``cuda-lts``, ``grid``, ...); empty when not known.
        mig: whether its GPUs can be split (Multi-Instance GPU).
        retired_on: ISO date on which Azure retired it; empty for current sizes.
        use_instead: the size to use instead of a retired one; empty for current sizes.
        aks: whether AKS lists it among those that it supports.
    """

    size: str
    gpu: str
    gpus: float
    gpu_memory_gb: float
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
        """GPUs that Kubernetes counts on such a node."""
        return max(1, round(self.gpus))


@cache
def table() -> dict[str, GpuSize]:
    """All sizes, by name in lower case."""
    text = resources.files("aksgpu").joinpath("data", "gpu_sizes.csv").read_text("utf-8")
    rows = (
        GpuSize(
            size=row["size"],
            gpu=row["gpu"],
            gpus=float(row["gpus"]),
            gpu_memory_gb=float(row["gpu_memory_gb"]),
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
        for row in csv.DictReader(text.splitlines())
    )
    return {size.size.lower(): size for size in rows}


def lookup(size: str) -> GpuSize:
    """What a GPU size is, whether current or retired. Nothing is asked of Azure.

    Args:
        size: such as ``Standard_NC4as_T4_v3``; upper and lower case do not matter.

    Raises:
        SizeNotAvailable: the table does not have it; the error names the sizes with the nearest names.
    """
    if found := table().get(size.lower()):
        return found
    likely = tuple(near(size, [known.size for known in table().values()]))
    meant = f"Did you mean {' or '.join(map(repr, likely))}?"
    raise SizeNotAvailable(
        f"no GPU VM size is called {size!r}",
        size=size,
        alternatives=likely,
        hint=meant if likely else "See sizes.gpu_sizes(azure, location) for what there is.",
    )


def is_gpu_size(size: str) -> bool:
    """Whether the table of GPU sizes has it."""
    return size.lower() in table()


def near(size: str, names: Sequence[str]) -> list[str]:
    """At most three of the names, those nearest to a size that does not exist."""
    # The prefix that nearly all names share would make every name look near.
    plain = {name.lower().removeprefix("standard_"): name for name in names}
    return [plain[m] for m in difflib.get_close_matches(size.lower().removeprefix("standard_"), plain, 3, 0.6)]


def alternatives(size: str) -> tuple[str, ...]:
    """Current sizes that could stand in for a GPU size, best first: the advised one, then those with the same GPU.

    Raises:
        SizeNotAvailable: the table does not have it.
    """
    this = lookup(size)
    wanted = lookup(this.use_instead) if this.use_instead else this
    same = [s for s in table().values() if not s.retired_on and s.gpu == wanted.gpu and s.size != this.size]
    same.sort(key=lambda s: (s.size != wanted.size, s.gpus != wanted.gpus, s.vcpus))
    return tuple(s.size for s in same)


def require_current(size: str) -> GpuSize | None:
    """Refuse a retired size, without asking Azure.

    Returns:
        What it is, or None for a size that the table does not have.

    Raises:
        SizeNotAvailable: Azure retired it; the error names the size to use instead.
    """
    found = table().get(size.lower())
    if found and found.retired_on:
        raise SizeNotAvailable(
            f"{found.size} ({found.gpu}) was retired by Azure on {found.retired_on}",
            size=found.size,
            alternatives=alternatives(found.size),
            hint=f"Use {found.use_instead} instead ({lookup(found.use_instead).gpu}).",
        )
    return found
