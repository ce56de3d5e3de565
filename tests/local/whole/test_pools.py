"""Pools of GPU nodes on a complete laptop AKS, with scheduler, node agent, device plugin and library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.polling import wait_for

import aksgpu
from aksgpu import capacity, cluster, jobs, plugin
from aksgpu.cluster import Cluster
from aksgpu.errors import NodeBootstrapFailed, NoGpuDriver, SecondGpuStack
from aksgpu.kube import node_facts
from aksgpu.local import Endpoint, inject
from aksgpu.waiting import wait_until

pytest_plugins = ["aksgpu.local.testing"]

CUDA = "nvidia/cuda:12.4.1-base-ubuntu22.04"


@pytest.fixture(scope="module")
def aks(laptop: Endpoint) -> Iterator[Cluster]:
    azure = aksgpu.connect(laptop)
    created = cluster.create(azure, "pools", resource_group="pools", location="eastus")
    yield created
    inject("none", home=laptop.home)
    cluster.delete(created)


def smi(aks: Cluster, name: str, **options: Any) -> jobs.Job:
    return jobs.submit(aks, image=CUDA, name=name, command=["nvidia-smi", "-L"], **options)


def scale_down_soon(aks: Cluster) -> None:
    """Let the autoscaler remove a node that was empty for 10 s instead of 10 minutes (in scaled time)."""
    clusters = aks.azure.client.managed_clusters
    document = clusters.get(aks.resource_group, aks.name)
    document.auto_scaler_profile = {"scale-down-unneeded-time": "10s"}
    clusters.begin_create_or_update(aks.resource_group, aks.name, document).result()


def plugin_log(aks: Cluster, pool: str) -> str:
    pods = aks.kube.list("Pod", plugin.NAMESPACE)
    (name,) = [pod["metadata"]["name"] for pod in pods if f"-{pool}-" in pod["spec"].get("nodeName", "")]
    return b"".join(aks.kube.log(name, plugin.NAMESPACE)).decode()


def offered(aks: Cluster, pool: str) -> dict[str, tuple[int, int]]:
    """Return what the nodes of a pool offer: capacity and allocatable by resource."""
    found = {}
    for node in aks.kube.list("Node", label_selector=f"agentpool={pool}"):
        status = node["status"]
        for name in filter(lambda name: name.startswith("nvidia.com/"), status["capacity"]):
            found[name] = int(status["capacity"][name]), int(status["allocatable"][name])
    return found


def until_offered(aks: Cluster, pool: str, wanted: dict[str, tuple[int, int]]) -> None:
    def poll() -> tuple[bool | None, str]:
        found = offered(aks, pool)
        return found == wanted or None, str(found)

    wait_until(poll, f"{pool} offers {wanted}", timeout=60, interval=0.1)


def test_a_managed_pool_scales_up_from_zero_and_down_again(aks: Cluster) -> None:
    cluster.add_gpu_pool(aks, "auto", count=0, min_count=0, max_count=1, management_mode="Managed")
    assert aks.kube.list("Node", label_selector="agentpool=auto") == []
    job = smi(aks, "first").wait(timeout=60)
    assert "Tesla T4 SIMULATED" in job.logs()
    assert offered(aks, "auto") == {"nvidia.com/gpu": (1, 1)}
    (pod,) = aks.kube.list("Pod", "default", label_selector="job-name=first")
    events = {(event["reason"], event["source"].get("component")) for event in aks.kube.list("Event", "default")}
    assert ("TriggeredScaleUp", "cluster-autoscaler") in events
    (node,) = aks.kube.list("Node", label_selector="agentpool=auto")
    assert node["metadata"]["labels"]["kubernetes.azure.com/dcgm-exporter"] == "enabled"
    assert {each["status"] for each in node["status"]["conditions"] if "Nvidia" in each["type"]} == {"False"}
    assert pod["spec"]["nodeName"] == node["metadata"]["name"]
    with pytest.raises(SecondGpuStack):
        plugin.install(aks, timeout=5)
    scale_down_soon(aks)

    def gone() -> tuple[bool | None, str]:
        left = aks.kube.list("Node", label_selector="agentpool=auto")
        return not left or None, f"{len(left)} left"

    wait_until(gone, "no node", timeout=60, interval=0.2)
    assert cluster.list_pools(aks).set_index("pool").loc["auto", "count"] == 0
    cluster.delete_pool(aks, "auto")


def test_slices_of_a_managed_pool(aks: Cluster) -> None:
    cluster.add_gpu_pool(
        aks, "mig", vm_size="Standard_NC24ads_A100_v4", gpu_instance_profile="MIG1g", management_mode="Managed"
    )
    until_offered(aks, "mig", {"nvidia.com/gpu": (7, 7)})
    assert capacity.gpus(aks)["allocatable"].tolist() == [7]
    assert "MIG 1g.10gb SIMULATED (UUID: MIG-" in smi(aks, "slice").wait(timeout=60).logs()
    cluster.delete_pool(aks, "mig")


def test_without_a_driver_no_gpus_are_allocatable(aks: Cluster) -> None:
    cluster.add_gpu_pool(aks, "bare", gpu_driver="none")
    with pytest.raises(NoGpuDriver):
        plugin.install(aks, timeout=20)
    assert offered(aks, "bare") == {}
    assert "could not load NVML library" in plugin_log(aks, "bare")
    plugin.remove(aks)
    cluster.delete_pool(aks, "bare")


def test_a_driver_that_breaks(aks: Cluster, laptop: Endpoint) -> None:
    inject("gpu-driver", home=laptop.home)
    with pytest.raises(NodeBootstrapFailed) as caught:
        cluster.add_gpu_pool(aks, "gpunp")
    assert caught.value.exit_code == 84
    assert cluster.list_pools(aks).set_index("pool").loc["gpunp", "state"] == "Failed"
    cluster.add_gpu_pool(aks, "gpunp")
    plugin.install(aks, timeout=60)
    (node,) = aks.kube.list("Node", label_selector="agentpool=gpunp")
    inject("gpu-driver", node=node["metadata"]["name"], home=laptop.home)
    until_offered(aks, "gpunp", {"nvidia.com/gpu": (1, 0)})
    problem = "Failed to initialize NVML: Driver/library version mismatch"
    wait_for(lambda: problem in plugin_log(aks, "gpunp"))  # It is logged after the devices are unhealthy.
    inject("none", home=laptop.home)
    until_offered(aks, "gpunp", {"nvidia.com/gpu": (1, 1)})
    plugin.remove(aks)
    cluster.delete_pool(aks, "gpunp")


def test_an_evicted_spot_node_is_reported_and_its_pods_end(aks: Cluster, laptop: Endpoint) -> None:
    cluster.add_gpu_pool(aks, "spot", spot=True, management_mode="Managed")
    until_offered(aks, "spot", {"nvidia.com/gpu": (1, 1)})
    job = jobs.submit(aks, image=CUDA, name="long", command=["sleep", "600"], retries=3)
    wait_until(lambda: (job.status().phase == "Running" or None, "waits"), "running", timeout=60, interval=0.1)
    inject("eviction", pool="spot", home=laptop.home)
    events = [event for event in aks.kube.list("Event") if event["reason"] == "PreemptScheduled"]
    assert "-spot-" in events[0]["involvedObject"]["name"]
    assert aks.kube.list("Node", label_selector="agentpool=spot") == []
    wait_until(lambda: (job.status().phase == "Pending" or None, "runs"), "waiting", timeout=60, interval=0.1)
    job.delete()
    cluster.delete_pool(aks, "spot")


def test_pods_of_deleted_nodes_are_replaced_once_as_disrupted(aks: Cluster) -> None:
    pools = aks.azure.client.agent_pools

    def sized(count: int) -> None:
        wanted = {"properties": {"vmSize": "Standard_D2s_v3", "count": count}}
        pools.begin_create_or_update("pools", "pools", "cpus", wanted).result()

    sized(3)

    def ready_nodes() -> int:
        nodes = aks.kube.list("Node", label_selector="agentpool=cpus")
        return sum(node_facts.read(node).ready and not node["spec"].get("taints") for node in nodes)

    wait_for(lambda: ready_nodes() == 3)  # Otherwise, the scheduler places all pods on the first node that is ready.
    container = {"name": "main", "image": "busybox", "command": ["sleep", "600"]}
    pod = {"containers": [container], "restartPolicy": "Never", "nodeSelector": {"agentpool": "cpus"}}
    ignore = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}
    for name, more in {"counts": {}, "ignores": {"podFailurePolicy": ignore}}.items():
        spec = {"parallelism": 3, "completions": 3, "template": {"spec": pod}, **more}
        aks.kube.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})

    def ready(name: str) -> tuple[bool | None, str]:
        status = aks.kube.get("Job", name)["status"]
        return status.get("ready") == 3 or None, str(status)

    for name in ("counts", "ignores"):
        wait_until(lambda name=name: ready(name), name, timeout=60, interval=0.1)
    places = {pod["spec"]["nodeName"] for pod in aks.kube.list("Pod", label_selector="job-name=counts")}
    assert len(places) == 3
    sized(1)
    for name in ("counts", "ignores"):
        wait_until(lambda name=name: ready(name), name, timeout=60, interval=0.1)
    assert aks.kube.get("Job", "counts")["status"]["failed"] == 2
    assert "failed" not in aks.kube.get("Job", "ignores")["status"]
    for name in ("counts", "ignores"):
        aks.kube.delete("Job", name)
    cluster.delete_pool(aks, "cpus")
