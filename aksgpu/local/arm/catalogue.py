"""Request handlers for Kubernetes versions, resource providers, VM sizes, quota usage and retail prices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aksgpu.local import kubernetes_versions
from aksgpu.local.arm import reference_data, vcpu_quota
from aksgpu.local.arm.arm_errors import refusal
from aksgpu.local.arm.context import Answer, Call, Context
from aksgpu.local.arm.odata import filter_rows
from aksgpu.local.arm.rules import check_location


def list_versions(context: Context, call: Call) -> Answer:
    """Return the Kubernetes versions of a region."""
    check_location(call.path["location"])
    rows: list[dict[str, Any]] = []
    for minor, patch in kubernetes_versions.PATCH_VERSIONS.items():
        row: dict[str, Any] = {"version": minor, "capabilities": {"supportPlan": ["KubernetesOfficial"]}}
        if minor == kubernetes_versions.DEFAULT_MINOR:
            row["isDefault"] = True
        row["patchVersions"] = {patch: {"upgrades": []}}
        rows.append(row)
    return Answer(200, {"values": rows})


def get_provider(context: Context, call: Call) -> Answer:
    """Return one resource provider. Every provider is registered."""
    for name, kinds in reference_data.table("offer")["providers"].items():
        if name.lower() == call.path["namespace"].lower():
            return Answer(200, _show_provider(name, kinds))
    raise refusal("no_provider", name=call.path["namespace"])


def _show_provider(name: str, kinds: list[str]) -> dict[str, Any]:
    locations = list(reference_data.REGIONS.values())
    types = [{"resourceType": kind, "locations": locations, "apiVersions": ["2026-08-01"]} for kind in kinds]
    return {
        "id": f"/subscriptions/{reference_data.SUBSCRIPTION}/providers/{name}",
        "namespace": name,
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationRequired",
        "resourceTypes": types,
    }


def list_skus(context: Context, call: Call) -> Answer:
    """Return the VM sizes, one row for each region. They can be filtered by ``location``."""
    rows = [{"location": name} for name in reference_data.REGIONS]
    regions = [row["location"] for row in filter_rows(rows, call.query.get("$filter", ""))]
    sizes = reference_data.sizes().values()
    skus = [_show_sku(size, region) for size in sizes for region in regions if size.is_offered(region)]
    return Answer(200, {"value": skus})


def _show_sku(size: reference_data.Size, region: str) -> dict[str, Any]:
    arm = size.arch == "arm64"
    capabilities = {
        "vCPUs": size.vcpus,
        "vCPUsAvailable": size.vcpus,
        "MemoryGB": f"{size.ram_gb:g}",
        "HyperVGenerations": "V2" if arm else "V1,V2",
        "CpuArchitectureType": "Arm64" if arm else "x64",
    }
    if size.gpus:
        capabilities["GPUs"] = size.devices
    capabilities |= reference_data.table("offer")["capabilities"]
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
        "capabilities": [{"name": name, "value": str(value)} for name, value in capabilities.items()],
        "restrictions": [restriction] if size.restricted else [],
    }


def list_usages(context: Context, call: Call) -> Answer:
    """Return the vCPU usage and limit of the region, of spot and of each family.

    The names of families begin with a lower-case letter, unlike in the list of VM sizes. Azure does the same.
    """
    location = check_location(call.path["location"], "locations/usages")
    used = vcpu_quota.usage(context, location)

    def row(name: str, localized: str, key: str) -> dict[str, Any]:
        return {
            "name": {"value": name, "localizedValue": localized},
            "currentValue": used[key],
            "limit": vcpu_quota.limit(context, name),
            "unit": "Count",
        }

    rows = [
        row(vcpu_quota.REGION, "Total Regional vCPUs", vcpu_quota.REGION),
        row(vcpu_quota.SPOT, "Total Regional Low-priority vCPUs", vcpu_quota.SPOT),
    ]
    for family in dict.fromkeys(size.family for size in reference_data.sizes().values()):
        name = family if " " in family else family[0].lower() + family[1:]
        rows.append(row(name, f"{family} vCPUs", name.lower()))
    return Answer(200, {"value": rows})


def list_prices(context: Context, call: Call) -> Answer:
    """Return the retail prices of VM sizes and disks. They are the same in every region."""
    items = filter_rows(list(_prices()), call.query.get("$filter", ""), "bad_price_filter")
    body = {
        "BillingCurrency": "USD",
        "CustomerEntityId": "Default",
        "CustomerEntityType": "Retail",
        "Items": items,
        "NextPageLink": None,
        "Count": len(items),
    }
    return Answer(200, body)


def _prices() -> Iterator[dict[str, Any]]:
    for region in reference_data.REGIONS:
        for size in reference_data.sizes().values():
            if size.price is not None:
                yield _vm_price(region, size, size.price)
        for tier, price in reference_data.table("offer")["disks"].items():
            yield _disk_price(region, tier, price)


def _vm_price(region: str, size: reference_data.Size, price: float) -> dict[str, Any]:
    short_name = size.name.removeprefix("Standard_").replace("_", " ")
    return _price(region, price) | {
        "meterName": short_name,
        "productName": f"Virtual Machines {size.family}",
        "skuName": short_name,
        "serviceName": "Virtual Machines",
        "unitOfMeasure": "1 Hour",
        "armSkuName": size.name,
    }


def _disk_price(region: str, tier: str, price: float) -> dict[str, Any]:
    return _price(region, price) | {
        "meterName": f"{tier} LRS Disk",
        "productName": "Premium SSD Managed Disks",
        "skuName": f"{tier} LRS",
        "serviceName": "Storage",
        "unitOfMeasure": "1/Month",
        "armSkuName": "",
    }


def _price(region: str, price: float) -> dict[str, Any]:
    """Return the fields that all prices have."""
    defaults: dict[str, Any] = reference_data.table("offer")["price"]
    return defaults | {
        "retailPrice": price,
        "unitPrice": price,
        "armRegionName": region,
        "location": reference_data.REGIONS[region],
    }


def get_metadata(context: Context, call: Call) -> Answer:
    """Return the addresses of this cloud, as ``az cloud register`` reads them. The login is the managed identity."""
    cloud = {
        "name": "aksgpu-laptop",
        "portal": call.base_url,
        "resourceManager": call.base_url,
        "authentication": {
            "loginEndpoint": call.base_url,
            "audiences": ["https://management.core.windows.net/", "https://management.azure.com/"],
            "tenant": reference_data.TENANT,
            "identityProvider": "AAD",
        },
        "suffixes": {},
    }
    is_list = call.query.get("api-version", "") < "2020"  # older versions list all clouds
    return Answer(200, [cloud] if is_list else cloud)
