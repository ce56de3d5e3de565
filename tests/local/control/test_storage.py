"""StorageClasses: when claims are bound, and where the pods that use them can run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from support.interrupted_watches import InterruptedWatches

from aksgpu.local.control import ControllerManager
from aksgpu.local.objects import Object, Request
from aksgpu.local.settings import Settings

if TYPE_CHECKING:
    from tests.local.control.conftest import ClusterDriver

ZONE = "topology.kubernetes.io/zone"


async def create_claim(driver: ClusterDriver, name: str, storage_class: str | None, *modes: str) -> dict[str, Any]:
    spec = {"accessModes": list(modes) or ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return await driver.objects.create("persistentvolumeclaims", {"metadata": {"name": name}, "spec": spec}, "default")


async def create_pod(driver: ClusterDriver, name: str, claim: str, **spec: Any) -> dict[str, Any]:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    return await driver.create_pod(name, volumes=volumes, **spec)


async def wait_until_unschedulable(driver: ClusterDriver, name: str, start: str) -> None:
    """Wait until a pod's condition PodScheduled has a message with this start. Its end is about preemption."""

    async def has_message() -> bool:
        pod = await driver.objects.get("pods", name, "default")
        conditions = (pod.get("status") or {}).get("conditions") or []
        messages = [each.get("message", "") for each in conditions if each["type"] == "PodScheduled"]
        return any(message.startswith(start) and "preemption: " in message for message in messages)

    await driver.eventually(has_message)


async def wait_until_claim_is_bound(driver: ClusterDriver, name: str) -> dict[str, Any]:
    async def bound() -> dict[str, Any] | None:
        claim = await driver.objects.get("persistentvolumeclaims", name, "default")
        return claim if (claim.get("status") or {}).get("phase") == "Bound" else None

    return dict(await driver.eventually(bound))


async def test_the_classes_of_aks(driver: ClusterDriver) -> None:
    found, _ = await driver.objects.list("storageclasses")
    shown = {each["metadata"]["name"]: (each["provisioner"], each["volumeBindingMode"]) for each in found}
    assert shown == {
        "default": ("disk.csi.azure.com", "WaitForFirstConsumer"),
        "managed-csi": ("disk.csi.azure.com", "WaitForFirstConsumer"),
        "managed-csi-premium": ("disk.csi.azure.com", "WaitForFirstConsumer"),
        "azurefile-csi": ("file.csi.azure.com", "Immediate"),
        "azurefile-csi-premium": ("file.csi.azure.com", "Immediate"),
    }


@pytest.mark.parametrize("storage_class", ["azurefile-csi", "azurefile-csi-premium"])
async def test_a_file_share_is_created_at_once(
    driver: ClusterDriver, controllers: ControllerManager, storage_class: str
) -> None:
    await create_claim(driver, "data", storage_class, "ReadWriteMany")
    claim = await wait_until_claim_is_bound(driver, "data")
    assert claim["spec"]["volumeName"] == f"pvc-{claim['metadata']['uid']}"
    assert claim["status"]["accessModes"] == ["ReadWriteMany"]
    for name, zone in (("a", "eastus-1"), ("b", "eastus-2")):
        await driver.create_node(name, labels={ZONE: zone})
        await create_pod(driver, f"in-{name}", "data", nodeSelector={ZONE: zone})
        assert await driver.wait_until_bound(f"in-{name}") == name


