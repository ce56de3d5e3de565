"""The virtual machines of an agent pool, as the Node objects of its cluster.

Nodes get the names, labels, taints and sizes that AKS gives them. The node agent posts their conditions, and reads the
GPUs of a node from its annotations.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import platform
import re
import string
import uuid
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from aksgpu.local import name_formats, node_annotations
from aksgpu.local.arm import reference_data
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.representations import pool_version
from aksgpu.local.arm.resource_ids import group_id
from aksgpu.local.objects import Object, Objects
from aksgpu.local.status_error import ignoring

AZURE = "kubernetes.azure.com"
DIGITS = string.digits + string.ascii_lowercase
SHUTDOWN_TAINT = {"key": "node.cloudprovider.kubernetes.io/shutdown", "effect": "NoSchedule"}
"""The taint that Azure's cloud provider adds to a node while its virtual machine is deallocated."""
POD_GRACE_SECONDS = 2
"""Termination grace period of evicted pods. A drain waits for them as long."""
FIRST_HOST = 4
"""Azure reserves the first four addresses of a subnet."""


def scale_set(cluster: Document, pool: Document) -> str:
    """Return the name of the pool's virtual machine scale set."""
    return f"aks-{pool['name']}-{cluster['serial']}-vmss"


def scale_set_id(cluster: Document, pool: Document) -> str:
    """Return the resource id of the pool's virtual machine scale set."""
    machines = group_id(cluster["properties"]["nodeResourceGroup"])
    return f"{machines}/providers/Microsoft.Compute/virtualMachineScaleSets/{scale_set(cluster, pool)}"


def node_name(cluster: Document, pool: Document, index: int) -> str:
    """Return the name of the pool's node with this index."""
    return f"{scale_set(cluster, pool)}{_base36(index):0>6}"


