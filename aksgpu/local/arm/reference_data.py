"""What the laptop's Azure offers: regions, VM sizes, zones and quota (``offer.yaml``), and the other tables beside it.

The GPU sizes come from the table that the library reads too. Nothing here decides anything; see
:mod:`aksgpu.local.arm.vcpu_quota`.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

KUBERNETES_VERSION = "1.33.5"
NODE_IMAGE = "AKSUbuntu-2204gen2containerd-202610.13.0"


@cache
def table(name: str) -> dict[str, Any]:
    """One of the YAML files beside this module; not to be changed."""
    text = resources.files("aksgpu.local.arm").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast, where it is there
    found: dict[str, Any] = yaml.load(text, loader)
    return found


SUBSCRIPTION: str = table("offer")["subscription"]["subscriptionId"]
TENANT: str = table("offer")["subscription"]["tenantId"]
REGIONS: dict[str, str] = table("offer")["regions"]
"""Every region, by name, with the name that people see."""
FAMILIES: dict[str, dict[str, Any]] = {name.lower(): row for name, row in table("offer")["families"].items()}


@dataclass(frozen=True)
class Size:
    """One VM size."""

    name: str
    vcpus: int
    ram_gb: float
    family: str
    price: float | None
    gpu: str = ""
    gpus: float = 0.0
    gpu_memory_gb: float = 0.0
    arch: str = "amd64"
    driver: str = ""
    mig: bool = False
    retired_on: str = ""

    @property
    def terms(self) -> dict[str, Any]:
        """What the laptop offers of the size's family."""
        return FAMILIES.get(self.family.lower(), {})

    @property
    def devices(self) -> int:
        """GPUs that a node of this size shows: a fraction of a card is one device."""
        return max(1, round(self.gpus)) if self.gpus else 0

    @property
    def nvidia(self) -> bool:
        """Whether it has GPUs that CUDA runs on."""
        return bool(self.gpus) and self.driver != "amd"

    @property
    def restricted(self) -> bool:
        """Whether the subscription is kept from it (``NotAvailableForSubscription``)."""
        return bool(self.terms.get("restricted"))

    def mig_slices(self, profile: str) -> tuple[str, int]:
        """What NVIDIA calls the slices of a profile, such as ``1g.5gb``, and how many a GPU of this size gives."""
        eighths, count = table("offer")["mig"][profile]
        memory = int(self.gpu_memory_gb / self.devices * eighths / 8 + 0.5)
        return f"{profile.removeprefix('MIG')}.{memory}gb", count

    def offered(self, location: str) -> bool:
        """Whether this region has the size at all."""
        return not self.retired_on and location in self.terms.get("regions", REGIONS)

    def zones(self, location: str) -> list[str]:
        """The availability zones of a region that have the size."""
        return [] if location in table("offer")["without_zones"] else list(self.terms.get("zones", "123"))


@cache
def sizes() -> dict[str, Size]:
    """Every size that the laptop knows, by its name in lower case."""
    found = [Size(name, *row) for name, row in table("offer")["sizes"].items()]
    text = resources.files("aksgpu").joinpath("data/gpu_sizes.csv").read_text(encoding="utf-8")
    found += [_gpu_size(row) for row in csv.DictReader(text.splitlines())]
    return {size.name.lower(): size for size in found}


def _gpu_size(row: dict[str, str]) -> Size:
    return Size(
        name=row["size"],
        vcpus=int(row["vcpus"]),
        ram_gb=float(row["ram_gb"]),
        family=row["family"],
        price=float(row["usd_per_hour"]) if row["usd_per_hour"] else None,
        gpu=row["gpu"],
        gpus=float(row["gpus"]),
        gpu_memory_gb=float(row["gpu_memory_gb"]),
        arch=row["arch"],
        driver=row["driver"],
        mig=row["mig"] == "true",
        retired_on=row["retired_on"] if row["status"] == "retired" else "",
    )
