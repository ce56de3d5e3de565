"""The bodies of requests, as tables of what AKS accepts in each field, looked at before a handler sees them.

What depends on other fields, on the region or on what exists is looked at in :mod:`aksgpu.local.arm.rules`. Field
names and words are those of the published contract of ``Microsoft.ContainerService``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_network
from math import inf
from typing import Any

from aksgpu.local.api import names
from aksgpu.local.arm import clusters, errors, groups, pools
from aksgpu.local.arm.fields import Rule, WrongField, between

SURGE = re.compile(r"\d{1,4}|([1-9]\d?|100)%")


def _surge(value: str) -> str:
    if not value or SURGE.fullmatch(value):
        return ""
    return f"'{value}' is neither a number of nodes, such as '1', nor a share from '1%' to '100%'."


def _price(value: float) -> str:
    if value == -1 or 0 < value < inf:
        return ""
    return f"{value} is not allowed: a spot max price is -1, for the price on demand, or greater than 0."


def _labels(value: dict[str, Any]) -> str:
    for key, text in value.items():
        problems = names.qualified(key) or (names.label_value(text) if isinstance(text, str) else [])
        if problems:
            return f"Invalid node label '{key}={text}': {problems[0]}."
    return ""


def _ranges(value: list[Any]) -> str:
    for text in value:
        try:
            ip_network(str(text), strict=False)
        except ValueError:
            return f"'{text}' is not an IP address or a range in CIDR notation."
    return ""


def _distinct(value: list[Any]) -> str:
    found = [str(profile.get("name")) for profile in value if isinstance(profile, dict)]
    twice = next((name for name in found if found.count(name) > 1), None)
    return f"agent pool name '{twice}' is given more than once; the names must be unique." if twice else ""


TEXT, TRUTH, WHOLE, OBJECT = Rule(str), Rule(bool), Rule(int), Rule(dict)
TEXTS, TEXT_MAP = Rule(list, each=TEXT), Rule(dict, each=TEXT)

POOL = {
    "name": TEXT,
    "count": WHOLE,
    "minCount": WHOLE,
    "maxCount": WHOLE,
    "enableAutoScaling": TRUTH,
    "vmSize": TEXT,
    "osDiskSizeGB": Rule(int, check=between(30, 2048, also=(0,))),
    "osDiskType": Rule(str, words=("Managed", "Ephemeral")),
    "kubeletDiskType": Rule(str, words=("OS", "Temporary")),
    "workloadRuntime": Rule(str, words=("OCIContainer", "WasmWasi", "KataVmIsolation")),
    "osType": Rule(str, words=("Linux", "Windows")),
    "osSKU": Rule(
        str,
        words=(
            "Ubuntu",
            "Ubuntu2204",
            "Ubuntu2404",
            "AzureLinux",
            "AzureLinux3",
            "AzureContainerLinux",
            "CBLMariner",
            "Windows2019",
            "Windows2022",
            "Windows2025",
        ),
    ),
    "maxPods": Rule(int, check=between(10, 250)),
    "mode": Rule(str, words=("System", "User", "Gateway")),
    "type": Rule(str, words=("VirtualMachineScaleSets", "AvailabilitySet", "VirtualMachines")),
    "scaleDownMode": Rule(str, words=("Delete", "Deallocate")),
    "scaleSetPriority": Rule(str, words=("Regular", "Spot")),
    "scaleSetEvictionPolicy": Rule(str, words=("Delete", "Deallocate")),
    "spotMaxPrice": Rule(float, check=_price),
    "orchestratorVersion": TEXT,
    "availabilityZones": TEXTS,
    "nodeTaints": TEXTS,
    "nodeLabels": Rule(dict, check=_labels, each=TEXT),
    "tags": TEXT_MAP,
    "powerState": Rule(dict, fields={"code": Rule(str, words=("Running", "Stopped"))}),
    "upgradeSettings": Rule(
        dict,
        fields={
            "maxSurge": Rule(str, check=_surge),
            "maxUnavailable": Rule(str, check=_surge),
            "drainTimeoutInMinutes": Rule(int, check=between(1, 1440)),
            "nodeSoakDurationInMinutes": Rule(int, check=between(0, 30)),
        },
    ),
    "gpuInstanceProfile": TEXT,
    "gpuProfile": Rule(
        dict,
        fields={
            "driver": Rule(str, words=("Install", "None")),
            "nvidia": Rule(dict, fields={"managementMode": Rule(str, words=("Managed", "Unmanaged"))}),
        },
    ),
    "capacityReservationGroupID": TEXT,
    "vnetSubnetID": TEXT,
    "enableNodePublicIP": TRUTH,
    "enableFIPS": TRUTH,
    "securityProfile": OBJECT,
    "kubeletConfig": OBJECT,
    "linuxOSConfig": OBJECT,
}
"""Fields of an agent pool."""

CLUSTER = {
    "dnsPrefix": TEXT,
    "fqdnSubdomain": TEXT,
    "kubernetesVersion": TEXT,
    "nodeResourceGroup": TEXT,
    "enableRBAC": TRUTH,
    "disableLocalAccounts": TRUTH,
    "agentPoolProfiles": Rule(list, each=OBJECT, check=_distinct),
    "aadProfile": Rule(
        dict,
        fields={
            "managed": TRUTH,
            "enableAzureRBAC": TRUTH,
            "adminGroupObjectIDs": TEXTS,
            "tenantID": TEXT,
        },
    ),
    "apiServerAccessProfile": Rule(
        dict,
        fields={
            "authorizedIPRanges": Rule(list, each=TEXT, check=_ranges),
            "enablePrivateCluster": TRUTH,
        },
    ),
    "autoScalerProfile": TEXT_MAP,
    "servicePrincipalProfile": Rule(dict, fields={"clientId": TEXT, "secret": TEXT}),
    "windowsProfile": OBJECT,
    "networkProfile": OBJECT,
    "identityProfile": OBJECT,
    "addonProfiles": OBJECT,
    "powerState": OBJECT,
}
"""Fields below a cluster's ``properties``."""

