"""Azure's refusals because of a virtual network or a subnet."""

from __future__ import annotations

import re

from aksgpu.azure.refusal import Refusal, number, shell
from aksgpu.errors import AzureConflict, AzureError, InvalidParameter, SubnetTooSmall

__all__ = ["address_rule", "in_use_rule", "network_rule", "subnet_rule"]

_PREALLOCATED = re.compile(
    r"Pre-?allocated IPs (?P<requested>\d{1,9}) exceeds IPs available (?:in Subnet )?(?P<available>\d{1,9})"
    r"(?: in Subnet Cidr (?P<cidr>[0-9a-f.:/]{3,60}))?(?:,? Subnet Name (?P<subnet>[\w.-]{1,80}))?",
    re.I,
)
_FULL = re.compile(
    r"Subnet (?P<subnet>\S{1,400}) with address prefix (?P<cidr>[0-9a-f.:/]{3,60}) does(?: not|n't) have enough"
    r" capacity for(?: (?P<requested>\d{1,9}))? IP addresses",
    re.I,
)
_CAPACITY = re.compile(r"does not have enough capacity for (?P<requested>\d{1,9}) IP addresses", re.I)
_CODES = {"insufficientsubnetsize", "subnetisfull"}
_POD_CIDR = "networkProfile.podCIDR"
"""The name that Azure gives to the range of the pods' addresses."""


def subnet_rule(refusal: Refusal) -> AzureError | None:
    """Recognise a subnet with too few addresses for the nodes and pods."""
    text = refusal.message
    found = _PREALLOCATED.search(text) or _FULL.search(text) or _CAPACITY.search(text)
    if not found and refusal.code.lower() not in _CODES:
        return None
    groups = found.groupdict() if found else {}
    # The name may be a resource id, or be followed by the full stop of the sentence.
    subnet = (groups.get("subnet") or "").rstrip(".").rpartition("/")[2]
    return SubnetTooSmall(
        "",
        hint=_hint(subnet),
        requested=number(groups.get("requested")),
        available=number(groups.get("available")),
        subnet=subnet,
        cidr=groups.get("cidr") or "",
    )


def _hint(subnet: str) -> str:
    fewer = (
        "Use fewer nodes or a smaller max_count, which counts in full: "
        'cluster.add_gpu_pool(aks, "gpunp", count=1, min_count=0, max_count=1), or '
        'cluster.scale_pool(aks, "gpunp", min_count=0, max_count=1) for a pool that exists.'
    )
    if subnet.lower() == _POD_CIDR.lower():
        larger = " The range of a cluster's pods cannot be changed: create a cluster with a larger one." + shell(
            _NEW_CLUSTER
        )
    else:
        larger = (
            ' Or add the pool in a larger subnet: cluster.add_gpu_pool(aks, "gpunp", vnet_subnet_id="ID").'
            + shell(
                "az aks nodepool add --resource-group GROUP --cluster-name CLUSTER --name gpunp --vnet-subnet-id ID"
            )
        )
    return fewer + larger


_NEW_CLUSTER = "az aks create --resource-group GROUP --name CLUSTER --pod-cidr 10.244.0.0/16"

_MANAGED = "Cannot use a custom subnet"
_DELEGATED = re.compile(r"delegated subnet|subnet is delegated", re.I)
_EXTERNAL = re.compile(r"cannot be used because it contains external resources", re.I)
_NETWORK_STATE = re.compile(
    r"virtualNetworks?/(?P<network>[\w.-]{1,80}) is in (?P<state>\w{1,20}) state|needs to be in Succeeded state", re.I
)


def network_rule(refusal: Refusal) -> AzureError | None:
    """Recognise a virtual network or a subnet that cannot be used."""
    code = refusal.code.lower()
    if _MANAGED in refusal.message or "does not have subnet defined" in refusal.message:
        hint = "Omit vnet_subnet_id. AKS manages the subnet of this cluster's pools."
        return InvalidParameter("", hint=hint, parameter="vnetSubnetID")
    if code == "subnetisdelegated" or _DELEGATED.search(refusal.message):
        command = (
            "az network vnet subnet update --resource-group GROUP --vnet-name NETWORK --name SUBNET "
            "--remove delegations 0"
        )
        hint = f"Use a subnet that is not delegated to another service, or remove its delegation.{shell(command)}"
        return InvalidParameter("", hint=hint, parameter="agentPoolProfile.vnetSubnetID")
    if code == "subnetwithexternalresourcescannotbeusedbyotherresources" or _EXTERNAL.search(refusal.message):
        hint = (
            "Another service of Azure owns this subnet. Use a subnet that only nodes use: "
            'cluster.add_gpu_pool(aks, "gpunp", vnet_subnet_id="ID").'
        )
        command = 'az network vnet subnet list --resource-group GROUP --vnet-name NETWORK --query "[].id" --output tsv'
        return InvalidParameter("", hint=hint + shell(command), parameter="agentPoolProfile.vnetSubnetID")
    state = _NETWORK_STATE.search(refusal.message)
    if state or code == "virtualnetworknotinsucceededstate":
        command = "az network vnet show --resource-group GROUP --name NETWORK --query provisioningState --output tsv"
        hint = (
            "Another operation runs on the virtual network, or the last one failed. Run the cell again when its state "
            f"is Succeeded.{shell(command)}"
        )
        return AzureConflict("", hint=hint)
    return None


