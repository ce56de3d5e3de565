from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator

import pandas as pd
import pytest

import aksgpu
from aksgpu import cluster, local
from aksgpu.azure import Azure
from aksgpu.errors import (
    AzureConflict,
    AzureNotFound,
    InvalidInput,
    InvalidParameter,
    LocationNotAvailable,
    QuotaExceeded,
    SizeNotAvailable,
    WaitTimeout,
    ZoneNotAvailable,
)


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest) -> Iterator[cluster.Cluster]:
    """One cluster for the tests that do not change it."""
    azure = aksgpu.connect(request.getfixturevalue("laptop"))
    aks = cluster.create(azure, "shared", resource_group="shared-group", location="eastus")
    yield aks
    cluster.delete(aks)


def test_the_tutorial_from_start_to_end(azure: Azure) -> None:
    aks = cluster.create(azure, "walk", resource_group="walk-group", location="East US", tags={"who": "me"})
    assert repr(aks) == "Cluster(walk in walk-group (eastus))"
    assert cluster.usd_per_hour(aks) == 0.096
    pool = cluster.add_gpu_pool(aks, "gpunp", vm_size="Standard_NC4as_T4_v3", count=1)
    assert repr(pool) == ("NodePool(gpunp of walk: 1 x Standard_NC4as_T4_v3 (Tesla T4), Succeeded, USD 0.526 an hour)")
    assert pool.taints == ("sku=gpu:NoSchedule",)
    assert cluster.get_pool(aks, "gpunp") == pool
    assert repr(aks) == "Cluster(walk in walk-group (eastus))"
    assert cluster.usd_per_hour(aks) == 0.622
    assert repr(cluster.get(azure, "walk", resource_group="walk-group")) == repr(aks)
    nodes = {node["metadata"]["labels"]["agentpool"] for node in aks.kube.list("Node")}
    assert nodes == {"nodepool1", "gpunp"}
    left = cluster.leftovers(azure).query("cluster == 'walk'")
    assert left["pool"].tolist() == ["gpunp", "nodepool1"]
    assert left[["usd_per_hour", "disks_usd_per_day", "usd_per_day"]].values.tolist()[0] == [0.526, 0.65, 13.27]
    assert cluster.delete_pool(aks, "gpunp") is True
    with pytest.warns(
        UserWarning,
        match=r"node pool 'gpunp' does not exist in cluster walk, so nothing was deleted. Existing names: nodepool1",
    ):
        assert cluster.delete_pool(aks, pool) is False
    assert cluster.list_pools(aks)["pool"].tolist() == ["nodepool1"]
    assert repr(cluster.delete(aks)) == "Deletion(deleted cluster walk and resource group walk-group)"
    with pytest.raises(AzureNotFound):
        cluster.usd_per_hour(aks)
    with pytest.warns(
        UserWarning, match="cluster 'walk' does not exist in resource group 'walk-group', so nothing was deleted"
    ):
        again = cluster.delete(aks)
    assert repr(again) == "Deletion(nothing deleted; resource group walk-group no longer exists)"
    assert not again
    assert "walk" not in cluster.leftovers(azure)["cluster"].tolist()


def test_the_cluster_of_2020_has_one_gpu_pool_without_a_taint(azure: Azure) -> None:
    aks = cluster.create(
        azure, "old", resource_group="old", location="eastus", vm_size="Standard_NC4as_T4_v3", node_count=1
    )
    table = cluster.list_pools(aks)
    assert table[["pool", "mode", "vm_size", "gpu_model", "gpus", "taints"]].values.tolist() == [
        ["nodepool1", "System", "Standard_NC4as_T4_v3", "Tesla T4", 1, ""]
    ]
    cluster.delete(aks)


def test_creating_an_existing_cluster_that_matches_returns_it(shared: cluster.Cluster, azure: Azure) -> None:
    again = cluster.create(azure, "shared", resource_group="shared-group", location="eastus", kubernetes_version="1.36")
    assert again.id == shared.id
    assert cluster.get(azure, "shared", resource_group="shared-group").id == shared.id
    assert cluster.create(azure, "shared", resource_group="shared-group").id == shared.id


