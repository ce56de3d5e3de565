"""A pool's virtual machines, as the Node objects of its cluster.

Names, labels, taints and sizes are those that AKS gives its nodes. Whether a node is alive is not said here: the node
agent posts the conditions, and finds in the annotations which GPUs the node's size has.
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

from aksgpu.local import name_formats
from aksgpu.local.arm import reference_data
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import group_id
from aksgpu.local.objects import Object, Objects
from aksgpu.local.status_error import ignoring

AZURE = "kubernetes.azure.com"
DIGITS = string.digits + string.ascii_lowercase
SHUTDOWN = {"key": "node.cloudprovider.kubernetes.io/shutdown", "effect": "NoSchedule"}
"""What Azure's cloud provider puts on the node of a virtual machine that is deallocated."""
LEAVING = {"aksgpu.dev/leaving": "true"}
"""An annotation of nodes that are cordoned here, and not by their user."""
POD_GRACE_SECONDS = 2
FIRST_ADDRESS = 4


def scale_set(cluster: Document, pool: Document) -> str:
    """The name of the pool's virtual machine scale set."""
    return f"aks-{pool['name']}-{cluster['serial']}-vmss"


def scale_set_id(cluster: Document, pool: Document) -> str:
    """The scale set's ARM id."""
    machines = group_id(cluster["properties"]["nodeResourceGroup"])
    return f"{machines}/providers/Microsoft.Compute/virtualMachineScaleSets/{scale_set(cluster, pool)}"


def node_name(cluster: Document, pool: Document, index: int) -> str:
    """The name of the pool's node number ``index``."""
    return f"{scale_set(cluster, pool)}{_base36(index):0>6}"


def _base36(number: int) -> str:
    return (_base36(number // 36) if number >= 36 else "") + DIGITS[number % 36]


def node_index(name: str) -> int:
    """Which number a node has in its pool."""
    return int(name[-6:], 36)


def parse_taint(text: str) -> dict[str, str]:
    """A pool's ``key=value:Effect`` as a Node's taint; raises ValueError."""
    match = re.fullmatch(r"([\w./-]+)(?:=([\w.-]*))?:(NoSchedule|PreferNoSchedule|NoExecute)", text)
    if match is None:
        raise ValueError(text)
    key, value, effect = match.groups()
    if name_formats.qualified_name_problems(key) or name_formats.label_value_problems(value or ""):
        raise ValueError(text)
    return {"key": key, **({"value": value} if value else {}), "effect": effect}


def _size(pool: Document) -> reference_data.Size:
    return reference_data.sizes()[pool["properties"]["vmSize"].lower()]


def labels(cluster: Document, pool: Document) -> dict[str, str]:
    """The labels that a pool puts on all of its nodes."""
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
        found |= {"accelerator": "nvidia", f"{AZURE}/accelerator": "nvidia", "aksgpu.dev/gpu": "simulated"}
    if managed(pool):
        found[f"{AZURE}/dcgm-exporter"] = "enabled"
    return found | (properties.get("nodeLabels") or {})


def _as_label(group: str) -> str:
    """The name of a resource group, which may be longer and of other characters than a label's value, as AKS has it."""
    fitting = re.sub(r"[^-.\w]", "-", group, flags=re.ASCII)[:63]
    return fitting if fitting[-1].isalnum() else f"{fitting[:62]}z"


def taints(pool: Document) -> list[dict[str, str]]:
    """The taints that a pool puts on its nodes."""
    return [parse_taint(text) for text in pool["properties"].get("nodeTaints") or []]


def managed(pool: Document) -> bool:
    """Whether AKS itself runs the device plugin on the pool's nodes."""
    profile = pool["properties"].get("gpuProfile") or {}
    return (profile.get("nvidia") or {}).get("managementMode") == "Managed"


def gpu_annotations(pool: Document) -> dict[str, str]:
    """What the node agent has to know of the node's GPUs; nothing when AKS installs no driver."""
    properties = pool["properties"]
    size = _size(pool)
    profile = properties.get("gpuProfile") or {}
    if not size.nvidia or profile.get("driver") == "None":
        return {}
    found = {
        "aksgpu.dev/gpu-model": size.gpu,
        "aksgpu.dev/gpu-count": str(size.devices),
        "aksgpu.dev/gpu-memory-mib": str(round(size.gpu_memory_gb * 1024 / size.devices)),
    }
    if managed(pool):  # where AKS runs the plugin it takes MIG strategy "single" unless told "Mixed"
        mixed = profile["nvidia"].get("migStrategy") == "Mixed"
        found |= {"aksgpu.dev/gpu-management": "Managed", "aksgpu.dev/gpu-mig-strategy": "mixed" if mixed else "single"}
    if properties.get("gpuInstanceProfile"):
        name, count = size.mig_slices(properties["gpuInstanceProfile"])
        found |= {"aksgpu.dev/gpu-mig": name, "aksgpu.dev/gpu-mig-count": str(count)}
    return found


def gpu_resources(pool: Document) -> dict[str, str]:
    """What a new node will offer once a device plugin serves it, as the autoscaler takes it from the VM size."""
    size = _size(pool)
    notes = gpu_annotations(pool)
    if not size.nvidia:
        return {}
    if not managed(pool) or "aksgpu.dev/gpu-mig" not in notes:
        return {"nvidia.com/gpu": str(size.devices)}
    mixed = notes["aksgpu.dev/gpu-mig-strategy"] == "mixed"
    name = f"nvidia.com/mig-{notes['aksgpu.dev/gpu-mig']}" if mixed else "nvidia.com/gpu"
    return {name: str(size.devices * int(notes["aksgpu.dev/gpu-mig-count"]))}


def build(cluster: Document, pool: Document, index: int, address: str) -> Object:
    """The Node object of the pool's node number ``index``."""
    name = node_name(cluster, pool, index)
    size = _size(pool)
    zones = pool["properties"].get("availabilityZones")
    zone = f"{cluster['location']}-{zones[index % len(zones)]}" if zones else "0"
    own = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}
    always = copy.deepcopy(reference_data.table("defaults")["node"])
    capacity, allocatable = _resources(size, int(pool["properties"]["maxPods"]))
    identity = {
        key: uuid.uuid4().hex if key == "machineID" else str(uuid.uuid4())
        for key in ("machineID", "systemUUID", "bootID")
    }
    version = dict.fromkeys(("kubeletVersion", "kubeProxyVersion"), f"v{reference_data.KUBERNETES_VERSION}")
    machine = {"kernelVersion": platform.release(), "architecture": size.arch}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels(cluster, pool) | own, "annotations": gpu_annotations(pool)},
        "spec": {
            "providerID": f"azure://{scale_set_id(cluster, pool)}/virtualMachines/{index}",
            **({"taints": taints(pool)} if taints(pool) else {}),
        },
        "status": {
            "capacity": always["capacity"] | capacity,
            "allocatable": always["allocatable"] | allocatable,
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "daemonEndpoints": always["daemonEndpoints"],
            "nodeInfo": always["nodeInfo"] | identity | version | machine,
        },
    }


