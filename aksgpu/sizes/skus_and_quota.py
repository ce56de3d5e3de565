"""VM sizes, quota and prices of a location, read from Azure's three APIs.

Compute's SKUs and usages come from Resource Manager, prices from the public Retail Prices API.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aksgpu.azure.throttling import limit
from aksgpu.errors import AzureError

if TYPE_CHECKING:
    from aksgpu.azure.subscription import Azure

__all__ = [
    "Location",
    "Price",
    "Usage",
    "VmSku",
    "disk_price",
    "prices",
    "read_location",
    "read_location_if_known",
]

_SKUS_API = "2021-07-01"
_USAGES_API = "2024-11-01"

_PRICES_TIMEOUT = 10.0
"""Seconds for reading prices. No function depends on prices."""

_MAX_SINGLE_QUERIES = 3
"""Largest number of sizes whose prices are read one by one."""

_DAYS_PER_MONTH = 730 / 24
"""Days per month in Azure's monthly prices, which count 730 hours."""

_PREMIUM_DISKS = {
    32: "P4",
    64: "P6",
    128: "P10",
    256: "P15",
    512: "P20",
    1024: "P30",
    2048: "P40",
}
"""Performance tiers of premium SSDs, which AKS uses for its nodes, by their largest size in GB."""


@dataclass(frozen=True)
class VmSku:
    """A VM size in a location, as Compute lists it for the subscription.

    Attributes:
        vm_size: such as ``Standard_NC4as_T4_v3``.
        family: name of the quota family.
        vcpus: vCPUs that count against the quota.
        ram_gb: memory in GB.
        gpus: GPUs; 0 for CPU sizes.
        arch: ``amd64`` or ``arm64``.
        zones: availability zones that offer the size to the subscription.
        refused_zones: zones that offer the size, but not to the subscription.
        restriction: why the whole location is refused (``NotAvailableForSubscription``, ``QuotaId``), or empty.
        spot: whether the size is available as a spot VM.
    """

    vm_size: str
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
    """A quota and its use.

    Attributes:
        name: the name in the usages API.
        used: vCPUs in use.
        limit: vCPUs allowed.
    """

    name: str
    used: int
    limit: int

    @property
    def left(self) -> int:
        """Number of vCPUs left."""
        return max(0, self.limit - self.used)


@dataclass(frozen=True)
class Price:
    """Prices of a size in US dollars per hour; None if unknown.

    Attributes:
        on_demand: pay as you go, Linux.
        spot: spot VM, Linux.
    """

    on_demand: float | None = None
    spot: float | None = None


@dataclass(frozen=True)
class Location:
    """The sizes and quotas of a location.

    Attributes:
        name: name of the location.
        skus: VM sizes by name in lower case.
        usages: quotas by name in lower case; empty if they could not be read.
        unknown: why the sizes could not be read; empty if they could.
    """

    name: str
    skus: Mapping[str, VmSku]
    usages: Mapping[str, Usage] = field(default_factory=dict)
    unknown: str = ""

    def usage(self, name: str) -> Usage | None:
        """Return a quota by name; None if unknown. Azure's APIs differ in upper and lower case."""
        return self.usages.get(name.lower())

    def vcpus_left(self, name: str) -> int | None:
        """Return the vCPUs left of a quota; None if unknown."""
        usage = self.usage(name)
        return None if usage is None else usage.left


def read_location(azure: Azure, name: str) -> Location:
    """Read the sizes and quotas of a location.

    Raises:
        AzureError: Resource Manager refused to list the sizes.
    """
    base = f"/subscriptions/{azure.subscription_id}/providers/Microsoft.Compute"
    items = azure.pages(
        f"{base}/skus",
        api_version=_SKUS_API,
        params={"$filter": f"location eq '{name}'"},
        what=f"listing VM sizes in {name}",
    )
    skus = [_parse_sku(item, name) for item in items if item.get("resourceType") == "virtualMachines"]
    if not skus:
        return Location(name, {})
    try:
        pages = list(azure.pages(f"{base}/locations/{name}/usages", api_version=_USAGES_API))
    except AzureError:
        pages = []  # a role may list sizes, but not usages; the quota is then unknown, which never fails a check
    usages = [_parse_usage(item) for item in pages]
    return Location(
        name,
        {sku.vm_size.lower(): sku for sku in skus},
        {usage.name.lower(): usage for usage in usages},
    )


def read_location_if_known(azure: Azure, name: str) -> Location:
    """Read a location. If Azure does not list the sizes at present, return a location without sizes, with the reason.

    A role may create clusters but not list sizes. Compute may throttle for minutes or fail while AKS works.
    """
    try:
        return read_location(azure, name)
    except AzureError as error:
        status = error.http_status
        if status is None or (status not in (403, 429) and status < 500):
            raise
        return Location(name, {}, unknown=error.message)


def _parse_usage(item: Mapping[str, Any]) -> Usage:
    return Usage(str(item["name"]["value"]), int(item["currentValue"]), int(item["limit"]))


