"""What can be had and what it costs: Kubernetes versions, providers, Compute SKUs and usages, retail prices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aksgpu.local.arm import reference_data, vcpu_quota
from aksgpu.local.arm.arm_errors import refusal
from aksgpu.local.arm.context import Answer, Call, Context, filtered
from aksgpu.local.arm.rules import check_location


def versions(context: Context, call: Call) -> Answer:
    """The Kubernetes versions of a region: the one that the laptop speaks."""
    check_location(call.path["location"])
    row = {
        "version": reference_data.KUBERNETES_VERSION.rpartition(".")[0],
        "isDefault": True,
        "capabilities": {"supportPlan": ["KubernetesOfficial"]},
        "patchVersions": {reference_data.KUBERNETES_VERSION: {"upgrades": []}},
    }
    return Answer(200, {"values": [row]})


def provider(context: Context, call: Call) -> Answer:
    """One resource provider; it is always registered."""
    for name, kinds in reference_data.table("offer")["providers"].items():
        if name.lower() == call.path["namespace"].lower():
            places = list(reference_data.REGIONS.values())
            versions = ["2026-08-01"]
            types = [{"resourceType": kind, "locations": places, "apiVersions": versions} for kind in kinds]
            place = f"/subscriptions/{reference_data.SUBSCRIPTION}/providers/{name}"
            state = {"registrationState": "Registered", "registrationPolicy": "RegistrationRequired"}
            return Answer(200, {"id": place, "namespace": name, **state, "resourceTypes": types})
    raise refusal("no_provider", name=call.path["namespace"])


def skus(context: Context, call: Call) -> Answer:
    """The VM sizes, once for each region; ``$filter=location eq 'x'`` picks one region."""
    regions = [row["location"] for row in filtered(call, [{"location": name} for name in reference_data.REGIONS])]
    rows = [
        _sku(size, region) for size in reference_data.sizes().values() for region in regions if size.offered(region)
    ]
    return Answer(200, {"value": rows})


def _sku(size: reference_data.Size, region: str) -> dict[str, Any]:
    arm = size.arch == "arm64"
    facts = {"vCPUs": size.vcpus, "vCPUsAvailable": size.vcpus, "MemoryGB": f"{size.ram_gb:g}"}
    facts |= {"GPUs": size.devices} if size.gpus else {}
    facts |= {"HyperVGenerations": "V2" if arm else "V1,V2", "CpuArchitectureType": "Arm64" if arm else "x64"}
    facts |= reference_data.table("offer")["capabilities"]
    restriction = {"type": "Location", "values": [region], "restrictionInfo": {"locations": [region]}}
    restriction["reasonCode"] = "NotAvailableForSubscription"
    return {
        "resourceType": "virtualMachines",
        "name": size.name,
        "tier": "Standard",
        "size": size.name.removeprefix("Standard_"),
        "family": size.family,
        "locations": [region],
        "locationInfo": [{"location": region, "zones": size.zones(region), "zoneDetails": []}],
        "capabilities": [{"name": name, "value": str(value)} for name, value in facts.items()],
        "restrictions": [restriction] if size.restricted else [],
    }


def usages(context: Context, call: Call) -> Answer:
    """How many vCPUs are in use and allowed, for the region, for spot and for each family.

    Families are spelt with a small first letter here, as Azure's two lists do not agree on the spelling either.
    """
    location = check_location(call.path["location"], "locations/usages")
    used = vcpu_quota.usage(context, location)
    names = {vcpu_quota.REGION: "Total Regional vCPUs", vcpu_quota.SPOT: "Total Regional Low-priority vCPUs"}
    for family in dict.fromkeys(size.family for size in reference_data.sizes().values()):
        names[family if " " in family else family[0].lower() + family[1:]] = f"{family} vCPUs"
    rows = [
        {
            "name": {"value": name, "localizedValue": shown},
            "currentValue": used[name if name in (vcpu_quota.REGION, vcpu_quota.SPOT) else name.lower()],
            "limit": vcpu_quota.limit(context, name),
            "unit": "Count",
        }
        for name, shown in names.items()
    ]
    return Answer(200, {"value": rows})


def prices(context: Context, call: Call) -> Answer:
    """Retail prices, for the sizes whose price the table knows, the same in every region."""
    items = filtered(call, list(_prices()), "bad_price_filter")
    answer = {"BillingCurrency": "USD", "CustomerEntityId": "Default", "CustomerEntityType": "Retail", "Items": items}
    return Answer(200, answer | {"NextPageLink": None, "Count": len(items)})


def _prices() -> Iterator[dict[str, Any]]:
    for region in reference_data.REGIONS:
        for size in reference_data.sizes().values():
            if size.price is not None:
                short = size.name.removeprefix("Standard_").replace("_", " ")
                product = f"Virtual Machines {size.family}"
                yield _price(region, size.price, "1 Hour", product, short, short, "Virtual Machines", size.name)
        for tier, price in reference_data.table("offer")["disks"].items():
            product = "Premium SSD Managed Disks"
            sku = f"{tier} LRS"
            yield _price(region, price, "1/Month", product, sku, f"{sku} Disk", "Storage", "")


def _price(
    region: str, price: float, unit: str, product: str, sku: str, meter: str, service: str, size: str
) -> dict[str, Any]:
    always: dict[str, Any] = reference_data.table("offer")["price"]
    return always | {
        "retailPrice": price,
        "unitPrice": price,
        "armRegionName": region,
        "location": reference_data.REGIONS[region],
        "meterName": meter,
        "productName": product,
        "skuName": sku,
        "serviceName": service,
        "unitOfMeasure": unit,
        "armSkuName": size,
    }