def address(node: Object) -> str:
    """A node's address in the cluster's network."""
    return next(str(each["address"]) for each in node["status"]["addresses"] if each["type"] == "InternalIP")


def _resources(size: reference_data.Size, max_pods: int) -> tuple[dict[str, str], dict[str, str]]:
    """Capacity and allocatable, by AKS' rules of what it reserves."""
    memory = int(size.ram_gb * 1024 * 1024 * 0.975)
    reserved = min((20 * max_pods + 50) * 1024, memory // 4) + 100 * 1024
    steps = reference_data.table("offer")["cpu_reserved"]
    cpu = steps[min((cores for cores in steps if size.vcpus <= cores), default=max(steps))]
    capacity = {"cpu": str(size.vcpus), "memory": f"{memory}Ki", "pods": str(max_pods)}
    return capacity, capacity | {"cpu": f"{size.vcpus * 1000 - cpu}m", "memory": f"{memory - reserved}Ki"}


async def of_pool(objects: Objects, pool: Document) -> list[Object]:
    """The pool's nodes, in the order of their numbers: by their names, as anybody may label nodes."""
    ours = re.compile(rf"aks-{pool['name']}-\d{{8}}-vmss[0-9a-z]{{6}}")
    found = [node for node in (await objects.list("nodes"))[0] if ours.fullmatch(node["metadata"]["name"])]
    return sorted(found, key=lambda node: node_index(node["metadata"]["name"]))


async def settle(objects: Objects, cluster: Document, pool: Document, seconds: float) -> None:
    """Make the pool's nodes be what its document says, spread over ``seconds``."""
    found = await of_pool(objects, pool)
    asleep = [node for node in found if is_off(node)]
    running = [node for node in found if not is_off(node)]
    gone = pool["power"] == "Stopped" or cluster["power"] == "Stopped" or pool["state"] == "Deleting"
    wanted = 0 if gone else pool["properties"]["count"]
    for node in running[:wanted]:
        await _bring_up_to_date(objects, cluster, pool, node)
    missing = wanted - len(running)
    deallocate = pool["properties"]["scaleDownMode"] == "Deallocate" and not gone
    leaving = [node["metadata"]["name"] for node in reversed(running[wanted:])]
    await cordon(objects, leaving)
    steps: list[Callable[[], Awaitable[None]]] = [
        partial(leave, objects, name, deallocate=deallocate) for name in leaving
    ]
    steps += [partial(_bring_up_to_date, objects, cluster, pool, node) for node in asleep[: max(0, missing)]]
    steps += [partial(_add, objects, cluster, pool)] * (missing - len(asleep))
    steps += [partial(leave, objects, node["metadata"]["name"]) for node in asleep if gone]
    pause = seconds / (len(steps) + 1)
    for step in steps:
        await asyncio.sleep(pause)
        await step()
    await asyncio.sleep(pause)


async def cordon(objects: Objects, going: Iterable[str]) -> None:
    """Let no more pods come to these nodes, if they are there; those that are cordoned already stay as they are.

    All that go at once, before the first is drained: its pods are not to move to one that goes next.
    """
    for name in going:
        with ignoring(404):
            if not (await objects.get("nodes", name))["spec"].get("unschedulable"):
                change = {"metadata": {"annotations": LEAVING}, "spec": {"unschedulable": True}}
                await objects.patch("nodes", name, change)


async def leave(objects: Objects, name: str, *, deallocate: bool = False) -> None:
    """Drain a node; then its machine goes, or only stops and keeps its disks, and the node stays and is not ready."""
    await cordon(objects, [name])
    await _drain(objects, name)
    with ignoring(404):
        if not deallocate:
            await objects.delete("nodes", name)
        else:
            node = await objects.get("nodes", name)
            await objects.patch("nodes", name, {"spec": {"taints": [*node["spec"].get("taints", []), SHUTDOWN]}})
            why = {"reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
            conditions = [{**each, "status": "Unknown", **why} for each in node["status"].get("conditions", [])]
            await objects.patch("nodes", name, {"status": {"conditions": conditions}}, subresource="status")
    for pod in await _pods(objects, name, daemons=True):
        with ignoring(404):
            await objects.delete("pods", pod["metadata"]["name"], pod["metadata"]["namespace"], grace_period_seconds=0)


def is_off(node: Object) -> bool:
    """Whether the node's machine is deallocated."""
    return any(taint["key"] == SHUTDOWN["key"] for taint in node["spec"].get("taints", []))


async def replace(objects: Objects, cluster: Document, pool: Document, surge: int, seconds: float) -> None:
    """Give every node of the pool a new image, ``surge`` more nodes standing in for those that are away."""
    old = [node for node in await of_pool(objects, pool) if not is_off(node)]
    for _ in range(surge):
        await _add(objects, cluster, pool)
    for node in old:
        await asyncio.sleep(seconds / (len(old) + 1))
        await leave(objects, node["metadata"]["name"])
        fresh = build(cluster, pool, node_index(node["metadata"]["name"]), address(node))
        await objects.create("nodes", fresh)
    await settle(objects, cluster, pool, seconds / (len(old) + 1))


async def _add(objects: Objects, cluster: Document, pool: Document) -> None:
    there, _ = await objects.list("nodes")
    used = {node_index(node["metadata"]["name"]) for node in await of_pool(objects, pool)}
    index = max(pool.get("next", 0), max(used, default=-1) + 1)
    pool["next"] = index + 1
    taken = {entry["address"] for node in there for entry in node.get("status", {}).get("addresses", [])}
    free = next(text for n in itertools.count(FIRST_ADDRESS) if (text := f"10.224.{n // 256}.{n % 256}") not in taken)
    with ignoring(409):
        await objects.create("nodes", build(cluster, pool, index, free))


async def _bring_up_to_date(objects: Objects, cluster: Document, pool: Document, node: Object) -> None:
    """Give a node the labels and taints that its pool has now, and wake it where its machine is deallocated."""
    metadata = node["metadata"]
    spec = node["spec"]
    wanted = labels(cluster, pool)
    there = metadata.get("labels") or {}
    change: dict[str, Any] = {key: value for key, value in wanted.items() if there.get(key) != value}
    change |= {key: None for key in pool.get("labelled", []) if key not in wanted and key in there}
    automatic = [taint for taint in spec.get("taints", []) if taint["key"].startswith("node.kubernetes.io/")]
    new_taints = [*taints(pool), *automatic]
    called_back = metadata.get("annotations", {}).keys() >= LEAVING.keys()
    if change or called_back or new_taints != spec.get("taints", []):
        patch: Object = {"metadata": {"labels": change}, "spec": {"taints": new_taints or None}}
        if called_back:
            patch["metadata"]["annotations"] = dict.fromkeys(LEAVING)
            patch["spec"]["unschedulable"] = None
        await objects.patch("nodes", metadata["name"], patch)


async def _drain(objects: Objects, node: str) -> None:
    """Evict the pods of a node, as ``kubectl drain`` does, and wait a little for them."""
    wish = {"apiVersion": "policy/v1", "kind": "Eviction", "deleteOptions": {"gracePeriodSeconds": POD_GRACE_SECONDS}}
    for pod in await _pods(objects, node, daemons=False):
        head = {each: pod["metadata"][each] for each in ("name", "namespace")}
        with ignoring(404):
            await objects.create("pods", {**wish, "metadata": head}, **head, subresource="eviction")
    for _ in range(POD_GRACE_SECONDS * 10):
        if not await _pods(objects, node, daemons=False):
            break
        await asyncio.sleep(0.1)


async def _pods(objects: Objects, node: str, *, daemons: bool) -> list[Object]:
    found, _ = await objects.list("pods", field_selector=f"spec.nodeName={node}")
    return [pod for pod in found if daemons or not owned_by_daemon_set(pod)]


def owned_by_daemon_set(pod: Object) -> bool:
    """Whether a DaemonSet would put this pod back at once."""
    return any(owner.get("kind") == "DaemonSet" for owner in pod["metadata"].get("ownerReferences", []))
