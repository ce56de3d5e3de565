"""Arguments of the wrong type or out of range are refused before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from aksgpu import cluster
from aksgpu.azure import Azure
from aksgpu.cluster import Cluster
from aksgpu.errors import InvalidInput

from .conftest import Script

OTHER = cluster.NodePool("gpunp", "other", "Standard_NC4as_T4_v3", 1)


def create(azure: Azure, name: Any = "aks", **options: Any) -> Cluster:
    return cluster.create(azure, name, **{"resource_group": "rg", "location": "eastus", **options})


@pytest.mark.parametrize(
    ("call", "words", "hint"),
    [
        (lambda azure, aks: create(azure, 5), "5 cannot be the name of a cluster", "Take a text"),
        (lambda azure, aks: create(azure, resource_group=None), "None cannot be the name of a resource", "Take a text"),
        (
            lambda azure, aks: create(azure, node_count=0),
            "`node_count` must be an integer from 1 to 1000, got 0",
            "node_count=1",
        ),
        (
            lambda azure, aks: create(azure, node_count=1.5),
            "`node_count` must be an integer from 1 to 1000, got 1.5",
            "node_count=1",
        ),
        (lambda azure, aks: cluster.add_gpu_pool(aks, 5), "5 cannot be the name of a node pool", "Take a text"),
        (
            lambda azure, aks: cluster.add_gpu_pool(aks, count="two"),
            "`count` must be an integer from 0 to 1000, got 'two'",
            "count=1",
        ),
        (
            lambda azure, aks: cluster.add_gpu_pool(aks, count=None),
            "`count` must be an integer from 0 to 1000, got None",
            "count=1",
        ),
        (
            lambda azure, aks: cluster.add_gpu_pool(aks, min_count="0", max_count=3),
            "`min_count` must .*got '0'",
            "min_count=1",
        ),
        (
            lambda azure, aks: create(azure, node_count="2"),
            "`node_count` must be an integer from 1 to 1000, got '2'",
            "node_count=1",
        ),
        (lambda azure, aks: create(azure, tags=["a"]), r"tags is \['a'\]", "texts by name"),
        (lambda azure, aks: create(azure, vm_size=""), "vm_size is ''", "Standard_NC4as_T4_v3"),
        (lambda azure, aks: create(azure, delete_after=7200), "7200 is no duration", "timedelta"),
        (
            lambda azure, aks: cluster.scale(aks, "gpunp", "3"),
            "`count` must be an integer from 0 to 1000, got '3'",
            "count=1",
        ),
        (lambda azure, aks: cluster.add_gpu_pool(aks, zones=1), "zones is 1", "list of texts"),
        (lambda azure, aks: cluster.add_gpu_pool(aks, vm_size=""), "vm_size is ''", "Standard_NC4as_T4_v3"),
        (lambda azure, aks: cluster.add_gpu_pool(aks, spot=True, spot_max_price=0), "spot_max_price is 0", "above 0"),
        (lambda azure, aks: cluster.add_gpu_pool(aks, eviction_policy="Keep"), "eviction_policy is 'Keep'", "'Delete'"),
        (lambda azure, aks: cluster.add_gpu_pool(aks, scale_down_mode="x"), "scale_down_mode is 'x'", "'Deallocate'"),
        (lambda azure, aks: cluster.add_gpu_pool(aks, os_disk_type="SSD"), "os_disk_type is 'SSD'", "'Ephemeral'"),
        (lambda azure, aks: cluster.delete_pool(aks, OTHER), "belongs to cluster other, not to aks", "'gpunp'"),
        (lambda azure, aks: cluster.scale(aks, OTHER, 2), "belongs to cluster other, not to aks", "'gpunp'"),
        (lambda azure, aks: cluster.stop_pool(aks, OTHER), "belongs to cluster other, not to aks", "'gpunp'"),
        (lambda azure, aks: cluster.scale(aks, "gpunp", 1001), "`count` must .* 0 to 1000, got 1001", "count=1"),
    ],
)
def test_what_cannot_be_right(scripted: Azure, script: Script, call: Any, words: str, hint: str) -> None:
    aks = Cluster("aks", resource_group="rg", location="eastus", azure=scripted, id="/subscriptions/0/aks")
    with pytest.raises(InvalidInput, match=words) as caught:
        call(scripted, aks)
    assert hint in caught.value.hint
    assert script.seen == []
