"""What the laptop's Azure offers: regions, VM sizes, zones and quota, as rows.

The GPU sizes come from the table that the library reads too. Which region offers what, and how much quota a
subscription has, is the laptop's own choice: generous where the tutorial walks, tight where Azure is tight, so that a
refusal can be met and solved. Nothing here decides anything; see :mod:`aksgpu.local.arm.quota`.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
TENANT = "00000000-0000-0000-0000-000000000001"
KUBERNETES_VERSION = "1.33.5"
NODE_IMAGE = "AKSUbuntu-2204gen2containerd-202610.13.0"

REGIONS = {
    "eastus": "East US",
    "eastus2": "East US 2",
    "southcentralus": "South Central US",
    "westus2": "West US 2",
    "westus3": "West US 3",
    "australiaeast": "Australia East",
    "southeastasia": "Southeast Asia",
    "northeurope": "North Europe",
    "swedencentral": "Sweden Central",
    "uksouth": "UK South",
    "westeurope": "West Europe",
    "centralus": "Central US",
    "southafricanorth": "South Africa North",
    "centralindia": "Central India",
    "eastasia": "East Asia",
    "japaneast": "Japan East",
    "koreacentral": "Korea Central",
    "canadacentral": "Canada Central",
    "francecentral": "France Central",
    "germanywestcentral": "Germany West Central",
    "italynorth": "Italy North",
    "norwayeast": "Norway East",
    "polandcentral": "Poland Central",
    "switzerlandnorth": "Switzerland North",
    "uaenorth": "UAE North",
    "brazilsouth": "Brazil South",
    "israelcentral": "Israel Central",
    "northcentralus": "North Central US",
    "westus": "West US",
    "japanwest": "Japan West",
    "westcentralus": "West Central US",
    "australiasoutheast": "Australia Southeast",
    "southindia": "South India",
    "canadaeast": "Canada East",
    "switzerlandwest": "Switzerland West",
    "ukwest": "UK West",
}
"""Every region, by name, with the name that people see."""

WITHOUT_ZONES = {
    "northcentralus",
    "westus",
    "japanwest",
    "westcentralus",
    "australiasoutheast",
    "southindia",
    "canadaeast",
    "switzerlandwest",
    "ukwest",
}

# Name, vCPUs, GB of memory, quota family, US dollars an hour (near the list prices of the United States).
_CPU_SIZES = """
Standard_B2s       2 4   standardBSFamily        0.0416
Standard_B2ms      2 8   standardBSFamily        0.0832
Standard_B4ms      4 16  standardBSFamily        0.166
Standard_DS1_v2    1 3.5 standardDSv2Family      0.073
Standard_DS2_v2    2 7   standardDSv2Family      0.146
Standard_DS3_v2    4 14  standardDSv2Family      0.293
Standard_DS4_v2    8 28  standardDSv2Family      0.585
Standard_D2s_v3    2 8   standardDSv3Family      0.096
Standard_D4s_v3    4 16  standardDSv3Family      0.192
Standard_D8s_v3    8 32  standardDSv3Family      0.384
Standard_D2s_v5    2 8   standardDSv5Family      0.096
Standard_D4s_v5    4 16  standardDSv5Family      0.192
Standard_D8s_v5    8 32  standardDSv5Family      0.384
Standard_D2ds_v5   2 8   standardDDSv5Family     0.113
Standard_D4ds_v5   4 16  standardDDSv5Family     0.226
Standard_D8ds_v5   8 32  standardDDSv5Family     0.452
Standard_D16ds_v5 16 64  standardDDSv5Family     0.904
Standard_D2as_v5   2 8   standardDASv5Family     0.086
Standard_D4as_v5   4 16  standardDASv5Family     0.172
"""

QUOTA = {
    "cores": 256,
    "lowPriorityCores": 64,
    "standard ncasv3_t4 family": 64,
    "standardncadsa100v4family": 48,
    "standardncadsh100v5family": 40,
    "standardnvadsa10v5family": 72,
    "standardndisrh200v5family": 96,
    "standardbsfamily": 100,
    "standarddsv2family": 100,
    "standarddsv3family": 100,
    "standarddsv5family": 100,
    "standardddsv5family": 100,
    "standarddasv5family": 100,
}
"""vCPUs that the subscription may use in each region, by family in lower case; 0 for the families not listed."""

OFFERED = {
    "standardncadsa100v4family": "eastus eastus2 southcentralus westus2 westus3 westeurope northeurope japaneast",
    "standardncadsh100v5family": "eastus2 southcentralus westus3 westeurope swedencentral",
    "standardnvadsa10v5family": "eastus eastus2 southcentralus westus2 westus3 westeurope northeurope uksouth",
    "standardndisrh200v5family": "eastus2 southcentralus swedencentral",
    "standard ndasv4_a100 family": "eastus southcentralus westus2 westeurope",
    "standard ndamsv4_a100family": "eastus southcentralus westus2 westeurope",
    "standardndsh100v5family": "eastus2 southcentralus swedencentral",
    "standardndsv2family": "eastus southcentralus westus2",
    "standardnccads2023family": "eastus2 westeurope",
    "standardndisv5mi300xfamily": "westus3 swedencentral",
    "standardndisrgb200v6ndrfamily": "southcentralus",
    "standardndisrgb300v6family": "southcentralus",
    "standardnvadsv710v5family": "eastus2 westus3",
    "standardncrtxpro6000bsev6family": "southcentralus westus2",
}
"""Regions that offer a family; a family that is not listed is offered everywhere."""

RESTRICTED = frozenset({"standardndisrgb200v6ndrfamily", "standardndisrgb300v6family", "standardndisv5mi300xfamily"})
"""Families that exist in a region but not for this subscription (``NotAvailableForSubscription``)."""


ZONES = {
    "standardncadsa100v4family": ("1", "3"),
    "standardncadsh100v5family": ("1",),
    "standardndisrh200v5family": ("2",),
    "standardnvadsa10v5family": ("1", "2"),
}
"""The zones of a region that have a family; a family that is not listed is in all of them."""


MIG_PROFILES = {"MIG1g": (1, 7), "MIG2g": (2, 3), "MIG3g": (4, 2), "MIG4g": (4, 1), "MIG7g": (8, 1)}
"""By profile: the eighths of a GPU's memory that a slice has, and how many slices a GPU gives."""


