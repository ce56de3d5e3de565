from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scripted import Request, Server
from support.polling import wait_for

from aksgpu import capacity, cluster, errors, manifests, plugin
from aksgpu.cluster import Cluster
from aksgpu.kube import Kube
from aksgpu.waiting import Timer

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]


@pytest.fixture(scope="module")
def bare(azure: Any) -> Iterator[Cluster]:
    """A cluster as in 2020: one GPU pool without taints, and no plugin."""
    made = cluster.create(
        azure, "bare", resource_group="bare", location="eastus", vm_size="Standard_NC4as_T4_v3", node_count=1
    )
    yield made
    cluster.delete(made)


@pytest.fixture
def clean(bare: Cluster) -> Iterator[Cluster]:
    yield bare
    plugin.remove(bare)


def test_gpus_appear_and_disappear_with_the_plugin(clean: Cluster) -> None:
    before = plugin.status(clean).iloc[0]
    assert (before["ok"], before["allocatable"]) == (False, 0)
    assert "plugin.install(aks)" in before["problem"]
    installed = plugin.install(clean, timeout=60)
    assert (installed.nodes, installed.gpus) == (1, 1)
    assert installed.image == "nvcr.io/nvidia/k8s-device-plugin:v0.18.0"
    assert capacity.gpus(clean)["allocatable"].tolist() == [1]
    after = plugin.status(clean).iloc[0]
    assert (after["ok"], after["plugin"], after["state"]) == (
        True,
        "gpu-resources/nvidia-device-plugin-daemonset",
        "Running",
    )
    assert plugin.install(clean, timeout=60) == installed  # may be repeated
    plugin.remove(clean)
    plugin.remove(clean)
    assert plugin.status(clean)["allocatable"].tolist() == [0]
    with pytest.raises(errors.NotFound):
        clean.kube.get("Namespace", "gpu-resources")


def test_the_current_plugin_replaces_the_plugin_of_2020(clean: Cluster) -> None:
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
        wait_for(lambda: clean.kube.find("DaemonSet", "nvdp", "default") is None)


def kubelet_advertises(aks: Cluster, node: str, gpus: str | None) -> None:
    """Write GPUs into a node's status as the kubelet does, such as for the service of a managed GPU pool."""
    resources = {"nvidia.com/gpu": gpus}
    aks.kube.request(
        "PATCH",
        f"/api/v1/nodes/{node}/status",
        params={"fieldManager": "kubelet"},
        body={"status": {"capacity": resources, "allocatable": resources}},
        content_type="application/merge-patch+json",
    )


def test_install_is_refused_if_nodes_already_advertise_gpus(clean: Cluster) -> None:
    node = capacity.gpus(clean)["node"][0]
    kubelet_advertises(clean, node, "1")
    try:
        assert plugin.status(clean)[["plugin", "ok"]].iloc[0].tolist() == ["service", True]
        with pytest.raises(errors.SecondGpuStack, match="advertise GPUs already, without a DaemonSet") as raised:
            plugin.install(clean, timeout=60)
        assert "managed GPU pool" in raised.value.hint
    finally:
        kubelet_advertises(clean, node, None)


def test_advertised_gpus_are_not_a_device_plugin(clean: Cluster) -> None:
    node = capacity.gpus(clean)["node"][0]
    capacity.advertise(clean, node, gpus=4)
    row = plugin.status(clean).iloc[0]
    assert row["ok"] is np.False_
    assert row["plugin"] is pd.NA
    assert row["allocatable"] == 4
    assert "written into the node's status by aksgpu, which is not a device plugin" in row["problem"]
    assert plugin.install(clean, timeout=60).gpus == 1, "what the plugin counts"
    assert plugin.status(clean)["ok"].tolist() == [True]


def idle_plugin() -> list[dict[str, Any]]:
    """Return a device plugin's manifest whose pod runs and finds no GPU."""
    idle = manifests.device_plugin()
    container = idle[0]["spec"]["template"]["spec"]["containers"][0]
    container["image"] = "docker.io/library/busybox:1"
    container["command"] = ["sleep", "600"]
    return idle