def _parse_sku(sku: Mapping[str, Any], location: str) -> VmSku:
    capabilities = {item["name"]: item["value"] for item in sku.get("capabilities") or ()}
    zones: set[str] = set()
    for info in sku.get("locationInfo") or ():
        if str(info.get("location", "")).lower() == location:
            zones |= set(info.get("zones") or ())
    refused_zones, restriction = _parse_restrictions(sku, location)
    return VmSku(
        vm_size=str(sku["name"]),
        family=str(sku.get("family") or ""),
        # A size with constrained vCPUs counts its available vCPUs, not those of its parent size.
        vcpus=int(capabilities.get("vCPUsAvailable") or capabilities.get("vCPUs") or 0),
        ram_gb=float(capabilities.get("MemoryGB") or 0),
        gpus=float(capabilities.get("GPUs") or 0),
        arch="arm64" if capabilities.get("CpuArchitectureType") == "Arm64" else "amd64",
        zones=tuple(sorted(zones - refused_zones)),
        refused_zones=tuple(sorted(zones & refused_zones)),
        restriction=restriction,
        spot=capabilities.get("LowPriorityCapable") == "True",
    )


def _parse_restrictions(sku: Mapping[str, Any], location: str) -> tuple[set[str], str]:
    """Return the refused zones, and why the whole location is refused (empty if it is not)."""
    zones: set[str] = set()
    reason = ""
    for item in sku.get("restrictions") or ():
        info = item.get("restrictionInfo") or {}
        locations = {str(place).lower() for place in info.get("locations") or item.get("values") or ()}
        if item.get("type") == "Zone":
            zones |= set(info.get("zones") or ())
        elif location in locations:
            reason = str(item.get("reasonCode") or "restricted")
    return zones, reason


def prices(azure: Azure, location: str, vm_sizes: Iterable[str]) -> dict[str, Price]:
    """Return prices by size. Sizes are missing if the Retail Prices API does not return their price in time.

    Args:
        azure: the subscription, which keeps the prices that were read.
        location: the VMs' location.
        vm_sizes: exact names. A few are read one by one; many GPU sizes with one query for the whole location.
    """
    wanted = {vm_size for vm_size in vm_sizes if vm_size}
    to_read = sorted(vm_size for vm_size in wanted if (location, vm_size) not in azure.price_cache)
    found: dict[str, dict[str, float]] = {}
    try:
        with limit(_PRICES_TIMEOUT, "reading prices"):
            for query in _price_queries(location, to_read):
                _read_prices(azure, query, found)
    except AzureError:
        pass  # the public API is not reachable; prices are then unknown, and nothing depends on them
    else:
        # Sizes without a price are kept too, so that they are not read again.
        found = {**{vm_size: {} for vm_size in to_read}, **found}
    for vm_size, price in found.items():
        azure.price_cache[location, vm_size] = Price(price.get("on_demand"), price.get("spot"))
    return {
        vm_size: azure.price_cache[location, vm_size] for vm_size in wanted if (location, vm_size) in azure.price_cache
    }


def _price_queries(location: str, vm_sizes: list[str]) -> list[str]:
    vms = f"serviceName eq 'Virtual Machines' and armRegionName eq '{location}' and priceType eq 'Consumption'"
    only_gpu_sizes = all(vm_size.startswith("Standard_N") for vm_size in vm_sizes)
    if len(vm_sizes) > _MAX_SINGLE_QUERIES and only_gpu_sizes:
        return [f"{vms} and contains(armSkuName, 'Standard_N')"]
    return [f"{vms} and armSkuName eq '{vm_size}'" for vm_size in vm_sizes]


def _read_prices(azure: Azure, query: str, found: dict[str, dict[str, float]]) -> None:
    page = azure.public(azure.prices_url, {"$filter": query})
    while True:
        for item in page.get("Items") or ():
            _add_price(found, item)
        next_page = page.get("NextPageLink")
        if not next_page:
            return
        page = azure.public(next_page)


def _add_price(found: dict[str, dict[str, float]], item: Mapping[str, Any]) -> None:
    product = str(item.get("productName", ""))
    sku = str(item.get("skuName", ""))
    if product.endswith("Windows") or "Low Priority" in sku or item.get("unitOfMeasure") != "1 Hour":
        return
    kind = "spot" if sku.endswith("Spot") else "on_demand"
    vm_size = str(item.get("armSkuName", ""))
    found.setdefault(vm_size, {})[kind] = float(item["retailPrice"])


def disk_price(azure: Azure, location: str, gigabytes: int) -> float | None:
    """Return the price of a node's managed disk in US dollars per day; None if unknown."""
    tier = next((tier for size, tier in _PREMIUM_DISKS.items() if gigabytes <= size), None)
    if tier is None:
        return None
    sku = f"{tier} LRS"
    if (location, sku) not in azure.price_cache:
        try:
            monthly = _read_disk_price(azure, location, tier)
        except AzureError:
            return None
        azure.price_cache[location, sku] = None if monthly is None else round(monthly / _DAYS_PER_MONTH, 4)
    price: float | None = azure.price_cache[location, sku]
    return price


def _read_disk_price(azure: Azure, location: str, tier: str) -> float | None:
    """Read the monthly price of a disk tier in US dollars; None if the API does not list it."""
    sku = f"{tier} LRS"
    query = (
        f"serviceName eq 'Storage' and armRegionName eq '{location}' and priceType eq 'Consumption'"
        f" and productName eq 'Premium SSD Managed Disks' and skuName eq '{sku}'"
    )
    with limit(_PRICES_TIMEOUT, "reading prices"):
        items = azure.public(azure.prices_url, {"$filter": query}).get("Items") or ()
    for item in items:
        # The same SKU also has prices for mounts and operations.
        if item.get("meterName") in (f"{sku} Disk", f"{tier} Disks"):
            return float(item["retailPrice"])
    return None
