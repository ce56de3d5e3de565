"""GPUs as AKS has them now: their health, AMD, MIG and DRA, node auto-provisioning, sums, displays and the figure."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scripted import Request, Server
from support.polling import wait_for

from aksgpu import capacity, errors, jobs, plots, plugin
from aksgpu.capacity import smoke
from aksgpu.cluster import Cluster
from aksgpu.kube import Kube, node_facts
from aksgpu.kube.node_health import gpu_health

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

PATIENCE = 120
"""Seconds."""
PAGE = 120
"""Characters of a line of a page."""


class Stub:
    """A cluster by its name and its API."""

    def __init__(self, kube: Kube) -> None:
        self.name = "stub"
        self.kube = kube


def node(name: str, resources: dict[str, str] | None = None, *conditions: dict[str, str], **labels: str) -> Any:
    known = labels or {"agentpool": "gpunp", "accelerator": "nvidia"}
    status = {
        "capacity": resources or {},
        "allocatable": resources or {},
        "conditions": [{"type": "Ready", "status": "True"}, *conditions],
    }
    return {"metadata": {"name": name, "labels": known}, "spec": {}, "status": status}


def condition(kind: str, status: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "message": message, "reason": "NodeProblemDetector"}


def pod(name: str, on: str, resource: str, count: int = 1, namespace: str = "default") -> Any:
    containers = [{"name": "c", "resources": {"limits": {resource: str(count)}}}]
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": on, "containers": containers},
    }


class Answers:
    """What the API server answers; None for a list refuses it."""

    def __init__(self, nodes: list[Any], pods: list[Any] | None = None, **lists: list[Any] | None) -> None:
        self.lists: dict[str, list[Any] | None] = {"nodes": nodes, "pods": pods or [], **lists}

    def __call__(self, request: Request) -> None:
        name = request.route.rpartition("/")[2]
        if name not in self.lists:
            request.refuse(404, "NotFound", "the server could not find the requested resource")
        elif self.lists[name] is None:
            request.refuse(403, "Forbidden", f"{name} is forbidden")
        else:
            request.json({"items": self.lists[name], "metadata": {}})

    def table(self, tmp_path: Path, by: Any = None) -> Any:
        with Server(self) as server:
            return capacity.gpus(Stub(Kube.from_kubeconfig(server.kubeconfig(tmp_path))), by=by)


# Health


@pytest.mark.parametrize(
    ("conditions", "state", "text"),
    [
        ([], "", ""),
        ([condition("KernelDeadlock", "True", "no GPU here")], "", ""),
        ([condition("GPUMissing", "False"), condition("XIDErrors", "False")], "healthy", ""),
        (
            [condition("GPUMissing", "False"), condition("GPUXIDErrors", "True", "Xid 79 on 0001:00:00.0")],
            "unhealthy",
            "GPUXIDErrors: Xid 79 on 0001:00:00.0",
        ),
        (
            [condition("IBLinkFlapping", "Unknown"), condition("GPUMissing", "False")],
            "unknown",
            "no result yet: IBLink",
        ),
        (
            [condition("NVLinkStatusInactive", "True", "link 3 is down"), condition("XIDError", "Unknown")],
            "unhealthy",
            "NVLinkStatusInactive: link 3 is down; no result yet: XIDError",
        ),
        ([condition("UnhealthyNvidiaDevicePlugin", "True")], "unhealthy", "UnhealthyNvidiaDevicePlugin: Node"),
        ([condition("UnhealthyNvidiaDCGMServices", "False")], "healthy", ""),
        ([condition("GPUClockThrottling", "Odd")], "unknown", "GPUClockThrottling"),
        ([condition("GPUDriverReady", "True"), condition("GPUHealthy", "True")], "", ""),
        ([condition("GPUUnhealthy", "True", "1 of 2")], "unhealthy", "GPUUnhealthy: 1 of 2"),
    ],
)
def test_health_comes_from_the_conditions_about_gpus(conditions: list[Any], state: str, text: str) -> None:
    health = gpu_health(conditions)
    assert health.state == state
    assert text in health.text


def test_unknown_health_is_not_a_healthy_gpu(tmp_path: Path) -> None:
    two = {"nvidia.com/gpu": "2"}
    answers = Answers(
        [
            node("a", two, condition("GPUMissing", "False")),
            node("b", two, condition("GPUMissing", "Unknown")),
            node("c", two, condition("GPUMissing", "True", "1 of 2 GPUs is missing")),
            node("d", two),
        ]
    )
    table = answers.table(tmp_path)
    assert table["health"].tolist() == ["healthy", "unknown", "unhealthy", pd.NA]
    assert table["problem"].iloc[2] == "GPUMissing: 1 of 2 GPUs is missing"
    assert table["problem"].isna().tolist() == [True, False, False, True]
    assert "GPU unhealthy" in repr(table) and "GPU unknown" in repr(table)
    assert answers.table(tmp_path, "pool")["unhealthy"].tolist() == [1]


def test_a_condition_of_a_running_node_is_shown(aks: Cluster) -> None:
    (name,) = capacity.gpus(aks)["node"]
    found = {"type": "GPUMissing", "status": "True", "reason": "GPUMissing", "message": "expected 1 GPU, found 0"}

    def kinds() -> list[str]:
        return [each["type"] for each in aks.kube.get("Node", name)["status"]["conditions"]]

    def is_shown() -> bool:
        # The kubelet writes all conditions at once, and may do so at the same moment.
        if "GPUMissing" not in kinds():
            add = {"op": "add", "path": "/status/conditions/-", "value": found}
            aks.kube.patch("Node", name, [add], subresource="status")
        return capacity.gpus(aks)["problem"].tolist() == ["GPUMissing: expected 1 GPU, found 0"]

    def is_gone() -> bool:
        found_kinds = kinds()
        if "GPUMissing" in found_kinds:
            path = f"/status/conditions/{found_kinds.index('GPUMissing')}"
            test = {"op": "test", "path": f"{path}/type", "value": "GPUMissing"}
            with contextlib.suppress(errors.Invalid):  # the kubelet has just changed the order
                aks.kube.patch("Node", name, [test, {"op": "remove", "path": path}], subresource="status")
        return bool(capacity.gpus(aks)["health"].isna().all())

    wait_for(is_shown, timeout=PATIENCE)
    wait_for(is_gone, timeout=PATIENCE)


# Kinds of GPUs and nodes


def test_amd_gpus_have_their_resource_and_model(tmp_path: Path) -> None:
    size = {"node.kubernetes.io/instance-type": "Standard_ND96isr_MI300X_v5", "agentpool": "amd"}
    labels = {**size, "accelerator": "amd", "amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"}
    nodes = [node("a", {"amd.com/gpu": "8"}, **labels), node("b", **size, accelerator="amd")]
    table = Answers(nodes, [pod("p", "a", "amd.com/gpu", 3)]).table(tmp_path)
    assert table["resource"].tolist() == ["amd.com/gpu", "amd.com/gpu"]
    assert table["gpu_model"].tolist() == ["AMD Instinct MI300X OAM", "AMD Instinct MI300X"]
    assert table["free"].tolist() == [5, 0]


def test_resources_without_a_gpu_have_no_row_beside_others(tmp_path: Path) -> None:
    resources = {"nvidia.com/gpu": "0", "nvidia.com/mig-1g.10gb": "7", "nvidia.com/mig-3g.40gb": "2"}
    table = Answers([node("m", resources)]).table(tmp_path)
    assert table["resource"].tolist() == ["nvidia.com/mig-1g.10gb", "nvidia.com/mig-3g.40gb"]
    assert Answers([node("m", {"nvidia.com/gpu": "0"})]).table(tmp_path)["capacity"].tolist() == [0]


def test_a_node_of_auto_provisioning_has_its_node_pool(tmp_path: Path) -> None:
    labels = {
        "karpenter.sh/nodepool": "gpu-spot",
        "karpenter.azure.com/sku-gpu-manufacturer": "nvidia",
        "karpenter.azure.com/sku-gpu-name": "A100",
    }
    table = Answers([node("aks-gpu-spot-9bhv2", **labels)]).table(tmp_path)
    assert table[["pool", "nap", "gpu_model", "capacity"]].iloc[0].tolist() == ["gpu-spot", True, "A100", 0]


def device(name: str, model: str = "NVIDIA A100 80GB PCIe", **more: Any) -> dict[str, Any]:
    return {"name": name, "attributes": {"productName": {"string": model}}, **more}


def device_slice(on: str, *devices: dict[str, Any], generation: int = 1, driver: str = "gpu.nvidia.com") -> Any:
    pool = {"name": on, "generation": generation, "resourceSliceCount": 1}
    spec = {"driver": driver, "nodeName": on, "pool": pool, "devices": list(devices)}
    return {"metadata": {"name": f"{on}-{generation}-{driver}"}, "spec": spec}


def claim(name: str, on: str, *devices: str, pod: str = "") -> Any:
    results = [{"driver": "gpu.nvidia.com", "pool": on, "device": each, "request": "gpu"} for each in devices]
    reserved = [{"resource": "pods", "name": pod, "uid": "1"}] if pod else []
    status = {"allocation": {"devices": {"results": results}}, "reservedFor": reserved}
    return {"metadata": {"name": name, "namespace": "team"}, "status": status}


def dra(claims: list[Any] | None) -> Answers:
    tainted = device("gpu-2", taints=[{"key": "xid", "effect": "NoSchedule"}])
    slices = [
        device_slice("n", device("gpu-0"), device("gpu-1"), tainted, generation=2),
        device_slice("n", device("old"), generation=1),
        device_slice("n", device("net"), driver="dra.net"),
    ]
    return Answers([node("n", None)], resourceslices=slices, resourceclaims=claims)


def test_gpus_of_dynamic_resource_allocation_are_counted(tmp_path: Path) -> None:
    claims = [claim("c", "n", "gpu-0", pod="train-0"), claim("other", "elsewhere", "gpu-0", pod="x")]
    (row,) = dra(claims).table(tmp_path).to_dict("records")
    assert (row["resource"], row["gpu_model"]) == ("gpu.nvidia.com", "NVIDIA A100 80GB PCIe")
    assert (row["capacity"], row["allocatable"], row["used"], row["free"]) == (3, 2, 1, 1)
    assert row["used_by"] == "team/train-0"
    by_namespace = dra(claims).table(tmp_path, "namespace")
    assert by_namespace.to_dict("records") == [
        {"namespace": "team", "resource": "gpu.nvidia.com", "used": 1, "used_by": "team/train-0"}
    ]


def test_claims_that_may_not_be_listed_leave_the_use_unknown(tmp_path: Path) -> None:
    table = dra(None).table(tmp_path)
    assert table["capacity"].tolist() == [3]
    assert table[["used", "free", "used_by"]].isna().all(axis=None)


def test_a_node_of_dynamic_resource_allocation_needs_no_plugin(tmp_path: Path) -> None:
    answers = dra([claim("c", "n", "gpu-0", pod="train-0")])
    answers.lists["daemonsets"] = []
    with Server(answers) as server:
        stub = Stub(Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
        (row,) = plugin.status(stub).to_dict("records")
        assert (row["plugin"], row["allocatable"], row["ok"]) == ("gpu.nvidia.com", 2, True)
        with pytest.raises(errors.SecondGpuStack, match="dynamic resource allocation") as second:
            plugin.install(stub, timeout=PATIENCE, progress=False)
        assert second.value.nodes == ("n",)
        with pytest.raises(errors.WaitTimeout, match=r"allocated by gpu\.nvidia\.com through resource claims") as late:
            capacity.wait_schedulable(stub, timeout=0, progress=False)
        assert "resourceClaims" in late.value.hint


# Sums


def cluster_of_two_pools() -> Answers:
    size = "node.kubernetes.io/instance-type"
    t4 = {"agentpool": "t4", "accelerator": "nvidia", size: "Standard_NC64as_T4_v3"}
    a100 = {"agentpool": "a100", "accelerator": "nvidia", size: "Standard_NC48ads_A100_v4"}
    nodes = [
        node("t4-0", {"nvidia.com/gpu": "4"}, **t4),
        node("t4-1", {"nvidia.com/gpu": "4"}, **t4),
        node("a100-0", {"nvidia.com/gpu": "2"}, **a100),
    ]
    pods = [
        pod("p", "t4-0", "nvidia.com/gpu", 4),
        pod("q", "t4-1", "nvidia.com/gpu", 1, "team"),
        pod("r", "a100-0", "nvidia.com/gpu", 1, "team"),
    ]
    return Answers(nodes, pods)


def test_sums_by_pool_model_and_namespace(tmp_path: Path) -> None:
    answers = cluster_of_two_pools()
    by_pool = answers.table(tmp_path, "pool")
    assert by_pool[["pool", "nodes", "capacity", "used", "free"]].values.tolist() == [
        ["a100", 1, 2, 1, 1],
        ["t4", 2, 8, 5, 3],
    ]
    assert by_pool["used_by"].tolist() == ["team/r", "default/p (4), team/q"]
    by_model = answers.table(tmp_path, "model")
    assert by_model["gpu_model"].tolist() == ["NVIDIA A100 80GB PCIe", "Tesla T4"]
    by_namespace = answers.table(tmp_path, "namespace")
    assert by_namespace[["namespace", "used", "used_by"]].values.tolist() == [
        ["default", 4, "default/p (4)"],
        ["team", 2, "team/q, team/r"],
    ]
    totals = answers.table(tmp_path).totals()
    assert totals.to_dict("records") == [
        {"resource": "nvidia.com/gpu", "nodes": 3, "capacity": 10, "allocatable": 10, "used": 6, "free": 4}
    ]
    assert by_pool.totals()["free"].tolist() == [4]


def test_what_may_not_be_seen_is_unknown_in_the_sums(tmp_path: Path) -> None:
    answers = cluster_of_two_pools()
    answers.lists["pods"] = None
    assert answers.table(tmp_path, "pool")[["used", "free", "used_by"]].isna().all(axis=None)
    assert answers.table(tmp_path).totals()[["used", "free"]].isna().all(axis=None)
    with pytest.raises(errors.Forbidden):
        answers.table(tmp_path, "namespace")


def test_an_unknown_view_is_refused(aks: Cluster) -> None:
    with pytest.raises(errors.InvalidInput, match='`by` must be "pool", "model", "namespace" or None, got \'node\''):
        capacity.gpus(aks, by="node")  # type: ignore[arg-type]


def test_a_cluster_without_gpus_has_empty_views(tmp_path: Path) -> None:
    for by in (None, "pool", "model", "namespace"):
        table = Answers([]).table(tmp_path, by)
        assert table.empty
        assert repr(table)


# Displays


def test_the_table_fits_a_page_and_names_the_users(tmp_path: Path) -> None:
    answers = cluster_of_two_pools()
    names = [f"experiment-{number:03}" for number in range(30)]
    answers.lists["pods"] = [pod(name, "t4-1", "nvidia.com/gpu", 1, "team") for name in names]
    nodes = answers.lists["nodes"]
    assert nodes is not None
    for each in nodes:
        each["metadata"]["name"] = f"aks-{each['metadata']['name']}-57157029-vmss000000"
        each["spec"]["taints"] = [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
    for each in answers.lists["pods"] or ():
        each["spec"]["nodeName"] = "aks-t4-1-57157029-vmss000000"
    table = answers.table(tmp_path)
    lines = repr(table).splitlines()
    assert max(map(len, lines)) <= PAGE
    assert "team/experiment-000 + 29" in repr(table)
    assert "total nvidia.com/gpu" in lines[-1]
    assert "total nvidia.com/gpu" in table._repr_html_()
    chosen = table[["node", "used_by"]]
    assert "experiment-029" in chosen["used_by"].iloc[2]
    assert "total" not in repr(chosen)


def test_simulated_gpus_are_called_so(aks: Cluster) -> None:
    assert "1 x Tesla T4 (simulated)" in repr(capacity.gpus(aks))


def test_the_figure_shows_used_free_and_unavailable_gpus(tmp_path: Path) -> None:
    answers = cluster_of_two_pools()
    nodes = answers.lists["nodes"]
    assert nodes is not None
    nodes[1]["spec"]["unschedulable"] = True
    figure = plots.gpus(answers.table(tmp_path), title="GPUs")
    (ax,) = figure.axes
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["used (6)", "free (1)", "not available (3)"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a100", "t4"]
    assert [bar.get_width() for bar in ax.containers[0]] == [1, 5]
    assert plots.gpus(answers.table(tmp_path), by="gpu_model").axes[0].get_xlabel() == "GPUs"
    grouped = plots.gpus(answers.table(tmp_path, "namespace")).axes[0]
    assert [label.get_text() for label in grouped.get_yticklabels()] == ["default", "team"]
    with pytest.raises(errors.InvalidInput, match="`table` must be"):
        plots.gpus(pd.DataFrame({"a": [1]}))
    with pytest.raises(errors.InvalidInput, match="`by` must be a column"):
        plots.gpus(answers.table(tmp_path), by="nothing")


# The smoke test


def test_each_gpu_is_seen_by_nvidia_smi(aks: Cluster) -> None:
    (row,) = capacity.smoke_test(aks, timeout=PATIENCE, progress=False).to_dict("records")
    assert (row["advertised"], row["requested"], row["seen"], row["ok"]) == (1, 1, 1, True)
    assert row["gpu_model"].startswith("Tesla T4")
    assert row["driver"]
    left = aks.kube.list("Pod", "default", label_selector="aksgpu.dev/smoke-test")
    assert all(pod["metadata"].get("deletionTimestamp") for pod in left)


def test_gpus_in_use_are_not_tested(aks: Cluster) -> None:
    job = jobs.submit(aks, image="docker.io/library/busybox:1", command=["sleep", "600"], name="smoke-holder")
    try:
        wait_for(lambda: job.status().phase == "Running", timeout=PATIENCE)
        (row,) = capacity.smoke_test(aks, timeout=PATIENCE, progress=False).to_dict("records")
        assert (row["ok"], row["problem"]) == (None, "not tested: other pods use its GPUs")
    finally:
        job.delete()


def test_a_pod_that_does_not_start_is_a_problem_of_the_node(aks: Cluster) -> None:
    wait_for(lambda: capacity.gpus(aks)["free"].tolist() == [1], timeout=PATIENCE)
    (row,) = capacity.smoke_test(aks, image="registry.invalid/smi:1", timeout=PATIENCE, progress=False).to_dict(
        "records"
    )
    assert row["ok"] is False
    assert "the pod does not start" in row["problem"]
    (row,) = capacity.smoke_test(aks, timeout=0, progress=False).to_dict("records")
    assert "the pod did not end in time" in row["problem"]
    left = aks.kube.list("Pod", "default", label_selector="aksgpu.dev/smoke-test")
    assert all(pod["metadata"].get("deletionTimestamp") for pod in left)


def test_gpus_that_were_only_written_are_found_out(aks: Cluster) -> None:
    (system,) = capacity.nodes(aks).query("mode == 'system'")["node"]
    capacity.advertise(aks, system, gpus=2)
    try:
        table = capacity.smoke_test(aks, timeout=PATIENCE, progress=False).set_index("node")
        row = table.loc[system]
        assert (row["advertised"], row["ok"]) == (2, False)
        assert "nvidia-smi failed" in row["problem"]
    finally:
        capacity.advertise(aks, system, gpus=0)


WHOLE = "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-1)\n"
SLICES = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-1)
  MIG 1g.5gb      Device  0: (UUID: MIG-1)
  MIG 1g.5gb      Device  1: (UUID: MIG-2)
580.126.09
"""


