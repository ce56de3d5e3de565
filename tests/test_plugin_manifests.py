"""NVIDIA's own manifests of the device plugin, installed on a cluster that also has nodes without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripted import Request, Server
from support.polling import wait_for

from aksgpu import capacity, cluster, errors, jobs, manifests, plugin
from aksgpu.cluster import Cluster
from aksgpu.kube import Kube

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

CASES = Path(__file__).parent / "data" / "manifests"
PATIENCE = 120
"""Seconds."""


def case(name: str) -> Path:
    return CASES / f"{name}.yaml"


@pytest.fixture(scope="module")
def mixed(azure: Any) -> Iterator[Cluster]:
    """A system pool without GPUs and without a taint, and a GPU pool with the tutorial's taint; no plugin."""
    made = cluster.create(azure, "mixed", resource_group="mixed", location="eastus")
    cluster.add_gpu_pool(made, "gpunp", vm_size="Standard_NC4as_T4_v3", count=1)
    yield made
    cluster.delete(made)


@pytest.fixture
def bare(mixed: Cluster) -> Iterator[Cluster]:
    yield mixed
    plugin.remove(mixed, timeout=PATIENCE)


def plugin_pods(aks: Cluster) -> dict[str, Any]:
    """The pods of the plugin by the mode of their node's pool."""
    modes = capacity.nodes(aks).set_index("node")["mode"]
    pods = aks.kube.list("Pod", plugin.NAMESPACE, label_selector="name=nvidia-device-plugin-ds")
    return {modes[pod["spec"]["nodeName"]]: pod for pod in pods if pod["spec"].get("nodeName")}


def test_nvidias_manifest_serves_although_it_fails_on_a_node_without_a_gpu(bare: Cluster) -> None:
    installed = plugin.install(bare, manifest=case("nvidia-plugin-cpumanager"), timeout=PATIENCE, progress=False)
    assert (installed.namespace, installed.nodes, installed.gpus) == ("gpu-resources", 1, 1)
    assert capacity.gpus(bare)["allocatable"].tolist() == [1]

    def crashed() -> bool:
        pod = plugin_pods(bare).get("system") or {}
        states = (pod.get("status") or {}).get("containerStatuses") or [{}]
        return bool(states[0].get("restartCount") or states[0].get("lastState"))

    wait_for(crashed, timeout=PATIENCE)
    again = plugin.install(bare, manifest=case("nvidia-plugin-cpumanager"), timeout=PATIENCE, progress=False)
    assert again == installed
    status = plugin.status(bare)
    assert status["ok"].tolist() == [True]


def test_bindings_follow_their_service_account_into_the_namespace(bare: Cluster) -> None:
    installed = plugin.install(bare, manifest=case("nvidia-plugin-service-account"), timeout=PATIENCE, progress=False)
    try:
        assert installed.gpus == 1
        binding = bare.kube.get("ClusterRoleBinding", "nvidia-device-plugin-role-binding")
        (subject,) = binding["subjects"]
        assert subject["namespace"] == "gpu-resources"
        assert bare.kube.get("ServiceAccount", subject["name"], "gpu-resources")
        assert "namespace" not in bare.kube.get("ClusterRole", "nvidia-device-plugin-role")["metadata"]
    finally:
        for kind in ("ClusterRoleBinding", "ClusterRole"):
            for each in bare.kube.list(kind):
                if each["metadata"]["name"].startswith("nvidia-device-plugin-role"):
                    bare.kube.delete(kind, each["metadata"]["name"])


def test_bindings_to_other_accounts_stay_as_they_are() -> None:
    objects = list(yaml.safe_load_all(case("nvidia-plugin-service-account").read_text()))
    objects[2]["subjects"].append({"kind": "ServiceAccount", "name": "prometheus", "namespace": "monitoring"})
    objects[2]["subjects"].append({"kind": "Group", "name": "operators"})
    prepared = plugin._prepared(objects, "team")
    assert [obj["kind"] for obj in prepared] == [
        "Namespace",
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "DaemonSet",
    ]
    assert [subject.get("namespace") for subject in prepared[3]["subjects"]] == ["team", "monitoring", None]
    assert [obj["metadata"].get("namespace") for obj in prepared] == [None, "team", None, None, "team"]
    assert objects[2]["subjects"][0]["namespace"] == "kube-system", "the given objects are not changed"


