"""What Azure offers in a location: VM sizes, quota and prices, read from its three APIs.

Compute's SKUs and usages come from Resource Manager, prices from the public Retail Prices API. Read into small records
here; :mod:`aksgpu.sizes` makes tables and verdicts of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aksgpu.azure.throttling import limit
from aksgpu.errors import AzureError

if TYPE_CHECKING:
    from aksgpu.azure.subscription import Azure

_SKUS_API = "2021-07-01"
_USAGES_API = "2024-11-01"
_PRICES_TIMEOUT = 10.0  # seconds; nothing depends on prices
_ASKED_SINGLY = 3  # prices of so many sizes are asked for one by one


@dataclass(frozen=True)
class Offer:
    """A VM size in a location, as Compute lists it for the subscription.

    Attributes:
        size: such as ``Standard_NC4as_T4_v3``.
        family: the quota family's name.
        vcpus: vCPUs that count against the quota.
        ram_gb: memory in GB.
        gpus: GPUs; 0 for CPU sizes.
        arch: ``amd64`` or ``arm64``.
        zones: availability zones that have it and are not refused to the subscription.
        refused_zones: zones that have it and are refused to the subscription.
        restriction: why the whole location is refused (``NotAvailableForSubscription``, ``QuotaId``), or empty.
        spot: whether it can be had as a spot VM.
    """

    size: str
    family: str
    vcpus: int
    ram_gb: float
    gpus: float
    arch: str
    zones: tuple[str, ...]
    refused_zones: tuple[str, ...]
    restriction: str
    spot: bool


@dataclass(frozen=True)
class Usage:
    """A quota.

    Attributes:
        name: as the usages API spells it.
        used: vCPUs in use.
        limit: vCPUs allowed.
    """

    name: str
    used: int
    limit: int

    @property
    def left(self) -> int:
        """VCPUs that can still be had."""
        return max(0, self.limit - self.used)


@dataclass(frozen=True)
class Price:
    """What a size costs in US dollars an hour; None when not known.

    Attributes:
        on_demand: pay as you go, Linux.
        spot: as a spot VM, Linux.
    """

    on_demand: float | None = None
    spot: float | None = None


@dataclass(frozen=True)
class Location:
    """Everything that Azure said about a location.

    Attributes:
        name: of the location.
        offers: by size in lower case.
        usages: by name in lower case; empty when they could not be read.
        unknown: why the sizes could not be read; empty when they could.
    """

    name: str
    offers: Mapping[str, Offer]
    usages: Mapping[str, Usage] = field(default_factory=dict)
    unknown: str = ""

    def usage(self, name: str) -> Usage | None:
        """A quota by its name, whose spelling varies in case between Azure's APIs."""
        return self.usages.get(name.lower())


def location(azure: Azure, name: str) -> Location:
    """Read the sizes and quotas of a location.

    Raises:
        AzureError: Resource Manager refused to list the sizes.
    """
    base = f"/subscriptions/{azure.subscription_id}/providers/Microsoft.Compute"
    skus = azure.pages(
        f"{base}/skus",
        api_version=_SKUS_API,
        params={"$filter": f"location eq '{name}'"},
        what=f"listing VM sizes in {name}",
    )
    machines = [_offer(sku, name) for sku in skus if sku.get("resourceType") == "virtualMachines"]
    offers = {offer.size.lower(): offer for offer in machines}
    if not offers:
        return Location(name, {})
    try:
        pages = list(azure.pages(f"{base}/locations/{name}/usages", api_version=_USAGES_API))
    except AzureError:
        pages = []  # a role may see sizes and not usages: quota is then unknown, which never blocks
    usages = [Usage(str(u["name"]["value"]), int(u["currentValue"]), int(u["limit"])) for u in pages]
    return Location(name, offers, {usage.name.lower(): usage for usage in usages})


def location_if_told(azure: Azure, name: str) -> Location:
    """The same, or a location of which nothing is known, with the reason, where Azure does not tell at present.

    A role may create clusters and not list sizes, and Compute may be throttled (for minutes, which are not waited for)
    or out of order while AKS works.
    """
    try:
        return location(azure, name)
    except AzureError as error:
        if error.status is None or (error.status not in (403, 429) and error.status < 500):
            raise
        return Location(name, {}, unknown=error.message)


