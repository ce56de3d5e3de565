"""One pod on its node, from admission to the last trace: order of containers, deletion, status.

One :class:`PodRunner` per pod, a task of its own. What it needs to go on after a restart of the laptop is on disk:
``pod.json`` and the directories of the containers' runs. A container's own life is in
:mod:`aksgpu.local.node.container`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aksgpu.common import times
from aksgpu.local.control.controller_runtime import is_finished
from aksgpu.local.control.event_recorder import EventRecorder
from aksgpu.local.node import pod_status
from aksgpu.local.node.container import ContainerRunner
from aksgpu.local.node.device_manager import AdmissionError
from aksgpu.local.node.kubelets import Node
from aksgpu.local.node.volumes import MountError, Places, is_kubelets, prepare
from aksgpu.local.objects import Object, Objects
from aksgpu.local.settings import Settings
from aksgpu.local.status_error import StatusError, ignoring

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Surroundings:
    """What all pods of a cluster share.

    Attributes:
        root: the cluster's directory.
        tools: directories that come first on every container's PATH.
        gpu_tools: the same for containers with a GPU.
        view: whether the system grants mount namespaces.
    """

    objects: Objects
    events: EventRecorder
    settings: Settings
    root: Path
    tools: Path
    gpu_tools: Path
    view: bool


LEAST_SECONDS = 2.0
"""What a sidecar of a pod with a grace period has to end, though what it served took all of it; as kubelets do."""


class PodRunner:
    """Runs one pod.

    Attributes:
        pod: the pod as last seen.
        node: its node.
        all: its containers, those of the init phase first.
    """

    def __init__(self, around: Surroundings, node: Node, pod: Object) -> None:
        self.around = around
        self.node = node
        self.pod = pod
        metadata = pod["metadata"]
        spec = pod["spec"]
        self.uid = str(metadata["uid"])
        self.name = str(metadata["name"])
        self.namespace = str(metadata["namespace"])
        self.restart_policy = str(spec.get("restartPolicy", "Always"))
        self.directory = around.root / "pods" / self.uid
        self.volumes: dict[str, Path] = {}
        self.init = [ContainerRunner(self, one, init=True) for one in spec.get("initContainers") or []]
        self.containers = [ContainerRunner(self, one) for one in spec["containers"]]
        self.all = [*self.init, *self.containers]
        self._state: dict[str, Any] = {}
        self._sandbox = self._initialised = False
        self._failure: tuple[str, str] | None = None
        self._phase = ""
        self._dirty, self._stop = asyncio.Event(), asyncio.Event()
        self._deadline = float("inf")
        self._task: asyncio.Task[None]

    def tell(self, kind: str, reason: str, message: str, field: str = "") -> None:
        """Record an event of the pod."""
        about = {**self.pod, "apiVersion": "v1", "kind": "Pod"}
        self.around.events.record_event("kubelet", about, kind, reason, message, host=self.node.name, field=field)

    def changed(self) -> None:
        """Have the status posted."""
        self._dirty.set()

    def gpus_of(self, container: str) -> list[Any]:
        """The GPUs that a container was given."""
        given = self._state.get("devices", {}).get(container, {})
        ids = {name for names in given.values() for name in names}
        return [gpu for gpu in self.node.gpus if gpu.uuid in ids]

    def with_status(self) -> Object:
        """The pod with the status as it is here, addresses included."""
        return {**self.pod, "status": self._status(self.pod)}

    # How the agent drives it.

    def start(self) -> None:
        """Run the pod, from where it was before a restart of the laptop."""
        self._restore()
        self.see(self.pod)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def _restore(self) -> None:
        """Take up what is on disk; before any pod runs, as devices must not be given twice."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            self._state = json.loads((self.directory / "pod.json").read_text())
            if not is_finished(self.pod):
                self.node.ips.add(self._state["ip"])
                self.node.devices.restore(self.uid, self._state["devices"])
        for one in self.all:
            one.restore()
        self._sandbox = any(one.known for one in self.all)
        self._initialised = any(one.known for one in self.containers)

    def see(self, pod: Object) -> None:
        """Take a new version of the pod from the API; its deletion begins when it bears a deletion time."""
        self.pod = pod
        metadata = pod["metadata"]
        if "deletionTimestamp" in metadata:
            self.end(float(metadata.get("deletionGracePeriodSeconds") or 0))

    def end(self, grace: float) -> None:
        """End the pod, at the latest after ``grace`` seconds; a shorter grace than before counts."""
        self._deadline = min(self._deadline, time.monotonic() + grace)
        self.node.devices.ending(self.uid)
        self._stop.set()

    async def gone(self) -> None:
        """End the pod at once, and wait until nothing of it runs."""
        self.end(0)
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        """Run the pod to its end, and see it out of the API when it is deleted."""
        poster = asyncio.create_task(self._post_changes())
        try:
            if is_finished(self.pod):
                self._phase = self.pod["status"]["phase"]
            else:
                await self._until_stopped()
                await self._finish()
            await self._stop.wait()
            await self._insist(self._delete)
        except Exception:
            log.exception("pod %s/%s", self.namespace, self.name)
        finally:
            poster.cancel()

    async def _until_stopped(self) -> None:
        limit = self.pod["spec"].get("activeDeadlineSeconds")
        left = None
        if limit is not None:
            left = max(0.0, float(limit) - times.age(self._state.get("started") or times.now()))
        living = asyncio.create_task(self._live())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({living, stopping}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (living, stopping):
                task.cancel()
            await asyncio.wait({living, stopping})
        if not living.cancelled() and (error := living.exception()):
            log.error("pod %s/%s", self.namespace, self.name, exc_info=error)
            self._failure = ("NodeAgentError", f"the node agent failed: {error}")
        elif living.cancelled() and not self._stop.is_set():
            self._failure = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            self.tell("Normal", *self._failure)
        if not self._stop.is_set():
            grace = float(self.pod["spec"].get("terminationGracePeriodSeconds") or 0)
            self._deadline = time.monotonic() + grace

    async def _live(self) -> None:
        """Admission, volumes, init containers one after the other, then all containers until none will run again.

        A sidecar is gone on from as soon as it has started.
        """
        if not await self._admit():
            return
        self.changed()
        await self._mount()
        self._sandbox = True
        async with asyncio.TaskGroup() as beside:
            sidecars: list[asyncio.Task[bool]] = []
            for one in self.init:
                self.changed()
                if one.sidecar:
                    sidecars.append(beside.create_task(one.run()))
                    await one.started.wait()
                elif not await one.run():
                    break
            else:
                self._initialised = True
                self.changed()
                await asyncio.wait([beside.create_task(one.run()) for one in self.containers])
            for task in sidecars:
                task.cancel()  # the processes end with the pod

    async def _admit(self) -> bool:
        if self._state:
            return True
        self._state = {"started": times.now(), "ip": "", "devices": {}}
        try:
            self._state["devices"] = await self.node.devices.allocate(self.uid, self.pod["spec"])
        except AdmissionError as error:
            self._failure = ("UnexpectedAdmissionError", f"Pod was rejected: {error}")
            self.tell("Warning", "UnexpectedAdmissionError", str(error))
            return False
        host_network = self.pod["spec"].get("hostNetwork")
        self._state["ip"] = self.node.ip if host_network else self.node.pod_ip()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self.directory / "pod.json.new"
        fresh.write_text(json.dumps(self._state))
        fresh.replace(self.directory / "pod.json")
        return True

    async def _mount(self) -> None:
        places = Places(self.directory, self.node.kubelet, self.around.root / "claims")
        if any(is_kubelets(volume) for volume in self.pod["spec"].get("volumes") or []):
            await self.node.devices.serve()
        pause = 0.5
        while True:
            try:
                pod = self.with_status()
                self.volumes = await prepare(self.around.objects, pod, self.node.object, places)
                return
            except (MountError, StatusError) as error:
                self.tell("Warning", "FailedMount", str(error))
            await asyncio.sleep(pause * self.around.settings.time_scale)
            pause = min(pause * 2, 122.0)

    async def _finish(self) -> None:
        """End what still runs, sidecars one by one after what they served, and post the final status."""
        served = [one for one in self.all if not one.sidecar]
        more = LEAST_SECONDS if self._deadline > time.monotonic() else 0.0
        for ending in (served, *([one] for one in reversed(self.init) if one.sidecar)):
            async with asyncio.TaskGroup() as group:
                for one in ending:
                    group.create_task(self._end(one, more if one.sidecar else 0.0))
        self._sandbox = False
        good = not self._failure and all(pod_status.exit_code(one.status) == 0 for one in self.containers)
        self._phase = "Succeeded" if good else "Failed"
        self.node.devices.release(self.uid)
        self.node.ips.discard(self._state.get("ip", ""))
        await self._insist(self._post)

    async def _end(self, one: ContainerRunner, least: float) -> None:
        """End a container by the pod's deadline, yet not sooner than ``least`` seconds from now."""
        soonest = time.monotonic() + least
        await one.end(lambda: max(self._deadline, soonest))

    async def _delete(self) -> None:
        """Tell the API that nothing of the pod runs any more."""
        await self.around.objects.delete("pods", self.name, self.namespace, grace_period_seconds=0, uid=self.uid)

    async def _insist(self, request: Callable[[], Awaitable[None]]) -> None:
        """Have the API do something; not when the pod is gone, or another bears its name by now."""
        pause = 0.05
        while True:
            try:
                await request()
                return
            except StatusError as error:
                if error.code in (404, 409):
                    return
                log.info("pod %s/%s: %s", self.namespace, self.name, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10.0)

    async def _post_changes(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if not self._phase:
                await self._insist(self._post)

    def _status(self, pod: Object) -> dict[str, Any]:
        """The status as it is here, beside what others wrote into that of ``pod``."""
        rejected = self._failure is not None and self._failure[0] == "UnexpectedAdmissionError"
        init, containers = ([] if rejected else [one.status for one in kind] for kind in (self.init, self.containers))
        known: Object = {"hostIP": self.node.ip, "hostIPs": [{"ip": self.node.ip}]}
        known["startTime"] = self._state.get("started") or times.now()
        if address := self._state.get("ip"):
            known |= {"podIP": address, "podIPs": [{"ip": address}]}
        if self._failure:
            known["reason"], known["message"] = self._failure
        sandbox = self._sandbox
        initialised = self._initialised
        return pod_status.build(
            pod, init, containers, known, sandbox=sandbox, initialised=initialised, phase=self._phase
        )

    async def _post(self) -> None:
        objects = self.around.objects
        # Others write conditions too, such as why the pod is evicted, and the watch may not have told of them yet.
        while (pod := await objects.get("pods", self.name, self.namespace))["metadata"]["uid"] == self.uid:
            old = pod.get("status") or {}
            new = self._status(pod)
            if {**old, **new} == old:
                return
            patch = {"metadata": {"resourceVersion": pod["metadata"]["resourceVersion"]}, "status": new}
            with ignoring(409):
                await objects.patch("pods", self.name, patch, self.namespace, subresource="status")
                return

    async def leave(self, grace: float | None) -> None:
        """Stop looking after the pod: its processes go on, or end, when a grace is given, without a word to the API."""
        self._task.cancel()
        await asyncio.wait([self._task])
        for one in self.all:
            await one.leave(None if grace is None else time.monotonic() + grace)
