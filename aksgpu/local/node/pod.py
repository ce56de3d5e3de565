"""One pod on its node: admission, order of containers, deletion, status.

Each pod has a :class:`PodRunner` with its own task. ``pod.json`` and the directories of the containers' runs hold the
state that it needs to continue after a restart of the laptop. :mod:`aksgpu.local.node.container` runs one container.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aksgpu.common import times
from aksgpu.local.control.claim_topology import claim_keys
from aksgpu.local.control.controller_runtime import is_finished
from aksgpu.local.control.fields_without_effect import REASON, message
from aksgpu.local.node import attachments, ignored_fields, pod_status, termination_message
from aksgpu.local.node.container import ContainerRunner
from aksgpu.local.node.device_manager import AdmissionError
from aksgpu.local.node.kubelets import Node
from aksgpu.local.node.pod_context import ClusterContext, PodContext
from aksgpu.local.node.pod_network import hostname_path, write_in_place
from aksgpu.local.node.volumes import Directories, MountError, is_kubelet_volume, prepare
from aksgpu.local.objects import Object
from aksgpu.local.status_error import StatusError, ignoring

log = logging.getLogger(__name__)

REJECTIONS = ("NamesNotSupported", "UnexpectedAdmissionError")
"""Reasons in the status of pods that the node has rejected."""
NO_NAMES = (
    "its `subdomain` gives it a name that other pods look up, and this system does not allow mount namespaces, so its "
    "/etc/hosts cannot differ from this machine's. Remove `subdomain`, or run the laptop AKS where `unshare -Ur "
    "--mount` works"
)
MIN_SIDECAR_SECONDS = 2.0
"""Minimum grace period of a sidecar, even if the other containers used the whole grace period, as on a kubelet."""
FIRST_MOUNT_RETRY_SECONDS = 0.5
MAX_MOUNT_RETRY_SECONDS = 122.0
FIRST_REQUEST_RETRY_SECONDS = 0.05
MAX_REQUEST_RETRY_SECONDS = 10.0


class _AttachError(Exception):
    """A disk is attached to another node."""


class PodRunner:
    """Runs one pod.

    Args:
        cluster: the state that all pods share.
        node: the pod's node.
        pod: the pod.

    Attributes:
        context: the pod as its containers see it.
        all_containers: its containers, init containers first.
    """

    def __init__(self, cluster: ClusterContext, node: Node, pod: Object) -> None:
        self.context = PodContext(cluster, node, pod)
        spec = pod["spec"]
        self._init_containers = [
            ContainerRunner(self.context, container, init=True) for container in spec.get("initContainers") or []
        ]
        self._containers = [ContainerRunner(self.context, container) for container in spec["containers"]]
        self.all_containers = [*self._init_containers, *self._containers]
        self._admitted: str = ""  # timestamp of the admission; empty before it
        self._has_sandbox = False
        self._initialized = False
        self._failure: tuple[str, str] | None = None  # reason and message
        self._final_phase = ""
        self._stop = asyncio.Event()
        self._deadline = float("inf")
        self._task: asyncio.Task[None]

    def supervisor_pids(self) -> list[int]:
        """Return the pids of the supervisors of the containers that are running."""
        pids = [container.supervisor_pid for container in self.all_containers]
        return [pid for pid in pids if pid]

    def start(self) -> None:
        """Run the pod, or continue it after a restart of the laptop."""
        self._restore()
        self.update(self.context.pod)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def _restore(self) -> None:
        """Read the state on disk. All pods do this before the first one runs, so that no device is assigned twice."""
        context = self.context
        with contextlib.suppress(FileNotFoundError, ValueError):
            state = json.loads((context.directory / "pod.json").read_text())
            self._admitted = state["started"]
            context.ip = state["ip"]
            context.devices = state["devices"]
            if not is_finished(context.pod):
                context.cluster.addresses.reserve(context.ip)
                context.node.devices.restore(context.uid, context.devices)
        for container in self.all_containers:
            container.restore()
        self._has_sandbox = any(container.has_run for container in self.all_containers)
        if self._has_sandbox and not is_finished(context.pod):
            claims = filter(None, map(context.cluster.claims.get, claim_keys(context.pod)))
            context.cluster.attachments.attach(claims, context.pod, context.node.name)
        self._initialized = any(container.has_run for container in self._containers)

    def update(self, pod: Object) -> None:
        """Store a new version of the pod from the API. End the pod if it is being deleted."""
        self.context.pod = pod
        metadata = pod["metadata"]
        if "deletionTimestamp" in metadata:
            self.end(float(metadata.get("deletionGracePeriodSeconds") or 0))

    def end(self, grace: float) -> None:
        """End the pod within ``grace`` seconds. If there is an earlier deadline, it is kept."""
        self._deadline = min(self._deadline, time.monotonic() + grace)
        self.context.node.devices.mark_ending(self.context.uid)
        self._stop.set()

    async def kill(self) -> None:
        """End the pod at once, and wait until all its processes have ended."""
        self.end(0)
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        """Run the pod to its end. When it is deleted, remove it from the API."""
        context = self.context
        poster = asyncio.create_task(self._post_changes())
        try:
            if is_finished(context.pod):
                self._final_phase = context.pod["status"]["phase"]
            else:
                await self._run_until_stopped()
                await self._finish()
            await self._stop.wait()
            await self._retry(self._delete)
        except Exception:
            log.exception("pod %s/%s", context.namespace, context.name)
        finally:
            poster.cancel()

    async def _run_until_stopped(self) -> None:
        """Run the containers until they end, the pod is stopped, or its active deadline is over."""
        spec = self.context.pod["spec"]
        limit = spec.get("activeDeadlineSeconds")
        timeout = None
        if limit is not None:
            timeout = max(0.0, float(limit) - times.age(self._admitted or times.now()))
        running = asyncio.create_task(self._run_containers())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({running, stopping}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (running, stopping):
                task.cancel()
            await asyncio.wait({running, stopping})
        error = None if running.cancelled() else running.exception()
        if error:
            log.error("pod %s/%s", self.context.namespace, self.context.name, exc_info=error)
            self._failure = ("NodeAgentError", f"the node agent failed: {error}")
        elif running.cancelled() and not self._stop.is_set():
            self._failure = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            self.context.record_event("Normal", *self._failure)
        if not self._stop.is_set():
            grace = float(spec.get("terminationGracePeriodSeconds") or 0)
            self._deadline = time.monotonic() + grace

    async def _run_containers(self) -> None:
        """Admit the pod, mount its volumes, run its init containers in order, then all other containers.

        The containers after a sidecar start as soon as the sidecar has started.
        """
        async with self.context.cluster.starts.slot():
            admitted = await self._admit()
        if not admitted:
            return
        self.context.status_changed.set()
        await self._mount_volumes()
        self._has_sandbox = True
        async with asyncio.TaskGroup() as group:
            sidecars: list[asyncio.Task[bool]] = []
            for container in self._init_containers:
                self.context.status_changed.set()
                if container.sidecar:
                    sidecars.append(group.create_task(container.run()))
                    await container.started.wait()
                elif not await container.run():
                    break
            else:
                self._initialized = True
                self.context.status_changed.set()
                await asyncio.wait([group.create_task(container.run()) for container in self._containers])
            for task in sidecars:
                task.cancel()  # their processes end with the pod

    async def _admit(self) -> bool:
        """Assign devices and an address, and return whether the node accepts the pod."""
        if self._admitted:
            return True
        context = self.context
        spec = context.pod["spec"]
        self._admitted = times.now()
        if spec.get("subdomain") and not context.cluster.mount_namespaces:
            self._failure = ("NamesNotSupported", f"Pod was rejected: {NO_NAMES}")
            context.record_event("Warning", *self._failure)
            return False
        try:
            context.devices = await context.node.devices.allocate(context.uid, spec)
        except AdmissionError as error:
            self._failure = ("UnexpectedAdmissionError", f"Pod was rejected: {error}")
            context.record_event("Warning", "UnexpectedAdmissionError", str(error))
            return False
        context.ip = context.node.ip if spec.get("hostNetwork") else context.cluster.addresses.allocate()
        context.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = {"started": self._admitted, "ip": context.ip, "devices": context.devices}
        temporary = context.directory / "pod.json.new"
        temporary.write_text(json.dumps(state))
        temporary.replace(context.directory / "pod.json")
        ignored = ignored_fields.find(spec)
        if ignored:
            context.record_event("Normal", REASON, message(ignored))
        return True

    async def _mount_volumes(self) -> None:
        """Create the pod's volumes. Try again until it succeeds."""
        context = self.context
        directories = Directories(context.directory, context.node.kubelet, context.cluster.root / "claims")
        if any(is_kubelet_volume(volume) for volume in context.pod["spec"].get("volumes") or []):
            await context.node.devices.serve()
        pause = FIRST_MOUNT_RETRY_SECONDS
        while True:
            try:
                await self._attach_disks()
                pod = context.pod_with_addresses()
                context.volumes = await prepare(context.cluster.objects, pod, context.node.object, directories)
                self._write_names()
                return
            except _AttachError as error:
                self._record_attachment("Warning", "FailedAttachVolume", str(error))
            except (MountError, StatusError, OSError) as error:
                context.record_event("Warning", "FailedMount", str(error))
            await context.cluster.sleep(pause)
            pause = min(pause * 2, MAX_MOUNT_RETRY_SECONDS)

    async def _attach_disks(self) -> None:
        """Attach the disks among the pod's volumes to its node; raises _AttachError if they are attached elsewhere."""
        context = self.context
        claims: list[Object] = []
        for key in sorted(claim_keys(context.pod)):
            with ignoring(404):
                name = key.partition("/")[2]
                claim = await context.cluster.objects.get("persistentvolumeclaims", name, context.namespace)
                context.cluster.claims.update_cache(claim)  # so that its directory is deleted with it
                claims.append(claim)
        problem = context.cluster.attachments.attach(claims, context.pod, context.node.name)
        if problem:
            raise _AttachError(problem)

    def _record_attachment(self, kind: str, reason: str, message: str) -> None:
        context = self.context
        involved = {**context.pod, "apiVersion": "v1", "kind": "Pod"}
        context.cluster.events.record_event(attachments.COMPONENT, involved, kind, reason, message)

    def _write_names(self) -> None:
        """Write the files with the pod's host name and the names that it can look up."""
        context = self.context
        if context.cluster.mount_namespaces:
            write_in_place(hostname_path(context.directory), f"{context.hostname}\n")
            context.cluster.hosts.add(context.pod, context.ip, context.directory)

    async def _finish(self) -> None:
        """End the remaining containers, then the sidecars one by one in reverse order, and post the final status."""
        has_grace = self._deadline > time.monotonic()
        async with asyncio.TaskGroup() as group:
            for container in self.all_containers:
                if not container.sidecar:
                    group.create_task(self._end_container(container, 0.0))
        for container in reversed(self._init_containers):
            if container.sidecar:
                await self._end_container(container, MIN_SIDECAR_SECONDS if has_grace else 0.0)
        self._has_sandbox = False
        succeeded = not self._failure and all(pod_status.exit_code(each.status) == 0 for each in self._containers)
        self._final_phase = "Succeeded" if succeeded else "Failed"
        self.context.node.devices.release(self.context.uid)
        self.context.cluster.addresses.release(self.context.ip)
        self.context.cluster.hosts.remove(self.context.uid)
        self.context.cluster.attachments.detach(self.context.uid)
        await self._retry(self._post_status)

    async def _end_container(self, container: ContainerRunner, min_seconds: float) -> None:
        """End a container by the pod's deadline, but give it at least ``min_seconds``."""
        earliest = time.monotonic() + min_seconds
        await container.end(lambda: max(self._deadline, earliest))

    async def _delete(self) -> None:
        """Delete the pod from the API. All its processes have ended."""
        context = self.context
        await context.cluster.objects.delete(
            "pods", context.name, context.namespace, grace_period_seconds=0, uid=context.uid
        )

    async def _retry(self, request: Callable[[], Awaitable[None]]) -> None:
        """Repeat a request until it succeeds, or until the pod no longer exists or another one has its name."""
        pause = FIRST_REQUEST_RETRY_SECONDS
        while True:
            try:
                await request()
                return
            except StatusError as error:
                if error.code in (404, 409):
                    return
                log.info("pod %s/%s: %s", self.context.namespace, self.context.name, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_REQUEST_RETRY_SECONDS)

    async def _post_changes(self) -> None:
        """Post the status whenever it changes, until the pod has reached its final phase."""
        while True:
            await self.context.status_changed.wait()
            self.context.status_changed.clear()
            if not self._final_phase:
                await self._retry(self._post_status)

    def _build_status(self, pod: Object) -> dict[str, Any]:
        """Return the pod's status, including the fields of ``pod`` that other components have set."""
        init: list[Object] = []
        containers: list[Object] = []
        if self._failure is None or self._failure[0] not in REJECTIONS:
            count = len(self.all_containers)
            init = [termination_message.truncate(container.status, count) for container in self._init_containers]
            containers = [termination_message.truncate(container.status, count) for container in self._containers]
        own_fields: Object = self.context.addresses()
        own_fields["startTime"] = self._admitted or times.now()
        if self._failure:
            reason, message = self._failure
            own_fields["reason"] = reason
            own_fields["message"] = message
        return pod_status.build_status(
            pod,
            init,
            containers,
            own_fields,
            has_sandbox=self._has_sandbox,
            initialized=self._initialized,
            final_phase=self._final_phase,
        )

    async def _post_status(self) -> None:
        context = self.context
        objects = context.cluster.objects
        while True:
            # Read the pod first, because the watch may not have delivered conditions that others have set.
            pod = await objects.get("pods", context.name, context.namespace)
            if pod["metadata"]["uid"] != context.uid:
                return
            old = pod.get("status") or {}
            new = self._build_status(pod)
            if {**old, **new} == old:
                return
            patch = {"metadata": {"resourceVersion": pod["metadata"]["resourceVersion"]}, "status": new}
            with ignoring(409):
                await objects.patch("pods", context.name, patch, context.namespace, subresource="status")
                return

    async def detach(self, grace: float | None) -> None:
        """Stop supervising the pod. Nothing changes in the API.

        Args:
            grace: seconds in which its processes must end. None leaves them running.
        """
        self._task.cancel()
        await asyncio.wait([self._task])
        for container in self.all_containers:
            await container.detach(None if grace is None else time.monotonic() + grace)