@pytest.mark.parametrize(
    ("resource", "requested", "output", "seen", "ok"),
    [
        ("nvidia.com/gpu", 1, WHOLE + "580.126.09\n", 1, True),
        ("nvidia.com/gpu", 2, WHOLE + "580.126.09\n", 1, False),
        ("nvidia.com/mig-1g.5gb", 2, SLICES, 2, True),
        ("nvidia.com/gpu", 2, SLICES, 2, True),
        ("nvidia.com/mig-1g.5gb", 7, SLICES, 2, False),
        ("nvidia.com/gpu", 1, "nonsense\n", 0, False),
    ],
)
def test_what_nvidia_smi_lists_is_counted(resource: str, requested: int, output: str, seen: int, ok: bool) -> None:
    made = smoke._Test(node_facts.read(node("n", {resource: str(requested)})), resource, requested, "pod")
    made.output = output
    row = made.row()
    assert (row["seen"], row["ok"]) == (seen, ok)
    assert ok or f"sees {seen} GPUs, and the pod was given {requested}" in row["problem"]
    assert row["driver"] == ("580.126.09" if "580" in output else None)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (node("n", {"nvidia.com/gpu": "0"}), "advertises no GPU: plugin.status(aks)"),
        ({**node("n", {"nvidia.com/gpu": "1"}), "spec": {"unschedulable": True}}, "cordoned"),
        (node("n", {"amd.com/gpu": "1"}, accelerator="amd"), "NVIDIA's GPUs only"),
    ],
)
def test_nodes_that_are_not_tested_say_why(broken: Any, words: str) -> None:
    (test,) = smoke._planned([node_facts.read(broken)], {})
    assert words in test.row()["problem"]
    assert test.row()["ok"] is (False if "advertises no GPU" in words else None)


def test_the_arguments_are_checked_before_a_request(tmp_path: Path) -> None:
    answers = Answers([])
    with Server(answers) as server:
        stub = Stub(Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
        with pytest.raises(errors.InvalidInput, match="`image` must be an image's name, got None"):
            capacity.smoke_test(stub, image=None)  # type: ignore[arg-type]
        with pytest.raises(errors.InvalidInput, match="namespace"):
            capacity.smoke_test(stub, namespace="A B")
        with pytest.raises(errors.InvalidInput, match="timeout"):
            capacity.smoke_test(stub, timeout="soon")
        assert server.requests == []
