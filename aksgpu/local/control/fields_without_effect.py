"""Fields of Services, DaemonSets and claims that the laptop does not act on. An event names them.

The fields of pods are in :mod:`aksgpu.local.node.ignored_fields`.
"""

from __future__ import annotations

from collections.abc import Iterable

from aksgpu.local.objects import Object

__all__ = ["REASON", "message", "of_claim", "of_daemon_set", "of_service", "of_volume"]

REASON = "FieldsWithoutEffect"
_SERVICE_FIELDS = (
    "externalIPs",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "trafficDistribution",
)
_SERVICE_DEFAULTS = {
    "externalTrafficPolicy": "Cluster",
    "internalTrafficPolicy": "Cluster",
    "sessionAffinity": "None",
    "type": "ClusterIP",
}
_CLAIM_FIELDS = ("dataSource", "dataSourceRef", "selector", "volumeAttributesClassName")
_STORAGE_CLASS_FIELDS = ("allowedTopologies", "mountOptions")
_BUILT_IN = "kubernetes.io/cluster-service"
"""The label of the StorageClasses that every cluster has."""
_SKU_PARAMETERS = ("skuname", "storageaccounttype")
"""The parameters of a StorageClass that have an effect, in lower case: a disk may be zone-redundant."""


def message(paths: Iterable[str]) -> str:
    """Return the text of the event."""
    return f"The laptop AKS does not act on {', '.join(paths)}. A real cluster does"


def of_service(service: Object) -> list[str]:
    """Return the fields of a Service that have no effect. They are about addresses outside of pods."""
    spec = service["spec"]
    found = [field for field in _SERVICE_FIELDS if spec.get(field)]
    found += [field for field, default in _SERVICE_DEFAULTS.items() if spec.get(field, default) != default]
    return [f"spec.{field}" for field in sorted(found)]


def of_daemon_set(daemon_set: Object) -> list[str]:
    """Return the fields of a DaemonSet that have no effect."""
    spec = daemon_set["spec"]
    found = ["spec.minReadySeconds"] if spec.get("minReadySeconds") else []
    rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
    if rolling.get("maxSurge", 0) not in (0, "0%"):
        found.append("spec.updateStrategy.rollingUpdate.maxSurge")
    return found


def of_claim(claim: Object) -> list[str]:
    """Return the fields of a PersistentVolumeClaim for which an empty volume would be a wrong one."""
    return [f"spec.{field}" for field in _CLAIM_FIELDS if claim["spec"].get(field)]


def of_volume(claim: Object, storage_class: Object) -> list[str]:
    """Return the fields of a PersistentVolumeClaim and of its StorageClass that its volume does not follow.

    The fields of the classes that every cluster has are left out, because no user has written them.
    """
    found = ["spec.accessModes ReadWriteOncePod"] if "ReadWriteOncePod" in claim["spec"].get("accessModes", ()) else []
    if _BUILT_IN in (storage_class["metadata"].get("labels") or {}):
        return found
    found += [f"{field} of the class" for field in _STORAGE_CLASS_FIELDS if storage_class.get(field)]
    if storage_class.get("reclaimPolicy", "Delete") != "Delete":
        found.append("reclaimPolicy of the class")
    parameters = sorted(storage_class.get("parameters") or ())
    found += [f"parameters.{name} of the class" for name in parameters if name.lower() not in _SKU_PARAMETERS]
    return found