# Ranges and addresses of a cluster

_OVERLAP = re.compile(r"service CIDR .{0,100}?overlaps? with|ServiceCidrOverlap|CIDR .{0,60} overlaps", re.I | re.S)
_DNS_ADDRESS = re.compile(r"DNS service IP \S{1,60} is out of the range defined by service CIDR", re.I)
_OUTBOUND_PORTS = re.compile(r"Load balancer profile allocated ports \d{1,9} is not in an allowable range", re.I)
_SERVICES = (
    "az aks create --resource-group GROUP --name CLUSTER --service-cidr 172.20.0.0/16 --dns-service-ip 172.20.0.10"
)


def address_rule(refusal: Refusal) -> AzureError | None:
    """Recognise ranges and addresses of a cluster that do not fit each other or the number of nodes."""
    text = refusal.message
    if refusal.code.lower().startswith("servicecidroverlap") or _OVERLAP.search(text):
        hint = "Create the cluster with a range of services that overlaps no subnet of the virtual network."
        return InvalidParameter("", hint=hint + shell(_SERVICES), parameter="networkProfile.serviceCidr")
    if _DNS_ADDRESS.search(text):
        hint = "Create the cluster with an address for DNS that is in the range of services."
        return InvalidParameter("", hint=hint + shell(_SERVICES), parameter="networkProfile.dnsServiceIP")
    if _OUTBOUND_PORTS.search(text):
        hint = (
            "The cluster's load balancer has too few ports for so many nodes. Use fewer nodes, a smaller max_count or "
            "more outbound addresses."
        )
        command = "az aks update --resource-group GROUP --name CLUSTER --load-balancer-managed-outbound-ip-count 2"
        return InvalidParameter(
            "", hint=hint + shell(command), parameter="networkProfile.loadBalancerProfile.allocatedOutboundPorts"
        )
    return None


# Deletion

_IN_USE_CODE = re.compile(
    r"^InUse\w{1,40}CannotBe(?:Deleted|Updated)\w{0,40}$|InUseByVirtualMachineScaleSet$"
    r"|^PublicIPAddressCannotBeDeleted$|^CannotDeleteLoadBalancerWith|^PrivateLinkServiceWith\w{1,60}CannotBeDeleted$",
    re.I,
)
_IN_USE = re.compile(
    r"Subnet \S{1,400} is in use by \S{1,600} and cannot be deleted"
    r"|Public IP address \S{1,400} can ?not be deleted since it is still allocated",
    re.I,
)


def in_use_rule(refusal: Refusal) -> AzureError | None:
    """Recognise a resource of the network that cannot be deleted or changed because something uses it."""
    code = refusal.code.lower()
    if not _IN_USE_CODE.search(refusal.code) and not _IN_USE.search(refusal.message):
        return None
    if "updated" in code:
        hint = (
            "A subnet keeps its range as long as something uses it. Create another subnet, and a pool in it: "
            'cluster.add_gpu_pool(aks, "gpunp2", vnet_subnet_id="ID").'
        )
        command = (
            "az network vnet subnet create --resource-group GROUP --vnet-name NETWORK --name gpus "
            "--address-prefixes 10.1.0.0/22"
        )
        return AzureConflict("", hint=hint + shell(command))
    if "subnet" in code or refusal.message.startswith("Subnet"):
        hint = (
            "The subnet is not empty. Delete what Azure's message names, then the subnet. Nodes belong to a pool: "
            'cluster.delete_pool(aks, "gpunp") deletes one pool, and cluster.delete(aks) deletes all of them.'
        )
        command = (
            "az network vnet subnet show --resource-group GROUP --vnet-name NETWORK --name SUBNET "
            '--query "ipConfigurations[].id" --output tsv'
        )
        return AzureConflict("", hint=hint + shell(command))
    hint = (
        "Something still uses a resource that is to be deleted. Remove the association that Azure's message names, "
        "then run the cell again. cluster.leftovers(azure) lists what is left and costs money."
    )
    return AzureConflict("", hint=hint + shell("az resource list --resource-group GROUP --output table"))
