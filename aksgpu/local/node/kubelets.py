"""One node as its kubelet keeps it: conditions, heartbeats, devices, addresses for pods, images that are there.

Nodes are made and removed by Resource Manager; pods are in :mod:`aksgpu.local.node.pod`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aksgpu.common import times
from aksgpu.local.control.controller_runtime import Tasks, get_condition
from aksgpu.local.control.event_recorder import EventRecorder
from aksgpu.local.images import device_plugin
from aksgpu.local.node import gpus
from aksgpu.local.node.device_manager import DeviceManager
from aksgpu.local.objects import Object, Objects
from aksgpu.local.status_error import StatusError

log = logging.getLogger(__name__)

LEASE_SECONDS = 10.0
REPORT_SECONDS = 300.0
_LEASES = "kube-node-lease"
_SHUTDOWN = "node.cloudprovider.kubernetes.io/shutdown"
_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)
_SERVICES = ("NvidiaDevicePlugin", "NvidiaDCGMServices")


class Node:
    """A node of the cluster.

    Attributes:
        object: the Node object as last seen.
        gpus: the GPUs that it has, whether or not a plugin offers them.
        images: those that were pulled since the laptop started.
        ips: the addresses of its pods.
        devices: what device plugins offer, and who has it.
        kubelet: the node's own ``/var/lib/kubelet``.
    """

    def __init__(self, objects: Objects, events: EventRecorder, node: Object, root: Path) -> None:
        self._objects = objects
        self._events = events
        self.object = node
        self.gpus: list[gpus.Gpu] = []
        self.images: set[str] = set()
        self.name: str = node["metadata"]["name"]
        self.kubelet = root / "nodes" / self.name / "kubelet"
        self.kubelet.mkdir(parents=True, exist_ok=True)
        self.devices = DeviceManager(self.kubelet / "device-plugins", lambda: self._dirty.set())
        self._dirty = asyncio.Event()
        self._tasks = Tasks()
        self.ips: set[str] = set()
        self._announced = False

    @property
    def off(self) -> bool:
        """Whether the virtual machine is deallocated: nobody is there to report."""
        taints = (self.object.get("spec") or {}).get("taints") or []
        return any(taint["key"] == _SHUTDOWN for taint in taints)

    @property
    def driver(self) -> Path | None:
        """The file that says what NVML says while the driver is broken; None on nodes without GPUs."""
        return self.kubelet / "gpu-driver-error" if self.gpus else None

    @property
    def _notes(self) -> Mapping[str, str]:
        return self.object["metadata"].get("annotations") or {}

    def see(self, node: Object) -> None:
        """Take over the Node object, and what Resource Manager says there of the driver."""
        self.object = node
        if get_condition(node, "Ready").get("status") == "Unknown":
            self._dirty.set()  # somebody took the node for lost
        if self.driver is None:
            return
        problem = self._notes.get(gpus.BROKEN, "")
        if self.driver.exists() != bool(problem):
            if problem:
                self.driver.write_text(problem)
            else:
                self.driver.unlink()
            self._serve()

    def _serve(self) -> None:
        """On managed pools the plugin is a service of the node, which is played here."""
        if self._notes.get(gpus.MANAGED) != "Managed" or self.driver is None:
            return
        mine = [asdict(gpu) for gpu in self.gpus]
        resource, ids = device_plugin.offered(mine, self._notes.get(gpus.MIG_STRATEGY, "none"))
        self.devices.offer(resource, ids, healthy=not self.driver.exists())

    @property
    def ip(self) -> str:
        """The node's internal address."""
        addresses = (self.object.get("status") or {}).get("addresses") or []
        return next((one["address"] for one in addresses if one["type"] == "InternalIP"), "127.0.0.1")

    def start(self) -> None:
        """Begin to report."""
        self.devices.start()
        self._serve()
        self.see(self.object)
        self._tasks.spawn(self._heartbeat())
        self._tasks.spawn(self._report())

    async def stop(self) -> None:
        """Stop reporting."""
        await self._tasks.cancel()
        await self.devices.stop()

    def pod_ip(self) -> str:
        """An address for a pod that is free on this node."""
        third, fourth = map(int, self.ip.split(".")[2:])
        addresses = [f"10.{244 + third % 8}.{fourth}.{number}" for number in range(2, 255)]
        address = next((one for one in addresses if one not in self.ips), addresses[-1])
        self.ips.add(address)
        return address

    async def _heartbeat(self) -> None:
        """Renew the node's lease, for ever."""
        while True:
            try:
                if not self.off:
                    await self._renew()
            except StatusError as error:
                log.info("lease of %s: %s", self.name, error)
            await asyncio.sleep(LEASE_SECONDS)

    async def _renew(self) -> None:
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": times.now_micro()}
        try:
            await self._objects.patch("leases", self.name, {"spec": {"renewTime": spec["renewTime"]}}, _LEASES)
        except StatusError as error:
            if error.code != 404:
                raise
            owner = {"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": self.object["metadata"]["uid"]}
            head = {"name": self.name, "namespace": _LEASES, "ownerReferences": [owner]}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": head, "spec": spec}
            await self._objects.create("leases", lease, _LEASES)

    async def _report(self) -> None:
        """Post the node's status now, when devices change, and every five minutes."""
        failures = 0
        while True:
            self._dirty.clear()
            try:
                if not self.off:
                    await self._post()
                failures = 0
            except StatusError as error:
                failures += 1
                log.info("status of %s: %s", self.name, error)
            with contextlib.suppress(TimeoutError):
                wait = REPORT_SECONDS if not failures else min(30.0, 0.1 * 2 ** min(failures, 9))
                async with asyncio.timeout(wait):
                    await self._dirty.wait()

    async def _post(self) -> None:
        node = await self._objects.get("nodes", self.name)
        self.object = node
        await self._label(node)
        old = {condition["type"]: condition for condition in (node.get("status") or {}).get("conditions") or []}
        became_ready = (old.get("Ready") or {}).get("status") != "True"
        mine = [self._condition(*row, old.pop(row[0], None)) for row in (*_CONDITIONS, *self._services())]
        status: dict[str, Any] = {"conditions": [*old.values(), *mine]}
        for resource, (capacity, allocatable) in self.devices.counts().items():
            status.setdefault("capacity", {})[resource] = str(capacity)
            status.setdefault("allocatable", {})[resource] = str(allocatable)
        self.object = await self._objects.patch("nodes", self.name, {"status": status}, subresource="status")
        self._announce(became_ready)

    def _services(self) -> list[tuple[str, str, str, str]]:
        """What AKS' problem detector says of the GPU services of a managed pool's node."""
        if self._notes.get(gpus.MANAGED) != "Managed" or self.driver is None:
            return []
        broken = self.driver.exists()
        health = "Unhealthy" if broken else "Healthy"
        return [(f"Unhealthy{name}", str(broken), health + name, f"{name}: {health.lower()}") for name in _SERVICES]

    async def _label(self, node: Object) -> None:
        """Say on the node what its GPUs really are."""
        if not self.gpus:
            return
        first = self.gpus[0]
        patch = {"labels": {gpus.LABEL: "simulated" if first.simulated else "nvml"}}
        if not first.simulated:
            # As NVIDIA's GPU feature discovery does: the size's GPU is another one than this machine's.
            patch["labels"][gpus.PRODUCT] = first.model.replace(" ", "-")
            patch["annotations"] = {gpus.MODEL: first.model, gpus.MEMORY: str(first.memory_mib)}
        if any(not new.items() <= (node["metadata"].get(key) or {}).items() for key, new in patch.items()):
            await self._objects.patch("nodes", self.name, {"metadata": patch})

    @staticmethod
    def _condition(kind: str, status: str, reason: str, message: str, old: dict[str, Any] | None) -> dict[str, Any]:
        now = times.now()
        since = old["lastTransitionTime"] if old and old["status"] == status else now
        said = {"message": message, "reason": reason, "status": status, "type": kind}
        return {"lastHeartbeatTime": now, "lastTransitionTime": since, **said}

    def _announce(self, became_ready: bool) -> None:
        """The events with which a kubelet starts."""
        told = [("NodeReady", f"Node {self.name} status is now: NodeReady")] if became_ready else []
        if not self._announced:
            self._announced = True
            told.insert(0, ("Starting", "Starting kubelet."))
        for reason, message in told:
            # A kubelet names its node by name where a uid belongs; `kubectl describe node` asks for that.
            about = {"kind": "Node", "apiVersion": "", "metadata": {"name": self.name, "uid": self.name}}
            self._events.record_event("kubelet", about, "Normal", reason, message, host=self.name)
