"""Azure's refusals of a field, a version or a change of a node pool."""

from __future__ import annotations

import re
from typing import NamedTuple

from aksgpu.azure.refusal import Refusal, shell
from aksgpu.errors import AzureConflict, AzureError, InvalidParameter, VersionNotSupported

__all__ = ["ARGUMENTS", "argument_of", "field_rule", "pool_change_rule", "version_rule"]

ARGUMENTS = {
    "vmSize": "vm_size",
    "count": "count",
    "nodeTaints": "node_taints",
    "nodeLabels": "node_labels",
    "minCount": "min_count",
    "maxCount": "max_count",
    "scaleSetPriority": "spot",
    "scaleSetEvictionPolicy": "eviction_policy",
    "spotMaxPrice": "spot_max_price",
    "availabilityZones": "zones",
    "gpuProfile.driver": "gpu_driver",
    "gpuInstanceProfile": "gpu_instance_profile",
    "gpuProfile.nvidia.managementMode": "management_mode",
    "osSKU": "os_sku",
    "osDiskType": "os_disk_type",
    "osDiskSizeGB": "os_disk_size_gb",
    "scaleDownMode": "scale_down_mode",
    "capacityReservationGroupID": "capacity_reservation_group",
    "vnetSubnetID": "vnet_subnet_id",
    "tags": "tags",
}
"""Azure's names of the fields of a pool, with the arguments of :func:`aksgpu.cluster.add_gpu_pool` that set them."""

_PREFIXES = ("agentPoolProfile.", "agentPool.", "properties.")
"""What Azure writes before the name of a pool's field."""


def argument_of(parameter: str) -> str:
    """Return the argument of ``add_gpu_pool`` that sets a field; empty if none does.

    Args:
        parameter: the field as Azure names it, such as ``agentPoolProfile.spotMaxPrice``.
    """
    name = parameter
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    if name == parameter:
        return ""  # a cluster has a count, tags and a subnet too
    return ARGUMENTS.get(name, "")


# Fields


class _RefusedField(NamedTuple):
    """A field that Azure refuses.

    Attributes:
        pattern: what is found in the code and the message, separated by a colon.
        parameter: the field, as Azure names it, unless the pattern has a group of this name.
        hint: what helps.
    """

    pattern: re.Pattern[str]
    parameter: str
    hint: str


_ADD = "az aks nodepool add --resource-group GROUP --cluster-name CLUSTER --name gpunp --node-vm-size SIZE"
_MAX_PODS = (
    "A node runs 10 to 250 pods, and the nodes of a pool together at least 30, so that AKS has room for its own pods. "
    "Use more nodes, or create the pool in a shell with another limit and the taints of your pool."
    + shell(f"{_ADD} --max-pods 30")
)
_SPOT_ONLY = "applies to spot VMs only. Omit it, or use spot=True."

_FIELDS = (
    _RefusedField(
        re.compile(r"^InvalidOSSKU:|OSSKU='?\w{1,40}'? is invalid", re.I),
        "agentPoolProfile.osSKU",
        "This image of the nodes does not support the size. Omit os_sku, or choose Ubuntu: "
        'cluster.add_gpu_pool(aks, "gpunp", os_sku="Ubuntu").' + shell(f"{_ADD} --os-sku Ubuntu"),
    ),
    _RefusedField(
        re.compile(r"^Insufficient(?:AgentPool)?MaxPods\w{0,40}:|^MaxPodsLimitExceeded:", re.I),
        "agentPoolProfile.maxPods",
        _MAX_PODS,
    ),
    _RefusedField(
        re.compile(r"parameter (?P<parameter>(?:\w{1,40}\.)?maxPods) is invalid", re.I),
        "agentPoolProfile.maxPods",
        _MAX_PODS,
    ),
    _RefusedField(
        re.compile(r"Spot pools can't set max surge", re.I),
        "agentPoolProfile.upgrade.maxSurge",
        "A pool of spot VMs has no surge nodes. Omit upgradeSettings.maxSurge, or use spot=False."
        + shell(f"{_ADD} --priority Regular"),
    ),
    _RefusedField(
        re.compile(r"^MaxPriceValueInvalid:|Invalid max price value", re.I),
        "agentPoolProfile.spotMaxPrice",
        "The price is greater than 0, in US dollars per hour. spot_max_price=None pays up to the price of regular VMs."
        + shell(f"{_ADD} --priority Spot --spot-max-price -1"),
    ),
    _RefusedField(
        re.compile(r"Max price is supported only for Azure Spot", re.I),
        "agentPoolProfile.spotMaxPrice",
        f"spot_max_price {_SPOT_ONLY}" + shell(f"{_ADD} --priority Spot --spot-max-price -1"),
    ),
    _RefusedField(
        re.compile(r"Eviction policy can be set only on Azure Spot", re.I),
        "agentPoolProfile.scaleSetEvictionPolicy",
        f"eviction_policy {_SPOT_ONLY}" + shell(f"{_ADD} --priority Spot --eviction-policy Delete"),
    ),
    _RefusedField(
        re.compile(r"Capacity Reservation is not supported for VM size", re.I),
        "agentPoolProfile.capacityReservationGroupID",
        "Azure reserves no machines of this size. Omit capacity_reservation_group, or choose another size."
        + shell(
            "az vm list-skus --location LOCATION --size Standard_N --query "
            "\"[?capabilities[?name=='CapacityReservationSupported' && value=='True']].name\" --output tsv"
        ),
    ),
    _RefusedField(
        re.compile(r"has set auto scaling as enabled but is(?:n't| not) on Virtual Machine Scale Sets", re.I),
        "agentPoolProfile.enableAutoScaling",
        "The pool consists of single virtual machines, which the cluster autoscaler does not manage. "
        'Omit min_count and max_count, or add a new pool, which has a scale set: cluster.add_gpu_pool(aks, "gpunp2").'
        + shell(_ADD),
    ),
    _RefusedField(
        re.compile(r"^ReservedResourceName:|is a trademarked or reserved word", re.I),
        "name",
        "Azure reserves this word, such as the name of a product. Choose another name for the cluster or the resource "
        "group: cluster.list(azure) shows the names of your clusters.",
    ),
)
"""Fields that Azure refuses with a text or a code of their own."""