def _base36(number: int) -> str:
    return (_base36(number // 36) if number >= 36 else "") + DIGITS[number % 36]


def node_index(name: str) -> int:
    """Return the index of a node in its pool."""
    return int(name[-6:], 36)


def parse_taint(text: str) -> dict[str, str]:
    """Parse ``key=value:Effect``; raises ValueError."""
    match = re.fullmatch(r"([\w./-]+)(?:=([\w.-]*))?:(NoSchedule|PreferNoSchedule|NoExecute)", text)
    if match is None:
        raise ValueError(text)
    key, value, effect = match.groups()
    if name_formats.qualified_name_problems(key) or name_formats.label_value_problems(value or ""):
        raise ValueError(text)
    taint = {"key": key, "effect": effect}
    if value:
        taint["value"] = value
    return taint


def _size(pool: Document) -> reference_data.Size:
    return reference_data.sizes()[pool["properties"]["vmSize"].lower()]


def labels(cluster: Document, pool: Document) -> dict[str, str]:
    """Return the labels of all nodes of a pool."""
    properties = pool["properties"]
    size = _size(pool)
    found = {
        "agentpool": pool["name"],
        f"{AZURE}/agentpool": pool["name"],
        f"{AZURE}/cluster": _as_label(cluster["properties"]["nodeResourceGroup"]),
        f"{AZURE}/mode": properties["mode"].lower(),
        f"{AZURE}/role": "agent",
        f"{AZURE}/os-sku": properties["osSKU"],
        f"{AZURE}/node-image-version": reference_data.NODE_IMAGE,
        "node.kubernetes.io/instance-type": size.name,
        "topology.kubernetes.io/region": cluster["location"],
        "kubernetes.io/os": properties["osType"].lower(),
        "kubernetes.io/arch": size.arch,
    }
    for name in ("node.kubernetes.io/instance-type", "kubernetes.io/os", "kubernetes.io/arch"):
        found[f"beta.kubernetes.io/{name.partition('/')[2]}"] = found[name]
    if size.nvidia:
        found["accelerator"] = "nvidia"
        found[f"{AZURE}/accelerator"] = "nvidia"
        found[node_annotations.GPU_KIND_LABEL] = "simulated"
    if is_managed(pool):
        found[f"{AZURE}/dcgm-exporter"] = "enabled"
    return found | (properties.get("nodeLabels") or {})


def _as_label(group: str) -> str:
    """Return a resource group's name shortened to a valid label value, as AKS does."""
    value = re.sub(r"[^-.\w]", "-", group, flags=re.ASCII)[:63]
    return value if value[-1].isalnum() else f"{value[:62]}z"


def taints(pool: Document) -> list[dict[str, str]]:
    """Return the taints of all nodes of a pool."""
    return [parse_taint(text) for text in pool["properties"].get("nodeTaints") or []]


def is_managed(pool: Document) -> bool:
    """Return whether AKS itself runs the device plugin on the pool's nodes."""
    profile = pool["properties"].get("gpuProfile") or {}
    return (profile.get("nvidia") or {}).get("managementMode") == "Managed"


def gpu_annotations(pool: Document) -> dict[str, str]:
    """Return the annotations that describe a node's GPUs. There are none if AKS installs no driver."""
    properties = pool["properties"]
    size = _size(pool)
    profile = properties.get("gpuProfile") or {}
    if not size.nvidia or profile.get("driver") == "None":
        return {}
    found = {
        node_annotations.GPU_MODEL: size.gpu_model,
        node_annotations.GPU_COUNT: str(size.devices),
        node_annotations.GPU_MEMORY_MIB: str(round(size.gpu_memory_gb_total * 1024 / size.devices)),
    }
    if is_managed(pool):
        mixed = profile["nvidia"].get("migStrategy") == "Mixed"  # AKS' default is "Single"
        found[node_annotations.GPU_MANAGEMENT_MODE] = "Managed"
        found[node_annotations.GPU_MIG_STRATEGY] = "mixed" if mixed else "single"
    if properties.get("gpuInstanceProfile"):
        name, count = size.mig_slices(properties["gpuInstanceProfile"])
        found[node_annotations.GPU_MIG_PROFILE] = name
        found[node_annotations.GPU_MIG_COUNT] = str(count)
    return found


def _kubelet_annotations(pool: Document) -> dict[str, str]:
    """Return annotations for the fields of the kubelet's configuration that the node agent uses."""
    size = (pool["properties"].get("kubeletConfig") or {}).get("containerLogMaxSizeMB")
    return {node_annotations.CONTAINER_LOG_MAX_MB: str(size)} if size else {}


def gpu_resources(pool: Document) -> dict[str, str]:
    """Return the extended resources that the autoscaler expects of a node whose device plugin is running."""
    size = _size(pool)
    described = gpu_annotations(pool)
    if not size.nvidia:
        return {}
    if not is_managed(pool) or node_annotations.GPU_MIG_PROFILE not in described:
        return {"nvidia.com/gpu": str(size.devices)}
    mixed = described[node_annotations.GPU_MIG_STRATEGY] == "mixed"
    name = f"nvidia.com/mig-{described[node_annotations.GPU_MIG_PROFILE]}" if mixed else "nvidia.com/gpu"
    return {name: str(size.devices * int(described[node_annotations.GPU_MIG_COUNT]))}


def build_node(cluster: Document, pool: Document, index: int, address: str) -> Object:
    """Return the Node object of the pool's node with this index and internal IP address."""
    name = node_name(cluster, pool, index)
    size = _size(pool)
    zones = pool["properties"].get("availabilityZones")
    zone = f"{cluster['location']}-{zones[index % len(zones)]}" if zones else "0"
    own_labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}
    defaults = copy.deepcopy(reference_data.table("defaults")["node"])
    capacity, allocatable = _resources(size, int(pool["properties"]["maxPods"]))
    version = pool_version(cluster, pool)
    node_info = {
        "machineID": uuid.uuid4().hex,
        "systemUUID": str(uuid.uuid4()),
        "bootID": str(uuid.uuid4()),
        "kubeletVersion": f"v{version}",
        "kubeProxyVersion": f"v{version}",
        "kernelVersion": platform.release(),
        "architecture": size.arch,
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": labels(cluster, pool) | own_labels,
            "annotations": gpu_annotations(pool) | _kubelet_annotations(pool),
        },
        "spec": {
            "providerID": f"azure://{scale_set_id(cluster, pool)}/virtualMachines/{index}",
            **({"taints": taints(pool)} if taints(pool) else {}),
        },
        "status": {
            "capacity": defaults["capacity"] | capacity,
            "allocatable": defaults["allocatable"] | allocatable,
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "daemonEndpoints": defaults["daemonEndpoints"],
            "nodeInfo": defaults["nodeInfo"] | node_info,
        },
    }


def internal_ip(node: Object) -> str:
    """Return a node's internal IP address."""
    return next(str(each["address"]) for each in node["status"]["addresses"] if each["type"] == "InternalIP")