def _offer(sku: Mapping[str, Any], location: str) -> Offer:
    able = {item["name"]: item["value"] for item in sku.get("capabilities") or ()}
    zones = {
        zone
        for info in sku.get("locationInfo") or ()
        if str(info.get("location", "")).lower() == location
        for zone in info.get("zones") or ()
    }
    refused: set[str] = set()
    restriction = ""
    for item in sku.get("restrictions") or ():
        info = item.get("restrictionInfo") or {}
        if item.get("type") == "Zone":
            refused |= set(info.get("zones") or ())
        elif location in {str(place).lower() for place in info.get("locations") or item.get("values") or ()}:
            restriction = str(item.get("reasonCode") or "restricted")
    return Offer(
        size=str(sku["name"]),
        family=str(sku.get("family") or ""),
        # A size with constrained vCPUs counts with those it shows, not with those of its parent.
        vcpus=int(able.get("vCPUsAvailable") or able.get("vCPUs") or 0),
        ram_gb=float(able.get("MemoryGB") or 0),
        gpus=float(able.get("GPUs") or 0),
        arch="arm64" if able.get("CpuArchitectureType") == "Arm64" else "amd64",
        zones=tuple(sorted(zones - refused)),
        refused_zones=tuple(sorted(zones & refused)),
        restriction=restriction,
        spot=able.get("LowPriorityCapable") == "True",
    )


def prices(azure: Azure, location: str, sizes: Iterable[str]) -> dict[str, Price]:
    """Prices by size; those that the Retail Prices API does not tell, or not in time, are missing.

    Args:
        azure: where to ask.
        location: of the VMs.
        sizes: exact names. Few are asked for one by one, many GPU sizes in one list of all the location's.
    """
    wanted = {size for size in sizes if size}
    asked = sorted(size for size in wanted if (location, size) not in azure.price_cache)
    if len(asked) > _ASKED_SINGLY and all(size.startswith("Standard_N") for size in asked):
        queries = ["contains(armSkuName, 'Standard_N')"]
    else:
        queries = [f"armSkuName eq '{size}'" for size in asked]
    machines = f"serviceName eq 'Virtual Machines' and armRegionName eq '{location}' and priceType eq 'Consumption'"
    found: dict[str, dict[str, float]] = {}
    try:
        with limit(_PRICES_TIMEOUT, "reading prices"):
            for query in queries:
                _read_prices(azure, f"{machines} and {query}", found)
    except AzureError:
        pass  # no way to the public API: a price is then NA, and nothing depends on it
    else:
        found = {**{size: {} for size in asked}, **found}  # what was answered with nothing need not be asked again
    azure.price_cache |= {(location, size): Price(p.get("on_demand"), p.get("spot")) for size, p in found.items()}
    return {size: azure.price_cache[location, size] for size in wanted if (location, size) in azure.price_cache}


def _read_prices(azure: Azure, query: str, found: dict[str, dict[str, float]]) -> None:
    page = azure.public(azure.prices_url, {"$filter": query})
    while True:
        for item in page.get("Items") or ():
            _note_price(found, item)
        if not (following := page.get("NextPageLink")):
            return
        page = azure.public(following)


def _note_price(found: dict[str, dict[str, float]], item: Mapping[str, Any]) -> None:
    product = str(item.get("productName", ""))
    sku = str(item.get("skuName", ""))
    if product.endswith("Windows") or "Low Priority" in sku or item.get("unitOfMeasure") != "1 Hour":
        return
    kind = "spot" if sku.endswith("Spot") else "on_demand"
    found.setdefault(str(item.get("armSkuName", "")), {})[kind] = float(item["retailPrice"])


_DISKS = {32: "P4", 64: "P6", 128: "P10", 256: "P15", 512: "P20", 1024: "P30", 2048: "P40"}
"""Performance tiers of premium SSDs, which AKS takes for its nodes, by the largest size in GB."""
_MONTH = 730 / 24  # days, as Azure counts a month


def disk_price(azure: Azure, location: str, gigabytes: int) -> float | None:
    """What a node's managed disk costs in US dollars a day; None when not known."""
    tier = next((tier for most, tier in _DISKS.items() if gigabytes <= most), None)
    if tier is None:
        return None
    sku = f"{tier} LRS"
    if (location, sku) not in azure.price_cache:
        query = f"serviceName eq 'Storage' and armRegionName eq '{location}' and priceType eq 'Consumption'"
        query += f" and productName eq 'Premium SSD Managed Disks' and skuName eq '{sku}'"
        try:
            with limit(_PRICES_TIMEOUT, "reading prices"):
                items = azure.public(azure.prices_url, {"$filter": query}).get("Items") or ()
        except AzureError:
            return None
        # The same SKU has prices of mounts and operations.
        months = [item["retailPrice"] for item in items if item.get("meterName") in (f"{sku} Disk", f"{tier} Disks")]
        azure.price_cache[location, sku] = round(float(months[0]) / _MONTH, 4) if months else None
    price: float | None = azure.price_cache[location, sku]
    return price
