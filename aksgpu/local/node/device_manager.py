"""A node's devices: plugins register, their devices are counted and handed out, each to one pod at a time.

The node's side of the protocol that :mod:`aksgpu.local.images.device_plugin` describes. Nothing here knows GPUs: any
plugin that speaks it can offer any resource.
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
from aksgpu.local.control.controller_runtime import Tasks
from aksgpu.local.home import write_private
from aksgpu.local.images import device_plugin as protocol

log = logging.getLogger(__name__)

RETURN_SECONDS = 5.0
"""How long plugins have to register again after the laptop was restarted, before their devices count as lost."""


class AdmissionError(Exception):
    """The node cannot give the pod the devices that the scheduler counted on."""


@dataclass
class _Resource:
    """What one resource's plugin offers."""

    devices: dict[str, bool] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    plugin: asyncio.StreamWriter | None = None
    service: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    def free(self) -> list[str]:
        return [name for name, healthy in self.devices.items() if healthy and name not in self.users]


class DeviceManager:
    """The devices of one node.

    Args:
        directory: the node's ``/var/lib/kubelet/device-plugins``.
        changed: called when capacity or allocatable may have changed.
    """

    def __init__(self, directory: Path, changed: Callable[[], None]) -> None:
        self._directory = directory
        self._changed = changed
        self._resources: dict[str, _Resource] = {}
        self._ending: set[str] = set()
        self._freed = asyncio.Event()
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._tasks = Tasks()
        self._checkpoint = directory.parent / "devices.json"

    def start(self) -> None:
        """Remember the plugins from before a restart; they have a few seconds to come back."""
        with contextlib.suppress(FileNotFoundError):
            for resource, names in json.loads(self._checkpoint.read_text()).items():
                known = self._resources.setdefault(resource, _Resource())
                known.devices = dict.fromkeys(names, True)
                self._tasks.spawn(self._expire(known))

    def offer(self, resource: str, ids: list[str], *, healthy: bool) -> None:
        """Take devices from a service of the node, which is no pod, in place of a plugin."""
        one = self._resources.setdefault(resource, _Resource())
        one.devices = dict.fromkeys(ids, healthy)
        one.service = True
        one.settled.set()
        self._save()
        self._changed()

    async def serve(self) -> None:
        """Listen for plugins. Called when the first pod comes that may be one: most nodes never have any."""
        if self._socket is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._socket = protocol.listen(self._directory / "kubelet.sock")
            self._server = await asyncio.start_unix_server(
                lambda reader, writer: self._tasks.spawn(self._serve(reader, writer)), sock=self._socket
            )

    async def stop(self) -> None:
        """Stop listening. Plugins may go on running."""
        if self._server is not None:
            self._server.close()
        await self._tasks.cancel()

    def counts(self) -> dict[str, tuple[int, int]]:
        """Capacity and allocatable of each resource that ever had a plugin here."""
        return {name: (len(one.devices), sum(one.devices.values())) for name, one in self._resources.items()}

    def restore(self, pod: str, devices: Mapping[str, Mapping[str, list[str]]]) -> None:
        """Remember which devices a pod has, from before a restart: container -> resource -> ids."""
        for resources in devices.values():
            for resource, names in resources.items():
                one = self._resources.setdefault(resource, _Resource())
                one.users |= dict.fromkeys(names, pod)

    def ending(self, pod: str) -> None:
        """The pod is being ended: its devices will soon be free."""
        self._ending.add(pod)

    def release(self, pod: str) -> None:
        """The pod has ended: its devices are free."""
        self._ending.discard(pod)
        self._freed.set()
        for one in self._resources.values():
            one.users = {name: user for name, user in one.users.items() if user != pod}

    async def allocate(self, pod: str, spec: Mapping[str, Any]) -> dict[str, dict[str, list[str]]]:
        """Give a pod the devices that its limits name: container -> resource -> ids.

        Init containers use what the other containers will have, as they run before them.

        Raises:
            AdmissionError: not enough healthy devices are free.
        """
        given: dict[str, dict[str, list[str]]] = {}
        pools: dict[str, list[str]] = {}
        init = spec.get("initContainers") or []
        try:
            for container in (*spec["containers"], *init):
                for resource, count in self._wanted(container).items():
                    pool = pools.setdefault(resource, [])
                    names = pool[:count] if container in init else []
                    more = await self._take(pod, resource, count - len(names)) if len(names) < count else []
                    pool += more
                    given.setdefault(container["name"], {})[resource] = names + more
        except AdmissionError:
            self.release(pod)
            raise
        return given

    def _wanted(self, container: Mapping[str, Any]) -> dict[str, int]:
        limits = (container.get("resources") or {}).get("limits") or {}
        counts = {name: int(quantities.parse(limits[name])) for name in limits if name in self._resources}
        return {name: count for name, count in counts.items() if count > 0}

    async def _take(self, pod: str, resource: str, count: int) -> list[str]:
        one = self._resources[resource]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETURN_SECONDS):
                await self._wait_for(one, count)
        free = one.free()
        if len(free) < count:
            text = f"requested number of devices unavailable for {resource}. Requested: {count}, Available: {len(free)}"
            raise AdmissionError(f"Allocate failed due to {text}, which is unexpected")
        names = free[:count]
        one.users |= dict.fromkeys(names, pod)
        return names

    async def _wait_for(self, one: _Resource, count: int) -> None:
        """Wait for a plugin that may come back after a restart, and for pods that are being killed."""
        if one.plugin is None:
            await one.settled.wait()
        while len(one.free()) < count and not self._ending.isdisjoint(one.users.values()):
            self._freed.clear()
            await self._freed.wait()

    async def _expire(self, one: _Resource) -> None:
        await asyncio.sleep(RETURN_SECONDS)
        if one.plugin is None and not one.service:
            self._lost(one)

    def _lost(self, one: _Resource) -> None:
        one.devices = dict.fromkeys(one.devices, False)
        one.plugin = None
        one.settled.set()
        self._changed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Listen to a plugin. One that came later for the same resource is the one that counts, as for a kubelet."""
        mine: _Resource | None = None
        try:
            while line := await reader.readline():
                told = json.loads(line)
                devices = {str(device["id"]): device["health"] == "Healthy" for device in told["devices"]}
                if mine is None:
                    mine = self._resources.setdefault(str(told["resource_name"]), _Resource())
                    mine.plugin = writer
                if mine.plugin is writer:
                    mine.devices = devices
                    self._save()
                    mine.settled.set()
                    self._changed()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # no message of the protocol
            log.warning("device plugin: %r", error)
        finally:
            writer.close()
        if mine is not None and mine.plugin is writer:
            self._lost(mine)

    def _save(self) -> None:
        known = {name: list(one.devices) for name, one in self._resources.items()}
        write_private(self._checkpoint, json.dumps(known).encode())
