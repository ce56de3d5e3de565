"""Arguments of the wrong type or out of range are refused before a request is sent."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from aksgpu import cluster, sizes
from aksgpu.azure import Azure
from aksgpu.cluster import Cluster
from aksgpu.errors import InvalidInput

from .conftest import Script

OTHER = cluster.NodePool("gpunp", "other", "Standard_NC4as_T4_v3", 1)


def create(azure: Azure, name: Any = "aks", **options: Any) -> Cluster:
    return cluster.create(azure, name, **{"resource_group": "rg", "location": "eastus", **options})


SURROGATE = "a\ud800"

NAMES: list[tuple[Any, str]] = [
    (lambda azure, aks: create(azure, 5), "`name` must be the name of a cluster"),
    (lambda azure, aks: create(azure, ".."), "`name` must be the name of a cluster"),
    (lambda azure, aks: create(azure, SURROGATE), "`name` must be the name of a cluster"),
    (lambda azure, aks: create(azure, "a" * 80), "`name` must be the name of a cluster"),
    (lambda azure, aks: create(azure, resource_group=None), "`resource_group` must be the name of a resource group"),
    (lambda azure, aks: create(azure, resource_group="."), "`resource_group` must be the name of a resource group"),
    (lambda azure, aks: create(azure, location="../x"), "`location` must be the name of a location"),
    (lambda azure, aks: create(azure, vm_size=""), "`vm_size` must be the name of a VM size"),
    (lambda azure, aks: create(azure, vm_size=5), "`vm_size` must be the name of a VM size"),
    (lambda azure, aks: cluster.get(azure, "..", resource_group="rg"), "`name` must be the name of a cluster"),
    (
        lambda azure, aks: cluster.get(azure, "aks", resource_group="a/b"),
        "`resource_group` must be the name of a resource group",
    ),
    (lambda azure, aks: cluster.add_gpu_pool(aks, 5), "`name` must be the name of a node pool"),
    (lambda azure, aks: cluster.add_gpu_pool(aks, "MyPool"), "`name` must be the name of a node pool"),
    (lambda azure, aks: cluster.add_gpu_pool(aks, vm_size="a' or 'b"), "`vm_size` must be the name of a VM size"),
    (lambda azure, aks: cluster.delete_pool(aks, ".."), "`name` must be the name of a node pool"),
    (lambda azure, aks: cluster.scale_pool(aks, "%2e", 1), "`pool` must be the name of a node pool"),
    (lambda azure, aks: cluster.stop_pool(aks, "a?b"), "`pool` must be the name of a node pool"),
    (lambda azure, aks: sizes.gpu_sizes(azure, "a' or 'b"), "`location` must be the name of a location"),
    (lambda azure, aks: sizes.preflight(azure, "eastus", "a b"), "`vm_size` must be the name of a VM size"),
]

VALUES: list[tuple[Any, str]] = [
    (lambda azure, aks: create(azure, node_count=0), "`node_count` must be an integer, 1 to 1000, got 0"),
    (lambda azure, aks: create(azure, node_count=1.5), "`node_count` must be an integer, 1 to 1000, got 1.5"),
    (lambda azure, aks: create(azure, node_count="2"), "`node_count` must be an integer, 1 to 1000, got '2'"),
    (lambda azure, aks: create(azure, node_count=True), "`node_count` must be an integer, 1 to 1000, got True"),
    (lambda azure, aks: create(azure, kubernetes_version=1.36), "`kubernetes_version` must be a string such as '1.36'"),
    (lambda azure, aks: create(azure, tags=["a"]), "`tags` must map names to strings, got"),
    (lambda azure, aks: create(azure, tags={"a": SURROGATE}), "`tags` must map names to strings, got"),
    (lambda azure, aks: create(azure, delete_after="soon"), "`delete_after` must be a number of seconds, text"),
    (lambda azure, aks: create(azure, preflight="no"), "`preflight` must be True or False, got 'no'"),
    (lambda azure, aks: cluster.add_gpu_pool(aks, count="two"), "`count` must be an integer, 0 to 1000, got 'two'"),
    (lambda azure, aks: cluster.add_gpu_pool(aks, count=None), "`count` must be an integer, 0 to 1000, got None"),
    (lambda azure, aks: cluster.add_gpu_pool(aks, count=True), "`count` must be an integer, 0 to 1000, got True"),
    (lambda azure, aks: cluster.add_gpu_pool(aks, count=1.5), "`count` must be an integer, 0 to 1000, got 1.5"),
    (lambda azure, aks: cluster.add_gpu_pool(aks, min_count="0", max_count=3), "`min_count` must be an integer"),
    (lambda azure, aks: cluster.add_gpu_pool(aks, zones=1), "`zones` must be a list of strings, got 1"),
    (lambda azure, aks: cluster.add_gpu_pool(aks, zones=[None]), "`zones` must be a list of strings, got an item None"),
    (lambda azure, aks: cluster.add_gpu_pool(aks, spot="yes"), "`spot` must be True or False, got 'yes'"),
    (lambda azure, aks: cluster.add_gpu_pool(aks, spot=True, spot_max_price=0), "`spot_max_price` must be a number"),
    (lambda azure, aks: cluster.add_gpu_pool(aks, eviction_policy="Keep"), "`eviction_policy` must be 'Delete' or"),
    (lambda azure, aks: cluster.add_gpu_pool(aks, scale_down_mode="x"), "`scale_down_mode` must be 'Delete' or"),
    (lambda azure, aks: cluster.add_gpu_pool(aks, os_disk_type="SSD"), "`os_disk_type` must be 'Managed' or"),
    (lambda azure, aks: cluster.add_gpu_pool(aks, os_disk_size_gb="128"), "`os_disk_size_gb` must be an integer"),
    (lambda azure, aks: cluster.add_gpu_pool(aks, os_sku=5), "`os_sku` must be a string, got 5"),
    (lambda azure, aks: cluster.scale_pool(aks, "gpunp", "3"), "`count` must be an integer, 0 to 1000, got '3'"),
    (lambda azure, aks: cluster.scale_pool(aks, "gpunp", 1001), "`count` must be an integer, 0 to 1000, got 1001"),
    (lambda azure, aks: cluster.scale_pool(aks, "gpunp"), "`count` must be given, or `min_count` and `max_count`"),
    (
        lambda azure, aks: cluster.delete_pool(aks, OTHER),
        "must be a node pool of cluster aks, got gpunp of",
    ),
    (
        lambda azure, aks: cluster.scale_pool(aks, OTHER, 2),
        "must be a node pool of cluster aks, got gpunp of",
    ),
    (
        lambda azure, aks: cluster.stop_pool(aks, OTHER),
        "must be a node pool of cluster aks, got gpunp of",
    ),
    (lambda azure, aks: cluster.delete_pool(aks, "gpunp", missing="ignore"), "`missing` must be 'warn' or 'error'"),
    (lambda azure, aks: cluster.delete(aks, delete_group="no"), "`delete_group` must be True, False or None"),
    (lambda azure, aks: cluster.delete(aks, progress=1), "`progress` must be True, False or None, got 1"),
    (lambda azure, aks: sizes.preflight(azure, "eastus", "Standard_NC6", surge="many"), "`surge` must be an integer"),
]

SWAPPED: list[tuple[Any, str]] = [
    (lambda azure, aks: cluster.add_gpu_pool(azure, "gpunp"), "`aks` must be a Cluster, got Azure("),
    (lambda azure, aks: create(aks), "`azure` must be a subscription from aksgpu.connect(), got Cluster("),
    (lambda azure, aks: cluster.get(aks, "aks", resource_group="rg"), "`azure` must be a subscription"),
    (lambda azure, aks: cluster.list(None), "`azure` must be a subscription"),
    (lambda azure, aks: cluster.list_pools("aks"), "`aks` must be a Cluster, got 'aks'"),
    (lambda azure, aks: cluster.delete("aks"), "`aks` must be a Cluster, got 'aks'"),
    (lambda azure, aks: cluster.kubeconfig(azure), "`aks` must be a Cluster"),
    (lambda azure, aks: cluster.leftovers(aks), "`azure` must be a subscription"),
    (lambda azure, aks: sizes.gpu_sizes("eastus", "eastus"), "`azure` must be a subscription"),
    (lambda azure, aks: sizes.preflight(aks, "eastus", "Standard_NC6"), "`azure` must be a subscription"),
    (lambda azure, aks: cluster.temporary(aks, "a", resource_group="b").__enter__(), "`azure` must be a subscription"),
]


@pytest.mark.parametrize(("call", "words"), [*NAMES, *VALUES, *SWAPPED])
def test_invalid_arguments_are_refused(scripted: Azure, script: Script, call: Any, words: str) -> None:
    aks = Cluster("aks", resource_group="rg", location="eastus", azure=scripted, id="/subscriptions/0/aks")
    with pytest.raises(InvalidInput, match=re.escape(words)) as caught:
        call(scripted, aks)
    assert caught.value.hint
    assert str(caught.value).isprintable() or "\n" in str(caught.value)
    assert script.seen == []


def test_a_cluster_object_with_a_hostile_name_sends_no_request(scripted: Azure, script: Script) -> None:
    for name, group in (("..", "rg"), ("aks", ".."), ("a/b", "rg"), ("", "rg"), ("aks", "")):
        aks = Cluster(name, resource_group=group, azure=scripted, id="x")
        for call in (
            cluster.delete,
            cluster.stop,
            cluster.start,
            cluster.abort,
            cluster.list_pools,
            cluster.kubeconfig,
        ):
            with pytest.raises(InvalidInput):
                call(aks)
    assert script.seen == []


CALLS: dict[str, Any] = {
    "create": lambda azure, aks, timeout: create(azure, timeout=timeout),
    "get": lambda azure, aks, timeout: cluster.get(azure, "aks", resource_group="rg", timeout=timeout),
    "list": lambda azure, aks, timeout: cluster.list(azure, timeout=timeout),
    "add_gpu_pool": lambda azure, aks, timeout: cluster.add_gpu_pool(aks, timeout=timeout),
    "scale": lambda azure, aks, timeout: cluster.scale_pool(aks, "gpunp", 1, timeout=timeout),
    "start": lambda azure, aks, timeout: cluster.start(aks, timeout=timeout),
    "stop": lambda azure, aks, timeout: cluster.stop(aks, timeout=timeout),
    "start_pool": lambda azure, aks, timeout: cluster.start_pool(aks, "gpunp", timeout=timeout),
    "stop_pool": lambda azure, aks, timeout: cluster.stop_pool(aks, "gpunp", timeout=timeout),
    "delete_pool": lambda azure, aks, timeout: cluster.delete_pool(aks, "gpunp", timeout=timeout),
    "delete": lambda azure, aks, timeout: cluster.delete(aks, timeout=timeout),
    "pools": lambda azure, aks, timeout: cluster.list_pools(aks, timeout=timeout),
    "leftovers": lambda azure, aks, timeout: cluster.leftovers(azure, timeout=timeout),
    "abort": lambda azure, aks, timeout: cluster.abort(aks, timeout=timeout),
    "kubeconfig": lambda azure, aks, timeout: cluster.kubeconfig(aks, timeout=timeout),
    "get_credentials": lambda azure, aks, timeout: cluster.get_credentials(aks, timeout=timeout),
    "gpu_sizes": lambda azure, aks, timeout: sizes.gpu_sizes(azure, "eastus", timeout=timeout),
    "preflight": lambda azure, aks, timeout: sizes.preflight(azure, "eastus", "Standard_NC6s_v3", timeout=timeout),
    "temporary": lambda azure, aks, timeout: cluster.temporary(
        azure, "aks", resource_group="rg", timeout=timeout
    ).__enter__(),
}
"""Every public call that talks to Azure and waits."""


@pytest.mark.parametrize("timeout", ["5", math.nan, True, -1, [5]], ids=repr)
@pytest.mark.parametrize("name", CALLS)
def test_an_invalid_timeout_is_refused_at_once(scripted: Azure, script: Script, name: str, timeout: Any) -> None:
    aks = Cluster("aks", resource_group="rg", location="eastus", azure=scripted, id="x")
    with pytest.raises(InvalidInput, match="`timeout` must be a number of seconds, 0 or more, text such as"):
        CALLS[name](scripted, aks, timeout)
    assert script.seen == []
