"""The fields of a GPU pool: how they are declared, sent, and compared with an existing pool."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from aksgpu import cluster
from aksgpu.azure import Azure
from aksgpu.cluster import leftover_resources, pool_fields
from aksgpu.cluster.pool_fields import GpuPoolRequest


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
