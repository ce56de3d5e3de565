"""Claims are created once, listed with their cost, and deleted; classes come from the cluster."""

from __future__ import annotations

from typing import Any

import pytest
from support.polling import wait_for

from aksgpu import errors, storage
from aksgpu.cluster import Cluster
from aksgpu.storage import claim_classes
from aksgpu.storage.claim_classes import StorageClass


def test_a_claim_is_created_once_and_returned_again(aks: Cluster) -> None:
    made = storage.create(aks, "once", size_gb=2)
    assert (made.name, made.size_gb, made.shared, made.storage_class) == ("once", 2, True, "azurefile-csi")
    again = storage.create(aks, "once", size_gb=2)
    assert (again.name, again.size_gb) == ("once", 2)
    for different, words in (
        ({"size_gb": 3}, "size_gb=2, not 3"),
        ({"size_gb": 2, "shared": False}, "shared=True, not False"),
        ({"size_gb": 2, "storage_class": "azurefile-csi-premium"}, "storage_class='azurefile-csi', not"),
    ):
        with pytest.raises(errors.AlreadyExists, match=words):
            storage.create(aks, "once", **different)  # type: ignore[arg-type]  # the values have several types
    storage.delete(aks, "once")
    storage.delete(aks, "once")
    assert "once" not in set(storage.list(aks)["claim"])


def test_claims_are_listed_with_dtypes_and_cost(aks: Cluster) -> None:
    storage.create(aks, "listed-disk", size_gb=64, shared=False)
    storage.create(aks, "listed-files", size_gb=100)
    found = storage.list(aks).set_index("claim")
    assert dict(found.dtypes.astype(str)) == {
        "size_gb": "Float64",
        "shared": "boolean",
        "storage_class": "string",
        "state": "string",
        "pods": "Int64",
        "usd_per_day": "Float64",
    }
    assert found.loc["listed-disk", "usd_per_day"] == pytest.approx(4.80 / 730 * 24, abs=0.001)
    assert found.loc["listed-files", "usd_per_day"] == pytest.approx(6.00 / 730 * 24, abs=0.001)
    assert found.loc["listed-disk", "state"] == "Pending"
    assert not found.loc["listed-disk", "shared"]
    for name in ("listed-disk", "listed-files"):
        storage.delete(aks, name)


def test_a_claim_that_a_pod_uses_is_not_deleted(aks: Cluster) -> None:
    storage.create(aks, "used", size_gb=1)
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "user-of-claim"},
        "spec": {
            "containers": [{"name": "main", "image": "busybox", "command": ["sleep", "600"]}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "used"}}],
        },
    }
    aks.kube.create(manifest)
    assert storage.list(aks).set_index("claim").loc["used", "pods"] == 1
    with pytest.raises(errors.Conflict, match="used by user-of-claim"):
        storage.delete(aks, "used")
    wait_for(lambda: storage.list(aks).set_index("claim").loc["used", "state"] == "Bound")
    aks.kube.delete("Pod", "user-of-claim")
    wait_for(lambda: aks.kube.find("Pod", "user-of-claim") is None, 60)
    storage.delete(aks, "used", timeout=60)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "No_Name"}, "`name` must be"),
        ({"name": "x", "size_gb": 0}, "`size_gb` must be an integer, 1 to"),
        ({"name": "x", "size_gb": 1.5}, "`size_gb` must be an integer"),
        ({"name": "x", "shared": "yes"}, "`shared` must be True or False, got 'yes'"),
        ({"name": "x", "storage_class": "A b"}, "`storage_class` must be the name of a StorageClass"),
        (
            {"name": "x", "storage_class": "none-such"},
            "`storage_class` must be a class of the cluster, got 'none-such'",
        ),
        ({"name": "x", "storage_class": "managed-csi"}, "an Azure disk serves one node"),
        ({"name": "x", "namespace": "A b"}, "`namespace` must be"),
    ],
)
def test_wrong_arguments_are_refused(aks: Cluster, options: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.InvalidInput, match=words):
        storage.create(aks, **options)


def test_a_missing_claim_is_named(aks: Cluster) -> None:
    with pytest.raises(errors.NotFound, match="has no claim 'missing'") as raised:
        storage.ls(aks, "missing")
    assert "storage.create(aks, 'missing'" in raised.value.hint


LOCAL_PATH = StorageClass("standard", "rancher.io/local-path", {}, default=True, waits=True)
NFS = StorageClass("nfs", "nfs.csi.k8s.io", {})


def test_the_class_of_another_kubernetes() -> None:
    assert claim_classes.choose([LOCAL_PATH, NFS], shared=True, name=None) == NFS
    assert claim_classes.choose([NFS, LOCAL_PATH], shared=False, name=None) == LOCAL_PATH
    with pytest.raises(errors.InvalidInput, match="no class of the cluster is known to serve several pods"):
        claim_classes.choose([LOCAL_PATH], shared=True, name=None)
    assert claim_classes.choose([LOCAL_PATH], shared=True, name="standard") == LOCAL_PATH


@pytest.mark.parametrize(
    ("provisioner", "sku", "size", "monthly"),
    [
        ("disk.csi.azure.com", "StandardSSD_LRS", 64, 4.80),
        ("disk.csi.azure.com", "StandardSSD_LRS", 65, 9.60),
        ("disk.csi.azure.com", "StandardSSD_ZRS", 64, 7.20),
        ("disk.csi.azure.com", "StandardSSD_LRS", 2048, 153.60),
        ("file.csi.azure.com", "Standard_LRS", 64, 3.84),
        ("file.csi.azure.com", "Premium_LRS", 64, 16.00),
    ],
)
def test_the_cost_of_a_claim(provisioner: str, sku: str, size: float, monthly: float) -> None:
    storage_class = StorageClass("x", provisioner, {"skuname": sku})
    assert claim_classes.usd_per_day(storage_class, size) == pytest.approx(monthly / 730 * 24, abs=0.001)


def test_the_cost_of_an_unknown_class_is_unknown() -> None:
    assert claim_classes.usd_per_day(None, 64) is None
    assert claim_classes.usd_per_day(LOCAL_PATH, 64) is None
