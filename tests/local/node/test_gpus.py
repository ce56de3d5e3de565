"""GPUs, from a node without them to a device plugin and containers that have one each."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.polling import wait_for_async

from aksgpu.local import node_annotations
from aksgpu.local.images import device_plugin as protocol
from aksgpu.local.node import gpus

from .conftest import CPU_NODE, GPU_NODE, Lab

PLUGIN = {
    "container": {
        "image": "nvcr.io/nvidia/k8s-device-plugin:v0.18.0",
        "volumeMounts": [{"name": "plugins", "mountPath": "/var/lib/kubelet/device-plugins"}],
    },
    "volumes": [{"name": "plugins", "hostPath": {"path": "/var/lib/kubelet/device-plugins"}}],
    "restartPolicy": "Always",
}
ONE = {"resources": {"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}}}


async def counts(lab: Lab, capacity: str | None, allocatable: str | None, node: str = GPU_NODE) -> None:
    async def are_as_wanted() -> bool:
        status = (await lab.objects.get("nodes", node))["status"]
        found = tuple(status[part].get("nvidia.com/gpu") for part in ("capacity", "allocatable"))
        return found == (capacity, allocatable)

    await wait_for_async(are_as_wanted)


async def plugin(lab: Lab, name: str = "plugin", node: str = GPU_NODE, **container: Any) -> None:
    spec = {**PLUGIN, "container": {**PLUGIN["container"], **container}}  # type: ignore[dict-item]
    await lab.run(name, node=node, **spec)
    await lab.phase(name, "Running")


async def until_logged(lab: Lab, name: str, text: bytes, times: int = 1) -> None:
    """Wait until the log of a pod contains a text a number of times."""

    async def is_logged() -> bool:
        return (await lab.logs(name)).count(text) == times

    await wait_for_async(is_logged)


async def test_the_plugin_registers_and_unregisters_gpus(lab: Lab) -> None:
    await counts(lab, None, None)
    await plugin(lab)
    await counts(lab, "2", "2")
    await until_logged(lab, "plugin", b"Registered device plugin for 'nvidia.com/gpu' with Kubelet")
    await lab.objects.delete("pods", "plugin", "default")
    await lab.gone("plugin")
    await counts(lab, "2", "0")
    await plugin(lab, "another")
    await counts(lab, "2", "2")


async def test_each_gpu_has_one_user(lab: Lab) -> None:
    await plugin(lab)
    await counts(lab, "2", "2")
    wait = "echo $NVIDIA_VISIBLE_DEVICES $CUDA_VISIBLE_DEVICES; sleep 100"
    for name in ("one", "two"):
        await lab.run(name, "sh", "-c", wait, node=GPU_NODE, container=ONE, terminationGracePeriodSeconds=0)
        await lab.phase(name, "Running")

    async def printed(name: str) -> list[bytes]:
        log = await lab.logs(name)
        return log.split() if log.endswith(b"\n") else []

    first = await wait_for_async(lambda: printed("one"))
    second = await wait_for_async(lambda: printed("two"))
    assert first[0] == first[1] != second[0] == second[1]
    await lab.run("three", "true", node=GPU_NODE, container=ONE)
    pod = await lab.phase("three", "Failed")
    assert pod["status"]["reason"] == "UnexpectedAdmissionError"
    assert "Requested: 1, Available: 0" in pod["status"]["message"]
    await lab.restart()
    await counts(lab, "2", "2")
    await lab.run("four", "true", node=GPU_NODE, container=ONE)
    await lab.phase("four", "Failed")
    await lab.objects.delete("pods", "one", "default")
    await lab.gone("one")
    await lab.run("five", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES", node=GPU_NODE, container=ONE)
    await lab.phase("five", "Succeeded")
    assert (await lab.logs("five")).split() == first[:1]


async def test_a_shared_gpu_with_a_limit_on_requests(lab: Lab) -> None:
    """The plugin's configuration has ``failRequestsGreaterThanOne``."""
    rows = [{"name": "nvidia.com/gpu", "replicas": 2}]
    config = {"version": "v1", "sharing": {"timeSlicing": {"failRequestsGreaterThanOne": True, "resources": rows}}}
    obj = {"metadata": {"name": "slices"}, "data": {"config.yaml": json.dumps(config)}}
    await lab.objects.create("configmaps", obj, "default")
    spec: dict[str, Any] = {**PLUGIN, "volumes": [*PLUGIN["volumes"], {"name": "c", "configMap": {"name": "slices"}}]}
    mounts = [*PLUGIN["container"]["volumeMounts"], {"name": "c", "mountPath": "/aksgpu-config"}]  # type: ignore[index]
    env = [{"name": "CONFIG_FILE", "value": "/aksgpu-config/config.yaml"}]
    spec["container"] = {**PLUGIN["container"], "volumeMounts": mounts, "env": env}  # type: ignore[dict-item]
    await lab.run("plugin", node=GPU_NODE, **spec)
    await counts(lab, "4", "4")
    amounts = {"nvidia.com/gpu": "2"}
    two = {"resources": {"limits": amounts, "requests": amounts}}
    await lab.run("two", "true", node=GPU_NODE, container=two)
    status = (await lab.phase("two", "Failed"))["status"]
    assert status["reason"] == "UnexpectedAdmissionError"
    assert status["message"].endswith(
        "request for 'nvidia.com/gpu' too large: maximum request size for shared resources is 1; found 2, which is "
        "unexpected"
    )
    await lab.run("one", "true", node=GPU_NODE, container=ONE)
    await lab.phase("one", "Succeeded")


