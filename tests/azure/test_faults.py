"""Azure's failures, injected into the laptop AKS, and how the library handles them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import aksgpu
from aksgpu import cluster, local, sizes
from aksgpu.azure import Azure
from aksgpu.errors import AllocationFailed, QuotaExceeded, WaitTimeout
from aksgpu.local import Endpoint


@pytest.fixture
def aks(azure: Azure, laptop: Endpoint) -> Iterator[cluster.Cluster]:
    yield cluster.create(azure, "faults", resource_group="faults", location="eastus2")
    local.inject("none", home=laptop.home)


@pytest.fixture(scope="module", autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    azure = aksgpu.connect(request.getfixturevalue("laptop"))
    cluster.delete(cluster.get(azure, "faults", resource_group="faults"))


def test_an_allocation_fails_and_then_succeeds(aks: cluster.Cluster, laptop: Endpoint) -> None:
    local.inject("allocation", home=laptop.home)
    with pytest.raises(AllocationFailed) as caught:
        cluster.add_gpu_pool(aks, "scarce")
    assert (caught.value.vm_size, caught.value.location) == ("Standard_NC4as_T4_v3", "eastus2")
    assert "such as Standard_NC8as_T4_v3" in caught.value.hint
    assert "az vm list-skus --location eastus2" in caught.value.hint
    assert cluster.list_pools(aks).set_index("pool").loc["scarce", "state"] == "Failed"
    assert cluster.add_gpu_pool(aks, "scarce").state == "Succeeded"
    cluster.delete_pool(aks, "scarce")


def test_an_allocation_that_fails_in_a_reservation_group_is_explained(aks: cluster.Cluster, laptop: Endpoint) -> None:
    group = f"{aks.id.partition('/providers/')[0]}/providers/Microsoft.Compute/capacityReservationGroups/mine"
    local.inject("allocation", home=laptop.home)
    with pytest.raises(AllocationFailed) as caught:
        cluster.add_gpu_pool(aks, "reserved", capacity_reservation_group=group)
    assert caught.value.vm_size == "Standard_NC4as_T4_v3"
    assert "az capacity reservation update" in caught.value.hint
    cluster.delete_pool(aks, "reserved")


def test_exhausted_quota_is_found_before_a_request_is_sent(aks: cluster.Cluster, laptop: Endpoint) -> None:
    family = "Standard NCASv3_T4 Family"
    local.inject("quota", home=laptop.home, family=family, limit=4)
    assert sizes.preflight(aks.azure, "eastus2", "Standard_NC4as_T4_v3", 2).verdict == "no"
    with pytest.raises(QuotaExceeded):
        cluster.add_gpu_pool(aks, "greedy", count=2)
    with pytest.raises(QuotaExceeded) as caught:
        cluster.add_gpu_pool(aks, "greedy", count=2, preflight=False)
    assert (caught.value.requested, caught.value.remaining, caught.value.family) == (8, 4, family)


def test_a_throttled_call_waits_and_succeeds(aks: cluster.Cluster, laptop: Endpoint) -> None:
    local.inject("throttle", home=laptop.home, method="PUT", seconds=1)
    assert cluster.add_gpu_pool(aks, "patient").state == "Succeeded"
    cluster.delete_pool(aks, "patient")


def test_a_stuck_operation_can_be_aborted_and_repeated(azure: Azure, laptop: Endpoint) -> None:
    wish = {"resource_group": "stuck", "location": "eastus2"}
    local.inject("stuck", home=laptop.home)
    with pytest.raises(WaitTimeout, match="Creating"):
        cluster.create(azure, "stuck", timeout=3, **wish)
    cluster.abort(cluster.get(azure, "stuck", resource_group="stuck"))
    assert cluster.list(azure).set_index("cluster").loc["stuck", "state"] == "Canceled"
    aks = cluster.create(azure, "stuck", **wish)
    assert cluster.list_pools(aks)["state"].tolist() == ["Succeeded"]
    cluster.delete(aks)
