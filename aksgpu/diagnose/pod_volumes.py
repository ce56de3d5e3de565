"""Which claims and disks a pod uses, and in which availability zones the disks are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.cures import Cure
from aksgpu.diagnose.diagnosis import Rows
from aksgpu.diagnose.scheduling_texts import VOLUME_ZONE
from aksgpu.errors import NotFound
from aksgpu.kube import path_names
from aksgpu.kube.client import Object
from aksgpu.kube.node_facts import Node

__all__ = ["ZonedClaim", "claim_rows", "describe", "rows", "zone_cure", "zones"]

_ZONE_LABELS = (
    "topology.disk.csi.azure.com/zone",
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
)
"""Labels with a zone, in the order in which disks use them."""


@dataclass(frozen=True)
class ZonedClaim:
    """A claim whose volume is in certain zones.

    Attributes:
        claim: its name.
        volume: the name of its volume.
        zones: such as ``eastus-1``.
    """

    claim: str
    volume: str
    zones: tuple[str, ...]


def claim_names(pod: Object) -> list[str]:
    """Return the names of the claims that a pod uses."""
    volumes = pod["spec"].get("volumes") or ()
    return [volume["persistentVolumeClaim"]["claimName"] for volume in volumes if volume.get("persistentVolumeClaim")]


def zones(reader: ClusterReader, pod: Object) -> list[ZonedClaim]:
    """Return the pod's claims whose volumes are in certain zones. What cannot be read is left out and recorded."""
    found = []
    for name in claim_names(pod):
        claim = _find(reader, "PersistentVolumeClaim", name, pod["metadata"]["namespace"])
        volume_name = str(((claim or {}).get("spec") or {}).get("volumeName") or "")
        volume = _volume(reader, volume_name) if volume_name else None
        in_zones = _zones_of(volume or {})
        if in_zones:
            found.append(ZonedClaim(name, volume_name, in_zones))
    return found


def _volume(reader: ClusterReader, name: str) -> Object | None:
    """Return a PersistentVolume; None if there is none or it could not be read."""

    def fetch() -> Object | None:
        try:
            return reader.aks.kube.request("GET", f"/api/v1/persistentvolumes/{path_names.check_path_segment(name)}")
        except NotFound:
            return None

    return reader.attempt(f"volume {name}", fetch)


def _find(reader: ClusterReader, kind: str, name: str, namespace: str | None) -> Object | None:
    return reader.attempt(f"{kind} {name}", lambda: reader.aks.kube.find(kind, name, namespace))


def _zones_of(volume: Object) -> tuple[str, ...]:
    """Return the zones in which a volume can be used; empty if it can be used everywhere."""
    required = ((volume.get("spec") or {}).get("nodeAffinity") or {}).get("required") or {}
    found: list[str] = []
    for term in required.get("nodeSelectorTerms") or ():
        for expression in term.get("matchExpressions") or ():
            if expression.get("key") in _ZONE_LABELS:
                found += [value for value in expression.get("values") or () if value]
    return tuple(dict.fromkeys(found))


def zone_of(node: Node) -> str:
    """Return the zone of a node; empty if it has none."""
    return next((node.labels[label] for label in _ZONE_LABELS if node.labels.get(label)), "")


def describe(claims: Iterable[ZonedClaim], nodes: Iterable[Node]) -> str:
    """Return where the disks and the nodes are, as a sentence."""
    texts = [f"claim {claim.claim} is in zone {' or '.join(claim.zones)}" for claim in claims]
    if not texts:
        return "A disk of the pod is in another zone than the nodes; its zone could not be read."
    places = ", ".join(sorted({zone_of(node) or "no zone" for node in nodes})) or "no zone"
    return f"The disk of {' and of '.join(texts)}; the nodes that the pod could use are in: {places}."


def rows(claims: Iterable[ZonedClaim]) -> Rows:
    """Return the claims as evidence."""
    return tuple(
        (f"claim {claim.claim}", f"volume {claim.volume} in zone {', '.join(claim.zones)}") for claim in claims
    )


def zone_cure(claims: Iterable[ZonedClaim]) -> Cure:
    """Return what helps, with the volume's zone if it is known."""
    first = next((zone for claim in claims for zone in claim.zones), "")
    number = first.rpartition("-")[2]
    if not number.isdecimal():
        return VOLUME_ZONE
    return replace(
        VOLUME_ZONE,
        advice=VOLUME_ZONE.advice.replace('zones=["1"]', f'zones=["{number}"]').replace(
            "in the volume's zone", f"in the volume's zone {first}"
        ),
        python=VOLUME_ZONE.python.replace('zones=["1"]', f'zones=["{number}"]'),
    )


def claim_rows(reader: ClusterReader, pod: Object) -> Rows:
    """Return the state of the pod's claims as evidence."""
    found = []
    for name in claim_names(pod):
        claim = _find(reader, "PersistentVolumeClaim", name, pod["metadata"]["namespace"])
        if claim is None:
            text = "does not exist, or could not be read"
        else:
            phase = (claim.get("status") or {}).get("phase") or "not bound"
            text = f"{phase}, storage class {claim['spec'].get('storageClassName') or 'of the cluster'}"
        found.append((f"claim {name}", text))
    return tuple(found)
