"""The kubelet's part of a node: conditions, heartbeats, devices, pulled images.

Resource Manager creates and deletes nodes. Pods are in :mod:`aksgpu.local.node.pod`.
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
from aksgpu.common.private_files import write_private
from aksgpu.local import node_annotations
from aksgpu.local.control.controller_runtime import Tasks, get_condition
from aksgpu.local.control.event_recorder import EventRecorder
from aksgpu.local.control.informer import version_of
from aksgpu.local.control.node_lifecycle import LEASE_NAMESPACE
from aksgpu.local.images import device_plugin
from aksgpu.local.node import gpus
from aksgpu.local.node.device_manager import DeviceManager
from aksgpu.local.node.start_limiter import StartLimiter
from aksgpu.local.objects import Object, Objects
from aksgpu.local.status_error import StatusError, ignoring

log = logging.getLogger(__name__)

LEASE_SECONDS = 10.0
"""Time between two renewals of a node's lease."""
LEASE_DURATION_SECONDS = 40
"""Time for which a lease is valid."""
STATUS_SECONDS = 300.0
"""Time between two writes of a node's status that has not changed."""
MAX_STATUS_RETRY_SECONDS = 30.0
_SHUTDOWN_TAINT = "node.cloudprovider.kubernetes.io/shutdown"
_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)
_CONNECTION_ERRORS = {
    "kubelet": "dial tcp {}:10250: connect: connection refused",
    "tunnel": "write unix @->/tunnel-uds/proxysocket: write: broken pipe",
}
"""The API server's error if the kubelet does not listen, or if AKS' tunnel to the nodes is broken."""
_MANAGED_GPU_SERVICES = ("NvidiaDevicePlugin", "NvidiaDCGMServices")


