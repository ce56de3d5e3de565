"""A cluster without a node agent: the registry in process, and a kubelet played by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aksgpu.local.api.registry import Registry
from aksgpu.local.api.store import Store
from aksgpu.local.control import ControllerManager
from aksgpu.local.objects import Object, Objects
from aksgpu.local.settings import Settings
from aksgpu.local.status_error import StatusError


class World:
    """What a test does to the cluster, and sees of it."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    @staticmethod
    async def eventually(check: Callable[[], Awaitable[Any]], timeout: float = 15.0) -> Any:
        """The first truthy answer of ``check``; fails with its last answer when there is none in time."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            if answer := await check():
                return answer
            assert asyncio.get_running_loop().time() < deadline, f"never came true; last: {answer!r}"
            await asyncio.sleep(0.01)

    async def node(
        self, name: str = "node-a", *, gpus: int = 1, ready: bool = True, cpu: str = "4", **spec: Any
    ) -> Object:
        amounts = {"cpu": cpu, "memory": "16Gi", "ephemeral-storage": "100Gi", "pods": "110"}
        amounts |= {"nvidia.com/gpu": str(gpus)} if gpus else {}
        meta = {"name": name, "labels": {"kubernetes.io/hostname": name, **spec.pop("labels", {})}}
        await self.objects.create("nodes", {"metadata": meta, "spec": spec})
        conditions = [{"type": "Ready", "status": "True" if ready else "False", "reason": "KubeletReady"}]
        status = {"capacity": amounts, "allocatable": amounts, "conditions": conditions}
        return await self.objects.patch("nodes", name, {"status": status}, subresource="status")

    async def lease(self, name: str, seconds: int = 40) -> Object:
        spec = {"holderIdentity": name, "leaseDurationSeconds": seconds, "renewTime": _micro()}
        return await self.objects.create("leases", {"metadata": {"name": name}, "spec": spec}, "kube-node-lease")

    async def pod(self, name: str, *, gpus: int = 0, cpu: str = "", **spec: Any) -> Object:
        limits = ({"nvidia.com/gpu": str(gpus)} if gpus else {}) | ({"cpu": cpu} if cpu else {})
        meta = {"name": name, "labels": spec.pop("labels", {})}
        container = {"name": "main", "image": "busybox", "resources": {"limits": limits, "requests": limits}}
        return await self.objects.create(
            "pods", {"metadata": meta, "spec": {"containers": [container], **spec}}, "default"
        )

    async def job(self, name: str, *, pod: dict[str, Any] | None = None, **spec: Any) -> Object:
        container = {"name": "main", "image": "busybox"}
        template = {"metadata": {"labels": {"app": name}}}
        template |= {"spec": {"containers": [container], "restartPolicy": "Never", **(pod or {})}}
        return await self.objects.create(
            "jobs", {"metadata": {"name": name}, "spec": {"template": template, **spec}}, "default"
        )

    async def pods(self, app: str = "", *, phase: str = "", placed: bool | None = None) -> list[Object]:
        found, _ = await self.objects.list("pods")
        found = [pod for pod in found if not app or (pod["metadata"].get("labels") or {}).get("app") == app]
        if phase:
            found = [pod for pod in found if (pod.get("status") or {}).get("phase", "Pending") == phase]
        if placed is not None:
            found = [pod for pod in found if bool(pod["spec"].get("nodeName")) is placed]
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    async def get(self, resource: str, name: str, namespace: str | None = "default") -> Object | None:
        try:
            return await self.objects.get(resource, name, namespace)
        except StatusError as error:
            if error.code != 404:
                raise
            return None

    async def placed(self, name: str) -> str:
        """The node that the pod is bound to; waits for it."""

        async def node() -> str:
            return str((await self.objects.get("pods", name, "default"))["spec"].get("nodeName", ""))

        return str(await self.eventually(node))

    async def unschedulable(self, name: str, text: str) -> None:
        """Wait until the pod says that."""

        async def says() -> bool:
            pod = await self.objects.get("pods", name, "default")
            conditions = (pod.get("status") or {}).get("conditions") or []
            return text in {each.get("message") for each in conditions if each["type"] == "PodScheduled"}

        await self.eventually(says)

    async def run(self, pod: Object) -> None:
        """As a kubelet: the pod runs and is ready."""
        now = _now()
        state = {"running": {"startedAt": now}}
        ready = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in ("Ready", "ContainersReady")]
        await self._status(pod, {"phase": "Running", "conditions": ready}, state, ready=True)

    async def end(self, pod: Object, code: int = 0, *, restarts: int = 0) -> None:
        """As a kubelet: the pod's container ended."""
        now = _now()
        state = {
            "terminated": {
                "exitCode": code,
                "finishedAt": now,
                "startedAt": now,
                "reason": "Error" if code else "Completed",
            }
        }
        await self._status(pod, {"phase": "Failed" if code else "Succeeded"}, state, restarts=restarts)

    async def restart(self, pod: Object, restarts: int) -> None:
        """As a kubelet: the pod's container was started again."""
        await self._status(pod, {"phase": "Running"}, {"running": {"startedAt": _now()}}, restarts=restarts)

    async def _status(
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
        await self.objects.patch(
            "pods",
            meta["name"],
            {"status": {**status, "containerStatuses": [container]}},
            meta["namespace"],
            subresource="status",
        )

    async def bury(self) -> None:
        """As a kubelet: every pod that was asked to leave has left."""
        found, _ = await self.objects.list("pods")
        for pod in found:
            meta = pod["metadata"]
            if meta.get("deletionTimestamp"):
                await self.objects.delete("pods", meta["name"], meta["namespace"], grace_period_seconds=0)

    async def events(self, reason: str, name: str = "") -> list[Object]:
        found, _ = await self.objects.list("events")
        return [each for each in found if each["reason"] == reason and name in ("", each["involvedObject"]["name"])]

    async def told(self, reason: str, name: str = "") -> Object:
        """The first event of that reason; waits for it."""

        async def some() -> Iterable[Object]:
            return await self.events(reason, name)

        return dict((await self.eventually(some))[0])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = Registry(Store(tmp_path / "kube.db"))
    await registry.open()
    yield registry
    await registry.close()


@pytest.fixture
def world(registry: Registry) -> World:
    return World(registry)


@pytest.fixture
async def controllers(registry: Registry) -> AsyncIterator[ControllerManager]:
    controllers = ControllerManager(registry, Settings(time_scale=0.001))
    await controllers.start()
    yield controllers
    await controllers.stop()