IDENTITY = Rule(
    dict,
    fields={
        "type": Rule(str, words=("SystemAssigned", "UserAssigned", "None")),
        "userAssignedIdentities": Rule(dict, each=OBJECT),
    },
)
TAGS = {"tags": TEXT_MAP}


def _check_cluster(body: dict[str, Any]) -> None:
    Rule(dict, fields={"properties": OBJECT, "identity": IDENTITY, "sku": OBJECT, "kind": TEXT} | TAGS).require(
        body, ""
    )
    properties = body.get("properties") or {}
    Rule(dict, fields=CLUSTER).require(properties, "")
    for profile in properties.get("agentPoolProfiles") or []:
        Rule(dict, fields=POOL).require(profile, "agentPoolProfile")


def _check_pool(body: dict[str, Any]) -> None:
    OBJECT.require(body.get("properties"), "properties")
    Rule(dict, fields=POOL).require(body.get("properties"), "agentPoolProfile")


def _check_tags(body: dict[str, Any]) -> None:
    Rule(dict, fields=TAGS).require(body, "")


def _check_machines(body: dict[str, Any]) -> None:
    Rule(dict, fields={"machineNames": TEXTS}).require(body, "")


CHECKS: dict[Callable[..., Any], Callable[[dict[str, Any]], None]] = {
    clusters.put: _check_cluster,
    clusters.patch: _check_tags,
    pools.put: _check_pool,
    pools.delete_machines: _check_machines,
    groups.put: _check_tags,
    groups.patch: _check_tags,
}
"""By the handler that gets the body."""


def check(handler: Callable[..., Any], body: Any) -> None:
    """Refuse a body that the handler could not make sense of; raises ArmError."""
    look = CHECKS.get(handler)
    if look is None or not body:
        return
    try:
        look(body)
    except WrongField as wrong:
        raise errors.invalid(wrong.path, wrong.why) from None
