from __future__ import annotations

import time

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.containerservice.models import AgentPool, GPUProfile
from support.polling import wait_for

from aksgpu.local.arm import managed_clusters
from aksgpu.local.arm.arm_errors import ArmError
from aksgpu.local.arm.token_buckets import Throttle
from aksgpu.local.node_annotations import GPU_DRIVER_ERROR, KUBELET_AWAY

from .conftest import CLUSTER, GROUP, Arm, body, pool


def inject(arm: Arm, fault: str, **details: object) -> str:
    return str(arm.run(arm.manager.inject(fault, details)))


def test_an_allocation_failure_is_shown_on_operation_and_pool(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    inject(arm, "allocation", vm_size="Standard_NC4as_T4_v3")
    client.agent_pools.begin_create_or_update(
        "rg", "aks", "cpu", AgentPool(vm_size="Standard_D2s_v3", count=1)
    ).result()
    poller = client.agent_pools.begin_create_or_update(
        "rg", "aks", "gpunp", AgentPool(vm_size="Standard_NC4as_T4_v3", count=1)
    )
    with pytest.raises(HttpResponseError) as caught:
        poller.result()
    assert caught.value.status_code == 200
    assert caught.value.error.code == "ZonalAllocationFailed"
    failed = client.agent_pools.get("rg", "aks", "gpunp")
    assert failed.provisioning_state == "Failed"
    assert failed.status.provisioning_error.code == "ZonalAllocationFailed"
    again = AgentPool(vm_size="Standard_NC4as_T4_v3", count=1)
    done = client.agent_pools.begin_create_or_update("rg", "aks", "gpunp", again).result()
    assert (done.provisioning_state, done.status) == ("Succeeded", None)


def test_an_injected_quota(arm: Arm) -> None:
    inject(arm, "quota", family="standardDSv3Family", limit=1)
    refused = arm.send("PUT", CLUSTER, body())
    assert refused.json()["code"] == "ErrCode_InsufficientVCPUQuota"
    inject(arm, "none")
    assert arm.send("PUT", CLUSTER, body()).status_code == 201


def test_an_injected_429(arm: Arm) -> None:
    inject(arm, "throttle", seconds=7)
    refused = arm.send("GET", GROUP)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "7")
    assert refused.json()["code"] == "Throttled"
    assert refused.json()["message"] == (
        "The GetHandler.GET request limit has been exceeded for SubID='00000000-0000-0000-0000-000000000000', please "
        "retry again in 7 seconds."
    )
    assert arm.send("GET", GROUP).status_code == 200


def test_a_stuck_operation_can_be_aborted(arm: Arm) -> None:
    client = arm.client()
    inject(arm, "stuck")
    client.managed_clusters.begin_create_or_update("rg", "aks", body())
    time.sleep(0.5)  # several times as long as the operation takes
    assert client.managed_clusters.get("rg", "aks").provisioning_state == "Creating"
    client.managed_clusters.begin_abort_latest_operation("rg", "aks").result()
    assert client.managed_clusters.get("rg", "aks").provisioning_state == "Canceled"


def test_operations_that_cannot_be_aborted_do_not_get_stuck(arm: Arm) -> None:
    inject(arm, "stuck")
    place = arm.send("DELETE", GROUP, version="2021-04-01").headers["Location"]
    wait_for(lambda: arm.send("GET", place, version=None).status_code != 202)
    assert arm.send("GET", GROUP, version="2021-04-01").status_code == 404


def test_a_slow_operation(arm: Arm) -> None:
    inject(arm, "slow", factor=1000)
    answer = arm.send("PUT", CLUSTER, body())
    assert answer.headers["Retry-After"] == "1"
    assert arm.send("DELETE", CLUSTER).status_code == 202


def test_an_eviction_deletes_a_spot_node(arm: Arm) -> None:
    client = arm.client()
    with pytest.raises(ArmError, match="no spot node"):
        inject(arm, "eviction")
    spot = pool("spot", mode="User", vmSize="Standard_NC4as_T4_v3", scaleSetPriority="Spot", count=2)
    client.managed_clusters.begin_create_or_update("rg", "aks", body(pool(), spot)).result()
    assert "vmss000001" in inject(arm, "eviction", pool="spot")
    assert len(arm.nodes()) == 2
    (registry,) = arm.clusters.open_clusters.values()
    (event,) = [one for one in arm.run(registry.list("events"))[0] if one["reason"] == "PreemptScheduled"]
    assert event["involvedObject"]["kind"] == "Node" and event["message"].startswith("Preempt Scheduled: ")
    assert client.agent_pools.get("rg", "aks", "spot").count == 1


def test_an_eviction_that_deallocates_keeps_the_node(arm: Arm) -> None:
    spot = {"scaleSetPriority": "Spot", "scaleSetEvictionPolicy": "Deallocate"}
    document = body(pool(), pool("spot", mode="User", vmSize="Standard_NC4as_T4_v3", **spot))
    arm.client().managed_clusters.begin_create_or_update("rg", "aks", document).result()
    inject(arm, "eviction")
    (node,) = [node for node in arm.nodes() if node["metadata"]["labels"]["agentpool"] == "spot"]
    assert "shutdown" in node["spec"]["taints"][-1]["key"]
    (condition,) = node["status"]["conditions"]
    assert (condition["type"], condition["reason"][:4]) == ("PreemptionScheduled", "Node")


