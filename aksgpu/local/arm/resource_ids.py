"""Resource ids of Azure Resource Manager, and the keys of resources in the state."""

from __future__ import annotations

from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.reference_data import SUBSCRIPTION

CLUSTER_TYPE = "Microsoft.ContainerService/managedClusters"


def group_id(name: str) -> str:
    """Return the resource id of a resource group."""
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{name}"


def cluster_id(cluster: Document) -> str:
    """Return the resource id of a cluster."""
    return f"{group_id(cluster['group'])}/providers/{CLUSTER_TYPE}/{cluster['name']}"


def cluster_key(group: str, name: str) -> str:
    """Return the key of a cluster in the state. Azure's names are case-insensitive."""
    return f"{group}/{name}".lower()


def operations_path(operation: Document) -> str:
    """Return the path prefix of an operation's status and result."""
    return f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/locations/{operation['location']}"
