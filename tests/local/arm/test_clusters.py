from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.mgmt.containerservice.models import AgentPool, GPUProfile, NvidiaGPUProfile
from support.polling import wait_for

from aksgpu.local.arm import operation_steps, pool_nodes, reference_data

from .conftest import CLUSTER, GROUP, SUBSCRIPTION, Arm, body, pool


def test_the_current_tutorial(arm: Arm) -> None:
    client = arm.client()
    with arm.operations_held():
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
    with arm.operations_held():
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


def test_a_cluster_of_another_version(arm: Arm) -> None:
    client = arm.client()
    content = body()
    content["properties"]["kubernetesVersion"] = "1.37"
    cluster = client.managed_clusters.begin_create_or_update("rg", "aks", content).result()
    assert (cluster.kubernetes_version, cluster.current_kubernetes_version) == ("1.37", "1.37.0")
    older = AgentPool(vm_size="Standard_D2s_v5", count=1, mode="User", orchestrator_version="1.36.2")
    client.agent_pools.begin_create_or_update("rg", "aks", "older", older).result()
    assert sorted(node["status"]["nodeInfo"]["kubeletVersion"] for node in arm.nodes()) == ["v1.36.2", "v1.37.0"]
    content["properties"]["kubernetesVersion"] = "1.37.0"
    client.managed_clusters.begin_create_or_update("rg", "aks", content).result()
    for version, text in (("1.36", "does not upgrade it to 1.36"), ("1.34", "is not supported in this region")):
        content["properties"]["kubernetesVersion"] = version
        with pytest.raises(HttpResponseError, match=text):
            client.managed_clusters.begin_create_or_update("rg", "aks", content)