def field_rule(refusal: Refusal) -> AzureError | None:
    """Recognise a field of a pool that has another value than Azure allows."""
    text = f"{refusal.code}: {refusal.message}"
    for field in _FIELDS:
        found = field.pattern.search(text)
        if found is not None:
            parameter = found.groupdict().get("parameter") or field.parameter
            return InvalidParameter("", hint=field.hint, parameter=parameter)
    return None


# Changes

_THROUGH_CLUSTER = re.compile(
    r"Adding agent pools to an existing cluster is not allowed|Node pool update via managed cluster not allowed", re.I
)
_AUTOSCALED = re.compile(
    r"Cannot manually scale and enable cluster autoscaler|Cannot scale cluster autoscaler enabled node pool", re.I
)
_TAKEN = re.compile(r"\b(?:Node ?pool|Agent ?pool) '?[a-z][a-z0-9]{0,11}'? already exists", re.I)
_LIST = "az aks nodepool list --resource-group GROUP --cluster-name CLUSTER --output table"


def pool_change_rule(refusal: Refusal) -> AzureError | None:
    """Recognise a change of a pool that Azure does not allow in this way."""
    text = refusal.message
    if _THROUGH_CLUSTER.search(text):
        hint = (
            "A request for the cluster cannot add or change its pools. Each pool has requests of its own: "
            'cluster.add_gpu_pool(aks, "gpunp"), cluster.scale_pool(aks, "gpunp", 2), '
            'cluster.delete_pool(aks, "gpunp").'
        )
        return InvalidParameter("", hint=hint + shell(_LIST), parameter="agentPoolProfiles")
    if _AUTOSCALED.search(text):
        hint = (
            "The cluster autoscaler chooses the number of nodes. Change its limits: "
            'cluster.scale_pool(aks, "gpunp", min_count=0, max_count=4), or turn it off: '
            'cluster.scale_pool(aks, "gpunp", 2, autoscaler=False).'
        )
        return AzureConflict("", hint=hint + shell(_LIST))
    if _TAKEN.search(text):
        hint = (
            "Choose another name, or delete the existing pool first. cluster.list_pools(aks) shows the pools, and "
            'cluster.delete_pool(aks, "gpunp") deletes one.'
        )
        return AzureConflict("", hint=hint + shell(_LIST))
    return None


# Versions

_SKIPPED = re.compile(
    r"(?:Upgrading Kubernetes version|Upgrade agent pool version from) [\d.]{1,20} to [\d.]{1,20} is not allowed", re.I
)
_SKEW = re.compile(r"Node pool version [\d.]{1,20} and control plane version [\d.]{1,20} (?:is|are) incompatible", re.I)
_UPGRADES = "az aks get-upgrades --resource-group GROUP --name CLUSTER --output table"


def version_rule(refusal: Refusal) -> AzureError | None:
    """Recognise a version of Kubernetes that fits neither the cluster nor the pool."""
    text = refusal.message
    if refusal.code == "NodePoolMcVersionIncompatible" or _SKEW.search(text):
        hint = (
            "A pool may not be newer than its cluster, nor more than three minor versions older. Omit the version of a "
            "new pool, which then has that of the cluster, or upgrade the older one first."
        )
        return VersionNotSupported("", hint=hint + shell(_UPGRADES))
    if _SKIPPED.search(text):
        hint = "Kubernetes is upgraded one minor version at a time. Choose a version that the command lists."
        return VersionNotSupported("", hint=hint + shell(_UPGRADES))
    if refusal.code == "NotAllAgentPoolOrchestratorVersionSpecifiedAndUnchanged":
        hint = (
            "A request for the cluster cannot give a pool another version. Upgrade the cluster without the versions of "
            "its pools, and then each pool."
        )
        command = (
            "az aks nodepool upgrade --resource-group GROUP --cluster-name CLUSTER --name gpunp "
            "--kubernetes-version VERSION"
        )
        return VersionNotSupported("", hint=hint + shell(command))
    return None
