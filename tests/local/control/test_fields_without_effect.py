"""Fields of Services, DaemonSets and claims that have no effect: an event names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aksgpu.local.control import ControllerManager, fields_without_effect

if TYPE_CHECKING:
    from tests.local.control.conftest import ClusterDriver

TEXT = "The laptop AKS does not act on {}. A real cluster does"


@pytest.mark.parametrize(
    ("spec", "paths"),
    [
        ({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}, []),
        ({"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"}, ["spec.type"]),
        ({"sessionAffinity": "ClientIP", "externalIPs": ["1.2.3.4"]}, ["spec.externalIPs", "spec.sessionAffinity"]),
        ({"type": "ExternalName", "externalName": "example.com"}, ["spec.type"]),
    ],
)
def test_fields_of_a_service(spec: dict[str, Any], paths: list[str]) -> None:
    assert fields_without_effect.of_service({"spec": spec}) == paths


@pytest.mark.parametrize(
    ("spec", "paths"),
    [
        ({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}, []),
        ({"updateStrategy": {"type": "OnDelete"}, "minReadySeconds": 0}, []),
        (
            {"minReadySeconds": 5, "updateStrategy": {"rollingUpdate": {"maxSurge": "10%"}}},
            ["spec.minReadySeconds", "spec.updateStrategy.rollingUpdate.maxSurge"],
        ),
    ],
)
def test_fields_of_a_daemon_set(spec: dict[str, Any], paths: list[str]) -> None:
    assert fields_without_effect.of_daemon_set({"spec": spec}) == paths


async def test_an_event_of_a_service(driver: ClusterDriver, controllers: ControllerManager) -> None:
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}]}
    await driver.objects.create("services", {"metadata": {"name": "web"}, "spec": spec}, "default")
    event = await driver.wait_for_event(fields_without_effect.REASON, "web")
    assert event["message"] == TEXT.format("spec.type")


async def test_an_event_of_a_daemon_set(driver: ClusterDriver, controllers: ControllerManager) -> None:
    labels = {"app": "plugin"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "plugin"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": template, "minReadySeconds": 5}
    await driver.objects.create("daemonsets", {"metadata": {"name": "plugin"}, "spec": spec}, "default")
    event = await driver.wait_for_event(fields_without_effect.REASON, "plugin")
    assert event["message"] == TEXT.format("spec.minReadySeconds")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dataSource", {"kind": "PersistentVolumeClaim", "name": "other"}),
        ("selector", {"matchLabels": {"disk": "fast"}}),
        ("volumeAttributesClassName", "gold"),
    ],
)
async def test_a_claim_that_asks_for_more_than_an_empty_volume(
    driver: ClusterDriver, controllers: ControllerManager, field: str, value: Any
) -> None:
    spec = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "azurefile-csi",
        "resources": {"requests": {"storage": "1Gi"}},
        field: value,
    }
    await driver.objects.create("persistentvolumeclaims", {"metadata": {"name": "data"}, "spec": spec}, "default")
    event = await driver.wait_for_event("ProvisioningFailed", "data")
    failed = 'failed to provision volume with StorageClass "azurefile-csi": '
    assert event["message"] == failed + TEXT.format(f"spec.{field}")
    claim = await driver.objects.get("persistentvolumeclaims", "data", "default")
    assert claim["status"]["phase"] == "Pending"


@pytest.mark.parametrize("name", ["default", "managed-csi-premium", "azurefile-csi"])
async def test_the_classes_of_aks_have_no_such_fields(driver: ClusterDriver, name: str) -> None:
    storage_class = await driver.objects.get("storageclasses", name)
    assert fields_without_effect.of_volume({"spec": {"accessModes": ["ReadWriteOnce"]}}, storage_class) == []


async def test_an_event_of_a_claim_and_its_class(driver: ClusterDriver, controllers: ControllerManager) -> None:
    kept = {
        "metadata": {"name": "kept"},
        "provisioner": "file.csi.azure.com",
        "mountOptions": ["mfsymlinks"],
        "parameters": {"skuName": "Premium_LRS", "protocol": "nfs"},
        "reclaimPolicy": "Retain",
    }
    await driver.objects.create("storageclasses", kept)
    modes = ["ReadWriteOncePod"]
    spec = {"accessModes": modes, "storageClassName": "kept", "resources": {"requests": {"storage": "1Gi"}}}
    await driver.objects.create("persistentvolumeclaims", {"metadata": {"name": "data"}, "spec": spec}, "default")
    event = await driver.wait_for_event(fields_without_effect.REASON, "data")
    class_fields = ("mountOptions", "reclaimPolicy", "parameters.protocol")
    fields = ["spec.accessModes ReadWriteOncePod", *(f"{field} of the class" for field in class_fields)]
    assert event["message"] == TEXT.format(", ".join(fields))