def test_the_tutorial_of_2020_has_one_pool_without_taint(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body(pool(vmSize="Standard_NC4as_T4_v3"))).result()
    (node,) = arm.nodes()
    assert "taints" not in node["spec"]
    assert node["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "Standard_NC4as_T4_v3"


def test_scaling_keeps_the_indexes_of_nodes(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()

    def scale(count: int) -> list[str]:
        client.agent_pools.begin_create_or_update("rg", "aks", "nodepool1", AgentPool(count=count)).result()
        return [node["metadata"]["name"][-1] for node in arm.nodes()]

    assert scale(3) == ["0", "1", "2"]
    assert scale(1) == ["0"]
    assert scale(2) == ["0", "3"]


def test_a_pool_without_autoscaler_has_no_count_limits(arm: Arm) -> None:
    client = arm.client()
    limits = {"enableAutoScaling": True, "minCount": 1, "maxCount": 3}
    client.managed_clusters.begin_create_or_update("rg", "aks", body(pool(**limits))).result()
    off = {"enableAutoScaling": False, "minCount": None, "maxCount": None}
    shown = arm.send("PUT", f"{CLUSTER}/agentPools/nodepool1", {"properties": off}).json()["properties"]
    assert shown["enableAutoScaling"] is False and not shown.keys() & {"minCount", "maxCount"}


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
    with arm.operations_held():
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
    assert config["current-context"] == "aks"
    (user,) = config["users"]
    assert user["name"] == ("clusterUser_rg_aks" if "user" in call else "clusterAdmin_rg_aks")
    assert set(user["user"]) == {"client-certificate-data", "client-key-data", "token"}
    (again,) = getattr(client.managed_clusters, call)("rg", "aks").kubeconfigs
    assert again.value == result.value


def test_a_pool_without_a_size_gets_one_that_fits(arm: Arm) -> None:
    client = arm.client()
    sizes: list[str] = []
    quota = reference_data.FAMILIES["standardddsv5family"]["quota"]  # of vCPUs; a machine has four
    for name, count in (("one", 1), ("two", quota // 4 - 1), ("three", 1)):
        document = body(pool(vmSize=None, count=count), dnsPrefix=name)
        client.managed_clusters.begin_create_or_update("rg", name, document).result()
        (made,) = client.managed_clusters.get("rg", name).agent_pool_profiles
        sizes.append(made.vm_size)
    assert sizes == ["Standard_D4ds_v5", "Standard_D4ds_v5", "Standard_D4s_v5"]
    pool_ = client.agent_pools.begin_create_or_update("rg", "one", "more", {"properties": {"count": 1}}).result()
    assert pool_.vm_size
    kept = client.agent_pools.begin_create_or_update("rg", "one", "more", {"properties": {"count": 2}}).result()
    assert (kept.vm_size, kept.count) == (pool_.vm_size, 2)


def test_no_static_credentials_without_local_accounts(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body(disableLocalAccounts=True)).result()
    with pytest.raises(HttpResponseError, match="set to disable local accounts"):
        client.managed_clusters.list_cluster_admin_credentials("rg", "aks")


@pytest.mark.parametrize(("style", "kind"), [(None, "exec"), ("exec", "exec"), ("azure", "auth-provider")])
def test_kubeconfigs_of_entra_clusters_use_kubelogin(arm: Arm, style: str | None, kind: str) -> None:
    client = arm.client()
    document = body(disableLocalAccounts=True, aadProfile={"managed": True})
    client.managed_clusters.begin_create_or_update("rg", "aks", document).result()
    (found,) = client.managed_clusters.list_cluster_user_credentials("rg", "aks", format=style).kubeconfigs
    (user,) = yaml.safe_load(found.value)["users"]
    assert list(user["user"]) == [kind]
    assert "6dae42f8-4368-4678-94ff-3960e28e3630" in str(user)
    with pytest.raises(HttpResponseError, match="set to disable local accounts"):
        client.managed_clusters.list_cluster_admin_credentials("rg", "aks")
    with pytest.raises(HttpResponseError, match="'x' is not one of exec, azure"):
        client.managed_clusters.list_cluster_user_credentials("rg", "aks", format="x")


def test_tags(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    assert client.managed_clusters.begin_update_tags("rg", "aks", {"tags": {"a": "b"}}).result().tags == {"a": "b"}


def test_operations_survive_a_restart(arm: Arm) -> None:
    client = arm.client()
    with arm.operations_held():
        client.managed_clusters.begin_create_or_update("rg", "aks", body(pool(count=3)))
        arm.run(arm._stop())
    arm.run(arm._start())
    again = arm.client()
    wait_for(lambda: again.managed_clusters.get("rg", "aks").provisioning_state == "Succeeded")
    assert len(arm.nodes()) == 3


def test_deleting_a_resource_group_deletes_its_clusters(arm: Arm) -> None:
    arm.client().managed_clusters.begin_create_or_update("rg", "aks", body())
    with arm.operations_held():
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


def test_paths_and_query_keys_are_case_insensitive(arm: Arm) -> None:
    arm.client().managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    for path in (CLUSTER.upper(), CLUSTER.lower()):
        assert arm.send("GET", f"{path}?API-Version=2024-01-01", version=None).json()["name"] == "aks"


def test_a_node_resource_group_is_deleted_with_its_cluster(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    path = GROUP.replace("/rg", "/MC_rg_aks_eastus")
    assert arm.send("GET", path).json()["managedBy"].endswith("/managedClusters/aks")
    (scale_set,) = arm.send("GET", f"{path}/resources").json()["value"]
    assert scale_set["type"] == "Microsoft.Compute/virtualMachineScaleSets"
    assert arm.send("DELETE", path).status_code == 403
    client.managed_clusters.begin_delete("rg", "aks").result()
    assert arm.send("GET", path).status_code == 404


@pytest.mark.parametrize(
    ("group", "label"),
    [("g" * 60, f"MC_{'g' * 60}"), ("my(gr\u00fcn)", "MC_my-gr-n-_aks_eastus"), ("g" * 59, f"MC_{'g' * 59}z")],
)
def test_group_names_that_are_not_valid_labels(arm: Arm, group: str, label: str) -> None:
    arm.send("PUT", GROUP.replace("/rg", f"/{quote(group)}"), {"location": "eastus"})
    client = arm.client()
    client.managed_clusters.begin_create_or_update(group, "aks", body()).result()
    assert arm.nodes()[0]["metadata"]["labels"]["kubernetes.azure.com/cluster"] == label


def test_node_resource_groups_of_long_names_differ(arm: Arm) -> None:
    group = "g" * 60
    client = arm.client()
    arm.send("PUT", GROUP.replace("/rg", f"/{group}"), {"location": "eastus"})
    names = ["a" * 40 + end for end in "xy"]
    made = [client.managed_clusters.begin_create_or_update(group, name, body()).result() for name in names]
    machines = {cluster.node_resource_group for cluster in made}
    assert len(machines) == 2 and {len(name) for name in machines} == {80}


def test_nodes_that_are_not_removed_after_all_are_uncordoned(arm: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation_steps, "CONTROL_PLANE_SHARE", 0.0)
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body(pool(count=4))).result()
    (registry,) = arm.clusters.open_clusters.values()
    mine = [arm.nodes()[index]["metadata"]["name"] for index in (0, 3)]  # one that stays, and one that will be removed
    for name in mine:
        arm.run(registry.patch("nodes", name, {"spec": {"unschedulable": True}}))
    arm.run(arm.manager.inject("slow", {"factor": 10_000}))  # No node is removed before the operation is aborted.
    client.agent_pools.begin_create_or_update("rg", "aks", "nodepool1", AgentPool(count=2), polling=False)
    wait_for(lambda: sum(bool(node["spec"].get("unschedulable")) for node in arm.nodes()) >= 3)
    client.agent_pools.begin_abort_latest_operation("rg", "aks", "nodepool1").result()
    client.agent_pools.begin_create_or_update("rg", "aks", "nodepool1", AgentPool(count=4)).result()
    cordoned = [node["metadata"]["name"] for node in arm.nodes() if node["spec"].get("unschedulable")]
    assert cordoned == mine and len(arm.nodes()) == 4


def test_machines(arm: Arm) -> None:
    client = arm.client()
    zonal = pool(count=2, availabilityZones=["1", "2"])
    client.managed_clusters.begin_create_or_update("rg", "aks", body(zonal)).result()
    machines: list[Any] = list(client.machines.list("rg", "aks", "nodepool1"))
    assert [machine.zones for machine in machines] == [["1"], ["2"]]
    assert client.machines.get("rg", "aks", "nodepool1", machines[0].name).properties.network.ip_addresses


def test_labels_do_not_decide_a_nodes_pool(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    (registry,) = arm.clusters.open_clusters.values()
    (node,) = arm.nodes()
    name = node["metadata"]["name"]
    other_node = {"metadata": {"name": "my-node", "labels": node["metadata"]["labels"]}}
    arm.run(registry.create("nodes", other_node))
    arm.run(registry.patch("nodes", name, {"metadata": {"labels": None}}))
    (machine,) = client.machines.list("rg", "aks", "nodepool1")
    assert (machine.name, machine.zones) == (name, None)
    client.agent_pools.begin_create_or_update("rg", "aks", "nodepool1", AgentPool(count=2)).result()
    assert [node["metadata"]["name"][-1] for node in arm.nodes()] == ["0", "1", "e"]
    assert arm.nodes()[0]["metadata"]["labels"]["agentpool"] == "nodepool1"
    client.managed_clusters.begin_stop("rg", "aks").result()
    client.managed_clusters.begin_start("rg", "aks").result()
    assert not [
        node for node in arm.nodes() if node["spec"].get("unschedulable")
    ]  # nor the one that is not a node of the pool


def test_machines_are_deleted_by_name(arm: Arm) -> None:
    client = arm.client()
    gpu = pool("gpunp", mode="User", vmSize="Standard_NC4as_T4_v3", count=3, availabilityZones=["1", "3"])
    client.managed_clusters.begin_create_or_update("rg", "aks", body(pool(), gpu)).result()
    machines = list(client.machines.list("rg", "aks", "gpunp"))
    assert [machine.zones for machine in machines] == [["1"], ["3"], ["1"]]
    with pytest.raises(HttpResponseError, match="no machine aks-nothere"):
        client.agent_pools.begin_delete_machines("rg", "aks", "gpunp", {"machineNames": ["aks-nothere"]})
    with pytest.raises(HttpResponseError, match="machineNames is missing"):
        client.agent_pools.begin_delete_machines("rg", "aks", "gpunp", {"machineNames": []})
    first = {"machineNames": [machines[0].name]}
    client.agent_pools.begin_delete_machines("rg", "aks", "gpunp", first).result()
    assert [each.name for each in client.machines.list("rg", "aks", "gpunp")] == [each.name for each in machines[1:]]
    found = client.agent_pools.get("rg", "aks", "gpunp")
    assert (found.count, found.provisioning_state) == (2, "Succeeded")


def test_pods_do_not_move_between_machines_that_are_deleted(arm: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_nodes, "POD_GRACE_SECONDS", 600)
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body(pool(count=3))).result()
    (registry,) = arm.clusters.open_clusters.values()
    going = [node["metadata"]["name"] for node in arm.nodes()[:2]]
    spec = {"nodeName": going[0], "containers": [{"name": "main", "image": "busybox"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}
    arm.run(registry.create("pods", pod, "default"))
    poller = client.agent_pools.begin_delete_machines("rg", "aks", "nodepool1", {"machineNames": going})
    wait_for(lambda: "deletionTimestamp" in arm.run(registry.get("pods", "one", "default"))["metadata"])
    assert [node["metadata"]["name"] for node in arm.nodes() if node["spec"].get("unschedulable")] == going
    arm.run(registry.delete("pods", "one", "default", grace_period_seconds=0))  # as the node agent does
    poller.result()
    assert len(arm.nodes()) == 1


def test_an_upgrade_replaces_nodes_and_needs_quota_for_its_surge(arm: Arm) -> None:
    client = arm.client()
    settings = {"upgradeSettings": {"maxSurge": "50%"}}
    gpu = pool("gpunp", mode="User", vmSize="Standard_NC4as_T4_v3", count=3, **settings)
    client.managed_clusters.begin_create_or_update("rg", "aks", body(pool(), gpu)).result()
    before = {node["metadata"]["name"]: node["metadata"]["uid"] for node in arm.nodes()}
    usages = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/eastus/usages"
    with arm.operations_held():
        poller = client.agent_pools.begin_upgrade_node_image_version("rg", "aks", "gpunp")
        assert client.agent_pools.get("rg", "aks", "gpunp").provisioning_state == "UpgradingNodeImageVersion"
        rows = arm.send("GET", usages).json()["value"]
    used = {row["name"]["value"].lower(): row["currentValue"] for row in rows}
    assert used["standard ncasv3_t4 family"] == (3 + 2) * 4
    poller.result()
    after = {node["metadata"]["name"]: node["metadata"]["uid"] for node in arm.nodes()}
    assert after.keys() == before.keys()
    assert sum(after[name] != before[name] for name in after) == 3
    client.agent_pools.begin_create_or_update("rg", "aks", "gpunp", AgentPool(count=15)).result()
    with pytest.raises(HttpResponseError, match="requested 32, remaining 4 for family Standard NCASv3_T4 Family"):
        client.agent_pools.begin_upgrade_node_image_version("rg", "aks", "gpunp")


def test_scale_down_mode_deallocate_keeps_the_nodes(arm: Arm) -> None:
    client = arm.client()
    gpu = pool("gpunp", mode="User", vmSize="Standard_NC4as_T4_v3", count=2, scaleDownMode="Deallocate")
    client.managed_clusters.begin_create_or_update("rg", "aks", body(pool(), gpu)).result()
    before = {node["metadata"]["name"]: node["metadata"]["uid"] for node in arm.nodes()}
    client.agent_pools.begin_create_or_update("rg", "aks", "gpunp", AgentPool(count=0)).result()
    off = [node for node in arm.nodes() if "taints" in node["spec"]]
    assert [node["spec"]["taints"][0]["key"].rpartition("/")[2] for node in off] == ["shutdown", "shutdown"]
    client.agent_pools.begin_create_or_update("rg", "aks", "gpunp", AgentPool(count=1)).result()
    assert {node["metadata"]["name"]: node["metadata"]["uid"] for node in arm.nodes()} == before
    assert len([node for node in arm.nodes() if node["spec"].get("unschedulable")]) == 1
    client.agent_pools.begin_delete("rg", "aks", "gpunp").result()
    assert len(arm.nodes()) == 1


@pytest.mark.parametrize(
    ("size", "profile", "slices", "notes"),
    [
        ("Standard_ND96asr_v4", "MIG1g", "1g.5gb", 7),
        ("Standard_NC24ads_A100_v4", "MIG1g", "1g.10gb", 7),
        ("Standard_NC24ads_A100_v4", "MIG3g", "3g.40gb", 2),
        ("Standard_NC40ads_H100_v5", "MIG1g", "1g.12gb", 7),
        ("Standard_ND96isr_H200_v5", "MIG2g", "2g.35gb", 3),
        ("Standard_ND96isr_H200_v5", "MIG7g", "7g.141gb", 1),
    ],
)
def test_names_of_mig_profiles(size: str, profile: str, slices: str, notes: int) -> None:
    assert reference_data.sizes()[size.lower()].mig_slices(profile) == (slices, notes)


def test_nodes_of_managed_and_mig_pools(arm: Arm) -> None:
    client = arm.client()
    profile = {"driver": "Install", "nvidia": {"managementMode": "Managed", "migStrategy": "Mixed"}}
    cut = pool("cut", mode="User", vmSize="Standard_NC24ads_A100_v4", gpuInstanceProfile="MIG1g", gpuProfile=profile)
    bare = pool("bare", mode="User", vmSize="Standard_NC4as_T4_v3", gpuProfile={"driver": "None"})
    client.managed_clusters.begin_create_or_update("rg", "aks", body(pool(), cut, bare)).result()
    by_pool = {node["metadata"]["labels"]["agentpool"]: node["metadata"] for node in arm.nodes()}
    assert by_pool["cut"]["labels"]["kubernetes.azure.com/dcgm-exporter"] == "enabled"
    notes = by_pool["cut"]["annotations"]
    assert {name.partition("/")[2]: notes[name] for name in notes if "mig" in name or "management" in name} == {
        "gpu-management": "Managed",
        "gpu-mig": "1g.10gb",
        "gpu-mig-count": "7",
        "gpu-mig-strategy": "mixed",
    }
    assert not by_pool["bare"].get("annotations")
    assert by_pool["bare"]["labels"]["accelerator"] == "nvidia"


def test_the_log_size_is_passed_to_the_nodes(arm: Arm) -> None:
    small = pool(kubeletConfig={"containerLogMaxSizeMB": 10})
    arm.client().managed_clusters.begin_create_or_update("rg", "aks", body(small)).result()
    (node,) = arm.nodes()
    assert node["metadata"]["annotations"]["aksgpu.dev/container-log-max-mb"] == "10"