class Node:
    """A node of the cluster.

    Args:
        objects: the cluster's objects.
        events: the recorder of events.
        node: the Node object.
        root: the cluster's directory.
        starts: limits how many nodes write their first lease and status at the same time.

    Attributes:
        object: the latest version of the Node object.
        gpus: its GPUs, even if no device plugin offers them.
        images: the images that were pulled since the laptop started.
        devices: the devices that plugins offer, and the pods that use them.
        kubelet: the node's own ``/var/lib/kubelet``.
    """

    def __init__(self, objects: Objects, events: EventRecorder, node: Object, root: Path, starts: StartLimiter) -> None:
        self._objects = objects
        self._starts = starts
        self._events = events
        self.object = node
        self.gpus: list[gpus.Gpu] = []
        self.images: set[str] = set()
        self.name: str = node["metadata"]["name"]
        self.kubelet = root / "nodes" / self.name / "kubelet"
        self.kubelet.mkdir(parents=True, exist_ok=True)
        uid: str = node["metadata"]["uid"]
        self.devices = DeviceManager(self.kubelet / "device-plugins", uid, lambda: self._dirty.set())
        self._dirty = asyncio.Event()
        self._tasks = Tasks()
        self._start_recorded = False

    @property
    def deallocated(self) -> bool:
        """Whether the virtual machine is deallocated, so that no kubelet is running."""
        taints = (self.object.get("spec") or {}).get("taints") or []
        return any(taint["key"] == _SHUTDOWN_TAINT for taint in taints)

    @property
    def container_log_max_mb(self) -> float | None:
        """Size at which logs are rotated, in megabytes; None to use the laptop's setting."""
        size = self._annotations.get(node_annotations.CONTAINER_LOG_MAX_MB)
        with contextlib.suppress(TypeError, ValueError):
            return float(size) if size else None
        return None

    @property
    def connection_error(self) -> str:
        """The API server's error text if it cannot reach the kubelet; empty if it can."""
        cause = self._annotations.get(node_annotations.KUBELET_AWAY, "")
        return _CONNECTION_ERRORS.get(cause, "").format(self.ip)

    @property
    def driver_error_file(self) -> Path | None:
        """The file that holds NVML's error message while the driver is broken. None on nodes without GPUs."""
        return self.kubelet / "gpu-driver-error" if self.gpus else None

    @property
    def _annotations(self) -> Mapping[str, str]:
        return self.object["metadata"].get("annotations") or {}

    def update(self, node: Object) -> None:
        """Store a new version of the Node object, and break or repair the driver according to its annotation.

        A version that is older than the known one is ignored. The watch may deliver it after the node has read a newer
        one.
        """
        if version_of(node) < version_of(self.object):
            return
        self.object = node
        if get_condition(node, "Ready").get("status") == "Unknown":
            self._dirty.set()  # the node controller considers the node lost
        file = self.driver_error_file
        if file is None:
            return
        message = self._annotations.get(node_annotations.GPU_DRIVER_ERROR, "")
        if file.exists() != bool(message):
            if message:
                write_private(file, message)  # in one step, because programs in containers read it
            else:
                file.unlink()
            self._offer_managed_gpus()

    def _offer_managed_gpus(self) -> None:
        """Offer the GPUs of a managed pool, whose device plugin is a service of the node and not a pod."""
        managed = self._annotations.get(node_annotations.GPU_MANAGEMENT_MODE) == "Managed"
        if not managed or self.driver_error_file is None:
            return
        found = [asdict(gpu) for gpu in self.gpus]
        strategy = self._annotations.get(node_annotations.GPU_MIG_STRATEGY, "none")
        resource, ids = device_plugin.offered_devices(found, strategy)
        self.devices.offer(resource, ids, healthy=not self.driver_error_file.exists())

    @property
    def ip(self) -> str:
        """The node's internal IP address."""
        addresses = (self.object.get("status") or {}).get("addresses") or []
        return next((entry["address"] for entry in addresses if entry["type"] == "InternalIP"), "127.0.0.1")

    def start(self) -> None:
        """Start renewing the lease and posting the status."""
        self.devices.start()
        self._offer_managed_gpus()
        self.update(self.object)
        self._tasks.spawn(self._run())

    async def stop(self) -> None:
        """Stop renewing the lease and posting the status."""
        await self._tasks.cancel()
        await self.devices.stop()

    async def _run(self) -> None:
        """Write the lease and the status once, and then each in its own interval."""
        async with self._starts.slot():
            await self._try_to_renew_lease()
            failures = await self._try_to_post_status(0)
        self._tasks.spawn(self._renew_lease_periodically())
        await self._post_status_periodically(failures)

    async def _renew_lease_periodically(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS)
            await self._try_to_renew_lease()

    async def _try_to_renew_lease(self) -> None:
        try:
            if not self.deallocated:
                await self._renew_lease()
        except StatusError as error:
            log.info("lease of %s: %s", self.name, error)

    async def _renew_lease(self) -> None:
        now = times.now_micro()
        try:
            await self._objects.patch("leases", self.name, {"spec": {"renewTime": now}}, LEASE_NAMESPACE)
        except StatusError as error:
            if error.code != 404:
                raise
            owner = {"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": self.object["metadata"]["uid"]}
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self.name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]},
                "spec": {
                    "holderIdentity": self.name,
                    "leaseDurationSeconds": LEASE_DURATION_SECONDS,
                    "renewTime": now,
                },
            }
            await self._objects.create("leases", lease, LEASE_NAMESPACE)

    async def _post_status_periodically(self, failures: int) -> None:
        """Post the node's status when devices change, and every five minutes.

        Args:
            failures: how often in a row it could not be posted so far.
        """
        while True:
            pause = min(MAX_STATUS_RETRY_SECONDS, 0.1 * 2 ** min(failures, 9)) if failures else STATUS_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._dirty.wait()
            failures = await self._try_to_post_status(failures)

    async def _try_to_post_status(self, failures: int) -> int:
        """Post the node's status. Return how often in a row that failed."""
        self._dirty.clear()
        try:
            if not self.deallocated:
                await self._post_status()
        except StatusError as error:
            log.info("status of %s: %s", self.name, error)
            return failures + 1
        return 0

    async def _post_status(self) -> None:
        """Post the status, unless the virtual machine has been deallocated in the meantime."""
        while True:
            # Read the node first, because the watch may not have delivered its taints and conditions.
            node = await self._objects.get("nodes", self.name)
            if node["metadata"]["uid"] != self.object["metadata"]["uid"]:
                return  # It has been replaced by another one of the same name.
            self.object = node
            if self.deallocated:
                return
            with ignoring(409):  # Another component has changed the node since then.
                await self._patch_status(await self._update_gpu_labels(node))
                return

    async def _patch_status(self, node: Object) -> None:
        """Post the status of a version of the node; raises StatusError 409 if there is a newer one."""
        old = {condition["type"]: condition for condition in (node.get("status") or {}).get("conditions") or []}
        became_ready = (old.get("Ready") or {}).get("status") != "True"
        own: list[dict[str, Any]] = []
        for kind, state, reason, message in (*_CONDITIONS, *self._gpu_service_conditions()):
            own.append(self._condition(kind, state, reason, message, old.pop(kind, None)))
        status: dict[str, Any] = {"conditions": [*old.values(), *own]}
        for resource, (capacity, allocatable) in self.devices.counts().items():
            status.setdefault("capacity", {})[resource] = str(capacity)
            status.setdefault("allocatable", {})[resource] = str(allocatable)
        patch = {"metadata": {"resourceVersion": node["metadata"]["resourceVersion"]}, "status": status}
        self.object = await self._objects.patch("nodes", self.name, patch, subresource="status")
        self._record_start_events(became_ready)

    def _gpu_service_conditions(self) -> list[tuple[str, str, str, str]]:
        """Return AKS' conditions for the GPU services of a managed pool: type, status, reason and message."""
        managed = self._annotations.get(node_annotations.GPU_MANAGEMENT_MODE) == "Managed"
        if not managed or self.driver_error_file is None:
            return []
        broken = self.driver_error_file.exists()
        health = "Unhealthy" if broken else "Healthy"
        return [
            (f"Unhealthy{name}", str(broken), health + name, f"{name}: {health.lower()}")
            for name in _MANAGED_GPU_SERVICES
        ]

    async def _update_gpu_labels(self, node: Object) -> Object:
        """Label the node with the kind of its GPUs, and return the labelled version.

        With real GPUs, the model and memory are those of this machine and not of the VM size. The product label is that
        of NVIDIA's GPU feature discovery.

        Raises:
            StatusError: status 409, if there is a newer version than ``node``.
        """
        if not self.gpus:
            return node
        first = self.gpus[0]
        patch = {"labels": {node_annotations.GPU_KIND_LABEL: "simulated" if first.simulated else "nvml"}}
        if not first.simulated:
            patch["labels"][gpus.PRODUCT_LABEL] = first.model.replace(" ", "-")
            patch["annotations"] = {
                node_annotations.GPU_MODEL: first.model,
                node_annotations.GPU_MEMORY_MIB: str(first.memory_mib),
            }
        if any(not new.items() <= (node["metadata"].get(key) or {}).items() for key, new in patch.items()):
            # The response would otherwise contain changes that the caller has not checked, such as the taint of a
            # deallocated machine.
            version = {"resourceVersion": node["metadata"]["resourceVersion"]}
            return await self._objects.patch("nodes", self.name, {"metadata": {**version, **patch}})
        return node

    @staticmethod
    def _condition(kind: str, status: str, reason: str, message: str, old: dict[str, Any] | None) -> dict[str, Any]:
        now = times.now()
        return {
            "lastHeartbeatTime": now,
            "lastTransitionTime": old["lastTransitionTime"] if old and old["status"] == status else now,
            "message": message,
            "reason": reason,
            "status": status,
            "type": kind,
        }

    def _record_start_events(self, became_ready: bool) -> None:
        """Record the events of a kubelet that starts."""
        events = []
        if not self._start_recorded:
            self._start_recorded = True
            events.append(("Starting", "Starting kubelet."))
        if became_ready:
            events.append(("NodeReady", f"Node {self.name} status is now: NodeReady"))
        for reason, message in events:
            # A kubelet uses the node's name as its uid, and `kubectl describe node` looks for that.
            involved = {"kind": "Node", "apiVersion": "", "metadata": {"name": self.name, "uid": self.name}}
            self._events.record_event("kubelet", involved, "Normal", reason, message, host=self.name)
