"""The state that the containers of a pod share, and the state that all pods of a cluster share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aksgpu.local.control.event_recorder import EventRecorder
from aksgpu.local.control.informer import Informer
from aksgpu.local.images.device_plugin import REPLICA
from aksgpu.local.node.attachments import Attachments
from aksgpu.local.node.gpus import Gpu
from aksgpu.local.node.kubelets import Node
from aksgpu.local.node.pod_network import AddressPool, HostsFiles, pod_hostname
from aksgpu.local.node.start_limiter import StartLimiter
from aksgpu.local.objects import Object, Objects
from aksgpu.local.settings import Settings


@dataclass(frozen=True)
class ClusterContext:
    """The state that all pods of a cluster share.

    Attributes:
        objects: the cluster's objects.
        events: the recorder of events.
        settings: the laptop's settings.
        root: the cluster's directory.
        tools: the directory that comes first on every container's PATH.
        gpu_tools: the directory that comes first on the PATH of containers with a GPU.
        mount_namespaces: whether the system allows them.
        addresses: the addresses of pods.
        hosts: the files ``/etc/hosts`` of the cluster's pods.
        attachments: the nodes to which disks are attached.
        claims: the informer of PersistentVolumeClaims.
        starts: limits how many pods and nodes are started at the same time.
    """

    objects: Objects
    events: EventRecorder
    settings: Settings
    root: Path
    tools: Path
    gpu_tools: Path
    mount_namespaces: bool
    addresses: AddressPool
    hosts: HostsFiles
    attachments: Attachments
    claims: Informer
    starts: StartLimiter

    async def sleep(self, seconds: float) -> None:
        """Sleep for a simulated duration."""
        await asyncio.sleep(seconds * self.settings.time_scale)


@dataclass
class PodContext:
    """The state that the containers of a pod share.

    Attributes:
        cluster: the state that all pods share.
        node: the pod's node.
        pod: the latest version of the pod.
        status_changed: set when the pod's status must be posted.
        ip: the pod's address; empty until it is admitted.
        devices: the ids of the pod's devices, by container and resource.
        volumes: the directories of the pod's volumes by name.
    """

    cluster: ClusterContext
    node: Node
    pod: Object
    status_changed: asyncio.Event = field(default_factory=asyncio.Event)
    ip: str = ""
    devices: Mapping[str, Mapping[str, list[str]]] = field(default_factory=dict)
    volumes: dict[str, Path] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        """The pod's uid."""
        return str(self.pod["metadata"]["uid"])

    @property
    def name(self) -> str:
        """The pod's name."""
        return str(self.pod["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """The pod's namespace."""
        return str(self.pod["metadata"]["namespace"])

    @property
    def hostname(self) -> str:
        """The pod's host name."""
        return pod_hostname(self.pod, self.node.name)

    @property
    def restart_policy(self) -> str:
        """The pod's restart policy."""
        return str(self.pod["spec"].get("restartPolicy", "Always"))

    @property
    def directory(self) -> Path:
        """The directory of the pod's files."""
        return self.cluster.root / "pods" / self.uid

    def record_event(self, kind: str, reason: str, message: str, field: str = "") -> None:
        """Record an event about the pod, or about the part of it that ``field`` names."""
        involved = {**self.pod, "apiVersion": "v1", "kind": "Pod"}
        self.cluster.events.record_event("kubelet", involved, kind, reason, message, host=self.node.name, field=field)

    def container_gpus(self, container: str) -> list[Gpu]:
        """Return the GPUs that are assigned to a container."""
        devices = [device for each in self.devices.get(container, {}).values() for device in each]
        ids = {device.partition(REPLICA)[0] for device in devices}  # time-slicing adds a number to a GPU's id
        return [gpu for gpu in self.node.gpus if gpu.uuid in ids]

    def addresses(self) -> dict[str, Any]:
        """Return the fields of the pod's status that hold addresses."""
        found: dict[str, Any] = {"hostIP": self.node.ip, "hostIPs": [{"ip": self.node.ip}]}
        if self.ip:
            found["podIP"] = self.ip
            found["podIPs"] = [{"ip": self.ip}]
        return found

    def pod_with_addresses(self) -> Object:
        """Return the pod with its addresses, which the API may not know yet."""
        return {**self.pod, "status": {**(self.pod.get("status") or {}), **self.addresses()}}
