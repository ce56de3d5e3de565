"""The fields of a cluster: the request that creates it, and the comparison with an existing cluster.

This module sends no requests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aksgpu.azure import resources
from aksgpu.common.arguments import shown
from aksgpu.errors import InvalidInput

__all__ = ["SYSTEM_POOL", "ClusterRequest", "check_version", "differences", "request_body"]

SYSTEM_POOL = "nodepool1"
"""Name of a new cluster's first pool, as in the Azure CLI."""

_DNS_NAME_LENGTH = 10
_DNS_GROUP_LENGTH = 16
_DNS_SUBSCRIPTION_LENGTH = 6
"""Characters of the cluster's name, the resource group and the subscription in a DNS prefix, as in the Azure CLI."""


@dataclass(frozen=True)
class ClusterRequest:
    """The requested properties of a cluster. None means that any value is accepted.

    Attributes:
        location: location in Resource Manager's spelling.
        vm_size: VM size of the first pool.
        node_count: number of nodes of the first pool; None if it does not matter.
        kubernetes_version: version of Kubernetes, or the beginning of one.
        tags: Azure tags.
    """

    location: str | None = None
    vm_size: str | None = None
    node_count: int | None = None
    kubernetes_version: str | None = None
    tags: Mapping[str, str] | None = None


def check_version(version: object) -> None:
    """Raise InvalidInput unless the argument ``kubernetes_version`` is None or has the form of a version."""
    if version is None or (isinstance(version, str) and re.fullmatch(r"\d+\.\d+(\.\d+)?", version, re.ASCII)):
        return
    raise InvalidInput(
        f"`kubernetes_version` must be a string such as '1.36' or '1.36.2', got {shown(version)}",
        hint="Omit it for AKS' default.",
    )


def differences(existing: Mapping[str, Any], request: ClusterRequest) -> dict[str, tuple[object, object]]:
    """Return the differences of an existing cluster: argument -> (existing value, requested value)."""
    properties = existing["properties"]
    pools = {pool["name"]: pool for pool in properties.get("agentPoolProfiles") or ()}
    found: dict[str, tuple[object, object]] = {}
    if request.location and existing["location"].lower() != request.location:
        found["location"] = (existing["location"], request.location)
    found |= _pool_differences(pools.get(SYSTEM_POOL, {}), request)
    version = str(properties.get("kubernetesVersion") or "")
    if request.kubernetes_version and not f"{version}.".startswith(f"{request.kubernetes_version}."):
        found["kubernetes_version"] = (version, request.kubernetes_version)
    existing_tags = existing.get("tags") or {}
    for name, value in (request.tags or {}).items():
        if existing_tags.get(name) != value:
            found[f"tag {name}"] = (existing_tags.get(name), value)
    if resources.power_of(existing) == "Stopped":
        found["power"] = ("Stopped (cluster.start(aks) starts it)", "Running")
    return found


def _pool_differences(pool: Mapping[str, Any], request: ClusterRequest) -> dict[str, tuple[object, object]]:
    """Return the differences of the first pool."""
    found: dict[str, tuple[object, object]] = {}
    vm_size = pool.get("vmSize")
    if request.vm_size and str(vm_size or "").lower() != request.vm_size.lower():
        found["vm_size"] = (vm_size, request.vm_size)
    is_fixed = bool(pool) and not pool.get("enableAutoScaling")
    if is_fixed and request.node_count not in (None, pool.get("count")):
        found["node_count"] = (pool.get("count"), request.node_count)
    return found


def request_body(subscription: str, name: str, group: str, request: ClusterRequest) -> dict[str, Any]:
    """Return the body of the request that creates a cluster with one pool."""
    pool = {
        "name": SYSTEM_POOL,
        "mode": "System",
        "count": request.node_count,
        "vmSize": request.vm_size,
        "osType": "Linux",
        "type": "VirtualMachineScaleSets",
    }
    properties: dict[str, Any] = {
        "dnsPrefix": _dns_prefix(name, group, subscription),
        "agentPoolProfiles": [pool],
        # Without this, an API version may choose kubenet, which AKS retires.
        "networkProfile": {"networkPlugin": "azure", "networkPluginMode": "overlay"},
    }
    if request.kubernetes_version:
        properties["kubernetesVersion"] = request.kubernetes_version
    return {
        "location": request.location,
        "identity": {"type": "SystemAssigned"},
        "sku": {"name": "Base", "tier": "Free"},
        "tags": dict(request.tags or {}),
        "properties": properties,
    }


def _dns_prefix(name: str, group: str, subscription: str) -> str:
    """Return a DNS prefix in the form of the Azure CLI: letters, digits and hyphens, beginning with a letter."""
    plain_name = re.sub(r"[^A-Za-z0-9-]", "", name)[:_DNS_NAME_LENGTH]
    if not re.match(r"[A-Za-z]", plain_name):
        plain_name = f"a{plain_name}"[:_DNS_NAME_LENGTH]
    plain_group = re.sub(r"[^A-Za-z0-9-]", "", group)[:_DNS_GROUP_LENGTH]
    return f"{plain_name}-{plain_group}-{subscription[:_DNS_SUBSCRIPTION_LENGTH]}"
