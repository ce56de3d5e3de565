"""GPU VM sizes: what each is, what a location offers and costs, and whether a wish can be had before money is spent.

    sizes.gpu_sizes(azure, "westeurope")                                    # a DataFrame
    sizes.preflight(azure, "westeurope", "Standard_NC4as_T4_v3", count=2)   # one verdict, with reasons

What a size is comes from a table in this package (Azure's documentation, read size by size), and from Compute's SKUs
for sizes newer than that table. What is offered, what quota is left and what it costs comes from Azure when asked.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from aksgpu._frames import frame
from aksgpu._preflight import Preflight, verdict
from aksgpu.errors import InvalidInput, LocationNotAvailable, SizeNotAvailable

if TYPE_CHECKING:
    import pandas as pd

    from aksgpu.azure import Azure

__all__ = ["GpuSize", "Preflight", "alternatives", "gpu_sizes", "lookup", "preflight"]


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
def _table() -> dict[str, GpuSize]:
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
    if found := _table().get(size.lower()):
        return found
    likely = tuple(near(size, [known.size for known in _table().values()]))
    meant = f"Did you mean {' or '.join(map(repr, likely))}?"
    raise SizeNotAvailable(
        f"no GPU VM size is called {size!r}",
        size=size,
        alternatives=likely,
        hint=meant if likely else "See sizes.gpu_sizes(azure, location) for what there is.",
    )


def is_gpu_size(size: str) -> bool:
    """Whether the table of GPU sizes has it."""
    return size.lower() in _table()


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
    same = [s for s in _table().values() if not s.retired_on and s.gpu == wanted.gpu and s.size != this.size]
    same.sort(key=lambda s: (s.size != wanted.size, s.gpus != wanted.gpus, s.vcpus))
    return tuple(s.size for s in same)


def require_current(size: str) -> GpuSize | None:
    """Refuse a retired size, without asking Azure.

    Returns:
        What it is, or None for a size that the table does not have.

    Raises:
        SizeNotAvailable: Azure retired it; the error names the size to use instead.
    """
    found = _table().get(size.lower())
    if found and found.retired_on:
        raise SizeNotAvailable(
            f"{found.size} ({found.gpu}) was retired by Azure on {found.retired_on}",
            size=found.size,
            alternatives=alternatives(found.size),
            hint=f"Use {found.use_instead} instead ({lookup(found.use_instead).gpu}).",
        )
    return found


_COLUMNS = {
    "size": "string",
    "gpu": "string",
    "gpus": "Float64",
    "gpu_memory_gb": "Float64",
    "vcpus": "Int64",
    "ram_gb": "Float64",
    "arch": "string",
    "zones": "string",
    "restriction": "string",
    "family": "string",
    "family_left": "Int64",
    "regional_left": "Int64",
    "spot_left": "Int64",
    "usd_per_hour": "Float64",
    "usd_per_gpu_hour": "Float64",
    "spot_usd_per_hour": "Float64",
    "spot_usd_per_gpu_hour": "Float64",
    "retired": "boolean",
    "mig": "boolean",
    "driver": "string",
    "aks": "boolean",
}


def gpu_sizes(azure: Azure, location: str) -> pd.DataFrame:
    """Every GPU size that the subscription sees in a location.

    Args:
        azure: the subscription.
        location: such as ``eastus``.

    Returns:
        A DataFrame, one row a size, sorted by GPU model and size. Shown whole, it is shortened to fit a screen; all
        these columns are there to sort, filter and choose from:

        - ``size`` (string): Azure's name.
        - ``gpu`` (string): GPU model; NA for sizes newer than this package.
        - ``gpus`` (Float64): GPUs of a VM; fractions are shares of a card.
        - ``gpu_memory_gb`` (Float64): memory of one GPU (of the share, for fractions), in GB.
        - ``vcpus`` (Int64), ``ram_gb`` (Float64, GB), ``arch`` (string, ``amd64`` or ``arm64``).
        - ``zones`` (string): availability zones open to the subscription, separated by commas; empty for none.
        - ``restriction`` (string): why the subscription cannot have it here; empty when it can.
        - ``family`` (string): quota family.
        - ``family_left``, ``regional_left``, ``spot_left`` (Int64): vCPUs left of the family's, the region's and the
          region's spot quota; NA when not known.
        - ``usd_per_hour``, ``spot_usd_per_hour`` (Float64): US dollars per VM hour, Linux, pay as you go and spot;
          NA when not known. ``usd_per_gpu_hour``, ``spot_usd_per_gpu_hour``: the same per GPU.
        - ``retired`` (boolean): retired by Azure; NA for sizes newer than this package, as for ``mig``.
        - ``mig`` (boolean): its GPUs can be split.
        - ``driver`` (string): driver that AKS installs; NA when not known.
        - ``aks`` (boolean): whether AKS lists it among those that it supports; NA for sizes newer than this package.

    Raises:
        LocationNotAvailable: no VM sizes are offered there.
        AzureError: Azure refused.
    """
    from aksgpu import _offers
    from aksgpu._sizetable import SizeTable

    place = _offers.location(azure, canonical_location(location))
    if not place.offers:
        raise LocationNotAvailable(
            f"no VM sizes are offered in {location!r}",
            location=location,
            hint="Check the location's name: `az account list-locations --output table` lists them.",
        )
    offers = [offer for offer in place.offers.values() if offer.gpus or is_gpu_size(offer.size)]
    prices = _offers.prices(azure, place.name, [offer.size for offer in offers])
    rows = [_row(offer, place, prices.get(offer.size, _offers.Price())) for offer in offers]
    table = SizeTable(frame(rows, _COLUMNS))
    return table.sort_values(["gpu", "gpus", "size"], ignore_index=True, na_position="last")


def _row(offer: Any, place: Any, price: Any) -> dict[str, Any]:
    known = _table().get(offer.size.lower())
    gpus = known.gpus if known else offer.gpus

    def left(name: str) -> int | None:
        usage = place.usage(name)
        return usage.left if usage else None

    def per_gpu(usd: float | None) -> float | None:
        return round(usd / gpus, 4) if usd is not None and gpus else None

    return {
        "size": offer.size,
        "gpu": known.gpu if known else None,
        "gpus": gpus,
        "gpu_memory_gb": known.gpu_memory_gb / known.devices if known else None,
        "vcpus": offer.vcpus,
        "ram_gb": offer.ram_gb or (known.ram_gb if known else None),
        "arch": offer.arch,
        "zones": ",".join(offer.zones),
        "restriction": offer.restriction,
        "family": offer.family,
        "family_left": left(offer.family),
        "regional_left": left("cores"),
        "spot_left": left("lowPriorityCores"),
        "usd_per_hour": price.on_demand,
        "usd_per_gpu_hour": per_gpu(price.on_demand),
        "spot_usd_per_hour": price.spot,
        "spot_usd_per_gpu_hour": per_gpu(price.spot),
        "retired": bool(known.retired_on) if known else None,
        "mig": known.mig if known else None,
        "driver": (known.driver or None) if known else None,
        "aks": known.aks if known else None,
    }


def canonical_location(location: str) -> str:
    """A location as Resource Manager spells it: ``East US`` is ``eastus``."""
    name = "".join(location.split()).lower()
    if not name.isalnum():
        raise InvalidInput(f"{location!r} is not the name of a location", hint="Such as 'eastus' or 'West Europe'.")
    return name


def preflight(
    azure: Azure,
    location: str,
    vm_size: str,
    count: int = 1,
    *,
    spot: bool = False,
    zones: Sequence[str] = (),
    surge: int = 0,
    gpu: bool = True,
    look_in: Sequence[str] = (),
) -> Preflight:
    """Can this be had? Asked before money is spent; what is unknown never says no.

    Args:
        azure: the subscription.
        location: such as ``eastus``.
        vm_size: such as ``Standard_NC4as_T4_v3``.
        count: nodes (of an autoscaled pool: the most that it may have).
        spot: as spot VMs, which have a quota of their own.
        zones: availability zones that must have it.
        surge: further nodes that an upgrade starts before it stops old ones.
        gpu: whether it has to be a GPU size.
        look_in: further locations to look for alternatives in; each costs two requests.

    Returns:
        The verdict, with reasons, numbers and alternatives that would work.

    Raises:
        InvalidInput: count or surge makes no sense.
        AzureError: Azure could not be asked.
    """
    from aksgpu import _offers

    if count < 0 or surge < 0:
        raise InvalidInput("count and surge cannot be negative")
    place = _offers.location(azure, canonical_location(location))
    others = [_offers.location(azure, canonical_location(other)) for other in look_in]
    return verdict(place, vm_size, count + surge, spot=spot, zones=tuple(zones), gpu=gpu, others=others)
