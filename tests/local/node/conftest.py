"""A cluster of a store and a node agent. The tests bind pods to nodes themselves."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support.polling import wait_for_async

from aksgpu.local.api.registry import Registry
from aksgpu.local.api.store import Store
from aksgpu.local.control import ControllerManager
from aksgpu.local.control.endpoints_controller import EndpointsController
from aksgpu.local.node import NodeAgent
from aksgpu.local.node.pod_network import AddressPool
from aksgpu.local.objects import Object
from aksgpu.local.settings import Settings

GPU_NODE = "aks-gpunp-12345678-vmss000000"
CPU_NODE = "aks-nodepool1-12345678-vmss000000"


class Lab:
    """The cluster, and methods that shorten the tests."""

    def __init__(self, root: Path, **settings: float) -> None:
        self.root = root
        self.settings = Settings(**({"time_scale": 0.02} | settings))
        self.objects: Registry
        self.controllers: ControllerManager
        self.agent: NodeAgent

    async def start(self) -> None:
        self.objects = Registry(Store(self.root / "kube.db"))
        await self.objects.open()
        self.controllers = ControllerManager(self.objects, self.settings, (EndpointsController,))
        await self.controllers.start()
        self.agent = NodeAgent(self.objects, self.root, self.settings, AddressPool())
        await self.agent.start()

    async def stop(self, *, end_pods: bool) -> None:
        await self.agent.stop(end_pods=end_pods)
        await self.controllers.stop()
        await self.objects.close()

    async def restart(self) -> None:
        """Start another agent and another store on the same files, as after a kill."""
        await self.stop(end_pods=False)
        await self.start()

    async def add_node(self, name: str, *, gpus: int = 0, address: str = "10.224.0.4") -> Object:
        notes = {"aksgpu.dev/gpu-model": "Tesla T4", "aksgpu.dev/gpu-count": str(gpus)} if gpus else {}
        status = {
            "capacity": {"cpu": "4", "memory": "16Gi", "pods": "110"},
            "allocatable": {"cpu": "3860m", "memory": "14Gi", "pods": "110"},
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
        }
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "annotations": notes}, "status": status}
        await self.objects.create("nodes", node)
        return await self.objects.patch("nodes", name, {"status": status}, subresource="status")

    async def run(self, name: str, *command: str, node: str = CPU_NODE, **spec: Any) -> Object:
        """Create a pod with one container (or those in ``containers``) and bind it."""
        container = {"name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": list(command)}
        container |= spec.pop("container", {})
        if not container["command"]:
            del container["command"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", **spec.pop("metadata", {})},
            "spec": {"restartPolicy": "Never", "containers": [container], **spec},
        }
        made = await self.objects.create("pods", pod, "default")
        binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": node}}
        await self.objects.create("pods", binding, "default", name=name, subresource="binding")
        return made

    async def until(self, name: str, done: Callable[[Object], Any], timeout: float = 60.0) -> Object:
        """Wait until a condition holds for a pod."""

        async def pod_if_done() -> Object | None:
            pod = await self.objects.get("pods", name, "default")
            return pod if done(pod) else None

        pod = await wait_for_async(pod_if_done, timeout)
        assert pod is not None
        return pod

    async def phase(self, name: str, *phases: str) -> Object:
        return await self.until(name, lambda pod: pod.get("status", {}).get("phase") in phases)

    async def gone(self, name: str, timeout: float = 60.0) -> None:
        async def is_gone() -> bool:
            pods, _ = await self.objects.list("pods")
            return name not in [pod["metadata"]["name"] for pod in pods]

        await wait_for_async(is_gone, timeout)

    async def logs(self, name: str, container: str = "main", **options: Any) -> bytes:
        defaults: dict[str, Any] = dict.fromkeys(("since_time", "since_seconds", "tail_lines", "limit_bytes"))
        defaults |= {"follow": False, "previous": False, "timestamps": False}
        stream = await self.agent.open("default", name, container, **(defaults | options))
        return b"".join([data async for data in stream])

    async def events(self, name: str) -> list[tuple[str, str]]:
        """Return the reasons and messages of all events about an object that the agent has recorded."""
        await self.agent._events.flush()
        found, _ = await self.objects.list("events", "default")
        return [(one["reason"], one["message"]) for one in found if one["involvedObject"]["name"] == name]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(tmp_path / "cluster")
    lab.root.mkdir()
    await lab.start()
    await lab.add_node(CPU_NODE)
    await lab.add_node(GPU_NODE, gpus=2, address="10.224.0.5")
    yield lab
    await lab.stop(end_pods=True)


@pytest.fixture
def mark() -> str:
    """A word that identifies a test's processes."""
    return f"aksgpu-test-{uuid.uuid4().hex}"


def processes(mark: str) -> list[int]:
    """Return the processes whose command line contains a word."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if mark.encode() in (path / "cmdline").read_bytes() and (path / "stat").read_text().split()[2] != "Z":
                    found.append(int(path.name))
            except OSError:
                continue
    return found


def terminated(pod: Object) -> Object:
    """Return the state of a pod's first container, which has ended."""
    state: Object = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    return state
