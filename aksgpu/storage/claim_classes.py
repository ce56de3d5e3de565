"""The StorageClasses of a cluster: which one serves a claim, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from aksgpu.common.kubernetes_objects import Object
from aksgpu.errors import Forbidden, InvalidInput, NotFound
from aksgpu.kube.client import HasKube

__all__ = ["StorageClass", "choose", "read_classes", "usd_per_day"]

FILES = "file.csi.azure.com"
DISKS = "disk.csi.azure.com"
_SHARED = (FILES, "nfs.csi.k8s.io", "blob.csi.azure.com", "cephfs.csi.ceph.com", "efs.csi.aws.com")
"""Provisioners whose volumes several pods on several nodes can use."""
_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_DAYS_PER_MONTH = 730 / 24
"""Azure's monthly prices count 730 hours."""
_DISK_USD = {4: 0.30, 8: 0.60, 16: 1.20, 32: 2.40, 64: 4.80, 128: 9.60, 256: 19.20, 512: 38.40, 1024: 76.80}
"""US dollars a month of a Standard SSD disk (LRS) up to this size in GiB, as listed for East US. Above: per GiB."""
_DISK_USD_PER_GIB = 0.075
_PREMIUM_DISK_USD_PER_GIB = 0.15
_FILES_USD_PER_GIB = 0.06
_PREMIUM_FILES_USD_PER_GIB = 0.16
_LEAST_PREMIUM_FILES = 100
"""GiB that a premium file share has at least."""
_ZRS_FACTOR = 1.5


class StorageClass(NamedTuple):
    """A class of the cluster.

    Attributes:
        name: name of the class.
        provisioner: the driver that makes its volumes; empty if unknown.
        parameters: of the driver, with names in lower case.
        default: whether claims without a class get it.
        waits: whether a volume is made for the node of its first pod.
    """

    name: str
    provisioner: str
    parameters: Mapping[str, str]
    default: bool = False
    waits: bool = False


_DOCUMENTED = (
    StorageClass("azurefile-csi", FILES, {"skuname": "Standard_LRS"}),
    StorageClass("azurefile-csi-premium", FILES, {"skuname": "Premium_LRS"}),
    StorageClass("managed-csi", DISKS, {"skuname": "StandardSSD_LRS"}, waits=True),
    StorageClass("managed-csi-premium", DISKS, {"skuname": "Premium_LRS"}, waits=True),
    StorageClass("default", DISKS, {"skuname": "StandardSSD_LRS"}, default=True, waits=True),
)
"""Classes that AKS' documentation lists, for users who may not read them."""


def read_classes(aks: HasKube) -> tuple[list[StorageClass], bool]:
    """Return the cluster's classes, and whether they were read. If not, they are those of AKS' documentation."""
    try:
        return [_read(each) for each in aks.kube.list("StorageClass")], True
    except (Forbidden, NotFound):
        return list(_DOCUMENTED), False


def _read(obj: Object) -> StorageClass:
    metadata = obj["metadata"]
    annotations = metadata.get("annotations") or {}
    return StorageClass(
        metadata["name"],
        obj["provisioner"],
        {key.lower(): str(value) for key, value in (obj.get("parameters") or {}).items()},
        annotations.get(_DEFAULT) == "true",
        obj.get("volumeBindingMode") == "WaitForFirstConsumer",
    )


def choose(classes: list[StorageClass], *, shared: bool, name: str | None) -> StorageClass:
    """Return the class for a new claim.

    Args:
        classes: the cluster's classes.
        shared: whether several pods use the claim at the same time.
        name: the class that the user asks for; None for a suitable one.

    Raises:
        InvalidInput: the class does not exist, or no class serves the claim.
    """
    names = ", ".join(sorted(each.name for each in classes)) or "none"
    if name is not None:
        for each in classes:
            if each.name == name:
                if shared and each.provisioner == DISKS:
                    raise InvalidInput(
                        f"`storage_class` must serve several pods if the claim is shared, got {name!r}: an Azure disk "
                        "serves one node",
                        hint="Pass shared=False, or storage_class='azurefile-csi'.",
                    )
                return each
        raise InvalidInput(
            f"`storage_class` must be a class of the cluster, got {name!r}", hint=f"The cluster has: {names}."
        )
    preferred = "azurefile-csi" if shared else "managed-csi"
    found = [each for each in classes if each.name == preferred]
    if shared:
        found += [each for each in classes if each.provisioner in _SHARED]
    else:
        found += [each for each in classes if each.default]
        found += [each for each in classes if each.provisioner not in _SHARED]
    if not found:
        kind = "several pods at the same time" if shared else "a pod"
        raise InvalidInput(
            f"`storage_class` must be given, because no class of the cluster is known to serve {kind}",
            hint=f"The cluster has: {names}." + (" For one pod at a time, pass shared=False." if shared else ""),
        )
    return found[0]


def usd_per_day(storage: StorageClass | None, size_gb: float) -> float | None:
    """Return an estimate of a volume's cost in US dollars per day, at the list prices of East US; None if not known.

    A standard file share costs what is stored on it. The price is that of a full one, without its transactions.
    """
    if storage is None:
        return None
    sku = (storage.parameters.get("skuname") or storage.parameters.get("storageaccounttype") or "").lower()
    is_premium = sku.startswith("premium")
    if storage.provisioner == FILES:
        monthly = size_gb * _FILES_USD_PER_GIB
        if is_premium:
            monthly = max(size_gb, _LEAST_PREMIUM_FILES) * _PREMIUM_FILES_USD_PER_GIB
    elif storage.provisioner == DISKS:
        size = next((each for each in _DISK_USD if size_gb <= each), None)
        standard = size_gb * _DISK_USD_PER_GIB if size is None else _DISK_USD[size]
        monthly = (size or size_gb) * _PREMIUM_DISK_USD_PER_GIB if is_premium else standard
    else:
        return None
    if sku.endswith("_zrs"):
        monthly *= _ZRS_FACTOR
    return round(monthly / _DAYS_PER_MONTH, 4)
