"""Fixtures: a registry without HTTP, its controllers, and a driver that acts as the user and as the kubelets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from support.polling import wait_for_async
from support.registry import registry as registry

from aksgpu.common import times
from aksgpu.local.api.registry import Registry
from aksgpu.local.control import ControllerManager
from aksgpu.local.objects import Object, Objects
from aksgpu.local.settings import Settings
from aksgpu.local.status_error import StatusError, ignoring


class ClusterDriver:
    """Changes a cluster as its users and kubelets would, and waits for what the controllers do."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    @staticmethod
    async def eventually(check: Callable[[], Awaitable[Any]], timeout: float = 60.0) -> Any:
        """Return the first true result of ``check``; fail after ``timeout`` seconds."""
        return await wait_for_async(check, timeout)

    # Objects

    async def create_node(
        self, name: str = "node-a", *, gpus: int = 1, ready: bool = True, cpu: str = "4", **spec: Any
    ) -> Object:
        amounts = {"cpu": cpu, "memory": "16Gi", "ephemeral-storage": "100Gi", "pods": "110"}
        if gpus:
            amounts["nvidia.com/gpu"] = str(gpus)
        meta = {"name": name, "labels": {"kubernetes.io/hostname": name, **spec.pop("labels", {})}}
        await self.objects.create("nodes", {"metadata": meta, "spec": spec})
        conditions = [{"type": "Ready", "status": "True" if ready else "False", "reason": "KubeletReady"}]
        status = {"capacity": amounts, "allocatable": amounts, "conditions": conditions}
        return await self.objects.patch("nodes", name, {"status": status}, subresource="status")

    async def create_lease(self, name: str, seconds: int = 40) -> Object:
        spec = {"holderIdentity": name, "leaseDurationSeconds": seconds, "renewTime": times.now_micro()}
        return await self.objects.create("leases", {"metadata": {"name": name}, "spec": spec}, "kube-node-lease")

    async def create_pod(self, name: str, *, gpus: int = 0, cpu: str = "", **spec: Any) -> Object:
        limits: dict[str, str] = {}
        if gpus:
            limits["nvidia.com/gpu"] = str(gpus)
        if cpu:
            limits["cpu"] = cpu
        meta = {"name": name, "labels": spec.pop("labels", {})}
        container = {"name": "main", "image": "busybox", "resources": {"limits": limits, "requests": limits}}
        pod = {"metadata": meta, "spec": {"containers": [container], **spec}}
        return await self.objects.create("pods", pod, "default")

    async def create_job(self, name: str, *, pod: dict[str, Any] | None = None, **spec: Any) -> Object:
        template = {
            "metadata": {"labels": {"app": name}},
            "spec": {
                "containers": [{"name": "main", "image": "busybox"}],
                "restartPolicy": "Never",
                **(pod or {}),
            },
        }
        job = {"metadata": {"name": name}, "spec": {"template": template, **spec}}
        return await self.objects.create("jobs", job, "default")

    async def pods(self, app: str = "", *, phase: str = "", bound: bool | None = None) -> list[Object]:
        """Return the pods that match and are not being deleted."""
        pods, _ = await self.objects.list("pods")
        pods = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        if app:
            pods = [pod for pod in pods if (pod["metadata"].get("labels") or {}).get("app") == app]
        if phase:
            pods = [pod for pod in pods if (pod.get("status") or {}).get("phase", "Pending") == phase]
        if bound is not None:
            pods = [pod for pod in pods if bool(pod["spec"].get("nodeName")) is bound]
        return pods

    async def get(self, resource: str, name: str, namespace: str | None = "default") -> Object | None:
        """Return an object, or None if it does not exist."""
        try:
            return await self.objects.get(resource, name, namespace)
        except StatusError as error:
            if error.code != 404:
                raise
            return None

    async def events(self, reason: str, name: str = "") -> list[Object]:
        """Return the events with a reason, about any object or the one with this name."""
        events, _ = await self.objects.list("events")
        return [each for each in events if each["reason"] == reason and name in ("", each["involvedObject"]["name"])]

    # Waiting

    async def wait_until_bound(self, name: str) -> str:
        """Wait until a pod is bound, and return its node."""

        async def node() -> str:
            return str((await self.objects.get("pods", name, "default"))["spec"].get("nodeName", ""))

        return str(await self.eventually(node))

    async def wait_until_unschedulable(self, name: str, message: str) -> None:
        """Wait until a pod's condition PodScheduled has this message."""

        async def has_message() -> bool:
            pod = await self.objects.get("pods", name, "default")
            conditions = (pod.get("status") or {}).get("conditions") or []
            return message in {each.get("message") for each in conditions if each["type"] == "PodScheduled"}

        await self.eventually(has_message)

    async def wait_until_deleted(self, resource: str, name: str, namespace: str | None = "default") -> None:
        """Wait until an object no longer exists."""

        async def gone() -> bool:
            return await self.get(resource, name, namespace) is None

        await self.eventually(gone)

    async def wait_for_event(self, reason: str, name: str = "", text: str = "") -> Object:
        """Wait for an event with this reason and this text in its message, and return it.

        A controller may get an object before an earlier one that it refers to. Its first message is then another one.
        """

        async def events() -> list[Object]:
            return [each for each in await self.events(reason, name) if text in each["message"]]

        return dict((await self.eventually(events))[0])

    async def wait_for_events(self, count: int, reason: str, name: str = "") -> None:
        """Wait until there are this many events with a reason. Events are written after what they report."""

        async def enough() -> bool:
            return len(await self.events(reason, name)) >= count

        await self.eventually(enough)
        assert len(await self.events(reason, name)) == count

    # What kubelets do

    async def start_pod(self, pod: Object) -> None:
        """Set a pod running and ready."""
        now = times.now()
        conditions = [
            {"type": "Ready", "status": "True", "lastTransitionTime": now},
            {"type": "ContainersReady", "status": "True", "lastTransitionTime": now},
        ]
        status = {"phase": "Running", "conditions": conditions}
        await self._set_status(pod, status, {"running": {"startedAt": now}}, ready=True)

    async def end_pod(self, pod: Object, code: int = 0, *, restarts: int = 0) -> None:
        """Let a pod's container exit with a code."""
        now = times.now()
        terminated = {
            "exitCode": code,
            "finishedAt": now,
            "startedAt": now,
            "reason": "Error" if code else "Completed",
        }
        status = {"phase": "Failed" if code else "Succeeded"}
        await self._set_status(pod, status, {"terminated": terminated}, restarts=restarts)

    async def restart_pod(self, pod: Object, restarts: int) -> None:
        """Let a pod's container run again."""
        await self._set_status(pod, {"phase": "Running"}, {"running": {"startedAt": times.now()}}, restarts=restarts)

    async def _set_status(
        self, pod: Object, status: dict[str, Any], state: dict[str, Any], *, ready: bool = False, restarts: int = 0
    ) -> None:
        container = {
            "name": "main",
            "image": "busybox",
            "imageID": "",
            "ready": ready,
            "restartCount": restarts,
            "state": state,
        }
        meta = pod["metadata"]
        patch = {"status": {**status, "containerStatuses": [container]}}
        await self.objects.patch("pods", meta["name"], patch, meta["namespace"], subresource="status")

    async def finish_deletions(self) -> None:
        """Delete all pods that are in their grace period."""
        pods, _ = await self.objects.list("pods")
        for pod in pods:
            meta = pod["metadata"]
            if meta.get("deletionTimestamp"):
                with ignoring(404):  # The garbage collector may be faster.
                    await self.objects.delete("pods", meta["name"], meta["namespace"], grace_period_seconds=0)


@pytest.fixture
def driver(registry: Registry) -> ClusterDriver:
    return ClusterDriver(registry)


@pytest.fixture
def watched(registry: Registry) -> Objects:
    """What the controllers use. Modules may replace it."""
    return registry


@pytest.fixture
async def controllers(watched: Objects) -> AsyncIterator[ControllerManager]:
    controllers = ControllerManager(watched, Settings(time_scale=0.001))
    await controllers.start()
    yield controllers
    await controllers.stop()