def test_creating_an_existing_cluster_that_differs_names_the_differences(shared: cluster.Cluster, azure: Azure) -> None:
    with pytest.raises(AzureConflict, match=r"location is 'eastus', requested 'westus2'; node_count is 1, requested 2"):
        cluster.create(
            azure, "shared", resource_group="shared-group", location="westus2", node_count=2, kubernetes_version="1.35"
        )
    with pytest.raises(AzureConflict) as caught:
        cluster.create(azure, "shared", resource_group="shared-group", tags={"a": "b"}, vm_size="Standard_D4s_v5")
    assert caught.value.differences == {"vm_size": ("Standard_D2s_v5", "Standard_D4s_v5"), "tag a": (None, "b")}


def test_two_kernels_may_create_the_same_cluster(azure: Azure) -> None:
    made: list[cluster.Cluster] = []

    def create() -> None:
        made.append(cluster.create(azure, "twins", resource_group="twins", location="eastus"))

    threads = [threading.Thread(target=create) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len({aks.id for aks in made}) == 1
    assert len(made) == 2
    cluster.delete(made[0])


def test_a_resource_group_with_other_resources_is_kept(azure: Azure) -> None:
    path = f"/subscriptions/{azure.subscription_id}/resourcegroups/theirs"
    azure.request("PUT", path, api_version="2021-04-01", body={"location": "westus2"})
    aks = cluster.create(azure, "guest", resource_group="theirs")
    assert aks.location == "westus2"
    assert repr(cluster.delete(aks)) == (
        "Deletion(deleted cluster guest; resource group theirs was kept: it existed before)"
    )
    with pytest.warns(UserWarning, match="cluster 'guest' does not exist"):
        assert repr(cluster.delete(aks, delete_group=True)) == "Deletion(deleted resource group theirs)"


def test_a_resource_group_with_another_cluster_is_kept(azure: Azure) -> None:
    first = cluster.create(azure, "first", resource_group="both", location="eastus")
    second = cluster.create(azure, "second", resource_group="both")
    assert "was kept: it has 1 more resource" in repr(cluster.delete(first))
    assert cluster.delete(second).resource_group == "both"


def test_a_cluster_that_does_not_exist(shared: cluster.Cluster, azure: Azure) -> None:
    with pytest.raises(
        AzureNotFound, match=r"(?s)cluster 'myAKS' does not exist in resource group 'nowhere'.*shared \(shared-group\)"
    ):
        cluster.get(azure, "myAKS", resource_group="nowhere")


def test_wrong_location(azure: Azure) -> None:
    with pytest.raises(LocationNotAvailable, match=r"(?s)'eastus1'.*Did you mean 'eastus'") as caught:
        cluster.create(azure, "lost", resource_group="lost", location="eastus1")
    assert "eastus" in caught.value.available
    with pytest.raises(InvalidInput, match="location"):
        cluster.create(azure, "lost", resource_group="lost", location="east/us")
    with pytest.raises(InvalidInput, match="`location` must be given, because resource group lost does not exist"):
        cluster.create(azure, "lost", resource_group="lost")


@pytest.mark.parametrize("name", ["GPU", "1gpu", "gpu-pool", "gpupoolnumber1", "", "gpü"])
def test_invalid_pool_names(shared: cluster.Cluster, name: str) -> None:
    with pytest.raises(InvalidInput, match="12 lower case letters"):
        cluster.add_gpu_pool(shared, name)


@pytest.mark.parametrize("name", ["-aks", "aks-", "a" * 64, "aks.one", ""])
def test_invalid_cluster_names(azure: Azure, name: str) -> None:
    with pytest.raises(InvalidInput, match="must be the name of a cluster"):
        cluster.create(azure, name, resource_group="rg", location="eastus")


def test_invalid_group_names_and_counts(azure: Azure, shared: cluster.Cluster) -> None:
    with pytest.raises(InvalidInput, match="must be the name of a resource group"):
        cluster.create(azure, "aks", resource_group="rg.", location="eastus")
    with pytest.raises(InvalidInput, match="1 to 1000"):
        cluster.create(azure, "aks", resource_group="rg", location="eastus", node_count=0)
    with pytest.raises(InvalidInput, match="0 to 1000"):
        cluster.add_gpu_pool(shared, count=-1)
    with pytest.raises(InvalidInput, match="must be given together"):
        cluster.add_gpu_pool(shared, max_count=3)
    with pytest.raises(InvalidInput, match="`count` must be between `min_count` and `max_count`"):
        cluster.add_gpu_pool(shared, count=4, min_count=0, max_count=3)


@pytest.mark.parametrize("preflight", [True, False])
def test_retired_size(azure: Azure, shared: cluster.Cluster, preflight: bool) -> None:
    with pytest.raises(SizeNotAvailable, match="Use Standard_NC4as_T4_v3 instead") as caught:
        cluster.create(
            azure, "k80", resource_group="k80", location="eastus", vm_size="Standard_NC6", preflight=preflight
        )
    assert (caught.value.vm_size, caught.value.alternatives[0]) == ("Standard_NC6", "Standard_NC4as_T4_v3")
    with pytest.raises(SizeNotAvailable, match="Use Standard_NC4as_T4_v3 instead"):
        cluster.add_gpu_pool(shared, vm_size="Standard_NC6", preflight=preflight)


@pytest.mark.parametrize("preflight", [True, False])
def test_unknown_size(shared: cluster.Cluster, preflight: bool) -> None:
    with pytest.raises(SizeNotAvailable, match="Standard_NC4as_T4_v3") as caught:
        cluster.add_gpu_pool(shared, vm_size="Standard_NC4as_T5_v3", preflight=preflight)
    assert caught.value.vm_size == "Standard_NC4as_T5_v3"


def test_size_without_gpu_and_size_of_another_region(shared: cluster.Cluster) -> None:
    with pytest.raises(SizeNotAvailable, match="Standard_D4ds_v5 has no GPU"):
        cluster.add_gpu_pool(shared, vm_size="Standard_D4ds_v5")
    with pytest.raises(SizeNotAvailable, match="not offered in eastus"):
        cluster.add_gpu_pool(shared, vm_size="Standard_NC40ads_H100_v5")
    with pytest.raises(ZoneNotAvailable, match="zone 7"):
        cluster.add_gpu_pool(shared, zones=("7",))


@pytest.mark.parametrize("preflight", [True, False])
def test_quota(shared: cluster.Cluster, preflight: bool) -> None:
    with pytest.raises(QuotaExceeded) as caught:
        cluster.add_gpu_pool(shared, count=100, preflight=preflight)
    error = caught.value
    assert (error.requested, error.remaining, error.family) == (400, 64, "Standard NCASv3_T4 Family")


def test_checks_that_only_azure_can_make_are_left_to_azure(shared: cluster.Cluster) -> None:
    with pytest.raises(InvalidParameter, match="does not support MIG"):
        cluster.add_gpu_pool(shared, gpu_instance_profile="MIG1g")


def test_a_pool_with_its_own_subnet_beside_a_managed_one(shared: cluster.Cluster) -> None:
    with pytest.raises(InvalidParameter, match="Omit vnet_subnet_id") as caught:
        cluster.add_gpu_pool(shared, "own", vnet_subnet_id="/subscriptions/0/subnets/gpus")
    assert caught.value.parameter == "vnetSubnetID"


def test_a_pool_with_every_option(shared: cluster.Cluster) -> None:
    wish = {
        "spot": True,
        "spot_max_price": 0.2,
        "min_count": 0,
        "max_count": 2,
        "node_labels": {"team": "a"},
        "node_taints": (),
        "zones": ("1",),
        "gpu_driver": "none",
        "os_sku": "AzureLinux",
        "os_disk_size_gb": 256,
        "scale_down_mode": "Deallocate",
        "tags": {"cost": "research"},
    }
    pool = cluster.add_gpu_pool(shared, "spot1", **wish)
    assert (pool.spot, pool.min_count, pool.max_count, pool.zones) == (True, 0, 2, ("1",))
    assert pool.taints == ("kubernetes.azure.com/scalesetpriority=spot:NoSchedule",)
    assert "autoscaled 0 to 2, spot" in repr(pool)
    assert cluster.add_gpu_pool(shared, "spot1", **wish) == pool
    with pytest.raises(InvalidInput, match="autoscaler chooses"):
        cluster.scale_pool(shared, pool, 1)
    with pytest.raises(AzureConflict) as caught:
        cluster.add_gpu_pool(shared, "spot1")
    assert set(caught.value.differences) == {"spot", "max_count", "node_taints", "gpu_driver"}
    assert "A pool's gpu_driver, node_taints, spot cannot be changed" in caught.value.hint
    with pytest.raises(AzureConflict, match=r"min_count=\.\.\., max_count=\.\.\.") as caught:
        cluster.add_gpu_pool(shared, "spot1", **{**wish, "max_count": 3})
    assert caught.value.differences == {"max_count": (2, 3)}
    with pytest.raises(AzureConflict, match="gpu_driver is 'none', requested 'install'"):
        cluster.add_gpu_pool(shared, "spot1", **{**wish, "gpu_driver": "install"})
    assert cluster.scale_pool(shared, pool, min_count=0, max_count=3).max_count == 3
    with pytest.raises(InvalidInput, match="`count` must be given"):
        cluster.scale_pool(shared, pool)
    by_hand = cluster.scale_pool(shared, pool, 1, autoscaler=False)
    assert (by_hand.count, by_hand.max_count) == (1, None)
    assert cluster.scale_pool(shared, pool, 1, autoscaler=False) == by_hand
    cluster.delete_pool(shared, pool)


def test_scaling_stopping_and_starting_a_pool(shared: cluster.Cluster) -> None:
    cluster.add_gpu_pool(shared, "gpus")
    cluster.stop_pool(shared, "gpus")
    with pytest.raises(AzureConflict, match=r"(?s)power is 'Stopped'.*cluster\.start_pool"):
        cluster.add_gpu_pool(shared, "gpus")
    cluster.start_pool(shared, "gpus")
    assert cluster.scale_pool(shared, "gpus", 2).usd_per_hour == 1.052
    assert cluster.scale_pool(shared, "gpus", 2).count == 2
    with pytest.raises(AzureConflict, match=r"(?s)count is 2, requested 1.*cluster\.scale_pool"):
        cluster.add_gpu_pool(shared, "gpus")
    stopped = cluster.stop_pool(shared, "gpus")
    assert (stopped.power, stopped.usd_per_hour) == ("Stopped", 0.0)
    assert cluster.stop_pool(shared, "gpus") == stopped
    left = cluster.leftovers(shared.azure).query("cluster == 'shared' and pool == 'gpus'")
    assert left[["state", "count", "usd_per_hour", "usd_per_day"]].values.tolist() == [["Stopped", 2, 0.0, 1.3]]
    assert cluster.start_pool(shared, stopped).power == "Running"
    cluster.delete_pool(shared, "gpus")
    with pytest.raises(AzureNotFound, match="node pool 'gpus' does not exist"):
        cluster.scale_pool(shared, "gpus", 1)
    with pytest.raises(AzureConflict, match=r"cluster\.delete\(aks\)"):
        cluster.delete_pool(shared, "nodepool1")


def test_stopping_and_starting_a_cluster(azure: Azure) -> None:
    aks = cluster.create(azure, "nap", resource_group="nap", location="eastus")
    cluster.stop(aks)
    cluster.stop(aks)
    assert cluster.usd_per_hour(aks) == 0
    assert cluster.list_pools(aks)["usd_per_hour"].tolist() == [0.0]
    row = cluster.leftovers(azure).query("cluster == 'nap'")
    assert row["state"].tolist() == ["Stopped"]
    assert row[["usd_per_hour", "usd_per_day"]].values.tolist() == [[0.0, 0.65]]
    with pytest.raises(AzureConflict, match=r"cluster\.start\(aks\)"):
        cluster.create(azure, "nap", resource_group="nap")
    cluster.start(aks)
    assert cluster.list(azure).query("cluster == 'nap'")["power"].tolist() == ["Running"]
    cluster.delete(aks)
    with pytest.raises(AzureNotFound):
        cluster.stop(aks)


def test_a_mistyped_pool_name_warns_and_deletes_nothing(shared: cluster.Cluster) -> None:
    cluster.add_gpu_pool(shared, "gpunp", count=0)
    with pytest.warns(
        UserWarning, match=r"node pool 'gpump' does not exist.*Did you mean 'gpunp'\? Existing names: gpunp, nodepool1"
    ) as seen:
        assert cluster.delete_pool(shared, "gpump") is False
    assert seen[0].filename == __file__
    with pytest.raises(AzureNotFound, match="Did you mean 'gpunp'"):
        cluster.delete_pool(shared, "gpump", missing="error")
    assert cluster.list_pools(shared)["pool"].tolist() == ["gpunp", "nodepool1"]
    assert cluster.delete_pool(shared, "gpunp", missing="error") is True


def test_a_mistyped_cluster_name_warns_and_deletes_nothing(shared: cluster.Cluster, azure: Azure) -> None:
    wrong = cluster.Cluster("shred", resource_group="shared-group", azure=azure, id=f"{shared.id[:-6]}shred")
    with pytest.warns(UserWarning, match=r"cluster 'shred' does not exist.*Did you mean 'shared'\?") as seen:
        assert not cluster.delete(wrong)
    assert seen[0].filename == __file__
    with pytest.raises(AzureNotFound, match="Did you mean 'shared'"):
        cluster.delete(wrong, missing="error")
    assert cluster.get(azure, "shared", resource_group="shared-group").id == shared.id


def test_errors_of_a_stopped_cluster_have_a_hint_to_start_it(azure: Azure) -> None:
    aks = cluster.create(azure, "asleep", resource_group="asleep", location="eastus")
    cluster.stop(aks)
    with pytest.raises(AzureConflict, match=r"cluster\.start\(aks\)"):
        cluster.add_gpu_pool(aks)
    cluster.delete(aks)


def test_the_laptop_is_killed_during_a_creation() -> None:
    with local.laptop(time_scale=3.0) as endpoint:
        azure = aksgpu.connect(endpoint)
        wish = {"resource_group": "kill", "location": "eastus"}
        with pytest.raises(WaitTimeout):
            cluster.create(azure, "kill", timeout=2, **wish)
        os.kill(json.loads((endpoint.home / "laptop.json").read_text())["pid"], signal.SIGKILL)
        again = aksgpu.connect(local.start(endpoint.home, settings=local.Settings(time_scale=0.05)))
        aks = cluster.create(again, "kill", **wish)
        assert cluster.list_pools(aks)["state"].tolist() == ["Succeeded"]


def test_tables_have_the_same_columns_and_dtypes_with_and_without_rows(azure: Azure, shared: cluster.Cluster) -> None:
    full = cluster.leftovers(azure)
    empty = cluster.leftovers(azure).query("cluster == 'nobody'")
    assert full.dtypes.equals(empty.dtypes)
    assert full.dtypes.astype(str).to_dict() == {
        "resource_group": "string",
        "cluster": "string",
        "pool": "string",
        "vm_size": "string",
        "count": "Int64",
        "state": "string",
        "usd_per_hour": "Float64",
        "disks_usd_per_day": "Float64",
        "usd_per_day": "Float64",
    }
    assert cluster.list_pools(shared)["min_count"].isna().all()
    assert isinstance(cluster.list(azure), pd.DataFrame)


def test_html_reprs_escape_text_and_show_more(shared: cluster.Cluster) -> None:
    assert "Azure Resource Manager" in shared._repr_html_()
    pool = cluster.NodePool("<b>", "aks", "Standard_NC4as_T4_v3", 2)
    assert "&lt;b&gt;" in pool._repr_html_()
    assert pool.gpus == 2
    assert cluster.NodePool("x", "aks", "Standard_D2s_v5", 2).gpu_model == ""


def test_a_cluster_of_a_kubeconfig_has_no_azure_part(shared: cluster.Cluster) -> None:
    other = cluster.from_kubeconfig(cluster.kubeconfig(shared))
    assert repr(other) == "Cluster(shared)"
    assert shared.has_azure
    assert not other.has_azure
    assert "a kubeconfig" in other._repr_html_()
    assert other.kube.list("Node")
    with pytest.raises(InvalidInput, match="not managed through Azure"):
        cluster.list_pools(other)
