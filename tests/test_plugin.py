from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from aksgpu import capacity, cluster, errors, manifests, plugin
from aksgpu.cluster import Cluster

pytest_plugins = ["aksgpu.local.testing", "laptop_cluster"]


@pytest.fixture(scope="module")
def bare(azure: Any) -> Iterator[Cluster]:
    """A cluster of the shape of 2020: one untainted GPU pool, and nothing installed."""
    made = cluster.create(
        azure, "bare", resource_group="bare", location="eastus", vm_size="Standard_NC4as_T4_v3", node_count=1
    )
    yield made
    cluster.delete(made)


@pytest.fixture
def clean(bare: Cluster) -> Iterator[Cluster]:
    yield bare
    plugin.remove(bare)


def test_gpus_appear_with_the_plugin_and_go_with_it(clean: Cluster) -> None:
    before = plugin.verify(clean).iloc[0]
    assert (before["ok"], before["allocatable"]) == (False, 0)
    assert "plugin.install(aks)" in before["problem"]
    installed = plugin.install(clean, timeout=60)
    assert (installed.nodes, installed.gpus) == (1, 1)
    assert installed.image == "nvcr.io/nvidia/k8s-device-plugin:v0.18.0"
    assert capacity.gpus(clean)["allocatable"].tolist() == [1]
    after = plugin.verify(clean).iloc[0]
    assert (after["ok"], after["plugin"], after["state"]) == (
        True,
        "gpu-resources/nvidia-device-plugin-daemonset",
        "Running",
    )
    assert plugin.install(clean, timeout=60) == installed  # twice is fine
    plugin.remove(clean)
    plugin.remove(clean)
    assert plugin.verify(clean)["allocatable"].tolist() == [0]
    with pytest.raises(errors.NotFound):
        clean.kube.get("Namespace", "gpu-resources")


def test_the_plugin_of_2020_serves_too_and_gives_way_to_todays(clean: Cluster) -> None:
    assert plugin.install(clean, manifest=manifests.device_plugin("2020"), timeout=60).image.endswith(":1.11")
    assert plugin.install(clean, manifest=manifests.path("device-plugin"), timeout=60).image.endswith("v0.18.0")
    assert capacity.gpus(clean)["allocatable"].tolist() == [1]


def test_tolerations_come_from_the_nodes(aks: Cluster) -> None:
    daemon = aks.kube.get("DaemonSet", plugin.NAME, plugin.NAMESPACE)
    tolerations = daemon["spec"]["template"]["spec"]["tolerations"]
    assert {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"} in tolerations
    assert plugin.install(aks, timeout=60).gpus == 1


def test_a_second_gpu_stack_is_refused(clean: Cluster) -> None:
    other = copy.deepcopy(manifests.device_plugin()[0])
    other["metadata"] = {"name": "nvdp", "namespace": "default"}
    clean.kube.create(other)
    try:
        with pytest.raises(errors.SecondGpuStack, match="another device plugin is installed: DaemonSet default/nvdp"):
            plugin.install(clean, timeout=60)
        assert plugin.install(clean, timeout=60, force=True).gpus == 1
    finally:
        clean.kube.delete("DaemonSet", "nvdp", "default", propagation_policy="Foreground")


def test_nodes_that_serve_by_themselves_need_no_plugin(clean: Cluster) -> None:
    node = capacity.gpus(clean)["node"][0]
    capacity.advertise(clean, node, gpus=1)
    try:
        assert plugin.verify(clean)[["plugin", "ok"]].iloc[0].tolist() == ["service", True]
        with pytest.raises(errors.SecondGpuStack, match="advertise GPUs already, without a DaemonSet") as raised:
            plugin.install(clean, timeout=60)
        assert "managed GPU pool" in raised.value.hint
    finally:
        capacity.advertise(clean, node, gpus=0)


def test_a_plugin_that_does_not_come_up_says_why(clean: Cluster) -> None:
    broken = manifests.device_plugin()
    container = broken[0]["spec"]["template"]["spec"]["containers"][0]
    container["image"] = "registry.invalid/k8s-device-plugin:v0"
    with pytest.raises(errors.PluginFailed, match=r"does not run: ImagePullBackOff: .*registry\.invalid"):
        plugin.install(clean, manifest=broken, timeout=30)
    container["image"] = "docker.io/library/busybox:1"
    container["command"] = ["sh", "-c", "echo could not load NVML library; exit 1"]
    with pytest.raises(errors.NoGpuDriver, match=r"CrashLoopBackOff(.|\n)*could not load NVML library"):
        plugin.install(clean, manifest=broken, timeout=30)
    container["command"] = ["sh", "-c", "echo Incompatible platform; sleep 600"]
    with pytest.raises(errors.GpuNotAdvertised, match=r"0 GPUs on 0 nodes(.|\n)*Incompatible platform"):
        plugin.install(clean, manifest=broken, timeout=4)
    assert "advertises no GPU" in plugin.verify(clean).iloc[0]["problem"]


def test_a_plugin_that_comes_onto_no_node_says_which_taint(clean: Cluster) -> None:
    plugin.install(clean, timeout=60)
    node = capacity.gpus(clean)["node"][0]
    elsewhere = manifests.device_plugin()
    elsewhere[0]["spec"]["template"]["spec"]["nodeSelector"] = {"nowhere": "true"}
    with pytest.raises(errors.PluginNotScheduled, match="nodeSelector") as raised:
        plugin.install(clean, manifest=elsewhere, timeout=5)
    assert raised.value.nodes == (node,)
    daemon = clean.kube.get("DaemonSet", plugin.NAME, plugin.NAMESPACE)
    clean.kube.patch("Node", node, {"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}})
    try:
        late = plugin._too_late(clean, daemon, "device plugin: not done")
        assert isinstance(late, errors.PluginNotScheduled)
        assert late.taints == ("gpu=yes:NoSchedule",)
        assert "does not tolerate gpu=yes:NoSchedule" in late.message
    finally:
        clean.kube.patch("Node", node, {"spec": {"taints": None}})


def test_without_gpu_nodes_there_is_nothing_to_install_for(azure: Any) -> None:
    small = cluster.create(azure, "small", resource_group="small", location="eastus")
    try:
        with pytest.raises(errors.GpuStackError, match="no NVIDIA GPU node") as raised:
            plugin.install(small)
        assert "add_gpu_pool" in raised.value.hint
        assert plugin.verify(small).empty
        assert capacity.gpus(small).empty
        with pytest.raises(errors.WaitTimeout, match="no GPU node"):
            capacity.wait_schedulable(small, timeout=0)
    finally:
        cluster.delete(small)


def test_a_manifest_without_a_daemonset_is_refused(aks: Cluster) -> None:
    with pytest.raises(errors.InvalidInput, match="exactly one DaemonSet"):
        plugin.install(aks, manifest={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}})


def test_a_namespace_that_others_use_stays(clean: Cluster) -> None:
    plugin.install(clean, timeout=60)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "dcgm", "namespace": "gpu-resources"}}
    clean.kube.create({**service, "spec": {"ports": [{"port": 9400}]}})
    plugin.remove(clean)
    assert clean.kube.get("Namespace", "gpu-resources")
    clean.kube.delete("Service", "dcgm", "gpu-resources")
