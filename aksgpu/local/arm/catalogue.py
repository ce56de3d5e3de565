"""What can be had and what it costs: Kubernetes versions, providers, Compute SKUs and usages, retail prices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from aksgpu.local.arm import data, errors, quota
from aksgpu.local.arm.context import Answer, Call, Context
from aksgpu.local.arm.rules import check_location

PROVIDERS = {
    "Microsoft.ContainerService": ("managedClusters", "managedClusters/agentPools", "locations/operations"),
    "Microsoft.Compute": ("skus", "locations/usages", "virtualMachineScaleSets"),
    "Microsoft.Resources": ("resourceGroups", "subscriptions"),
}
PRICED_SINCE = "2026-09-01T00:00:00Z"


def versions(context: Context, call: Call) -> Answer:
    """The Kubernetes versions of a region: the one that the laptop speaks."""
    check_location(call.path["location"])
    row = {
        "version": data.KUBERNETES_VERSION.rpartition(".")[0],
        "isDefault": True,
        "capabilities": {"supportPlan": ["KubernetesOfficial"]},
        "patchVersions": {data.KUBERNETES_VERSION: {"upgrades": []}},
    }
    return Answer(200, {"values": [row]})


def providers(context: Context, call: Call) -> Answer:
    """The resource providers that the laptop has."""
    return Answer(200, {"value": [_provider(name) for name in PROVIDERS]})


def provider(context: Context, call: Call) -> Answer:
    """One resource provider; it is always registered."""
    for name in PROVIDERS:
        if name.lower() == call.path["namespace"].lower():
            return Answer(200, _provider(name))
    message = f"The resource namespace '{call.path['namespace']}' is invalid."
    raise errors.ArmError(404, "InvalidResourceNamespace", message)


def _provider(name: str) -> dict[str, Any]:
    kinds = [
        {"resourceType": kind, "locations": list(data.REGIONS.values()), "apiVersions": ["2026-08-01"]}
        for kind in PROVIDERS[name]
    ]
    return {
        "id": f"/subscriptions/{data.SUBSCRIPTION}/providers/{name}",
        "namespace": name,
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationRequired",
        "resourceTypes": kinds,
    }


def skus(context: Context, call: Call) -> Answer:
    """The VM sizes, once for each region; ``$filter=location eq 'x'`` picks one region."""
    wanted = _filters(call).get("location")
    regions = [name for name in data.REGIONS if wanted is None or name == wanted.lower()]
    rows = [_sku(size, region) for size in data.sizes().values() for region in regions if size.offered(region)]
    return Answer(200, {"value": rows})


def _sku(size: data.Size, region: str) -> dict[str, Any]:
    facts = {
        "vCPUs": size.vcpus,
        "vCPUsAvailable": size.vcpus,
        "MemoryGB": f"{size.ram_gb:g}",
        **({"GPUs": size.devices} if size.gpus else {}),
        "LowPriorityCapable": True,
        "PremiumIO": True,
        "EphemeralOSDiskSupported": False,
        "AcceleratedNetworkingEnabled": True,
        "RdmaEnabled": "ND" in size.name and "r" in size.name,
        "HyperVGenerations": "V2" if size.arch == "arm64" else "V1,V2",
        "CpuArchitectureType": "Arm64" if size.arch == "arm64" else "x64",
    }
    restriction = {
        "type": "Location",
        "values": [region],
        "restrictionInfo": {"locations": [region]},
        "reasonCode": "NotAvailableForSubscription",
    }
    return {
        "resourceType": "virtualMachines",
        "name": size.name,
        "tier": "Standard",
        "size": size.name.removeprefix("Standard_"),
        "family": size.family,
        "locations": [region],
        "locationInfo": [{"location": region, "zones": size.zones(region), "zoneDetails": []}],
        "capabilities": [{"name": name, "value": str(value)} for name, value in facts.items()],
        "restrictions": [restriction] if size.restricted() else [],
    }


def usages(context: Context, call: Call) -> Answer:
    """How many vCPUs are in use and allowed, for the region, for spot and for each family.

    Families are spelt with a small first letter here, as Azure's two lists do not agree on the spelling either.
    """
    location = check_location(call.path["location"], "locations/usages")
    used = quota.usage(context, location)
    rows = [
        _usage(context, quota.REGION, "Total Regional vCPUs", used[quota.REGION]),
        _usage(context, quota.SPOT, "Total Regional Low-priority vCPUs", used[quota.SPOT]),
    ]
    for family in dict.fromkeys(size.family for size in data.sizes().values()):
        spelt = family if " " in family else family[0].lower() + family[1:]
        rows.append(_usage(context, spelt, f"{family} vCPUs", used[family.lower()]))
    return Answer(200, {"value": rows})


def _usage(context: Context, name: str, shown: str, value: int) -> dict[str, Any]:
    return {
        "name": {"value": name, "localizedValue": shown},
        "currentValue": value,
        "limit": quota.limit(context, name),
        "unit": "Count",
    }


def prices(context: Context, call: Call) -> Answer:
    """Retail prices an hour, for the sizes whose price the table knows, the same in every region."""
    wanted, parts = _filters(call), _parts(call)
    items = [item for item in _prices(wanted.get("armRegionName")) if _matches(item, wanted, parts)]
    return Answer(
        200,
        {
            "BillingCurrency": "USD",
            "CustomerEntityId": "Default",
            "CustomerEntityType": "Retail",
            "Items": items,
            "NextPageLink": None,
            "Count": len(items),
        },
    )


def _matches(item: dict[str, Any], wanted: dict[str, str], parts: dict[str, str]) -> bool:
    names = {"priceType": "type"}
    exact = all(str(item.get(names.get(key, key), "")).lower() == value.lower() for key, value in wanted.items())
    return exact and all(part in str(item.get(key, "")) for key, part in parts.items())


def _prices(region: str | None) -> Iterator[dict[str, Any]]:
    for name, shown in data.REGIONS.items():
        if region is None or region.lower() == name:
            place = {"armRegionName": name, "location": shown}
            yield from (_COMMON | place | item for item in _machine_prices(name))
            yield from (_COMMON | place | item for item in _disk_prices(name))


_COMMON = {
    "currencyCode": "USD",
    "tierMinimumUnits": 0.0,
    "effectiveStartDate": PRICED_SINCE,
    "type": "Consumption",
    "isPrimaryMeterRegion": True,
}


def _machine_prices(region: str) -> Iterator[dict[str, Any]]:
    for size in data.sizes().values():
        if size.price is None:
            continue
        short = size.name.removeprefix("Standard_").replace("_", " ")
        yield {
            "retailPrice": size.price,
            "unitPrice": size.price,
            "meterId": f"{size.name}/{region}",
            "meterName": short,
            "productId": size.family,
            "skuId": f"{size.family}/{size.name}",
            "productName": f"Virtual Machines {size.family}",
            "skuName": short,
            "serviceName": "Virtual Machines",
            "serviceId": "DZH313Z7MMC8",
            "serviceFamily": "Compute",
            "unitOfMeasure": "1 Hour",
            "armSkuName": size.name,
        }


DISKS = {"P4": 5.28, "P6": 10.21, "P10": 19.71, "P15": 38.02, "P20": 73.22, "P30": 135.17}
"""US dollars a month of premium SSDs by performance tier, near the list prices of the United States."""


def _disk_prices(region: str) -> Iterator[dict[str, Any]]:
    for tier, price in DISKS.items():
        yield {
            "retailPrice": price,
            "unitPrice": price,
            "meterId": f"{tier}/{region}",
            "meterName": f"{tier} LRS Disk",
            "productId": "premium-ssd",
            "skuId": f"premium-ssd/{tier}",
            "productName": "Premium SSD Managed Disks",
            "skuName": f"{tier} LRS",
            "serviceName": "Storage",
            "serviceId": "DZH317F1HKN0",
            "serviceFamily": "Storage",
            "unitOfMeasure": "1/Month",
            "armSkuName": "",
        }


def _filters(call: Call) -> dict[str, str]:
    """The equalities of an OData ``$filter``."""
    return dict(re.findall(r"(\w+)\s+eq\s+'([^']*)'", call.query.get("$filter", "")))


def _parts(call: Call) -> dict[str, str]:
    """The ``contains(field, 'part')`` of an OData ``$filter``."""
    return dict(re.findall(r"contains\((\w+),\s*'([^']*)'\)", call.query.get("$filter", "")))
