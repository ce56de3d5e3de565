"""The nodes on which a pod's volume claims allow it to run.

An Azure disk that is not zone-redundant can be attached only in its own zone. The claim's annotation
:data:`ZONE_ANNOTATION` replaces the node affinity of a PersistentVolume, which the laptop does not have.
"""

from __future__ import annotations

from typing import NamedTuple

from aksgpu.local.control.informer import Informer
from aksgpu.local.objects import Object

DISK_PROVISIONER = "disk.csi.azure.com"
FILE_PROVISIONER = "file.csi.azure.com"
PROVISIONER_ANNOTATION = "volume.kubernetes.io/storage-provisioner"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
"""The annotation with which the scheduler requests a volume that the pod's node can use."""
ZONE_ANNOTATION = "aksgpu.dev/disk-zone"
ZONE_LABEL = "topology.kubernetes.io/zone"

UNBOUND = "pod has unbound immediate PersistentVolumeClaims"
ZONE_CONFLICT = "node(s) had volume node affinity conflict"


class VolumeRequirements(NamedTuple):
    """The requirements that the claims of a pod have for its node."""

    problem: str = ""
    """The reason why no node can run the pod; empty if only the zones matter."""
    zones: tuple[str, ...] = ()
    """The zones of the pod's disks. A node must match all of them, so two zones exclude every node."""

    def allow(self, zone: str) -> bool:
        """Return whether a node in this zone can use the volumes."""
        return all(each == zone for each in self.zones)


def claim_keys(pod: Object) -> set[str]:
    """Return ``namespace/name`` of the claims that a pod uses."""
    namespace = pod["metadata"]["namespace"]
    keys: set[str] = set()
    for volume in pod["spec"].get("volumes") or ():
        claim = volume.get("persistentVolumeClaim")
        if claim:
            keys.add(f"{namespace}/{claim['claimName']}")
    return keys


def is_bound(claim: Object) -> bool:
    """Return whether a claim has a volume."""
    return (claim.get("status") or {}).get("phase") == "Bound"


def waits_for_pod(claim: Object, classes: Informer) -> bool:
    """Return whether the claim's volume is created when a pod needs it."""
    storage_class = classes.get(claim["spec"].get("storageClassName") or "")
    return storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"


def volume_requirements(pod: Object, claims: Informer, classes: Informer) -> VolumeRequirements:
    """Return the requirements that a pod's claims have for its node.

    Args:
        pod: the pod.
        claims: the informer of PersistentVolumeClaims.
        classes: the informer of StorageClasses.
    """
    zones: set[str] = set()
    for key in sorted(claim_keys(pod)):
        claim = claims.get(key)
        name = key.partition("/")[2]
        if claim is None:
            return VolumeRequirements(f'persistentvolumeclaim "{name}" not found')
        if claim["metadata"].get("deletionTimestamp"):
            return VolumeRequirements(f'persistentvolumeclaim "{name}" is being deleted')
        if not is_bound(claim) and not waits_for_pod(claim, classes):
            return VolumeRequirements(UNBOUND)
        zone = (claim["metadata"].get("annotations") or {}).get(ZONE_ANNOTATION)
        if zone is not None:
            zones.add(zone)
    return VolumeRequirements(zones=tuple(sorted(zones)))
