"""The fields of a GPU pool: how they are declared, sent, and compared with an existing pool."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from aksgpu import cluster
from aksgpu.azure import Azure, pool_rules
from aksgpu.cluster import leftover_resources, pool_fields
from aksgpu.cluster.pool_fields import GpuPoolRequest
from aksgpu.errors import InvalidInput
from aksgpu.local.arm import json_schema, reference_data

SUBSCRIPTION = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg/providers"
ASKED: dict[str, dict[str, Any]] = {
    "vm_size": {"vm_size": "Standard_NC24ads_A100_v4"},
    "count": {"count": 3},
    "node_taints": {"node_taints": ("team=vision:NoSchedule",)},
    "node_labels": {"node_labels": {"team": "vision"}},
    "min_count": {"min_count": 1, "max_count": 4},
    "max_count": {"min_count": 0, "max_count": 4},
    "spot": {"spot": True},
    "eviction_policy": {"spot": True, "eviction_policy": "Deallocate"},
    "spot_max_price": {"spot": True, "spot_max_price": 0.5},
    "zones": {"zones": ("1", "2")},
    "gpu_driver": {"gpu_driver": "none"},
    "gpu_instance_profile": {"gpu_instance_profile": "MIG2g"},
    "management_mode": {"management_mode": "Managed"},
    "os_sku": {"os_sku": "AzureLinux"},
    "os_disk_type": {"os_disk_type": "Ephemeral"},
    "os_disk_size_gb": {"os_disk_size_gb": 256},
    "scale_down_mode": {"scale_down_mode": "Deallocate"},
    "capacity_reservation_group": {
        "capacity_reservation_group": f"{SUBSCRIPTION}/Microsoft.Compute/capacityReservationGroups/mine"
    },
    "vnet_subnet_id": {"vnet_subnet_id": f"{SUBSCRIPTION}/Microsoft.Network/virtualNetworks/main/subnets/gpus"},
    "tags": {"tags": {"cost": "research"}},
}
"""For each property of a pool, arguments that ask for another value than the default."""


def test_every_property_of_a_pool_is_tried() -> None:
    assert ASKED.keys() == pool_fields._azure_fields().keys(), "ASKED must have one row for each property"


def test_an_error_names_the_argument_that_sets_a_property() -> None:
    fields = pool_fields._azure_fields().items()
    assert {field.name: argument for argument, field in fields} == pool_rules.ARGUMENTS
    assert pool_rules.argument_of("agentPoolProfile.spotMaxPrice") == "spot_max_price"
    assert pool_rules.argument_of("properties.gpuProfile.driver") == "gpu_driver"
    assert pool_rules.argument_of("count") == ""
    assert pool_rules.argument_of("agentPoolProfile.name") == ""


@pytest.mark.parametrize("argument", ASKED)
def test_a_property_is_sent_under_a_name_and_with_a_value_that_azure_knows(argument: str) -> None:
    schema = reference_data.table("fields")["pool"]["properties"]["properties"]
    properties = GpuPoolRequest(**ASKED[argument]).azure_properties()
    json_schema.require(schema, properties)
    name = pool_fields._azure_fields()[argument].name
    for key in name.split("."):
        schema = schema["properties"][key]
        properties = properties[key]
    assert properties != GpuPoolRequest().azure_properties().get(name)


@pytest.mark.parametrize("argument", ASKED)
def test_a_property_is_compared_with_that_of_an_existing_pool(argument: str) -> None:
    request = GpuPoolRequest(**ASKED[argument])
    existing = request.azure_properties()
    assert pool_fields.differences(existing, request) == {}
    field = pool_fields._azure_fields()[argument]
    field.write(existing, GpuPoolRequest().azure_properties().get(field.name))
    (difference,) = pool_fields.differences(existing, request)
    assert difference in (argument, "label team", "tag cost")


@pytest.mark.parametrize("argument", [field.name for field in dataclasses.fields(GpuPoolRequest)])
def test_a_wrong_value_is_refused_with_the_arguments_name(scripted: Azure, argument: str) -> None:
    aks = cluster.Cluster("aks", resource_group="rg", location="eastus", azure=scripted, id="/subscriptions/0/aks")
    with pytest.raises(InvalidInput, match=f"`{argument}`"):
        cluster.add_gpu_pool(aks, **{argument: object()})


@pytest.mark.parametrize(
    ("have", "asked", "found"),
    [
        ({"gpuProfile": {"driver": "None"}}, {}, {"gpu_driver": ("none", "install")}),
        ({"gpuProfile": {"driver": "Install"}}, {}, {}),
        ({}, {"gpu_driver": "install", "management_mode": "Unmanaged"}, {}),
        ({"gpuInstanceProfile": "MIG1g"}, {}, {"gpu_instance_profile": ("MIG1g", None)}),
        (
            {"gpuProfile": {"nvidia": {"managementMode": "Managed"}}},
            {},
            {"management_mode": ("Managed", "Unmanaged")},
        ),
        ({"scaleSetPriority": "Spot", "spotMaxPrice": -1.0}, {"spot": True}, {}),
        ({"scaleSetPriority": "Spot"}, {"spot": True}, {}),
        ({"scaleSetPriority": "Spot", "spotMaxPrice": 1.0}, {"spot": True, "spot_max_price": 1}, {}),
        (
            {"scaleSetPriority": "Spot", "spotMaxPrice": 0.5},
            {"spot": True},
            {"spot_max_price": (0.5, -1)},
        ),
        ({"powerState": {"code": "Stopped"}}, {}, {"power": ("Stopped", "Running")}),
    ],
)
def test_differences(have: dict[str, Any], asked: dict[str, Any], found: dict[str, Any]) -> None:
    plain = {"vmSize": "Standard_NC4as_T4_v3", "count": 1}
    request = GpuPoolRequest(node_taints=(), **asked)
    assert pool_fields.differences({**plain, **have}, request) == found


def test_a_stopped_pool_must_be_started() -> None:
    assert "cluster.start_pool(aks, 'gpunp')" in pool_fields.remedy({"power": ("Stopped", "Running")}, "gpunp")


@pytest.mark.parametrize(
    "kept",
    [{"scaleDownMode": "Deallocate"}, {"scaleSetPriority": "Spot", "scaleSetEvictionPolicy": "Deallocate"}],
)
def test_disks_of_deallocated_nodes_are_not_free(scripted: Azure, kept: dict[str, Any]) -> None:
    assert leftover_resources._disks_usd_per_day(scripted, "eastus", {"count": 0, **kept}) is None
    assert leftover_resources._disks_usd_per_day(scripted, "eastus", {"count": 0}) == 0.0


def test_the_signature_and_the_help_of_add_gpu_pool_list_every_field() -> None:
    names = [field.name for field in dataclasses.fields(GpuPoolRequest)]
    parameters = inspect.signature(cluster.add_gpu_pool).parameters
    assert list(parameters) == ["aks", *names]
    assert parameters["vm_size"].default == "Standard_NC4as_T4_v3"
    assert parameters["count"].kind is inspect.Parameter.KEYWORD_ONLY
    documented = cluster.add_gpu_pool.__doc__ or ""
    assert [name for name in names if f"\n        {name}: " not in documented] == []
    assert "request:" not in documented


def test_the_properties_that_are_sent() -> None:
    assert GpuPoolRequest().azure_properties() == {
        "mode": "User",
        "osType": "Linux",
        "vmSize": "Standard_NC4as_T4_v3",
        "count": 1,
        "nodeTaints": ["sku=gpu:NoSchedule"],
    }
    request = GpuPoolRequest(
        "spot1", spot=True, min_count=0, max_count=2, gpu_driver="none", management_mode="Managed", zones="1", tags={}
    )
    assert request.azure_properties() == {
        "mode": "User",
        "osType": "Linux",
        "vmSize": "Standard_NC4as_T4_v3",
        "count": 1,
        "nodeTaints": ["sku=gpu:NoSchedule"],
        "minCount": 0,
        "maxCount": 2,
        "enableAutoScaling": True,
        "scaleSetPriority": "Spot",
        "scaleSetEvictionPolicy": "Delete",
        "spotMaxPrice": -1,
        "availabilityZones": ["1"],
        "gpuProfile": {"driver": "None", "nvidia": {"managementMode": "Managed"}},
    }
