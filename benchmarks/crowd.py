"""A cluster of 1,000 nodes and 10,000 pods for the benchmarks, written into the store of a private laptop AKS.

The pods have ended, because 10,000 running pods would be 10,000 processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from load import Api, small_cluster

from aksgpu import local
from aksgpu.local.api.registry import Registry
from aksgpu.local.api.store import Store

NODES = 1_000
PODS = 10_000
GPU = "nvidia.com/gpu"
SIZE = "Standard_NC64as_T4_v3"


def node(number: int, like: dict[str, Any]) -> dict[str, Any]:
    """Return a GPU node like another one."""
    made = copy.deepcopy(like)
    name = f"aks-crowd-{number:05d}-vmss000000"
    made["metadata"] = {"name": name, "labels": {**like["metadata"]["labels"], "kubernetes.io/hostname": name}}
    made["metadata"]["labels"] |= {
        "accelerator": "nvidia",
        "agentpool": "crowd",
        "node.kubernetes.io/instance-type": SIZE,
    }
    made["spec"] = {"providerID": f"azure:///{name}"}
    for part in ("capacity", "allocatable"):
        made["status"][part] = {**like["status"][part], GPU: "4", "cpu": "64", "memory": "400Gi"}
    return made


def pod(number: int, where: str | None) -> dict[str, Any]:
    """Return a pod of a Job like the tutorial's, on a node or without one."""
    container = {
        "name": "main",
        "image": "mcr.microsoft.com/azuredocs/samples-tf-mnist-demo:gpu",
        "args": ["--max_steps", "500"],
        "resources": {"limits": {GPU: "1"} if number % 4 == 0 else {"cpu": "500m", "memory": "1Gi"}},
    }
    spec: dict[str, Any] = {"containers": [container], "restartPolicy": "Never"}
    if where:
        spec["nodeName"] = where
    labels = {"app": f"train-{number % 50}"}
    return {"metadata": {"name": f"crowd-{number:05d}", "labels": labels}, "spec": spec}


def ended(pod: dict[str, Any]) -> dict[str, Any]:
    """Return the pod with the status of one that succeeded."""
    times = {"startedAt": "2026-11-24T06:00:00Z", "finishedAt": "2026-11-24T06:01:00Z"}
    end = {"exitCode": 0, "reason": "Completed", "containerID": "containerd://" + "0" * 64, **times}
    image = pod["spec"]["containers"][0]["image"]
    state = {"name": "main", "ready": False, "started": False, "restartCount": 0, "image": image, "imageID": image}
    status = {"phase": "Succeeded", "containerStatuses": [{**state, "lastState": {}, "state": {"terminated": end}}]}
    return {**pod, "status": status}


async def fill(path: Path) -> None:
    """Write nodes and pods into a store."""
    registry = Registry(Store(path))
    await registry.open()
    (like, *_), _ = await registry.list("nodes")
    nodes = [node(number, like) for number in range(NODES)]
    for made in nodes:
        made["metadata"]["uid"] = ""
    for start in range(0, NODES, 100):
        await asyncio.gather(*(_with_status(registry, "nodes", each) for each in nodes[start : start + 100]))
    names = [each["metadata"]["name"] for each in nodes]
    for start in range(0, PODS, 100):
        pods = (ended(pod(number, names[number % NODES])) for number in range(start, start + 100))
        await asyncio.gather(*(_with_status(registry, "pods", each) for each in pods))
    await registry.close()


async def _with_status(registry: Registry, resource: str, obj: dict[str, Any]) -> None:
    namespace = "default" if resource == "pods" else None
    made = await registry.create(resource, obj, namespace)
    await registry.update(resource, {**made, "status": obj["status"]}, subresource="status")


@contextlib.contextmanager
def crowded_cluster() -> Iterator[Api]:
    """A private laptop AKS, stopped, whose cluster has these nodes and pods."""
    with small_cluster() as api:
        local.stop(home=api.home)
        (store,) = (api.home / "clusters").glob("*/kube.db")
        asyncio.run(fill(store))
        yield api
