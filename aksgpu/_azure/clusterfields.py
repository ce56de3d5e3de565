"""A cluster's fields: the arguments of ``create`` in Azure's names, and in what an existing cluster differs from them.

Nothing is sent from here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aksgpu._azure import names, resources
from aksgpu.errors import InvalidInput

if TYPE_CHECKING:
    from aksgpu.azure import Azure

SYSTEM_POOL = "nodepool1"
"""Name of a new cluster's first pool, as the Azure CLI calls it."""


def wish(
    location: str | None,
    vm_size: str | None,
    node_count: int,
    kubernetes_version: str | None,
    tags: Mapping[str, str] | None,
) -> dict[str, Any]:
    """What is asked for, by argument; arguments as for :func:`aksgpu.cluster.create`."""
    return {
        "location": location,
        "vm_size": vm_size,
        "node_count": node_count,
        "kubernetes_version": kubernetes_version,
        "tags": dict(tags or {}),
    }


def check_version(version: object) -> None:
    """The argument ``kubernetes_version`` must look like one, where one is given."""
    if version is None or (isinstance(version, str) and re.fullmatch(r"\d+\.\d+(\.\d+)?", version, re.ASCII)):
        return
    raise InvalidInput(
        f"`kubernetes_version` must be a text such as '1.36' or '1.36.2', got {names.shown(version)}",
        hint="Leave it out for AKS' own default.",
    )


def differences(existing: Mapping[str, Any], wished: Mapping[str, Any]) -> dict[str, tuple[object, object]]:
    """Where an existing cluster is not as wished: argument -> (what exists, what was asked for)."""
    properties = existing["properties"]
    pools = {pool["name"]: pool for pool in properties.get("agentPoolProfiles") or ()}
    pool = pools.get(SYSTEM_POOL, {})
    version = str(properties.get("kubernetesVersion") or "")
    found: dict[str, tuple[object, object]] = {}
    if wished["location"] and existing["location"].lower() != wished["location"]:
        found["location"] = (existing["location"], wished["location"])
    if wished["vm_size"] and str(pool.get("vmSize", "")).lower() != wished["vm_size"].lower():
        found["vm_size"] = (pool.get("vmSize"), wished["vm_size"])
    if pool and not pool.get("enableAutoScaling") and pool.get("count") != wished["node_count"]:
        found["node_count"] = (pool.get("count"), wished["node_count"])
    if (wanted := wished["kubernetes_version"]) and not f"{version}.".startswith(f"{wanted}."):
        found["kubernetes_version"] = (version, wanted)
    for key, value in wished["tags"].items():
        if (have := (existing.get("tags") or {}).get(key)) != value:
            found[f"tag {key}"] = (have, value)
    if resources.power_of(existing) == "Stopped":
        found["power"] = ("Stopped (cluster.start(aks) starts it)", "Running")
    return found


def body(
    azure: Azure,
    name: str,
    group: str,
    location: str,
    vm_size: str,
    node_count: int,
    kubernetes_version: str | None,
    tags: Mapping[str, str] | None,
) -> dict[str, Any]:
    """The request that makes a cluster of one pool."""
    pool = {
        "name": SYSTEM_POOL,
        "mode": "System",
        "count": node_count,
        "vmSize": vm_size,
        "osType": "Linux",
        "type": "VirtualMachineScaleSets",
    }
    version = {"kubernetesVersion": kubernetes_version} if kubernetes_version else {}
    return {
        "location": location,
        "identity": {"type": "SystemAssigned"},
        "sku": {"name": "Base", "tier": "Free"},
        "tags": dict(tags or {}),
        "properties": {
            "dnsPrefix": _dns_prefix(name, group, azure.subscription_id),
            "agentPoolProfiles": [pool],
            # Without this an API version may still choose kubenet, which AKS retires.
            "networkProfile": {"networkPlugin": "azure", "networkPluginMode": "overlay"},
            **version,
        },
    }


def _dns_prefix(name: str, group: str, subscription: str) -> str:
    """As the Azure CLI makes it: letters, digits and hyphens, beginning with a letter."""
    plain = re.sub(r"[^A-Za-z0-9-]", "", name)[:10]
    if not re.match(r"[A-Za-z]", plain):
        plain = f"a{plain}"[:10]
    return f"{plain}-{re.sub(r'[^A-Za-z0-9-]', '', group)[:16]}-{subscription[:6]}"