@pytest.mark.parametrize("storage_class", [None, "managed-csi", "managed-csi-premium"])
async def test_a_disk_waits_for_its_first_pod_and_stays_in_its_zone(
    driver: ClusterDriver, controllers: ControllerManager, storage_class: str | None
) -> None:
    await driver.create_node("a", gpus=0, labels={ZONE: "eastus-1"})
    await driver.create_node("b", labels={ZONE: "eastus-2"})
    claim = await create_claim(driver, "data", storage_class)
    event = await driver.wait_for_event("WaitForFirstConsumer", "data")
    assert event["message"] == "waiting for first consumer to be created before binding"
    assert (await driver.objects.get("persistentvolumeclaims", "data", "default"))["status"]["phase"] == "Pending"
    first = await create_pod(driver, "first", "data", nodeSelector={ZONE: "eastus-1"})
    assert await driver.wait_until_bound("first") == "a"
    bound = await wait_until_claim_is_bound(driver, "data")
    assert bound["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] == "a"
    assert bound["metadata"]["uid"] == claim["metadata"]["uid"]
    await create_pod(driver, "trains", "data", gpus=1)
    text = "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had volume node affinity conflict. "
    await wait_until_unschedulable(driver, "trains", text)
    await driver.end_pod(first)
    await driver.create_node("c", labels={ZONE: "eastus-1"})
    assert await driver.wait_until_bound("trains") == "c"


async def test_a_zone_redundant_disk_can_be_used_in_all_zones(
    driver: ClusterDriver, controllers: ControllerManager
) -> None:
    made = {
        "metadata": {"name": "redundant"},
        "provisioner": "disk.csi.azure.com",
        "parameters": {"skuName": "Premium_ZRS"},
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    await driver.objects.create("storageclasses", made)
    for name, zone in (("a", "eastus-1"), ("b", "eastus-2")):
        await driver.create_node(name, labels={ZONE: zone})
    await create_claim(driver, "data", "redundant")
    for name, zone in (("a", "eastus-1"), ("b", "eastus-2")):
        await driver.end_pod(await create_pod(driver, f"in-{name}", "data", nodeSelector={ZONE: zone}))
        await create_pod(driver, f"again-in-{name}", "data", nodeSelector={ZONE: zone})
        assert await driver.wait_until_bound(f"again-in-{name}") == name


async def test_an_unknown_class(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node()
    await create_claim(driver, "data", "fast")
    event = await driver.wait_for_event("ProvisioningFailed", "data")
    assert (event["type"], event["message"]) == ("Warning", 'storageclass.storage.k8s.io "fast" not found')
    await create_pod(driver, "waits", "data")
    head = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    await wait_until_unschedulable(driver, "waits", head)
    assert (await driver.objects.get("persistentvolumeclaims", "data", "default"))["status"] == {"phase": "Pending"}
    await driver.objects.create("storageclasses", {"metadata": {"name": "fast"}, "provisioner": "file.csi.azure.com"})
    assert await driver.wait_until_bound("waits") == "node-a"


@pytest.mark.parametrize(
    ("storage_class", "provisioner", "modes", "reason", "text"),
    [
        ("", "", (), "FailedBinding", "no persistent volumes available for this claim and no storage class is set"),
        ("other", "example.com/nfs", (), "ExternalProvisioning", "by the external provisioner 'example.com/nfs'"),
        ("disk", "disk.csi.azure.com", ("ReadWriteMany",), "ProvisioningFailed", "MULTI_NODE_MULTI_WRITER"),
    ],
)
async def test_claims_that_get_no_volume(
    driver: ClusterDriver,
    controllers: ControllerManager,
    storage_class: str,
    provisioner: str,
    modes: tuple[str, ...],
    reason: str,
    text: str,
) -> None:
    if provisioner:
        made = {"metadata": {"name": storage_class}, "provisioner": provisioner}
        await driver.objects.create("storageclasses", made)
    await create_claim(driver, "data", storage_class, *modes)
    await driver.wait_for_event(reason, "data", text)
    claim = await driver.objects.get("persistentvolumeclaims", "data", "default")
    assert claim["status"]["phase"] == "Pending" and "volumeName" not in claim["spec"]


async def test_a_claim_that_does_not_exist(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node()
    await create_pod(driver, "waits", "data")
    head = '0/1 nodes are available: persistentvolumeclaim "data" not found.'
    await wait_until_unschedulable(driver, "waits", head)
    await create_claim(driver, "data", "managed-csi")
    assert await driver.wait_until_bound("waits") == "node-a"


async def test_a_volume_that_is_not_created_in_time(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node()
    await create_claim(driver, "data", "managed-csi", "ReadWriteMany")
    await create_pod(driver, "waits", "data")
    event = await driver.wait_for_event("FailedScheduling", "waits", "running PreBind plugin")
    assert event["message"] == 'running PreBind plugin "VolumeBinding": binding volumes: context deadline exceeded'
    text = "mountVolume is not supported for access mode: MULTI_NODE_MULTI_WRITER"
    await driver.wait_for_event("ProvisioningFailed", "data", text)


async def test_a_pod_that_is_deleted_while_it_waits_for_its_volume(
    driver: ClusterDriver, controllers: ControllerManager
) -> None:
    """Its resources are free at once."""
    await driver.create_node()
    await create_claim(driver, "data", "managed-csi", "ReadWriteMany")
    await create_pod(driver, "waits", "data", gpus=1)
    await driver.wait_for_event("ProvisioningFailed", "data")
    await driver.objects.delete("pods", "waits", "default", grace_period_seconds=0)
    await driver.create_pod("next", gpus=1)
    assert await driver.wait_until_bound("next") == "node-a"


@pytest.fixture
async def patient(registry: Any) -> AsyncIterator[ControllerManager]:
    """Controllers that wait ten minutes for a volume."""
    controllers = ControllerManager(registry, Settings(time_scale=1.0))
    await controllers.start()
    yield controllers
    await controllers.stop()


async def preempt_a_pod_that_waits_for_its_volume(driver: ClusterDriver) -> dict[str, Any]:
    """Let the pod ``waits`` lose the only GPU to another pod, which is returned. The claim ``data`` has no volume."""
    for name, value in (("low", 10), ("high", 1000)):
        await driver.objects.create("priorityclasses", {"metadata": {"name": name}, "value": value})
    external = {"provisioner": "example.com/nfs", "volumeBindingMode": "WaitForFirstConsumer"}
    await driver.objects.create("storageclasses", {"metadata": {"name": "slow"}, **external})
    await driver.create_node()
    await create_claim(driver, "data", "slow")
    await create_pod(driver, "waits", "data", gpus=1, priorityClassName="low")
    await driver.wait_for_event("ExternalProvisioning", "data")
    urgent = await driver.create_pod("urgent", gpus=1, priorityClassName="high")
    assert await driver.wait_until_bound("urgent") == "node-a"
    return urgent


async def provide_a_volume(driver: ClusterDriver) -> None:
    await driver.objects.patch("persistentvolumeclaims", "data", {"spec": {"volumeName": "given"}}, "default")
    await wait_until_claim_is_bound(driver, "data")


async def wait_for_another_pod(driver: ClusterDriver, name: str) -> None:
    """Create a pod and wait until it is bound, so that the scheduler has handled the earlier changes."""
    await driver.create_pod(name)
    await driver.wait_until_bound(name)


async def test_a_pod_that_is_preempted_while_it_waits_for_its_volume(
    driver: ClusterDriver, patient: ControllerManager
) -> None:
    """It does not get the node's GPU back when the volume exists."""
    urgent = await preempt_a_pod_that_waits_for_its_volume(driver)
    await provide_a_volume(driver)
    await wait_for_another_pod(driver, "later")
    assert not (await driver.objects.get("pods", "waits", "default"))["spec"].get("nodeName")
    await driver.end_pod(urgent)
    assert await driver.wait_until_bound("waits") == "node-a"


async def test_a_preempted_pod_is_bound_once(
    driver: ClusterDriver, patient: ControllerManager, caplog: pytest.LogCaptureFixture
) -> None:
    """The node gets a second GPU, so the pod is assigned to it again before its volume exists."""
    await preempt_a_pod_that_waits_for_its_volume(driver)
    amounts = {"status": {"allocatable": {"nvidia.com/gpu": "2"}}}
    await driver.objects.patch("nodes", "node-a", amounts, subresource="status")
    await wait_for_another_pod(driver, "later")
    await provide_a_volume(driver)
    assert await driver.wait_until_bound("waits") == "node-a"
    await wait_for_another_pod(driver, "last")
    assert "already assigned" not in caplog.text


class OtherWriter(InterruptedWatches):
    """Lets another client add a finalizer to a claim just before a controller patches a claim for the first time."""

    has_written = False

    async def call(self, request: Request) -> Object:
        if (request.verb, request.resource) == ("patch", "persistentvolumeclaims") and not self.has_written:
            self.has_written = True
            patch = {"metadata": {"finalizers": ["example.com/keep"]}}
            await self._objects.patch(request.resource, str(request.name), patch, request.namespace)
        return await super().call(request)


async def test_a_finalizer_that_another_client_adds_is_kept(driver: ClusterDriver, registry: Any) -> None:
    controllers = ControllerManager(OtherWriter(registry), Settings(time_scale=0.001))
    await controllers.start()
    try:
        await create_claim(driver, "data", "azurefile-csi")
        claim = await wait_until_claim_is_bound(driver, "data")
        assert claim["metadata"]["finalizers"] == ["example.com/keep", "kubernetes.io/pvc-protection"]
    finally:
        await controllers.stop()
