"""Azure's own clients of resource groups, VM sizes and quota, which were not written for the laptop."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient

from .conftest import SUBSCRIPTION, Arm, Token, body, pool


def connected(client: Any, arm: Arm) -> Any:
    trust = str(arm.home / "ca.pem")
    return client(Token(), SUBSCRIPTION, base_url=arm.base_url, connection_verify=trust, retry_total=0)


def test_resource_groups(arm: Arm) -> None:
    client = connected(ResourceManagementClient, arm)
    made = client.resource_groups.create_or_update("lab", {"location": "East US", "tags": {"team": "a"}})
    assert (made.name, made.location, made.properties.provisioning_state) == ("lab", "eastus", "Succeeded")
    assert client.resource_groups.check_existence("LAB")
    assert not client.resource_groups.check_existence("nope")
    assert client.resource_groups.update("lab", {"tags": {"team": "b"}}).tags == {"team": "b"}
    assert [group.name for group in client.resource_groups.list()] == ["rg", "lab"]
    document = body(pool(), pool("gpunp", mode="User", vmSize="Standard_NC4as_T4_v3"))
    arm.client().managed_clusters.begin_create_or_update("lab", "aks", document).result()
    found = list(client.resources.list_by_resource_group("lab"))
    assert [(each.name, each.type) for each in found] == [("aks", "Microsoft.ContainerService/managedClusters")]
    machines = list(client.resources.list_by_resource_group("MC_lab_aks_eastus"))
    assert {each.sku.name for each in machines} == {"Standard_D2s_v3", "Standard_NC4as_T4_v3"}
    assert client.providers.get("Microsoft.ContainerService").registration_state == "Registered"
    with pytest.raises(HttpResponseError, match="is deleted with it"):
        client.resource_groups.begin_delete("MC_lab_aks_eastus")
    client.resource_groups.begin_delete("lab").result()
    assert [group.name for group in client.resource_groups.list()] == ["rg"]
    with pytest.raises(ResourceNotFoundError) as caught:
        client.resource_groups.get("lab")
    assert caught.value.error.code == "ResourceGroupNotFound"


def test_sizes(arm: Arm) -> None:
    client = connected(ComputeManagementClient, arm)
    sizes = {size.name: size for size in client.resource_skus.list(filter="location eq 'southcentralus'")}
    t4 = sizes["Standard_NC4as_T4_v3"]
    assert (t4.resource_type, t4.family, t4.size) == ("virtualMachines", "Standard NCASv3_T4 Family", "NC4as_T4_v3")
    assert {fact.name: fact.value for fact in t4.capabilities}["GPUs"] == "1"
    assert (t4.location_info[0].zones, t4.restrictions) == (["1", "2", "3"], [])
    (restriction,) = sizes["Standard_ND128isr_NDR_GB200_v6"].restrictions
    assert (restriction.type, restriction.reason_code) == ("Location", "NotAvailableForSubscription")
    assert restriction.restriction_info.locations == ["southcentralus"]


def test_usages(arm: Arm) -> None:
    client = connected(ComputeManagementClient, arm)
    document = body(pool(), pool("spot", mode="User", vmSize="Standard_NC4as_T4_v3", scaleSetPriority="Spot", count=2))
    arm.client().managed_clusters.begin_create_or_update("rg", "aks", document).result()
    usages = {usage.name.value.lower(): usage for usage in client.usage.list("eastus")}
    counted = {name: (usages[name].current_value, usages[name].limit) for name in ("cores", "lowprioritycores")}
    assert counted == {"cores": (2, 256), "lowprioritycores": (8, 64)}
    assert usages["standarddsv3family"].current_value == 2
    assert usages["standard ncasv3_t4 family"].current_value == 0
    with pytest.raises(HttpResponseError, match="'atlantis' is not available"):
        list(client.usage.list("atlantis"))