def _resources(size: reference_data.Size, max_pods: int) -> tuple[dict[str, str], dict[str, str]]:
    """Return capacity and allocatable, computed with AKS' rules for reserved resources."""
    memory = int(size.ram_gb * 1024 * 1024 * 0.975)
    reserved = min((20 * max_pods + 50) * 1024, memory // 4) + 100 * 1024
    steps = reference_data.table("offer")["cpu_reserved"]
    cpu = steps[min((cores for cores in steps if size.vcpus <= cores), default=max(steps))]
    capacity = {"cpu": str(size.vcpus), "memory": f"{memory}Ki", "pods": str(max_pods)}
    return capacity, capacity | {"cpu": f"{size.vcpus * 1000 - cpu}m", "memory": f"{memory - reserved}Ki"}


async def list_nodes(objects: Objects, pool: Document) -> list[Object]:
    """Return the pool's nodes, ordered by index. They are found by name, because users can change labels."""
    pattern = re.compile(rf"aks-{pool['name']}-\d{{8}}-vmss[0-9a-z]{{6}}")
    found = [node for node in (await objects.list("nodes"))[0] if pattern.fullmatch(node["metadata"]["name"])]
    return sorted(found, key=lambda node: node_index(node["metadata"]["name"]))


async def reconcile(objects: Objects, cluster: Document, pool: Document, seconds: float) -> None:
    """Create, update and remove nodes until they match the pool's document. The changes are spread over ``seconds``."""
    nodes = await list_nodes(objects, pool)
    deallocated = [node for node in nodes if is_deallocated(node)]
    running = [node for node in nodes if not is_deallocated(node)]
    ending = pool["power"] == "Stopped" or cluster["power"] == "Stopped" or pool["state"] == "Deleting"
    desired = 0 if ending else pool["properties"]["count"]
    for node in running[:desired]:
        await _update_node(objects, cluster, pool, node)
    missing = desired - len(running)
    deallocate = pool["properties"]["scaleDownMode"] == "Deallocate" and not ending
    surplus = [node["metadata"]["name"] for node in reversed(running[desired:])]
    await cordon(objects, surplus)
    steps: list[Callable[[], Awaitable[None]]] = []
    for name in surplus:
        steps.append(partial(remove_node, objects, name, deallocate=deallocate))
    for node in deallocated[: max(0, missing)]:
        steps.append(partial(_update_node, objects, cluster, pool, node))
    for _ in range(missing - len(deallocated)):
        steps.append(partial(_add_node, objects, cluster, pool))
    if ending:
        for node in deallocated:
            steps.append(partial(remove_node, objects, node["metadata"]["name"]))
    pause = seconds / (len(steps) + 1)
    for step in steps:
        await asyncio.sleep(pause)
        await step()
    await asyncio.sleep(pause)


async def cordon(objects: Objects, names: Iterable[str]) -> None:
    """Cordon nodes before the first of them is drained, so that its pods do not move to the next one.

    Nodes that do not exist or that are already cordoned are skipped.
    """
    for name in names:
        with ignoring(404):
            if not (await objects.get("nodes", name))["spec"].get("unschedulable"):
                marked = {node_annotations.CORDONED_FOR_REMOVAL: "true"}
                await objects.patch(
                    "nodes", name, {"metadata": {"annotations": marked}, "spec": {"unschedulable": True}}
                )


async def remove_node(objects: Objects, name: str, *, deallocate: bool = False) -> None:
    """Drain a node, then delete it.

    With ``deallocate``, the node is kept and is not ready, because its machine has its disks and can be started again.
    """
    await cordon(objects, [name])
    await _drain(objects, name)
    with ignoring(404):
        if not deallocate:
            await objects.delete("nodes", name)
        else:
            await _mark_deallocated(objects, name)
    await _delete_pods(objects, name)


async def delete_node(objects: Objects, name: str) -> None:
    """Delete a node and its pods at once, without draining it."""
    with ignoring(404):
        await objects.delete("nodes", name)
    await _delete_pods(objects, name)


async def _delete_pods(objects: Objects, node: str) -> None:
    for pod in await _list_pods(objects, node, daemon_sets=True):
        with ignoring(404):
            await objects.delete("pods", pod["metadata"]["name"], pod["metadata"]["namespace"], grace_period_seconds=0)


def is_deallocated(node: Object) -> bool:
    """Return whether the node's machine is deallocated."""
    return any(taint["key"] == SHUTDOWN_TAINT["key"] for taint in node["spec"].get("taints", []))


async def _mark_deallocated(objects: Objects, name: str) -> None:
    node = await objects.get("nodes", name)
    await objects.patch("nodes", name, {"spec": {"taints": [*node["spec"].get("taints", []), SHUTDOWN_TAINT]}})
    unknown = {
        "status": "Unknown",
        "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
    }
    conditions = [{**condition, **unknown} for condition in node["status"].get("conditions", [])]
    await objects.patch("nodes", name, {"status": {"conditions": conditions}}, subresource="status")


async def replace_nodes(objects: Objects, cluster: Document, pool: Document, surge: int, seconds: float) -> None:
    """Replace every running node of the pool with one of the newest image.

    Args:
        objects: the cluster's objects.
        cluster: the cluster.
        pool: the pool.
        surge: nodes to add while others are replaced.
        seconds: the duration of the replacement.
    """
    running = [node for node in await list_nodes(objects, pool) if not is_deallocated(node)]
    pause = seconds / (len(running) + 1)
    for _ in range(surge):
        await _add_node(objects, cluster, pool)
    for node in running:
        await asyncio.sleep(pause)
        name = node["metadata"]["name"]
        await remove_node(objects, name)
        await objects.create("nodes", build_node(cluster, pool, node_index(name), internal_ip(node)))
    await reconcile(objects, cluster, pool, pause)


async def _add_node(objects: Objects, cluster: Document, pool: Document) -> None:
    used = {node_index(node["metadata"]["name"]) for node in await list_nodes(objects, pool)}
    index = max(pool.get("next", 0), max(used, default=-1) + 1)
    pool["next"] = index + 1
    nodes, _ = await objects.list("nodes")
    addresses = {entry["address"] for node in nodes for entry in node.get("status", {}).get("addresses", [])}
    hosts = (f"10.224.{number // 256}.{number % 256}" for number in itertools.count(FIRST_HOST))
    address = next(host for host in hosts if host not in addresses)
    with ignoring(409):
        await objects.create("nodes", build_node(cluster, pool, index, address))


async def _update_node(objects: Objects, cluster: Document, pool: Document, node: Object) -> None:
    """Apply the pool's current labels and taints to a node, and start its machine if it is deallocated."""
    metadata = node["metadata"]
    spec = node["spec"]
    desired = labels(cluster, pool)
    current = metadata.get("labels") or {}
    change: dict[str, Any] = {key: value for key, value in desired.items() if current.get(key) != value}
    for key in pool.get("labelled", []):
        if key not in desired and key in current:
            change[key] = None
    automatic = [taint for taint in spec.get("taints", []) if taint["key"].startswith("node.kubernetes.io/")]
    new_taints = [*taints(pool), *automatic]
    cordoned = node_annotations.CORDONED_FOR_REMOVAL in metadata.get("annotations", {})
    if change or cordoned or new_taints != spec.get("taints", []):
        patch: Object = {"metadata": {"labels": change}, "spec": {"taints": new_taints or None}}
        if cordoned:
            patch["metadata"]["annotations"] = {node_annotations.CORDONED_FOR_REMOVAL: None}
            patch["spec"]["unschedulable"] = None
        await objects.patch("nodes", metadata["name"], patch)


async def _drain(objects: Objects, node: str) -> None:
    """Evict the pods of a node as ``kubectl drain`` does, and wait until they end or their grace period is over."""
    for pod in await _list_pods(objects, node, daemon_sets=False):
        name = pod["metadata"]["name"]
        namespace = pod["metadata"]["namespace"]
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"gracePeriodSeconds": POD_GRACE_SECONDS},
        }
        with ignoring(404):
            await objects.create("pods", eviction, namespace=namespace, name=name, subresource="eviction")
    for _ in range(POD_GRACE_SECONDS * 10):
        if not await _list_pods(objects, node, daemon_sets=False):
            break
        await asyncio.sleep(0.1)


async def _list_pods(objects: Objects, node: str, *, daemon_sets: bool) -> list[Object]:
    found, _ = await objects.list("pods", field_selector=f"spec.nodeName={node}")
    return [pod for pod in found if daemon_sets or not owned_by_daemon_set(pod)]


def owned_by_daemon_set(pod: Object) -> bool:
    """Return whether a DaemonSet owns this pod and would replace it at once."""
    return any(owner.get("kind") == "DaemonSet" for owner in pod["metadata"].get("ownerReferences", []))
