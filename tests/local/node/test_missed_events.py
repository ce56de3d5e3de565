"""Objects that are made and deleted while the node agent's watches are interrupted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.interrupted_watches import InterruptedWatches
from support.polling import wait_for_async

from aksgpu.local.node import NodeAgent
from aksgpu.local.node.pod_network import AddressPool

from .conftest import Lab, processes


class RecordedAddresses(AddressPool):
    """An address pool that tells which addresses pods have."""

    def used(self) -> set[str]:
        return set(self._used)


@pytest.fixture
def addresses() -> RecordedAddresses:
    return RecordedAddresses()


@pytest.fixture
async def watched(lab: Lab, addresses: RecordedAddresses) -> AsyncIterator[InterruptedWatches]:
    """Interrupted watches of the lab's node agent."""
    await lab.agent.stop(end_pods=True)
    watched = InterruptedWatches(lab.objects)
    lab.agent = NodeAgent(watched, lab.root, lab.settings, addresses)
    await lab.agent.start()
    yield watched


async def interrupted(watched: InterruptedWatches, resource: str, lists: int) -> None:
    """Wait until the agent lists again, because its watch has missed an event."""

    async def is_listing() -> bool:
        return watched.lists(resource) > lists

    await wait_for_async(is_listing)


async def only_directories(directory: Path, *names: str) -> None:
    """Wait until a directory contains these directories and no others."""

    async def matches() -> bool:
        return directory.is_dir() and {path.name for path in directory.iterdir()} == set(names)

    await wait_for_async(matches)


async def test_a_pod_that_the_agent_did_not_see(
    lab: Lab, watched: InterruptedWatches, addresses: RecordedAddresses, mark: str
) -> None:
    lists = watched.lists("pods")
    watched.interrupt("pods")
    await lab.run("brief", "bash", "-c", f"exec -a {mark} sleep 100")
    await lab.objects.delete("pods", "brief", "default", grace_period_seconds=0)
    await interrupted(watched, "pods", lists)
    watched.resume("pods")
    after = await lab.run("after", "sleep", "100")
    running = await lab.phase("after", "Running")
    assert processes(mark) == []
    await only_directories(lab.root / "pods", after["metadata"]["uid"])
    assert addresses.used() == {running["status"]["podIP"]}


async def test_a_pod_that_was_replaced(
    lab: Lab, watched: InterruptedWatches, addresses: RecordedAddresses, mark: str
) -> None:
    """The process, the directory and the address of the first pod go, and the second one, of the same name, runs."""
    await lab.run("twice", "bash", "-c", f"exec -a {mark} sleep 100")
    first = await lab.phase("twice", "Running")
    lists = watched.lists("pods")
    watched.interrupt("pods")
    await lab.objects.delete("pods", "twice", "default", grace_period_seconds=0)
    await lab.run("twice", "true")
    await lab.objects.delete("pods", "twice", "default", grace_period_seconds=0)
    last = await lab.run("twice", "bash", "-c", f"exec -a {mark}-last sleep 100")
    await interrupted(watched, "pods", lists)
    assert processes(mark)
    watched.resume("pods")
    running = await lab.phase("twice", "Running")
    await only_directories(lab.root / "pods", last["metadata"]["uid"])
    assert processes(mark) == processes(f"{mark}-last") != []
    assert addresses.used() == {running["status"]["podIP"]} != {first["status"]["podIP"]}


async def test_a_claim_that_the_agent_did_not_see(lab: Lab, watched: InterruptedWatches) -> None:
    """Its directory is deleted with it. The agent knows the claim because it read it for a pod."""
    lists = watched.lists("persistentvolumeclaims")
    watched.interrupt("persistentvolumeclaims")
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = await lab.objects.create("persistentvolumeclaims", {"metadata": {"name": "data"}, "spec": spec}, "default")
    await interrupted(watched, "persistentvolumeclaims", lists)
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    mounts = [{"name": "data", "mountPath": "/data"}]
    await lab.run("writes", "sh", "-c", "echo kept > /data/file", container={"volumeMounts": mounts}, volumes=volumes)
    await lab.phase("writes", "Succeeded")
    await only_directories(lab.root / "claims", f"default_data_{claim['metadata']['uid']}")
    await lab.objects.delete("pods", "writes", "default", grace_period_seconds=0)
    await lab.objects.delete("persistentvolumeclaims", "data", "default")
    watched.resume("persistentvolumeclaims")
    await only_directories(lab.root / "claims")