def test_time_slicing_shares_a_gpu(bare: Cluster) -> None:
    installed = plugin.install(bare, manifest=case("time-slicing"), timeout=PATIENCE, progress=False)
    assert installed.gpus == 4
    assert capacity.gpus(bare)["allocatable"].tolist() == [4]
    made = [
        jobs.submit(bare, image="docker.io/nvidia/cuda:12.9.1-base", command=["nvidia-smi", "-L"], name=f"share-{n}")
        for n in range(2)
    ]
    try:
        listed = {job.wait(PATIENCE, progress=False).logs() for job in made}
        assert len(listed) == 1, "both see the same GPU"
        assert "Tesla T4" in listed.pop()
    finally:
        for job in made:
            job.delete()


def test_a_manifest_with_other_programs_of_the_image_has_one_plugin(aks: Cluster) -> None:
    (daemon,) = manifests.device_plugin()
    features = yaml.safe_load(yaml.safe_dump(daemon))
    features["metadata"]["name"] = "gpu-feature-discovery"
    features["spec"]["template"]["spec"]["containers"][0]["command"] = ["gpu-feature-discovery"]
    assert plugin._plugin_of([features, daemon]) is daemon
    amd = yaml.safe_load(yaml.safe_dump(daemon))
    amd["spec"]["template"]["spec"]["containers"][0]["image"] = "docker.io/rocm/k8s-device-plugin:1.31"
    assert plugin._plugin_of([amd, daemon]) is daemon
    second = {**daemon, "metadata": {"name": "second"}}
    with pytest.raises(errors.InvalidInput, match=r"exactly one DaemonSet that runs a device plugin, got .*, second"):
        plugin.install(aks, manifest=[daemon, second])


NODE = {
    "metadata": {"name": "n", "labels": {"accelerator": "nvidia"}},
    "spec": {},
    "status": {"capacity": {}, "allocatable": {}, "conditions": [{"type": "Ready", "status": "True"}]},
}
DENIED = (
    "ValidatingAdmissionPolicy 'aks-managed-protect-system-namespaces' denied request: Modification of resources in "
    "managed system namespaces is not allowed"
)


class Stub:
    """A cluster by its name and its API."""

    def __init__(self, kube: Kube) -> None:
        self.name = "stub"
        self.kube = kube


def test_refusals_of_aks_automatic_say_what_to_use_instead(tmp_path: Path) -> None:
    def answer(request: Request) -> None:
        if request.command == "PATCH" and request.route.endswith("/daemonsets/nvidia-device-plugin-daemonset"):
            request.refuse(403, "Forbidden", f"daemonsets.apps is forbidden: {DENIED}")
        elif request.command == "PATCH":
            request.json({"metadata": {"name": "x", "uid": "1"}})
        elif request.route.endswith("/nodes"):
            request.json({"items": [NODE], "metadata": {}})
        elif request.route.endswith(("/daemonsets", "/pods", "/events")):
            request.json({"items": [], "metadata": {}})
        elif request.route.endswith("/namespaces/gpu-resources"):
            request.json({"metadata": {"name": "gpu-resources", "uid": "1"}})
        else:
            request.refuse(404, "NotFound", "not found")

    with Server(answer) as server:
        stub = Stub(Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
        with pytest.raises(errors.GpuStackError, match=r"policies refuse DaemonSet .*aks-managed-protect") as raised:
            plugin.install(stub, timeout=60, progress=False)
    assert 'management_mode="Managed"' in raised.value.hint
    assert "az aks nodepool add" in raised.value.hint


def test_pods_that_are_refused_are_not_called_unscheduled(tmp_path: Path) -> None:
    message = 'Error creating: admission webhook "validation.gatekeeper.sh" denied the request: hostPath is not allowed'
    event = {"metadata": {"name": "e"}, "reason": "FailedCreate", "message": message, "involvedObject": {}}

    def answer(request: Request) -> None:
        items = {"nodes": [NODE], "events": [event]}.get(request.route.rpartition("/")[2], [])
        request.json({"items": items, "metadata": {}})

    (daemon,) = manifests.device_plugin()
    with Server(answer) as server:
        stub = Stub(Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
        late = plugin._too_late(stub, daemon, "device plugin: not done")
    assert isinstance(late, errors.PluginNotScheduled)
    assert "Its pods are refused: Error creating" in late.message
    assert 'management_mode="Managed"' in late.hint
