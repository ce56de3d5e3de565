"""The regions, VM sizes, zones and quota of the laptop's Azure, read from the YAML files in this package.

The GPU sizes come from the library's own table, ``gpu_sizes.csv``.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from aksgpu.common import yaml_loader

NODE_IMAGE = "AKSUbuntu-2404gen2containerd-202610.13.0"


@cache
def table(name: str) -> dict[str, Any]:
    """Return the content of a YAML file in this package. Callers must not modify it."""
    text = resources.files("aksgpu.local.arm").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.load(text, yaml_loader.LOADER)
    return found


SUBSCRIPTION: str = table("offer")["subscription"]["subscriptionId"]
TENANT: str = table("offer")["subscription"]["tenantId"]
REGIONS: dict[str, str] = table("offer")["regions"]
"""Display names of the regions by name."""
FAMILIES: dict[str, dict[str, Any]] = {name.lower(): row for name, row in table("offer")["families"].items()}
"""Rows of the VM families by name in lower case."""


@dataclass(frozen=True)
class Size:
    """A VM size.

    Attributes:
        name: such as ``Standard_NC4as_T4_v3``.
        vcpus: number of vCPUs.
        ram_gb: memory in GiB.
        family: the VM family that its quota belongs to.
        price: US dollars per hour, or None if unknown.
        gpu_model: the GPU's model; empty without one.
        gpus: number of GPUs, which may be a fraction of one.
        gpu_memory_gb_total: memory of all GPUs in GiB.
        arch: ``amd64`` or ``arm64``.
        driver: the GPU driver.
        mig: whether its GPUs support MIG.
        retired_on: the date on which it was retired; empty if it was not.
    """

    name: str
    vcpus: int
    ram_gb: float
    family: str
    price: float | None
    gpu_model: str = ""
    gpus: float = 0.0
    gpu_memory_gb_total: float = 0.0
    arch: str = "amd64"
    driver: str = ""
    mig: bool = False
    retired_on: str = ""

    @property
    def offer(self) -> dict[str, Any]:
        """The row of the size's family."""
        return FAMILIES.get(self.family.lower(), {})

    @property
    def devices(self) -> int:
        """The number of GPUs that a node shows. A fraction of a GPU is one device."""
        return max(1, round(self.gpus)) if self.gpus else 0

    @property
    def nvidia(self) -> bool:
        """Whether it has NVIDIA GPUs."""
        return bool(self.gpus) and self.driver != "amd"

    @property
    def restricted(self) -> bool:
        """Whether Azure restricts the size for the subscription (``NotAvailableForSubscription``)."""
        return bool(self.offer.get("restricted"))

    def mig_slices(self, profile: str) -> tuple[str, int]:
        """Return NVIDIA's name of a MIG profile, such as ``1g.5gb``, and the number of slices of one GPU."""
        eighths, count = table("offer")["mig"][profile]
        memory = int(self.gpu_memory_gb_total / self.devices * eighths / 8 + 0.5)
        return f"{profile.removeprefix('MIG')}.{memory}gb", count

    def is_offered(self, location: str) -> bool:
        """Return whether a region offers the size."""
        return not self.retired_on and location in self.offer.get("regions", REGIONS)

    def zones(self, location: str) -> list[str]:
        """Return the availability zones of a region that offer the size."""
        return [] if location in table("offer")["without_zones"] else list(self.offer.get("zones", "123"))


@cache
def sizes() -> dict[str, Size]:
    """Return every VM size by name in lower case."""
    found = [Size(name, *row) for name, row in table("offer")["sizes"].items()]
    text = resources.files("aksgpu").joinpath("data/gpu_sizes.csv").read_text(encoding="utf-8")
    found += [_gpu_size(row) for row in csv.DictReader(text.splitlines())]
    return {size.name.lower(): size for size in found}


def _gpu_size(row: dict[str, str]) -> Size:
    return Size(
        name=row["vm_size"],
        vcpus=int(row["vcpus"]),
        ram_gb=float(row["ram_gb"]),
        family=row["family"],
        price=float(row["usd_per_hour"]) if row["usd_per_hour"] else None,
        gpu_model=row["gpu_model"],
        gpus=float(row["gpus"]),
        gpu_memory_gb_total=float(row["gpu_memory_gb_total"]),
        arch=row["arch"],
        driver=row["driver"],
        mig=row["mig"] == "true",
        retired_on=row["retired_on"] if row["status"] == "retired" else "",
    )
