"""The scheduler and the Job and DaemonSet controllers over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from support.remote_objects import RemoteObjects

from aksgpu.local.api.access import User
from aksgpu.local.api.api_server import KubeApi
from aksgpu.local.api.registry import Registry
from aksgpu.local.control import ControllerManager
from aksgpu.local.control.daemonset_controller import DaemonSetController
from aksgpu.local.control.job_controller import JobController
from aksgpu.local.control.scheduler import Scheduler
from aksgpu.local.settings import Settings
from aksgpu.local.status_error import StatusError

if TYPE_CHECKING:
    from tests.local.control.conftest import ClusterDriver


@pytest.fixture
async def server(registry: Registry) -> AsyncIterator[str]:
    api = KubeApi(registry, node=None, tokens={"secret": User("admin", ("system:masters",))})  # type: ignore[arg-type]
    app = web.Application()

    async def handle(request: web.Request) -> web.StreamResponse:
        return await api.handle(request, request.path)

    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def remote(server: str) -> AsyncIterator[RemoteObjects]:
    async with RemoteObjects(server, token="secret") as objects:
        yield objects


async def test_errors_are_raised_with_their_status(remote: RemoteObjects, server: str) -> None:
    with pytest.raises(StatusError) as caught:
        await remote.get("jobs", "none", "default")
    assert (caught.value.code, caught.value.message) == (404, 'jobs.batch "none" not found')
    async with RemoteObjects(server, token="wrong") as stranger:
        with pytest.raises(StatusError) as caught:
            await stranger.list("pods")
    assert caught.value.code == 401


async def test_lists_in_pages_and_completes_items(remote: RemoteObjects, driver: ClusterDriver) -> None:
    for number in range(501):
        await driver.objects.create("configmaps", {"metadata": {"name": f"cm-{number}"}}, "default")
    found, version = await remote.list("configmaps", "default")
    assert len({each["metadata"]["name"] for each in found} & {f"cm-{number}" for number in range(501)}) == 501
    assert {(each["apiVersion"], each["kind"]) for each in found} == {("v1", "ConfigMap")}
    assert int(version) > 500


async def test_watches_from_the_version_of_the_list(remote: RemoteObjects, driver: ClusterDriver) -> None:
    await driver.objects.create("configmaps", {"metadata": {"name": "before"}}, "default")
    _, version = await remote.list("configmaps", "default")
    await driver.objects.create("configmaps", {"metadata": {"name": "after"}}, "default")
    await driver.objects.delete("configmaps", "after", "default")
    seen: list[tuple[str, Any]] = []
    async with asyncio.timeout(60):
        async for event in remote.watch("configmaps", "default", resource_version=version):
            if event.type != "BOOKMARK":
                seen.append((event.type, event.object["metadata"]["name"]))
            if len(seen) == 2:
                break
    assert seen == [("ADDED", "after"), ("DELETED", "after")]


async def test_controllers_run_over_http(remote: RemoteObjects, driver: ClusterDriver) -> None:
    parts = (Scheduler, JobController, DaemonSetController)
    controllers = ControllerManager(remote, Settings(time_scale=0.001), parts)
    await controllers.start()
    try:
        await driver.create_node("node-a")
        labels = {"app": "plugin"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "plugin"}]}}
        spec = {"selector": {"matchLabels": labels}, "template": template}
        await driver.objects.create("daemonsets", {"metadata": {"name": "plugin"}, "spec": spec}, "default")
        await driver.create_job("work", completions=2, parallelism=1, backoffLimit=3)

        async def done() -> bool:
            for pod in await driver.pods("plugin", phase="Pending", bound=True):
                await driver.start_pod(pod)
            for pod in await driver.pods("work", phase="Pending", bound=True):
                await driver.end_pod(pod)
            daemonset = await driver.objects.get("daemonsets", "plugin", "default")
            job = await driver.objects.get("jobs", "work", "default")
            conditions = [each["type"] for each in (job.get("status") or {}).get("conditions") or []]
            serving = (daemonset.get("status") or {}).get("numberAvailable") == 1
            return serving and conditions == ["SuccessCriteriaMet", "Complete"]

        await driver.eventually(done)
        assert (await driver.wait_for_event("Completed", "work"))["involvedObject"]["apiVersion"] == "batch/v1"
    finally:
        await controllers.stop()
