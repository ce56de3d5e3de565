"""Arguments of the wrong type or out of range are refused before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from aksgpu import cluster
from aksgpu.azure import Azure
from aksgpu.cluster import Cluster
from aksgpu.errors import InvalidInput

from .conftest import Script


def create(azure: Azure, name: Any = "aks", **options: Any) -> Cluster:
    return cluster.create(azure, name, **{"resource_group": "rg", "location": "eastus", **options})


@pytest.mark.parametrize(
    ("call", "words", "hint"),
    [
        (lambda azure, aks: create(azure, 5), "5 cannot be the name of a cluster", "Take a text"),
        (lambda azure, aks: create(azure, resource_group=None), "None cannot be the name of a resource", "Take a text"),
        (lambda azure, aks: create(azure, node_count=0), "node_count is 0; AKS takes 1 to 1000", "node_count=1"),
        (lambda azure, aks: create(azure, node_count=1.5), "node_count is 1.5, which is no whole", "node_count=1"),
        (lambda azure, aks: cluster.add_gpu_pool(aks, 5), "5 cannot be the name of a node pool", "Take a text"),
        (lambda azure, aks: cluster.add_gpu_pool(aks, count="two"), "count is 'two', which is no whole", "count=1"),
        (lambda azure, aks: cluster.add_gpu_pool(aks, count=None), "count is None, which is no whole", "count=1"),
        (lambda azure, aks: cluster.add_gpu_pool(aks, min_count="0", max_count=3), "min_count is '0'", "min_count=1"),
        (lambda azure, aks: cluster.scale(aks, "gpunp", 1001), "count is 1001; AKS takes 0 to 1000", "count=1"),
    ],
)
def test_what_cannot_be_right(scripted: Azure, script: Script, call: Any, words: str, hint: str) -> None:
    aks = Cluster("aks", resource_group="rg", location="eastus", azure=scripted, id="/subscriptions/0/aks")
    with pytest.raises(InvalidInput, match=words) as caught:
        call(scripted, aks)
    assert hint in caught.value.hint
    assert script.seen == []
