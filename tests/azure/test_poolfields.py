"""What an existing pool differs in from the one asked for."""

from __future__ import annotations

from typing import Any

import pytest

from aksgpu.azure import Azure
from aksgpu.cluster import leftover_resources
from aksgpu.cluster import pool_fields as fields

_NONE: dict[str, Any] = dict.fromkeys(
    [*fields._PLAIN.values(), "node_labels", "gpu_driver", "management_mode", "tags"],
)


def wish(**given: Any) -> dict[str, Any]:
    plain = {"vm_size": "Standard_NC4as_T4_v3", "count": 1, "node_taints": (), "zones": (), "spot": False}
    return fields.wish(**{**_NONE, **plain, "eviction_policy": "Delete", **given})


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
    assert fields.differences({**plain, **have}, wish(**asked)) == found


def test_a_stopped_pool_is_to_be_started() -> None:
    assert "cluster.start_pool(aks, 'gpunp')" in fields.remedy({"power": ("Stopped", "Running")}, "gpunp")


@pytest.mark.parametrize(
    "kept",
    [{"scaleDownMode": "Deallocate"}, {"scaleSetPriority": "Spot", "scaleSetEvictionPolicy": "Deallocate"}],
)
def test_disks_of_deallocated_nodes_are_not_called_free(scripted: Azure, kept: dict[str, Any]) -> None:
    assert leftover_resources._disks(scripted, "eastus", {"count": 0, **kept}) is None
    assert leftover_resources._disks(scripted, "eastus", {"count": 0}) == 0.0