async def test_a_container_has_its_gpu(lab: Lab) -> None:
    await plugin(lab)
    await counts(lab, "2", "2")
    cuda = {"image": "nvidia/cuda:12.4.1-base-ubuntu22.04", **ONE}
    await lab.run("smi", "sh", "-c", "nvidia-smi -L; echo $AKSGPU_GPUS", node=GPU_NODE, container=cuda)
    await lab.phase("smi", "Succeeded")
    lines = (await lab.logs("smi")).decode().splitlines()
    (gpu,) = json.loads(lines[-1])
    assert gpu["simulated"] is True
    assert gpu["model"] == "Tesla T4"
    assert f"GPU 0: Tesla T4 SIMULATED (UUID: {gpu['uuid']})" in lines
    await lab.run("without", "sh", "-c", 'echo "[$CUDA_VISIBLE_DEVICES] $AKSGPU_GPUS"', node=GPU_NODE)
    await lab.phase("without", "Succeeded")
    assert await lab.logs("without") == b"[] []\n"


async def test_init_containers_share_the_gpu(lab: Lab) -> None:
    await plugin(lab)
    await counts(lab, "2", "2")
    show = {"image": "busybox", "command": ["sh", "-c", "echo $CUDA_VISIBLE_DEVICES"]}
    init = [{"name": "first", **show, "resources": {"limits": {"nvidia.com/gpu": 2}}}]
    await lab.run("shared", node=GPU_NODE, initContainers=init, container={**show, **ONE})
    await lab.phase("shared", "Succeeded")
    both = await lab.logs("shared", "first")
    one = await lab.logs("shared")
    assert len(both.split(b",")) == 2
    assert one.strip() in both


async def test_plugin_without_mount_namespaces(lab: Lab) -> None:
    lab.agent._cluster = dataclasses.replace(lab.agent._cluster, mount_namespaces=False)
    await plugin(lab)
    await counts(lab, "2", "2")


async def test_the_last_plugin_counts(lab: Lab) -> None:
    await plugin(lab)
    await counts(lab, "2", "2")
    resource = lab.agent._nodes[GPU_NODE].devices._resources["nvidia.com/gpu"]
    first = resource.plugin
    await plugin(lab, "second")

    async def is_replaced() -> bool:
        return resource.plugin is not first

    await wait_for_async(is_replaced)
    await counts(lab, "2", "2")
    await lab.objects.delete("pods", "second", "default")
    await lab.gone("second")
    await counts(lab, "2", "0")


async def test_plugin_on_a_node_without_gpus(lab: Lab) -> None:
    await plugin(lab, node=CPU_NODE, env=[{"name": "FAIL_ON_INIT_ERROR", "value": "false"}])
    hint = b"If this is not a GPU node, you should set up a toleration or nodeSelector"
    while hint not in await lab.logs("plugin"):
        await asyncio.sleep(0.02)
    await lab.run("strict", node=CPU_NODE, **PLUGIN)
    await lab.until("strict", lambda pod: "exitCode" in str(pod.get("status")))
    await counts(lab, None, None, CPU_NODE)


async def test_the_plugin_registers_again_after_a_restart(lab: Lab) -> None:
    await plugin(lab)
    await counts(lab, "2", "2")
    await lab.restart()
    await lab.run("soon", "true", node=GPU_NODE, container=ONE)
    await lab.phase("soon", "Succeeded")
    await counts(lab, "2", "2")
    await until_logged(lab, "plugin", b"Registered device plugin", 2)


async def test_bad_registration_is_refused(lab: Lab) -> None:
    await lab.agent._nodes[CPU_NODE].devices.serve()
    path = lab.root / "nodes" / CPU_NODE / "kubelet" / "device-plugins" / "kubelet.sock"
    for line in (b"no json\n", b"{}\n", b'{"method": "Register", "version": "v1beta1"}\n', b"[]\n"):
        with protocol.short_path(path) as name:
            reader, writer = await asyncio.open_unix_connection(name)
        writer.write(line)
        await reader.read()
        writer.close()
    await counts(lab, None, None, CPU_NODE)


