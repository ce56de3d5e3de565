"""The devices of a node. Plugins register them, and each device is assigned to at most one pod.

This is the node's side of the protocol in :mod:`aksgpu.local.images.device_plugin`. Plugins can offer any resource,
not only GPUs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aksgpu.common import quantities
from aksgpu.common.private_files import write_private
from aksgpu.local.control.controller_runtime import Tasks
from aksgpu.local.images import device_plugin as protocol

log = logging.getLogger(__name__)

REGISTRATION_SECONDS = 30.0
"""Time in which plugins must register again after a restart of the laptop, or their devices are lost."""


class AdmissionError(Exception):
    """The node does not have the devices that the scheduler expected."""


@dataclass
class _Resource:
    """One resource.

    Attributes:
        devices: whether each device is healthy, by id.
        users: the uid of the pod that uses a device, by the device's id.
        plugin: the connection of its plugin.
        max_request: how many devices a container may request; None without a limit.
        is_service: whether a service of the node offers the devices, not a plugin.
        registered: set when a plugin has registered, or is no longer expected.
    """

    devices: dict[str, bool] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    plugin: asyncio.StreamWriter | None = None
    max_request: int | None = None
    is_service: bool = False
    registered: asyncio.Event = field(default_factory=asyncio.Event)

    def free_devices(self) -> list[str]:
        return [name for name, healthy in self.devices.items() if healthy and name not in self.users]


class DeviceManager:
    """The devices of one node.

    Args:
        directory: the node's ``/var/lib/kubelet/device-plugins``.
        node: the node's uid. A new node does not have the devices of an earlier one of the same name.
        changed: called when capacity or allocatable may have changed.
    """

    def __init__(self, directory: Path, node: str, changed: Callable[[], None]) -> None:
        self._directory = directory
        self._changed = changed
        self._resources: dict[str, _Resource] = {}
        self._ending: set[str] = set()
        self._freed = asyncio.Event()
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._tasks = Tasks()
        self._checkpoint = directory.parent / f"devices-{node}.json"

    def start(self) -> None:
        """Restore the devices from before a restart. Their plugins have half a minute to register again."""
        with contextlib.suppress(FileNotFoundError):
            for resource, names in json.loads(self._checkpoint.read_text()).items():
                restored = self._get_resource(resource)
                restored.devices = dict.fromkeys(names, True)
                self._tasks.spawn(self._expire(restored))

    def _get_resource(self, name: str) -> _Resource:
        return self._resources.setdefault(name, _Resource())

    def offer(self, resource: str, ids: list[str], *, healthy: bool) -> None:
        """Offer devices on behalf of a service of the node, which replaces a plugin."""
        offered = self._get_resource(resource)
        offered.devices = dict.fromkeys(ids, healthy)
        offered.is_service = True
        offered.registered.set()
        self._save()
        self._changed()

    async def serve(self) -> None:
        """Listen for plugins. Nodes call this only when a pod may be a plugin, because most nodes have none."""
        if self._socket is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._socket = protocol.listen(self._directory / "kubelet.sock")
            self._server = await asyncio.start_unix_server(
                lambda reader, writer: self._tasks.spawn(self._serve_plugin(reader, writer)), sock=self._socket
            )

    async def stop(self) -> None:
        """Stop listening. Plugins may keep running."""
        if self._server is not None:
            self._server.close()
        await self._tasks.cancel()

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return capacity and allocatable of each resource that has ever been offered on this node."""
        return {
            name: (len(resource.devices), sum(resource.devices.values())) for name, resource in self._resources.items()
        }

    def restore(self, pod: str, devices: Mapping[str, Mapping[str, list[str]]]) -> None:
        """Record the devices of a pod that has been running since before a restart.

        Args:
            pod: the pod's uid.
            devices: the ids of its devices by container and resource.
        """
        for resources in devices.values():
            for resource, ids in resources.items():
                self._get_resource(resource).users |= dict.fromkeys(ids, pod)

    def mark_ending(self, pod: str) -> None:
        """Record that a pod is ending, so that its devices will soon be free."""
        self._ending.add(pod)

    def release(self, pod: str) -> None:
        """Free the devices of a pod that has ended."""
        self._ending.discard(pod)
        self._freed.set()
        for resource in self._resources.values():
            resource.users = {device: user for device, user in resource.users.items() if user != pod}

    async def allocate(self, pod: str, spec: Mapping[str, Any]) -> dict[str, dict[str, list[str]]]:
        """Assign the devices in a pod's limits.

        Init containers share the devices of the other containers, because they end before those start.

        Args:
            pod: the pod's uid.
            spec: the pod's spec.

        Returns:
            The ids of the devices by container and resource.

        Raises:
            AdmissionError: not enough healthy devices are free, or a container requests too many of a shared device.
        """
        assigned: dict[str, dict[str, list[str]]] = {}
        taken: dict[str, list[str]] = {}
        init = spec.get("initContainers") or []
        try:
            for container in (*spec["containers"], *init):
                for resource, count in self._requested(container).items():
                    ids = taken.setdefault(resource, [])[:count] if container in init else []
                    missing = count - len(ids)
                    if missing > 0:
                        new_ids = await self._take(pod, resource, missing)
                        taken.setdefault(resource, []).extend(new_ids)
                        ids += new_ids
                    assigned.setdefault(container["name"], {})[resource] = ids
        except AdmissionError:
            self.release(pod)
            raise
        return assigned

    def _requested(self, container: Mapping[str, Any]) -> dict[str, int]:
        """Return the number of devices that a container requests, by resource."""
        limits = (container.get("resources") or {}).get("limits") or {}
        counts = {name: int(quantities.parse(limits[name])) for name in limits if name in self._resources}
        return {name: count for name, count in counts.items() if count > 0}

    async def _take(self, pod: str, name: str, count: int) -> list[str]:
        resource = self._resources[name]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REGISTRATION_SECONDS):
                await self._wait_for_devices(resource, count)
        if resource.max_request is not None and count > resource.max_request:
            limit = f"maximum request size for shared resources is {resource.max_request}; found {count}"
            text = f"rpc error: code = Unknown desc = request for '{name}' too large: {limit}"
            raise AdmissionError(f"Allocate failed due to {text}, which is unexpected")
        free = resource.free_devices()
        if len(free) < count:
            text = f"requested number of devices unavailable for {name}. Requested: {count}, Available: {len(free)}"
            raise AdmissionError(f"Allocate failed due to {text}, which is unexpected")
        ids = free[:count]
        resource.users |= dict.fromkeys(ids, pod)
        return ids

    async def _wait_for_devices(self, resource: _Resource, count: int) -> None:
        """Wait for a plugin that may register again after a restart, and for pods that are ending."""
        if resource.plugin is None:
            await resource.registered.wait()
        while len(resource.free_devices()) < count and not self._ending.isdisjoint(resource.users.values()):
            self._freed.clear()
            await self._freed.wait()

    async def _expire(self, resource: _Resource) -> None:
        """Mark restored devices as unhealthy if no plugin registers in time."""
        await asyncio.sleep(REGISTRATION_SECONDS)
        if resource.plugin is None and not resource.is_service:
            self._mark_lost(resource)

    def _mark_lost(self, resource: _Resource) -> None:
        resource.devices = dict.fromkeys(resource.devices, False)
        resource.plugin = None
        resource.registered.set()
        self._changed()

    async def _serve_plugin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read the messages of a plugin. As in a kubelet, a plugin replaces an earlier one for the same resource."""
        resource: _Resource | None = None
        try:
            while line := await reader.readline():
                message = json.loads(line)
                devices = {str(device["id"]): device["health"] == "Healthy" for device in message["devices"]}
                if resource is None:
                    resource = self._get_resource(str(message["resource_name"]))
                    resource.plugin = writer
                if resource.plugin is writer:
                    resource.devices = devices
                    resource.max_request = message.get("max_request")
                    self._save()
                    resource.registered.set()
                    self._changed()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # not a message of the protocol
            log.warning("device plugin: %r", error)
        finally:
            writer.close()
        if resource is not None and resource.plugin is writer:
            self._mark_lost(resource)

    def _save(self) -> None:
        devices = {name: list(resource.devices) for name, resource in self._resources.items()}
        write_private(self._checkpoint, json.dumps(devices).encode())
