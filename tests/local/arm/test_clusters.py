from __future__ import annotations

import base64
import time
from typing import Any

import pytest
import yaml
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.mgmt.containerservice.models import AgentPool, GPUProfile, NvidiaGPUProfile

from .conftest import CLUSTER, GROUP, Arm, body, pool


def test_the_tutorial_of_today(arm: Arm) -> None:
    client = arm.client()
    poller = client.managed_clusters.begin_create_or_update("rg", "aks", body())
    assert client.managed_clusters.get("rg", "aks").provisioning_state == "Creating"
    cluster = poller.result()
    assert cluster.provisioning_state == "Succeeded"
    assert cluster.power_state.code == "Running"
    assert cluster.node_resource_group == "MC_rg_aks_eastus"
    assert cluster.fqdn.startswith("aks-") and cluster.fqdn.endswith(".hcp.eastus.azmk8s.io")
    assert cluster.identity.principal_id
    (node,) = arm.nodes()
    assert node["metadata"]["labels"]["kubernetes.azure.com/mode"] == "system"
    assert "nvidia.com/gpu" not in node["status"]["capacity"]
    assert "accelerator" not in node["metadata"]["labels"]

    gpu = AgentPool(vm_size="Standard_NC4as_T4_v3", count=2, mode="User", node_taints=["sku=gpu:NoSchedule"])
    poller = client.agent_pools.begin_create_or_update("rg", "aks", "gpunp", gpu)
    assert client.managed_clusters.get("rg", "aks").provisioning_state == "Updating"
    assert poller.result().provisioning_state == "Succeeded"
    gpus = [node for node in arm.nodes() if node["metadata"]["labels"]["agentpool"] == "gpunp"]
    assert [node["metadata"]["name"][-10:] for node in gpus] == ["vmss000000", "vmss000001"]
    assert gpus[0]["spec"]["taints"] == [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
    assert gpus[0]["metadata"]["labels"]["aksgpu.dev/gpu"] == "simulated"
    assert gpus[0]["metadata"]["annotations"]["aksgpu.dev/gpu-model"] == "Tesla T4"
    assert gpus[0]["metadata"]["annotations"]["aksgpu.dev/gpu-memory-mib"] == "16384"
    assert len({node["status"]["addresses"][0]["address"] for node in arm.nodes()}) == 3
    assert [found.name for found in client.agent_pools.list("rg", "aks")] == ["nodepool1", "gpunp"]

    client.agent_pools.begin_delete("rg", "aks", "gpunp").result()
    assert len(arm.nodes()) == 1
    client.managed_clusters.begin_delete("rg", "aks").result()
    assert list(client.managed_clusters.list()) == []
    assert client.managed_clusters.begin_delete("rg", "aks").result() is None
    with pytest.raises(ResourceNotFoundError, match="under resource group 'rg' was not found"):
        client.managed_clusters.get("rg", "aks")


def test_the_tutorial_of_2020_has_one_pool_without_taint(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body(pool(vmSize="Standard_NC4as_T4_v3"))).result()
    (node,) = arm.nodes()
    assert "taints" not in node["spec"]
    assert node["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "Standard_NC4as_T4_v3"


def test_scaling_moves_nodes_and_keeps_their_numbers(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()

    def scale(count: int) -> list[str]:
        client.agent_pools.begin_create_or_update("rg", "aks", "nodepool1", AgentPool(count=count)).result()
        return [node["metadata"]["name"][-1] for node in arm.nodes()]

    assert scale(3) == ["0", "1", "2"]
    assert scale(1) == ["0"]
    assert scale(2) == ["0", "3"]


def test_labels_and_taints_follow_the_pool(arm: Arm) -> None:
    client = arm.client()
    user = pool("user1", mode="User", nodeLabels={"team": "a", "old": "1"})
    client.managed_clusters.begin_create_or_update("rg", "aks", body(pool(), user)).result()
    change = AgentPool(node_labels={"team": "b"}, node_taints=["x=y:NoExecute"])
    client.agent_pools.begin_create_or_update("rg", "aks", "user1", change).result()
    (node,) = [node for node in arm.nodes() if node["metadata"]["labels"]["agentpool"] == "user1"]
    assert node["metadata"]["labels"]["team"] == "b"
    assert "old" not in node["metadata"]["labels"]
    assert node["spec"]["taints"] == [{"key": "x", "value": "y", "effect": "NoExecute"}]
    client.agent_pools.begin_create_or_update("rg", "aks", "user1", AgentPool(node_taints=[])).result()
    (node,) = [node for node in arm.nodes() if node["metadata"]["labels"]["agentpool"] == "user1"]
    assert not node["spec"].get("taints")


def test_spot_and_managed_pools_keep_their_fields(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    spot = AgentPool(vm_size="Standard_NC4as_T4_v3", count=1, scale_set_priority="Spot")
    made = client.agent_pools.begin_create_or_update("rg", "aks", "spot", spot).result()
    assert made.spot_max_price == -1
    assert made.node_taints == ["kubernetes.azure.com/scalesetpriority=spot:NoSchedule"]
    profile = GPUProfile(driver="Install", nvidia=NvidiaGPUProfile(management_mode="Managed"))
    managed = AgentPool(vm_size="Standard_NC4as_T4_v3", count=1, gpu_profile=profile)
    made = client.agent_pools.begin_create_or_update("rg", "aks", "managed", managed).result()
    assert made.gpu_profile.nvidia.management_mode == "Managed"


def test_stop_and_start(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    client.managed_clusters.begin_stop("rg", "aks").result()
    stopped = client.managed_clusters.get("rg", "aks")
    assert (stopped.power_state.code, stopped.provisioning_state) == ("Stopped", "Succeeded")
    assert arm.clusters.open_clusters == {}
    with pytest.raises(ResourceExistsError, match="cluster is stopped"):
        client.agent_pools.begin_create_or_update("rg", "aks", "nodepool1", AgentPool(count=2))
    client.managed_clusters.begin_start("rg", "aks").result()
    assert client.managed_clusters.get("rg", "aks").power_state.code == "Running"
    assert len(arm.nodes()) == 1
    with pytest.raises(ResourceExistsError, match="already running"):
        client.managed_clusters.begin_start("rg", "aks")


def test_one_operation_at_a_time_and_abort(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body())
    with pytest.raises(ResourceExistsError, match=r"Another operation \(Creating\) is in progress") as caught:
        client.agent_pools.begin_create_or_update("rg", "aks", "x", AgentPool(vm_size="Standard_D2s_v3"))
    assert caught.value.error.code == "OperationNotAllowed"
    client.managed_clusters.begin_abort_latest_operation("rg", "aks").result()
    assert client.managed_clusters.get("rg", "aks").provisioning_state == "Canceled"
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    assert client.managed_clusters.get("rg", "aks").provisioning_state == "Succeeded"


@pytest.mark.parametrize("call", ["list_cluster_user_credentials", "list_cluster_admin_credentials"])
def test_credentials(arm: Arm, call: str) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    (result,) = getattr(client.managed_clusters, call)("rg", "aks").kubeconfigs
    config = yaml.safe_load(result.value)
    cluster = config["clusters"][0]["cluster"]
    assert cluster["server"].startswith(f"{arm.base_url}/k8s/clusters/")
    assert base64.b64decode(cluster["certificate-authority-data"]) == (arm.home / "ca.pem").read_bytes()
    assert config["current-context"] == ("aks" if "user" in call else "aks-admin")


def test_no_static_credentials_without_local_accounts(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body(disableLocalAccounts=True)).result()
    with pytest.raises(HttpResponseError, match="set to disable local accounts"):
        client.managed_clusters.list_cluster_admin_credentials("rg", "aks")


def test_tags(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    assert client.managed_clusters.begin_update_tags("rg", "aks", {"tags": {"a": "b"}}).result().tags == {"a": "b"}


def test_operations_survive_a_restart(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body(pool(count=3)))
    arm.run(arm._stop())
    arm.run(arm._start())
    again = arm.client()
    for _ in range(200):
        cluster = again.managed_clusters.get("rg", "aks")
        if cluster.provisioning_state != "Creating":
            break
        time.sleep(0.05)
    assert cluster.provisioning_state == "Succeeded"
    assert len(arm.nodes()) == 3


def test_deleting_a_resource_group_takes_everything_with_it(arm: Arm) -> None:
    arm.client().managed_clusters.begin_create_or_update("rg", "aks", body())
    answer = arm.send("DELETE", GROUP, version="2021-04-01")
    assert answer.status_code == 202
    assert arm.send("GET", GROUP).json()["properties"]["provisioningState"] == "Deleting"
    refused = arm.send("PUT", CLUSTER, body())
    assert refused.json()["error"]["code"] == "ResourceGroupBeingDeleted"
    while (result := arm.send("GET", answer.headers["Location"], version=None)).status_code == 202:
        pass
    assert result.status_code == 204
    assert arm.send("HEAD", GROUP).status_code == 404
    groups = arm.send("GET", GROUP.rpartition("/")[0]).json()["value"]
    assert groups == []


def test_paths_and_query_keys_do_not_regard_case(arm: Arm) -> None:
    arm.client().managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    for path in (CLUSTER.upper(), CLUSTER.lower()):
        assert arm.send("GET", f"{path}?API-Version=2024-01-01", version=None).json()["name"] == "aks"


def test_a_node_resource_group_is_shown_and_goes_with_its_cluster(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    path = GROUP.replace("/rg", "/MC_rg_aks_eastus")
    assert arm.send("GET", path).json()["managedBy"].endswith("/managedClusters/aks")
    (scale_set,) = arm.send("GET", f"{path}/resources").json()["value"]
    assert scale_set["type"] == "Microsoft.Compute/virtualMachineScaleSets"
    assert arm.send("DELETE", path).status_code == 403
    client.managed_clusters.begin_delete("rg", "aks").result()
    assert arm.send("GET", path).status_code == 404


def test_machines(arm: Arm) -> None:
    client = arm.client()
    zonal = pool(count=2, availabilityZones=["1", "2"])
    client.managed_clusters.begin_create_or_update("rg", "aks", body(zonal)).result()
    machines: list[Any] = list(client.machines.list("rg", "aks", "nodepool1"))
    assert [machine.zones for machine in machines] == [["1"], ["2"]]
    assert client.machines.get("rg", "aks", "nodepool1", machines[0].name).properties.network.ip_addresses