def test_simulated_gpus_of_a_node(tmp_path: Path) -> None:
    one, two = made = gpus.simulate_gpus(a_node("a"))
    assert made == gpus.assign_gpus(a_node("a"), [], tmp_path)
    assert (one.uuid != two.uuid, one.compute_capability, one.memory_mib) == (True, "7.5", 16384)


async def test_labels_of_a_node_with_gpus_of_this_machine(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without a GPU, only NVML's response is replaced.
    found = [gpus.Gpu(n, f"GPU-{n}", "NVIDIA H100 NVL", 95830, False, f"0000:0{n}:00.0", "9.0") for n in range(2)]
    monkeypatch.setattr(gpus, "find_machine_gpus", lambda: found)
    await lab.restart()

    async def has_label() -> bool:
        labels = (await lab.objects.get("nodes", GPU_NODE))["metadata"].get("labels") or {}
        return labels.get("aksgpu.dev/gpu") == "nvml"

    await wait_for_async(has_label)
    metadata = (await lab.objects.get("nodes", GPU_NODE))["metadata"]
    assert metadata["labels"]["nvidia.com/gpu.product"] == "NVIDIA-H100-NVL"
    assert metadata["annotations"]["aksgpu.dev/gpu-memory-mib"] == "95830"


def test_each_gpu_of_this_machine_belongs_to_one_node(tmp_path: Path) -> None:
    real = [gpus.Gpu(n, f"GPU-{n}", "NVIDIA H100", 81559, False, f"0000:0{n}:00.0", "9.0") for n in range(5)]
    assert gpus.assign_gpus(a_node("a"), real, tmp_path) == real[:2]
    assert gpus.assign_gpus(a_node("b"), real, tmp_path) == real[2:4]
    assert gpus.assign_gpus(a_node("c"), real, tmp_path) == gpus.simulate_gpus(a_node("c"))
    shutil.rmtree(tmp_path / "a")
    assert gpus.assign_gpus(a_node("b"), real, tmp_path) == real[2:4]
    assert gpus.assign_gpus(a_node("c"), real, tmp_path) == real[:2]
    assert gpus.assign_gpus({"metadata": {"name": "d", "uid": UID}}, real, tmp_path) == []


UID = "47a6c3b2-9e4d-40b1-897f-6fabad2d22a1"


def a_node(name: str) -> dict[str, Any]:
    notes = {"aksgpu.dev/gpu-model": "Tesla T4", "aksgpu.dev/gpu-count": "2", "aksgpu.dev/gpu-memory-mib": "16384"}
    return {"metadata": {"name": name, "uid": UID, "annotations": notes}}


async def test_managed_pools_need_no_plugin(lab: Lab) -> None:
    notes = {"aksgpu.dev/gpu-management": "Managed"}
    await lab.objects.patch("nodes", GPU_NODE, {"metadata": {"annotations": notes}})
    await lab.restart()
    await counts(lab, "2", "2")
    conditions = {one["type"]: one for one in (await lab.objects.get("nodes", GPU_NODE))["status"]["conditions"]}
    assert conditions["UnhealthyNvidiaDevicePlugin"]["status"] == "False"
    assert conditions["UnhealthyNvidiaDCGMServices"]["status"] == "False"
    cuda = {"image": "nvidia/cuda:12.4.1-base-ubuntu22.04", **ONE}
    await lab.run("smi", "nvidia-smi", node=GPU_NODE, container=cuda)
    await lab.phase("smi", "Succeeded")
    await lab.restart()
    await counts(lab, "2", "2")
    await breaks(lab, "Driver/library version mismatch")
    await counts(lab, "2", "0")


async def breaks(lab: Lab, text: str | None) -> None:
    await lab.objects.patch("nodes", GPU_NODE, {"metadata": {"annotations": {"aksgpu.dev/gpu-driver-error": text}}})


async def test_a_driver_that_breaks_and_is_repaired(lab: Lab) -> None:
    await plugin(lab)
    await counts(lab, "2", "2")
    cuda = {"image": "nvidia/cuda:12.4.1-base-ubuntu22.04", **ONE}
    script = "until nvidia-smi -L | grep mismatch; do sleep 0.05; done; nvidia-smi"
    await lab.run("early", "sh", "-c", script, node=GPU_NODE, container=cuda)
    await lab.phase("early", "Running")
    await breaks(lab, "Driver/library version mismatch")
    await counts(lab, "2", "0")
    failed = await lab.phase("early", "Failed")
    assert failed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 18
    assert b"Failed to initialize NVML: Driver/library version mismatch" in await lab.logs("early")
    await until_logged(lab, "plugin", b"Failed to initialize NVML: Driver/library version mismatch")
    await breaks(lab, None)
    await counts(lab, "2", "2")


async def test_mig_strategies(lab: Lab) -> None:
    notes = {"aksgpu.dev/gpu-mig": "1g.5gb", "aksgpu.dev/gpu-mig-count": "7"}
    await lab.objects.patch("nodes", GPU_NODE, {"metadata": {"annotations": notes}})
    await lab.restart()
    await plugin(lab)
    await counts(lab, "2", "2")
    await plugin(lab, "single", env=[{"name": "MIG_STRATEGY", "value": "single"}])
    await counts(lab, "14", "14")
    await plugin(lab, "mixed", command=["nvidia-device-plugin", "--mig-strategy", "mixed"])
    slices = "nvidia.com/mig-1g.5gb"
    while (await lab.objects.get("nodes", GPU_NODE))["status"]["allocatable"].get(slices) != "14":
        await asyncio.sleep(0.02)
    cuda = {"image": "nvidia/cuda:12.4.1-base-ubuntu22.04", "resources": {"limits": {slices: 1}}}
    await lab.run("smi", "nvidia-smi", "-L", node=GPU_NODE, container=cuda)
    await lab.phase("smi", "Succeeded")
    assert b"Tesla T4 MIG 1g.5gb SIMULATED (UUID: MIG-" in await lab.logs("smi")


async def deallocate(lab: Lab) -> None:
    """Do to the GPU node what Resource Manager does when it deallocates its machine."""
    taint = {"key": "node.cloudprovider.kubernetes.io/shutdown", "effect": "NoSchedule"}
    await lab.objects.patch("nodes", GPU_NODE, {"spec": {"taints": [taint]}})
    lost = {"type": "Ready", "status": "Unknown"}
    await lab.objects.patch("nodes", GPU_NODE, {"status": {"conditions": [lost]}}, subresource="status")


async def readiness(lab: Lab) -> str:
    """Return the status of the GPU node's condition Ready; empty if it has none."""
    conditions = (await lab.objects.get("nodes", GPU_NODE))["status"].get("conditions") or []
    return "".join(each["status"] for each in conditions if each["type"] == "Ready")


async def until_ready(lab: Lab) -> None:
    async def is_ready() -> bool:
        return await readiness(lab) == "True"

    await wait_for_async(is_ready)


async def test_a_deallocated_node_posts_no_status(lab: Lab) -> None:
    await until_ready(lab)
    await deallocate(lab)
    await asyncio.sleep(0.2)
    assert await readiness(lab) == "Unknown"
    await lab.objects.patch("nodes", GPU_NODE, {"spec": {"taints": None}})
    await until_ready(lab)


async def test_a_node_that_is_deallocated_while_it_posts_its_status(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    await until_ready(lab)
    get = lab.objects.get

    async def get_and_deallocate(resource: str, name: str, namespace: str | None = None) -> Any:
        found = await get(resource, name, namespace)
        if name == GPU_NODE:
            monkeypatch.setattr(lab.objects, "get", get)
            await deallocate(lab)
        return found

    monkeypatch.setattr(lab.objects, "get", get_and_deallocate)
    assert await lab.agent._nodes[GPU_NODE]._try_to_post_status(0) == 0
    assert await readiness(lab) == "Unknown"


async def test_a_node_that_is_deallocated_while_it_is_labelled(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    await until_ready(lab)
    patch = lab.objects.patch
    await patch("nodes", GPU_NODE, {"metadata": {"labels": {node_annotations.GPU_KIND_LABEL: None}}})

    async def deallocate_and_patch(resource: str, name: str, *args: Any, **options: Any) -> Any:
        monkeypatch.setattr(lab.objects, "patch", patch)
        await deallocate(lab)
        return await patch(resource, name, *args, **options)

    monkeypatch.setattr(lab.objects, "patch", deallocate_and_patch)
    assert await lab.agent._nodes[GPU_NODE]._try_to_post_status(0) == 0
    assert await readiness(lab) == "Unknown"


async def test_a_new_node_has_no_gpus_of_an_earlier_one(lab: Lab) -> None:
    """It has the same name, as after an upgrade of its pool, and its device plugin has not started yet."""
    await plugin(lab)
    await counts(lab, "2", "2")
    former = lab.agent._nodes[GPU_NODE]
    await lab.objects.delete("nodes", GPU_NODE)
    await lab.add_node(GPU_NODE, gpus=2, address="10.224.0.5")
    await until_ready(lab)
    await lab.gone("plugin")
    await former._try_to_post_status(0)
    await counts(lab, None, None)
    await plugin(lab, "another")
    await counts(lab, "2", "2")