@dataclass(frozen=True)
class Size:
    """One VM size."""

    name: str
    vcpus: int
    ram_gb: float
    family: str
    gpu: str = ""
    gpus: float = 0.0
    gpu_memory_gb: float = 0.0
    arch: str = "amd64"
    driver: str = ""
    mig: bool = False
    retired_on: str = ""
    price: float | None = None

    @property
    def devices(self) -> int:
        """GPUs that a node of this size shows: a fraction of a card is one device."""
        return max(1, round(self.gpus)) if self.gpus else 0

    @property
    def nvidia(self) -> bool:
        """Whether it has GPUs that CUDA runs on."""
        return bool(self.gpus) and self.driver != "amd"

    def mig_slices(self, profile: str) -> tuple[str, int]:
        """What NVIDIA calls the slices of a profile, such as ``1g.5gb``, and how many a GPU of this size gives."""
        eighths, count = MIG_PROFILES[profile]
        memory = int(self.gpu_memory_gb / self.devices * eighths / 8 + 0.5)
        return f"{profile.removeprefix('MIG')}.{memory}gb", count

    def offered(self, location: str) -> bool:
        """Whether this region has the size at all."""
        regions = OFFERED.get(self.family.lower())
        return not self.retired_on and (regions is None or location in regions.split())

    def zones(self, location: str) -> list[str]:
        """The availability zones of a region that have the size."""
        if location in WITHOUT_ZONES:
            return []
        return list(ZONES.get(self.family.lower(), ("1", "2", "3")))

    def restricted(self) -> bool:
        """Whether the subscription is kept from it."""
        return self.family.lower() in RESTRICTED


@cache
def sizes() -> dict[str, Size]:
    """Every size that the laptop knows, by its name in lower case."""
    found = [_cpu_size(*line.split()) for line in _CPU_SIZES.strip().splitlines()]
    text = resources.files("aksgpu").joinpath("data/gpu_sizes.csv").read_text(encoding="utf-8")
    found += [_gpu_size(row) for row in csv.DictReader(text.splitlines())]
    return {size.name.lower(): size for size in found}


def _cpu_size(name: str, vcpus: str, ram_gb: str, family: str, price: str) -> Size:
    return Size(name, int(vcpus), float(ram_gb), family, price=float(price))


def _gpu_size(row: dict[str, str]) -> Size:
    return Size(
        name=row["size"],
        vcpus=int(row["vcpus"]),
        ram_gb=float(row["ram_gb"]),
        family=row["family"],
        gpu=row["gpu"],
        gpus=float(row["gpus"]),
        gpu_memory_gb=float(row["gpu_memory_gb"]),
        arch=row["arch"],
        driver=row["driver"],
        mig=row["mig"] == "true",
        retired_on=row["retired_on"] if row["status"] == "retired" else "",
        price=float(row["usd_per_hour"]) if row["usd_per_hour"] else None,
    )