def test_a_driver_that_cannot_be_installed(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    inject(arm, "gpu-driver")
    for name, pool_spec in {
        "cpu": AgentPool(vm_size="Standard_D2s_v3", count=1),
        "bare": AgentPool(vm_size="Standard_NC4as_T4_v3", count=1, gpu_profile=GPUProfile(driver="None")),
    }.items():
        client.agent_pools.begin_create_or_update("rg", "aks", name, pool_spec).result()
    gpu = AgentPool(vm_size="Standard_NC4as_T4_v3", count=1)
    with pytest.raises(HttpResponseError, match=r"vmssCSE.*exit status=84"):
        client.agent_pools.begin_create_or_update("rg", "aks", "gpunp", gpu).result()
    failed = client.agent_pools.get("rg", "aks", "gpunp")
    assert failed.provisioning_state == "Failed"
    assert failed.status.provisioning_error.code == "VMExtensionProvisioningError"


def test_a_driver_that_breaks_later(arm: Arm) -> None:
    gpu = pool("gpunp", mode="User", vmSize="Standard_NC4as_T4_v3")
    arm.client().managed_clusters.begin_create_or_update("rg", "aks", body(pool(), gpu)).result()
    cpu_node, gpu_node = sorted((node["metadata"]["name"] for node in arm.nodes()), reverse=True)
    for name in ("nowhere", cpu_node):
        with pytest.raises(ArmError, match="no GPU node"):
            inject(arm, "gpu-driver", node=name)
    assert gpu_node in inject(arm, "gpu-driver", node=gpu_node)

    def broken() -> dict[str, str]:
        notes = {node["metadata"]["name"]: node["metadata"].get("annotations") or {} for node in arm.nodes()}
        return {name: note[GPU_DRIVER_ERROR] for name, note in notes.items() if GPU_DRIVER_ERROR in note}

    assert broken() == {gpu_node: "Driver/library version mismatch"}
    inject(arm, "none")
    assert broken() == {}


def test_kubelets_that_are_away(arm: Arm) -> None:
    arm.client().managed_clusters.begin_create_or_update("rg", "aks", body(pool(count=2))).result()
    first, second = sorted(node["metadata"]["name"] for node in arm.nodes())

    def away() -> dict[str, str]:
        notes = {node["metadata"]["name"]: node["metadata"].get("annotations") or {} for node in arm.nodes()}
        return {name: note[KUBELET_AWAY] for name, note in notes.items() if KUBELET_AWAY in note}

    with pytest.raises(ArmError, match="no node 'nowhere' is running"):
        inject(arm, "kubelet-away", node="nowhere")
    assert first in inject(arm, "kubelet-away", node=first, cause="tunnel")
    assert away() == {first: "tunnel"}
    inject(arm, "kubelet-away")
    assert away() == {first: "kubelet", second: "kubelet"}
    inject(arm, "none")
    assert away() == {}


def test_a_node_is_removed_with_its_pods(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body(pool(count=2))).result()
    first, second = sorted(node["metadata"]["name"] for node in arm.nodes())
    (registry,) = arm.clusters.open_clusters.values()
    for name, node in (("there", first), ("elsewhere", second)):
        spec = {"nodeName": node, "containers": [{"name": "main", "image": "busybox"}]}
        arm.run(registry.create("pods", {"metadata": {"name": name}, "spec": spec}, "default"))
    with pytest.raises(ArmError, match="no node 'nowhere' is running"):
        inject(arm, "node-gone", node="nowhere")
    assert first in inject(arm, "node-gone", node=first)
    assert [node["metadata"]["name"] for node in arm.nodes()] == [second]
    pods, _ = arm.run(registry.list("pods", "default"))
    assert [pod["metadata"]["name"] for pod in pods] == ["elsewhere"]
    assert client.agent_pools.get("rg", "aks", pool()["name"]).count == 1


def test_unknown_faults(arm: Arm) -> None:
    for fault, details in (("weather", {}), ("quota", {"colour": "red"})):
        with pytest.raises(ArmError, match="known: quota"):
            inject(arm, fault, **details)


@pytest.mark.parametrize(
    ("fault", "details", "text"),
    [
        ("slow", {"factor": "x"}, "factor: cannot unmarshal string into a field of type number"),
        ("slow", {"factor": -1}, "factor: -1 is not allowed"),
        ("quota", {"limit": -5}, "limit: -5 is not allowed: it must be between 0 and 1000000"),
        ("allocation", {"times": 0}, "times: 0 is not allowed: it must be between 1"),
        ("allocation", {"code": "Bogus"}, "'Bogus' is not one of ZonalAllocationFailed, AllocationFailed"),
    ],
)
def test_invalid_details_of_faults(arm: Arm, fault: str, details: dict[str, object], text: str) -> None:
    with pytest.raises(ArmError, match=text) as caught:
        inject(arm, fault, **details)
    assert caught.value.status == 400


def test_token_buckets_empty_and_refill() -> None:
    now = [0.0]
    throttle = Throttle(1.0, lambda: now[0])
    path = {"group": "rg", "cluster": "aks"}
    for _ in range(20):
        throttle.check(managed_clusters.put, path)
    with pytest.raises(ArmError) as caught:
        throttle.check(managed_clusters.put, path)
    assert caught.value.headers == {"Retry-After": "60"}
    assert "PutManagedClusterHandler.PUT request limit has been exceeded for SubID='" in caught.value.message
    throttle.check(managed_clusters.put, path | {"cluster": "other"})
    now[0] = 60.0
    throttle.check(managed_clusters.put, path)
    with pytest.raises(ArmError):
        throttle.check(managed_clusters.put, path)


def test_api_servers_without_roles(arm: Arm) -> None:
    assert inject(arm, "rbac-not-loaded", seconds=9) == "unloaded the roles of all API servers for 9 seconds"
    assert arm.clusters.seconds_without_roles == 9
    inject(arm, "rbac-not-loaded")
    assert arm.clusters.seconds_without_roles == 5
    inject(arm, "none")
    assert arm.clusters.seconds_without_roles == 0