def test_advertised_gpus_are_restored_if_the_plugin_finds_no_gpu(clean: Cluster) -> None:
    node = capacity.gpus(clean)["node"][0]
    capacity.advertise(clean, node, gpus=4)
    try:
        with pytest.raises(errors.GpuNotAdvertised, match=r"not a device plugin\. They have been restored") as raised:
            plugin.install(clean, manifest=idle_plugin(), timeout=8)
        assert "plugin.remove(aks)" in raised.value.hint
        assert capacity.gpus(clean)["allocatable"].tolist() == [4]
    finally:
        capacity.advertise(clean, node, gpus=0)


def test_a_pod_that_does_not_run_is_not_ok_although_the_node_advertises_gpus(clean: Cluster) -> None:
    node = capacity.gpus(clean)["node"][0]
    broken = manifests.device_plugin()
    broken[0]["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.invalid/k8s-device-plugin:v0"
    with pytest.raises(errors.PluginFailed):
        plugin.install(clean, manifest=broken, timeout=60)
    kubelet_advertises(clean, node, "1")
    try:
        row = plugin.status(clean).iloc[0]
        assert row["ok"] is np.False_
        assert row["state"] in ("ErrImagePull", "ImagePullBackOff")
        assert "registry.invalid" in row["problem"]
        assert "the GPUs that the node advertises (1) are not served by it" in row["problem"]
    finally:
        kubelet_advertises(clean, node, None)


def waiting_install(aks: Cluster, pool: ThreadPoolExecutor) -> Future[plugin.Plugin]:
    """Run an install in another thread, until its DaemonSet exists. It waits for GPUs that do not appear."""
    running = pool.submit(plugin.install, aks, manifest=idle_plugin(), timeout=60)
    seen = (obj for _, obj in aks.kube.watch("Pod", plugin.NAMESPACE, timeout=60))
    assert any((pod.get("status") or {}).get("phase") == "Running" for pod in seen), "the plugin's pod runs"
    return running


def test_a_daemonset_that_is_deleted_during_install_is_reported(clean: Cluster) -> None:
    with ThreadPoolExecutor() as pool:
        running = waiting_install(clean, pool)
        clean.kube.delete("DaemonSet", plugin.NAME, plugin.NAMESPACE)
        with pytest.raises(errors.PluginFailed, match=r"DaemonSet gpu-resources/nvidia\S+ was deleted by") as raised:
            running.result(60)
    assert "plugin.install(aks) installs it again" in raised.value.hint
    wait_for(lambda: not clean.kube.list("Pod", plugin.NAMESPACE))  # the next test watches its own pod


def test_a_namespace_that_is_deleted_during_install_is_reported(clean: Cluster) -> None:
    with ThreadPoolExecutor() as pool:
        running = waiting_install(clean, pool)
        clean.kube.delete("Namespace", plugin.NAMESPACE)
        with pytest.raises(errors.PluginFailed, match=r"namespace gpu-resources, and the DaemonSet .* was deleted by"):
            running.result(60)


def test_two_kernels_install_and_remove_at_once(clean: Cluster) -> None:
    with ThreadPoolExecutor(6) as pool:
        installs = [pool.submit(plugin.install, clean, timeout=60) for _ in range(6)]
        assert {(made.result(90).nodes, made.result().gpus) for made in installs} == {(1, 1)}
        for removed in [pool.submit(plugin.remove, clean, timeout=60) for _ in range(6)]:
            removed.result(90)
    assert clean.kube.find("Namespace", plugin.NAMESPACE) is None


def test_an_install_waits_for_the_namespace_that_a_removal_deletes(clean: Cluster) -> None:
    plugin.install(clean, timeout=60)
    clean.kube.patch("Namespace", plugin.NAMESPACE, {"metadata": {"finalizers": ["example.com/held"]}})
    clean.kube.delete("Namespace", plugin.NAMESPACE)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(plugin.install, clean, timeout=60)
        clean.kube.patch("Namespace", plugin.NAMESPACE, {"metadata": {"finalizers": None}})
        assert running.result(90).gpus == 1


def test_a_namespace_with_a_claim_or_a_secret_is_kept(clean: Cluster) -> None:
    plugin.install(clean, timeout=60)
    metadata = {"name": "mine", "namespace": plugin.NAMESPACE}
    clean.kube.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    plugin.remove(clean)
    assert clean.kube.get("Secret", "mine", plugin.NAMESPACE)
    clean.kube.delete("Secret", "mine", plugin.NAMESPACE)


class Stub:
    """A minimal cluster: a name and an API."""

    def __init__(self, kube: Kube) -> None:
        self.name = "stub"
        self.kube = kube


GPU_NODE = {
    "metadata": {"name": "n", "labels": {"accelerator": "nvidia"}},
    "status": {
        "capacity": {"nvidia.com/gpu": "1"},
        "allocatable": {"nvidia.com/gpu": "1"},
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}
OWN = {**manifests.device_plugin()[0]}
OWN["metadata"] = {"name": plugin.NAME, "namespace": plugin.NAMESPACE, "uid": "u"}


@pytest.mark.parametrize("hidden", ["nodes", "daemonsets", "pods"])
@pytest.mark.parametrize("call", [plugin.status, plugin.install])
def test_without_permission_a_plugin_is_neither_ok_nor_missing(tmp_path: Path, hidden: str, call: Any) -> None:
    def answer(request: Request) -> None:
        kind = request.route.rsplit("/", 1)[-1]
        if kind == hidden:
            request.refuse(403, "Forbidden", f"{kind} is forbidden: User cannot list resource")
        elif kind in ("nodes", "daemonsets", "pods"):
            items = {"nodes": [GPU_NODE], "daemonsets": [OWN], "pods": []}[kind]
            request.json({"items": items, "metadata": {}})
        elif request.command == "PATCH" or kind == plugin.NAME:
            request.json(OWN)
        else:
            request.refuse(404, "NotFound", "not found")

    with Server(answer) as server, pytest.raises(errors.Forbidden):
        call(Stub(Kube.from_kubeconfig(server.kubeconfig(tmp_path))))


def daemon_pod(state: dict[str, Any], *, ready: bool) -> dict[str, Any]:
    """Return the pod of OWN on GPU_NODE."""
    status = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "containerStatuses": [{"name": "c", "state": state}],
    }
    metadata = {"name": "p", "namespace": plugin.NAMESPACE}
    return {"metadata": metadata, "spec": {"nodeName": "n"}, "status": status}


def test_a_pod_that_the_controller_has_yet_to_replace_does_not_fail_the_install(tmp_path: Path) -> None:
    crashed = daemon_pod({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}, ready=False)
    repaired = daemon_pod({"running": {}}, ready=True)
    reads = 0

    def answer(request: Request) -> None:
        nonlocal reads
        kind = request.route.rsplit("/", 1)[-1]
        reads += kind == plugin.NAME
        is_observed = reads > 2
        status = {"observedGeneration": 1 + is_observed, "desiredNumberScheduled": 1, "updatedNumberScheduled": 1}
        metadata = {**OWN["metadata"], "generation": 2, "resourceVersion": "1"}
        if kind == plugin.NAME:
            request.json({**OWN, "metadata": metadata, "status": status})
        elif kind == "log":
            request.text("could not load NVML library")
        else:
            items = {"nodes": [GPU_NODE], "pods": [repaired if is_observed else crashed]}[kind]
            request.json({"items": items, "metadata": {}})

    with Server(answer) as server:
        stub = Stub(Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
        assert plugin._wait(stub, OWN, "u", Timer(60), False).gpus == 1
        assert reads == 3


CALLS: dict[str, Any] = {
    "status": plugin.status,
    "install": plugin.install,
    "remove": plugin.remove,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("wrong", ["subscription", "kube", None, "myAKSCluster"])
def test_the_first_argument_is_a_cluster(azure: Any, aks: Cluster, call: str, wrong: str | None) -> None:
    given = {"subscription": azure, "kube": aks.kube}.get(wrong or "", wrong)
    with pytest.raises(errors.InvalidInput, match=r"^`aks` must be a cluster, got"):
        CALLS[call](given)


@pytest.mark.parametrize("wrong", ["5", float("nan"), -1, True, b"5"])
@pytest.mark.parametrize("call", [plugin.install, plugin.remove])
def test_an_invalid_timeout_is_refused(aks: Cluster, call: Any, wrong: Any) -> None:
    with pytest.raises(errors.InvalidInput, match=r"^`timeout` must be a number of seconds"):
        call(aks, timeout=wrong)
    assert plugin.status(aks)["ok"].all(), "nothing was deleted"


def test_a_plugin_that_does_not_start_is_explained(clean: Cluster) -> None:
    broken = manifests.device_plugin()
    container = broken[0]["spec"]["template"]["spec"]["containers"][0]
    container["image"] = "registry.invalid/k8s-device-plugin:v0"
    with pytest.raises(errors.PluginFailed, match=r"does not run: ImagePullBackOff: .*registry\.invalid"):
        plugin.install(clean, manifest=broken, timeout=60)
    container["image"] = "docker.io/library/busybox:1"
    container["command"] = ["sh", "-c", "echo could not load NVML library; exit 1"]
    with pytest.raises(errors.NoGpuDriver, match=r"CrashLoopBackOff(.|\n)*could not load NVML library"):
        plugin.install(clean, manifest=broken, timeout=60)
    container["command"] = ["sh", "-c", "echo Incompatible platform; sleep 600"]
    with pytest.raises(errors.GpuNotAdvertised, match=r"0 GPUs on 0 nodes(.|\n)*Incompatible platform"):
        plugin.install(clean, manifest=broken, timeout=10)
    assert "advertises no GPU" in plugin.status(clean).iloc[0]["problem"]


def test_the_taint_that_keeps_the_plugin_off_all_nodes_is_named(clean: Cluster) -> None:
    plugin.install(clean, timeout=60)
    node = capacity.gpus(clean)["node"][0]
    elsewhere = manifests.device_plugin()
    elsewhere[0]["spec"]["template"]["spec"]["nodeSelector"] = {"nowhere": "true"}
    with pytest.raises(errors.PluginNotScheduled, match="nodeSelector") as raised:
        plugin.install(clean, manifest=elsewhere, timeout=15)
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


def test_install_without_gpu_nodes_is_refused(azure: Any) -> None:
    small = cluster.create(azure, "small", resource_group="small", location="eastus")
    try:
        with pytest.raises(errors.GpuStackError, match="no NVIDIA GPU node") as raised:
            plugin.install(small)
        assert "add_gpu_pool" in raised.value.hint
        assert plugin.status(small).empty
        assert capacity.gpus(small).empty
        with pytest.raises(errors.WaitTimeout, match="no GPU node"):
            capacity.wait_schedulable(small, timeout=0)
    finally:
        cluster.delete(small)


def test_a_manifest_without_a_daemonset_is_refused(aks: Cluster) -> None:
    with pytest.raises(errors.InvalidInput, match="exactly one DaemonSet"):
        plugin.install(aks, manifest={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}})


DAEMON = manifests.device_plugin()[0]


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"kind": "DaemonSet"}, "apiVersion in each DaemonSet"),
        ({**DAEMON, "metadata": None}, "metadata.name in each DaemonSet"),
        ({**DAEMON, "spec": {"template": DAEMON["spec"]["template"]}}, "spec.selector.matchLabels"),
        ({**DAEMON, "spec": {**DAEMON["spec"], "template": {}}}, "spec.template.spec.containers"),
        ({**DAEMON, "spec": {**DAEMON["spec"], "template": {"spec": {"containers": [{}]}}}}, "an image for each"),
        ([DAEMON, {"apiVersion": "v1", "kind": "ConfigMap"}], "metadata.name in each ConfigMap"),
    ],
)
def test_an_incomplete_manifest_is_refused_before_a_request(aks: Cluster, manifest: Any, words: str) -> None:
    with pytest.raises(errors.InvalidInput, match=re.escape(f"`manifest` must have {words}")):
        plugin.install(aks, manifest=manifest)


def test_a_namespace_that_others_use_is_kept(clean: Cluster) -> None:
    plugin.install(clean, timeout=60)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "dcgm", "namespace": "gpu-resources"}}
    clean.kube.create({**service, "spec": {"ports": [{"port": 9400}]}})
    plugin.remove(clean)
    assert clean.kube.get("Namespace", "gpu-resources")
    clean.kube.delete("Service", "dcgm", "gpu-resources")
